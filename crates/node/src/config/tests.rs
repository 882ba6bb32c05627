use hotpair_tls::testing::Authority;

use super::*;

fn parse(text: &str) -> Result<NodeConfig, Vec<String>> {
    NodeConfig::parse(text, &BTreeMap::new())
}

fn problems(text: &str) -> String {
    parse(text).expect_err("the text has a problem").join("\n")
}

#[test]
fn the_example_is_valid() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.pair, "trade");
    assert_eq!(config.peer.as_ref().unwrap().ping_interval.ms(), 200);
    assert_eq!((config.tables.ack, config.tables.durability), Default::default());
    assert_eq!(config.sessions.idle_timeout.ms(), 120_000);
    assert!(config.coordinator.zookeeper.unwrap().fast_takeover);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_a_near_one() {
    let text = EXAMPLE.replace("ping_count    = 3", "ping_cuont    = 3");
    let line = 1 + EXAMPLE.lines().position(|l| l.starts_with("ping_count")).unwrap();
    let said = problems(&text);
    assert_eq!(said, format!("line {line}: unknown key peer.ping_cuont; did you mean ping_count?"));
}

#[test]
fn a_text_that_is_no_toml_is_told_by_line_and_column_and_not_shown() {
    for (broken, place) in [
        ("pair = \"trade\"\n[store]\nurl = \"postgres://u:hidden@h/d\n", "line 3, column 31: "),
        ("[store]\nurl = postgres://u:hidden@h/d\n", "line 2, column 7: "),
        ("[store]\nurl = \"a\"\nurl = \"postgres://u:hidden@h/d\"\n", "line 3, column 1: "),
    ] {
        let router = RouterConfig::parse(broken, &BTreeMap::new()).unwrap_err().join("\n");
        for said in [problems(broken), router] {
            assert!(said.starts_with(place), "{said}");
            assert!(!said.contains("hidden") && !said.contains('\n'), "{said}");
        }
    }
}

#[test]
fn sections_of_later_versions_are_refused_by_name() {
    let said = problems(&format!("{EXAMPLE}\n[hooks]\npromote = \"x\"\n"));
    assert!(said.contains("hooks is not built in this version"), "{said}");
    let said = problems(&EXAMPLE.replace("kind = \"zookeeper\"", "kind = \"keepalived\""));
    assert!(said.contains("coordinator.kind = \"keepalived\" is not built"), "{said}");
}

#[test]
fn clashing_values_name_both_keys() {
    let said = problems(&EXAMPLE.replace("\"127.0.0.1:7101\"", "\"127.0.0.1:7100\""));
    assert!(said.contains("listen.admin and listen.client are both 127.0.0.1:7100"), "{said}");
    let said = problems(&EXAMPLE.replace("127.0.0.1:7202", "127.0.0.1:7102"));
    assert!(said.contains("peer.address and listen.peer are both"), "{said}");
}

#[test]
fn wrong_types_and_missing_keys_name_the_key() {
    let said = problems(&EXAMPLE.replace("ping_timeout  = \"200ms\"", "ping_timeout = \"fast\""));
    assert!(said.contains("fast") && said.contains("ping_timeout"), "{said}");
    let said = problems(&EXAMPLE.replace("pair = \"trade\"", ""));
    assert!(said.contains("pair"), "{said}");
    let said = problems("pair = \"x\" node = ");
    assert!(said.contains("line 1"), "{said}");
}

/// The problems, or else the doubts, of the example in a folder of its own, read as a node reads it, with these files.
fn problems_with(files: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = changes.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let config = folder.path().join("node.toml");
    std::fs::write(&config, text).unwrap();
    NodeConfig::read(&config)
        .map_or_else(|error| error.to_string(), |config| config.doubts.join("\n"))
}

#[test]
fn the_user_of_zookeeper_is_read_from_its_file() {
    let auth = ("# auth =", "auth =");
    assert_eq!(problems_with(&[("zk.auth", "pair:secret\n")], &[auth]), "");
    let said = problems_with(&[("zk.auth", "secret\n")], &[auth]);
    assert!(
        said.contains("coordinator.zookeeper.auth") && said.contains("user:password"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    let said = problems_with(&[], &[auth]);
    assert!(said.contains("coordinator.zookeeper.auth") && said.contains("zk.auth"), "{said}");
}

#[test]
fn tls_to_zookeeper_needs_somebody_to_trust() {
    let said = problems(&EXAMPLE.replacen("# tls = true", "tls = true", 1));
    assert!(said.contains("coordinator.zookeeper.tls") && said.contains("tls.authority"), "{said}");
}

#[test]
fn a_certificate_for_the_link_names_the_pair() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let tls = |names: &[&str]| {
        let files = authority.issue("a", names);
        let read = |file: Option<PathBuf>| std::fs::read_to_string(file.unwrap()).unwrap();
        let texts = [files.certificate, files.key, files.authority].map(read);
        let [certificate, key, authority] = texts.each_ref().map(String::as_str);
        problems_with(
            &[("a.pem", certificate), ("a.key", key), ("authority.pem", authority)],
            &[
                ("# certificate = \"node-a.pem\"", "certificate = \"a.pem\""),
                ("# key = \"node-a.key\"", "key = \"a.key\""),
                ("# authority =", "authority ="),
            ],
        )
    };
    assert_eq!(tls(&["127.0.0.1", "trade"]), "");
    let said = tls(&["127.0.0.1", "risk"]);
    assert!(said.contains("tls.certificate does not name \"trade\""), "{said}");
}

#[test]
fn what_others_are_told_is_what_is_advertised() {
    let advertised = |text: &str| {
        let config = parse(text).unwrap();
        (config.advertised().map(|(_, address)| address.unwrap()), config.unreachable_addresses())
    };
    let own = ["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102"].map(str::to_owned);
    assert_eq!(advertised(EXAMPLE), (own, Vec::new()));
    let nat = EXAMPLE.replace("# [advertise]", "[advertise]").replace("# client =", "client =");
    let (told, _) = advertised(&nat);
    assert_eq!(told, ["203.0.113.7:7100", "127.0.0.1:7101", "127.0.0.1:7102"]);
    let everywhere = EXAMPLE
        .replace("\"127.0.0.1:7101\"         # HTTP", "\"0.0.0.0:7101\" # HTTP")
        .replace("# insecure = true", "insecure = true");
    assert_eq!(advertised(&everywhere).1, ["admin"]);
    let said = parse(&nat.replace("203.0.113.7:7100", "203.0.113.7")).unwrap_err().join("\n");
    assert!(said.contains("advertise.client") && said.contains("write host:port"), "{said}");
}

#[test]
fn plain_text_off_loopback_must_be_written_out() {
    let open = EXAMPLE.replace("client = \"127.0.0.1:7100\"", "client = \"0.0.0.0:7100\"");
    assert!(problems(&open).contains("tls.insecure"));
    assert!(parse(&open.replace("# insecure = true", "insecure = true")).is_ok());
}

#[test]
fn the_environment_overrides_the_file_and_unknown_variables_are_errors() {
    let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let servers = env("HOTPAIR__COORDINATOR__ZOOKEEPER__SERVERS", "h1:2181,h2:2181");
    let config = NodeConfig::parse(EXAMPLE, &servers).unwrap();
    assert_eq!(config.coordinator.zookeeper.unwrap().servers, ["h1:2181", "h2:2181"]);
    let config = NodeConfig::parse(EXAMPLE, &env("HOTPAIR__PEER__PING_COUNT", "5")).unwrap();
    assert_eq!(config.peer.unwrap().ping_count, 5);
    let said = NodeConfig::parse(EXAMPLE, &env("HOTPAIR__PEER__PINGS", "5")).unwrap_err();
    assert!(said[0].contains("HOTPAIR__PEER__PINGS"), "{said:?}");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = EXAMPLE.replace("node = \"a\"", "node = \"a b\"").replace("/hotpair\"", "hotpair\"");
    let said = parse(&text).unwrap_err();
    assert_eq!(said.len(), 2, "{said:?}");
}

fn function(lines: &str) -> String {
    format!(
        "{ALONE}\n[[functions]]\nnumber = 330001\ngroup = \"trade\"\nservice = \"order\"\n\
         version = \"1.0\"\nname = \"place\"\n{lines}\n"
    )
}

const UPSTREAM: &str = "upstream = \"http://127.0.0.1:9000/place\"";

#[test]
fn a_function_of_a_program_has_its_usual_values() {
    let config = parse(&function(UPSTREAM)).unwrap();
    let function = &config.functions[0];
    assert_eq!((function.timeout.ms(), function.concurrency), (2_000, 64));
    assert!(!function.idempotent && function.needs.is_empty());
}

#[test]
fn functions_of_programs_that_cannot_be_meant_are_named() {
    let wrong = |lines: &str, says: &str| {
        let said = problems(&function(lines));
        assert!(said.contains("functions 330001") && said.contains(says), "{lines}: {said}");
    };
    wrong("upstream = \"ftp://x\"", "must begin with http://");
    wrong("upstream = \"http://10.0.0.7:9000/\"", "tls.insecure");
    wrong("upstream = \"https://127.0.0.1:9000/\"", "http:// only");
    wrong(&format!("{UPSTREAM}\nneeds = [\"prices\"]"), "\"prices\"");
    wrong(&format!("{UPSTREAM}\ntimeout = \"1ms\""), "timeout");
    wrong(&format!("{UPSTREAM}\nconcurrency = 0"), "concurrency = 0");
    let said = problems(&function("").replace("330001", "1001"));
    assert!(said.contains("upstream"), "{said}");
    let said = problems(&function(UPSTREAM).replace("330001", "1001"));
    assert!(said.contains("same number 1001"), "{said}");
    let said = problems(&function(UPSTREAM).replace("\"trade\"", "\"hotpair\""));
    assert!(said.contains("built-in"), "{said}");
    let said = problems(&function(UPSTREAM).replace("\"order\"", "\"or/der\""));
    assert!(said.contains("service = \"or/der\""), "{said}");
}

#[test]
fn both_nodes_must_offer_the_same_functions_in_the_same_way() {
    let digest = |lines: &str| parse(&function(lines)).unwrap().digest();
    let usual = digest(UPSTREAM);
    assert_eq!(usual, digest(&format!("{UPSTREAM}\ntimeout = \"1s\"\nconcurrency = 3")));
    assert_ne!(usual, digest(&format!("{UPSTREAM}\nidempotent = true")));
    assert_ne!(usual, parse(ALONE).unwrap().digest());
}

const ALONE: &str = r#"
pair = "trade"
node = "a"
[listen]
client = "127.0.0.1:7100"
admin = "127.0.0.1:7101"
[coordinator]
kind = "standalone"
"#;

#[test]
fn a_node_that_stands_alone_has_no_peer_and_no_ensemble() {
    let config = parse(ALONE).unwrap();
    assert_eq!(config.coordinator.kind, CoordinatorKind::Standalone);
    assert!(config.peer.is_none() && config.listen.peer.is_none());
    let said = problems(&EXAMPLE.replace("kind = \"zookeeper\"", "kind = \"standalone\""));
    assert!(said.contains("[peer] is given and coordinator.kind is \"standalone\""), "{said}");
    assert!(said.contains("[coordinator.zookeeper] is given"), "{said}");
    let said = problems(&ALONE.replace("standalone", "zookeeper"));
    assert!(said.contains("[peer] is missing"), "{said}");
    assert!(said.contains("[coordinator.zookeeper] is missing"), "{said}");
    let said = problems(&EXAMPLE.replace("peer   = \"127.0.0.1:7102\"", ""));
    assert!(said.contains("listen.peer is missing"), "{said}");
}

#[test]
fn words_that_are_none_are_refused_with_those_that_are() {
    let said = problems(&EXAMPLE.replace("ack = \"peer\"", "ack = \"both\""));
    assert!(said.contains("\"both\": must be peer or local") && said.contains("ack"), "{said}");
    let said = problems(&EXAMPLE.replace("kind = \"zookeeper\"", "kind = \"etcd\""));
    assert!(
        said.contains("must be zookeeper or binary-star or keepalived or standalone"),
        "{said}"
    );
}

#[test]
fn a_shared_directory_is_given_where_it_is_used_and_nowhere_else() {
    let directory = |more: &str| EXAMPLE.replace("replication = \"stream\"", more);
    let said = problems(&directory("replication = \"directory\""));
    assert!(said.contains("tables.peer_directory is missing"), "{said}");
    let said = problems(&directory("peer_directory = \"/mnt/peer\""));
    assert!(said.contains("tables.peer_directory") && said.contains("\"stream\""), "{said}");
    let both = "replication = \"directory\"\npeer_directory = \"/mnt/peer\"";
    assert_eq!(parse(&directory(both)).unwrap().tables.replication, ReplicationWay::Directory);
    let same = both.replace("/mnt/peer", "/var/lib/hotpair");
    let said = problems(&directory(&same));
    assert!(said.contains("tables.directory and tables.peer_directory are both"), "{said}");
}

#[test]
fn what_both_nodes_must_have_alike_is_in_the_digest() {
    let of = |from: &str, to: &str| {
        let text = EXAMPLE.replace(from, to);
        assert!(from.is_empty() || text != EXAMPLE, "{from}");
        parse(&text).unwrap().digest()
    };
    let usual = parse(EXAMPLE).unwrap().digest();
    for (from, to) in [
        ("ack = \"peer\"", "ack = \"local\""),
        ("durability = \"file\"", "durability = \"disk\""),
        ("idle_timeout = \"120s\"", "idle_timeout = \"60s\""),
        ("replication = \"stream\"", "replication = \"directory\"\npeer_directory = \"/p\""),
    ] {
        assert_ne!(of(from, to), usual, "{from}");
    }
    for (from, to) in [
        ("node = \"a\"", "node = \"b\""),
        ("sweep_interval = \"10s\"", "sweep_interval = \"5s\""),
        ("127.0.0.1:7100", "127.0.0.1:7300"),
    ] {
        assert_eq!(of(from, to), usual, "{from}");
    }
}

#[test]
fn the_users_file_lies_beside_the_configuration_and_is_part_of_the_digest() {
    let folder = std::env::temp_dir().join(format!("hotpair-users-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (node, users) = (folder.join("node.toml"), folder.join("users.toml"));
    let with_users = EXAMPLE.replace("# users_file", "users_file");
    std::fs::write(&node, with_users).unwrap();
    let missing = NodeConfig::read(&node).unwrap_err().to_string();
    assert!(missing.contains("sessions.users_file") && missing.contains("users.toml"), "{missing}");
    std::fs::write(&users, "[users]\nann = \"secret\"\n").unwrap();
    let wrong = NodeConfig::read(&node).unwrap_err().to_string();
    assert!(wrong.contains("users.toml: line 2: users.ann: its hash"), "{wrong}");
    let hash = hotpair_gateway::passwords::hash("correct horse").unwrap();
    std::fs::write(&users, users::with_user("", "ann", &hash).unwrap()).unwrap();
    let config = NodeConfig::read(&node).unwrap();
    assert_eq!(config.users.as_ref().unwrap().rows, [("ann".to_owned(), hash)]);
    assert_ne!(config.digest(), parse(EXAMPLE).unwrap().digest());
    std::fs::remove_dir_all(&folder).unwrap();
}

const SERVICE: &str = r#"
[[services]]
name = "gyro"
policy = "active-standby"
primary = "127.0.0.1:4001"
standby = "127.0.0.1:4002"
check = "tcp"
interval = "200ms"
proxy = "127.0.0.1:4000"
"#;

#[test]
fn the_services_of_the_example_are_valid_once_they_are_meant() {
    let meant = EXAMPLE.lines().skip_while(|line| !line.starts_with("# [[services]]"));
    let meant = meant.take_while(|line| !line.is_empty()).map(|line| &line[2..]);
    let text = format!("{EXAMPLE}\n{}", meant.collect::<Vec<_>>().join("\n"));
    let service = parse(&text).unwrap().services.remove(0);
    assert_eq!((service.name.as_str(), service.interval.ms()), ("gyro", 500));
    assert_eq!(service.check, ServiceCheck::Tcp);
}

#[test]
fn services_that_cannot_be_meant_are_refused_by_name_key_and_value() {
    let service =
        |from: &str, to: &str| problems(&format!("{EXAMPLE}{}", SERVICE.replace(from, to)));
    let said = service("\"tcp\"", "\"vsoa\"");
    assert!(said.contains("services \"gyro\": check = \"vsoa\" is not built"), "{said}");
    let said = service("\"tcp\"", "\"ping\"");
    assert!(said.contains("\"ping\": must be tcp or http or vsoa"), "{said}");
    let said = service("active-standby", "round-robin");
    assert!(said.contains("\"round-robin\": must be active-standby"), "{said}");
    let said = service("127.0.0.1:4002", "127.0.0.1:4001");
    assert!(said.contains("primary and standby are both 127.0.0.1:4001"), "{said}");
    let said = service("127.0.0.1:4002", "127.0.0.1");
    assert!(said.contains("standby = \"127.0.0.1\": write host:port"), "{said}");
    let said = service("127.0.0.1:4000", "127.0.0.1:7101");
    assert!(said.contains("proxy and listen.admin are both 127.0.0.1:7101"), "{said}");
    let said = service("127.0.0.1:4000", "127.0.0.1:4002");
    assert!(said.contains("proxy and standby are both 127.0.0.1:4002"), "{said}");
    let said = service("interval = \"200ms\"", "interval = \"1ms\"");
    assert!(said.contains("services \"gyro\": interval = \"1ms\": must lie between"), "{said}");
    let said = service("interval", "intervall");
    assert!(said.contains("unknown key services.intervall; did you mean interval?"), "{said}");
    assert!(said.starts_with("line "), "{said}");
    let said = problems(&format!("{EXAMPLE}{SERVICE}{SERVICE}"));
    assert!(said.contains("two are named \"gyro\""), "{said}");
    assert!(said.contains("proxy is both 127.0.0.1:4000"), "{said}");
}

#[test]
fn both_nodes_must_have_the_same_services_and_may_have_other_ports_in_front() {
    let of = |from: &str, to: &str| {
        parse(&format!("{EXAMPLE}{}", SERVICE.replace(from, to))).unwrap().digest()
    };
    let usual = of("", "");
    assert_ne!(usual, parse(EXAMPLE).unwrap().digest());
    assert_ne!(usual, of("127.0.0.1:4002", "127.0.0.1:4003"));
    assert_ne!(usual, of("\"tcp\"", "\"http\""));
    assert_eq!(usual, of("127.0.0.1:4000", "127.0.0.1:5000"));
    assert_eq!(usual, of("200ms", "300ms"));
}

const STORE: &str = "[store]\nurl = \"sqlite:///var/lib/hotpair/store.db\"\n[[store.tables]]\n\
                     table = \"orders\"\nkey = \"id\"\n[store.tables.columns]\namount = \"integer\"\n";

#[test]
fn a_store_is_read_and_what_both_nodes_must_have_alike_is_compared() {
    let with = |text: &str| parse(&format!("{EXAMPLE}\n{text}")).unwrap();
    let (target, mappings) = with(STORE).store.read().unwrap().unwrap();
    assert!(!target.is_shared());
    assert_eq!((mappings[0].sql.as_str(), mappings[0].key.as_str()), ("orders", "id"));
    let digest = with(STORE).digest();
    assert_eq!(with(&STORE.replace("/var/lib", "/srv")).digest(), digest, "each has its own file");
    assert_ne!(with(&STORE.replace("integer", "text")).digest(), digest);
    assert_ne!(with("").digest(), digest);
    let server = "[store]\nurl = \"postgres://trade:secret@db/books\"\n";
    assert!(!format!("{:?}", with(server)).contains("secret"));
}

#[test]
fn a_store_that_cannot_be_meant_is_refused_without_showing_its_password() {
    let said = |text: &str| problems(&format!("{EXAMPLE}\n{text}"));
    let password = said("[store]\nurl = \"postgres://trade:secret@db:x/books\"\n");
    assert!(password.contains("store.url") && !password.contains("secret"), "{password}");
    let alone = said(&STORE.replace("url = \"sqlite:///var/lib/hotpair/store.db\"\n", ""));
    assert!(alone.contains("store.url is missing"), "{alone}");
    let kind = said(&STORE.replace("integer", "money"));
    assert!(kind.contains("\"orders\": amount = \"money\""), "{kind}");
    let own = said(&STORE.replace("\"orders\"", "\"hotpair.sessions\"\nsql = \"sessions\""));
    assert!(own.contains("the pair's own tables"), "{own}");
}

/// The example with these lines below `[tls]`.
fn with_tls(lines: &str) -> String {
    let text = EXAMPLE.replace("# insecure = true", &format!("{lines}\n# insecure = true"));
    assert_ne!(text, EXAMPLE);
    text
}

#[test]
fn files_of_tls_lie_beside_the_configuration_and_are_read_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(&folder.path().join("tls"));
    let _ = authority.issue("a", &["127.0.0.1"]);
    let file = folder.path().join("node.toml");
    let read = |lines: &str| {
        std::fs::write(&file, with_tls(lines)).unwrap();
        NodeConfig::read(&file).map_err(|error| error.to_string())
    };
    let good =
        "certificate = \"tls/a.pem\"\nkey = \"tls/a.key\"\nauthority = \"tls/authority.pem\"";
    let config = read(good).unwrap();
    let identity = config.identity.unwrap();
    assert!(identity.is_server() && identity.trusts_somebody() && identity.warnings().is_empty());
    assert_eq!(config.tls.key.unwrap(), folder.path().join("tls/a.key"));
    assert!(read("").unwrap().identity.is_none());
    let said = read("certificate = \"tls/a.pem\"").unwrap_err();
    assert!(said.contains("tls.certificate is given and tls.key is not"), "{said}");
    let said = read("authority = \"tls/other.pem\"").unwrap_err();
    assert!(said.contains("tls.authority = ") && said.contains("tls/other.pem"), "{said}");
}

#[test]
fn with_a_certificate_clients_and_operators_may_come_from_anywhere() {
    let open = |text: &str| text.replace("\"127.0.0.1:7100\"", "\"0.0.0.0:7100\"");
    let with = with_tls("certificate = \"a.pem\"\nkey = \"a.key\"");
    assert!(parse(&open(&with)).is_ok());
    let said = problems(&open(&with_tls("authority = \"authority.pem\"")));
    assert!(said.contains("tls.certificate and tls.key are not given"), "{said}");
}

#[test]
fn a_token_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("admin.token");
    std::fs::write(&token, "secret\n").unwrap();
    let text = EXAMPLE
        .replace("# token_file = \"/etc/hotpair/admin.token\"", &format!("token_file = {token:?}"));
    let file = folder.path().join("node.toml");
    std::fs::write(&file, text).unwrap();
    let doubts = |mode| {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        NodeConfig::read(&file).unwrap().doubts
    };
    let said = doubts(0o644).join(" ");
    assert!(said.contains("admin.token_file = ") && said.contains("chmod 600"), "{said}");
    assert_eq!(doubts(0o640), Vec::<String>::new());
}

#[test]
fn a_webhook_has_a_url_that_can_be_asked() {
    let with = |url: &str| {
        EXAMPLE.replace(
            "# webhook = \"http://127.0.0.1:9093/api/v2/alerts\"",
            &format!("webhook = {url:?}"),
        )
    };
    assert!(parse(&with("https://alerts.example.org/api/v2/alerts")).is_ok());
    let said = problems(&with("ftp://alerts.example.org/"));
    assert!(said.contains("alerts.webhook") && said.contains("https://"), "{said}");
}

#[test]
fn the_external_system_is_named_by_addresses_that_can_be_asked() {
    let with = |more: &str| format!("{EXAMPLE}\n[upstream]\n{more}\n");
    let said = problems(&with("login = \"ftp://h/login\""));
    assert!(said.contains("upstream.login") && said.contains("ftp://h/login"), "{said}");
    assert!(said.contains("sessions.users_file"), "{said}");
    let said = problems(&with("heartbeat = \"http://h/beat\"\ninterval = \"1ms\""));
    assert!(said.contains("upstream.login is missing"), "{said}");
    assert!(said.contains("upstream.interval = \"1ms\""), "{said}");
    let said = problems(&with("intervall = \"1s\""));
    assert!(said.contains("upstream.intervall") && said.contains("interval?"), "{said}");
}

#[test]
fn whom_a_database_is_trusted_for_is_looked_at_before_the_node_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let read = |more: &str| {
        std::fs::write(&file, format!("{EXAMPLE}\n{more}\n")).unwrap();
        NodeConfig::read(&file)
    };
    let store = |options: &str| {
        format!("[store]\nurl = \"postgres://trade:hush@db.example/books{options}\"")
    };
    let authority = Authority::new(folder.path()).file().display().to_string();
    let said = read(&store("?sslmode=require&sslrootcert=/nowhere/ca.pem")).unwrap_err();
    let said = said.to_string();
    assert!(said.contains("store.url: sslrootcert = \"/nowhere/ca.pem\": "), "{said}");
    assert!(!said.contains("hush"), "{said}");
    let good = read(&store(&format!("?sslmode=require&sslrootcert={authority}"))).unwrap();
    assert_eq!(good.doubts, Vec::<String>::new());
    let doubts = read(&store("")).unwrap().doubts.join("\n");
    assert!(doubts.contains("store.url: db.example:5432/books is not on this"), "{doubts}");
    assert!(doubts.contains("sslmode=verify-full") && !doubts.contains("hush"), "{doubts}");

    let dataset = |options: &str| {
        let source = format!("postgres://u:hush@db.example/d?{options}query=SELECT 1 AS k");
        format!("[[datasets]]\nname = \"d\"\nkey = [\"k\"]\nsource = {source:?}")
    };
    let config = read(&dataset("sslmode=require&sslrootcert=/nowhere/ca.pem&")).unwrap();
    let said = crate::settings::datasets(&config).unwrap_err().join("\n");
    assert!(said.contains("datasets \"d\": source: sslrootcert = \"/nowhere/ca.pem\""), "{said}");
    let config = read(&dataset(&format!("sslmode=require&sslrootcert={authority}&"))).unwrap();
    assert!(crate::settings::datasets(&config).is_ok() && config.doubts.is_empty());
    let doubts = read(&dataset("")).unwrap().doubts.join("\n");
    assert!(doubts.contains("datasets \"d\": source: db.example") && !doubts.contains("hush"));
}

#[test]
fn passwords_that_travel_in_plain_text_to_another_machine_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let doubts = |login: &str| {
        let users = folder.path().join("users.toml");
        std::fs::write(&users, "").unwrap();
        let of_its_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&users, of_its_owner).unwrap();
        let text = EXAMPLE.replace(
            "[sessions]",
            &format!("[upstream]\nlogin = {login:?}\n[sessions]\nusers_file = {users:?}"),
        );
        let file = folder.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        NodeConfig::read(&file).unwrap().doubts.join("\n")
    };
    let said = doubts("http://10.0.0.9:9100/login");
    assert!(said.contains("upstream.login = \"http://10.0.0.9:9100/login\""), "{said}");
    assert!(said.contains("passwords") && said.contains("https://"), "{said}");
    assert_eq!(doubts("http://127.0.0.1:9100/login"), "");
    assert_eq!(doubts("https://10.0.0.9:9100/login"), "");
}

#[test]
fn a_feed_is_an_address_and_a_database_has_a_query() {
    let dataset = |more: &str| {
        let text = format!("{EXAMPLE}\n[[datasets]]\nname = \"d\"\nkey = [\"k\"]\n{more}\n");
        let config = NodeConfig::parse(&text, &BTreeMap::new()).unwrap();
        crate::settings::datasets(&config).map_err(|problems| problems.join("\n"))
    };
    let good =
        dataset("source = \"postgres://u:p@h/db?query=SELECT 1 AS k\"\nfeed = \"zmq://h:1\"");
    assert!(good.unwrap()[0].feed.is_some());
    let said = dataset("source = \"postgres://u:hush@h/db\"\nfeed = \"tcp://h:1\"").unwrap_err();
    assert!(said.contains("zmq://host:port") && said.contains("names no query"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}
