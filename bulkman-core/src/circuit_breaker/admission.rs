//! A call that a circuit has admitted, and the recording of its outcome.

use std::time::{Duration, Instant};

use super::enclosing::ProbeScope;
use super::packed_state::Ticket;
use super::shared::Shared;
use crate::call::outcome::Outcome;
use crate::sync::unwind::catch;

/// An admitted call; the caller records its outcome.
///
/// Returned by [`CircuitBreaker::try_acquire`](super::CircuitBreaker::try_acquire).
///
/// Dropping an admission records nothing and releases its probe slot. There is one exception: if a
/// panic that began after the admission drops it, a failure is recorded. A
/// [`Permit`](crate::Permit) counts as cancelled in that case.
///
/// An outcome is dropped if the circuit has entered another state since the admission.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
///
/// let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
/// let admission = breaker.try_acquire().unwrap();
/// let status = 404; // … query the directory …
/// admission.record(match status {
///     200 => Outcome::Success,
///     404 => Outcome::Ignored,
///     _ => Outcome::Failure,
/// });
/// assert_eq!(breaker.snapshot().counts.consecutive_failures, 0);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "an admission that is dropped records nothing"]
pub struct Admission<'a> {
    shared: &'a Shared,
    /// `None` once the outcome is recorded.
    ticket: Option<Ticket>,
    /// When the call began, if its duration is needed.
    started: Option<Instant>,
    /// Whether a panic that drops the admission is not the call's.
    ignores_panics: bool,
}

impl<'a> Admission<'a> {
    #[inline]
    pub(super) fn new(shared: &'a Shared, mut ticket: Ticket, now: Option<Instant>) -> Self {
        let mut started = None;
        if ticket.needs_duration() {
            let now = now.unwrap_or_else(|| shared.now());
            ticket.id = shared.begin_in_flight(ticket, now);
            started = Some(now);
        }
        Self {
            shared,
            ticket: Some(ticket),
            started,
            // A panic that is unwinding already began before the call.
            ignores_panics: std::thread::panicking(),
        }
    }

    /// Returns `true` if the call is a probe.
    #[inline]
    pub(super) fn is_probe(&self) -> bool {
        self.ticket.is_some_and(Ticket::is_probe)
    }

    /// Runs the operation of a probe.
    #[cold]
    #[inline(never)]
    pub(super) fn run_probe<R>(&self, operation: impl FnOnce() -> R) -> R {
        let _probe = self.enter_probe();
        operation()
    }

    /// Marks the code that runs until the scope is dropped as part of the probe, if it is one.
    pub(super) fn enter_probe(&self) -> Option<ProbeScope> {
        self.shared.enter_probe(self.ticket?)
    }

    /// Records no failure when a panic drops the admission, for callers that catch the call's.
    pub(super) const fn ignoring_panics(mut self) -> Self {
        self.ignores_panics = true;
        self
    }

    /// Records a success.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let config = CircuitBreakerConfig::new().success_threshold(1);
    /// # let breaker = CircuitBreaker::new("ldap", config, ClockOnly)?;
    /// breaker.half_open();
    /// breaker.try_acquire().unwrap().succeed();
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn succeed(self) {
        self.record(Outcome::Success);
    }

    /// Records a failure.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn fail(self) {
        self.record(Outcome::Failure);
    }

    /// Records that the outcome does not count, and releases the probe slot.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.try_acquire().unwrap().ignore();        // the request was invalid
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 0);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn ignore(self) {
        self.record(Outcome::Ignored);
    }

    /// Records an outcome.
    ///
    /// The duration of the call is the time since the admission. The clock is read only if the
    /// configuration needs the duration.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.try_acquire().unwrap().record(Outcome::Ignored);
    /// assert_eq!(breaker.snapshot().counts.consecutive_failures, 0);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        let now = self.started.map(|_| self.shared.now());
        let ran = now
            .zip(self.started)
            .map(|(now, started)| now.saturating_duration_since(started));
        self.finish(outcome, ran, now);
    }

    /// Records an outcome of a call that ends now and took `ran`.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let config = CircuitBreakerConfig::new().slow_call_duration_threshold(second);
    /// # let breaker = CircuitBreaker::new("ldap", config, ClockOnly)?;
    /// // The client library measures it.
    /// let ran = Duration::from_secs(2);
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, ran);
    /// assert_eq!(breaker.snapshot().counts.slow_calls, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn record_with_duration(mut self, outcome: Outcome, ran: Duration) {
        self.finish(outcome, Some(ran), None);
    }

    /// Records an outcome of a call that ended at `now` and took `ran`, without reading the clock.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let second = Duration::from_secs(1);
    /// # let config = CircuitBreakerConfig::new().slow_call_duration_threshold(second);
    /// # let breaker = CircuitBreaker::new("ldap", config, ClockOnly)?;
    /// let begin = ClockOnly.now();
    /// let ran = Duration::from_secs(2);
    /// breaker.try_acquire_at(begin).unwrap().record_at(Outcome::Success, ran, begin + ran);
    /// assert_eq!(breaker.snapshot_at(begin + ran).counts.slow_calls, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn record_at(mut self, outcome: Outcome, ran: Duration, now: Instant) {
        self.finish(outcome, Some(ran), Some(now));
    }

    #[inline]
    fn finish(&mut self, outcome: Outcome, ran: Option<Duration>, now: Option<Instant>) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.record(ticket, outcome, ran, now);
        }
    }
}

impl Drop for Admission<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.end_dropped(ticket);
        }
    }
}

impl Admission<'_> {
    fn end_dropped(&self, ticket: Ticket) {
        let failed = std::thread::panicking() && !self.ignores_panics;
        // The clock may panic too, and a second panic during unwinding would abort the process.
        let now = if failed {
            catch(|| self.shared.now())
        } else {
            None
        };
        catch(|| match now {
            Some(now) => {
                let ran = self
                    .started
                    .map(|started| now.saturating_duration_since(started));
                self.shared.record(ticket, Outcome::Failure, ran, Some(now));
            }
            None => self.shared.cancel(ticket),
        });
    }
}
