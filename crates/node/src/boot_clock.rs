//! The one clock that deciding goes by: `CLOCK_BOOTTIME`, which counts suspend.

use hotpair_core::pair::Moment;
use rustix::time::{ClockId, clock_gettime};

/// Now, in milliseconds since boot.
pub(crate) fn now() -> Moment {
    Moment(now_ns() / 1_000_000)
}

/// Now, in nanoseconds since boot: the same on both nodes of one machine.
pub(crate) fn now_ns() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(t.tv_sec).expect("time since boot is not negative");
    let nanoseconds = u64::try_from(t.tv_nsec).expect("a clock's nanoseconds are not negative");
    seconds * 1_000_000_000 + nanoseconds
}

/// The wall clock, in milliseconds since 1970; only for people.
pub(crate) fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
