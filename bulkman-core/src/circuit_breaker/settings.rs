//! A configuration with its defaults filled in: what the state machine goes by.

use std::sync::Arc;
use std::time::Duration;

use super::circuit_state::CircuitState;
use super::config::{
    CircuitBreakerConfig, ConsecutiveRule, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};

/// What a [`CircuitBreakerConfig`] comes to: every field has the value that is in force.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::{HalfOpenPolicy, IsolationDuration, SlidingWindow};
/// use std::time::Duration;
///
/// let settings = CircuitBreakerConfig::new().failure_rate_threshold(0.5).resolve();
/// assert_eq!(settings.failure_threshold, None);       // off, since another rule was asked for
/// assert_eq!(settings.sliding_window, SlidingWindow::Count(100));
/// assert_eq!(settings.half_open_policy, HalfOpenPolicy::Consecutive { successes: 3 });
/// assert_eq!(settings.isolation, IsolationDuration::Fixed(Duration::from_secs(30)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ResolvedCircuitBreakerConfig {
    /// Failures in a row that open; `None`: off.
    pub failure_threshold: Option<u32>,
    /// The failure rate that opens; `None`: off.
    pub failure_rate_threshold: Option<f64>,
    /// The rate of slow calls that opens; `None`: off.
    pub slow_call_rate_threshold: Option<f64>,
    /// Calls that take longer are slow; `None`: durations are not looked at.
    pub slow_call_duration_threshold: Option<Duration>,
    /// Failures in the window that open; `None`: off.
    pub failure_count_threshold: Option<u32>,
    /// Calls in the window below which there are no rates; already capped at a count window's
    /// size.
    pub minimum_number_of_calls: u32,
    /// The window.
    pub sliding_window: SlidingWindow,
    /// Whether the window is kept while closed: a rule looks at it, or somebody set it.
    pub window_in_use: bool,
    /// How half-open is decided.
    pub half_open_policy: HalfOpenPolicy,
    /// How long the circuit stays open.
    pub isolation: IsolationDuration,
    /// A probe out for longer is lost.
    pub probe_timeout: Duration,
    /// A bound on half-open, and where it leads; `None`: off.
    pub max_half_open_duration: Option<(Duration, HalfOpenTimeoutAction)>,
    /// Whether a timer leaves the open state.
    pub automatic_half_open: bool,
    /// The state to begin in.
    pub initial_state: CircuitState,
}

impl ResolvedCircuitBreakerConfig {
    pub(super) fn new(config: &CircuitBreakerConfig) -> Self {
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

    /// Whether a call of this length is slow.
    pub(super) fn is_slow(&self, ran: Option<Duration>) -> bool {
        match (ran, self.slow_call_duration_threshold) {
            (Some(ran), Some(limit)) => ran > limit,
            _ => false,
        }
    }
}

/// How a half-open circuit decides.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::HalfOpenPolicy;
///
/// assert_eq!(CircuitBreakerConfig::new().permitted_calls_in_half_open(20).resolve().half_open_policy, HalfOpenPolicy::Sample { calls: 20 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HalfOpenPolicy {
    /// So many successes in a row close, one failure reopens.
    Consecutive {
        /// Probes that must succeed.
        successes: u32,
    },
    /// After so many probes the circuit's rules decide.
    Sample {
        /// Probes that must be back.
        calls: u32,
    },
}

impl HalfOpenPolicy {
    /// How many probes the trial takes.
    pub(super) const fn probes(self) -> u32 {
        match self {
            Self::Consecutive { successes } => successes,
            Self::Sample { calls } => calls,
        }
    }
}

/// How long a circuit stays open.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::IsolationDuration;
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new().isolation_duration(Duration::from_secs(5));
/// assert_eq!(config.resolve().isolation, IsolationDuration::Fixed(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum IsolationDuration {
    /// Always as long.
    Fixed(Duration),
    /// Longer with each reopening.
    Backoff {
        /// That of the first opening.
        initial: Duration,
        /// How it grows.
        backoff: IsolationBackoff,
    },
    /// That of the first opening, the second, and so on; the last one repeats.
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

    /// That of the first opening, before jitter.
    pub(super) fn first(&self) -> Duration {
        match self {
            Self::Fixed(duration)
            | Self::Backoff {
                initial: duration, ..
            } => *duration,
            Self::Schedule(schedule) => schedule.first().copied().unwrap_or(ISOLATION_DURATION),
        }
    }

    /// That of an opening after `openings` earlier ones; `random` is uniform in [0, 1).
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
                let place = usize::try_from(openings)
                    .unwrap_or(usize::MAX)
                    .min(schedule.len() - 1);
                schedule[place]
            }
        }
    }
}

/// `Duration::mul_f64` that saturates instead of panicking.
fn times(duration: Duration, factor: f64) -> Duration {
    if factor == 1.0 {
        // Exact: seconds as a float have 53 bits, not enough for the nanoseconds of a century.
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
    fn the_defaults_are_the_documented_ones() {
        let settings = CircuitBreakerConfig::new().resolve();
        assert_eq!(settings.failure_threshold, Some(5));
        assert_eq!(settings.failure_rate_threshold, None);
        assert_eq!(settings.slow_call_rate_threshold, None);
        assert_eq!(settings.slow_call_duration_threshold, None);
        assert_eq!(settings.failure_count_threshold, None);
        assert_eq!(settings.minimum_number_of_calls, 10);
        assert_eq!(settings.sliding_window, SlidingWindow::Count(100));
        assert!(!settings.window_in_use);
        assert_eq!(
            settings.half_open_policy,
            HalfOpenPolicy::Consecutive { successes: 3 }
        );
        assert_eq!(settings.isolation, IsolationDuration::Fixed(30 * SECOND));
        assert_eq!(settings.probe_timeout, 30 * SECOND);
        assert_eq!(settings.max_half_open_duration, None);
        assert!(!settings.automatic_half_open);
        assert_eq!(settings.initial_state, CircuitState::Closed);
    }

    #[test]
    fn a_failure_rule_turns_the_consecutive_one_off_and_a_slow_rule_does_not() {
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
            slow.without_failure_threshold().resolve().failure_threshold,
            None
        );
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
    fn the_last_of_a_schedule_repeats() {
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
