//! The control thread: one loop in which facts meet the pair's deciding, and effects the world.
//!
//! It runs on a thread and a runtime of its own, so that no business request can delay it, and it
//! does nothing that can wait: it writes no file, resolves no name, and all its queues have bounds.
//!
//! ```text
//!  ZooKeeper driver ─┐                      ┌─▶ ZooKeeper driver, link
//!  link ─────────────┤  facts  ┌────────┐   ├─▶ gate (atomics), datasets' thread
//!  datasets ─────────┼────────▶│  Node  │───┤ effects
//!  admin orders ─────┤         └────────┘   ├─▶ journal, log, alerts
//!  signals ──────────┘                      └─▶ ledger ──published──▶ admin
//! ```

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hotpair_admin::AdminCommand;
use hotpair_coordinator::{ZooKeeperDriver, ZooKeeperSettings};
use hotpair_core::pair::effect::Effect;
use hotpair_core::pair::fact::{Fact, TablesFact};
use hotpair_core::pair::identity::{Epoch, Identity};
use hotpair_core::pair::{Moment, Node, Settings};
use hotpair_gateway::{GateKeeper, Sessions};
use hotpair_link::redo::{MasterAddress, RedoEvent};
use hotpair_link::{LinkDriver, LinkSettings};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::boot_clock;
use crate::datasets::Datasets;
use crate::fault_points;
use crate::ledger::Ledger;
use crate::orders::Orders;
use crate::supervisor::Supervisor;
use crate::tables::Order;

/// Facts that may wait for the control thread; their senders wait when it is full.
pub(crate) const FACTS_MAX: usize = 1_024;
/// How long the session's orderly end may take.
const FAREWELL: Duration = Duration::from_millis(1_000);

/// Everything the control thread is given when it starts.
pub(crate) struct Control {
    pub(crate) settings: Settings,
    pub(crate) me: Identity,
    /// None: nobody decides but this node.
    pub(crate) zookeeper: Option<ZooKeeperSettings>,
    /// The peer's link, and the own listener: already bound, so that a port in use is told before
    /// anything starts. None: there is no peer.
    pub(crate) link: Option<(MasterAddress, TcpListener)>,
    pub(crate) gate: GateKeeper,
    pub(crate) datasets: Datasets,
    /// The tables' thread, and its door for redo streams.
    pub(crate) tables: mpsc::Sender<Order>,
    pub(crate) streams: mpsc::Sender<RedoEvent>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) facts: (mpsc::Sender<Fact>, mpsc::Receiver<Fact>),
    pub(crate) orders: mpsc::Receiver<AdminCommand>,
    pub(crate) ledger: Ledger,
    pub(crate) supervisor: Supervisor,
}

impl Control {
    /// Runs until the pair says that the process may end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Where it is allowed, control runs before everything else that wants a core.
        let _ = rustix::process::setpriority_process(None, -10);
        runtime.block_on(self.turn())
    }

    async fn turn(self) -> anyhow::Result<()> {
        let me = Arc::new(self.me.clone());
        let (sender, mut facts) = self.facts;
        let clock: hotpair_coordinator::Clock = Arc::new(boot_clock::now);
        let zookeeper = self
            .zookeeper
            .map(|settings| ZooKeeperDriver::start(settings, me.clone(), sender.clone(), clock));
        let dial_timeout = Duration::from_millis(self.settings.ping_timeout_ms);
        let link = match self.link {
            Some((MasterAddress { address: peer, security }, listener)) => {
                let wall_clock = hotpair_link::WallClock::system();
                let settings = LinkSettings { peer, me, dial_timeout, security, wall_clock };
                Some(LinkDriver::start(settings, listener, sender.clone(), self.streams)?)
            }
            None => None,
        };
        let mut hands = Hands {
            zookeeper,
            link,
            gate: self.gate,
            datasets: self.datasets,
            tables: self.tables,
            sessions: self.sessions,
            ledger: self.ledger,
            orders: Orders::default(),
            facts: sender,
            own: VecDeque::new(),
            exit: false,
        };
        let mut supervisor = self.supervisor;
        let mut orders = self.orders;
        let mut node = Node::new(boot_clock::now(), self.settings, self.me);
        let mut effects = Vec::new();
        node.handle_timeout(boot_clock::now(), &mut effects);
        loop {
            hands.carry_out_all(&mut node, &mut effects);
            let view = node.view(boot_clock::now());
            hands.ledger.publish(&view);
            supervisor.look(&view);
            if hands.exit {
                break;
            }
            let wake = until(node.deadline(), supervisor.deadline());
            tokio::select! {
                biased;
                Some(fact) = facts.recv() => {
                    fault_points::at(&fact);
                    node.handle(boot_clock::now(), fact, &mut effects);
                    // What has come meanwhile is taken in one turn: one look, one publication.
                    while effects.is_empty() && let Ok(fact) = facts.try_recv() {
                        fault_points::at(&fact);
                        node.handle(boot_clock::now(), fact, &mut effects);
                    }
                }
                Some(order) = orders.recv() => hands.take_order(order, &mut node, &mut effects),
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = boot_clock::now();
            if let Some(fact) = supervisor.turn(now) {
                node.handle(now, fact, &mut effects);
            }
            if node.deadline().is_some_and(|at| now >= at) {
                node.handle_timeout(now, &mut effects);
            }
        }
        hands.end(supervisor).await;
        Ok(())
    }
}

/// Where the timer is to go off. Deadlines are milliseconds of the boot clock; the timer's clock
/// does not count suspend, which the node notices as a stall of its own.
fn until(node: Option<Moment>, supervisor: Moment) -> Instant {
    let at = node.map_or(supervisor, |at| at.min(supervisor));
    Instant::now() + Duration::from_millis(at.ms_since(boot_clock::now()))
}

/// What carries effects out.
struct Hands {
    zookeeper: Option<ZooKeeperDriver>,
    link: Option<LinkDriver>,
    gate: GateKeeper,
    datasets: Datasets,
    tables: mpsc::Sender<Order>,
    sessions: Arc<Sessions>,
    ledger: Ledger,
    orders: Orders,
    facts: mpsc::Sender<Fact>,
    /// Facts made by carrying out effects, taken before any other.
    own: VecDeque<Fact>,
    exit: bool,
}

impl Hands {
    fn carry_out_all(&mut self, node: &mut Node, effects: &mut Vec<Effect>) {
        loop {
            for effect in effects.drain(..) {
                self.carry_out(effect);
            }
            match self.own.pop_front() {
                Some(fact) => node.handle(boot_clock::now(), fact, effects),
                None => return,
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        fault_points::before(&effect);
        match effect {
            Effect::ZooKeeper(order) => {
                if let Some(zookeeper) = &mut self.zookeeper {
                    zookeeper.carry_out(order);
                }
            }
            Effect::Dial { statement } => self.on_link(|link| link.dial(statement)),
            Effect::DropLink => self.on_link(LinkDriver::drop_link),
            Effect::SendPing { number, statement } => {
                self.on_link(|link| link.send_ping(number, statement));
            }
            Effect::AnswerPeer { connection, number, statement } => {
                self.on_link(|link| link.answer_peer(connection, number, statement));
            }
            Effect::OpenGate { epoch, until } => {
                self.sessions.serving_since(epoch, boot_clock::now());
                self.gate.open(epoch, until);
                self.own.push_back(Fact::GateOpened { epoch });
            }
            Effect::ExtendLease { epoch, until } => self.gate.extend(epoch, until),
            Effect::CloseGate { epoch } => self.gate.close(epoch),
            Effect::HoldGate { epoch } => self.gate.hold(epoch),
            Effect::AdmitAgain { epoch } => self.gate.admit(epoch),
            Effect::Drain { epoch, hold, ms_max } => self.drain(epoch, hold, ms_max),
            Effect::WriteBarrier { epoch, hold } => {
                self.order_tables(Order::WriteBarrier { epoch, hold });
            }
            Effect::LoadDatasets { epoch } => self.datasets.promoted(epoch),
            Effect::DropDatasets => self.datasets.demoted(),
            Effect::Alert(alert) => self.ledger.alert(&alert),
            Effect::Record(event) => self.ledger.record(&event),
            Effect::PrepareTables { epoch } => self.order_tables(Order::Prepare { epoch }),
            Effect::StandDown => self.order_tables(Order::StandDown),
            Effect::AcknowledgeAlone { epoch, loss } => {
                self.order_tables(Order::AcknowledgeAlone { epoch, loss });
            }
            Effect::Follow { master } => self.order_tables(Order::Follow { master }),
            Effect::Remember { epoch, cluster } => {
                self.order_tables(Order::Remember { epoch, cluster });
            }
            Effect::FinishOrder { order, outcome } => self.orders.finish(order, outcome),
            Effect::FinishSwitchover { order, report } => {
                self.orders.finish_switchover(order, report);
            }
            Effect::Exit => self.exit = true,
        }
    }

    /// Without a peer there is no link, and nothing is meant for it.
    fn on_link(&mut self, act: impl FnOnce(&mut LinkDriver)) {
        if let Some(link) = &mut self.link {
            act(link);
        }
    }

    /// Never waits. Tables that take no orders any more are of no use to a master.
    fn order_tables(&mut self, order: Order) {
        if let Err(error) = self.tables.try_send(order) {
            let what = format!("the tables' thread takes no orders: {error}");
            self.own.push_back(Fact::Tables(TablesFact::Failed { what }));
        }
    }

    fn drain(&mut self, epoch: Epoch, hold: u64, ms_max: u64) {
        let drained = Fact::Drained { epoch, hold };
        // The gate holds already: who is not inside by now does not come in.
        if self.gate.gate().in_flight() == 0 {
            return self.own.push_back(drained);
        }
        let (gate, facts) = (self.gate.gate(), self.facts.clone());
        tokio::spawn(async move {
            // Core has a limit of its own; this one only ends the task.
            let limit = Duration::from_millis(ms_max);
            if tokio::time::timeout(limit, gate.drained()).await.is_ok() {
                let _ = facts.send(drained).await;
            }
        });
    }

    fn take_order(&mut self, order: AdminCommand, node: &mut Node, effects: &mut Vec<Effect>) {
        match order {
            AdminCommand::Switchover { by, answer } => {
                let order = self.orders.begin_switchover(answer);
                tracing::info!(%by, order, "switchover ordered");
                node.handle(boot_clock::now(), Fact::SwitchoverOrdered { order }, effects);
            }
            AdminCommand::Promote { by, accept_data_loss, answer } => {
                let order = self.orders.begin(answer);
                tracing::info!(%by, order, accept_data_loss, "promotion ordered");
                let fact = Fact::PromoteOrdered { order, accept_data_loss };
                node.handle(boot_clock::now(), fact, effects);
            }
            AdminCommand::Adopt { by, answer } => {
                let order = self.orders.begin(answer);
                tracing::info!(%by, order, "adoption ordered");
                node.handle(boot_clock::now(), Fact::AdoptOrdered { order }, effects);
            }
        }
    }

    /// The gate is closed by now; then the listener, then the session.
    async fn end(mut self, mut supervisor: Supervisor) {
        supervisor.stopping();
        self.ledger.close();
        if let Some(link) = &mut self.link {
            link.close_listener().await;
        }
        if let Some(zookeeper) = self.zookeeper {
            let farewell = zookeeper.close(FAREWELL).await;
            tracing::info!(?farewell, "session with ZooKeeper closed");
        }
    }
}
