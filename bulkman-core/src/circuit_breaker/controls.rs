//! Manual changes of the state. Each begins a new generation.

use std::time::Duration;

use super::CircuitBreaker;
use super::machine::ManualTarget;

impl CircuitBreaker {
    /// Opens for the isolation in force.
    ///
    /// Does not make the next isolation longer.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open();                                 // a monitor reports an outage
    /// let rejected = breaker.try_acquire().unwrap_err();
    /// assert_eq!(rejected.retry_after, Some(Duration::from_secs(30)));
    /// clock.advance(Duration::from_secs(30));
    /// assert!(breaker.try_acquire().is_ok());         // a probe
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "trip")]
    pub fn open(&self) {
        self.transition_to(ManualTarget::Open);
    }

    /// Opens for `duration`.
    ///
    /// With zero, the circuit is half-open on the next call or query. A duration that overflows the
    /// clock keeps it open until it is changed manually.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open_for(Duration::from_secs(120));     // a response had `Retry-After: 120`
    /// assert_eq!(breaker.retry_after(), Some(Duration::from_secs(120)));
    /// breaker.open_for(Duration::ZERO);
    /// assert!(breaker.is_half_open());
    /// breaker.open_for(Duration::MAX);
    /// assert!(breaker.is_open());
    /// assert_eq!(breaker.retry_after(), None);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn open_for(&self, duration: Duration) {
        self.transition_to(ManualTarget::OpenFor(duration));
    }

    /// Closes the circuit and clears all counts, from any state.
    ///
    /// The next automatic opening uses the first isolation again. Outcomes of calls that are in
    /// flight are dropped.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().failure_threshold(2);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.close(); // clears the failure
    /// breaker.try_acquire().unwrap().fail(); // the first again
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "reset")]
    pub fn close(&self) {
        self.transition_to(ManualTarget::Closed);
    }

    /// Moves to half-open, which admits probes.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.open();
    /// breaker.half_open();                            // the server was restarted: probe now
    /// for _ in 0..3 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn half_open(&self) {
        self.transition_to(ManualTarget::HalfOpen);
    }

    /// Rejects all calls until changed manually.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::error::RejectionReason;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.force_open();
    /// clock.advance(Duration::from_secs(24 * 60 * 60));
    /// let rejected = breaker.try_acquire().unwrap_err();
    /// assert_eq!((rejected.reason, rejected.retry_after), (RejectionReason::ForcedOpen, None));
    /// breaker.close();
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "isolate")]
    #[doc(alias = "transition_to_forced_open_state")]
    pub fn force_open(&self) {
        self.transition_to(ManualTarget::ForcedOpen);
    }

    /// Admits all calls and counts nothing.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.disable();
    /// for _ in 0..100 {
    ///     breaker.try_acquire().unwrap().fail();
    /// }
    /// assert_eq!(breaker.state(), CircuitState::Disabled);
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 0);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn disable(&self) {
        self.transition_to(ManualTarget::Disabled);
    }

    /// Admits all calls and counts their outcomes, but never opens.
    ///
    /// Use it to try out rules on real traffic.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.metrics_only();
    /// for _ in 0..100 {
    ///     breaker.try_acquire().unwrap().fail();
    /// }
    /// assert_eq!(breaker.state(), CircuitState::MetricsOnly);
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 100);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn metrics_only(&self) {
        self.transition_to(ManualTarget::MetricsOnly);
    }
}
