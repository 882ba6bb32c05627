//! A master that stands still with a batch in flight, and wakes when another one has taken over,
//! changes nothing in PostgreSQL: at no step of a transaction. With a fence that is looked at instead of
//! being a condition of the write, planted in the real binary, it does, and this test sees it.
//!
//! Three runs, one a step; `HOTPAIR_SOAK=1` (`make soak`) twenty. Needs the binary that knows the bug
//! and the steps (`make planted`; `make test` builds it first).

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hotpair_integration_tests::rows::Client;
use hotpair_integration_tests::sql::{in_memory, in_postgres, reaches, same};
use hotpair_integration_tests::steps::{LIMIT, argument, serves};
use hotpair_integration_tests::table_lab::{Options, Planted, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::postgres::Postgres;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;

/// Before the transaction; after its fence; with everything written but the commit.
const STEPS: [&str; 3] = ["store.batch", "store.fenced", "store.written"];
const SOAK_RUNS: usize = 20;
/// The planted bug has so many chances to show.
const TRIES: usize = 3;
/// The database writes down who changed what.
const WATCH: &str = "
CREATE TABLE watched (id bigserial, who text, what text);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO watched (who, what) VALUES (current_setting('application_name'), TG_TABLE_NAME);
  RETURN NULL;
END $$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON hotpair_rows
  FOR EACH ROW EXECUTE FUNCTION watch();
CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON hotpair_store
  FOR EACH ROW EXECUTE FUNCTION watch();
";

struct Scene {
    server: Postgres,
    lab: TableLab,
    client: Client,
    stop_at: PathBuf,
    _scratch: Scratch,
}

impl Scene {
    fn set(planted: Planted) -> Self {
        let server = Postgres::start().unwrap();
        let scratch = Scratch::new("store-fence").unwrap();
        let stop_at = scratch.join("stop-at");
        let more = format!("[store]\nurl = {:?}\n", server.url());
        let environment =
            vec![("HOTPAIR_STOP_AT".to_owned(), argument(&stop_at).unwrap().to_owned())];
        let planted = Some(planted);
        let more = [more.clone(), more];
        let options = Options { planted, environment, more, ..Options::default() };
        let lab = TableLab::new(&options).unwrap();
        let client = Client::of(&lab.pair, &lab.user).unwrap();
        reaches(&lab.pair.nodes[lab.master().unwrap()], "current").unwrap();
        server.ask(WATCH).unwrap();
        Self { server, lab, client, stop_at, _scratch: scratch }
    }

    /// What this node has changed in the database so far.
    fn changes_of(&self, node: usize) -> Result<u64> {
        let name = &self.lab.pair.nodes[node].settings.node;
        let pair = &self.lab.pair.nodes[node].settings.pair;
        let count = format!("SELECT count(*) FROM watched WHERE who = 'hotpair {pair} {name}'");
        self.server.ask(&count)?.parse().context("a count")
    }

    /// Whether the frozen master changed nothing after it was overtaken.
    fn play(&mut self, step: &str, run: usize) -> Result<bool> {
        let master = self.lab.in_sync()?;
        let standby = 1 - master;
        let epoch = self.lab.epoch(master)?;
        self.client.put("row", &format!("before {run}"))?;
        reaches(&self.lab.pair.nodes[master], "current")?;
        let id = self.lab.pair.nodes[master].process()?.id();
        // Written elsewhere first: half a line is no order.
        let draft = self.stop_at.with_extension("draft");
        std::fs::write(&draft, format!("{step} freeze {id}"))?;
        std::fs::rename(&draft, &self.stop_at)?;
        // Its batch is in flight when it stands still; whether its answer came out is another matter.
        let _ = self.client.put_at(master, "row", &format!("in flight {run}"));
        let node = &mut self.lab.pair.nodes[master];
        eventually(LIMIT, "the master stands still", || {
            ensure!(node.process()?.is_frozen()?, "it runs");
            Ok(())
        })?;
        let newer = serves(&self.lab.pair, standby)?;
        ensure!(newer > epoch, "epoch {newer} after {epoch}");
        self.client.put("row", &format!("after {run}"))?;
        self.client.put(&format!("another row {run}"), "of the new master")?;
        let database = || in_postgres(&self.server);
        same(&self.client, &["state"], &database)?;
        let fence = self.server.ask("SELECT epoch FROM hotpair_store")?;
        ensure!(fence == newer.to_string(), "the fence stands at {fence}, the epoch is {newer}");
        let before = self.changes_of(master)?;
        self.lab.thaw(master)?;
        // It has found out for itself, and follows: whatever it was about to do is done.
        self.lab.in_sync()?;
        reaches(&self.lab.pair.nodes[master], "idle")?;
        let unchanged = self.changes_of(master)? == before;
        Ok(unchanged && in_postgres(&self.server)? == in_memory(&self.client, &["state"])?)
    }
}

#[test]
fn a_frozen_master_with_a_batch_in_flight_changes_nothing_once_it_wakes() {
    let _turn = Turn::alone().unwrap();
    let mut scene = Scene::set(Planted::Nothing);
    let runs = if std::env::var_os("HOTPAIR_SOAK").is_some() { SOAK_RUNS } else { STEPS.len() };
    for run in 0..runs {
        let step = STEPS[run % STEPS.len()];
        let unchanged = scene.play(step, run);
        assert!(
            unchanged.unwrap_or_else(|error| panic!("{step}, run {run}: {error:#}")),
            "{step}, run {run}: the old master wrote after the new one"
        );
    }
}

#[test]
fn a_fence_that_is_only_looked_at_is_found() {
    let _turn = Turn::alone().unwrap();
    let mut scene = Scene::set(Planted::Bug("store-fence-by-select"));
    // A busy machine may miss a moment.
    let found = (0..TRIES).any(|run| !scene.play("store.fenced", run).unwrap());
    assert!(found, "the planted bug was not found in {TRIES} runs");
}
