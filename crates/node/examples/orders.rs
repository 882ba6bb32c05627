//! A trading service with a node inside: it places orders and tells positions.
//!
//! ```text
//! cargo run -p hotpair-node --example orders -- a.toml
//! POST /v1/call {"session":"…","request":1,"gsv":"trade/order/1.0","name":"place",
//!                "arguments":{"instrument":"ABC","amount":-5}}      → {"order":"ann/1","position":95}
//! POST /v1/call {"session":"…","gsv":"trade/position/1.0","name":"get",
//!                "arguments":{"instrument":"ABC"}}                   → {"position":95}
//! ```
//!
//! What everybody holds in the morning is a dataset, read only: `a.toml` configures one named `positions`
//! with the columns `account`, `instrument` (its key) and `amount`. What is traded since are rows of
//! tables: an order and the sum it changes are one record with the answer, on both nodes, or nothing is
//! done. So whichever node dies, an order that was sent under one number is placed once.

use hotpair::{Call, Function, FunctionError, Json, Node, NodeError};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The dataset of the morning's positions.
const POSITIONS: &str = "positions";
/// The table of orders: `account/number`.
const ORDERS: &str = "orders";
/// How many orders each account has placed.
const PLACED: &str = "placed";
/// What each account has bought, less what it has sold: `account/instrument`.
const TRADED: &str = "traded";

fn main() -> Result<(), NodeError> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let file = std::env::args().next_back().unwrap_or_default();
    let place = Function::new(330_001, "trade", "order", "1.0", "place").needs(POSITIONS);
    let get = Function::new(330_101, "trade", "position", "1.0", "get").needs(POSITIONS);
    Node::builder()
        .config_file(file)?
        .function(place, place_order)
        .async_function(get, get_position)
        .run()
}

#[derive(Deserialize)]
struct Place {
    instrument: String,
    /// Below 0: sold.
    amount: i64,
}

#[derive(Serialize)]
struct Order<'a> {
    account: &'a str,
    instrument: &'a str,
    amount: i64,
}

fn place_order(call: &mut Call<'_>) -> Result<Json, FunctionError> {
    let Place { instrument, amount } = call.arguments_as()?;
    let account = account(call)?;
    let position = position(call, &account, &instrument)? + amount;
    if amount == 0 || position < 0 {
        let text = format!("{account} cannot trade {amount} {instrument}");
        return Err(FunctionError::Failed { text, data: json!({"position": position - amount}) });
    }
    // Whoever places another order of this account meanwhile makes this one decide again.
    let number = call.get_json::<u64>(PLACED, &account)?.unwrap_or(0) + 1;
    call.put_json(PLACED, &account, &number)?;
    let order = format!("{account}/{number}");
    let row = Order { account: &account, instrument: &instrument, amount };
    call.put_json(ORDERS, &order, &row)?;
    call.add(TRADED, format!("{account}/{instrument}").as_bytes(), amount)?;
    Ok(json!({"order": order, "position": position}))
}

/// It need not wait for anything here; where a function asks another service, it may.
async fn get_position(call: &mut Call<'_>) -> Result<Json, FunctionError> {
    #[derive(Deserialize)]
    struct Get {
        instrument: String,
    }
    let Get { instrument } = call.arguments_as()?;
    let account = account(call)?;
    Ok(json!({"position": position(call, &account, &instrument)?}))
}

/// The caller trades for itself only.
fn account(call: &Call<'_>) -> Result<String, FunctionError> {
    let caller = call.caller().map(|caller| caller.user.clone());
    caller.ok_or_else(|| FunctionError::NotAllowed("only who is logged in has an account".into()))
}

/// The morning's, and what was traded since.
fn position(call: &mut Call<'_>, account: &str, instrument: &str) -> Result<i64, FunctionError> {
    let row = call.dataset_row(POSITIONS, &[account.into(), instrument.into()])?;
    let morning = row.and_then(|row| row["amount"].as_i64()).unwrap_or(0);
    let traded = call.get_json::<i64>(TRADED, &format!("{account}/{instrument}"))?;
    Ok(morning + traded.unwrap_or(0))
}
