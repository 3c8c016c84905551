//! What a hand does to a circuit: each is a new generation.

use std::time::Duration;

use super::CircuitBreaker;
use super::state::StateTarget;

impl CircuitBreaker {
    /// Opens for the isolation in force, without making the next one longer.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open();                                 // somebody else says that it is down
    /// let refused = breaker.try_acquire().unwrap_err();
    /// assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
    /// clock.advance(Duration::from_secs(30));
    /// assert!(breaker.try_acquire().is_ok());         // a probe
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn open(&self) {
        self.go(StateTarget::Open);
    }

    /// Opens for `duration`: zero, and the next look finds it half-open; so long that it overflows
    /// the clock, and it stays open until somebody says otherwise.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// # let clock = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), clock.clone())?;
    /// breaker.open_for(Duration::from_secs(120));     // the server said `Retry-After: 120`
    /// assert_eq!(breaker.retry_after(), Some(Duration::from_secs(120)));
    /// breaker.open_for(Duration::ZERO);
    /// assert!(breaker.is_half_open());
    /// breaker.open_for(Duration::MAX);
    /// assert!(breaker.is_open());
    /// assert_eq!(breaker.retry_after(), None);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn open_for(&self, duration: Duration) {
        self.go(StateTarget::OpenFor(duration));
    }

    /// Closes, with empty counts and the first isolation duration.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let config = CircuitBreakerConfig::new().failure_threshold(2);
    /// let breaker = CircuitBreaker::new("mail", config, ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.close();                                // whatever it was before
    /// breaker.try_acquire().unwrap().fail();       // the first in a row
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn close(&self) {
        self.go(StateTarget::Closed);
    }

    /// Lets probes through.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.open();
    /// breaker.half_open();                            // the server was restarted: look at once
    /// for _ in 0..3 {
    ///     breaker.try_acquire().unwrap().succeed();
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn half_open(&self) {
        self.go(StateTarget::HalfOpen);
    }

    /// Refuses all calls until somebody says otherwise.
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
    /// let refused = breaker.try_acquire().unwrap_err();
    /// assert_eq!((refused.reason, refused.retry_after), (RejectionReason::ForcedOpen, None));
    /// breaker.close();
    /// assert!(breaker.try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn force_open(&self) {
        self.go(StateTarget::ForcedOpen);
    }

    /// Passes all calls and counts nothing.
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
        self.go(StateTarget::Disabled);
    }

    /// Passes all calls and counts them, and never opens.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.metrics_only();                         // to see what a rule would make of the traffic
    /// for _ in 0..100 {
    ///     breaker.try_acquire().unwrap().fail();
    /// }
    /// assert_eq!(breaker.state(), CircuitState::MetricsOnly);
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 100);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn metrics_only(&self) {
        self.go(StateTarget::MetricsOnly);
    }

    /// Starts afresh: closed, nothing counted, from whatever state.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.force_open();
    /// breaker.reset();
    /// assert_eq!(breaker.state(), CircuitState::Closed);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reset(&self) {
        self.go(StateTarget::Closed);
    }
}
