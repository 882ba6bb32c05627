//! By which names a port may be asked. A page in somebody's browser can make that browser ask any
//! address, its own loopback too, by a name of the page's owner that suddenly means that address (DNS
//! rebinding); what gives it away is the name in `Host`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::server::Request;
use hyper::header::HOST;

/// The names that we go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: BTreeSet<String>,
}

impl Hosts {
    /// `localhost`, any IP address, and these: host names, with a port or without.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(|name| host(name).to_ascii_lowercase());
        Self { names: names.filter(|name| !name.is_empty()).collect() }
    }

    /// Whether a request may be meant for us. Asked from elsewhere than this machine it may: there
    /// tokens decide, and whoever sits in between may have a name of his own for us.
    #[must_use]
    pub fn accept(&self, request: &Request) -> bool {
        if !request.is_from_loopback() {
            return true;
        }
        let mut all = request.headers.get_all(HOST).iter();
        match (all.next(), all.next()) {
            // HTTP/1.0; no browser speaks it.
            (None, _) => true,
            (Some(given), None) => given.to_str().is_ok_and(|given| self.has(given)),
            (Some(_), Some(_)) => false,
        }
    }

    fn has(&self, given: &str) -> bool {
        let host = host(given.trim()).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        // An address is no name that could mean another one tomorrow.
        host.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.names.contains(host)
    }
}

/// The host of `host:port` or `host`, of an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split_once(']').map_or("", |(host, _)| host);
    }
    match address.split_once(':') {
        // More than one colon: an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => address,
        Some((host, _)) => host,
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::{HeaderMap, Method};

    use super::*;

    fn request(from: &str, hosts: &[&str]) -> Request {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let (method, path, query) = (Method::GET, "/role".to_owned(), None);
        Request { method, path, query, headers, body: Bytes::new(), from: from.parse().unwrap() }
    }

    #[test]
    fn from_this_machine_only_our_own_names_are_taken() {
        let hosts = Hosts::new(["node-a.example.org:7101", "Admin.Example.org", "10.0.0.1:7101"]);
        let here = |host: &str| hosts.accept(&request("127.0.0.1:9", &[host]));
        for good in [
            "localhost",
            "LOCALHOST:7101",
            "127.0.0.1:7101",
            "[::1]:7101",
            "::1",
            "192.168.3.4",
            "node-a.example.org",
            "NODE-A.example.org.:1",
            "admin.example.org:443",
            "x.localhost:7101",
        ] {
            assert!(here(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:7101",
            "",
            "[::1",
            "a b",
            "127.0.0.1.evil.example",
        ] {
            assert!(!here(bad), "{bad}");
        }
        assert!(hosts.accept(&request("127.0.0.1:9", &[])));
        assert!(!hosts.accept(&request("127.0.0.1:9", &["localhost", "evil.example"])));
        assert!(!hosts.accept(&request("[::ffff:127.0.0.1]:9", &["evil.example"])));
        assert!(hosts.accept(&request("10.0.0.9:9", &["our-proxy.example"])));
    }
}
