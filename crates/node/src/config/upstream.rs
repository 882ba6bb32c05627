//! `[upstream]`: the external investment system that gives sessions a token and hears of them.

use hotpair_http::Url;
use serde::Deserialize;

use super::{Span, between};

/// Where it is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct UpstreamConfig {
    /// Asked for a token at each login.
    pub(crate) login: Option<String>,
    /// Told of each session that has a token, while this node serves.
    pub(crate) heartbeat: Option<String>,
    /// Between two heartbeats of a session; both nodes the same.
    #[serde(default = "default_interval")]
    pub(crate) interval: Span,
}

fn default_interval() -> Span {
    Span(std::time::Duration::from_secs(30))
}

pub(super) fn validate(
    upstream: Option<&UpstreamConfig>,
    users_configured: bool,
    problems: &mut Vec<String>,
) {
    let Some(upstream) = upstream else { return };
    for (key, url) in
        [("upstream.login", &upstream.login), ("upstream.heartbeat", &upstream.heartbeat)]
    {
        if let Some(url) = url
            && let Err(error) = url.parse::<Url>()
        {
            problems.push(format!("{key} = {url:?}: {error}"));
        }
    }
    if upstream.heartbeat.is_some() && upstream.login.is_none() {
        problems.push(
            "upstream.heartbeat is given and upstream.login is missing: without it no session has a \
             token to tell of"
                .to_owned(),
        );
    }
    if upstream.login.is_some() && !users_configured {
        problems.push(
            "upstream.login is given and sessions.users_file is missing: nobody can log in"
                .to_owned(),
        );
    }
    between(problems, "upstream.interval", upstream.interval, 100, 3_600_000);
}

/// What an operator should know of the way there: users' passwords travel on it.
pub(super) fn doubts(upstream: Option<&UpstreamConfig>) -> Vec<String> {
    let Some(UpstreamConfig { login, heartbeat, .. }) = upstream else { return Vec::new() };
    let plain = |(key, what, url): (&str, &str, &Option<String>)| {
        let url = url.as_ref()?.parse::<Url>().ok()?;
        (!url.secure && !url.is_loopback()).then(|| {
            format!(
                "{key} = \"{url}\" is not on this machine, and {what} travel there in plain text: \
                 write https://"
            )
        })
    };
    [
        ("upstream.login", "users' passwords and tokens", login),
        ("upstream.heartbeat", "users' tokens", heartbeat),
    ]
    .into_iter()
    .filter_map(plain)
    .collect()
}

/// Addresses may differ between the nodes; what is done must not.
pub(super) fn put_into_digest(upstream: Option<&UpstreamConfig>, text: &mut String) {
    if let Some(UpstreamConfig { login, heartbeat, interval }) = upstream {
        let (login, heartbeat) = (login.is_some(), heartbeat.is_some());
        text.push_str(&format!("\0upstream\0{login}\0{heartbeat}\0{}", interval.ms()));
    }
}
