//! The configuration of a circuit breaker.
//!
//! `resolved.rs` has the defaults, `validate.rs` the ranges.

use std::sync::Arc;
use std::time::Duration;

use super::circuit_state::CircuitState;

/// The configuration of a circuit breaker.
///
/// Setters take and return the configuration. It is validated by [`validate`](Self::validate) and
/// by constructors, not by setters. [`resolve`](Self::resolve) returns all values, with defaults
/// resolved.
///
/// Rates are fractions: 0.5 is half of the calls. Setters that take `impl Into<Option<_>>` accept
/// `None`, which switches their rule off. *Isolation* is the time that a circuit stays open.
///
/// | setting | default | range |
/// | --- | --- | --- |
/// | [`failure_threshold`](Self::failure_threshold) | 5 | 1 or more |
/// | [`failure_rate_threshold`](Self::failure_rate_threshold) | off | above 0, at most 1 |
/// | [`slow_call_rate_threshold`](Self::slow_call_rate_threshold) | off | above 0, at most 1 |
/// | [`slow_call_duration_threshold`](Self::slow_call_duration_threshold) | off | more than zero |
/// | [`hanging_call_threshold`](Self::hanging_call_threshold) | off | 1 to 1,000,000 |
/// | [`count_calls_in_flight`](Self::count_calls_in_flight) | false | |
/// | [`failure_count_threshold`](Self::failure_count_threshold) | off | 1 to the size of a count window |
/// | [`minimum_number_of_calls`](Self::minimum_number_of_calls) | 10 | 1 or more |
/// | [`sliding_window`](Self::sliding_window) | `Count(100)` | 1 to 1,000,000 calls, or 1 to 10,000 buckets |
/// | [`success_threshold`](Self::success_threshold) | 3 | 1 to 10,000 |
/// | [`permitted_calls_in_half_open`](Self::permitted_calls_in_half_open) | off | 1 to 10,000 |
/// | [`isolation_duration`](Self::isolation_duration) | 30 s | more than zero |
/// | [`isolation_schedule`](Self::isolation_schedule) | off | 1 to 1,000 durations |
/// | [`isolation_backoff`](Self::isolation_backoff) | off | see [`IsolationBackoff`] |
/// | [`probe_timeout`](Self::probe_timeout) | the first isolation | more than zero |
/// | [`max_half_open_duration`](Self::max_half_open_duration) | off | more than zero |
/// | [`automatic_half_open`](Self::automatic_half_open) | false | |
/// | [`initial_state`](Self::initial_state) | `Closed` | any state |
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::SlidingWindow;
/// use std::time::Duration;
///
/// let config = CircuitBreakerConfig::new()
///     .failure_rate_threshold(0.5)
///     .minimum_number_of_calls(20)
///     .sliding_window(SlidingWindow::Time {
///         length: Duration::from_secs(60),
///         buckets: 60,
///     })
///     .isolation_duration(Duration::from_secs(10));
/// assert!(config.validate().is_ok());
/// // Setting a rate switches the rule of consecutive failures off.
/// assert_eq!(config.resolve().failure_threshold, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreakerConfig {
    // `None` means "not set": the default of a rule may depend on whether another one is set.
    pub(super) consecutive: ConsecutiveRule,
    pub(super) failure_rate_threshold: Option<f64>,
    pub(super) slow_call_rate_threshold: Option<f64>,
    pub(super) slow_call_duration_threshold: Option<Duration>,
    pub(super) hanging_call_threshold: Option<u32>,
    pub(super) count_calls_in_flight: bool,
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
    /// Creates a configuration with the defaults.
    ///
    /// 5 consecutive failures open the circuit, and 30 s later 3 consecutive successes close it.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// let resolved = CircuitBreakerConfig::new().resolve();
    /// assert_eq!(resolved.failure_threshold, Some(5));
    /// assert_eq!(resolved.failure_rate_threshold, None);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens after this number of consecutive failures.
    ///
    /// At least 1. Default: 5. `None` switches the rule off.
    ///
    /// If [`failure_rate_threshold`](Self::failure_rate_threshold) or
    /// [`failure_count_threshold`](Self::failure_count_threshold) is set, the default is off. To
    /// combine the rules, set this one too. The order of the setters does not matter.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new().failure_threshold(2);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.try_acquire().unwrap().succeed(); // the count restarts
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    ///
    /// // Only slow calls open this one.
    /// let config = CircuitBreakerConfig::new()
    ///     .slow_call_duration_threshold(Duration::from_secs(1))
    ///     .slow_call_rate_threshold(0.5)
    ///     .failure_threshold(None);
    /// assert_eq!(config.resolve().failure_threshold, None);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_threshold(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.consecutive = match failures.into() {
            Some(failures) => ConsecutiveRule::Failures(failures),
            None => ConsecutiveRule::Off,
        };
        self
    }

    /// Opens when the failure rate in the window reaches this fraction.
    ///
    /// Within (0, 1]. Default: off. `None` switches the rule off.
    ///
    /// The rate is failures / calls, computed once the window has
    /// [`minimum_number_of_calls`](Self::minimum_number_of_calls).
    ///
    /// Setting a rate switches the default rule of 5 consecutive failures off. Set
    /// [`failure_threshold`](Self::failure_threshold) too to use both.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new()
    ///     .failure_rate_threshold(0.5)
    ///     .minimum_number_of_calls(4);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// for _ in 0..2 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail(); // 2 of 4
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_rate_threshold(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.failure_rate_threshold = rate.into();
        self
    }

    /// Opens when the rate of slow calls in the window reaches this fraction.
    ///
    /// Within (0, 1]. Default: off. `None` switches the rule off.
    ///
    /// The rate is slow calls / calls, computed once the window has
    /// [`minimum_number_of_calls`](Self::minimum_number_of_calls). A call is counted when it ends,
    /// unless [`count_calls_in_flight`](Self::count_calls_in_flight) is set.
    ///
    /// Needs [`slow_call_duration_threshold`](Self::slow_call_duration_threshold). Unlike a failure
    /// rate, this rule leaves the default rule of 5 consecutive failures on.
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
    /// for millis in [50, 3_000] {
    ///     let ran = Duration::from_millis(millis);
    ///     breaker
    ///         .try_acquire()
    ///         .unwrap()
    ///         .record_with_duration(Outcome::Success, ran);
    /// }
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn slow_call_rate_threshold(mut self, rate: impl Into<Option<f64>>) -> Self {
        self.slow_call_rate_threshold = rate.into();
        self
    }

    /// Sets the duration above which a call is slow.
    ///
    /// More than zero. Default: off. `None` switches the measurement off.
    ///
    /// A call of exactly this duration is not slow. Slow calls are only counted, unless
    /// [`slow_call_rate_threshold`](Self::slow_call_rate_threshold) is set.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let config = CircuitBreakerConfig::new().slow_call_duration_threshold(second);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// for (millis, slow_calls) in [(1_000, 0), (1_001, 1)] {
    ///     let ran = Duration::from_millis(millis);
    ///     breaker
    ///         .try_acquire()
    ///         .unwrap()
    ///         .record_with_duration(Outcome::Success, ran);
    ///     assert_eq!(breaker.snapshot().counts.slow_calls, slow_calls);
    /// }
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn slow_call_duration_threshold(mut self, duration: impl Into<Option<Duration>>) -> Self {
        self.slow_call_duration_threshold = duration.into();
        self
    }

    /// Opens when this number of calls in flight has run longer than a slow call.
    ///
    /// 1 to 1,000,000. Default: off. `None` switches the rule off. Needs
    /// [`slow_call_duration_threshold`](Self::slow_call_duration_threshold).
    ///
    /// All other rules count calls that have ended. If the dependency hangs, no call ends, and only
    /// this rule and [`count_calls_in_flight`](Self::count_calls_in_flight) notice it.
    ///
    /// * A call hangs once it has run longer than the duration. This is noticed up to an eighth of
    ///   the duration later, and never earlier.
    /// * The rule is evaluated when a call begins, waits or is rejected as full, when a call ends,
    ///   and by queries; at most once in an eighth of the duration. No timer is used.
    /// * Only calls of the current state count, so the calls that opened the circuit do not reopen
    ///   it. They keep their permits until they end: set
    ///   [`run_timeout`](crate::BulkheadConfig::run_timeout) too. Otherwise half-open finds no
    ///   permit for its probes.
    /// * In half-open, [`probe_timeout`](Self::probe_timeout) applies instead. Metrics-only counts
    ///   such calls and never opens.
    ///
    /// Calls that last long on purpose, such as streams and long polls, hang in this sense. Use a
    /// bulkhead of their own for them, or a threshold above their number.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let config = CircuitBreakerConfig::new()
    ///     .slow_call_duration_threshold(Duration::from_secs(8))
    ///     .hanging_call_threshold(2);
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// let _hangs = [breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap()];
    /// clock.advance(Duration::from_secs(8));
    /// assert!(breaker.is_closed());
    /// clock.advance(Duration::from_secs(1));
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn hanging_call_threshold(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.hanging_call_threshold = calls.into();
        self
    }

    /// Counts slow calls in the slow-call rate before they end.
    ///
    /// Default: off. Needs [`slow_call_duration_threshold`](Self::slow_call_duration_threshold).
    ///
    /// The rate is computed as if the calls that hang ended now. In a full count window they
    /// replace the oldest outcomes. When they end, they are counted once. Calls hang, and the rule
    /// is evaluated, as described for [`hanging_call_threshold`](Self::hanging_call_threshold).
    ///
    /// With fewer permits than the count window has outcomes, even a bulkhead full of calls that
    /// hang may not reach the rate. Use `hanging_call_threshold` or a time window there.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let config = CircuitBreakerConfig::new()
    ///     .slow_call_duration_threshold(Duration::from_secs(8))
    ///     .slow_call_rate_threshold(0.5)
    ///     .minimum_number_of_calls(2)
    ///     .count_calls_in_flight(true);
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// let _hangs = [breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap()];
    /// clock.advance(Duration::from_secs(9));
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn count_calls_in_flight(mut self, count: bool) -> Self {
        self.count_calls_in_flight = count;
        self
    }

    /// Opens at this number of failures in the window, consecutive or not.
    ///
    /// At least 1, and at most the size of a count window. Default: off. `None` switches the rule
    /// off.
    ///
    /// Setting a count switches the default rule of 5 consecutive failures off. Set
    /// [`failure_threshold`](Self::failure_threshold) too to use both.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::SlidingWindow;
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let minute = SlidingWindow::Time {
    ///     length: Duration::from_secs(60),
    ///     buckets: 6,
    /// };
    /// let config = CircuitBreakerConfig::new()
    ///     .failure_count_threshold(2)
    ///     .sliding_window(minute);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.try_acquire().unwrap().succeed();
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn failure_count_threshold(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.failure_count_threshold = failures.into();
        self
    }

    /// Sets the number of calls in the window below which no rate is computed.
    ///
    /// At least 1; capped at the size of a count window. Default: 10. A success that completes this
    /// number may open the circuit, since the rates are evaluated then.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new()
    ///     .failure_rate_threshold(0.5)
    ///     .minimum_number_of_calls(3);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail(); // too few calls
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_closed());
    /// breaker.try_acquire().unwrap().fail();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "minimum_throughput")]
    pub fn minimum_number_of_calls(mut self, calls: u32) -> Self {
        self.minimum_number_of_calls = Some(calls);
        self
    }

    /// Sets the window of the rules and of [`CircuitCounts`](super::CircuitCounts).
    ///
    /// 1 to 1,000,000 calls, or a duration in 1 to 10,000 buckets. Default: the last 100 calls.
    ///
    /// A window that is set is maintained for the counts, even if no rule uses it. Otherwise such a
    /// circuit counts only consecutive failures, and recording a success costs nothing.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use bulkman::circuit_breaker::SlidingWindow;
    /// # use std::time::Duration;
    /// let calls = CircuitBreakerConfig::new().sliding_window(SlidingWindow::Count(20));
    /// let window = SlidingWindow::Time {
    ///     length: Duration::from_secs(60),
    ///     buckets: 60,
    /// };
    /// let minute = CircuitBreakerConfig::new().sliding_window(window);
    /// # assert!(calls.validate().is_ok() && minute.validate().is_ok());
    /// ```
    #[must_use]
    #[doc(alias = "sampling_duration")]
    pub fn sliding_window(mut self, window: SlidingWindow) -> Self {
        self.sliding_window = Some(window);
        self
    }

    /// Closes after this number of consecutive successful probes.
    ///
    /// 1 to 10,000. Default: 3.
    ///
    /// One failed probe reopens the circuit. The number also limits the probes: those in flight and
    /// those that succeeded never exceed it together.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().success_threshold(2);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
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

    /// Decides half-open by evaluating the thresholds over `calls` probes.
    ///
    /// 1 to 10,000. Default: off.
    ///
    /// Replaces [`success_threshold`](Self::success_threshold), which requires consecutive
    /// successes. Setting both is an error. The minimum number of calls and the thresholds are
    /// capped at `calls`.
    ///
    /// All of them complete, even if the result is certain before. For an early end, use
    /// `success_threshold`: its first failure reopens.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new()
    ///     .failure_rate_threshold(0.5)
    ///     .permitted_calls_in_half_open(4);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.half_open();
    /// breaker.try_acquire().unwrap().fail(); // one of four is below 0.5
    /// for _ in 0..3 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "half_open_max_calls")]
    #[doc(alias = "permitted_number_of_calls_in_half_open_state")]
    pub fn permitted_calls_in_half_open(mut self, calls: u32) -> Self {
        self.permitted_calls_in_half_open = Some(calls);
        self
    }

    /// Sets the isolation, which is the time that the circuit stays open.
    ///
    /// More than zero. Default: 30 s.
    ///
    /// A duration that overflows the clock keeps the circuit open until it is changed manually.
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
    #[doc(alias = "wait_duration_in_open_state")]
    #[doc(alias = "break_duration")]
    #[doc(alias = "reset_timeout")]
    #[doc(alias = "cooldown")]
    #[doc(alias = "open_duration")]
    pub fn isolation_duration(mut self, duration: Duration) -> Self {
        self.isolation_duration = Some(duration);
        self
    }

    /// Sets the isolation of each successive opening.
    ///
    /// 1 to 1,000 durations, each more than zero. Default: off.
    ///
    /// The last one repeats. Closing the circuit starts again with the first one. Replaces
    /// [`isolation_duration`](Self::isolation_duration) and
    /// [`isolation_backoff`](Self::isolation_backoff). Setting one of them too is an error.
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use std::time::Duration;
    /// // A restart takes seconds; a longer outage is probed less often.
    /// let schedule = [5, 15, 60].map(Duration::from_secs);
    /// let config = CircuitBreakerConfig::new().isolation_schedule(schedule);
    /// # assert!(config.validate().is_ok());
    /// ```
    #[must_use]
    pub fn isolation_schedule(mut self, durations: impl IntoIterator<Item = Duration>) -> Self {
        self.isolation_schedule = Some(durations.into_iter().collect());
        self
    }

    /// Extends the isolation with each reopening, until the circuit closes.
    ///
    /// Default: off. The first isolation is [`isolation_duration`](Self::isolation_duration); the
    /// maximum must not be less. See [`IsolationBackoff`].
    ///
    /// ```
    /// # use bulkman::CircuitBreakerConfig;
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// // 1 s, 2 s, 4 s and so on, up to one minute; each is shortened by up to 20 %.
    /// let config = CircuitBreakerConfig::new()
    ///     .isolation_duration(Duration::from_secs(1))
    ///     .isolation_backoff(
    ///         IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter(0.2),
    ///     );
    /// # assert!(config.validate().is_ok());
    /// ```
    #[must_use]
    pub fn isolation_backoff(mut self, backoff: IsolationBackoff) -> Self {
        self.isolation_backoff = Some(backoff);
        self
    }

    /// Sets the timeout of probes.
    ///
    /// More than zero. Default: the isolation duration, or the first one of a schedule.
    ///
    /// Probes that run longer count as failed and free their slot, so a call that hangs can't keep
    /// the circuit half-open. The call itself is not cancelled.
    ///
    /// A probe that is cancelled has no outcome. But if callers time out outside of the bulkhead, a
    /// dependency that hangs would keep the circuit half-open. So two or more probes that are
    /// cancelled in a row count as one that timed out, once they have run for this duration in
    /// total, or once they are 100. An outcome begins the count anew.
    ///
    /// [`Duration::MAX`] waits for probes indefinitely. Then only
    /// [`max_half_open_duration`](Self::max_half_open_duration) ends half-open if a probe hangs.
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

    /// Limits how long the circuit stays half-open, and sets what follows.
    ///
    /// More than zero. Default: off.
    ///
    /// It is off by default so that a circuit with few calls has time to recover.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::HalfOpenTimeoutAction;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// let minute = Duration::from_secs(60);
    /// let config = CircuitBreakerConfig::new()
    ///     .max_half_open_duration(minute, HalfOpenTimeoutAction::Closed);
    /// let breaker = CircuitBreaker::new("mail", config, clock.clone())?;
    /// breaker.half_open();
    /// clock.advance(minute); // without a call
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn max_half_open_duration(
        mut self,
        duration: Duration,
        action: HalfOpenTimeoutAction,
    ) -> Self {
        self.max_half_open_duration = Some((duration, action));
        self
    }

    /// Moves to half-open on a timer instead of on the next call or query.
    ///
    /// Default: off.
    ///
    /// Use it if you watch the transitions: calls and queries perform a transition that is due
    /// anyway. Needs a runtime with timers and tasks.
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
    /// assert!(events.try_next().is_some()); // without a call or query
    ///     
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "automatic_transition_from_open_to_half_open_enabled")]
    pub fn automatic_half_open(mut self, automatic: bool) -> Self {
        self.automatic_half_open = automatic;
        self
    }

    /// Sets the initial state.
    ///
    /// Any state is possible. Default: closed. It has no effect after the circuit was created:
    /// [`Bulkhead::reconfigure`](crate::Bulkhead::reconfigure) rejects another one, and
    /// [`CircuitBreaker::reconfigure`](crate::CircuitBreaker::reconfigure) ignores it. To change
    /// the state then, use [`force_open`](crate::CircuitBreaker::force_open) and similar methods.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// // Reject all calls until a health check has succeeded, or 30 s have elapsed.
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

    /// Sets the initial state of `current`, since a circuit has only one. Returns the two states if
    /// they differ.
    pub(crate) fn keep_initial_state(
        &mut self,
        current: &Self,
    ) -> Option<(CircuitState, CircuitState)> {
        let [from, to] = [current, self].map(|config| config.resolve().initial_state);
        if from == to {
            return None;
        }
        self.initial_state = current.initial_state;
        Some((from, to))
    }
}

/// The window of calls that the rules use.
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::SlidingWindow;
/// use std::time::Duration;
///
/// let new = CircuitBreakerConfig::new;
/// assert!(
///     new()
///         .sliding_window(SlidingWindow::Count(1_000_000))
///         .validate()
///         .is_ok()
/// );
/// let window =
///     |length, buckets| new().sliding_window(SlidingWindow::Time { length, buckets });
/// assert!(window(Duration::from_secs(60), 10_000).validate().is_ok());
/// assert!(window(Duration::from_nanos(9), 10).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlidingWindow {
    /// The last `n` calls; 1 to 1,000,000. Takes two bits per call.
    Count(u32),
    /// The calls of the last `length`, in buckets.
    ///
    /// A bucket is dropped as a whole when the bucket `buckets` positions later begins. With 10
    /// buckets, a call counts for at least 0.9 and at most 1.0 times `length`. With one bucket, it
    /// may be dropped at once: use two or more. Takes 24 bytes per bucket.
    Time {
        /// The length of the window; at least one nanosecond per bucket.
        length: Duration,
        /// The number of buckets; 1 to 10,000.
        buckets: u32,
    },
}

/// The growth of the isolation with each reopening.
///
/// Set by [`isolation_backoff`](CircuitBreakerConfig::isolation_backoff). The *n*-th automatic
/// opening since the circuit was closed has the isolation
/// `min(isolation_duration * factor^(n - 1), max)`, shortened by a random part of up to `jitter`.
///
/// Opening manually, and a half-open state that times out, use the isolation in force and do not
/// make the next one longer.
///
/// ```
/// use bulkman::circuit_breaker::IsolationBackoff;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
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
    /// The factor; 1 or more.
    pub factor: f64,
    /// The longest isolation; at least `isolation_duration`.
    pub max: Duration,
    /// The largest random part by which an isolation is shortened; within [0, 1).
    ///
    /// With 0.2, an isolation takes 80 to 100 % of its duration. This spreads out the probes of
    /// many processes.
    pub jitter: f64,
}

impl IsolationBackoff {
    /// Multiplies the isolation by `factor` on each reopening, up to `max`, without jitter.
    ///
    /// `factor` must be 1 or more.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// assert_eq!(
    ///     IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter,
    ///     0.0
    /// );
    /// ```
    #[must_use]
    pub const fn new(factor: f64, max: Duration) -> Self {
        Self {
            factor,
            max,
            jitter: 0.0,
        }
    }

    /// Shortens each isolation by a random part of up to `jitter`; within [0, 1). Default 0.
    ///
    /// ```
    /// # use bulkman::circuit_breaker::IsolationBackoff;
    /// # use std::time::Duration;
    /// // 48 to 60 s once the maximum is reached.
    /// let backoff = IsolationBackoff::new(2.0, Duration::from_secs(60)).jitter(0.2);
    /// # assert_eq!(backoff.jitter, 0.2);
    /// ```
    #[must_use]
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }
}

/// What to do when half-open times out.
///
/// See [`max_half_open_duration`](CircuitBreakerConfig::max_half_open_duration).
///
/// ```
/// use bulkman::CircuitBreakerConfig;
/// use bulkman::circuit_breaker::HalfOpenTimeoutAction;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// let action = HalfOpenTimeoutAction::Open;
/// let config = CircuitBreakerConfig::new().max_half_open_duration(minute, action);
/// assert_eq!(
///     config.resolve().max_half_open_duration,
///     Some((minute, action))
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum HalfOpenTimeoutAction {
    /// Open for the isolation in force.
    Open,
    /// Close.
    Closed,
}

/// The rule of consecutive failures, as it was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ConsecutiveRule {
    #[default]
    Unset,
    Off,
    Failures(u32),
}
