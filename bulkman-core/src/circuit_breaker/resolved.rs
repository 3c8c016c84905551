//! A configuration with defaults resolved, as the state machine uses it.

use std::sync::Arc;
use std::time::Duration;

use super::circuit_state::CircuitState;
use super::config::{
    CircuitBreakerConfig, ConsecutiveRule, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};

/// A [`CircuitBreakerConfig`] with defaults resolved.
///
/// Returned by [`CircuitBreakerConfig::resolve`]. Every field has the value that is in force.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::{HalfOpenPolicy, IsolationDuration, SlidingWindow};
/// use std::time::Duration;
///
/// let resolved = CircuitBreakerConfig::new()
///     .failure_rate_threshold(0.5)
///     .resolve();
/// assert_eq!(resolved.failure_threshold, None); // off, because another rule is set
/// assert_eq!(resolved.sliding_window, SlidingWindow::Count(100));
/// assert_eq!(
///     resolved.half_open_policy,
///     HalfOpenPolicy::Consecutive { successes: 3 }
/// );
/// assert_eq!(
///     resolved.isolation,
///     IsolationDuration::Fixed(Duration::from_secs(30))
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedCircuitBreakerConfig {
    /// The number of consecutive failures that opens; `None` if off.
    pub failure_threshold: Option<u32>,
    /// The failure rate that opens; `None` if off.
    pub failure_rate_threshold: Option<f64>,
    /// The rate of slow calls that opens; `None` if off.
    pub slow_call_rate_threshold: Option<f64>,
    /// The duration above which a call is slow; `None` if durations are not measured.
    pub slow_call_duration_threshold: Option<Duration>,
    /// The number of slow calls in flight that opens; `None` if off.
    pub hanging_call_threshold: Option<u32>,
    /// Whether slow calls count in the rate before they end.
    pub count_calls_in_flight: bool,
    /// The number of failures in the window that opens; `None` if off.
    pub failure_count_threshold: Option<u32>,
    /// The number of calls in the window below which no rate is computed.
    ///
    /// Already capped at the size of a count window.
    pub minimum_number_of_calls: u32,
    /// The window.
    pub sliding_window: SlidingWindow,
    /// Whether the window is maintained: a rule uses it, or it was set.
    pub window_in_use: bool,
    /// How the probes decide half-open.
    pub half_open_policy: HalfOpenPolicy,
    /// The isolation: the time that the circuit stays open.
    pub isolation: IsolationDuration,
    /// The duration after which a probe counts as failed and frees its slot.
    pub probe_timeout: Duration,
    /// The longest half-open state, and what follows it; `None` if off.
    pub max_half_open_duration: Option<(Duration, HalfOpenTimeoutAction)>,
    /// Whether a timer moves the circuit to half-open.
    pub automatic_half_open: bool,
    /// The initial state.
    pub initial_state: CircuitState,
}

impl CircuitBreakerConfig {
    /// Returns the configuration with defaults resolved.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new().isolation_duration(Duration::from_secs(5));
    /// let resolved = config.resolve();
    /// assert_eq!(resolved.probe_timeout, Duration::from_secs(5));
    /// assert_eq!(resolved.minimum_number_of_calls, 10);
    /// ```
    #[must_use]
    pub fn resolve(&self) -> ResolvedCircuitBreakerConfig {
        ResolvedCircuitBreakerConfig::new(self)
    }
}

impl ResolvedCircuitBreakerConfig {
    fn new(config: &CircuitBreakerConfig) -> Self {
        let other_failure_rule =
            config.failure_rate_threshold.is_some() || config.failure_count_threshold.is_some();
        let failure_threshold = match config.consecutive {
            ConsecutiveRule::Failures(failures) => Some(failures),
            ConsecutiveRule::Unset if !other_failure_rule => Some(FAILURE_THRESHOLD),
            ConsecutiveRule::Unset | ConsecutiveRule::Off => None,
        };
        let sliding_window = config.sliding_window.unwrap_or(SLIDING_WINDOW);
        let minimum_number_of_calls = config
            .minimum_number_of_calls
            .unwrap_or(MINIMUM_NUMBER_OF_CALLS);
        let isolation = IsolationDuration::new(config);
        Self {
            failure_threshold,
            failure_rate_threshold: config.failure_rate_threshold,
            slow_call_rate_threshold: config.slow_call_rate_threshold,
            slow_call_duration_threshold: config.slow_call_duration_threshold,
            hanging_call_threshold: config.hanging_call_threshold,
            count_calls_in_flight: config.count_calls_in_flight,
            failure_count_threshold: config.failure_count_threshold,
            minimum_number_of_calls: match sliding_window {
                SlidingWindow::Count(size) => minimum_number_of_calls.min(size),
                SlidingWindow::Time { .. } => minimum_number_of_calls,
            },
            sliding_window,
            window_in_use: other_failure_rule
                || config.slow_call_rate_threshold.is_some()
                || config.slow_call_duration_threshold.is_some()
                || config.sliding_window.is_some(),
            half_open_policy: match config.permitted_calls_in_half_open {
                Some(calls) => HalfOpenPolicy::Sample { calls },
                None => HalfOpenPolicy::Consecutive {
                    successes: config.success_threshold.unwrap_or(SUCCESS_THRESHOLD),
                },
            },
            probe_timeout: config.probe_timeout.unwrap_or_else(|| isolation.first()),
            isolation,
            max_half_open_duration: config.max_half_open_duration,
            automatic_half_open: config.automatic_half_open,
            initial_state: config.initial_state.unwrap_or(CircuitState::Closed),
        }
    }

    /// Returns `true` if calls are counted while they are in flight.
    pub(super) const fn counts_in_flight(&self) -> bool {
        self.slow_call_duration_threshold.is_some()
            && (self.hanging_call_threshold.is_some() || self.count_calls_in_flight)
    }

    /// Returns `true` if a call of this duration is slow.
    pub(super) fn is_slow(&self, ran: Option<Duration>) -> bool {
        match (ran, self.slow_call_duration_threshold) {
            (Some(ran), Some(threshold)) => ran > threshold,
            _ => false,
        }
    }
}

/// How the probes of a half-open circuit decide the next state.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::HalfOpenPolicy;
///
/// let config = CircuitBreakerConfig::new().permitted_calls_in_half_open(20);
/// assert_eq!(
///     config.resolve().half_open_policy,
///     HalfOpenPolicy::Sample { calls: 20 }
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HalfOpenPolicy {
    /// Consecutive successes close; one failure reopens.
    Consecutive {
        /// The number of probes that must succeed.
        successes: u32,
    },
    /// The rules are evaluated once a number of probes has completed.
    Sample {
        /// The number of probes that must complete.
        calls: u32,
    },
}

impl HalfOpenPolicy {
    /// Decides on the probes that have completed; `None` while more are needed.
    ///
    /// `Ok` closes the circuit, `Err` reopens it. `on_failure` is the cause if a single failure
    /// reopens. `tripped_rule` evaluates a complete sample.
    pub(crate) fn decide<C>(
        self,
        completed: u64,
        failures: u64,
        on_failure: C,
        tripped_rule: impl FnOnce() -> Option<C>,
    ) -> Option<Result<(), C>> {
        match self {
            Self::Consecutive { .. } if failures > 0 => Some(Err(on_failure)),
            _ if completed < u64::from(self.probes()) => None,
            Self::Consecutive { .. } => Some(Ok(())),
            Self::Sample { .. } => Some(tripped_rule().map_or(Ok(()), Err)),
        }
    }

    /// Returns the number of probes that the policy admits.
    pub(super) const fn probes(self) -> u32 {
        match self {
            Self::Consecutive { successes } => successes,
            Self::Sample { calls } => calls,
        }
    }
}

/// The isolation of successive openings: the time that the circuit stays open.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::IsolationDuration;
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new().isolation_duration(Duration::from_secs(5));
/// assert_eq!(
///     config.resolve().isolation,
///     IsolationDuration::Fixed(Duration::from_secs(5))
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum IsolationDuration {
    /// A fixed duration.
    Fixed(Duration),
    /// A duration that grows with each reopening.
    Backoff {
        /// The duration of the first opening.
        initial: Duration,
        /// The growth.
        backoff: IsolationBackoff,
    },
    /// One duration for each successive opening; the last one repeats.
    Schedule(Arc<[Duration]>),
}

impl IsolationDuration {
    fn new(config: &CircuitBreakerConfig) -> Self {
        let initial = config.isolation_duration.unwrap_or(ISOLATION_DURATION);
        match (&config.isolation_schedule, config.isolation_backoff) {
            (Some(schedule), _) => Self::Schedule(Arc::clone(schedule)),
            (None, Some(backoff)) => Self::Backoff { initial, backoff },
            (None, None) => Self::Fixed(initial),
        }
    }

    /// Returns the duration of the first opening, before jitter.
    pub(super) fn first(&self) -> Duration {
        match self {
            Self::Fixed(duration)
            | Self::Backoff {
                initial: duration, ..
            } => *duration,
            Self::Schedule(schedule) => schedule.first().copied().unwrap_or(ISOLATION_DURATION),
        }
    }

    /// Returns the duration after `openings` earlier openings.
    ///
    /// `random` returns a number that is uniform in [0, 1).
    pub(super) fn duration(&self, openings: u32, random: impl FnOnce() -> f64) -> Duration {
        match self {
            Self::Fixed(duration) => *duration,
            Self::Backoff { initial, backoff } => {
                let exponent = i32::try_from(openings).unwrap_or(i32::MAX);
                let full = times(*initial, backoff.factor.powi(exponent)).min(backoff.max);
                if backoff.jitter > 0.0 {
                    times(full, 1.0 - backoff.jitter * random())
                } else {
                    full
                }
            }
            Self::Schedule(schedule) => {
                let index = usize::try_from(openings)
                    .unwrap_or(usize::MAX)
                    .min(schedule.len() - 1);
                schedule[index]
            }
        }
    }
}

/// Like `Duration::mul_f64`, but saturates instead of panicking.
fn times(duration: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        // Exact. Seconds as a float have 53 bits, too few for the nanoseconds of a century.
        return duration;
    }
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

const FAILURE_THRESHOLD: u32 = 5;
const SUCCESS_THRESHOLD: u32 = 3;
const MINIMUM_NUMBER_OF_CALLS: u32 = 10;
const SLIDING_WINDOW: SlidingWindow = SlidingWindow::Count(100);
const ISOLATION_DURATION: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Hazard H61.
    #[test]
    fn defaults_are_as_documented() {
        let resolved = CircuitBreakerConfig::new().resolve();
        assert_eq!(resolved.failure_threshold, Some(5));
        assert_eq!(resolved.failure_rate_threshold, None);
        assert_eq!(resolved.slow_call_rate_threshold, None);
        assert_eq!(resolved.slow_call_duration_threshold, None);
        assert_eq!(resolved.hanging_call_threshold, None);
        assert!(!resolved.count_calls_in_flight);
        assert_eq!(resolved.failure_count_threshold, None);
        assert_eq!(resolved.minimum_number_of_calls, 10);
        assert_eq!(resolved.sliding_window, SlidingWindow::Count(100));
        assert!(!resolved.window_in_use);
        assert_eq!(
            resolved.half_open_policy,
            HalfOpenPolicy::Consecutive { successes: 3 }
        );
        assert_eq!(resolved.isolation, IsolationDuration::Fixed(30 * SECOND));
        assert_eq!(resolved.probe_timeout, 30 * SECOND);
        assert_eq!(resolved.max_half_open_duration, None);
        assert!(!resolved.automatic_half_open);
        assert_eq!(resolved.initial_state, CircuitState::Closed);
    }

    #[test]
    fn failure_rules_switch_off_the_consecutive_rule() {
        let new = CircuitBreakerConfig::new;
        assert_eq!(
            new()
                .failure_rate_threshold(0.5)
                .resolve()
                .failure_threshold,
            None
        );
        assert_eq!(
            new().failure_count_threshold(5).resolve().failure_threshold,
            None
        );
        let slow = new()
            .slow_call_rate_threshold(0.5)
            .slow_call_duration_threshold(SECOND);
        assert_eq!(slow.resolve().failure_threshold, Some(5));
        assert_eq!(
            slow.failure_threshold(None).resolve().failure_threshold,
            None
        );
        assert_eq!(
            new().failure_threshold(None).resolve().failure_threshold,
            None
        );
        let rate_off = new()
            .failure_rate_threshold(0.5)
            .failure_rate_threshold(None);
        assert_eq!(rate_off, new());
        for config in [
            new().failure_rate_threshold(0.5).failure_threshold(7),
            new().failure_threshold(7).failure_rate_threshold(0.5),
        ] {
            assert_eq!(config.resolve().failure_threshold, Some(7));
        }
    }

    /// Hazard H62.
    #[test]
    fn backoff_saturates_and_jitter_only_shortens() {
        let backoff = |factor, max| IsolationDuration::Backoff {
            initial: SECOND,
            backoff: IsolationBackoff::new(factor, max),
        };
        let capped = backoff(2.0, 10 * SECOND);
        let lengths: Vec<_> = (0..6)
            .map(|n| capped.duration(n, || 0.0).as_secs())
            .collect();
        assert_eq!(lengths, [1, 2, 4, 8, 10, 10]);
        assert_eq!(capped.duration(u32::MAX, || 0.0), 10 * SECOND);
        assert_eq!(
            backoff(10.0, Duration::MAX).duration(u32::MAX, || 0.0),
            Duration::MAX
        );
        assert_eq!(
            backoff(1.0, Duration::MAX).duration(u32::MAX, || 0.0),
            SECOND
        );

        let jittered = IsolationDuration::Backoff {
            initial: SECOND,
            backoff: IsolationBackoff::new(1.0, SECOND).jitter(0.5),
        };
        assert_eq!(jittered.duration(0, || 0.0), SECOND);
        assert_eq!(jittered.duration(0, || 0.5), Duration::from_millis(750));
    }

    #[test]
    fn the_last_duration_of_a_schedule_repeats() {
        let schedule = CircuitBreakerConfig::new()
            .isolation_schedule([SECOND, 5 * SECOND])
            .resolve();
        let lengths: Vec<_> = [0, 1, 2, u32::MAX]
            .map(|n| schedule.isolation.duration(n, || 0.0).as_secs())
            .into();
        assert_eq!(lengths, [1, 5, 5, 5]);
        assert_eq!(schedule.probe_timeout, SECOND);
    }
}
