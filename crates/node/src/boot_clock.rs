//! The one clock that deciding goes by: `CLOCK_BOOTTIME`, which counts suspend.

use hotpair_core::pair::Moment;

/// Now, in milliseconds since boot.
pub(crate) fn now() -> Moment {
    Moment(now_ns() / 1_000_000)
}

/// Now, in nanoseconds since boot: the same on both nodes of one machine.
pub(crate) fn now_ns() -> u64 {
    hotpair_gateway::boot_time_ns()
}

/// The wall clock, in milliseconds since 1970; only for people.
pub(crate) fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
