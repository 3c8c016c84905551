//! Queries: the state, counts and events of a circuit.

use std::time::{Duration, Instant};

use super::{
    CircuitBreaker, CircuitEvents, CircuitRejections, CircuitSnapshot, CircuitState,
    ResolvedCircuitBreakerConfig,
};
use crate::name::BulkheadName;

impl CircuitBreaker {
    /// Returns the current state.
    ///
    /// Performs transitions that are due first, so the state is current even if no calls are made.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// assert_eq!(breaker.state(), CircuitState::Closed);
    /// breaker.open();
    /// assert_eq!(breaker.state(), CircuitState::Open);
    /// clock.advance(Duration::from_secs(30));         // without a call
    /// assert_eq!(breaker.state(), CircuitState::HalfOpen);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.0.state(None)
    }

    /// Returns the state at `now`, without reading the clock.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Runtime};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// let config = CircuitBreakerConfig::new().failure_threshold(1);
    /// let breaker = CircuitBreaker::new("shard-7", config, ClockOnly)?;
    /// let now = ClockOnly.now();
    /// breaker.try_acquire_at(now).unwrap().fail();
    /// assert_eq!(breaker.state_at(now), CircuitState::Open);
    /// assert_eq!(
    ///     breaker.state_at(now + Duration::from_secs(60)),
    ///     CircuitState::HalfOpen
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn state_at(&self, now: Instant) -> CircuitState {
        self.0.state(Some(now))
    }

    /// Returns `true` if the state is closed.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// assert!(breaker.is_closed());
    /// breaker.disable();
    /// assert!(!breaker.is_closed());                  // although calls are admitted
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state() == CircuitState::Closed
    }

    /// Returns `true` if the state is open or forced open.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.force_open();
    /// assert!(breaker.is_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().rejects_all()
    }

    /// Returns `true` if the state is half-open.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.half_open();
    /// assert!(breaker.is_half_open());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.state() == CircuitState::HalfOpen
    }

    /// Returns a consistent snapshot of the state and the counts.
    ///
    /// Performs transitions that are due first.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open();
    /// assert!(breaker.try_acquire().is_err());
    /// clock.advance(Duration::from_secs(10));
    /// let snapshot = breaker.snapshot();
    /// assert_eq!((snapshot.state, snapshot.age), (CircuitState::Open, Duration::from_secs(10)));
    /// assert_eq!(snapshot.retry_after, Some(Duration::from_secs(20)));
    /// assert_eq!(snapshot.rejected_calls, 1);
    /// println!("{} is {} because of {}", snapshot.name, snapshot.state, snapshot.recent[0].cause);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> CircuitSnapshot {
        self.0.snapshot(None)
    }

    /// Returns a snapshot at `now`, without reading the clock.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Runtime};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let breaker = CircuitBreaker::new("shard-7", CircuitBreakerConfig::new(), ClockOnly)?;
    /// let later = ClockOnly.now() + Duration::from_secs(60);
    /// assert!(breaker.snapshot_at(later).age >= Duration::from_secs(60));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn snapshot_at(&self, now: Instant) -> CircuitSnapshot {
        self.0.snapshot(Some(now))
    }

    /// Returns the remaining isolation.
    ///
    /// `None` if the circuit is not open, if it is forced open, or if the isolation has no end.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open();
    /// clock.advance(Duration::from_secs(10));
    /// assert_eq!(breaker.retry_after(), Some(Duration::from_secs(20)));
    /// breaker.force_open();
    /// assert_eq!(breaker.retry_after(), None);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    #[doc(alias = "remaining_delay")]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after()
    }

    /// Returns the number of rejected calls since the circuit was created, by reason.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.open();
    /// assert!(breaker.try_acquire().is_err());
    /// breaker.force_open();
    /// assert!(breaker.try_acquire().is_err());
    /// let rejected = breaker.rejections();
    /// assert_eq!((rejected.open, rejected.forced_open, rejected.total()), (1, 1, 2));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn rejections(&self) -> CircuitRejections {
        self.0.rejections()
    }

    /// Returns a stream of the transitions from now on.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::{CircuitEvent, CircuitState};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let mut events = breaker.events();
    /// breaker.force_open();
    /// match events.next().await {
    ///     Some(CircuitEvent::Transition(it)) => assert_eq!(it.to, CircuitState::ForcedOpen),
    ///     other => panic!("{other:?}"),
    /// }
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn events(&self) -> CircuitEvents {
        CircuitEvents::new(self.0.events())
    }

    /// Returns the name.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// assert_eq!(breaker.name(), "mail");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &BulkheadName {
        self.0.name()
    }

    /// Returns the configuration in force, with defaults resolved.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// assert_eq!(breaker.resolved_config().failure_threshold, Some(5));
    /// breaker.reconfigure(&CircuitBreakerConfig::new().failure_threshold(2))?;
    /// assert_eq!(breaker.resolved_config().failure_threshold, Some(2));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn resolved_config(&self) -> ResolvedCircuitBreakerConfig {
        self.0.resolved_config()
    }
}
