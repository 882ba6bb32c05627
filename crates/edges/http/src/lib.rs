//! HTTP/1.1, both sides, as the edges need it: bounded in everything a stranger can make grow.
//!
//! * [`server`]: connections come, are read within limits, and end up as one [`Request`] at a
//!   [`Handler`], which gives one [`Response`]: whole, or a stream of events.
//! * [`client`]: one request with one limit; a kept connection for load; a reader of event streams.
//! * [`pool`]: kept connections to one server, for passing requests on.
//!
//! Both sides speak TLS where they are given what that needs ([`Door`], [`Dialler`]).
//!
//! Nothing here knows what the bytes mean.

pub mod client;
mod connections;
mod door;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hosts;
mod occasionally;
pub mod pool;
pub mod server;

pub use bytes::Bytes;
pub use client::{Answer, ClientError, Connection, Dialler, Event, Events, Opened, Url};
pub use door::Door;
pub use hosts::Hosts;
pub use hyper::{HeaderMap, Method, StatusCode, header};
pub use occasionally::Occasionally;
pub use pool::{ExchangeError, Generation, Opening, Outgoing, Pool, PoolLimits, Stream, Whole};
pub use server::{
    Body, Counters, Handler, Limits, Refusal, Request, Response, bind, serve, serve_until,
};
