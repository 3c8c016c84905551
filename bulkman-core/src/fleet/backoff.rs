//! Exponential backoff with full jitter.

use std::time::Duration;

use super::jitter::Jitter;

/// The delays between attempts to connect: uniform between zero and a bound that doubles.
#[derive(Debug)]
pub(super) struct Backoff {
    jitter: Jitter,
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a backoff with a bound that starts at `min` and doubles up to `max`.
    pub(super) const fn new(jitter: Jitter, min: Duration, max: Duration) -> Self {
        Self {
            jitter,
            min,
            max,
            failures: 0,
        }
    }

    /// Counts one more failure and returns the delay before the next attempt.
    pub(super) fn next_delay(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let bound = self.min.saturating_mul(doubled).min(self.max);
        self.jitter.up_to(bound)
    }

    /// Resets the bound after a success.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum_and_resets() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(Jitter::seeded(1), min, max);
        for bound in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            assert!(backoff.next_delay() <= Duration::from_millis(bound));
        }
        let delays: Vec<_> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(
            delays.iter().any(|delay| *delay < max / 10)
                && delays.iter().any(|delay| *delay > max * 9 / 10)
        );
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }
}
