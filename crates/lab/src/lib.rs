//! A laboratory: real processes, started here, broken on purpose, and gone when dropped.
//!
//! The tests, the demo and the benchmarks stand on it. Everything they start is a value: a ZooKeeper,
//! a node, a network of hosts. Dropping the value ends what it stands for and removes what it left on
//! the disk and in the kernel, also in a panic. What runs somewhere else than on this host's own
//! network says so with a [`place::Place`], and everything that starts or speaks to a process takes one.
//!
//! Waiting is always for an event with a generous limit ([`wait::eventually`]), never a tuned sleep.
//! [`checker`] judges a history from outside. Nothing here shares code with the product: what it says
//! does not rest on what the product believes.

pub mod certificates;
pub mod checker;
pub mod dice;
pub mod http;
pub mod investment;
pub mod load;
pub mod nat;
pub mod need;
pub mod network;
pub mod node;
pub mod place;
pub mod port;
pub mod postgres;
pub mod process;
pub mod request_log;
pub mod router;
pub mod scratch;
pub mod session;
pub mod table_load;
pub mod wait;
pub mod zookeeper;
