//! A dataset: large, read-mostly external data that a node holds in memory while it serves.
//!
//! Think of things that know nothing of each other. A [`Dataset`] is data that is there: typed rows, found
//! by key and walked in key order; drivers build it. An [`Update`] is what a feed says of one row, and what
//! it does to it. A [`Following`] decides when data should be there and whether it is as new as its feed;
//! it stands on a [`Loading`], which knows of loads only. Both hear of promotions, demotions and how a load
//! fares, and answer with [`Effect`]s. Whoever carries these out stamps every fact with the attempt or the
//! subscription it belongs to, so that the end of what nobody wants any more changes nothing.

mod following;
mod loading;
mod rows;
mod update;
mod value;

pub use following::{AsOf, FeedEvent, FeedState, Following};
pub use loading::{
    Attempt, Availability, DatasetState, Effect, Fact, LoadMode, Loading, Subscription,
    UnknownLoadMode,
};
pub use rows::{Dataset, KeyError, check_key};
pub use update::{
    Applied, Contiguity, Given, Jump, Prepared, Update, UpdateError, prepare, version_of,
};
pub use value::{Column, ColumnKind, Row, UnknownColumnKind, Value, row_digest};
