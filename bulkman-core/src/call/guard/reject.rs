//! The ends of calls that are rejected.

use std::borrow::Borrow;

use super::{CallGuard, Held};
use crate::bulkhead::Bulkhead;
use crate::bulkhead::stats::Event;
use crate::call::deadlines::Deadlines;
use crate::call::rejection::{FromRejection, MissingCapability, Rejection};
use crate::error::{BulkheadError, TimeoutPhase, note_rejection};
use crate::observe::CallEnd;
use crate::queue::QueueRejection;

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    /// Ends a call that is rejected, and returns its error.
    ///
    /// Not `#[cold]`: under overload, most calls end here. It is generic so that the caller's
    /// result is created in its final place: copying an error costs more than counting the
    /// rejection.
    pub(crate) fn reject<R: FromRejection>(
        &mut self,
        rejection: Rejection,
        deadlines: &Deadlines,
    ) -> R {
        if !self.is_new() {
            self.release_held();
        }
        self.held = Held::Ended;
        let inner = self.bulkhead.borrow().inner();
        #[cfg(feature = "tracing")]
        crate::observe::rejected(&self.observer, inner, rejection.reason());
        self.observer
            .end(inner, CallEnd::Rejected(rejection.reason()));
        match rejection {
            Rejection::Circuit(rejection) => R::from_rejection(BulkheadError::CircuitOpen {
                bulkhead: inner.name.clone(),
                reason: rejection.reason,
                retry_after: rejection.retry_after(),
            }),
            Rejection::Full => self.full(),
            other => self.reject_otherwise(other, deadlines),
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "under overload, most calls end here")]
    fn full<R: FromRejection>(&self) -> R {
        let inner = self.inner();
        let limits = inner.queue.limits();
        R::from_rejection(BulkheadError::Full {
            bulkhead: inner.name.clone(),
            max_concurrent_calls: limits.permits,
            max_queue_size: limits.queue_capacity,
        })
    }

    /// The error of a call that is rejected for a reason that is rare.
    #[inline(never)]
    fn reject_otherwise<R: FromRejection>(&self, rejection: Rejection, deadlines: &Deadlines) -> R {
        let inner = self.inner();
        match rejection {
            Rejection::Circuit(_)
            | Rejection::Full
            | Rejection::KeyQueueFull
            | Rejection::Evicted => self.full(),
            Rejection::WeightTooLarge(weight) => R::from_rejection(BulkheadError::WeightTooLarge {
                bulkhead: inner.name.clone(),
                weight,
                max: inner.max_weight(),
            }),
            Rejection::TimedOut => {
                let (queued, ran) = deadlines.elapsed(inner.runtime.now());
                let bulkhead = inner.name.clone();
                note_rejection(true);
                R::from_rejection(BulkheadError::Timeout {
                    bulkhead,
                    phase: TimeoutPhase::Queued,
                    queued,
                    ran,
                })
            }
            Rejection::Shutdown => R::from_rejection(BulkheadError::Shutdown {
                bulkhead: inner.name.clone(),
            }),
            Rejection::Unsupported(&MissingCapability { setting, needs }) => {
                R::from_rejection(BulkheadError::Unsupported {
                    bulkhead: inner.name.clone(),
                    setting,
                    needs,
                })
            }
        }
    }

    pub(crate) fn reject_full(&self) -> Rejection {
        self.inner().counters.count(Event::Full);
        Rejection::Full
    }

    pub(super) fn reject_shutdown(&self) -> Rejection {
        self.inner().counters.count(Event::Shutdown);
        Rejection::Shutdown
    }

    pub(super) fn reject_timed_out(&self) -> Rejection {
        self.inner().counters.count(Event::TimedOutWaiting);
        Rejection::TimedOut
    }

    pub(super) fn reject_waiter(&self, reason: QueueRejection) -> Rejection {
        match (reason, &self.inner().circuit) {
            (QueueRejection::CircuitOpened, Some(circuit)) => {
                Rejection::Circuit(circuit.reject_waiter())
            }
            (QueueRejection::Evicted, _) => {
                self.inner().counters.count(Event::Evicted);
                Rejection::Evicted
            }
            _ => self.reject_shutdown(),
        }
    }
}
