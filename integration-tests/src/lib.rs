//! The ground the real tests stand on: real processes, started here and gone when dropped.
//!
//! Everything a test starts is a value: a ZooKeeper, a node, a network of hosts, a container with
//! systemd in it. Dropping the value ends what it stands for and removes what it left on the disk
//! and in the kernel, also when the test panics. What runs somewhere else than on this host's own
//! network says so with a [`place::Place`], and everything that starts or speaks to a process takes one.
//!
//! Waiting is always for an event with a generous limit ([`wait::eventually`]), never a tuned sleep.
//! [`checker`] judges a history from outside; it shares no code with the product.

pub mod checker;
pub mod exclusive;
pub mod http;
pub mod load;
pub mod need;
pub mod network;
pub mod node;
pub mod nspawn;
pub mod place;
pub mod port;
pub mod process;
pub mod scratch;
pub mod wait;
pub mod zookeeper;
