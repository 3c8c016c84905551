//! When a sampling window is complete.

use super::settings::LimitSettings;

/// The conditions for the samples and the end of a sampling window.
///
/// All durations are in seconds. A concurrent driver and
/// [`WindowCollector`](super::WindowCollector) share these conditions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowPolicy {
    window: f64,
    samples: u64,
    cap: f64,
}

impl WindowPolicy {
    /// Creates the conditions from the settings.
    #[must_use]
    pub fn new(settings: &LimitSettings) -> Self {
        Self {
            window: settings.window,
            samples: settings.samples,
            cap: f64::max(4.0, 2.0 * settings.tolerance),
        }
    }

    /// Returns the largest latency that a sample may contribute; infinity without a baseline.
    ///
    /// A single slow call can then not move the mean by much.
    #[must_use]
    pub fn sample_cap(&self, baseline: Option<f64>) -> f64 {
        baseline.map_or(f64::INFINITY, |baseline| self.cap * baseline)
    }

    /// Returns the shortest duration of a window with this mean latency.
    #[must_use]
    pub fn shortest(&self, latency: f64) -> f64 {
        f64::max(self.window, 2.0 * latency)
    }

    /// Returns the number of calls that fill a window at this limit.
    #[must_use]
    pub fn calls_needed(&self, limit: f64) -> f64 {
        f64::min(self.samples as f64, f64::max(10.0, 2.0 * limit))
    }

    /// Returns `true` if a window is complete.
    ///
    /// `calls` are the samples and overloads in it. While it has no sample, `latency` is that of
    /// the call that ends.
    #[must_use]
    pub fn is_complete(&self, elapsed: f64, latency: f64, calls: u64, limit: f64) -> bool {
        elapsed >= self.shortest(latency) && calls as f64 >= self.calls_needed(limit)
    }

    /// Returns `true` if a window that is not complete is too old to be of use.
    #[must_use]
    pub fn is_expired(&self, elapsed: f64, latency: f64) -> bool {
        elapsed > f64::max(f64::max(10.0, 10.0 * self.window), 20.0 * latency)
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::AdaptiveLimit;
    use super::*;

    fn policy() -> WindowPolicy {
        WindowPolicy::new(&LimitSettings::new(&AdaptiveLimit::new(), 1000))
    }

    #[test]
    fn complete_window_has_enough_time_and_calls() {
        let policy = policy();
        assert!(policy.is_complete(0.2, 0.02, 64, 100.0));
        assert!(!policy.is_complete(0.199, 0.02, 64, 100.0));
        assert!(!policy.is_complete(0.2, 0.02, 63, 100.0));
        // A small limit needs fewer calls, and long calls need more time.
        assert!(policy.is_complete(0.2, 0.02, 20, 10.0));
        assert!(policy.is_complete(0.2, 0.02, 10, 1.0));
        assert!(!policy.is_complete(0.2, 0.02, 9, 1.0));
        assert!(!policy.is_complete(0.2, 0.11, 64, 100.0));
    }

    #[test]
    fn window_expires_after_ten_seconds_or_twenty_latencies() {
        let policy = policy();
        assert!(!policy.is_expired(10.0, 0.02));
        assert!(policy.is_expired(10.1, 0.02));
        assert!(!policy.is_expired(20.0, 1.0));
        assert!(policy.is_expired(20.1, 1.0));
    }

    #[test]
    fn samples_are_capped_at_a_multiple_of_the_baseline() {
        assert_eq!(policy().sample_cap(None), f64::INFINITY);
        assert_eq!(policy().sample_cap(Some(0.5)), 2.0);
        let tolerant = LimitSettings::new(&AdaptiveLimit::new().tolerance(5.0), 1000);
        assert_eq!(WindowPolicy::new(&tolerant).sample_cap(Some(0.5)), 5.0);
    }
}
