//! What a fault run does to a pair: drawn from a seed, carried out, and noted when it has happened.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use hotpair_lab::dice::Dice;
use hotpair_lab::load::now_ns;

use crate::steps::LIMIT;
use crate::table_lab::TableLab;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The master is killed and started again.
    KillMaster,
    /// The standby is killed and started again.
    KillStandby,
    /// The master is killed and started again, then whoever serves then.
    KillInTurn,
    /// The master is frozen for a while.
    FreezeMaster,
    /// The standby is frozen for a while.
    FreezeStandby,
    /// The mastership is moved in order.
    SwitchOver,
    /// ZooKeeper is killed and started again.
    RestartZooKeeper,
    /// Both nodes are killed at once and started again.
    KillBoth,
    /// Nothing passes between the nodes for a while.
    CutLink,
    /// The standby is killed, started again, killed while it catches up, and started again.
    KillCatchingUp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KillMaster,
        Self::KillStandby,
        Self::KillInTurn,
        Self::FreezeMaster,
        Self::FreezeStandby,
        Self::SwitchOver,
        Self::RestartZooKeeper,
        Self::KillBoth,
        Self::CutLink,
        Self::KillCatchingUp,
    ];

    /// What it is called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KillMaster => "kill the master",
            Self::KillStandby => "kill the standby",
            Self::KillInTurn => "kill one after the other",
            Self::FreezeMaster => "freeze the master",
            Self::FreezeStandby => "freeze the standby",
            Self::SwitchOver => "planned switch",
            Self::RestartZooKeeper => "restart ZooKeeper",
            Self::KillBoth => "kill both",
            Self::CutLink => "cut the link",
            Self::KillCatchingUp => "kill while catching up",
        }
    }

    /// Whether a new epoch follows from it for certain: the master's process ended, or it was told
    /// to leave.
    #[must_use]
    pub fn elects(self) -> bool {
        match self {
            Self::KillMaster | Self::KillInTurn | Self::SwitchOver | Self::KillBoth => true,
            Self::KillStandby
            | Self::FreezeMaster
            | Self::FreezeStandby
            | Self::RestartZooKeeper
            | Self::CutLink
            | Self::KillCatchingUp => false,
        }
    }

    fn lasts(self, dice: &mut Dice) -> Duration {
        match self {
            Self::FreezeMaster | Self::FreezeStandby => dice.between_ms(1_000, 6_000),
            Self::CutLink => dice.between_ms(300, 4_000),
            Self::RestartZooKeeper => dice.between_ms(100, 3_000),
            Self::KillMaster
            | Self::KillStandby
            | Self::KillInTurn
            | Self::KillBoth
            | Self::KillCatchingUp => dice.between_ms(50, 2_500),
            Self::SwitchOver => Duration::ZERO,
        }
    }
}

/// One fault as drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// Whether the pair is to be in peace and in sync before; otherwise somebody serves at least.
    pub in_peace: bool,
    /// How long to wait before.
    pub after: Duration,
    /// How long it lasts, or a process stays dead.
    pub lasts: Duration,
    /// A second time within it.
    pub between: Duration,
    /// Where there is a choice that does not matter otherwise.
    pub heads: bool,
}

impl fmt::Display for Planned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, in_peace, after, lasts, .. } = self;
        let peace = if *in_peace { "in peace, " } else { "" };
        write!(out, "{} ({peace}after {after:?}, for {lasts:?})", kind.name())
    }
}

/// The faults of a run: two to four. Ten seeds in a row hold every kind.
#[must_use]
pub fn draw(seed: u64, dice: &mut Dice) -> Vec<Planned> {
    let count = 2 + dice.below(3);
    let kinds = Kind::ALL.len() as u64;
    let first = usize::try_from(seed % kinds).expect("there are few kinds");
    (0..count)
        .map(|place| {
            let kind = if place == 0 { Kind::ALL[first] } else { *dice.one_of(&Kind::ALL) };
            Planned {
                kind,
                in_peace: dice.percent(60),
                after: dice.between_ms(50, 1_000),
                lasts: kind.lasts(dice),
                between: dice.between_ms(20, 900),
                heads: dice.percent(50),
            }
        })
        .collect()
}

/// Carries out one fault; it is noted when it has happened and what it killed was started again.
pub fn carry_out(lab: &mut TableLab, planned: &Planned) -> Result<()> {
    thread::sleep(planned.after);
    let master = if planned.in_peace { lab.in_sync()? } else { lab.master()? };
    let standby = 1 - master;
    let at_ns = now_ns();
    match planned.kind {
        Kind::KillMaster => kill_for(lab, master, planned.lasts)?,
        Kind::KillStandby => kill_for(lab, standby, planned.lasts)?,
        Kind::KillInTurn => {
            kill_for(lab, master, planned.lasts)?;
            thread::sleep(planned.between);
            let next = if planned.in_peace { lab.in_sync()? } else { lab.master()? };
            kill_for(lab, next, planned.between)?;
        }
        Kind::FreezeMaster => freeze_for(lab, master, planned.lasts)?,
        Kind::FreezeStandby => freeze_for(lab, standby, planned.lasts)?,
        Kind::SwitchOver => lab.switch_over()?,
        Kind::RestartZooKeeper => {
            lab.zookeeper.kill(0)?;
            thread::sleep(planned.lasts);
            lab.zookeeper.start_again(0)?;
            lab.zookeeper.wait_until_serving()?;
        }
        Kind::KillBoth => {
            let (first, second) = if planned.heads { (master, standby) } else { (standby, master) };
            lab.kill(first)?;
            lab.kill(second)?;
            thread::sleep(planned.lasts);
            let order = if planned.in_peace { [0, 1] } else { [1, 0] };
            for node in order {
                lab.start(node)?;
            }
        }
        Kind::CutLink => {
            lab.hold_link();
            thread::sleep(planned.lasts);
            anyhow::ensure!(
                lab.relays.iter().any(crate::relay::Relay::has_held_back),
                "the link was cut, and nothing was held back"
            );
            if planned.heads { lab.sever_link() } else { lab.release_link() }
        }
        Kind::KillCatchingUp => {
            kill_for(lab, standby, planned.lasts)?;
            thread::sleep(planned.between);
            kill_for(lab, standby, Duration::from_millis(100))?;
        }
    }
    lab.note(planned.kind.name(), at_ns);
    Ok(())
}

fn kill_for(lab: &mut TableLab, node: usize, time: Duration) -> Result<()> {
    lab.kill(node)?;
    thread::sleep(time);
    lab.start(node)
}

fn freeze_for(lab: &mut TableLab, node: usize, time: Duration) -> Result<()> {
    debug_assert!(time < LIMIT, "somebody waits for the end of it");
    lab.freeze(node)?;
    thread::sleep(time);
    lab.thaw(node)
}
