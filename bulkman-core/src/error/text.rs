//! Durations in error messages.

use std::fmt;
use std::time::Duration;

/// Writes ", retry in 1.5s", or nothing.
pub(super) struct RetryAfter(pub(super) Option<Duration>);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(after) => write!(f, ", retry in {}", Rounded(after)),
            None => Ok(()),
        }
    }
}

/// Writes a duration in whole milliseconds.
///
/// It is rounded up, so that a caller that retries after the time in a message is not too early.
pub(super) struct Rounded(pub(super) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = Duration::from_millis(u64::from(self.0.subsec_nanos().div_ceil(1_000_000)));
        write!(
            f,
            "{:?}",
            Duration::from_secs(self.0.as_secs()).saturating_add(millis)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_messages_are_rounded_up_to_milliseconds() {
        let text = |duration| Rounded(duration).to_string();
        assert_eq!(text(Duration::ZERO), "0ns");
        assert_eq!(text(Duration::from_nanos(1)), "1ms");
        assert_eq!(text(Duration::from_micros(1500)), "2ms");
        assert_eq!(text(Duration::from_nanos(29_999_980_704)), "30s");
        assert_eq!(text(Duration::MAX), format!("{:?}", Duration::MAX));
    }
}
