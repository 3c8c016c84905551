//! The settings in the units of the rule.

use super::config::AdaptiveLimit;
use super::enforcement::Enforcement;

/// The settings of an adaptive limit, resolved against the maximum, in seconds.
///
/// ```
/// use bulkman::adaptive::{AdaptiveLimit, LimitSettings};
///
/// let settings = LimitSettings::new(&AdaptiveLimit::new(), 200);
/// assert_eq!(
///     (settings.min, settings.initial, settings.max),
///     (1.0, 4.0, 200.0)
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimitSettings {
    /// The smallest limit.
    pub min: f64,
    /// The largest limit.
    pub max: f64,
    /// The limit before anything is measured.
    pub initial: f64,
    /// The multiple of the baseline above which latency is queueing.
    pub tolerance: f64,
    /// The latency that is queueing whatever the baseline; infinity if unset.
    pub max_latency: f64,
    /// The age at which an unconfirmed baseline is measured again.
    pub baseline_interval: Option<f64>,
    /// The shortest duration of a window.
    pub window: f64,
    /// The number of calls that fill a window.
    pub samples: u64,
    /// Whether the limit is enforced or only estimated.
    pub enforcement: Enforcement,
}

impl LimitSettings {
    /// Resolves a valid configuration against the maximum of the bulkhead.
    #[must_use]
    pub fn new(config: &AdaptiveLimit, maximum: usize) -> Self {
        let (min, max) = (config.min as f64, maximum as f64);
        Self {
            min,
            max,
            initial: config.initial.map_or_else(
                || DEFAULT_INITIAL.min(max).max(min),
                |initial| initial as f64,
            ),
            tolerance: config.tolerance,
            max_latency: config
                .max_latency
                .map_or(f64::INFINITY, |latency| latency.as_secs_f64()),
            baseline_interval: config
                .baseline_interval
                .map(|interval| interval.as_secs_f64()),
            window: config.window.as_secs_f64(),
            samples: u64::from(config.samples),
            enforcement: config.enforcement,
        }
    }

    /// Returns the limit within the minimum and the maximum.
    pub(super) fn clamp(&self, limit: f64) -> f64 {
        self.min.max(self.max.min(limit))
    }

    /// Returns the latency above which a window shows queueing.
    pub(super) fn allowed_latency(&self, baseline: f64) -> f64 {
        f64::min(self.tolerance * baseline, self.max_latency)
    }
}

const DEFAULT_INITIAL: f64 = 4.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn default_initial_limit_is_clamped() {
        let initial =
            |min, maximum| LimitSettings::new(&AdaptiveLimit::new().min(min), maximum).initial;
        assert_eq!(
            [initial(1, 2), initial(1, 100), initial(9, 100)],
            [2.0, 4.0, 9.0]
        );
        assert_eq!(
            LimitSettings::new(&AdaptiveLimit::new().initial(30), 100).initial,
            30.0
        );
    }

    #[test]
    fn durations_become_seconds() {
        let config = AdaptiveLimit::new()
            .max_latency(Duration::from_millis(250))
            .baseline_interval(None);
        let settings = LimitSettings::new(&config, 10);
        assert_eq!((settings.max_latency, settings.window), (0.25, 0.2));
        assert_eq!(settings.baseline_interval, None);
        assert_eq!(settings.allowed_latency(1.0), 0.25);
        assert_eq!(settings.allowed_latency(0.1), 0.1 * 1.5);
    }
}
