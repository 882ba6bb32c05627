//! What is done to the pair, one event after the other, and what is noted of each.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use hotpair_lab::load::now_ns;
use hotpair_lab::node::Pair;
use hotpair_lab::session::Codes;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::json;

use super::LIMIT;
use super::counters::Counters;
use super::outside::{Outside, Seen};

/// Calm before and after each event, so that its gap stands alone in the client's log.
const CALM: Duration = Duration::from_millis(700);

/// One thing that was done.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) at_ns: i64,
    pub(super) until_ns: i64,
    /// The node whose process it ended.
    pub(super) ended: Option<String>,
    /// The epochs before and after.
    pub(super) epochs: (u64, u64),
    /// Who serves afterwards.
    pub(super) master: String,
    /// Sessions alive afterwards, of those that logged in at the beginning.
    pub(super) sessions: (usize, usize),
    /// What clients were answered meanwhile, by error number.
    pub(super) codes: BTreeMap<String, u64>,
    /// The external investment system afterwards.
    pub(super) outside: Seen,
}

/// The story and what it acts on.
pub(super) struct Story<'a> {
    pair: &'a mut Pair,
    zookeeper: &'a mut ZooKeeper,
    counters: &'a Counters,
    codes: &'a Codes,
    outside: &'a Outside,
    say: &'a dyn Fn(&str),
    events: Vec<Event>,
}

impl<'a> Story<'a> {
    pub(super) fn new(
        pair: &'a mut Pair,
        zookeeper: &'a mut ZooKeeper,
        counters: &'a Counters,
        codes: &'a Codes,
        outside: &'a Outside,
        say: &'a dyn Fn(&str),
    ) -> Self {
        Self { pair, zookeeper, counters, codes, outside, say, events: Vec::new() }
    }

    pub(super) fn end(self) -> Vec<Event> {
        self.events
    }

    /// All events in order.
    pub(super) fn tell(&mut self) -> Result<()> {
        self.look_outside()?;
        self.planned_switch()?;
        self.kill()?;
        self.freeze()?;
        self.restart_zookeeper()
    }

    /// Before anything happens.
    fn look_outside(&self) -> Result<()> {
        let seen = self.outside.look(self.counters)?;
        self.tell_of_outside(&seen);
        Ok(())
    }

    fn tell_of_outside(&self, seen: &Seen) {
        let prices = seen.prices.map_or("does not change".to_owned(), |(before, after)| {
            format!("changes: {before}, {after}")
        });
        (self.say)(&format!(
            "  a price {prices}; heartbeats of {} of {} sessions went out",
            seen.heard.0, seen.heard.1
        ));
    }

    fn planned_switch(&mut self) -> Result<()> {
        let (master, epoch) = self.calm()?;
        let name = self.name(master);
        (self.say)(&format!("planned switch, ordered at {name} …"));
        self.wait_for_standby(1 - master)?;
        let at_ns = now_ns();
        let answer =
            self.pair.nodes[master].admin().post("/switchover", &json!({"dry_run": false}))?;
        let answer = answer.json()?;
        ensure!(answer["done"] == true, "the switchover was refused: {answer}");
        self.note("planned switch", at_ns, None, epoch, Some(1 - master))
    }

    fn kill(&mut self) -> Result<()> {
        let (master, epoch) = self.calm()?;
        let name = self.name(master);
        self.wait_for_standby(1 - master)?;
        (self.say)(&format!("kill -9 of {name} …"));
        let at_ns = now_ns();
        self.pair.nodes[master].kill()?;
        self.note("kill -9 of the master", at_ns, Some(name.clone()), epoch, Some(1 - master))?;
        (self.say)(&format!("  {name} is started again"));
        self.pair.nodes[master].start_and_wait()?;
        self.wait_for_standby(master)
    }

    fn freeze(&mut self) -> Result<()> {
        let (master, epoch) = self.calm()?;
        let name = self.name(master);
        self.wait_for_standby(1 - master)?;
        (self.say)(&format!("freeze of {name} (SIGSTOP) …"));
        let at_ns = now_ns();
        self.pair.nodes[master].freeze()?;
        self.note("freeze of the master", at_ns, None, epoch, Some(1 - master))?;
        let (_, epoch) = self.calm()?;
        (self.say)(&format!("{name} wakes up (SIGCONT) …"));
        let at_ns = now_ns();
        self.pair.nodes[master].thaw()?;
        self.wait_for_standby(master)?;
        self.note("return of the frozen", at_ns, None, epoch, Some(1 - master))
    }

    fn restart_zookeeper(&mut self) -> Result<()> {
        let (_, epoch) = self.calm()?;
        (self.say)("restart of ZooKeeper (kill -9, start) …");
        let at_ns = now_ns();
        self.zookeeper.kill(0)?;
        self.zookeeper.start_again(0)?;
        self.zookeeper.wait_until_serving()?;
        for node in &self.pair.nodes {
            let admin = node.admin();
            eventually(LIMIT, "the nodes are back at ZooKeeper", || {
                let role = admin.get_json("/role")?;
                ensure!(role["contact"] == "connected", "{role}");
                Ok(())
            })?;
        }
        self.note("restart of ZooKeeper", at_ns, None, epoch, None)
    }

    /// Waits until one node serves, and a moment more.
    fn calm(&mut self) -> Result<(usize, u64)> {
        let master = self.pair.wait_for_master(LIMIT)?;
        std::thread::sleep(CALM);
        Ok((master, self.pair.nodes[master].role()?.epoch))
    }

    fn wait_for_standby(&self, node: usize) -> Result<()> {
        let admin = self.pair.nodes[node].admin();
        eventually(LIMIT, "the node stands by", || {
            let role = admin.get_json("/role")?;
            ensure!(
                role["role"] == "standby"
                    && role["contact"] == "connected"
                    && role["in_sync"] == true
                    && role["peer"]["reachable"] == true,
                "{role}"
            );
            Ok(())
        })
    }

    fn note(
        &mut self,
        name: &'static str,
        at_ns: i64,
        ended: Option<String>,
        epoch: u64,
        expected: Option<usize>,
    ) -> Result<()> {
        let master = eventually(LIMIT, "the expected node serves", || {
            let master = self.pair.serving();
            match (expected, &master[..]) {
                (Some(expected), [one]) if *one == expected => Ok(*one),
                (None, [one]) => Ok(*one),
                _ => anyhow::bail!("serving: {master:?}"),
            }
        })?;
        std::thread::sleep(CALM);
        let event = Event {
            name,
            at_ns,
            until_ns: now_ns(),
            ended,
            epochs: (epoch, self.pair.nodes[master].role()?.epoch),
            master: self.name(master),
            sessions: self.counters.alive(),
            codes: self.codes.take(),
            outside: self.outside.look(self.counters)?,
        };
        (self.say)(&format!(
            "  {} serves in epoch {} (before: {}); {} of {} sessions alive",
            event.master, event.epochs.1, event.epochs.0, event.sessions.0, event.sessions.1
        ));
        self.tell_of_outside(&event.outside);
        self.events.push(event);
        Ok(())
    }

    fn name(&self, node: usize) -> String {
        self.pair.nodes[node].settings.node.clone()
    }
}
