//! What one call holds. It is released when the guard is dropped.

use std::borrow::Borrow;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::adaptive::Mark;
use crate::bulkhead::stats::Event;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::options::{CallClass, CallOptions};
use crate::call::outcome::Outcome;
use crate::call::rejection::{FromRejection, MissingCapability, Rejection};
use crate::call::run::End;
use crate::circuit_breaker::Ticket;
use crate::error::{BulkheadError, TimeoutPhase};
use crate::observe::{CallEnd, Observer};
use crate::queue::{Claim, Enqueue, QueueRejection, Request, TryAcquire, WaitResult, WaiterId};
use crate::sync::unwind::catch;

/// What a call holds of its bulkhead: nothing, a place in the queue, a permit, or an admission.
///
/// Dropping it releases what is held and counts the call as cancelled, so a future that is dropped
/// at any point loses nothing. `H` is a reference for calls that borrow the bulkhead, and a clone
/// for those that own it.
#[derive(Debug)]
pub(crate) struct CallGuard<H: Borrow<Bulkhead>> {
    bulkhead: H,
    held: Held,
    /// What the call asks for; from its admission on, what it holds.
    claim: Claim,
    observer: Observer,
}

// As wide as a word: a tag that is stored as a byte and loaded together with what follows it
// stalls the load.
#[derive(Debug)]
#[repr(u64)]
enum Held {
    Nothing(CallClass),
    Queued(WaiterId, CallClass),
    /// The permits of the claim.
    Permits(CallClass),
    Admitted(Admitted),
    Ended,
}

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    #[inline]
    pub(crate) const fn new(bulkhead: H, options: &CallOptions) -> Self {
        Self {
            bulkhead,
            held: Held::Nothing(options.class),
            claim: options.claim(),
            observer: Observer::new(options.report_id),
        }
    }

    /// Starts to observe the call, if tracing or metrics are enabled for it.
    #[inline]
    pub(crate) fn observe(&mut self) {
        self.observer.begin(self.bulkhead.borrow().inner());
    }

    pub(crate) const fn observer(&self) -> &Observer {
        &self.observer
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        self.bulkhead.borrow().inner()
    }

    /// Returns what the admission needs to know, if it has not begun.
    #[inline]
    pub(crate) const fn new_class(&self) -> Option<CallClass> {
        match self.held {
            Held::Nothing(class) => Some(class),
            _ => None,
        }
    }

    /// Returns what the admission needs to know, while it lasts.
    pub(crate) const fn class(&self) -> CallClass {
        match self.held {
            Held::Nothing(class) | Held::Queued(_, class) | Held::Permits(class) => class,
            Held::Admitted(_) | Held::Ended => CallClass::DEFAULT,
        }
    }

    /// Gives the call the key that counts, before its admission.
    #[inline]
    pub(crate) fn set_key(&mut self) {
        self.bulkhead
            .borrow()
            .inner()
            .queue
            .set_key(&mut self.claim);
    }

    /// Returns what the call asks for; from its admission on, what it holds.
    #[inline]
    pub(crate) const fn claim(&self) -> Claim {
        self.claim
    }

    /// Returns the key of the waiter, while the call is queued.
    pub(crate) const fn queue_key(&self) -> Option<WaiterId> {
        match self.held {
            Held::Queued(key, _) => Some(key),
            _ => None,
        }
    }

    /// Steps 1 to 3 without waiting. `None`: the call has to wait for a permit.
    #[inline(always)]
    pub(crate) fn try_admit(
        &mut self,
        deadlines: &Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            Some(circuit) => match circuit.try_admit_fast() {
                Some(ticket) => Some(ticket),
                None => return self.try_admit_slow(deadlines),
            },
            None => None,
        };
        match inner.queue.try_acquire() {
            TryAcquire::Acquired => Ok(Some(self.start(ticket))),
            TryAcquire::MustWait => self.lack_permit(false, deadlines),
            TryAcquire::Full => self.lack_permit(true, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// As [`try_admit`](Self::try_admit), one step at a time, while the circuit is not closed.
    #[inline(never)]
    fn try_admit_slow(&mut self, deadlines: &Deadlines) -> Result<Option<Admitted>, Rejection> {
        self.check_circuit()?;
        match self.inner().queue.try_acquire() {
            TryAcquire::Acquired => {
                self.held = Held::Permits(self.class());
                self.admit().map(Some)
            }
            TryAcquire::MustWait => self.lack_permit(false, deadlines),
            TryAcquire::Full => self.lack_permit(true, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// Steps 1 to 3 without waiting, for a call that asks for several permits.
    #[inline(never)]
    pub(crate) fn try_admit_claim(
        &mut self,
        class: CallClass,
        deadlines: &Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        if class.weight() > inner.max_weight() {
            return self.lack_weight(class, deadlines);
        }
        self.check_circuit()?;
        let mut claim = self.claim;
        match inner
            .queue
            .try_acquire_claim(&mut claim, || inner.runtime.now())
        {
            TryAcquire::Acquired => {
                self.claim = claim;
                self.held = Held::Permits(class);
                self.admit().map(Some)
            }
            TryAcquire::MustWait => self.lack_permit(false, deadlines),
            TryAcquire::Full => self.lack_permit(true, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// Rejects a call that can never run, whatever the state of the circuit. If limits are only
    /// observed, it runs all the same.
    #[cold]
    fn lack_weight(
        &mut self,
        class: CallClass,
        deadlines: &Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        if self.inner().driver().is_some() && self.runs_without_permit() {
            return self.admit_without_permit(deadlines.may_wait());
        }
        self.inner().counters.count(Event::WeightTooLarge);
        Err(Rejection::WeightTooLarge(class.weight()))
    }

    /// Decides about a call that found no permit: it waits, is rejected, or runs all the same if
    /// limits are only observed.
    #[inline(always)]
    fn lack_permit(
        &mut self,
        full: bool,
        deadlines: &Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        if self.inner().driver().is_some() && self.runs_without_permit() {
            return self.admit_without_permit(deadlines.may_wait());
        }
        if full {
            Err(self.reject_full())
        } else {
            Ok(None)
        }
    }

    /// Records that a permit is lacking. Returns `true` if the call runs all the same.
    #[cold]
    fn runs_without_permit(&self) -> bool {
        self.inner().driver().is_some_and(|driver| {
            driver.record_lack_of_permit();
            driver.observes()
        })
    }

    /// Step 3 for a call without a permit.
    #[inline(never)]
    fn admit_without_permit(&mut self, may_wait: bool) -> Result<Option<Admitted>, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            Some(circuit) => Some(circuit.admit().map_err(Rejection::Circuit)?),
            None => None,
        };
        let admitted = Admitted { ticket };
        if inner.start_without_permit(may_wait) {
            self.claim = Claim::new(0);
            let Admitted { ticket } = admitted.with_mark(Mark::UNCOUNTED.without_permit());
            return Ok(Some(self.start(ticket)));
        }
        if let (Some(circuit), Some(ticket)) = (&inner.circuit, ticket) {
            circuit.cancel(ticket);
        }
        Err(self.reject_shutdown())
    }

    fn check_circuit(&self) -> Result<(), Rejection> {
        match &self.inner().circuit {
            Some(circuit) => circuit.check().map_err(Rejection::Circuit),
            None => Ok(()),
        }
    }

    /// Step 2 when no permit is available: joins the queue. `true`: the call has a permit already.
    pub(crate) fn enqueue(
        &mut self,
        class: CallClass,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> Result<bool, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        // The circuit is checked once more, after its version was read. If it opens from here on,
        // either the comparison under the lock of the queue or the opening itself, which rejects
        // all waiters, rejects this call.
        let seen = match &inner.circuit {
            Some(circuit) => {
                let seen = circuit.version();
                circuit.check().map_err(Rejection::Circuit)?;
                Some((circuit, seen))
            }
            None => None,
        };
        let rejects = || seen.is_some_and(|(circuit, seen)| circuit.opened_since(seen));
        let request = Request {
            priority: class.priority(),
            deadline,
            share: class.key_share(),
        };
        match inner
            .queue
            .enqueue(request, &mut self.claim, waker, rejects, || {
                inner.runtime.now()
            }) {
            Enqueue::Acquired => {
                self.held = Held::Permits(class);
                Ok(true)
            }
            Enqueue::Waiting(key) => {
                self.held = Held::Queued(key, class);
                Ok(false)
            }
            Enqueue::Full => Err(self.reject_full()),
            Enqueue::KeyFull => {
                self.inner().counters.count(Event::KeyQueueFull);
                Err(Rejection::KeyQueueFull)
            }
            Enqueue::Rejected(reason) => Err(self.reject_waiter(reason)),
        }
    }

    /// Leaves the queue because the deadline of the wait has passed.
    pub(crate) fn expire(&mut self, key: WaiterId) -> WaitResult {
        self.held = Held::Nothing(self.class());
        let inner = self.bulkhead.borrow().inner();
        inner.queue.expire(key, || inner.runtime.now())
    }

    /// Ends the wait: the call has a permit, or is rejected. Its key is no longer valid.
    pub(crate) fn end_wait(&mut self, waited: WaitResult) -> Result<(), Rejection> {
        let class = self.class();
        self.held = Held::Nothing(class);
        match waited {
            WaitResult::Granted => {
                self.held = Held::Permits(class);
                Ok(())
            }
            WaitResult::GrantedFewer(permits) => {
                self.claim = self.claim.with_permits(permits);
                self.held = Held::Permits(class);
                Ok(())
            }
            WaitResult::Rejected(reason) => Err(self.reject_waiter(reason)),
            WaitResult::Expired => Err(self.reject_timed_out()),
        }
    }

    /// Rejects a call whose permit was granted in time, but which was polled too late to run.
    ///
    /// `deadline` is that of the whole call.
    pub(crate) fn check_deadline(&mut self, deadline: Option<Instant>) -> Result<(), Rejection> {
        if deadline.is_some_and(|deadline| deadline <= self.inner().runtime.now()) {
            self.release_held();
            return Err(self.reject_timed_out());
        }
        Ok(())
    }

    /// Step 3 for a call with a permit: the circuit may have opened while it waited.
    pub(crate) fn admit(&mut self) -> Result<Admitted, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            // If it is rejected, dropping the guard releases the permit.
            Some(circuit) => Some(circuit.admit().map_err(Rejection::Circuit)?),
            None => None,
        };
        Ok(self.start(ticket))
    }

    /// Counts the start of the call. From now on the caller owns the admission.
    #[inline(always)]
    fn start(&mut self, ticket: Option<Ticket>) -> Admitted {
        let inner = self.bulkhead.borrow().inner();
        let admitted = Admitted { ticket };
        inner.counters.start();
        if self.observer.is_enabled() {
            // An observer reads the clock, which is code of the runtime and may panic. The guard
            // holds the admission meanwhile.
            self.held = Held::Admitted(admitted);
            self.observer.run(inner);
        }
        self.held = Held::Ended;
        admitted
    }

    /// Takes the admission out. It must be finished or restored.
    #[inline]
    pub(crate) fn take_admitted(&mut self) -> Option<Admitted> {
        let Held::Admitted(admitted) = self.held else {
            return None;
        };
        self.held = Held::Ended;
        Some(admitted)
    }

    /// Holds the admission until the next poll, or while code runs that may panic.
    #[inline]
    pub(crate) fn restore(&mut self, admitted: Admitted) {
        self.held = Held::Admitted(admitted);
    }

    /// Returns `true` if the end of the call needs more than its outcome: see
    /// [`Admitted::needs_duration`].
    #[inline]
    pub(crate) fn needs_duration(&self) -> bool {
        matches!(self.held, Held::Admitted(admitted) if admitted.needs_duration())
    }

    /// Steps 5 and 6: records the outcome and releases the permit.
    pub(crate) fn finish(&mut self, outcome: Outcome, end: End, ran: Option<Duration>) {
        if let Some(admitted) = self.take_admitted() {
            let inner = self.bulkhead.borrow().inner();
            if end == End::Panicked {
                inner.counters.count(Event::Panicked);
            }
            inner.finish(admitted, outcome, ran);
            self.observer.end(inner, end.observed(outcome));
        }
    }

    /// As [`finish`](Self::finish), for a call whose end needs more than its outcome.
    #[inline(never)]
    pub(crate) fn finish_timed(&mut self, outcome: Outcome, end: End, started: Option<Instant>) {
        let Held::Admitted(admitted) = self.held else {
            return;
        };
        let Some(mark) = admitted.mark() else {
            // The clock may panic. The guard holds the admission meanwhile.
            let ran = started.map(|started| {
                self.inner()
                    .runtime
                    .now()
                    .saturating_duration_since(started)
            });
            self.finish(outcome, end, ran);
            return;
        };
        self.held = Held::Ended;
        let inner = self.bulkhead.borrow().inner();
        if end == End::Panicked {
            inner.counters.count(Event::Panicked);
        }
        inner.finish_marked(admitted, mark, self.claim, outcome, end, started);
        self.observer.end(inner, end.observed(outcome));
    }

    /// As [`finish`](Self::finish), for work whose timeout was recorded before.
    pub(crate) fn finish_recorded(&mut self, outcome: Outcome) {
        let Held::Admitted(admitted) = &mut self.held else {
            return;
        };
        if admitted.mark().is_some() {
            self.finish_timed(outcome, End::Recorded, None);
        } else {
            admitted.ticket = None;
            self.finish(outcome, End::Recorded, None);
        }
    }

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
        if self.new_class().is_none() {
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
            Rejection::Full | Rejection::KeyQueueFull | Rejection::Evicted => {
                let limits = inner.queue.limits();
                R::from_rejection(BulkheadError::Full {
                    bulkhead: inner.name.clone(),
                    max_concurrent_calls: limits.permits,
                    max_queue_size: limits.queue_capacity,
                })
            }
            Rejection::WeightTooLarge(weight) => R::from_rejection(BulkheadError::WeightTooLarge {
                bulkhead: inner.name.clone(),
                weight,
                max: inner.max_weight(),
            }),
            Rejection::TimedOut => {
                let (queued, ran) = deadlines.elapsed(inner.runtime.now());
                let bulkhead = inner.name.clone();
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

    fn reject_shutdown(&self) -> Rejection {
        self.inner().counters.count(Event::Shutdown);
        Rejection::Shutdown
    }

    fn reject_timed_out(&self) -> Rejection {
        self.inner().counters.count(Event::TimedOutWaiting);
        Rejection::TimedOut
    }

    fn reject_waiter(&self, reason: QueueRejection) -> Rejection {
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

    fn release_held(&mut self) {
        let inner = self.bulkhead.borrow().inner();
        let claim = self.claim;
        match std::mem::replace(&mut self.held, Held::Ended) {
            Held::Nothing(_) | Held::Ended => {}
            Held::Queued(key, _) => {
                if inner.queue.cancel(key, claim, || inner.runtime.now()) {
                    inner.notify_if_drained();
                }
            }
            Held::Permits(_) => inner.release_claim(claim),
            // The circuit may read the clock, which may panic. A `Drop` must not.
            Held::Admitted(admitted) => drop(catch(|| inner.abandon(admitted, claim))),
        }
    }
}

impl CallGuard<&Bulkhead> {
    /// Converts to a guard that owns the bulkhead and holds `admitted`.
    pub(crate) fn into_owned(mut self, admitted: Admitted) -> CallGuard<Bulkhead> {
        let observer = std::mem::replace(&mut self.observer, Observer::new(0));
        CallGuard {
            bulkhead: self.bulkhead.clone(),
            held: Held::Admitted(admitted),
            claim: self.claim,
            observer,
        }
    }
}

impl CallGuard<Bulkhead> {
    pub(crate) const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// Returns the ticket, with which a timeout is recorded before the work has ended.
    pub(crate) const fn ticket(&self) -> Option<Ticket> {
        match self.held {
            Held::Admitted(admitted) => admitted.ticket,
            _ => None,
        }
    }
}

impl<H: Borrow<Bulkhead>> Drop for CallGuard<H> {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.held, Held::Ended | Held::Nothing(_)) {
            return;
        }
        if matches!(self.held, Held::Queued { .. }) {
            self.inner().counters.count(Event::CancelledWaiting);
        }
        self.release_held();
        if self.observer.is_enabled() {
            catch(|| {
                self.observer
                    .end(self.bulkhead.borrow().inner(), CallEnd::Cancelled)
            });
        }
    }
}
