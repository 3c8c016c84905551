//! The right to make one call, and the duty to say how it went.

use std::time::{Duration, Instant};

use super::probes::ProbeId;
use super::shell::Shell;
use super::word::Word;
use crate::call::outcome::Outcome;
use crate::sync::unwind::catch;

/// A call that a circuit has admitted: made by
/// [`CircuitBreaker::try_acquire`](super::CircuitBreaker::try_acquire).
///
/// Say how the call went; an admission that is dropped says nothing, and gives a probe slot back.
/// Dropped by a panic that began during the call, it records a failure (a [`Permit`](crate::Permit)
/// is cancelled then).
///
/// An outcome that comes when the circuit has changed its state since the admission is dropped:
/// it is about a time that is over.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new(), ClockOnly)?;
/// let admission = breaker.try_acquire().unwrap();
/// let status = 404; // .. ask the directory ..
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
    shell: &'a Shell,
    /// `None` once settled.
    ticket: Option<Ticket>,
    /// When the call began, if its length matters.
    started: Option<Instant>,
    /// Whether a panic that drops it began before the call, or is none of the call's.
    panicking: bool,
}

impl<'a> Admission<'a> {
    #[inline]
    pub(super) fn new(shell: &'a Shell, ticket: Ticket, now: Option<Instant>) -> Self {
        let started = ticket
            .needs_duration()
            .then(|| now.unwrap_or_else(|| shell.now()));
        Self {
            shell,
            ticket: Some(ticket),
            started,
            panicking: std::thread::panicking(),
        }
    }

    /// For who watches the call itself: whatever else drops the admission says nothing of the call.
    pub(super) const fn watched(mut self) -> Self {
        self.panicking = true;
        self
    }

    /// The dependency did its work.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("ldap", CircuitBreakerConfig::new().success_threshold(1), ClockOnly)?;
    /// breaker.half_open();
    /// breaker.try_acquire().unwrap().succeed();
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn succeed(self) {
        self.record(Outcome::Success);
    }

    /// The dependency failed.
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

    /// The call ends now. If its length matters, it is the time since the admission.
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
        let now = self.started.map(|_| self.shell.now());
        let ran = now
            .zip(self.started)
            .map(|(now, started)| now.saturating_duration_since(started));
        self.settle(outcome, ran, now);
    }

    /// The call ends now and took `ran`.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let config = CircuitBreakerConfig::new().slow_call_duration_threshold(Duration::from_secs(1));
    /// # let breaker = CircuitBreaker::new("ldap", config, ClockOnly)?;
    /// // The client has measured it.
    /// breaker.try_acquire().unwrap().record_with_duration(Outcome::Success, Duration::from_secs(2));
    /// assert_eq!(breaker.snapshot().counts.slow_calls, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn record_with_duration(mut self, outcome: Outcome, ran: Duration) {
        self.settle(outcome, Some(ran), None);
    }

    /// The call ended at `now` and took `ran`: reads no clock.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
    /// # use bulkman::runtime::ClockOnly;
    /// # use std::time::Duration;
    /// # let config = CircuitBreakerConfig::new().slow_call_duration_threshold(Duration::from_secs(1));
    /// # let breaker = CircuitBreaker::new("ldap", config, ClockOnly)?;
    /// let begin = ClockOnly.now();
    /// let ran = Duration::from_secs(2);
    /// breaker.try_acquire_at(begin).unwrap().record_at(Outcome::Success, ran, begin + ran);
    /// assert_eq!(breaker.snapshot_at(begin + ran).counts.slow_calls, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn record_at(mut self, outcome: Outcome, ran: Duration, now: Instant) {
        self.settle(outcome, Some(ran), Some(now));
    }

    #[inline]
    fn settle(&mut self, outcome: Outcome, ran: Option<Duration>, now: Option<Instant>) {
        if let Some(ticket) = self.ticket.take() {
            self.shell.settle(ticket, outcome, ran, now);
        }
    }
}

impl Drop for Admission<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.end_unsettled(ticket);
        }
    }
}

impl Admission<'_> {
    fn end_unsettled(&self, ticket: Ticket) {
        let failed = std::thread::panicking() && !self.panicking;
        // The clock may panic, too, and a second panic here would end the process.
        let now = if failed {
            catch(|| self.shell.now())
        } else {
            None
        };
        catch(|| match now {
            Some(now) => {
                let ran = self
                    .started
                    .map(|started| now.saturating_duration_since(started));
                self.shell.settle(ticket, Outcome::Failure, ran, Some(now));
            }
            None => self.shell.settle(ticket, Outcome::Ignored, None, None),
        });
    }
}

/// An admission as plain data, for who has a guard of their own: settle or abandon it once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) word: Word,
    pub(super) probe: Option<ProbeId>,
}

impl Ticket {
    /// Whether the outcome must say how long the call took.
    pub(crate) const fn needs_duration(self) -> bool {
        self.word.needs_duration()
    }
}
