//! How a bulkhead is configured.

#[cfg(feature = "serde")]
mod repr;

use std::ops::RangeInclusive;
use std::time::Duration;

#[cfg(feature = "serde")]
pub(crate) use self::repr::BulkheadRepr;

use crate::circuit_breaker::CircuitBreakerConfig;
use crate::config_error::ConfigError;
use crate::name::BulkheadName;
use crate::queue::{MAX_PERMITS, MAX_QUEUE_CAPACITY, QueueOrder};
use crate::runtime::RuntimeCapabilities;

/// The settings of a [`Bulkhead`](crate::Bulkhead).
///
/// Setters take and return the value; nothing is checked before the bulkhead is made.
///
/// | setting | default | range |
/// | --- | --- | --- |
/// | `name` | required | 1 to 255 bytes |
/// | [`max_concurrent_calls`](Self::max_concurrent_calls) | 10 | 1 to 1,000,000 |
/// | [`max_queue_size`](Self::max_queue_size) | 100 | 0 to 2,147,483,647 |
/// | [`queue_order`](Self::queue_order) | first in, first out | |
/// | [`timeout`](Self::timeout) | none | more than zero |
/// | [`max_wait`](Self::max_wait) | none | zero: never wait |
/// | [`run_timeout`](Self::run_timeout) | none | more than zero |
/// | [`circuit_breaker_enabled`](Self::circuit_breaker_enabled) | true | |
/// | [`circuit_breaker`](Self::circuit_breaker) | [`CircuitBreakerConfig::new`] | see there |
///
/// ```
/// use std::time::Duration;
/// use bulkman::{BulkheadConfig, CircuitBreakerConfig};
///
/// let config = BulkheadConfig::new("api_calls")
///     .max_concurrent_calls(5)
///     .max_queue_size(100)
///     .timeout(Duration::from_secs(10))
///     .circuit_breaker(CircuitBreakerConfig::new().failure_rate_threshold(0.5));
/// assert!(config.validate().is_ok());
///
/// let error = config.max_concurrent_calls(0).validate().unwrap_err();
/// assert_eq!(error.to_string(), "`max_concurrent_calls` is 0, must be 1 to 1,000,000");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct BulkheadConfig {
    name: String,
    max_concurrent_calls: usize,
    max_queue_size: usize,
    queue_order: QueueOrder,
    timeout: Option<Duration>,
    max_wait: Option<Duration>,
    run_timeout: Option<Duration>,
    circuit_breaker_enabled: bool,
    circuit_breaker: CircuitBreakerConfig,
}

impl BulkheadConfig {
    /// The defaults, under this name: 1 to 255 bytes, no control characters.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// let config = BulkheadConfig::new("search");
    /// assert_eq!(config.name(), "search");
    /// ```
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            max_concurrent_calls: 10,
            max_queue_size: 100,
            queue_order: QueueOrder::Fifo,
            timeout: None,
            max_wait: None,
            run_timeout: None,
            circuit_breaker_enabled: true,
            circuit_breaker: CircuitBreakerConfig::new(),
        }
    }

    /// How many calls may run at once: 1 to 1,000,000, default 10.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").max_concurrent_calls(1), ClockOnly)?;
    /// let _running = bulkhead.try_acquire().unwrap();
    /// assert!(bulkhead.try_acquire().is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn max_concurrent_calls(mut self, calls: usize) -> Self {
        self.max_concurrent_calls = calls;
        self
    }

    /// How many calls may wait for a permit: 0 (none ever waits) to 2,147,483,647, default 100.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("search").max_concurrent_calls(1).max_queue_size(0);
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let _running = bulkhead.try_acquire().unwrap();
    /// let full = bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert_eq!(full.to_string(), "bulkhead \"search\" is full: at most 1 running and 0 queued calls");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn max_queue_size(mut self, calls: usize) -> Self {
        self.max_queue_size = calls;
        self
    }

    /// Which waiting call of one priority is served first: default the oldest.
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, QueueOrder};
    /// // Who came last is the likeliest to be there still.
    /// let config = BulkheadConfig::new("search").queue_order(QueueOrder::Lifo);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn queue_order(mut self, order: QueueOrder) -> Self {
        self.queue_order = order;
        self
    }

    /// Bounds the whole call, queue and run together: more than zero, default `None`.
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

    /// Bounds the time in the queue alone; zero never waits: a call that would have to is refused
    /// as [`Full`](crate::BulkheadError::Full). Default `None`: as long as `timeout` allows.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// # use std::time::Duration;
    /// let config = BulkheadConfig::new("search").max_wait(Duration::from_millis(200));
    /// let impatient = BulkheadConfig::new("search").max_wait(Duration::ZERO);
    /// # assert!(config.validate().is_ok() && impatient.validate().is_ok());
    /// ```
    pub fn max_wait(mut self, max_wait: impl Into<Option<Duration>>) -> Self {
        self.max_wait = max_wait.into();
        self
    }

    /// Bounds the run alone: more than zero, default `None`.
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

    /// Whether the bulkhead has a circuit breaker at all: default true.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = BulkheadConfig::new("reports").circuit_breaker_enabled(false);
    /// assert!(Bulkhead::new(config, ClockOnly)?.circuit_breaker().is_none());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn circuit_breaker_enabled(mut self, enabled: bool) -> Self {
        self.circuit_breaker_enabled = enabled;
        self
    }

    /// Replaces the circuit breaker's settings as a whole. Default [`CircuitBreakerConfig::new`].
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, CircuitBreakerConfig};
    /// let rules = CircuitBreakerConfig::new().failure_rate_threshold(0.5).minimum_number_of_calls(20);
    /// let config = BulkheadConfig::new("search").circuit_breaker(rules);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn circuit_breaker(mut self, config: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = config;
        self
    }

    /// Failures in a row that open the circuit: at least 1, default 5. Short for the setting of
    /// the same name in [`circuit_breaker`](Self::circuit_breaker).
    ///
    /// ```
    /// # use bulkman::{BulkheadConfig, CircuitBreakerConfig};
    /// let short = BulkheadConfig::new("search").failure_threshold(3);
    /// let long = BulkheadConfig::new("search").circuit_breaker(CircuitBreakerConfig::new().failure_threshold(3));
    /// assert_eq!(short, long);
    /// ```
    pub fn failure_threshold(self, failures: u32) -> Self {
        self.breaker(|circuit| circuit.failure_threshold(failures))
    }

    /// Probe successes in a row that close the circuit: 1 to 10,000, default 3. Short for the
    /// setting of the same name in [`circuit_breaker`](Self::circuit_breaker).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search").success_threshold(1), ClockOnly)?;
    /// bulkhead.circuit_breaker().unwrap().half_open();
    /// bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap();
    /// assert_eq!(bulkhead.state(), BulkheadState::Healthy);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn success_threshold(self, successes: u32) -> Self {
        self.breaker(|circuit| circuit.success_threshold(successes))
    }

    /// How long the circuit stays open: more than zero, default 30 s. Short for the setting of
    /// the same name in [`circuit_breaker`](Self::circuit_breaker).
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
    pub fn isolation_duration(self, duration: Duration) -> Self {
        self.breaker(|circuit| circuit.isolation_duration(duration))
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] names the first field that is out of its range, its value and
    /// the range.
    ///
    /// ```
    /// # use bulkman::BulkheadConfig;
    /// let error = BulkheadConfig::new("").validate().unwrap_err();
    /// assert_eq!(error.to_string(), "`name` is 0 bytes, must be 1 to 255 bytes");
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
        for (field, value) in [("timeout", self.timeout), ("run_timeout", self.run_timeout)] {
            check_timeout(field, value)?;
        }
        self.circuit_breaker.validate()
    }

    /// The name, as given.
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

    /// Checks that a runtime can do what the settings ask for.
    pub(crate) fn supported_by(&self, runtime: RuntimeCapabilities) -> Result<(), ConfigError> {
        if runtime.timers {
            return Ok(());
        }
        // `max_wait` is left to the calls: those on a thread of their own need no timer for it.
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

    pub(crate) const fn limits(&self) -> (usize, usize, QueueOrder) {
        (
            self.max_concurrent_calls,
            self.max_queue_size,
            self.queue_order,
        )
    }

    pub(crate) const fn times(&self) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
        (self.timeout, self.max_wait, self.run_timeout)
    }

    pub(crate) fn circuit(&self) -> Option<&CircuitBreakerConfig> {
        self.circuit_breaker_enabled
            .then_some(&self.circuit_breaker)
    }

    /// Checks what may not change while a bulkhead lives.
    pub(crate) fn check_fixed(&self, new: &Self) -> Result<(), ConfigError> {
        let immutable = |field, from: String, to: String| ConfigError::Immutable {
            field,
            from: from.into(),
            to: to.into(),
        };
        if self.name != new.name {
            return Err(immutable("name", self.name.clone(), new.name.clone()));
        }
        let (from, to) = (self.circuit_breaker_enabled, new.circuit_breaker_enabled);
        if from != to {
            return Err(immutable(
                "circuit_breaker_enabled",
                from.to_string(),
                to.to_string(),
            ));
        }
        Ok(())
    }

    /// The first field in which two configurations differ.
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
            ("queue_order", self.queue_order == other.queue_order),
            ("timeout", self.timeout == other.timeout),
            ("max_wait", self.max_wait == other.max_wait),
            ("run_timeout", self.run_timeout == other.run_timeout),
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
        self.circuit_breaker = change(self.circuit_breaker);
        self
    }
}

/// A timeout of zero could never be kept.
pub(crate) fn check_timeout(
    field: &'static str,
    value: Option<Duration>,
) -> Result<(), ConfigError> {
    match value {
        Some(Duration::ZERO) => Err(ConfigError::out_of_range(field, "0ns", "more than zero")),
        _ => Ok(()),
    }
}
