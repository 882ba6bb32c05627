//! This node's clock that counts suspend, the one its [`Moment`]s are of.

use hotpair_core::pair::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the machine has booted");
    let milliseconds = u64::try_from(time.tv_nsec).expect("not negative") / 1_000_000;
    Moment(seconds * 1000 + milliseconds)
}
