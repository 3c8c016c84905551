//! The configuration of a bulkhead.

mod circuit_settings;
mod fairness;
#[cfg(feature = "serde")]
mod fairness_repr;
#[cfg(feature = "serde")]
mod repr;
mod resolved;

use std::ops::RangeInclusive;
use std::time::Duration;

pub use self::fairness::Fairness;
#[cfg(feature = "serde")]
pub(crate) use self::repr::BulkheadRepr;
pub use self::resolved::ResolvedBulkheadConfig;

use self::circuit_settings::CircuitSettings;
use crate::adaptive::{AdaptiveLimit, DriverConfig, Enforcement};
use crate::call::limits::KeySharing;
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::config_error::ConfigError;
use crate::name::BulkheadName;
use crate::queue::{MAX_PERMITS, MAX_QUEUE_CAPACITY, QueueOrder, QueueSettings};
use crate::runtime::RuntimeCapabilities;

/// The configuration of a [`Bulkhead`](crate::Bulkhead).
///
/// Setters take and return the value. Nothing is validated before the bulkhead is created, or
/// [`validate`](Self::validate) is called. To read the values, use [`resolve`](Self::resolve).
///
/// | setting | default | range |
/// | --- | --- | --- |
/// | `name` | required | 1 to 255 bytes |
/// | [`max_concurrent_calls`](Self::max_concurrent_calls) | 10 | 1 to 1,000,000 |
/// | [`max_queue_size`](Self::max_queue_size) | 100 | 0 to 2,147,483,647 |
/// | [`max_queue_weight`](Self::max_queue_weight) | none | 1 to 2,147,483,647 |
/// | [`queue_order`](Self::queue_order) | first in, first out | |
/// | [`overtaking`](Self::overtaking) | 0 | 0 to 1,000 |
/// | [`timeout`](Self::timeout) | none | more than zero |
/// | [`max_wait`](Self::max_wait) | none | zero or more |
/// | [`run_timeout`](Self::run_timeout) | none | more than zero |
/// | [`adaptive_limit`](Self::adaptive_limit) | none | see [`AdaptiveLimit`] |
/// | [`enforcement`](Self::enforcement) | enforce | |
/// | [`fairness`](Self::fairness) | none | see [`Fairness`] |
/// | [`track_running_calls`](Self::track_running_calls) | false | |
/// | [`circuit_breaker_enabled`](Self::circuit_breaker_enabled) | true | |
/// | [`circuit_breaker`](Self::circuit_breaker) | [`CircuitBreakerConfig::new`] | see [`CircuitBreakerConfig`] |
///
/// ```
/// use bulkman::{BulkheadConfig, CircuitBreakerConfig};
/// use std::time::Duration;
///
/// let config = BulkheadConfig::new("api_calls")
///     .max_concurrent_calls(5)
///     .max_queue_size(100)
///     .timeout(Duration::from_secs(10))
///     .circuit_breaker(CircuitBreakerConfig::new().failure_rate_threshold(0.5));
/// assert!(config.validate().is_ok());
///
/// let error = config.max_concurrent_calls(0).validate().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`max_concurrent_calls` is 0, must be 1 to 1,000,000"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BulkheadConfig {
    name: String,
    max_concurrent_calls: usize,
    max_queue_size: usize,
    max_queue_weight: Option<u32>,
    queue_order: QueueOrder,
    overtaking: u32,
    timeout: Option<Duration>,
    max_wait: Option<Duration>,
    run_timeout: Option<Duration>,
    /// Boxed, since few bulkheads have one.
    adaptive_limit: Option<Box<AdaptiveLimit>>,
    enforcement: Enforcement,
    /// Boxed, since few bulkheads have one.
    fairness: Option<Box<Fairness>>,
    track_running_calls: bool,
    circuit_breaker_enabled: bool,
    circuit_breaker: CircuitSettings,
}

/// The largest number of calls that may overtake a waiting call.
const MAX_OVERTAKING: usize = 1_000;

impl BulkheadConfig {
    /// Creates a configuration with the default values and the given name.
    ///
    /// **No call has a timeout by default.** If the dependency hangs, no call ends, none fails, and
    /// the circuit stays closed while all permits are held. Set [`run_timeout`](Self::run_timeout)
    /// or [`timeout`](Self::timeout), or where calls must not be cancelled
    /// [`hanging_call_threshold`](CircuitBreakerConfig::hanging_call_threshold).
    ///
    /// The name must have 1 to 255 bytes and no control characters. It identifies the bulkhead in
    /// errors, logs and metrics, and its circuit in a store.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").run_timeout(Duration::from_secs(2));
    /// assert_eq!(config.name(), "search");
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_concurrent_calls: 10,
            max_queue_size: 100,
            max_queue_weight: None,
            queue_order: QueueOrder::Fifo,
            overtaking: 0,
            timeout: None,
            max_wait: None,
            run_timeout: None,
            adaptive_limit: None,
            enforcement: Enforcement::Enforce,
            fairness: None,
            track_running_calls: false,
            circuit_breaker_enabled: true,
            circuit_breaker: CircuitSettings::default(),
        }
    }

    /// Sets the maximum number of concurrent calls: 1 to 1,000,000, default 10.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(1);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let _running = bulkhead.try_acquire().unwrap();
    /// assert!(bulkhead.try_acquire().is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "semaphore")]
    #[doc(alias = "permits")]
    #[doc(alias = "permit_limit")]
    pub fn max_concurrent_calls(mut self, calls: usize) -> Self {
        self.max_concurrent_calls = calls;
        self
    }

    /// Sets the maximum number of waiting calls: 0 to 2,147,483,647, default 100.
    ///
    /// With 0, no call waits. Calls beyond the limit are rejected with
    /// [`BulkheadError::Full`](crate::BulkheadError::Full).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search")
    ///     .max_concurrent_calls(1)
    ///     .max_queue_size(0);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let _running = bulkhead.try_acquire().unwrap();
    /// let full = bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert_eq!(
    ///     full.to_string(),
    ///     "bulkhead \"search\" is full: at most 1 running and 0 queued calls"
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "queue_limit")]
    pub fn max_queue_size(mut self, calls: usize) -> Self {
        self.max_queue_size = calls;
        self
    }

    /// Limits the permits that waiting calls ask for together: 1 to 2,147,483,647, default `None`.
    ///
    /// For calls with a [weight](crate::call::Call::weight): `max_queue_size` counts calls, this
    /// counts permits. A call that exceeds either is rejected with
    /// [`BulkheadError::Full`](crate::BulkheadError::Full). `None` means that only
    /// [`max_queue_size`](Self::max_queue_size) bounds the queue.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::{block_on, poll_once};
    /// let config = BulkheadConfig::new("uploads")
    ///     .max_concurrent_calls(8)
    ///     .max_queue_weight(10);
    /// let bulkhead = Bulkhead::new(config, ManualRuntime::new())?;
    /// let _running = bulkhead.call().weight(8).try_acquire().unwrap();
    /// let mut first = bulkhead.call().weight(6).acquire();
    /// let mut second = bulkhead.call().weight(6).acquire();
    /// assert!(block_on(poll_once(&mut first)).is_none()); // waits
    /// assert!(block_on(poll_once(&mut second)).unwrap().is_err()); // 6 + 6 > 10
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn max_queue_weight(mut self, permits: impl Into<Option<u32>>) -> Self {
        self.max_queue_weight = permits.into();
        self
    }

    /// Lets calls overtake a waiting call that is too heavy for the permits available: 0 to 1,000,
    /// default 0.
    ///
    /// For calls with a [weight](crate::call::Call::weight). A heavy call that is next collects
    /// permits until it has enough, and they are idle meanwhile. With this setting, up to
    /// `calls` waiting calls of its priority that need no more than these permits are granted them
    /// first. Of the eight behind it, the first that fits is chosen, in the order in which they are
    /// served. The heavy call is delayed at most by the run of that many calls.
    ///
    /// In a simulation of 400 clients under a limit of 100, with weights of 1 and in a tenth of the
    /// calls of 50, 63 % of the permits were in use with 0, 66 % with 8 and 83 % with 64. The heavy
    /// calls waited 16 % less at the 99th percentile with 64, since the queue was shorter.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use futures_lite::future::{block_on, poll_once};
    /// let config = BulkheadConfig::new("reports")
    ///     .max_concurrent_calls(10)
    ///     .overtaking(1);
    /// let bulkhead = Bulkhead::new(config, ManualRuntime::new())?;
    /// let _running = bulkhead.call().weight(8).try_acquire().unwrap();
    /// let mut heavy = bulkhead.call().weight(5).acquire();
    /// assert!(block_on(poll_once(&mut heavy)).is_none()); // waits for three more permits
    /// let _light = block_on(bulkhead.acquire()).unwrap(); // takes one of the two available
    /// let mut second = bulkhead.acquire();
    /// assert!(block_on(poll_once(&mut second)).is_none()); // one has overtaken already
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn overtaking(mut self, calls: u32) -> Self {
        self.overtaking = calls;
        self
    }

    /// Sets the order of waiting calls of one priority: default first in, first out.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, QueueOrder};
    /// // Under overload, the newest caller is the one most likely to be still waiting.
    /// let config = BulkheadConfig::new("search").queue_order(QueueOrder::Lifo);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn queue_order(mut self, order: QueueOrder) -> Self {
        self.queue_order = order;
        self
    }

    /// Limits the total time of a call, waiting and running: default `None`.
    ///
    /// The value must be more than zero, and requires a runtime with timers. A call that exceeds it
    /// ends with [`BulkheadError::Timeout`](crate::BulkheadError::Timeout). `None` means no limit.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").timeout(Duration::from_secs(2));
    /// assert!(config.validate().is_ok());
    /// assert!(config.timeout(Duration::ZERO).validate().is_err());
    /// ```
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Limits the time in the queue: zero or more, default `None`.
    ///
    /// A call that exceeds it ends with [`BulkheadError::Timeout`](crate::BulkheadError::Timeout).
    /// With zero, a call never waits: it is rejected with
    /// [`BulkheadError::Full`](crate::BulkheadError::Full) if no permit is available. `None` means
    /// that only [`timeout`](Self::timeout) limits the time in the queue. Async calls need a
    /// runtime with timers for it.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").max_wait(Duration::from_millis(200));
    /// let never_waits = BulkheadConfig::new("search").max_wait(Duration::ZERO);
    /// # assert!(config.validate().is_ok() && never_waits.validate().is_ok());
    /// ```
    #[doc(alias = "max_wait_duration")]
    pub fn max_wait(mut self, max_wait: impl Into<Option<Duration>>) -> Self {
        self.max_wait = max_wait.into();
        self
    }

    /// Limits the running time of a call: default `None`.
    ///
    /// The time in the queue is not included. The value must be more than zero, and requires a
    /// runtime with timers. A call that exceeds it ends with
    /// [`BulkheadError::Timeout`](crate::BulkheadError::Timeout), and counts as a failure of the
    /// dependency. `None` means that only [`timeout`](Self::timeout) limits the running time.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").run_timeout(Duration::from_secs(1));
    /// assert!(config.validate().is_ok());
    /// assert!(config.run_timeout(Duration::ZERO).validate().is_err());
    /// ```
    pub fn run_timeout(mut self, run_timeout: impl Into<Option<Duration>>) -> Self {
        self.run_timeout = run_timeout.into();
        self
    }

    /// Lets the limit follow the capacity of the dependency, up to `max_concurrent_calls`.
    ///
    /// Default `None`: the limit is `max_concurrent_calls`. See [`adaptive`](crate::adaptive) for
    /// how it works, and when not to use it.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::AdaptiveLimit;
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search")
    ///     .max_concurrent_calls(200) // never exceeded
    ///     .adaptive_limit(AdaptiveLimit::new());
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// assert_eq!(bulkhead.limit(), 4); // the initial limit, until something is measured
    ///     
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "concurrency_limit")]
    pub fn adaptive_limit(mut self, limit: impl Into<Option<AdaptiveLimit>>) -> Self {
        self.adaptive_limit = limit.into().map(Box::new);
        self
    }

    /// Sets whether calls above the limit wait or are rejected: default [`Enforcement::Enforce`].
    ///
    /// With [`Enforcement::Observe`] no call waits, and none is rejected for lack of a permit. A
    /// call that finds no permit runs without one, and is counted: see
    /// [`LimitStatus`](crate::adaptive::LimitStatus). Circuit and shutdown stay enforced.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::Enforcement;
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search")
    ///     .max_concurrent_calls(1)
    ///     .enforcement(Enforcement::Observe);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let _running = bulkhead.try_acquire().unwrap();
    /// assert!(bulkhead.try_acquire().is_ok()); // above the limit
    /// assert_eq!(bulkhead.snapshot().limit.unwrap().would_wait, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "dry_run")]
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Shares permits fairly between keys, usually tenants: default `None`.
    ///
    /// Without it, the [keys](crate::call::Call::key) of calls are ignored. It can be changed while
    /// calls run and wait: those are then in no key. See the
    /// page `guide::fair_shares`.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use bulkman::bulkhead::Fairness;
    /// let config = BulkheadConfig::new("db").fairness(Fairness::new().min_per_key(10));
    /// assert_eq!(
    ///     config.validate().unwrap_err().to_string(),
    ///     "`fairness.min_per_key` is 10, must be 0 to less than `max_concurrent_calls`"
    /// );
    /// ```
    #[doc(alias = "tenant")]
    pub fn fairness(mut self, fairness: impl Into<Option<Fairness>>) -> Self {
        self.fairness = fairness.into().map(Box::new);
        self
    }

    /// Lists the oldest running calls in snapshots: default `false`.
    ///
    /// [`BulkheadSnapshot::oldest`](crate::snapshot::BulkheadSnapshot::oldest) then shows which
    /// calls hang, with the labels that [`Call::label`](crate::call::Call::label) sets.
    /// Each call reads the clock and writes to a table, which takes 32 to 64 bytes for each permit.
    /// Calls that run already when it is switched on are not listed.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let runtime = ManualRuntime::new();
    /// let config = BulkheadConfig::new("search").track_running_calls(true);
    /// let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// let _hangs = bulkhead.try_acquire().unwrap();
    /// runtime.advance(Duration::from_secs(60));
    /// assert_eq!(bulkhead.snapshot().oldest[0].age, Duration::from_secs(60));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "borrowers")]
    pub fn track_running_calls(mut self, track: bool) -> Self {
        self.track_running_calls = track;
        self
    }

    /// Enables or disables the circuit breaker: default `true`.
    ///
    /// A bulkhead without a circuit breaker only limits concurrency. It can't be changed later.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("reports").circuit_breaker_enabled(false);
    /// assert!(
    ///     Bulkhead::new(config, ClockOnly)?
    ///         .circuit_breaker()
    ///         .is_none()
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn circuit_breaker_enabled(mut self, enabled: bool) -> Self {
        self.circuit_breaker_enabled = enabled;
        self
    }

    /// Replaces the configuration of the circuit breaker: default [`CircuitBreakerConfig::new`].
    ///
    /// Settings of the circuit that were made before, such as `failure_threshold`, are discarded.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, CircuitBreakerConfig};
    /// let rules = CircuitBreakerConfig::new()
    ///     .failure_rate_threshold(0.5)
    ///     .minimum_number_of_calls(20);
    /// let config = BulkheadConfig::new("search").circuit_breaker(rules);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn circuit_breaker(mut self, config: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = config.into();
        self
    }

    /// Sets the number of consecutive failures that open the circuit: default 5.
    ///
    /// The minimum is 1. Sets [`CircuitBreakerConfig::failure_threshold`].
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, CircuitBreakerConfig};
    /// let short = BulkheadConfig::new("search").failure_threshold(3);
    /// let rules = CircuitBreakerConfig::new().failure_threshold(3);
    /// let long = BulkheadConfig::new("search").circuit_breaker(rules);
    /// assert_eq!(short, long);
    /// ```
    pub fn failure_threshold(self, failures: u32) -> Self {
        self.breaker(|circuit| circuit.failure_threshold(failures))
    }

    /// Sets the number of consecutive probe successes that close the circuit: default 3.
    ///
    /// The range is 1 to 10,000. Sets [`CircuitBreakerConfig::success_threshold`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").success_threshold(1);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// bulkhead.circuit_breaker().unwrap().half_open();
    /// bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap();
    /// assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn success_threshold(self, successes: u32) -> Self {
        self.breaker(|circuit| circuit.success_threshold(successes))
    }

    /// Sets the isolation, the time that the circuit stays open: default 30 s.
    ///
    /// The value must be more than zero. Sets [`CircuitBreakerConfig::isolation_duration`].
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").isolation_duration(Duration::from_secs(5));
    /// let bulkhead = Bulkhead::new(config, ManualRuntime::new())?;
    /// bulkhead.circuit_breaker().unwrap().open();
    /// assert_eq!(bulkhead.retry_after(), Some(Duration::from_secs(5)));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "break_duration")]
    #[doc(alias = "cooldown")]
    #[doc(alias = "reset_timeout")]
    #[doc(alias = "wait_duration_in_open_state")]
    pub fn isolation_duration(self, duration: Duration) -> Self {
        self.breaker(|circuit| circuit.isolation_duration(duration))
    }

    /// Validates every field.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] names the first field that is out of its range, its value and
    ///   the range.
    /// * [`ConfigError::Missing`] or [`ConfigError::Conflict`] name settings of the circuit breaker
    ///   that do not fit together.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// let error = BulkheadConfig::new("").validate().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`name` is 0 bytes, must be 1 to 255 bytes"
    /// );
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.checked_name()?;
        let limit = |field, value: usize, accepted: RangeInclusive<usize>, range| {
            if accepted.contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::out_of_range(field, value, range))
            }
        };
        limit(
            "max_concurrent_calls",
            self.max_concurrent_calls,
            1..=MAX_PERMITS,
            "1 to 1,000,000",
        )?;
        limit(
            "max_queue_size",
            self.max_queue_size,
            0..=MAX_QUEUE_CAPACITY,
            "0 to 2,147,483,647",
        )?;
        if let Some(permits) = self.max_queue_weight {
            limit(
                "max_queue_weight",
                permits as usize,
                1..=MAX_QUEUE_CAPACITY,
                "1 to 2,147,483,647",
            )?;
        }
        limit(
            "overtaking",
            self.overtaking as usize,
            0..=MAX_OVERTAKING,
            "0 to 1,000",
        )?;
        for (field, value) in [("timeout", self.timeout), ("run_timeout", self.run_timeout)] {
            check_timeout(field, value)?;
        }
        if let Some(adaptive) = &self.adaptive_limit {
            adaptive.validate(self.max_concurrent_calls)?;
        }
        if let Some(fairness) = &self.fairness {
            fairness.validate(self.max_concurrent_calls, self.max_queue_size)?;
        }
        self.circuit_breaker.validate()
    }

    /// Returns all values, with the defaults filled in.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, QueueOrder};
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search")
    ///     .timeout(Duration::from_secs(2))
    ///     .resolve();
    /// assert_eq!(
    ///     (config.name.as_str(), config.max_concurrent_calls),
    ///     ("search", 10)
    /// );
    /// assert_eq!(
    ///     (config.queue_order, config.max_queue_size),
    ///     (QueueOrder::Fifo, 100)
    /// );
    /// assert_eq!(
    ///     (config.timeout, config.max_wait),
    ///     (Some(Duration::from_secs(2)), None)
    /// );
    /// assert_eq!(config.circuit_breaker.unwrap().failure_threshold, Some(5));
    /// ```
    #[must_use]
    pub fn resolve(&self) -> ResolvedBulkheadConfig {
        ResolvedBulkheadConfig::new(self)
    }

    /// Returns the name, as given.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// assert_eq!(BulkheadConfig::new("search").name(), "search");
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn checked_name(&self) -> Result<BulkheadName, ConfigError> {
        BulkheadName::new(&self.name)
    }

    /// Checks that a runtime supports the settings.
    pub(crate) fn supported_by(&self, runtime: RuntimeCapabilities) -> Result<(), ConfigError> {
        if runtime.timers {
            return Ok(());
        }
        // Not `max_wait`: calls of `execute_sync` honor it without timers.
        for (setting, value) in [("timeout", self.timeout), ("run_timeout", self.run_timeout)] {
            if value.is_some() {
                return Err(ConfigError::Unsupported {
                    setting,
                    needs: "timers",
                });
            }
        }
        Ok(())
    }

    /// Returns the number of permits.
    pub(crate) const fn permits(&self) -> usize {
        self.max_concurrent_calls
    }

    /// Returns the largest weight of a call.
    pub(crate) fn max_weight(&self) -> u32 {
        // Validated: it fits.
        let permits = self.max_concurrent_calls as u32;
        let fairness = self.fairness.as_ref();
        fairness.map_or(permits, |fairness| fairness.max_weight(permits))
    }

    /// Returns the settings of the queue.
    pub(crate) fn queue(&self) -> QueueSettings {
        QueueSettings {
            max_permits: self.max_concurrent_calls,
            capacity: self.max_queue_size,
            max_weight: self.max_queue_weight,
            order: self.queue_order,
            overtaking: self.overtaking,
            keys: self.fairness.as_ref().map(|fairness| fairness.rules()),
        }
    }

    pub(crate) const fn times(&self) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
        (self.timeout, self.max_wait, self.run_timeout)
    }

    /// Returns how permits are shared between keys.
    pub(crate) fn key_sharing(&self) -> KeySharing {
        match &self.fairness {
            None => KeySharing::None,
            Some(fairness) if fairness.rules().has_bounds() => KeySharing::Bounded,
            Some(_) => KeySharing::Unbounded,
        }
    }

    pub(crate) fn driver(&self) -> DriverConfig<'_> {
        DriverConfig {
            maximum: self.max_concurrent_calls,
            adaptive: self.adaptive_limit.as_deref(),
            enforcement: self.enforcement,
        }
    }

    pub(crate) const fn tracks_running_calls(&self) -> bool {
        self.track_running_calls
    }

    pub(crate) fn circuit(&self) -> Option<&CircuitBreakerConfig> {
        self.circuit_breaker_enabled
            .then_some(&*self.circuit_breaker)
    }

    /// Checks that the fields that can't be changed in place are the same.
    pub(crate) fn check_immutable(&self, new: &Self) -> Result<(), ConfigError> {
        if self.name != new.name {
            let (from, to) = (self.name.clone(), new.name.clone());
            return Err(ConfigError::immutable("name", from, to));
        }
        let (_, mut not_applied) = self.changed_in_place(new);
        not_applied.pop().map_or(Ok(()), Err)
    }

    /// Returns `new` as far as a bulkhead with this configuration can adopt it, and an error for
    /// each change that it can't.
    ///
    /// The rules of a circuit that `new` can't remove stay in force, and so do those of one that it
    /// can't create.
    pub(crate) fn changed_in_place(&self, new: &Self) -> (Self, Vec<ConfigError>) {
        let mut changed = new.clone();
        let mut not_applied = Vec::new();
        let (from, to) = (self.circuit_breaker_enabled, new.circuit_breaker_enabled);
        if from != to {
            changed.circuit_breaker_enabled = from;
            not_applied.push(ConfigError::immutable("circuit_breaker_enabled", from, to));
        }
        if !(from && to) {
            changed.circuit_breaker = self.circuit_breaker.clone();
        } else {
            let mut circuit = new.circuit_breaker.clone().into_config();
            if let Some((from, to)) = circuit.keep_initial_state(&self.circuit_breaker) {
                not_applied.push(ConfigError::immutable("initial_state", from, to));
                changed.circuit_breaker = circuit.into();
            }
        }
        (changed, not_applied)
    }

    /// Returns the first field in which two configurations differ.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let same = [
            ("name", self.name == other.name),
            (
                "max_concurrent_calls",
                self.max_concurrent_calls == other.max_concurrent_calls,
            ),
            (
                "max_queue_size",
                self.max_queue_size == other.max_queue_size,
            ),
            (
                "max_queue_weight",
                self.max_queue_weight == other.max_queue_weight,
            ),
            ("queue_order", self.queue_order == other.queue_order),
            ("overtaking", self.overtaking == other.overtaking),
            ("fairness", self.fairness == other.fairness),
            ("timeout", self.timeout == other.timeout),
            ("max_wait", self.max_wait == other.max_wait),
            ("run_timeout", self.run_timeout == other.run_timeout),
            (
                "track_running_calls",
                self.track_running_calls == other.track_running_calls,
            ),
            (
                "circuit_breaker_enabled",
                self.circuit_breaker_enabled == other.circuit_breaker_enabled,
            ),
            (
                "circuit_breaker",
                self.circuit_breaker == other.circuit_breaker,
            ),
        ];
        same.into_iter()
            .find_map(|(field, same)| (!same).then_some(field))
    }

    fn breaker(
        mut self,
        change: impl FnOnce(CircuitBreakerConfig) -> CircuitBreakerConfig,
    ) -> Self {
        self.circuit_breaker = change(self.circuit_breaker.into_config()).into();
        self
    }
}

/// Rejects a timeout of zero, which would fail every call.
pub(crate) fn check_timeout(
    field: &'static str,
    value: Option<Duration>,
) -> Result<(), ConfigError> {
    match value {
        Some(Duration::ZERO) => Err(ConfigError::out_of_range(field, "0ns", "more than zero")),
        _ => Ok(()),
    }
}
