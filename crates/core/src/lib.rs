//! DECIDES. No IO, no clock, no threads, no async, no random order.
//!
//! * [`pair`]: who may serve: the election, the peer detector, the role machine.
//! * [`tables`]: what is kept: rows, their log, and the same on both nodes.
//! * [`services`]: what is offered: requests, replies, functions, datasets.

pub mod pair;
pub mod services;
pub mod tables;
