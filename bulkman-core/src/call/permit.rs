//! Calls in two steps: acquire a permit, and record its outcome later.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::bulkhead::Bulkhead;
use crate::bulkhead::running::CallTags;
use crate::call::admission::{admit_as_next, poll_admission, try_admission};
use crate::call::claim_admission::try_claim;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::error::BulkheadError;

/// An admitted call whose outcome is recorded by the holder.
///
/// Returned by [`Bulkhead::acquire`] and [`Bulkhead::try_acquire`], for work that is not one
/// future: a connection that is held for a while, a stream, a protocol with callbacks. It owns its
/// bulkhead and can be sent to another thread. Timeouts limit the wait for it, not its use.
///
/// Dropping it without an outcome counts the call as cancelled, which does not affect the circuit.
/// This includes a drop by a panic: the panic need not be caused by the dependency. In contrast, an
/// [`Admission`](crate::circuit_breaker::Admission) that is dropped by a panic records a failure,
/// because the call to the dependency runs while it is held.
///
/// # Memory ordering
///
/// Everything that happened before a permit was released happens before everything that follows
/// its next acquisition, as with a mutex. This holds for all permits of the bulkhead, including
/// those of [`Bulkhead::execute`].
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
/// let permit = bulkhead.try_acquire().unwrap();
/// assert_eq!(bulkhead.stats().active, 1);
/// permit.succeed(); // the transfer is complete
/// bulkhead.try_acquire().unwrap().fail(); // the server closed the connection
/// bulkhead.try_acquire().unwrap().ignore(); // the request was invalid
/// bulkhead.try_acquire().unwrap().record(Outcome::Success);
/// drop(bulkhead.try_acquire().unwrap()); // the transfer was cancelled
///
/// let stats = bulkhead.stats();
/// assert_eq!(
///     (
///         stats.successful,
///         stats.failed,
///         stats.ignored,
///         stats.cancelled
///     ),
///     (2, 1, 1, 1)
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[doc(alias = "SemaphorePermit")]
#[must_use = "dropping a permit releases it and counts the call as cancelled"]
pub struct Permit {
    guard: CallGuard<Bulkhead>,
    /// When the permit was granted, if the time for which it is held is needed.
    granted: Option<Instant>,
}

impl Permit {
    /// Records a success and releases the permit.
    ///
    /// An outcome after the probe's timeout, or of a call that was admitted before the circuit
    /// opened, enters the statistics only.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// bulkhead.try_acquire().unwrap().succeed();
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn succeed(self) {
        self.record(Outcome::Success);
    }

    /// Records a failure and releases the permit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp").failure_threshold(1), ClockOnly)?;
    /// bulkhead.try_acquire().unwrap().fail();
    /// assert!(!bulkhead.is_healthy());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn fail(self) {
        self.record(Outcome::Failure);
    }

    /// Records that the call does not count toward the circuit, and releases the permit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// bulkhead.try_acquire().unwrap().ignore();
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn ignore(self) {
        self.record(Outcome::Ignored);
    }

    /// Records the outcome and releases the permit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// let transferred: Result<u64, u16> = Err(501); // a syntax error in our command
    /// permit.record(match transferred {
    ///     Ok(_) => Outcome::Success,
    ///     Err(501) => Outcome::Ignored,
    ///     Err(_) => Outcome::Failure,
    /// });
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn record(mut self, outcome: Outcome) {
        let run = self.guard.needed_run(|| self.granted);
        self.guard.finish(outcome, run);
    }

    /// Returns the bulkhead of the permit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// assert_eq!(permit.bulkhead().name(), "ftp");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn bulkhead(&self) -> &Bulkhead {
        self.guard.bulkhead()
    }

    /// Acquires a permit without waiting. The bulkhead is cloned only if a permit is granted.
    pub(crate) fn try_acquire(
        bulkhead: &Bulkhead,
        options: &CallOptions,
    ) -> Result<Self, BulkheadError<Infallible>> {
        let mut guard = CallGuard::new(bulkhead, options);
        let mut deadlines = options.deadlines();
        let admission = if options.is_ordinary() {
            try_admission(&mut guard, options.tags, &mut deadlines, false)
        } else {
            try_claim(&mut guard, options.tags, &mut deadlines, false)
        };
        let admission = match admission {
            Ok(None) => admit_as_next(&mut guard, options.tags, &mut deadlines),
            Ok(Some(admitted)) => Ok(admitted),
            Err(rejection) => Err(rejection),
        };
        match admission {
            Ok(admitted) => Ok(Self {
                guard: guard.into_owned(admitted),
                granted: deadlines.run_started(),
            }),
            Err(rejection) => guard.reject(rejection, &deadlines),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("bulkhead", &self.guard.inner().name)
            .finish_non_exhaustive()
    }
}

/// The future of [`Bulkhead::acquire`].
///
/// # Cancel safety
///
/// Dropping it loses its place in the queue. A permit that was granted meanwhile goes to the next
/// waiter.
///
/// ```
/// use bulkman::future::Acquire;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("ftp").max_concurrent_calls(1);
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
/// let held = bulkhead.try_acquire().unwrap();
/// let waiting: Acquire = bulkhead.acquire();
/// held.succeed();
/// assert!(runtime.block_on(waiting).is_ok());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    guard: Option<CallGuard<Bulkhead>>,
    deadlines: Deadlines,
    tags: CallTags,
}

impl Acquire {
    pub(crate) fn new(bulkhead: Bulkhead, options: CallOptions) -> Self {
        let guard = Some(CallGuard::new(bulkhead, &options));
        Self {
            guard,
            deadlines: options.deadlines(),
            tags: options.tags,
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, BulkheadError<Infallible>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            guard: slot,
            deadlines,
            tags,
        } = &mut *self;
        let guard = slot.as_mut().expect("`Acquire` polled after completion");
        match ready!(poll_admission(guard, *tags, deadlines, cx)) {
            Ok(admitted) => {
                guard.restore(admitted);
                let Some(guard) = slot.take() else {
                    unreachable!("the guard was used above")
                };
                Poll::Ready(Ok(Permit {
                    guard,
                    granted: deadlines.run_started(),
                }))
            }
            Err(rejection) => {
                let rejected = guard.reject(rejection, deadlines);
                *slot = None;
                rejected
            }
        }
    }
}
