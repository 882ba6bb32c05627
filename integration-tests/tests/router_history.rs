//! Fault runs behind routers: clients that know two routers and no node use the tables while the pair is
//! broken in drawn ways, and one of the routers is killed as well. Nothing acknowledged is lost, nothing
//! is done twice, nobody logs in again; whoever asks the router that lives is always answered, with a
//! documented number.
//!
//! Three runs; `HOTPAIR_SOAK=1` (`make soak`) thirty. `HOTPAIR_SEED=n` replays one plan.

use std::env;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use hotpair_integration_tests::faults::{Kind, Planned, carry_out, draw};
use hotpair_integration_tests::steps::LIMIT;
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::{Enough, Report};
use hotpair_lab::dice::Dice;
use hotpair_lab::router::Router;
use hotpair_lab::session::{Codes, NO_ANSWER, is_documented};
use hotpair_lab::table_load::Plan;
use hotpair_lab::wait::eventually;

const RUNS: u64 = 3;
const SOAK_RUNS: u64 = 30;
const CLIENTS: usize = 6;
/// Far fewer than there are in an undisturbed second.
const ACKNOWLEDGED_MIN: u64 = 100;
/// Longer than a router holds anything; who has no answer by then was left alone.
const ATTEMPT_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

fn seeds() -> Vec<u64> {
    match env::var("HOTPAIR_SEED") {
        Ok(seed) => vec![seed.parse().unwrap_or_else(|_| panic!("{seed} is no number"))],
        Err(_) if env::var_os("HOTPAIR_SOAK").is_some() => (0..SOAK_RUNS).collect(),
        Err(_) => (0..RUNS).collect(),
    }
}

fn run(seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let faults = draw(seed, &mut dice);
    let relays = faults.iter().any(|planned| planned.kind == Kind::CutLink);
    let mut lab = TableLab::new(&Options { relays, ..Options::default() })?;
    let mut routers = [Router::before(&lab.pair)?, Router::before(&lab.pair)?];
    for router in &mut routers {
        router.start()?;
        router.wait_for("serves", |status| status["standing"] == "serving")?;
    }
    let told = match judge(&mut lab, &mut routers, &faults, dice.number()) {
        Ok(report) if report.is_good() && report.failed == 0 && report.unknown == 0 => {
            return Ok(());
        }
        Ok(report) => report.to_string(),
        Err(error) => format!("{error:#}"),
    };
    let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let kept = lab.keep(&format!("router-seed-{seed}"))?;
    let status = routers[1].status();
    bail!("{}: {told}\n{status:?}\n{}\nkept in {}", names.join(", "), lab.tails(), kept.display())
}

fn judge(
    lab: &mut TableLab,
    routers: &mut [Router; 2],
    faults: &[Planned],
    seed: u64,
) -> Result<Report> {
    let codes = [Arc::<Codes>::default(), Arc::<Codes>::default()];
    let targets = [0, 1].map(|index| routers[index].target(ATTEMPT_LIMIT, &codes[index]));
    let user = lab.user.clone();
    let plan = Plan { clients: CLIENTS, threads: 2, watchers: 2, pause_ms_max: 30, seed, user };
    let load = lab.start_load_at(&targets, &plan)?;
    for planned in faults {
        // A router that dies takes nothing with it; its successor needs nobody's help.
        routers[0].kill()?;
        carry_out(lab, planned).with_context(|| planned.kind.name())?;
        routers[0].start()?;
    }
    lab.in_sync().context("after the last fault")?;
    let before = load.acknowledged();
    eventually(LIMIT, "the clients are served again", || {
        let since = load.acknowledged() - before;
        ensure!(since >= CLIENTS as u64, "only {since} changes");
        Ok(())
    })?;
    let requests = load.stop(LIMIT)?;
    let [killed, alive] = codes.map(|codes| codes.take());
    let bad = alive.keys().find(|code| !is_documented(code));
    ensure!(bad.is_none(), "the router that lived answered {alive:?}");
    let bad = killed.keys().find(|code| !is_documented(code) && *code != NO_ANSWER);
    ensure!(bad.is_none(), "the router that was killed answered {killed:?}");
    let kinds = faults.iter().map(|planned| planned.kind);
    let epochs_min = 1 + kinds.clone().filter(|kind| kind.elects()).count();
    let planned = kinds.map(|kind| kind.name().to_owned()).collect();
    lab.judge(requests, &Enough { planned, acknowledged_min: ACKNOWLEDGED_MIN, epochs_min })
}

#[test]
fn behind_routers_nothing_is_lost_or_done_twice_whatever_dies() {
    let _turn = Turn::alone().unwrap();
    for seed in seeds() {
        run(seed).with_context(|| format!("HOTPAIR_SEED={seed}")).unwrap();
    }
}
