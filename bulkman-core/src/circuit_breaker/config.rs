//! What a user sets; `settings.rs` says what it comes to, `validate.rs` what is refused.

use std::sync::Arc;
use std::time::Duration;

use super::circuit_state::CircuitState;
use super::settings::ResolvedCircuitBreakerConfig;
use crate::config_error::ConfigError;

/// The rules of a circuit breaker.
///
/// Setters take and return the configuration; nothing is checked before
/// [`validate`](Self::validate) or a constructor. Rates are fractions: 0.5 is half of the calls.
/// [`settings`](Self::settings) reads everything back, with the defaults filled in.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::SlidingWindow;
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new()
///     .failure_rate_threshold(0.5)
///     .minimum_number_of_calls(20)
///     .sliding_window(SlidingWindow::Time { length: Duration::from_secs(60), buckets: 60 })
///     .isolation_duration(Duration::from_secs(10));
/// assert!(config.validate().is_ok());
/// // A rate rule alone turns the rule of failures in a row off.
/// assert_eq!(config.resolve().failure_threshold, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreakerConfig {
    // `None` means "not set" throughout: a rule may depend on whether another was set.
    pub(super) consecutive: ConsecutiveRule,
    pub(super) failure_rate_threshold: Option<f64>,
    pub(super) slow_call_rate_threshold: Option<f64>,
    pub(super) slow_call_duration_threshold: Option<Duration>,
    pub(super) failure_count_threshold: Option<u32>,
    pub(super) minimum_number_of_calls: Option<u32>,
    pub(super) sliding_window: Option<SlidingWindow>,
    pub(super) success_threshold: Option<u32>,
    pub(super) permitted_calls_in_half_open: Option<u32>,
    pub(super) isolation_duration: Option<Duration>,
    pub(super) isolation_schedule: Option<Arc<[Duration]>>,
    pub(super) isolation_backoff: Option<IsolationBackoff>,
    pub(super) probe_timeout: Option<Duration>,
    pub(super) max_half_open_duration: Option<(Duration, HalfOpenTimeoutAction)>,
    pub(super) automatic_half_open: bool,
    pub(super) initial_state: Option<CircuitState>,
}

impl CircuitBreakerConfig {
    /// The defaults: 5 failures in a row open, 30 s later 3 successes in a row close.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// let settings = CircuitBreakerConfig::new().resolve();
    /// assert_eq!(settings.failure_threshold, Some(5));
    /// assert_eq!(settings.failure_rate_threshold, None);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens after `failures` failures in a row; at least 1. Default 5.
    ///
    /// Off when [`failure_rate_threshold`](Self::failure_rate_threshold) or
    /// [`failure_count_threshold`](Self::failure_count_threshold) is set and this is not.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new().failure_threshold(2), ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.try_acquire().unwrap().succeed();          // begins anew
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.consecutive = ConsecutiveRule::Failures(failures);
        self
    }

    /// Failures in a row never open. Default: see [`failure_threshold`](Self::failure_threshold).
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use std::time::Duration;
    /// // Slow calls open it, errors don't.
    /// let config = CircuitBreakerConfig::new()
    ///     .slow_call_duration_threshold(Duration::from_secs(1))
    ///     .slow_call_rate_threshold(0.5)
    ///     .without_failure_threshold();
    /// assert_eq!(config.resolve().failure_threshold, None);
    /// ```
    #[must_use]
    pub fn without_failure_threshold(mut self) -> Self {
        self.consecutive = ConsecutiveRule::Off;
        self
    }

    /// Opens when failures / calls in the window reaches `rate`, within (0, 1], once
    /// [`minimum_number_of_calls`](Self::minimum_number_of_calls) are in it. Default off.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.5).minimum_number_of_calls(4);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// for _ in 0..2 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail();          // 2 of 4
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_rate_threshold(mut self, rate: f64) -> Self {
        self.failure_rate_threshold = Some(rate);
        self
    }

    /// Opens when slow calls / calls in the window reaches `rate`, within (0, 1]. Default off.
    ///
    /// Needs [`slow_call_duration_threshold`](Self::slow_call_duration_threshold). Calls that still run count when
    /// they end.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new()
    ///     .slow_call_duration_threshold(Duration::from_secs(1))
    ///     .slow_call_rate_threshold(0.5)
    ///     .minimum_number_of_calls(2);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, Duration::from_millis(50));
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, Duration::from_secs(3));
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn slow_call_rate_threshold(mut self, rate: f64) -> Self {
        self.slow_call_rate_threshold = Some(rate);
        self
    }

    /// A call that takes strictly longer is slow; more than zero. Default off. Without a
    /// [`slow_call_rate_threshold`](Self::slow_call_rate_threshold) slow calls are only counted.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new().slow_call_duration_threshold(Duration::from_secs(1));
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, Duration::from_secs(1));
    /// assert_eq!(breaker.snapshot().counts.slow_calls, 0);
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, Duration::from_millis(1001));
    /// assert_eq!(breaker.snapshot().counts.slow_calls, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn slow_call_duration_threshold(mut self, duration: Duration) -> Self {
        self.slow_call_duration_threshold = Some(duration);
        self
    }

    /// Opens at `failures` failures in the window, in a row or not; at least 1, at most the size
    /// of a count window. Default off.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::SlidingWindow;
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let minute = SlidingWindow::Time { length: Duration::from_secs(60), buckets: 6 };
    /// let config = CircuitBreakerConfig::new().failure_count_threshold(2).sliding_window(minute);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.try_acquire().unwrap().succeed();
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_count_threshold(mut self, failures: u32) -> Self {
        self.failure_count_threshold = Some(failures);
        self
    }

    /// Below this many calls in the window no rate is computed; at least 1, capped at a count
    /// window's size. Default 10.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.5).minimum_number_of_calls(3);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();          // the first call of the day
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn minimum_number_of_calls(mut self, calls: u32) -> Self {
        self.minimum_number_of_calls = Some(calls);
        self
    }

    /// What the rates and [`CircuitCounts`](super::CircuitCounts) look at: the last 1 to 1,000,000
    /// calls, or a time in 1 to 10,000 buckets. Default: the last 100 calls.
    ///
    /// Setting it keeps the window also when no rule looks at it, for the counts alone. Without
    /// it such a circuit counts failures in a row only, and recording a success costs nothing.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use bulkman::circuit_breaker::SlidingWindow;
    /// # use std::time::Duration;
    /// let calls = CircuitBreakerConfig::new().sliding_window(SlidingWindow::Count(20));
    /// let window = SlidingWindow::Time { length: Duration::from_secs(60), buckets: 60 };
    /// let minute = CircuitBreakerConfig::new().sliding_window(window);
    /// # assert!(calls.validate().is_ok() && minute.validate().is_ok());
    /// ```
    #[must_use]
    pub fn sliding_window(mut self, window: SlidingWindow) -> Self {
        self.sliding_window = Some(window);
        self
    }

    /// Half-open: `successes` probes in a row close, one failure reopens; 1 to 10,000. Default 3.
    ///
    /// Also bounds the probes: those out and those that succeeded never exceed it together.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new().success_threshold(2), ClockOnly)?;
    /// breaker.half_open();
    /// breaker.try_acquire().unwrap().succeed();
    /// assert!(breaker.is_half_open());
    /// breaker.try_acquire().unwrap().succeed();
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn success_threshold(mut self, successes: u32) -> Self {
        self.success_threshold = Some(successes);
        self
    }

    /// Half-open, instead of [`success_threshold`](Self::success_threshold): after all `calls`
    /// probes the circuit's own rules, applied to them, decide; 1 to 10,000. Default off.
    ///
    /// The minimum number of calls and the thresholds are capped at `calls`.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.5).permitted_calls_in_half_open(4);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.half_open();
    /// breaker.try_acquire().unwrap().fail();          // one of four is less than half
    /// for _ in 0..3 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn permitted_calls_in_half_open(mut self, calls: u32) -> Self {
        self.permitted_calls_in_half_open = Some(calls);
        self
    }

    /// The time spent open; more than zero. Default 30 s.
    ///
    /// One so long that it overflows the clock never ends by itself.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new().isolation_duration(Duration::from_secs(5));
    /// let breaker = CircuitBreaker::new("mail", config, ManualRuntime::new())?;
    /// breaker.open();
    /// assert_eq!(breaker.retry_after(), Some(Duration::from_secs(5)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn isolation_duration(mut self, duration: Duration) -> Self {
        self.isolation_duration = Some(duration);
        self
    }

    /// Instead of one [`isolation_duration`](Self::isolation_duration): that of the first opening,
    /// of the second, and so on until a close; the last one repeats. 1 to 1,000 durations, each
    /// more than zero. Default off.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use std::time::Duration;
    /// // A restart takes seconds; what is not back by then is worse.
    /// let config = CircuitBreakerConfig::new().isolation_schedule([5, 15, 60].map(Duration::from_secs));
    /// # assert!(config.validate().is_ok());
    /// ```
    #[must_use]
    pub fn isolation_schedule(mut self, durations: impl IntoIterator<Item = Duration>) -> Self {
        self.isolation_schedule = Some(durations.into_iter().collect());
        self
    }

    /// Longer isolation with each reopening, until a close: a factor of 1 or more, at most `max`,
    /// which is at least the [`isolation_duration`](Self::isolation_duration). Default off.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// // 1 s, 2 s, 4 s and so on, up to a minute; each up to a fifth shorter.
    /// let config = CircuitBreakerConfig::new()
    ///     .isolation_duration(Duration::from_secs(1))
    ///     .isolation_backoff(IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter(0.2));
    /// # assert!(config.validate().is_ok());
    /// ```
    #[must_use]
    pub fn isolation_backoff(mut self, backoff: IsolationBackoff) -> Self {
        self.isolation_backoff = Some(backoff);
        self
    }

    /// A probe out for longer is lost: its slot returns and it counts as a failed probe, so that
    /// a call that hangs can't keep the circuit half-open. More than zero. Default: the (first)
    /// isolation duration.
    ///
    /// [`Duration::MAX`] waits for probes for ever: then only
    /// [`max_half_open_duration`](Self::max_half_open_duration) ends a hung trial.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let config = CircuitBreakerConfig::new().probe_timeout(Duration::from_secs(3));
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// breaker.half_open();
    /// let _hangs = breaker.try_acquire().unwrap();
    /// clock.advance(Duration::from_secs(3));
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn probe_timeout(mut self, duration: Duration) -> Self {
        self.probe_timeout = Some(duration);
        self
    }

    /// A bound on half-open itself, after which the circuit opens or closes; more than zero.
    ///
    /// Default off: a dependency with little traffic must be able to recover at its own pace.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::HalfOpenTimeoutAction;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let minute = Duration::from_secs(60);
    /// let config = CircuitBreakerConfig::new().max_half_open_duration(minute, HalfOpenTimeoutAction::Closed);
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// breaker.half_open();
    /// clock.advance(minute);                             // nobody called
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_half_open_duration(
        mut self,
        duration: Duration,
        then: HalfOpenTimeoutAction,
    ) -> Self {
        self.max_half_open_duration = Some((duration, then));
        self
    }

    /// Leaves the open state by a timer, not only when somebody calls or looks. Default off.
    ///
    /// Worth it when transitions are what you watch: a call and a look at the state see a due
    /// transition anyway. Needs a runtime with timers and tasks.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let config = CircuitBreakerConfig::new().automatic_half_open(true);
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// breaker.open();
    /// let mut events = breaker.events();
    /// clock.advance(Duration::from_secs(30));
    /// assert!(events.try_next().is_some());              // though nobody looked at the state
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn automatic_half_open(mut self, automatic: bool) -> Self {
        self.automatic_half_open = automatic;
        self
    }

    /// The state to begin in: any of them. Default closed.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// // Not one call before the first health check has succeeded, or half a minute is over.
    /// let config = CircuitBreakerConfig::new().initial_state(CircuitState::Open);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// assert!(breaker.try_acquire().is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn initial_state(mut self, state: CircuitState) -> Self {
        self.initial_state = Some(state);
        self
    }

    /// Checks every field against its range, and the fields against each other.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] with the first field that can't be used.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// let error = CircuitBreakerConfig::new().success_threshold(0).validate().unwrap_err();
    /// assert_eq!(error.to_string(), "`success_threshold` is 0, must be 1 to 10,000");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        super::validate::validate(self)
    }

    /// What the configuration comes to, with every default filled in.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use std::time::Duration;
    /// let settings = CircuitBreakerConfig::new().isolation_duration(Duration::from_secs(5)).resolve();
    /// assert_eq!(settings.probe_timeout, Duration::from_secs(5));
    /// assert_eq!(settings.minimum_number_of_calls, 10);
    /// ```
    #[must_use]
    pub fn resolve(&self) -> ResolvedCircuitBreakerConfig {
        ResolvedCircuitBreakerConfig::new(self)
    }
}

/// Which calls the rates look at.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::SlidingWindow;
/// use std::time::Duration;
///
/// let new = CircuitBreakerConfig::new;
/// assert!(new().sliding_window(SlidingWindow::Count(1_000_000)).validate().is_ok());
/// let window = |length, buckets| new().sliding_window(SlidingWindow::Time { length, buckets });
/// assert!(window(Duration::from_secs(60), 10_000).validate().is_ok());
/// assert!(window(Duration::from_nanos(9), 10).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlidingWindow {
    /// The last so many calls, exactly; 1 to 1,000,000. Takes two bits for each.
    Count(u32),
    /// The calls of the last `length`, in buckets.
    ///
    /// A bucket leaves as a whole, when the one that many places later begins: with 10 buckets a
    /// call counts for at least 0.9 and at most 1.0 times `length`. Takes 24 bytes a bucket.
    Time {
        /// At least a nanosecond a bucket.
        length: Duration,
        /// 1 to 10,000.
        buckets: u32,
    },
}

/// How the isolation grows: see [`isolation_backoff`](CircuitBreakerConfig::isolation_backoff).
///
/// The n-th automatic opening since a close isolates for
/// `min(isolation_duration * factor^(n - 1), max)`, shortened by a random part of up to `jitter`.
/// Opening by hand and a half-open that expires use the length in force and don't raise it.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::IsolationBackoff;
/// use bulkman::testing::ManualRuntime;
/// use std::time::Duration;
///
/// let clock = ManualRuntime::new();
/// let config = CircuitBreakerConfig::new()
///     .failure_threshold(1)
///     .isolation_duration(Duration::from_secs(1))
///     .isolation_backoff(IsolationBackoff::new(3.0, Duration::from_secs(5)));
/// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
/// for seconds in [1, 3, 5, 5] {
///     breaker.try_acquire().unwrap().fail();
///     let isolation = Duration::from_secs(seconds);
///     assert_eq!(breaker.retry_after(), Some(isolation));
///     clock.advance(isolation);
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct IsolationBackoff {
    /// 1 or more.
    pub factor: f64,
    /// The longest isolation; at least `isolation_duration`.
    pub max: Duration,
    /// From 0 up to, not including, 1: with 0.2 an isolation takes 80 to 100 % of its length, so
    /// that a fleet's probes don't come all at once.
    pub jitter: f64,
}

impl IsolationBackoff {
    /// So many times longer with each reopening (`factor`, 1 or more), at most `max`; without
    /// jitter.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// assert_eq!(IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter, 0.0);
    /// ```
    #[must_use]
    pub const fn new(factor: f64, max: Duration) -> Self {
        Self {
            factor,
            max,
            jitter: 0.0,
        }
    }

    /// Shortens each isolation by a random part of up to `jitter`: within [0, 1), default 0.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// // 48 to 60 s once the longest is reached.
    /// let backoff = IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter(0.2);
    /// # assert_eq!(backoff.jitter, 0.2);
    /// ```
    #[must_use]
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }
}

/// Where a half-open that lasts too long goes.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::HalfOpenTimeoutAction;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// let config = CircuitBreakerConfig::new().max_half_open_duration(minute, HalfOpenTimeoutAction::Open);
/// assert_eq!(config.resolve().max_half_open_duration, Some((minute, HalfOpenTimeoutAction::Open)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum HalfOpenTimeoutAction {
    /// Open again, for the isolation in force.
    Open,
    /// Closed.
    Closed,
}

/// Whether failures in a row open, and whether somebody said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ConsecutiveRule {
    #[default]
    Unset,
    Off,
    Failures(u32),
}
