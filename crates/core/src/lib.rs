//! DECIDES. No IO, no clock, no threads, no async, no random order.
//!
//! * [`pair`]: who may serve: the election, the peer detector, the role machine.
//! * [`services`]: what is offered: requests, replies, functions, datasets.

pub mod pair;
pub mod services;
