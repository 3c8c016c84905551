//! Two-step calls: a permit now, its outcome later.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::bulkhead::Bulkhead;
use crate::call::CallOptions;
use crate::call::deadlines::Deadlines;
use crate::call::execute::{begin, poll_admission};
use crate::call::guard::CallGuard;
use crate::call::outcome::Outcome;
use crate::error::BulkheadError;
use crate::queue::Priority;

/// A call that was let in and whose outcome somebody else will tell.
///
/// Made by [`Bulkhead::acquire`] and [`Bulkhead::try_acquire`], for work that is not one future:
/// a connection held for a while, a stream, a protocol with callbacks. It owns its bulkhead and
/// may be sent to another thread. Timeouts bound the wait for it, not its use.
///
/// Dropping it without a word counts the call as cancelled, which says nothing about the
/// dependency. So does a panic between the two steps, which need not be the dependency's fault
/// (an [`Admission`](crate::circuit_breaker::Admission), whose call is in between, records a failure then).
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
/// let permit = bulkhead.try_acquire().unwrap();
/// assert_eq!(bulkhead.stats().active, 1);
/// permit.succeed();                                              // the transfer is complete
/// bulkhead.try_acquire().unwrap().fail();                        // the server went away
/// bulkhead.try_acquire().unwrap().ignore();                      // there was no such file
/// bulkhead.try_acquire().unwrap().record(Outcome::Success);
/// drop(bulkhead.try_acquire().unwrap());                         // nobody wants it any more
///
/// let stats = bulkhead.stats();
/// assert_eq!((stats.successful, stats.failed, stats.ignored, stats.cancelled), (2, 1, 1, 1));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "a permit that is dropped at once frees its place and counts as cancelled"]
pub struct Permit {
    guard: CallGuard<Bulkhead>,
    /// When it was granted, if somebody wants to know for how long it was held.
    granted: Option<Instant>,
}

impl Permit {
    /// The dependency did its work.
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

    /// The dependency failed.
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

    /// The call says nothing about the dependency.
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

    /// Ends the call with this outcome and frees the permit.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), ClockOnly)?;
    /// let permit = bulkhead.try_acquire().unwrap();
    /// let transferred: Result<u64, u16> = Err(550);      // no such file
    /// permit.record(match transferred {
    ///     Ok(_) => Outcome::Success,
    ///     Err(550) => Outcome::Ignored,
    ///     Err(_) => Outcome::Failure,
    /// });
    /// assert_eq!(bulkhead.stats().ignored, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn record(mut self, outcome: Outcome) {
        let held = self.granted.filter(|_| self.guard.needs_duration());
        let held = held.map(|granted| {
            self.guard
                .inner()
                .runtime
                .now()
                .saturating_duration_since(granted)
        });
        self.guard.finish(outcome, held);
    }

    /// The bulkhead that the permit belongs to.
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

    /// A permit without waiting. Only one that is granted owns the bulkhead.
    pub(crate) fn now(bulkhead: &Bulkhead) -> Result<Self, BulkheadError<Infallible>> {
        let mut guard = CallGuard::new(bulkhead, 0);
        let mut deadlines = Deadlines::Unkept;
        let admitted = begin(&mut guard, &mut deadlines, false);
        match admitted.and_then(|seat| seat.ok_or_else(|| guard.reject_full())) {
            Ok(seat) => Ok(Self {
                guard: guard.into_owned(seat),
                granted: deadlines.running(),
            }),
            Err(rejection) => guard.refuse(rejection, &deadlines),
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
/// Dropping it gives its place in the queue back; a permit that was granted just then is handed
/// on.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::future::Acquire;
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp").max_concurrent_calls(1), runtime.clone())?;
/// let held = bulkhead.try_acquire().unwrap();
/// let waits: Acquire = bulkhead.acquire();
/// held.succeed();
/// assert!(runtime.block_on(waits).is_ok());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    guard: Option<CallGuard<Bulkhead>>,
    deadlines: Deadlines,
    priority: Priority,
}

impl Acquire {
    pub(crate) fn new(bulkhead: Bulkhead, options: CallOptions) -> Self {
        let guard = Some(CallGuard::new(bulkhead, 0));
        Self {
            guard,
            deadlines: options.deadlines(),
            priority: options.priority,
        }
    }
}

impl Future for Acquire {
    type Output = Result<Permit, BulkheadError<Infallible>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            guard: slot,
            deadlines,
            priority,
        } = &mut *self;
        let guard = slot.as_mut().expect("`Acquire` polled after completion");
        match ready!(poll_admission(guard, *priority, deadlines, cx)) {
            Ok(seat) => {
                guard.put_back(seat);
                let Some(guard) = slot.take() else {
                    unreachable!("it was there above")
                };
                Poll::Ready(Ok(Permit {
                    guard,
                    granted: deadlines.running(),
                }))
            }
            Err(rejection) => {
                let refused = guard.refuse(rejection, deadlines);
                *slot = None;
                refused
            }
        }
    }
}
