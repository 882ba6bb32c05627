//! What keeps this node and the others apart, in words of whoever found out: shown to operators in
//! `/why` and in alerts. Nothing is decided by it.

use std::sync::Arc;

/// The newest word on each trouble; none where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Why there is no session with the coordinator.
    pub coordinator: Option<Arc<str>>,
    /// Which znodes of the pair are open to everybody, and what is to be done about it.
    pub open_znodes: Option<Arc<str>>,
    /// Why there is no link to the peer, beyond silence.
    pub link: Option<Arc<str>>,
}
