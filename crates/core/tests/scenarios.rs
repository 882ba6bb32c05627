//! Protocol stories as transcripts: `scenarios/*.txt`, each named as a sentence.
//!
//! A line at the margin is a command, in the field's words; what the node then does stands indented
//! beneath it. `UPDATE_GOLDENFILES=1` writes the answers anew; read the difference before you keep
//! it. Pings, phases and looks that change nothing are left out.
//!
//! ```text
//! a starts [fast_takeover=no] [act=no] [life=2] [tables] [ack=local] [standalone] [boot=2]
//! a peer answers role=standby [at=5.100|at=half]    a peer is silent
//! a zookeeper opened [t=4000]                       a zookeeper acknowledges | a zookeeper hangs
//! a zookeeper looked master=none|b@7 epoch=7 v=5    a zookeeper claimed done v=6 | refused | ambiguous
//! a zookeeper looked … sync=a,b@2 sv=3 (b on boot 2) a zookeeper written done | refused | ambiguous
//! a zookeeper looked … handover=b@7 hv=2            a zookeeper handed-over done | refused | ambiguous
//! a drained | a drained late                        a tables barrier-held [late] at=1.9
//! a tables opened at=5.100 [half] [cluster=12]      a tables ready | caught-up | lost 1 | failed
//! wait 500 (time-outs come)                         late 3000 (nobody calls the node)
//! ```

#![expect(clippy::unwrap_used, reason = "a story that cannot be read is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use hotpair_core::pair::effect::{
    Effect, HandoverBound, SyncBound, ZooKeeperOrder, ZooKeeperRequest,
};
use hotpair_core::pair::fact::{
    Answer, DialFailure, EpochZnode, Fact, HandoverZnode, LinkEnd, LookTrouble, MasterZnode,
    Picture, Refusal, SessionId, SyncZnode, TablesFact, ZooKeeperEvent, ZooKeeperFact,
};
use hotpair_core::pair::identity::{
    BootId, ClusterId, Contact, Epoch, Identity, Incarnation, Instance, NodeId, Role, Statement,
};
use hotpair_core::pair::reason::Event;
use hotpair_core::pair::settings::CoordinatorKind;
use hotpair_core::pair::{Moment, Node, Settings};
use hotpair_core::tables::position::Position;

#[test]
fn every_scenario_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let rewrite = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let mut stories = 0;
    let mut wrong = String::new();
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let told = std::fs::read_to_string(&file).unwrap();
        let happened = tell(&told);
        stories += 1;
        if told == happened {
            continue;
        }
        if rewrite {
            std::fs::write(&file, &happened).unwrap();
        } else {
            let first = told.lines().zip(happened.lines()).find(|(a, b)| a != b);
            writeln!(wrong, "{}: {first:?}", file.file_name().unwrap().display()).unwrap();
        }
    }
    assert!(stories >= 12, "only {stories} stories in {}", folder.display());
    assert!(wrong.is_empty(), "told, and happened:\n{wrong}");
}

/// Runs the commands of a story; the answers come indented beneath them.
fn tell(story: &str) -> String {
    let mut world = World::default();
    let mut text = String::new();
    for line in story.lines() {
        if line.starts_with("    ") {
            continue; // an answer of before
        }
        text.push_str(line);
        text.push('\n');
        let command = line.split('#').next().unwrap().trim();
        if !command.is_empty() {
            world.run(command);
            for line in world.said.drain(..) {
                writeln!(text, "    {line}").unwrap();
            }
        }
    }
    text
}

#[derive(Default)]
struct World {
    now: u64,
    nodes: BTreeMap<String, Subject>,
    said: Vec<String>,
}

struct Subject {
    node: Node,
    generation: u64,
    session: i64,
    /// Answers to pings, as long as the peer answers.
    peer: Option<Statement>,
    /// Heartbeats are acknowledged at once.
    acknowledges: bool,
    claim: Option<(Moment, Epoch)>,
    heartbeats: Vec<(Moment, Epoch)>,
    resigned: Epoch,
    gate: Epoch,
    /// The hold of the gate that is drained.
    hold: u64,
    ping: u64,
    epoch_version: i32,
}

/// `key=value` and bare words of a command.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn value(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str, otherwise: u64) -> u64 {
        self.value(key).map_or(otherwise, |v| v.parse().unwrap_or_else(|e| panic!("{key}: {e}")))
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
}

fn identity(node: &str, words: &Words<'_>, default_instance: u64) -> Identity {
    Identity {
        incarnation: Incarnation {
            node: NodeId::new(node),
            instance: Instance(words.number("instance", default_instance).into()),
            boot_id: BootId(words.number("boot", 1).into()),
        },
        life: words.number("life", default_instance * 10 + 1),
        pair: words.value("pair").unwrap_or("orders").into(),
        root: words.value("root").unwrap_or("/hotpair").into(),
        config_digest: 1,
        version: words.value("version").unwrap_or("0").into(),
    }
}

/// `EPOCH.NUMBER`.
fn position(text: &str) -> Position {
    let (epoch, number) = text.split_once('.').expect("at=EPOCH.NUMBER");
    Position { epoch: Epoch(epoch.parse().unwrap()), number: number.parse().unwrap() }
}

/// `a`, or `a@2` on boot 2.
fn incarnation(text: &str) -> Incarnation {
    let (node, boot) = text.split_once('@').unwrap_or((text, "1"));
    Incarnation {
        node: NodeId::new(node),
        instance: Instance(instance_of(node).into()),
        boot_id: BootId(boot.parse().unwrap()),
    }
}

/// `handover=NODE@EPOCH hv=VERSION`; none: nobody handed anything over.
fn handover(words: &Words<'_>) -> HandoverZnode {
    let version = i32::try_from(words.number("hv", 0)).unwrap();
    let Some((to, epoch)) = words.value("handover").and_then(|said| said.split_once('@')) else {
        return HandoverZnode { version, ..HandoverZnode::default() };
    };
    let epoch = Epoch(epoch.parse().unwrap());
    HandoverZnode { epoch, to: Some(NodeId::new(to)), number: 9, version }
}

/// a has data directory 1, b has 2.
fn instance_of(node: &str) -> u64 {
    if node == "a" { 1 } else { 2 }
}

fn statement(words: &Words<'_>) -> Statement {
    let node = words.value("node").unwrap_or("b");
    let role = match words.value("role").unwrap_or("standby") {
        "standby" => Role::Standby,
        "promoting" => Role::Promoting,
        "master" => Role::Master,
        "demoting" => Role::Demoting,
        other => panic!("no role {other}"),
    };
    Statement {
        identity: identity(node, words, instance_of(node)).into(),
        cluster: Some(ClusterId(words.number("cluster", 12).into())),
        role,
        serving: words.has("serving"),
        epoch: Epoch(words.number("epoch", 0)),
        left: Epoch(words.number("left", 0)),
        lease_ms: words.number("lease", 0),
        contact: if words.has("lost") { Contact::Lost } else { Contact::Connected },
        position: words.value("at").map(position),
        complete: !words.has("half"),
        guard: words.value("guard").map(Into::into),
    }
}

impl World {
    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["wait", ms] => self.wait(ms.parse().unwrap()),
            ["late", ms] => self.now += ms.parse::<u64>().unwrap(),
            [name, "starts", ..] => self.start(name, &Words(words[2..].to_vec())),
            [name, ..] => {
                let words = Words(words[1..].to_vec());
                let fact = self.fact(name, &words);
                if let Some(fact) = fact {
                    self.tell(name, fact);
                }
            }
            [] => {}
        }
    }

    fn start(&mut self, name: &str, words: &Words<'_>) {
        let settings = Settings {
            fast_takeover: words.value("fast_takeover") != Some("no"),
            act: words.value("act") != Some("no"),
            tables: words.has("tables"),
            ack_local: words.value("ack") == Some("local"),
            peer: !words.has("standalone"),
            coordinator: if words.has("standalone") {
                CoordinatorKind::Standalone
            } else {
                CoordinatorKind::ZooKeeper
            },
            ..Settings::default()
        };
        let me = identity(name, words, instance_of(name));
        let subject = Subject {
            node: Node::new(Moment(self.now), settings, me),
            generation: 0,
            session: 0x10,
            peer: None,
            acknowledges: false,
            claim: None,
            heartbeats: Vec::new(),
            resigned: Epoch(0),
            gate: Epoch(0),
            hold: 0,
            ping: 0,
            epoch_version: 0,
        };
        self.nodes.insert(name.to_owned(), subject);
        self.time_out(name);
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        for _ in 0..10_000 {
            let next = self
                .nodes
                .iter()
                .filter_map(|(name, s)| Some((s.node.deadline()?.0.max(self.now), name.clone())))
                .min();
            let Some((at, name)) = next.filter(|(at, _)| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = at;
            self.time_out(&name);
        }
        panic!("a node wants to be woken without a pause at {} ms", self.now);
    }

    fn time_out(&mut self, name: &str) {
        let mut fx = Vec::new();
        let subject = self.nodes.get_mut(name).expect("it was started");
        subject.node.handle_timeout(Moment(self.now), &mut fx);
        self.carry_out(name, fx);
    }

    fn tell(&mut self, name: &str, fact: Fact) {
        let mut fx = Vec::new();
        let subject = self.nodes.get_mut(name).expect("it was started");
        subject.node.handle(Moment(self.now), fact, &mut fx);
        self.carry_out(name, fx);
    }

    fn carry_out(&mut self, name: &str, fx: Vec<Effect>) {
        let mut answers = Vec::new();
        for effect in fx {
            if let Some(line) = in_words(&effect) {
                self.said.push(format!("{:>6} {name} {line}", self.now));
            }
            let now = Moment(self.now);
            let subject = self.nodes.get_mut(name).expect("it was started");
            answers.extend(subject.note(now, effect));
        }
        for fact in answers {
            self.tell(name, fact);
        }
    }

    fn show(&mut self, name: &str) {
        let v = self.nodes[name].node.view(Moment(self.now));
        let serving = if v.serving { ", serving" } else { "" };
        let in_sync = match v.in_sync {
            Some(true) => ", in sync",
            Some(false) => ", not in sync",
            None => "",
        };
        let guard = v.guard.map_or(String::new(), |g| format!(", guard: {g}"));
        let (role, epoch, left) = (v.role, v.epoch, v.left);
        let now = self.now;
        self.said.push(format!(
            "{now:>6} {name} is {role}{serving}, epoch {epoch}, left {left}{in_sync}{guard}"
        ));
    }

    // --- facts

    /// What the command says has happened; `None` if it only sets the scene.
    fn fact(&mut self, name: &str, words: &Words<'_>) -> Option<Fact> {
        if words.0[..] == ["shows"] {
            self.show(name);
            return None;
        }
        let s = self.nodes.get_mut(name).unwrap_or_else(|| panic!("{name} was not started"));
        Some(match words.0[..] {
            ["zookeeper", "acknowledges"] => {
                s.acknowledges = true;
                return None;
            }
            ["zookeeper", "hangs"] => {
                s.acknowledges = false;
                return None;
            }
            ["zookeeper", what, ..] => {
                let what = s.zookeeper_event(what, words);
                Fact::ZooKeeper(ZooKeeperFact { generation: s.generation, what })
            }
            ["peer", "answers", ..] => {
                s.peer = Some(statement(words));
                return None;
            }
            ["peer", "is", "silent"] => {
                s.peer = None;
                return None;
            }
            ["peer", "asks", ..] => {
                let statement = statement(words);
                Fact::PeerAsked { connection: 1, number: 1, statement }
            }
            ["peer", "answered", ..] => {
                Fact::PingAnswered { number: s.ping, statement: statement(words) }
            }
            ["link", "opened", ..] => Fact::LinkOpened { statement: statement(words) },
            ["link", "ended", how] => Fact::LinkEnded { how: link_end(how) },
            ["dial", how] => Fact::DialFailed { how: dial_failure(how) },
            ["gate", "opened"] => Fact::GateOpened { epoch: s.gate },
            ["gate", "failed"] => {
                Fact::PromotionFailed { epoch: s.gate, what: "a step failed".to_owned() }
            }
            ["drained"] => Fact::Drained { epoch: s.gate, hold: s.hold },
            ["drained", "late"] => Fact::Drained { epoch: s.gate, hold: s.hold - 1 },
            ["datasets", "settled"] => Fact::DatasetsSettled { epoch: s.gate, failed: 0 },
            ["serving", "stalled", ms] => Fact::ServingStalled { for_ms: ms.parse().unwrap() },
            ["ordered", "switchover", n] => Fact::SwitchoverOrdered { order: n.parse().unwrap() },
            ["tables", what, ..] => Fact::Tables(s.tables_fact(what, words)),
            ["ordered", "promote", n] => {
                Fact::PromoteOrdered { order: n.parse().unwrap(), accept_data_loss: false }
            }
            ["ordered", "promote", n, "accept-data-loss"] => {
                Fact::PromoteOrdered { order: n.parse().unwrap(), accept_data_loss: true }
            }
            ["ordered", "adopt", n] => Fact::AdoptOrdered { order: n.parse().unwrap() },
            ["ordered", "shutdown"] => Fact::ShutdownOrdered,
            _ => panic!("not understood: {name} {}", words.0.join(" ")),
        })
    }
}

fn link_end(how: &str) -> LinkEnd {
    match how {
        "fin" => LinkEnd::Fin,
        "reset" => LinkEnd::Reset,
        "lost" => LinkEnd::Lost,
        other => panic!("a link does not end by {other}"),
    }
}

fn dial_failure(how: &str) -> DialFailure {
    match how {
        "refused" => DialFailure::Refused,
        "timed-out" => DialFailure::TimedOut,
        other => panic!("a dial does not fail by {other}"),
    }
}

impl Subject {
    /// Keeps what later commands refer to; what answers itself comes back as facts.
    fn note(&mut self, now: Moment, effect: Effect) -> Option<Fact> {
        match effect {
            Effect::ZooKeeper(ZooKeeperOrder { generation, what }) => match what {
                ZooKeeperRequest::OpenSession => {
                    self.generation = generation;
                    self.session += 1;
                    None
                }
                ZooKeeperRequest::Claim { epoch, .. } => {
                    self.claim = Some((now, epoch));
                    None
                }
                ZooKeeperRequest::Heartbeat { epoch, epoch_version } if self.acknowledges => {
                    let answer = Answer::Done { epoch_version };
                    let what = ZooKeeperEvent::HeartbeatAnswered { sent_at: now, epoch, answer };
                    Some(Fact::ZooKeeper(ZooKeeperFact { generation, what }))
                }
                ZooKeeperRequest::Heartbeat { epoch, .. } => {
                    self.heartbeats.push((now, epoch));
                    None
                }
                ZooKeeperRequest::Resign { epoch, .. } => {
                    self.resigned = epoch;
                    None
                }
                _ => None,
            },
            Effect::OpenGate { epoch, .. } | Effect::PrepareTables { epoch } => {
                self.gate = epoch;
                None
            }
            Effect::Drain { hold, .. } => {
                self.hold = hold;
                None
            }
            Effect::SendPing { number, .. } => {
                self.ping = number;
                let statement = self.peer.clone()?;
                Some(Fact::PingAnswered { number, statement })
            }
            _ => None,
        }
    }

    fn tables_fact(&self, what: &str, words: &Words<'_>) -> TablesFact {
        let at = || words.value("at").map(position).unwrap_or_default();
        let complete = !words.has("half");
        let epoch = self.gate;
        match what {
            "opened" => TablesFact::Opened {
                position: at(),
                complete,
                cluster: words.value("cluster").map(|c| ClusterId(c.parse().unwrap())),
                seen: Epoch(words.number("seen", 0)),
            },
            "moved" => TablesFact::Moved { position: at(), complete },
            "ready" => TablesFact::Ready { epoch: Epoch(words.number("epoch", epoch.0)) },
            "caught-up" => {
                let peer = incarnation(words.value("peer").unwrap_or("b"));
                TablesFact::PeerCaughtUp { epoch, peer }
            }
            "lost" => TablesFact::PeerLost { epoch, loss: words.number("loss", 1) },
            "barrier-held" => {
                let hold = self.hold - u64::from(words.has("late"));
                TablesFact::BarrierHeld { epoch, hold, number: at().number }
            }
            "failed" => TablesFact::Failed { what: "EIO".to_owned() },
            "full" => TablesFact::DiskFull { full: true },
            "have-room" => TablesFact::DiskFull { full: false },
            "behind" => TablesFact::Behind { records: Some(words.number("by", 1)) },
            "keep-up" => TablesFact::Behind { records: None },
            "differ" => TablesFact::DigestMismatch { what: Some("table t differs".to_owned()) },
            "agree" => TablesFact::DigestMismatch { what: None },
            "diverged" => TablesFact::Diverged { what: "7 changes are kept aside".to_owned() },
            other => panic!("tables do not say {other}"),
        }
    }

    fn zookeeper_event(&mut self, what: &str, words: &Words<'_>) -> ZooKeeperEvent {
        let answer = |version: i32| match () {
            () if words.has("done") => Answer::Done { epoch_version: version },
            () if words.has("ambiguous") => Answer::Ambiguous,
            () if words.has("epoch") => Answer::Refused(Refusal::Epoch),
            () if words.has("sync") => Answer::Refused(Refusal::Sync),
            () if words.has("handover") => Answer::Refused(Refusal::Handover),
            () => Answer::Refused(Refusal::Master),
        };
        let version = i32::try_from(words.number("v", 1)).unwrap();
        match what {
            "opened" => ZooKeeperEvent::SessionOpened {
                session: SessionId(self.session),
                timeout_ms: words.number("t", 4_000),
            },
            "connect-failed" => ZooKeeperEvent::ConnectFailed { reason: "no server".to_owned() },
            "disconnected" => ZooKeeperEvent::Disconnected,
            "reconnected" => ZooKeeperEvent::Reconnected,
            "ended" => ZooKeeperEvent::SessionEnded { reason: "expired".to_owned() },
            "changed" => ZooKeeperEvent::MasterChanged { gone: words.has("gone") },
            "look-failed" => ZooKeeperEvent::LookFailed {
                reason: "no answer".to_owned(),
                trouble: LookTrouble::NoAnswer,
            },
            "looked" => ZooKeeperEvent::Looked { picture: self.picture(words, version) },
            "claimed" => {
                let (sent_at, epoch) = self.claim.take().expect("a claim is under way");
                self.epoch_version = version;
                ZooKeeperEvent::Claimed { sent_at, epoch, answer: answer(version) }
            }
            "heartbeat" => {
                let (sent_at, epoch) = self.heartbeats.remove(0);
                let answer = answer(self.epoch_version);
                ZooKeeperEvent::HeartbeatAnswered { sent_at, epoch, answer }
            }
            "sync-changed" => ZooKeeperEvent::SyncChanged,
            "written" => {
                ZooKeeperEvent::SyncWritten { epoch: self.gate, answer: answer(self.epoch_version) }
            }
            "handed-over" => {
                ZooKeeperEvent::HandedOver { epoch: self.gate, answer: answer(self.epoch_version) }
            }
            "resigned" => {
                ZooKeeperEvent::Resigned { epoch: self.resigned, answer: answer(version) }
            }
            "registered" => ZooKeeperEvent::RegisterAnswered {
                epoch: self.gate,
                entries: 3,
                answer: answer(version),
            },
            other => panic!("ZooKeeper does not say {other}"),
        }
    }

    fn picture(&self, words: &Words<'_>, version: i32) -> Picture {
        let master = words.value("master").filter(|m| *m != "none").map(|m| {
            let (node, epoch) = m.split_once('@').expect("master=NODE@EPOCH");
            let who = identity(node, words, instance_of(node));
            let owner = if words.has("mine") { self.session } else { 0x77 };
            MasterZnode {
                node: who.incarnation.node,
                instance: who.incarnation.instance,
                boot_id: who.incarnation.boot_id,
                life: who.life,
                epoch: Epoch(epoch.parse().unwrap()),
                session_timeout_ms: words.number("t", 4_000),
                version: i32::try_from(words.number("mv", 0)).unwrap(),
                created: i64::try_from(words.number("created", 100)).unwrap(),
                owner: SessionId(owner),
            }
        });
        Picture {
            cluster: ClusterId(words.number("cluster", 12).into()),
            epoch: EpochZnode {
                epoch: Epoch(words.number("epoch", 0)),
                node: words.value("by").map(NodeId::new),
                clean: words.has("clean"),
                version,
            },
            master,
            sync: words.value("sync").map(|members| SyncZnode {
                epoch: Epoch(words.number("se", words.number("epoch", 0))),
                members: members.split(',').map(incarnation).collect(),
                version: i32::try_from(words.number("sv", 0)).unwrap(),
            }),
            handover: Box::new(handover(words)),
            twin: words.has("twin").then_some(Instance(99)),
        }
    }
}

// --- in words

fn in_words(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::ZooKeeper(order) => format!("zookeeper: {}", request_in_words(&order.what)),
        Effect::Dial { .. } => "dials".to_owned(),
        Effect::DropLink => "drops the link".to_owned(),
        Effect::SendPing { .. } => return None,
        Effect::AnswerPeer { statement, .. } => {
            format!(
                "answers: {}, epoch {}, left {}",
                statement.role, statement.epoch, statement.left
            )
        }
        Effect::OpenGate { epoch, until } => {
            format!("opens the gate of epoch {epoch} until {until}")
        }
        Effect::ExtendLease { until, .. } => format!("extends the lease until {until}"),
        Effect::CloseGate { epoch } => format!("closes the gate of epoch {epoch}"),
        Effect::HoldGate { epoch } => format!("holds the gate of epoch {epoch}"),
        Effect::AdmitAgain { epoch } => format!("admits again in epoch {epoch}"),
        Effect::Drain { ms_max, .. } => format!("drains for at most {ms_max} ms"),
        Effect::WriteBarrier { epoch, .. } => format!("writes a barrier in epoch {epoch}"),
        Effect::LoadDatasets { .. } => "loads datasets".to_owned(),
        Effect::DropDatasets => "drops datasets".to_owned(),
        Effect::Alert(alert) => match &alert.firing {
            Some(text) => format!("ALERT {}: {text}", alert.name),
            None => format!("alert {} is over", alert.name),
        },
        Effect::Record(event) => return event_in_words(event),
        Effect::PrepareTables { epoch } => format!("prepares the tables for epoch {epoch}"),
        Effect::StandDown => "stands the tables down".to_owned(),
        Effect::AcknowledgeAlone { epoch, loss } => {
            format!("acknowledges alone in epoch {epoch}, loss {loss}")
        }
        Effect::Follow { master: Some(epoch) } => format!("follows the peer in epoch {epoch}"),
        Effect::Follow { master: None } => "follows nobody".to_owned(),
        Effect::Remember { epoch, cluster } => match cluster {
            Some(cluster) => format!("remembers epoch {epoch} of cluster {}", cluster.0),
            None => format!("remembers epoch {epoch}"),
        },
        Effect::FinishOrder { order, outcome } => format!("order {order}: {outcome:?}"),
        Effect::FinishSwitchover { order, report } => {
            let (done, text, epoch) = (report.done, &report.text, report.epoch);
            format!("order {order}, done: {done}, epoch {epoch}: {text:?}")
        }
        Effect::Exit => "exits".to_owned(),
    })
}

fn request_in_words(request: &ZooKeeperRequest) -> String {
    match request {
        ZooKeeperRequest::OpenSession => "open a session".to_owned(),
        ZooKeeperRequest::Look => "look".to_owned(),
        ZooKeeperRequest::Claim { epoch, epoch_version, replace, sync, handover } => {
            let version = epoch_version.map_or("any".to_owned(), |v| format!("v{v}"));
            let replacing = replace.map_or(String::new(), |r| match r.version {
                Some(v) => format!(", replacing master v{v}"),
                None => ", replacing any master".to_owned(),
            });
            let sync = match sync {
                SyncBound::Missing => ", no sync".to_owned(),
                SyncBound::Version(v) => format!(", sync v{v}"),
                SyncBound::Unchecked => ", any sync".to_owned(),
            };
            let handover = match handover {
                HandoverBound { version: 0, revoke: false } => String::new(),
                HandoverBound { version, revoke: false } => format!(", handover v{version}"),
                HandoverBound { version, revoke: true } => {
                    format!(", revoking handover v{version}")
                }
            };
            format!("claim epoch {epoch} if epoch is {version}{replacing}{sync}{handover}")
        }
        ZooKeeperRequest::HandOver { epoch, to, number, .. } => {
            format!("hand epoch {epoch} over to {to} after record {number}")
        }
        ZooKeeperRequest::WriteSync { epoch, sync_version, members, .. } => {
            let who: Vec<&str> = members.iter().map(|m| m.node.as_str()).collect();
            format!("write sync {} of epoch {epoch} if sync is v{sync_version}", who.join(" and "))
        }
        ZooKeeperRequest::Heartbeat { epoch, .. } => format!("heartbeat of epoch {epoch}"),
        ZooKeeperRequest::Resign { epoch, .. } => format!("give epoch {epoch} back"),
        ZooKeeperRequest::Register { epoch, .. } => format!("register for epoch {epoch}"),
        ZooKeeperRequest::Unregister { epoch } => format!("unregister up to epoch {epoch}"),
    }
}

fn event_in_words(event: &Event) -> Option<String> {
    Some(match event {
        Event::RoleChanged { from, to, epoch, reason } => {
            format!("{from} → {to}, epoch {epoch}: {reason}")
        }
        Event::Guarded { guard: Some(guard) } => format!("guard: {guard}"),
        Event::Guarded { guard: None } => "no guard".to_owned(),
        Event::PhaseReached { .. } | Event::StandingChanged { .. } => return None,
        Event::PeerChanged { text }
        | Event::CoordinatorChanged { text }
        | Event::Ordered { text } => text.clone(),
        Event::Stalled { for_ms } => format!("stood still for {for_ms} ms"),
    })
}
