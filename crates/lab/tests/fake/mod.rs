//! A pair in name only: two doors to one store, of which one serves at a time. It speaks the client
//! API as far as the clients of the laboratory do, loses answers on purpose, and has one fault at most.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hotpair_lab::dice::Dice;
use hotpair_lab::http::Http;
use hotpair_lab::place::Place;
use hotpair_lab::port::Port;
use hotpair_lab::session::Target;
use serde_json::{Value, json};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    /// A switch loses the last acknowledged changes.
    LosesTheTail,
    /// Answers are not kept, so a request sent again is done again.
    KeepsNoAnswers,
    /// The door that does not serve shows what it knew at the last switch.
    ShowsThePast,
    /// What is not acknowledged is shown, and may be taken back.
    ShowsPending,
    /// Sessions do not survive a switch.
    ForgetsSessions,
    /// A number that no document knows.
    SpeaksInRiddles,
}

#[derive(Debug, Clone, Default)]
struct Store {
    rows: BTreeMap<String, (String, u64)>,
    number: u64,
    answers: BTreeMap<(String, u64), Value>,
}

#[derive(Debug)]
struct Inside {
    store: Store,
    /// As it was some changes ago.
    past: Store,
    sessions: BTreeSet<String>,
    serving: usize,
    epoch: u64,
    dice: Dice,
    changes: u64,
}

#[derive(Debug)]
struct Shared {
    wrong: Wrong,
    inside: Mutex<Inside>,
    /// Held by whoever changes something, longer than the store where it is shown too early.
    writer: Mutex<()>,
    over: AtomicBool,
}

/// The two doors; dropped: closed.
#[derive(Debug)]
pub(crate) struct FakePair {
    shared: Arc<Shared>,
    ports: Vec<Port>,
}

impl FakePair {
    pub(crate) fn start(wrong: Wrong) -> Self {
        let inside = Inside {
            store: Store::default(),
            past: Store::default(),
            sessions: BTreeSet::new(),
            serving: 0,
            epoch: 1,
            dice: Dice::new(1),
            changes: 0,
        };
        let (inside, writer, over) = (Mutex::new(inside), Mutex::new(()), AtomicBool::new(false));
        let shared = Arc::new(Shared { wrong, inside, writer, over });
        let ports: Vec<Port> = (0..2).map(|_| Port::reserve().unwrap()).collect();
        for (door, port) in ports.iter().enumerate() {
            let listener = TcpListener::bind(port.address()).unwrap();
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if shared.over.load(Ordering::Relaxed) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    // A client that goes away early is none of our business.
                    thread::spawn(move || stream.ok().and_then(|each| shared.serve(door, &each)));
                }
            });
        }
        Self { shared, ports }
    }

    pub(crate) fn targets(&self, attempt_limit: Duration) -> Vec<Target> {
        let target = |(name, address): (&str, SocketAddr)| Target {
            name: Some(name.to_owned()),
            http: Http::new(Place::Here, address).with_limit(attempt_limit),
            codes: Arc::default(),
        };
        ["a", "b"].into_iter().zip(self.ports.iter().map(Port::address)).map(target).collect()
    }

    /// The other door serves from now on.
    pub(crate) fn switch(&self) {
        let _writer = self.shared.writer.lock().unwrap();
        let mut inside = self.shared.inside.lock().unwrap();
        inside.serving = 1 - inside.serving;
        inside.epoch += 1;
        match self.shared.wrong {
            Wrong::LosesTheTail => inside.store = inside.past.clone(),
            Wrong::ForgetsSessions => inside.sessions.clear(),
            Wrong::ShowsThePast => inside.past = inside.store.clone(),
            Wrong::Nothing
            | Wrong::KeepsNoAnswers
            | Wrong::ShowsPending
            | Wrong::SpeaksInRiddles => {}
        }
    }
}

impl Drop for FakePair {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for port in &self.ports {
            drop(TcpStream::connect(port.address()));
        }
    }
}

impl Shared {
    fn serve(&self, door: usize, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line).ok()?;
            if let Some(value) = line.strip_prefix("Content-Length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        // None: the answer is lost on its way.
        let answer = self.answer(door, &path, &serde_json::from_slice(&body).ok()?)?.to_string();
        let mut stream = stream;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()
    }

    fn answer(&self, door: usize, path: &str, body: &Value) -> Option<Value> {
        let refused =
            |error_no: u64| Some(json!({"error_no": error_no, "error_info": "", "epoch": 0}));
        let function = body["function"].as_u64();
        let changes = path == "/v1/call" && function != Some(1001);
        let _writer = changes.then(|| self.writer.lock().unwrap());
        let mut inside = self.inside.lock().unwrap();
        if inside.serving != door {
            if self.wrong == Wrong::ShowsThePast && function == Some(1001) {
                return Some(done(inside.epoch, &look(&inside.past, body)));
            }
            return refused(308_000_005);
        }
        if self.wrong == Wrong::SpeaksInRiddles && inside.dice.percent(2) {
            return refused(308_000_099);
        }
        if path == "/v1/login" {
            let session = format!("session-{}", inside.dice.number());
            inside.sessions.insert(session.clone());
            return Some(done(inside.epoch, &json!({"session": session})));
        }
        if !inside.sessions.contains(body["session"].as_str()?) {
            return refused(308_000_001);
        }
        if !changes {
            return Some(done(inside.epoch, &look(&inside.store, body)));
        }
        inside.changes += 1;
        if inside.changes.is_multiple_of(20) && self.wrong == Wrong::LosesTheTail {
            inside.past = inside.store.clone();
        }
        if self.wrong == Wrong::ShowsPending && inside.dice.percent(15) {
            let mut before = inside.store.clone();
            let _ = change(&mut inside.store, body);
            // What is taken back leaves a hole: the next change gets another number.
            before.number = inside.store.number;
            drop(inside);
            thread::sleep(Duration::from_millis(30));
            self.inside.lock().unwrap().store = before;
            return None;
        }
        let key = (body["session"].as_str()?.to_owned(), body["request"].as_u64()?);
        let data = match inside.store.answers.get(&key) {
            Some(answer) => answer.clone(),
            None => change(&mut inside.store, body)?,
        };
        if self.wrong != Wrong::KeepsNoAnswers {
            inside.store.answers.insert(key, data.clone());
        }
        let lost = inside.dice.percent(5);
        (!lost).then(|| done(inside.epoch, &data))
    }
}

fn done(epoch: u64, data: &Value) -> Value {
    json!({"error_no": 0, "error_info": "", "epoch": epoch, "data": data})
}

fn row(body: &Value) -> String {
    format!("{}/{}", body["arguments"]["table"], body["arguments"]["key"])
}

fn look(store: &Store, body: &Value) -> Value {
    match store.rows.get(&row(body)) {
        Some((value, version)) => json!({"value": value, "version": version}),
        None => json!({"value": null, "version": 0}),
    }
}

fn change(store: &mut Store, body: &Value) -> Option<Value> {
    let arguments = &body["arguments"];
    let (value, version) = store.rows.get(&row(body)).cloned().unwrap_or(("0".to_owned(), 0));
    store.number += 1;
    let number = store.number;
    let (value, answer) = match body["function"].as_u64()? {
        1002 => (arguments["value"].as_str()?.to_owned(), json!({"version": number})),
        1004 if arguments["version"].as_u64()? == version => {
            let value = arguments["value"].as_str()?.to_owned();
            (value, json!({"done": true, "version": number}))
        }
        1004 => return Some(json!({"done": false, "version": version})),
        _ => {
            let sum = value.parse::<i64>().ok()? + arguments["by"].as_i64()?;
            (sum.to_string(), json!({"value": sum}))
        }
    };
    store.rows.insert(row(body), (value, number));
    Some(answer)
}
