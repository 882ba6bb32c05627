//! The router's operators' port: what it sees of the nodes, what it does with requests, what it counts.
//! Nothing can be ordered here: a router decides nothing that an operator could want otherwise.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use hotpair_core::pair::Moment;
use hotpair_http::{Counters, Handler, Hosts, Method, Refusal, Request, Response, StatusCode};
use hotpair_protocol::{NodeAsSeen, RouterStatus};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock;
use crate::decider::{Contact, Decider, OutageKind};
use crate::desk::Desk;
use crate::fact::{Loss, NodeIndex, NodeRole};
use crate::meters::Meters;

/// What the operators' port is made of.
pub struct AdminParts {
    /// The pair's name.
    pub pair: String,
    /// The program's version.
    pub version: String,
    /// The nodes' names, in the configuration's order.
    pub nodes: Vec<String>,
    /// What is decided.
    pub desk: Arc<Desk>,
    /// What was answered.
    pub meters: Arc<Meters>,
    /// The clients' port.
    pub counters: Arc<Counters>,
    /// What a look from elsewhere than loopback needs, if anything.
    pub read_token: Option<String>,
    /// The names by which the router is asked from its own machine.
    pub hosts: Hosts,
}

/// Answers operators.
#[derive(Debug)]
pub struct RouterAdmin {
    parts: AdminParts,
    token: Option<[u8; 32]>,
}

impl fmt::Debug for AdminParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminParts").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl RouterAdmin {
    /// A port that shows this.
    #[must_use]
    pub fn new(mut parts: AdminParts) -> Self {
        let token = parts.read_token.take().map(|token| Sha256::digest(token.trim()).into());
        Self { parts, token }
    }

    fn may_look(&self, request: &Request) -> bool {
        let Some(wanted) = self.token.filter(|_| !request.is_from_loopback()) else { return true };
        let given: Option<[u8; 32]> = request.bearer().map(|given| Sha256::digest(given).into());
        given.is_some_and(|given| given.ct_eq(&wanted).into())
    }

    fn look(&self, path: &str) -> Option<Response> {
        Some(match path {
            "/healthz" => Response::text(StatusCode::OK, "ok\n"),
            "/readyz" => {
                let status = self.status();
                match status.target {
                    Some(_) => Response::text(StatusCode::OK, "ready\n"),
                    None => {
                        let text = format!("nobody serves: {}\n", status.standing);
                        Response::text(StatusCode::SERVICE_UNAVAILABLE, text)
                    }
                }
            }
            "/status" => {
                let json = serde_json::to_vec(&self.status()).expect("the public words are JSON");
                Response::json(StatusCode::OK, json)
            }
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                Response::new(StatusCode::OK, kind, metrics(&self.status()))
            }
            _ => return None,
        })
    }

    fn status(&self) -> RouterStatus {
        let AdminParts { pair, version, nodes, desk, meters, counters, .. } = &self.parts;
        let now = clock::now();
        let mut status = desk.look(|decider| seen(decider, nodes, now));
        for (index, node) in status.nodes.iter_mut().enumerate() {
            node.connections = desk.pool(NodeIndex(index)).open();
        }
        pair.clone_into(&mut status.pair);
        version.clone_into(&mut status.version);
        status.connections = counters.open();
        status.connections_refused = counters.refused();
        status.connections_cut = counters.cut();
        status.requests = meters.totals();
        status
    }
}

fn seen(decider: &Decider, names: &[String], now: Moment) -> RouterStatus {
    let nodes = names.iter().zip(decider.nodes()).map(|(name, node)| {
        let view = node.view.as_ref();
        NodeAsSeen {
            name: name.clone(),
            contact: contact_word(node.contact).to_owned(),
            role: view.map(|view| role_word(view.role).to_owned()),
            serving: view.map(|view| view.serving),
            epoch: view.map(|view| view.epoch),
            cluster: view.and_then(|view| view.cluster.clone()),
            doubted: node.is_doubted(),
            connections: 0,
        }
    });
    let standing = match decider.outage().map(|outage| outage.kind) {
        None => "serving",
        Some(_) if decider.is_down(now) => "down",
        Some(OutageKind::Blind) => "blind",
        Some(OutageKind::Crash) => "lost",
        Some(OutageKind::Planned) => "switching",
    };
    let (held, held_bytes) = decider.held();
    RouterStatus {
        standing: standing.to_owned(),
        target: decider.target().map(|target| names[target.node.0].clone()),
        epoch: decider.epoch(),
        unserved_ms: decider.outage().map(|outage| now.ms_since(outage.began)),
        bound_ms: decider.bound_ms(),
        nodes: nodes.collect(),
        under_way: decider.under_way(),
        held,
        held_bytes,
        sent_again: decider.sent_again(),
        ..RouterStatus::default()
    }
}

fn contact_word(contact: Contact) -> &'static str {
    match contact {
        Contact::Never => "never",
        Contact::Heard => "heard",
        Contact::Lost(Loss::Refused) => "refused",
        Contact::Lost(Loss::Closed) => "closed",
        Contact::Lost(Loss::Silent) => "silent",
        Contact::Lost(Loss::Other) => "other",
    }
}

fn role_word(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Standby => "standby",
        NodeRole::Promoting => "promoting",
        NodeRole::Master => "master",
        NodeRole::Demoting => "demoting",
        NodeRole::Other => "other",
    }
}

impl Handler for RouterAdmin {
    async fn handle(self: Arc<Self>, request: Request) -> Response {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let text = "a router takes no orders: GET only\n";
            return Response::text(StatusCode::METHOD_NOT_ALLOWED, text).with_allow("GET, HEAD");
        }
        if !self.parts.hosts.accept(&request) {
            let text = "the Host of this request is none of this router's names: ask for its address, \
                        or write the name into admin.hosts\n";
            return Response::text(StatusCode::MISDIRECTED_REQUEST, text);
        }
        if request.path != "/healthz" && !self.may_look(&request) {
            let text = "a token is needed: send it as `Authorization: Bearer TOKEN`\n";
            return Response::text(StatusCode::UNAUTHORIZED, text).with_bearer_wanted();
        }
        self.look(&request.path).unwrap_or_else(|| {
            let text = "a router offers GET /healthz /readyz /status /metrics\n";
            Response::text(StatusCode::NOT_FOUND, text)
        })
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let status = match refusal {
            Refusal::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyBroken(_) | Refusal::PlainText => StatusCode::BAD_REQUEST,
        };
        Response::text(status, format!("{refusal}\n"))
    }
}

/// Prometheus' text format, version 0.0.4.
fn metrics(status: &RouterStatus) -> String {
    let mut page = Page { text: String::new(), pair: &status.pair };
    page.write(status).expect("writing to a String does not fail");
    page.text
}

struct Page<'a> {
    text: String,
    pair: &'a str,
}

impl Page<'_> {
    fn write(&mut self, status: &RouterStatus) -> fmt::Result {
        let serving = u8::from(status.target.is_some());
        self.gauge("serving", "1 while requests are forwarded", serving)?;
        self.gauge("epoch", "the newest epoch heard to be served", status.epoch)?;
        self.gauge("under_way", "requests under way to a node", status.under_way)?;
        self.gauge("held", "requests held", status.held)?;
        self.gauge("held_bytes", "what held requests cost", status.held_bytes)?;
        self.gauge("connections", "clients' connections", status.connections)?;
        self.head("target", "gauge", "1 for the node that requests go to")?;
        for node in &status.nodes {
            let is_target = status.target.as_ref() == Some(&node.name);
            self.line("target", &label("node", &node.name), u8::from(is_target))?;
        }
        self.head("node_heard", "gauge", "1 while the node's events are followed")?;
        for node in &status.nodes {
            self.line("node_heard", &label("node", &node.name), u8::from(node.contact == "heard"))?;
        }
        self.counter("sent_again_total", "requests sent a further time", status.sent_again)?;
        let refused = status.connections_refused;
        self.counter("connections_refused_total", "connections refused", refused)?;
        self.counter("connections_cut_total", "slow connections cut", status.connections_cut)?;
        self.head("requests_total", "counter", "answers by error number; 503 is the empty one")?;
        for (error_no, count) in &status.requests.by_error_no {
            self.line("requests_total", &label("error_no", error_no), count)?;
        }
        let seconds = &status.requests.seconds;
        self.head("request_seconds", "histogram", "how long answers took")?;
        for (limit, count) in &seconds.buckets {
            self.line("request_seconds_bucket", &label("le", limit), count)?;
        }
        self.line("request_seconds_bucket", &label("le", "+Inf"), seconds.count)?;
        self.line("request_seconds_sum", "", seconds.sum)?;
        self.line("request_seconds_count", "", seconds.count)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        self.line(name, "", value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "counter", help)?;
        self.line(name, "", value)
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        let name = format_args!("hotpair_router_{name}");
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn line(&mut self, name: &str, more: &str, value: impl Display) -> fmt::Result {
        let pair = self.pair;
        writeln!(self.text, "hotpair_router_{name}{{pair=\"{pair}\"{more}}} {value}")
    }
}

/// A further label, with the comma before it. Names have no letters that would need an escape.
fn label(name: &str, value: impl Display) -> String {
    format!(",{name}=\"{value}\"")
}

#[cfg(test)]
mod tests {
    use hotpair_http::{Bytes, HeaderMap, Pool, PoolLimits};

    use super::*;
    use crate::Settings;
    use crate::fact::{Fact, NodeView};

    fn admin() -> Arc<RouterAdmin> {
        let settings = Settings {
            nodes: 2,
            planned_ms: 5_000,
            crash_ms: 500,
            held_bytes_max: 1,
            held_max: 1,
            requests_max: 1,
            bound_ms: 15_000,
            seed: 1,
        };
        let pools = (0..2).map(|_| Pool::new("127.0.0.1:1", PoolLimits::default())).collect();
        Arc::new(RouterAdmin::new(AdminParts {
            pair: "trade".to_owned(),
            version: "0".to_owned(),
            nodes: vec!["a".to_owned(), "b".to_owned()],
            desk: Arc::new(Desk::new(settings, pools)),
            meters: Arc::default(),
            counters: Arc::default(),
            read_token: Some("secret\n".to_owned()),
            hosts: Hosts::default(),
        }))
    }

    async fn ask(admin: &Arc<RouterAdmin>, path: &str, from: &str, token: &str) -> (u16, String) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let (path, from) = (path.to_owned(), from.parse().unwrap());
        let (method, body) = (Method::GET, Bytes::new());
        let request = Request { method, path, query: None, headers, body, from };
        let response = Arc::clone(admin).handle(request).await;
        let hotpair_http::Body::Whole(body) = response.body else { panic!("a stream") };
        (response.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    const HERE: &str = "127.0.0.1:9";

    #[tokio::test]
    async fn it_is_ready_once_somebody_serves_and_shows_who() {
        let admin = admin();
        assert_eq!(ask(&admin, "/readyz", HERE, "").await.0, 503);
        assert!(ask(&admin, "/status", HERE, "").await.1.contains("\"standing\":\"blind\""));
        let view = NodeView { cluster: None, epoch: 7, role: NodeRole::Master, serving: true };
        admin.parts.desk.note(Fact::Viewed(NodeIndex(1), view));
        assert_eq!(ask(&admin, "/readyz", HERE, "").await, (200, "ready\n".to_owned()));
        let status = ask(&admin, "/status", HERE, "").await.1;
        let status: RouterStatus = serde_json::from_str(&status).unwrap();
        assert_eq!((status.target.as_deref(), status.epoch), (Some("b"), 7));
        let metrics = ask(&admin, "/metrics", HERE, "").await.1;
        assert!(metrics.contains("hotpair_router_target{pair=\"trade\",node=\"b\"} 1\n"));
        assert_eq!(ask(&admin, "/", HERE, "").await.0, 404);
    }

    #[tokio::test]
    async fn a_look_from_elsewhere_needs_the_read_token() {
        let (admin, away) = (admin(), "10.0.0.2:9");
        assert_eq!(ask(&admin, "/status", away, "guess").await.0, 401);
        assert_eq!(ask(&admin, "/status", away, "secret").await.0, 200);
        assert_eq!(ask(&admin, "/healthz", away, "guess").await.0, 200);
    }
}
