//! A clock that all processes of this machine share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the current time.
///
/// Unlike an [`Instant`](std::time::Instant), it can be sent to another process.
pub(crate) fn now() -> Duration {
    let reading = clock_gettime(ClockId::Monotonic);
    Duration::new(
        reading.tv_sec.unsigned_abs(),
        u32::try_from(reading.tv_nsec).unwrap_or_default(),
    )
}

/// Returns the milliseconds from `from` to `to`, negative if `to` is earlier.
pub(crate) fn milliseconds(from: Duration, to: Duration) -> f64 {
    (to.as_secs_f64() - from.as_secs_f64()) * 1e3
}
