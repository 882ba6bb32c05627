//! A router's configuration: like a node's, read in the same three steps, with the same kind of errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hotpair_tls::Identity;
use serde::{Deserialize, Deserializer};

use super::{
    ConfigError, Span, Tls, between, check_keys, check_listening, check_name, has_port, keys,
    layered, sources, tls,
};

/// Everything a router is told.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RouterConfig {
    /// The pair's name, as in its nodes' files.
    pub(crate) pair: String,
    pub(crate) listen: RouterListen,
    /// The pair's nodes: two, or one that stands alone.
    pub(crate) nodes: Vec<RoutedNode>,
    #[serde(default)]
    pub(crate) hold: Hold,
    #[serde(default)]
    pub(crate) limits: RouterLimits,
    #[serde(default)]
    pub(crate) admin: RouterAdmin,
    #[serde(default)]
    pub(crate) tls: Tls,
    /// What the files of `[tls]` say; none if none is given.
    /// What is good enough to start with, and is to be told.
    #[serde(skip)]
    pub(crate) doubts: Vec<String>,
    #[serde(skip)]
    pub(crate) identity: Option<Arc<Identity>>,
    /// The text of `admin.read_token_file`, blanks at either end left out.
    #[serde(skip)]
    pub(crate) read_token: Option<String>,
}

/// Addresses to bind.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RouterListen {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A node of the pair as seen from here: `host:port`, which is reached over TLS where `tls.authority`
/// is given; or `https://host:port` or `http://host:port`, to say which.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RoutedNode {
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) admin: String,
}

/// Requests that wait for the next master.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Hold {
    /// Longest wait in a planned switch. Longer than clients wait for an answer makes them give up.
    pub(crate) planned: Span,
    /// Longest wait after a crash; 0 answers 308000000 at once.
    pub(crate) crash: Span,
    /// What held requests may cost together.
    pub(crate) bytes: Size,
    /// The longest time without a master, until a node has told what its own settings make of it.
    pub(crate) bound: Span,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            planned: Span(Duration::from_secs(5)),
            crash: Span(Duration::from_millis(500)),
            bytes: Size(64 << 20),
            bound: Span(Duration::from_secs(20)),
        }
    }
}

/// What strangers may make grow.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct RouterLimits {
    /// Requests under way and held.
    pub(crate) requests: usize,
    /// Requests held.
    pub(crate) held: usize,
    /// Connections of clients.
    pub(crate) connections: usize,
    /// Connections to each node; not more than a node takes from all its routers.
    pub(crate) node_connections: usize,
    /// Push streams from each node, each on a connection of its own besides those.
    pub(crate) streams: usize,
    /// Threads that carry requests.
    pub(crate) threads: usize,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            requests: 16_384,
            held: 16_384,
            connections: 16_384,
            node_connections: 1_024,
            streams: 2_048,
            threads: 1,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RouterAdmin {
    /// The nodes' read token, which their events need from elsewhere than loopback.
    pub(crate) read_token_file: Option<PathBuf>,
    /// Names by which the router's admin HTTP is asked from its own machine, as in a node's file.
    pub(crate) hosts: Vec<String>,
}

/// An amount of memory as operators write it: `64MiB`, `512KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no size; write 64MiB or 512KiB"))
        })
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

impl RoutedNode {
    /// The URL of one of its ports.
    pub(crate) fn url(address: &str, tls: &Tls) -> String {
        match tls.authority {
            _ if address.contains("://") => address.to_owned(),
            Some(_) => format!("https://{address}"),
            None => format!("http://{address}"),
        }
    }
}

impl RouterConfig {
    /// Whether a file looks like a router's: only those have nodes.
    pub(crate) fn is_meant(file: &Path) -> bool {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        toml::de::DeTable::parse(&text).is_ok_and(|document| {
            document.get_ref().iter().any(|(key, _)| key.get_ref() == "nodes")
        })
    }

    /// Reads the file and the environment of this process.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let fail = |problems| ConfigError::new(file, problems);
        let (text, environment) = sources(file)?;
        let mut config = Self::parse(&text, &environment).map_err(fail)?;
        if let Some(token_file) = &config.admin.read_token_file {
            tls::check_secret("admin.read_token_file", token_file)
                .map_err(|problem| fail(vec![problem]))?;
            let shown = token_file.display();
            let told =
                |why: String| fail(vec![format!("admin.read_token_file = {shown:?}: {why}")]);
            let token =
                std::fs::read_to_string(token_file).map_err(|error| told(error.to_string()))?;
            let token = token.trim();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(told("it must hold one token of visible characters".to_owned()));
            }
            config.read_token = Some(token.to_owned());
        }
        config.tls = config.tls.below(file.parent().unwrap_or(Path::new("")));
        config.identity = config.tls.read().map_err(fail)?;
        let secrets = [
            ("admin.read_token_file", config.admin.read_token_file.as_ref()),
            ("tls.key", config.tls.key.as_ref()),
        ];
        config.doubts = tls::doubts(config.identity.as_deref(), secrets);
        Ok(config)
    }

    pub(super) fn parse(
        text: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<String>> {
        check_keys(text, environment, keys::ROUTER)?;
        let config: Self = layered(text, environment, &["admin.hosts"])?;
        let problems = config.validate();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        check_name(&mut problems, "pair", &self.pair);
        let addresses =
            [("listen.client", self.listen.client), ("listen.admin", self.listen.admin)];
        check_listening(&mut problems, &addresses, &self.tls);
        self.validate_nodes(&mut problems);
        let hold = &self.hold;
        between(&mut problems, "hold.planned", hold.planned, 0, 60_000);
        between(&mut problems, "hold.crash", hold.crash, 0, 60_000);
        between(&mut problems, "hold.bound", hold.bound, 100, 600_000);
        let limits = &self.limits;
        for (key, value, max) in [
            ("limits.requests", limits.requests, 1 << 20),
            ("limits.held", limits.held, 1 << 20),
            ("limits.connections", limits.connections, 1 << 20),
            ("limits.node_connections", limits.node_connections, 1 << 16),
            ("limits.streams", limits.streams, 1 << 16),
            ("limits.threads", limits.threads, 64),
        ] {
            if value == 0 || value > max {
                problems.push(format!("{key} = {value}: must lie between 1 and {max}"));
            }
        }
        problems
    }

    fn validate_nodes(&self, problems: &mut Vec<String>) {
        if !(1..=2).contains(&self.nodes.len()) {
            let count = self.nodes.len();
            problems.push(format!("[[nodes]]: there are {count}; a pair has two, or one alone"));
        }
        let mut addresses: Vec<(String, &str)> = Vec::new();
        let own = [self.listen.client.to_string(), self.listen.admin.to_string()];
        addresses.push(("listen.client".to_owned(), &own[0]));
        addresses.push(("listen.admin".to_owned(), &own[1]));
        for (i, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            check_name(problems, "nodes.name", name);
            if self.nodes[..i].iter().any(|other| other.name == *name) {
                problems.push(format!("nodes: two are named {name:?}"));
            }
            for (key, address) in [("client", &node.client), ("admin", &node.admin)] {
                let key = format!("nodes {name:?}: {key}");
                let (scheme, bare) = address.split_once("://").unwrap_or(("", address));
                if !has_port(bare) || !["", "http", "https"].contains(&scheme) {
                    problems.push(format!("{key} = {address:?}: write host:port"));
                }
                if scheme == "https" && self.tls.authority.is_none() {
                    problems.push(format!(
                        "{key} = {address:?} and tls.authority is not given: nobody could vouch for it"
                    ));
                }
                if let Some((other, _)) = addresses.iter().find(|(_, known)| known == address) {
                    problems.push(format!("{key} and {other} are both {address}"));
                }
                addresses.push((key, address));
            }
        }
    }
}

/// A commented example that is valid as it stands.
pub(crate) const EXAMPLE: &str = include_str!("router.toml");

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RouterConfig, Vec<String>> {
        RouterConfig::parse(text, &BTreeMap::new())
    }

    fn problems(text: &str) -> String {
        parse(text).expect_err("the text has a problem").join("\n")
    }

    fn changed(from: &str, to: &str) -> String {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "{from}");
        text
    }

    #[test]
    fn the_example_is_valid_and_says_the_defaults() {
        let config = parse(EXAMPLE).unwrap();
        assert_eq!(config.nodes.len(), 2);
        let defaults = Hold::default();
        assert_eq!(config.hold.planned, defaults.planned);
        assert_eq!(config.hold.crash, defaults.crash);
        assert_eq!((config.hold.bytes, config.hold.bound), (defaults.bytes, defaults.bound));
        assert_eq!(format!("{:?}", config.limits), format!("{:?}", RouterLimits::default()));
        let alone = EXAMPLE[..EXAMPLE.rfind("[[nodes]]").unwrap()].to_owned();
        assert_eq!(parse(&alone).unwrap().nodes.len(), 1, "a node that stands alone");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let said = problems(&changed("crash   =", "crush   ="));
        let line = 1 + EXAMPLE.lines().position(|line| line.starts_with("crash")).unwrap();
        assert_eq!(said, format!("line {line}: unknown key hold.crush; did you mean crash?"));
        let said = problems(&changed("name   = \"a\"", "nome   = \"a\""));
        assert!(said.contains("nodes.nome") && said.contains("line"), "{said}");
        let environment = BTreeMap::from([("HOTPAIR__PEER__ADDRESS".to_owned(), "x".to_owned())]);
        let said = RouterConfig::parse(EXAMPLE, &environment).unwrap_err();
        assert!(said[0].contains("HOTPAIR__PEER__ADDRESS"), "{said:?}");
    }

    #[test]
    fn clashes_name_both_keys_and_their_value() {
        let said = problems(&changed("\"127.0.0.1:7001\"", "\"127.0.0.1:7000\""));
        assert!(said.contains("listen.admin and listen.client are both 127.0.0.1:7000"), "{said}");
        let said = problems(&changed("\"127.0.0.1:7200\"", "\"127.0.0.1:7100\""));
        assert!(said.contains("\"b\": client and nodes \"a\": client are both"), "{said}");
        let said = problems(&changed("name   = \"b\"", "name   = \"a\""));
        assert!(said.contains("two are named \"a\""), "{said}");
        let said = problems(&changed("client = \"127.0.0.1:7000\"", "client = \"0.0.0.0:7000\""));
        assert!(said.contains("tls.insecure"), "{said}");
    }

    #[test]
    fn values_that_are_none_name_their_key() {
        for (from, to, wanted) in [
            ("\"500ms\"", "\"soon\"", "\"soon\" is no length of time"),
            ("\"64MiB\"", "\"64MB\"", "\"64MB\" is no size"),
            ("threads = 1", "threads = 0", "limits.threads = 0"),
            ("planned = \"5s\"", "planned = \"5h\"", "hold.planned"),
            ("client = \"127.0.0.1:7100\"", "client = \"a\"", "write host:port"),
        ] {
            let said = problems(&changed(from, to));
            assert!(said.contains(wanted), "{said}");
        }
        assert_eq!(
            (parse_size("1KiB"), parse_size("7"), parse_size("x")),
            (Some(1024), Some(7), None)
        );
    }

    #[test]
    fn nodes_are_reached_over_tls_where_somebody_vouches_for_them() {
        let url = |text: &str| {
            let config = parse(text).unwrap();
            RoutedNode::url(&config.nodes[0].client, &config.tls)
        };
        assert_eq!(url(EXAMPLE), "http://127.0.0.1:7100");
        let trusting = changed("# authority = ", "authority = ");
        assert_eq!(url(&trusting), "https://127.0.0.1:7100");
        let plain = trusting.replace("\"127.0.0.1:7100\"", "\"http://127.0.0.1:7100\"");
        assert_eq!(url(&plain), "http://127.0.0.1:7100");
        let said = problems(&changed("\"127.0.0.1:7100\"", "\"https://127.0.0.1:7100\""));
        assert!(said.contains("tls.authority is not given"), "{said}");
        let said = problems(&changed("\"127.0.0.1:7100\"", "\"ftp://127.0.0.1:7100\""));
        assert!(said.contains("write host:port"), "{said}");
    }

    #[test]
    fn a_missing_token_file_is_named() {
        let folder = std::env::temp_dir().join(format!("hotpair-router-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("router.toml");
        let token = folder.join("read.token");
        let line = format!("[admin]\nread_token_file = {:?}", token.display());
        std::fs::write(&file, changed("[admin]", &line)).unwrap();
        assert!(RouterConfig::is_meant(&file));
        let said = RouterConfig::read(&file).unwrap_err().to_string();
        assert!(said.contains("read_token_file") && said.contains("read.token"), "{said}");
        std::fs::write(&token, "secret\n").unwrap();
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o644);
        let doubts = RouterConfig::read(&file).unwrap().doubts.join(" ");
        assert!(doubts.contains("admin.read_token_file") && doubts.contains("0644"), "{doubts}");
        mode(0o640);
        let config = RouterConfig::read(&file).unwrap();
        assert_eq!(config.read_token.as_deref(), Some("secret"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
