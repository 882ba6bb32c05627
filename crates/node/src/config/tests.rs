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
    assert_eq!(config.peer.ping_interval.ms(), 200);
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
fn sections_of_later_versions_are_refused_by_name() {
    let said = problems(&format!("{EXAMPLE}\n[sessions]\nidle_timeout = \"120s\"\n"));
    assert!(said.contains("sessions is not built in this version"), "{said}");
    let said = problems(&EXAMPLE.replace("[tables]", "[tables]\nack = \"peer\""));
    assert!(said.contains("tables.ack is not built in this version"), "{said}");
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
    assert_eq!(config.peer.ping_count, 5);
    let said = NodeConfig::parse(EXAMPLE, &env("HOTPAIR__PEER__PINGS", "5")).unwrap_err();
    assert!(said[0].contains("HOTPAIR__PEER__PINGS"), "{said:?}");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = EXAMPLE.replace("node = \"a\"", "node = \"a b\"").replace("/hotpair\"", "hotpair\"");
    let said = parse(&text).unwrap_err();
    assert_eq!(said.len(), 2, "{said:?}");
}
