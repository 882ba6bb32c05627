//! `[[services]]`: servers of other people as primary and standby, and what their values mean
//! together.

use std::net::SocketAddr;

use hotpair_core::services::governed::Address;
use serde::Deserialize;

use super::words::{self, Word};
use super::{Listen, Span, between};

/// One service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceConfig {
    /// What operators call it; part of a path of the admin API.
    pub(crate) name: String,
    /// How its active member is chosen.
    #[serde(deserialize_with = "words::word")]
    pub(crate) policy: ServicePolicy,
    /// The member to begin with, `host:port`.
    pub(crate) primary: String,
    /// The member that steps in.
    pub(crate) standby: String,
    /// How members are checked.
    #[serde(deserialize_with = "words::word")]
    pub(crate) check: ServiceCheck,
    /// How often; also how long a check may take. Three failed ones in a row are a member that is
    /// down: too short takes a slow member for a dead one.
    #[serde(default = "default_interval")]
    pub(crate) interval: Span,
    /// Our own port in front, open while this node serves.
    pub(crate) proxy: Option<SocketAddr>,
}

fn default_interval() -> Span {
    Span(std::time::Duration::from_millis(500))
}

/// How a service's active member is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServicePolicy {
    /// One is active, the other one steps in, and there is no way back by itself.
    ActiveStandby,
}

impl Word for ServicePolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("active-standby", Self::ActiveStandby)];
}

/// How a member is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceCheck {
    /// A connection that is accepted.
    Tcp,
    /// An answer to `GET /` with a status below 500.
    Http,
    /// A VSOA connection; known, and not built in this version.
    Vsoa,
}

impl Word for ServiceCheck {
    const WORDS: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("http", Self::Http), ("vsoa", Self::Vsoa)];
}

/// What the values mean together.
pub(super) fn validate(services: &[ServiceConfig], listen: &Listen, problems: &mut Vec<String>) {
    if services.len() > SERVICES_MAX {
        problems.push(format!("services: {} of them; at most {SERVICES_MAX}", services.len()));
    }
    for (i, service) in services.iter().enumerate() {
        let name = &service.name;
        if services[..i].iter().any(|other| other.name == *name) {
            problems.push(format!("services: two are named {name:?}"));
        }
        let good = (1..=64).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !good {
            problems.push(format!(
                "services: name = {name:?}: a name has 1 to 64 letters, digits, - or _"
            ));
        }
        match service.check {
            ServiceCheck::Tcp | ServiceCheck::Http => {}
            ServiceCheck::Vsoa => problems.push(format!(
                "services {name:?}: check = \"vsoa\" is not built in this version; it has \"tcp\" \
                 and \"http\""
            )),
        }
        between(problems, &format!("services {name:?}: interval"), service.interval, 20, 60_000);
        validate_addresses(service, problems);
        validate_proxy(service, &services[..i], listen, problems);
    }
}

fn validate_addresses(service: &ServiceConfig, problems: &mut Vec<String>) {
    let ServiceConfig { name, primary, standby, proxy, .. } = service;
    for (key, address) in [("primary", primary), ("standby", standby)] {
        if let Err(error) = address.parse::<Address>() {
            problems.push(format!("services {name:?}: {key} = {error}"));
        }
        if proxy.is_some_and(|proxy| proxy.to_string() == *address) {
            problems.push(format!("services {name:?}: proxy and {key} are both {address}"));
        }
    }
    if primary == standby {
        problems.push(format!("services {name:?}: primary and standby are both {primary}"));
    }
}

fn validate_proxy(
    service: &ServiceConfig,
    before: &[ServiceConfig],
    listen: &Listen,
    problems: &mut Vec<String>,
) {
    let (name, Some(proxy)) = (&service.name, service.proxy) else { return };
    if proxy.port() == 0 {
        problems.push(format!("services {name:?}: proxy = \"{proxy}\": write a port"));
    }
    for (key, address) in [
        ("listen.client", Some(listen.client)),
        ("listen.admin", Some(listen.admin)),
        ("listen.peer", listen.peer),
    ] {
        if address == Some(proxy) {
            problems.push(format!("services {name:?}: proxy and {key} are both {proxy}"));
        }
    }
    for other in before.iter().filter(|other| other.proxy == Some(proxy)) {
        let other = &other.name;
        problems.push(format!("services {name:?} and {other:?}: proxy is both {proxy}"));
    }
}

/// What both nodes must have alike, or the next master would govern something else.
pub(super) fn put_into_digest(services: &[ServiceConfig], text: &mut String) {
    for service in services {
        let ServiceConfig { name, policy, primary, standby, check, .. } = service;
        let (policy, check) = (policy.word(), check.word());
        text.push_str(&format!("\0{name}\0{policy}\0{primary}\0{standby}\0{check}"));
    }
}

const SERVICES_MAX: usize = 64;
