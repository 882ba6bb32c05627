//! The router beside HAProxy: one thread each, in front of the same small HTTP back end, asked by the
//! same `wrk`. The back end answers every request with the same bytes and says on its other port that it
//! serves, so that both have nothing to do but to carry.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hotpair_lab::need::{Need, install};
use hotpair_lab::port::Port;
use hotpair_lab::process::{Process, run};
use hotpair_lab::scratch::Scratch;
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::progress;

const LIMIT: Duration = Duration::from_secs(60);
const BODY: &str = "{\"session\":\"0123456789abcdef0123456789abcdef\"}";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n\
                      {\"error_no\":0,\"error_info\":\"\",\"epoch\":1,\"data\":{}}";
/// Rounds of each, one after the other, so that both see the same machine.
const ROUNDS: usize = 3;
/// Connections that do nothing, to see what one costs.
const IDLE: usize = 1_000;
/// For how long they do nothing before it is looked at.
const IDLE_FOR: Duration = Duration::from_secs(3);

/// Requests a second of both, and what they cost in memory.
pub(super) fn against_haproxy(connections: usize, seconds: u64) -> Result<Value> {
    install(&[Need::Proxies])?;
    let scratch = Scratch::new("bench-router")?;
    let ports = (0..5).map(|_| Port::reserve()).collect::<Result<Vec<Port>>>()?;
    let [back, admin, router, router_admin, haproxy] =
        [0, 1, 2, 3, 4].map(|index| ports[index].address());
    serve(back, answer_always)?;
    serve(admin, answer_as_master)?;
    let router_process = start_router(&scratch, back, admin, router, router_admin)?;
    let haproxy_process = start_haproxy(&scratch, back, haproxy)?;
    let script = scratch.write("post.lua", wrk_script())?;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    let mut reports = [Value::Null, Value::Null, Value::Null];
    for round in 0..ROUNDS {
        let all = [("direct", back), ("router", router), ("haproxy", haproxy)];
        for (index, (name, address)) in all.into_iter().enumerate() {
            let report = wrk(&script, address, connections, seconds)?;
            progress(&format!("round {round}, {name}: {report}"));
            rates[index].push(report["per_second"].as_f64().unwrap_or(0.0));
            reports[index] = report;
        }
    }
    let best = |index: usize| rates[index].iter().copied().fold(0.0, f64::max);
    let figures = |index: usize| json!({"per_second_best": best(index), "per_second": rates[index], "last": reports[index]});
    Ok(json!({
        "connections": connections,
        "optimised": !cfg!(debug_assertions),
        "direct": figures(0),
        "router": figures(1),
        "haproxy": figures(2),
        "router_to_haproxy": best(1) / best(2),
        "router_memory": memory(&router_process, router)?,
        "haproxy_memory": memory(&haproxy_process, haproxy)?,
    }))
}

/// Memory after the load, and with idle connections besides.
fn memory(process: &Process, address: SocketAddr) -> Result<Value> {
    let loaded = resident_kib(process)?;
    let idle: Vec<std::net::TcpStream> = (0..IDLE)
        .map(|_| {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(address)?;
            // One request, so that everything that a connection needs is there.
            stream.write_all(request().as_bytes())?;
            let _ = stream.read(&mut [0; 512])?;
            Ok(stream)
        })
        .collect::<std::io::Result<_>>()
        .context("idle connections")?;
    std::thread::sleep(IDLE_FOR);
    let with_idle = resident_kib(process)?;
    let each = with_idle.saturating_sub(loaded) as f64 / idle.len() as f64;
    Ok(json!({"after_load_kib": loaded, "each_idle_connection_kib": each}))
}

fn resident_kib(process: &Process) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("no VmRSS")
}

fn request() -> String {
    format!(
        "POST /v1/heartbeat HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

// --- the back end

/// Serves a port on a thread of its own, as long as this process lives.
fn serve<F: Future<Output = ()> + Send + 'static>(
    address: SocketAddr,
    answer: fn(TcpStream) -> F,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(address))?;
    std::thread::Builder::new().name("back end".to_owned()).spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(answer(stream));
            }
        });
    })?;
    Ok(())
}

/// Nobody sends a second request before the first one's answer: what ends in a body is one.
async fn answer_always(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    let mut end = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        end.extend_from_slice(&bytes[..count]);
        if end.ends_with(BODY.as_bytes()) {
            end.clear();
            if stream.write_all(ANSWER.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A node's admin port as far as a router asks it.
async fn answer_as_master(mut stream: TcpStream) {
    let role = json!({
        "pair": "bench", "node": "a", "role": "master", "serving": true, "epoch": 1,
        "since_ms": 0, "coordinator": "none", "contact": "connected", "in_sync": true,
        "peer": {"reachable": false},
    });
    let mut bytes = [0; 4096];
    let Ok(count @ 1..) = stream.read(&mut bytes).await else { return };
    let text = role.to_string();
    let answer = if bytes[..count].starts_with(b"GET /events") {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: view\ndata: {text}\n\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    // Open until the other side has enough.
    while let Ok(1..) = stream.read(&mut bytes).await {}
}

// --- what stands in front of it

fn start_router(
    scratch: &Scratch,
    back: SocketAddr,
    admin: SocketAddr,
    listen: SocketAddr,
    listen_admin: SocketAddr,
) -> Result<Process> {
    let text = format!(
        "pair = \"bench\"\n[listen]\nclient = \"{listen}\"\nadmin = \"{listen_admin}\"\n\
         [[nodes]]\nname = \"a\"\nclient = \"{back}\"\nadmin = \"{admin}\"\n\
         [limits]\nthreads = 1\n"
    );
    let config = scratch.write("router.toml", text)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("router").arg("--config").arg(config);
    let process = Process::start("the router", &mut command, &scratch.join("router.log"))?;
    answers("the router", listen)?;
    Ok(process)
}

fn start_haproxy(scratch: &Scratch, back: SocketAddr, listen: SocketAddr) -> Result<Process> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8000\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n\
         \x20 http-reuse always\n  retries 3\n  option redispatch\n\
         frontend clients\n  bind {listen}\n  default_backend node\n\
         backend node\n  server a {back} check\n"
    );
    let config = scratch.write("haproxy.cfg", text)?;
    let mut command = Command::new("haproxy");
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.arg("-db").arg("-f").arg(config);
    let process = Process::start("haproxy", &mut command, &scratch.join("haproxy.log"))?;
    answers("haproxy", listen)?;
    Ok(process)
}

/// Waits until a request goes all the way through.
fn answers(name: &str, address: SocketAddr) -> Result<()> {
    use std::io::{Read, Write};
    eventually(LIMIT, &format!("{name} answers"), || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(request().as_bytes())?;
        let mut bytes = [0; 512];
        let count = stream.read(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes[..count]);
        ensure!(text.contains("\"error_no\":0"), "{text}");
        Ok(())
    })
}

// --- who asks

fn wrk_script() -> String {
    format!(
        "wrk.method = \"POST\"\nwrk.path = \"/v1/heartbeat\"\nwrk.body = '{BODY}'\n\
         wrk.headers[\"Content-Type\"] = \"application/json\"\n\
         done = function(summary, latency, requests)\n\
         \x20 io.write(string.format('RESULT {{\"requests\":%d,\"us\":%d,\"p50_us\":%d,\"p99_us\":%d,\
         \"worst_us\":%d,\"errors\":%d}}\\n', summary.requests, summary.duration,\
         latency:percentile(50), latency:percentile(99), latency.max,\
         summary.errors.connect + summary.errors.read + summary.errors.write\
         + summary.errors.status + summary.errors.timeout))\nend\n"
    )
}

fn wrk(script: &Path, address: SocketAddr, connections: usize, seconds: u64) -> Result<Value> {
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"]);
    let said = run(command.arg(script).arg(format!("http://{address}/")))?;
    let line = said.lines().find_map(|line| line.strip_prefix("RESULT "));
    let mut report: Value =
        serde_json::from_str(line.with_context(|| format!("wrk said: {said}"))?)?;
    let seconds = report["us"].as_f64().unwrap_or(f64::NAN) / 1e6;
    report["per_second"] = json!(report["requests"].as_f64().unwrap_or(0.0) / seconds);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_ends_answer_is_as_long_as_it_says() {
        let (_, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(ANSWER.contains(&format!("Content-Length: {}\r\n", body.len())));
        let envelope: Value = serde_json::from_str(body).unwrap();
        assert_eq!(envelope["error_no"], 0);
    }
}
