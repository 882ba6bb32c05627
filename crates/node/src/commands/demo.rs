//! `hotpair demo`: a whole pair on this machine, with a real ZooKeeper, real data and a router
//! that clients speak to, broken on purpose, judged by a separate program from what its client saw.

mod counters;
mod outside;
mod story;
mod table;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotpair_lab::load::{Load, Plan};
use hotpair_lab::node::Pair;
use hotpair_lab::router::Router;
use hotpair_lab::scratch::Scratch;
use hotpair_lab::session::Codes;
use hotpair_lab::wait::eventually;
use hotpair_lab::zookeeper::ZooKeeper;
use serde_json::json;

use self::counters::Counters;
use self::outside::Outside;
use self::story::Story;
use hotpair_ctl::Outcome;

/// Everything the demo is told.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// What decides between the two nodes; this version has zookeeper.
    #[arg(long, default_value = "zookeeper")]
    coordinator: String,
    /// Print the summary as JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Daily prices, one column a symbol; by default the file that comes with the sources.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// The real data that comes with the sources.
const DATA: &str = "deploy/demo/data/sp500_prices.csv.gz";
/// Everything that is waited for comes much sooner.
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than the router holds anything: a client that had no answer by then was left alone.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);

/// Runs the demo to its end.
pub(crate) fn run(arguments: &DemoArguments) -> Result<Outcome> {
    if arguments.coordinator != "zookeeper" {
        bail!("--coordinator {}: this version has zookeeper", arguments.coordinator);
    }
    let data = data_file(arguments.data.as_deref())?;
    let quiet = arguments.json;
    let say = move |text: &str| {
        if !quiet {
            // Nobody may be reading; the demo goes on.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    };
    say("starting a real ZooKeeper …");
    let mut zookeeper = ZooKeeper::standalone()?;
    say(&format!("  it serves at {}", zookeeper.connect_string()));
    let mut pair = Pair::here(&zookeeper.addresses())?;
    let scratch = Scratch::new("demo")?;
    let sessions = counters::configuration(&scratch)?;
    say("starting a stand-in for the external investment system: tokens, heartbeats, prices …");
    let outside = Outside::start()?;
    for node in &mut pair.nodes {
        let upstream = outside.configuration();
        node.settings.more = format!("{sessions}{upstream}{}", dataset(&data, &outside.feed()));
    }
    say("starting nodes a and b …");
    let master = pair.start()?;
    say(&format!("  {} is master", pair.nodes[master].settings.node));
    wait_for_dataset(&pair, master, &say)?;
    let echo = json!({"function": 1901, "arguments": {"hello": "pair"}});
    say("starting a router: clients know nothing else …");
    let mut router = Router::before(&pair)?;
    router.start()?;
    router.wait_for("has found the master", |status| status["standing"] == "serving")?;
    let codes = Arc::new(Codes::default());
    let target = router.target(ATTEMPT_LIMIT, &codes);
    say("clients log in, once, and count: each adds 1 to a row of its own …");
    let counters = Counters::start(&target, &scratch.join("counters.jsonl"))?;
    let sample = counters.ask(1101, &Outside::lookup())?;
    say(&format!("  a lookup answers {sample}"));
    say("another client calls once every 20 ms …");
    let load = Load::start_at(vec![target], Plan { call: echo, ..Plan::default() });
    let mut story = Story::new(&mut pair, &mut zookeeper, &counters, &codes, &outside, &say);
    story.tell()?;
    let events = story.end();
    let mut requests = load.stop()?;
    let (counted, asked) = counters.end()?;
    requests.extend(asked);
    let verdict = table::judge(&scratch, &pair, &requests, &counted, &events)?;
    let mut out = std::io::stdout().lock();
    if quiet {
        writeln!(out, "{}", serde_json::to_string_pretty(&verdict.json)?)?;
    } else {
        writeln!(out, "{}", verdict.text)?;
    }
    router.stop(LIMIT)?;
    for node in &mut pair.nodes {
        node.stop(LIMIT)?;
    }
    Ok(if verdict.good { Outcome::Done } else { Outcome::No })
}

/// Where the price file is: as told, else below the folder that is current or that the binary was
/// built in.
fn data_file(told: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = told {
        ensure!(path.is_file(), "--data {}: no such file", path.display());
        return Ok(path.canonicalize()?);
    }
    let here = std::env::current_dir()?;
    let beside = std::env::current_exe()?;
    here.ancestors()
        .chain(beside.ancestors())
        .map(|folder| folder.join(DATA))
        .find(|path| path.is_file())
        .with_context(|| format!("{DATA} is not found from here; name a file with --data"))
}

/// One row a date and symbol from a file with a column a symbol.
fn dataset(data: &Path, feed: &str) -> String {
    format!(
        "[[datasets]]\nname = \"external-investment\"\nsource = \"file://{}\"\n\
         key = [\"Date\", \"symbol\"]\nload = \"on-promote\"\nfeed = {feed:?}\n\
         [datasets.unpivot]\nkeep = [\"Date\"]\nname = \"symbol\"\nvalue = \"price\"\n\
         [datasets.columns]\nprice = \"float\"\n",
        data.display()
    )
}

/// Shows the load's progress until lookups answer.
fn wait_for_dataset(pair: &Pair, master: usize, say: &dyn Fn(&str)) -> Result<()> {
    let admin = pair.nodes[master].admin();
    let mut last = String::new();
    eventually(LIMIT, "the dataset is loaded", || {
        let status = admin.get_json("/status")?;
        let dataset = &status["datasets"][0];
        let line = format!(
            "  dataset external-investment: {}, {} rows, {} %, {} rows/s",
            dataset["state"].as_str().unwrap_or("?"),
            dataset["rows"],
            dataset["percent"],
            dataset["rows_per_second"]
        );
        if line != last {
            say(&line);
            last = line;
        }
        ensure!(dataset["state"] == "ready", "{dataset}");
        Ok(())
    })
}

/// The program that judges the history; it shares no code with the product.
pub(crate) fn checker() -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name("hotpair-check-history");
    ensure!(
        path.is_file(),
        "{} is missing; build it: cargo build --release --workspace --bins",
        path.display()
    );
    Ok(Command::new(path))
}
