//! A whole pair and its router on TLS: clients that trust the right authority notice nothing of switches
//! and crashes; everybody else is refused in words that say what to do.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which report by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_client::{Client, Error, Session};
use hotpair_integration_tests::steps::{LIMIT, argument, run_hotpair, serves};
use hotpair_integration_tests::table_lab::{Options, TableLab};
use hotpair_integration_tests::turn::Turn;
use hotpair_lab::certificates::Certificates;
use hotpair_lab::node::TOKEN;
use hotpair_lab::router::Router;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A pair and a router on TLS.
struct Scene {
    lab: TableLab,
    router: Router,
    runtime: Runtime,
    _turn: Turn,
}

impl Scene {
    fn new() -> Result<Self> {
        let turn = Turn::alone()?;
        let lab = TableLab::new(&Options { tls: true, ..Options::default() })?;
        let certificates = certificates(&lab);
        certificates.issue("router", &["127.0.0.1"])?;
        let mut router = Router::before(&lab.pair)?;
        router.more = format!(
            "[hold]\nplanned = \"60s\"\ncrash = \"60s\"\n{}",
            certificates.section("router")
        );
        router.start()?;
        router.wait_for("serves", |status| status["standing"] == "serving")?;
        Ok(Self { lab, router, runtime: Runtime::new()?, _turn: turn })
    }

    /// Who comes through the router and trusts this authority.
    fn client(&self, authority: &Path, call_limit: Duration) -> Result<Client> {
        let builder = Client::builder().targets([self.router.address()]).authority(authority);
        Ok(builder.call_limit(call_limit).build()?)
    }

    fn log_in(&self, client: &Client) -> Result<Session> {
        let user = &self.lab.user;
        Ok(self.runtime.block_on(client.log_in(&user.name, &user.password))?)
    }
}

fn certificates(lab: &TableLab) -> &Certificates {
    lab.certificates.as_ref().expect("this pair speaks TLS")
}

/// Calls that go on until they are told to stop.
struct Counting {
    callers: Vec<JoinHandle<Result<(), Error>>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Counting {
    fn start(scene: &Scene, session: &Session) -> Self {
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let callers = (0..8).map(|_| {
            let (session, done, stop) = (session.clone(), done.clone(), stop.clone());
            scene.runtime.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let add = json!({"table": "counters", "key": "tls", "by": 1});
                    let _: Value = session.call(1006, add).await?;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        });
        Self { callers: callers.collect(), done, stop }
    }

    /// Waits until some more were answered.
    fn goes_on(&self) -> Result<()> {
        let before = self.done.load(Ordering::SeqCst);
        eventually(LIMIT, "calls are answered", || {
            let since = self.done.load(Ordering::SeqCst) - before;
            ensure!(since >= 20, "only {since}");
            Ok(())
        })
    }

    fn end(self, scene: &Scene) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            scene.runtime.block_on(caller)??;
        }
        Ok(self.done.load(Ordering::SeqCst))
    }
}

#[test]
fn nobody_notices_a_switch_or_a_crash_and_operators_get_their_answers() {
    let mut scene = Scene::new().unwrap();
    let authority = certificates(&scene.lab).authority();
    let client = scene.client(&authority, LIMIT).unwrap();
    let session = scene.log_in(&client).unwrap();
    let counting = Counting::start(&scene, &session);
    counting.goes_on().unwrap();

    switch_over_by_hand(&scene, &authority).unwrap();
    counting.goes_on().unwrap();
    let master = scene.lab.in_sync().unwrap();
    scene.lab.kill(master).unwrap();
    serves(&scene.lab.pair, 1 - master).unwrap();
    counting.goes_on().unwrap();
    scene.lab.start(master).unwrap();
    scene.lab.in_sync().unwrap();

    let row = json!({"table": "counters", "key": "tls"});
    let done = counting.end(&scene).unwrap();
    let row: Value = scene.runtime.block_on(session.call(1001, row)).unwrap();
    assert_eq!(row["value"], done, "each was done once");
    for node in &mut scene.lab.pair.nodes {
        node.stop(LIMIT).unwrap();
        nobody_else_reads(&node.settings.directory).unwrap();
        no_secret_in(&node.folder().join("log")).unwrap();
    }
    assert!(scene.router.stop(LIMIT).unwrap().success());
}

/// What a node keeps of the tables, of sessions and of itself is its own.
fn nobody_else_reads(directory: &Path) -> Result<()> {
    let mut files = 0;
    for entry in std::fs::read_dir(directory)? {
        let (path, metadata) = (entry.as_ref().unwrap().path(), entry?.metadata()?);
        if metadata.is_dir() {
            nobody_else_reads(&path)?;
            continue;
        }
        let mode = metadata.permissions().mode() & 0o777;
        ensure!(mode & 0o077 == 0, "{} has mode {mode:04o}", path.display());
        files += 1;
    }
    ensure!(files > 0, "nothing was written to {}", directory.display());
    Ok(())
}

fn no_secret_in(log: &Path) -> Result<()> {
    let said = std::fs::read_to_string(log)?;
    for secret in [TOKEN, "PRIVATE KEY"] {
        ensure!(!said.contains(secret), "{secret:?} is in {}", log.display());
    }
    Ok(())
}

/// With the operators' commands: over TLS, and in plain text from this machine itself.
fn switch_over_by_hand(scene: &Scene, authority: &Path) -> Result<()> {
    let authority = argument(authority)?;
    let admins: Vec<String> =
        scene.lab.pair.nodes.iter().map(|node| node.settings.admin.to_string()).collect();
    let with = |scheme: &str, command: &[&str]| {
        let urls: Vec<String> = admins.iter().map(|admin| format!("{scheme}{admin}")).collect();
        let both = ["--admin", &urls[0], "--admin", &urls[1]];
        run_hotpair(&[command, &both].concat())
    };
    scene.lab.in_sync()?;
    for (scheme, command) in [
        ("", &["status", "--tls-authority", authority][..]),
        ("https://", &["why", "--tls-authority", authority]),
        ("http://", &["status"]),
    ] {
        let (code, results, notes) = with(scheme, command)?;
        ensure!(code == 0, "{command:?}: {results}{notes}");
    }
    let (code, results, notes) = with("https://", &["status"])?;
    ensure!(code == 1 && notes.contains("not signed by an authority"), "{results}{notes}");
    let token = scene.lab.pair.nodes[0].folder().join("admin.token");
    let order = ["switchover", "--token-file", argument(&token)?, "--tls-authority", authority];
    eventually(LIMIT, "the switch is done", || {
        let (code, results, notes) = with("", &order)?;
        ensure!(code == 0, "{results}{notes}");
        Ok(())
    })?;
    scene.lab.in_sync()?;
    let url = format!("https://{}", scene.router.address());
    let call = ["call", "1901", "--arguments", "[7]", "--url", &url, "--tls-authority", authority];
    let (code, results, notes) = run_hotpair(&call)?;
    ensure!(code == 0 && results.contains('7'), "{results}{notes}");
    Ok(())
}

#[test]
fn strangers_of_every_kind_are_refused_and_told_why() {
    let mut scene = Scene::new().unwrap();
    let elsewhere = Scratch::new("elsewhere").unwrap();
    let foreign = Certificates::new(&elsewhere.join("certificates")).unwrap();
    refused_clients(&scene, &foreign).unwrap();
    refused_plain_text(&scene).unwrap();
    refused_names(&scene).unwrap();
    refused_node(&mut scene, &foreign).unwrap();
}

fn refused_clients(scene: &Scene, foreign: &Certificates) -> Result<()> {
    let stranger = scene.client(&foreign.authority(), Duration::from_secs(2))?;
    let error = scene.log_in(&stranger).err().context("it trusts somebody else")?.to_string();
    ensure!(error.contains("not signed by an authority"), "{error}");
    Ok(())
}

fn refused_plain_text(scene: &Scene) -> Result<()> {
    let body = json!({"function": 1901, "arguments": {}});
    let node = &scene.lab.pair.nodes[0];
    for http in [scene.router.client(), node.client(), node.client()] {
        let answer = http.post("/v1/call", &body)?;
        ensure!(answer.status == 400, "{answer:?}");
        let envelope = answer.json()?;
        ensure!(envelope["error_no"] == 308_000_003, "{envelope}");
        let info = envelope["error_info"].as_str().unwrap_or_default();
        ensure!(info.contains("this port speaks TLS: use https://"), "{envelope}");
    }
    let log = scene.lab.pair.nodes[0].folder().join("log");
    // Lines are written by a thread of their own.
    eventually(LIMIT, "the node says it once", || {
        let said = std::fs::read_to_string(&log)?;
        let said = said.matches("plain text came where TLS is spoken").count();
        ensure!(said == 1, "said {said} times");
        Ok(())
    })
}

/// What a page in a browser on this machine could make it ask.
fn refused_names(scene: &Scene) -> Result<()> {
    let ask = |address: SocketAddr, host: &str| -> Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    for address in [scene.router.admin().address(), scene.lab.pair.nodes[0].settings.admin] {
        for host in ["localhost:7101", "127.0.0.1"] {
            let answer = ask(address, host)?;
            ensure!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        }
        let answer = ask(address, "evil.example:7101")?;
        let refused = answer.starts_with("HTTP/1.1 421 ") && answer.contains("admin.hosts");
        ensure!(refused && !answer.contains("epoch"), "{answer}");
    }
    // A name in the node's certificate is one of its own.
    let node = &scene.lab.pair.nodes[0].settings;
    let answer = ask(node.admin, &node.pair)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

/// A node with a certificate of somebody else: the router does not believe what it says.
fn refused_node(scene: &mut Scene, foreign: &Certificates) -> Result<()> {
    let ours = certificates(&scene.lab).clone();
    let master = scene.lab.in_sync()?;
    let node = &mut scene.lab.pair.nodes[1 - master];
    node.stop(LIMIT)?;
    let name = node.settings.node.clone();
    foreign.issue(&name, &["127.0.0.1", &node.settings.pair])?;
    let wrong = foreign.section_trusting(&name, &ours.authority());
    node.settings.more = node.settings.more.replace(&ours.section(&name), &wrong);
    node.start_and_wait()?;
    let seen = scene.router.wait_for("does not follow a stranger", |status| {
        let heard = [master, 1 - master].map(|node| &status["nodes"][node]["contact"]);
        heard == ["heard", "other"]
    })?;
    ensure!(seen["standing"] == "serving", "{seen}");
    let log = node.folder().join("log");
    eventually(LIMIT, "the node warns", || {
        let said = std::fs::read_to_string(&log)?;
        ensure!(said.contains("whoever trusts tls.authority"), "{said}");
        Ok(())
    })
}
