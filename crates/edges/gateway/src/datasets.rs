//! What the gateway needs of datasets: to find one by its name at the moment of a call.

use std::sync::Arc;

use hotpair_core::services::dataset::{AsOf, Availability, Dataset, FeedState};

/// Finds datasets. Must answer at once, from any thread.
pub trait Datasets: Send + Sync + std::fmt::Debug + 'static {
    /// The dataset configured under this name, if there is one.
    fn find(&self, name: &str) -> Option<Found>;

    /// How new that dataset is, if it is in memory and that is known.
    fn freshness(&self, _: &str) -> Option<Freshness> {
        None
    }
}

/// How new a dataset is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// What the newest of it is.
    pub as_of: AsOf,
    /// How it stands with its feed.
    pub feed: FeedState,
}

/// A configured dataset as it is at this moment.
#[derive(Clone, Debug)]
pub enum Found {
    /// In memory.
    Ready(Arc<dyn Dataset>),
    /// Not there; what a caller is to be told. [`Availability::Ready`] here means that it became so
    /// between two looks, and counts as still loading.
    NotReady(Availability),
}

/// No datasets at all.
impl Datasets for () {
    fn find(&self, _: &str) -> Option<Found> {
        None
    }
}
