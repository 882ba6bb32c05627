//! A gateway with a function of its own: money moves from one account to another, or does not move.
//!
//! ```text
//! cargo run -p hotpair-node --example own_function -- node --config a.toml
//! POST /v1/call {"session":"…","request":1,"gsv":"trade/account/1.0","name":"transfer",
//!                "arguments":{"from":"ann","to":"bob","amount":5}}
//! ```
//!
//! It is the whole program, commands and all. The function looks at rows, decides, and writes; what it
//! writes is committed in one record with its answer, on both nodes, or not at all. Has a row changed
//! that it looked at, it is asked again.

use std::process::ExitCode;

use hotpair::{Call, Function, FunctionError, Json, Node};
use serde_json::json;

/// The table of balances; a row is a whole number.
const ACCOUNTS: &str = "accounts";

fn main() -> ExitCode {
    Node::builder()
        .function(Function::new(330_001, "trade", "account", "1.0", "transfer"), transfer)
        .command_line()
}

fn transfer(call: &mut Call<'_>) -> Result<Json, FunctionError> {
    let text = |name: &str| {
        let value = call.arguments()[name].as_str().map(str::to_owned);
        value.ok_or_else(|| FunctionError::Malformed(format!("{name} must be a text")))
    };
    let (from, to) = (text("from")?, text("to")?);
    let amount = call.arguments()["amount"]
        .as_i64()
        .filter(|amount| *amount > 0)
        .ok_or_else(|| FunctionError::Malformed("amount must be a number above 0".to_owned()))?;
    let balance = call.get(ACCOUNTS, from.as_bytes())?;
    let balance = balance.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
    let balance: i64 =
        balance.ok_or_else(|| FunctionError::failed(format!("there is no account {from}")))?;
    if balance < amount {
        return Err(FunctionError::failed(format!("{from} has {balance}, not {amount}")));
    }
    call.add(ACCOUNTS, from.as_bytes(), -amount)?;
    call.add(ACCOUNTS, to.as_bytes(), amount)?;
    let user = call.caller().map(|caller| caller.user.clone());
    Ok(json!({"left": balance - amount, "by": user}))
}
