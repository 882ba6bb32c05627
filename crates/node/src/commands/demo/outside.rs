//! The external investment system of the demo, by a stand-in: it publishes prices that change all the
//! time, and writes down whose heartbeats it hears.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hotpair_lab::investment::{InvestmentSystem, heard_since};
use hotpair_lab::wait::eventually;
use serde_json::{Value, json};

use super::LIMIT;
use super::counters::Counters;

/// Between two heartbeats of a session: short, so that the demo is.
const INTERVAL: Duration = Duration::from_secs(1);
/// Updates a second.
const RATE: u64 = 500;
/// The day whose prices change, and some of its symbols.
const DAY: &str = "2022-12-28";
const SYMBOLS: [&str; 5] = ["AAPL", "AMD", "IBM", "KO", "MSFT"];

/// See the file's header.
pub(super) struct Outside {
    system: InvestmentSystem,
}

/// What was seen of it after an event.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// A price, and the same a moment later; none if it did not change.
    pub(super) prices: Option<(f64, f64)>,
    /// Sessions whose heartbeats came, of how many.
    pub(super) heard: (usize, usize),
}

impl Seen {
    pub(super) fn good(&self) -> bool {
        self.prices.is_some() && self.heard.0 == self.heard.1
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "price": self.prices.map(|(before, _)| before),
            "price_later": self.prices.map(|(_, after)| after),
            "sessions_heard": self.heard.0, "sessions": self.heard.1,
        })
    }
}

impl Outside {
    /// Starts it; prices begin to change at once.
    pub(super) fn start() -> Result<Self> {
        let system = InvestmentSystem::start()?;
        let rows: Value =
            SYMBOLS.iter().map(|symbol| json!({"Date": DAY, "symbol": symbol})).collect();
        system.control(&json!({"rows": rows, "vary": "price", "rate": RATE}))?;
        Ok(Self { system })
    }

    /// The part of a node's configuration that names it.
    pub(super) fn configuration(&self) -> String {
        self.system.upstream(INTERVAL)
    }

    /// What the dataset follows.
    pub(super) fn feed(&self) -> String {
        self.system.feed()
    }

    /// The lookup whose answer changes.
    pub(super) fn lookup() -> Value {
        json!({"dataset": "external-investment", "key": [DAY, SYMBOLS[0]]})
    }

    /// Looks at it from now on, until all is well or it took too long.
    pub(super) fn look(&self, counters: &Counters) -> Result<Seen> {
        let since_ms = wall_ms();
        let price = || -> Result<f64> {
            let data = counters.ask(1101, &Self::lookup())?;
            data["row"]["price"].as_f64().with_context(|| format!("no price in {data}"))
        };
        let changed = || -> Result<(f64, f64)> {
            let before = eventually(LIMIT, "the dataset is there", price)?;
            let after = eventually(LIMIT, "the price changes", || {
                let after = price()?;
                ensure!(after > before, "{after} after {before}");
                Ok(after)
            })?;
            Ok((before, after))
        };
        let prices = changed().ok();
        let (_, sessions) = counters.alive();
        let heard = || heard_since(&self.system.beats()?, since_ms);
        // Whoever is not heard by then is counted as missing.
        let _ = eventually(HEARD_LIMIT, "every session is heard of", || {
            let heard = heard()?;
            ensure!(heard >= sessions, "{heard} of {sessions}");
            Ok(())
        });
        Ok(Seen { prices, heard: (heard()?, sessions) })
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Ten intervals.
const HEARD_LIMIT: Duration = Duration::from_secs(10);
