//! Ten thousand sessions behind two routers, logged in once, live through planned switches and kills of
//! the master in a row: nobody logs in again, every counter ends at its acknowledged additions, and the
//! history of those that call all the time has nothing lost and nothing doubled.
//!
//! A thousand sessions through three of each; `HOTPAIR_SOAK=1` (`make soak`) ten thousand through fifty.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_client::{Client, Session};
use hotpair_integration_tests::steps::{LIMIT, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::checker::Enough;
use hotpair_lab::router::Router;
use hotpair_lab::session::Codes;
use hotpair_lab::table_load::Plan;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Sessions that call without a pause; the others look by now and then.
const BUSY: usize = 32;
/// Logins under way at a time: each costs the master a password's hash.
const LOGINS: usize = 16;
/// Calls under way at a time when every session calls once.
const AT_ONCE: usize = 256;
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

fn sizes() -> (usize, usize) {
    if env::var_os("HOTPAIR_SOAK").is_some() { (10_000, 50) } else { (1_000, 3) }
}

/// A session and how often it has counted.
struct Member {
    session: Session,
    row: String,
    acknowledged: AtomicU64,
}

impl Member {
    async fn count(&self) -> Result<()> {
        let add = json!({"table": "members", "key": self.row, "by": 1});
        let sum: Value = self.session.call(1006, add).await?;
        let own = self.acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
        ensure!(sum["value"].as_u64() == Some(own), "{}: {sum} after {own} additions", self.row);
        ensure!(self.session.logins() == 1, "{} logged in again", self.row);
        Ok(())
    }
}

async fn log_in(client: Client, user: (String, String), count: usize) -> Result<Vec<Arc<Member>>> {
    let places = Arc::new(Semaphore::new(LOGINS));
    let mut under_way = JoinSet::new();
    for number in 0..count {
        let (client, user, places) = (client.clone(), user.clone(), places.clone());
        under_way.spawn(async move {
            let _place = places.acquire().await?;
            let session = client.log_in(&user.0, &user.1).await?;
            let acknowledged = AtomicU64::new(0);
            anyhow::Ok(Arc::new(Member { session, row: format!("member-{number}"), acknowledged }))
        });
    }
    let mut members = Vec::with_capacity(count);
    while let Some(member) = under_way.join_next().await {
        members.push(member??);
    }
    Ok(members)
}

async fn count_once(members: &[Arc<Member>]) -> Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    for member in members {
        let (member, places) = (Arc::clone(member), Arc::clone(&places));
        under_way.spawn(async move {
            let _place = places.acquire().await?;
            member.count().await
        });
    }
    while let Some(counted) = under_way.join_next().await {
        counted??;
    }
    Ok(())
}

/// Some sessions count all the time.
struct Busy<'a> {
    members: &'a [Arc<Member>],
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<()>>,
}

impl<'a> Busy<'a> {
    fn start(runtime: &Runtime, members: &'a [Arc<Member>]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        for member in members {
            let (member, stop) = (Arc::clone(member), Arc::clone(&stop));
            let counting = async move {
                while !stop.load(Ordering::SeqCst) {
                    member.count().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            };
            tasks.spawn_on(counting, runtime.handle());
        }
        Self { members, stop, tasks }
    }

    fn counts(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.acknowledged.load(Ordering::SeqCst)).collect()
    }

    /// Waits until each of them has counted on.
    fn go_on(&self) -> Result<()> {
        let before = self.counts();
        eventually(LIMIT, "every busy session counts on", || {
            let now = self.counts();
            let behind = before.iter().zip(&now).filter(|(before, now)| *now <= *before).count();
            ensure!(behind == 0, "{behind} have not");
            Ok(())
        })
    }

    fn end(mut self, runtime: &Runtime) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = runtime.block_on(self.tasks.join_next()) {
            ended??;
        }
        Ok(())
    }
}

fn kill_the_master(lab: &mut TableLab) -> Result<()> {
    let master = lab.in_sync()?;
    lab.kill(master)?;
    serves(&lab.pair, 1 - master)?;
    lab.start(master)?;
    lab.in_sync().map(drop)
}

#[test]
fn every_session_lives_through_switches_and_kills_in_a_row() {
    let _turn = Turn::alone().unwrap();
    let (count, faults) = sizes();
    let mut lab = TableLab::new(&Options::default()).unwrap();
    let mut routers = [Router::before(&lab.pair).unwrap(), Router::before(&lab.pair).unwrap()];
    for router in &mut routers {
        router.start().unwrap();
        router.wait_for("serves", |status| status["standing"] == "serving").unwrap();
    }
    let runtime = Runtime::new().unwrap();
    let targets = routers.each_ref().map(Router::address);
    let client = Client::builder().targets(targets).call_limit(LIMIT).build().unwrap();
    let user = (lab.user.name.clone(), lab.user.password.clone());
    let began = Instant::now();
    let members = runtime.block_on(log_in(client, user, count)).unwrap();
    print(&format!("{count} sessions logged in within {:.1?}", began.elapsed()));

    let codes = Arc::<Codes>::default();
    let targets = routers.each_ref().map(|router| router.target(ATTEMPT_LIMIT, &codes));
    let plan = Plan {
        clients: 4,
        threads: 2,
        watchers: 1,
        pause_ms_max: 30,
        seed: 1,
        user: lab.user.clone(),
    };
    let load = lab.start_load_at(&targets, &plan).unwrap();
    let busy = Busy::start(&runtime, &members[..BUSY]);
    busy.go_on().unwrap();
    for round in 0..faults {
        lab.switch_over().with_context(|| format!("switch {round}")).unwrap();
        busy.go_on().with_context(|| format!("after switch {round}")).unwrap();
        kill_the_master(&mut lab).with_context(|| format!("kill {round}")).unwrap();
        busy.go_on().with_context(|| format!("after kill {round}")).unwrap();
        if (round + 1) % 10 == 0 || round + 1 == faults {
            runtime.block_on(count_once(&members[BUSY..])).unwrap();
            print(&format!("{} switches and as many kills: every session counts", round + 1));
        }
    }
    busy.end(&runtime).unwrap();
    // Each value was its session's own number of additions, at every single one of them.
    runtime.block_on(count_once(&members)).unwrap();
    assert!(members.iter().all(|member| member.session.logins() == 1));
    let requests = load.stop(LIMIT).unwrap();
    let epochs_min = 1 + 2 * faults;
    let planned = vec!["kill".to_owned()];
    let enough = Enough { planned, acknowledged_min: 100, epochs_min };
    let report = lab.judge(requests, &enough).unwrap();
    print(&report.to_string());
    assert!(report.is_good() && report.failed == 0 && report.unknown == 0, "{report}");
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs the test with --nocapture")]
fn print(figures: &str) {
    println!("{figures}");
}
