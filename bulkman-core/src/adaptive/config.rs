//! The configuration of an adaptive limit.

use std::time::Duration;

use super::enforcement::Enforcement;

/// The settings of a limit that adapts to the capacity of the dependency.
///
/// Setters take and return the value. Nothing is checked before [`validate`](Self::validate).
///
/// | setting | default | range |
/// | --- | --- | --- |
/// | [`min`](Self::min) | 1 | 1 to the maximum |
/// | [`initial`](Self::initial) | 4, clamped to the minimum and the maximum | the minimum to the maximum |
/// | [`tolerance`](Self::tolerance) | 1.5 | 1.05 to 10 |
/// | [`max_latency`](Self::max_latency) | none | more than zero |
/// | [`window`](Self::window) | 200 ms | 1 ms to 60 s |
/// | [`samples`](Self::samples) | 64 | 10 to 10,000 |
/// | [`baseline_interval`](Self::baseline_interval) | 10 s | none, or 1 s to 1 h |
/// | [`shrink_on_failure`](Self::shrink_on_failure) | false | |
/// | [`enforcement`](Self::enforcement) | [`Enforcement::Enforce`] | |
///
/// The maximum is `max_concurrent_calls` of the bulkhead. The limit never exceeds it.
///
/// ```
/// use bulkman::adaptive::AdaptiveLimit;
/// use std::time::Duration;
///
/// let limit = AdaptiveLimit::new()
///     .min(2)
///     .max_latency(Duration::from_millis(500));
/// assert!(limit.validate(200).is_ok());
///
/// let error = limit.tolerance(0.5).validate(200).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`adaptive_limit.tolerance` is 0.5, must be 1.05 to 10"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct AdaptiveLimit {
    pub(super) min: usize,
    pub(super) initial: Option<usize>,
    pub(super) tolerance: f64,
    pub(super) max_latency: Option<Duration>,
    pub(super) window: Duration,
    pub(super) samples: u32,
    pub(super) baseline_interval: Option<Duration>,
    pub(super) shrink_on_failure: bool,
    pub(super) enforcement: Enforcement,
}

impl AdaptiveLimit {
    /// Creates a configuration with the default settings.
    pub const fn new() -> Self {
        Self {
            min: 1,
            initial: None,
            tolerance: 1.5,
            max_latency: None,
            window: Duration::from_millis(200),
            samples: 64,
            baseline_interval: Some(Duration::from_secs(10)),
            shrink_on_failure: false,
            enforcement: Enforcement::Enforce,
        }
    }

    /// Sets the smallest limit: 1 to the maximum, default 1.
    pub const fn min(mut self, permits: usize) -> Self {
        self.min = permits;
        self
    }

    /// Sets the limit before anything is measured: the minimum to the maximum, default 4.
    ///
    /// The default is clamped to the minimum and the maximum. It is small on purpose: the first
    /// windows give the first baseline, and a large limit would include a queue in it.
    pub const fn initial(mut self, permits: usize) -> Self {
        self.initial = Some(permits);
        self
    }

    /// Sets the multiple of the baseline above which latency is queueing: 1.05 to 10, default 1.5.
    pub const fn tolerance(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Sets the latency that is queueing whatever the baseline: more than zero, default none.
    pub fn max_latency(mut self, latency: impl Into<Option<Duration>>) -> Self {
        self.max_latency = latency.into();
        self
    }

    /// Sets the shortest sampling window: 1 ms to 60 s, default 200 ms.
    ///
    /// A window also lasts at least two mean latencies.
    pub const fn window(mut self, duration: Duration) -> Self {
        self.window = duration;
        self
    }

    /// Sets the number of calls that fill a window: 10 to 10,000, default 64.
    ///
    /// A small limit needs fewer: twice the limit, and at least 10.
    pub const fn samples(mut self, calls: u32) -> Self {
        self.samples = calls;
        self
    }

    /// Sets the age at which an unconfirmed baseline is measured again: 1 s to 1 h, default 10 s.
    ///
    /// With `None` the baseline is never measured again. The interval in force is at least 100
    /// baselines.
    pub fn baseline_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.baseline_interval = interval.into();
        self
    }

    /// Sets whether a failed call is an overload too: default `false`.
    pub const fn shrink_on_failure(mut self, shrink: bool) -> Self {
        self.shrink_on_failure = shrink;
        self
    }

    /// Sets whether the limit is enforced or only estimated: default [`Enforcement::Enforce`].
    pub const fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Returns whether a failed call is an overload too.
    #[must_use]
    pub const fn shrinks_on_failure(&self) -> bool {
        self.shrink_on_failure
    }
}

impl Default for AdaptiveLimit {
    fn default() -> Self {
        Self::new()
    }
}
