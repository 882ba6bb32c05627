//! The public words: every JSON document that hotpair sends or takes, and nothing that decides.
//!
//! Think of a dictionary. Types here mirror `interfaces` field by field; they have serde derives and
//! plain looks, no logic, no IO. What is inside (core) knows no JSON, so that the wire can stay as it
//! is while the inside moves: edges convert. Names once published stay; fields may be added, and
//! readers ignore what they do not know.

pub mod alerts;
pub mod call;
pub mod control;
pub mod error_number;
pub mod role;
pub mod router;
pub mod services;
pub mod status;

pub use alerts::{AlertEntry, AlertmanagerAlert, Alerts};
pub use call::{
    CallBody, CallText, EPOCH_HEADER, Envelope, FunctionEntry, Functions, LoginAnswer, LoginBody,
    PublishBody, PublishText, Published, PushedRole, ResultBody, SessionBody, Text, TicketAnswer,
};
pub use control::{OrderAnswer, PromoteBody, SwitchoverAnswer, SwitchoverBody, SwitchoverPhase};
pub use error_number::ErrorNumber;
pub use role::{PeerRole, Role};
pub use router::{NodeAsSeen, RouterStatus};
pub use services::{ProxyStatus, ServiceBody, ServiceMember, ServiceStatus, Services};
pub use status::{
    Addresses, DatasetAsOf, DatasetStatus, FeedStatus, Histogram, PeerStatus, PhaseLength,
    RequestTotals, Sessions, Status, StoreStatus, Why,
};

/// The version of these words, in every `/status`. It grows when a field's meaning changes.
pub const PROTOCOL_VERSION: u32 = 1;
