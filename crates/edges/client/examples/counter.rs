//! Counts in a table of a pair, and tells how long each count took: break the pair meanwhile.
//!
//! ```text
//! cargo run -p hotpair-client --example counter -- USER PASSWORD 127.0.0.1:7100 127.0.0.1:7200
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hotpair_client::Client;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [user, password, targets @ ..] = arguments.as_slice() else {
        anyhow::bail!("USER PASSWORD ADDRESS [ADDRESS]")
    };
    ensure!(!targets.is_empty(), "at least one ADDRESS");
    let client = Client::builder().targets(targets.to_vec()).build()?;
    let session = client.log_in(user, password).await?;
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let started = Instant::now();
        let sum: Value =
            session.call(1006, json!({"table": "example", "key": "count", "by": 1})).await?;
        longest = longest.max(started.elapsed());
        let sum = sum["value"].as_i64().context("no sum")?;
        if sum % 20 == 0 {
            let line = format!("{sum}, the longest call took {} ms\n", longest.as_millis());
            std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    session.log_out().await?;
    Ok(())
}
