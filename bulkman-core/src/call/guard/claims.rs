//! Calls that ask for several permits or have a key.

use std::borrow::Borrow;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::{CallGuard, Held, check_circuit_before_enqueue};
use crate::bulkhead::Bulkhead;
use crate::bulkhead::running::CallTags;
use crate::bulkhead::stats::Event;
use crate::call::admission::start_run;
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::options::CallOptions;
use crate::call::rejection::Rejection;
use crate::queue::{Claim, Enqueue, Priority, Request, TryAcquire, WaitResult, WaiterId};
use crate::sync::unwind::catch;

impl Held {
    /// Returns what a new call holds.
    #[inline]
    pub(super) const fn new(options: &CallOptions) -> Self {
        if options.is_ordinary() {
            Self::Nothing
        } else {
            Self::NewClaim {
                claim: Claim::new(options.weight).with_key(options.key),
                weight: options.weight,
                share: options.key_share,
            }
        }
    }

    /// Returns the admission, while it is in the guard.
    pub(super) const fn admitted(&self) -> Option<Admitted> {
        match self {
            Self::Admitted(admitted) | Self::AdmittedClaim(admitted, _) => Some(*admitted),
            _ => None,
        }
    }

    /// Returns the admission, while it is in the guard, to be changed.
    pub(super) const fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        match self {
            Self::Admitted(admitted) | Self::AdmittedClaim(admitted, _) => Some(admitted),
            _ => None,
        }
    }
}

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    /// Returns `true` if nothing has happened yet.
    pub(crate) const fn has_not_begun(&self) -> bool {
        self.is_new() || self.is_new_claim()
    }

    pub(crate) const fn is_new_claim(&self) -> bool {
        matches!(self.held, Held::NewClaim { .. })
    }

    /// Returns the permits of the call: from its admission on, those that it holds or has held.
    pub(crate) const fn permits(&self) -> u32 {
        match self.held {
            Held::NewClaim { claim, .. }
            | Held::QueuedClaim(_, claim)
            | Held::Permits(claim)
            | Held::AdmittedClaim(_, claim)
            | Held::OutClaim(claim)
            | Held::EndedClaim(claim) => claim.permits(),
            _ => 1,
        }
    }

    /// Makes a new call one that asks for a claim: permits are shared between keys.
    pub(crate) fn ask_for_claim(&mut self) {
        if self.is_new() {
            self.held = Held::NewClaim {
                claim: Claim::ONE,
                weight: 1,
                share: 1,
            };
        }
    }

    /// Steps 1 to 3 of a new call, if nothing is in its way. `None`: nothing has happened, and
    /// [`try_admit_claim`](Self::try_admit_claim) decides.
    ///
    /// Not for a call that has limits of time or may carry a mark. `BOUNDED`: also where the
    /// permits of a key are bounded.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "it is most of the admission of a call"
    )]
    pub(crate) fn try_admit_claim_at_once<const BOUNDED: bool>(&mut self) -> Option<Admitted> {
        let Held::NewClaim { claim, weight, .. } = self.held else {
            return None;
        };
        let inner = self.bulkhead.borrow().inner();
        if weight > inner.max_weight() || self.observer.is_enabled() {
            return None;
        }
        let ticket = match &inner.circuit {
            Some(circuit) => Some(circuit.try_admit_fast()?),
            None => None,
        };
        let admitted = Admitted { ticket };
        if admitted.needs_duration() {
            return None;
        }
        let claim = inner.queue.try_acquire_claim_at_once::<BOUNDED>(
            claim,
            || inner.runtime.now(),
            |claim| inner.undo_acquisition(claim),
        )?;
        inner.counters.start();
        self.held = Held::OutClaim(claim);
        Some(admitted.with_claim())
    }

    /// Steps 1 to 3 of a new call without waiting. `None`: it has to wait.
    pub(crate) fn try_admit_claim(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        let Held::NewClaim {
            mut claim, weight, ..
        } = self.held
        else {
            unreachable!("the call is new");
        };
        let inner = self.bulkhead.borrow().inner();
        if weight > inner.max_weight() {
            return self.lack_weight(weight, tags, deadlines);
        }
        // As in `try_admit`: what most calls need, and then one step at a time.
        let ticket = match &inner.circuit {
            Some(circuit) => match circuit.try_admit_fast() {
                Some(ticket) => Some(ticket),
                None => return self.try_admit_claim_slow(tags, deadlines),
            },
            None => None,
        };
        match inner.queue.try_acquire_claim(
            &mut claim,
            || inner.runtime.now(),
            |claim| inner.undo_acquisition(claim),
        ) {
            TryAcquire::Acquired => {
                let admitted = self.start_claim(Admitted { ticket }, claim);
                let admitted = start_run(self, admitted, false, false, tags, deadlines);
                Ok(Some(admitted))
            }
            TryAcquire::MustWait => self.lack_permit(false, tags, deadlines),
            TryAcquire::Full => self.lack_permit(true, tags, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// As [`try_admit_claim`](Self::try_admit_claim), while the circuit is not closed or counts
    /// calls in flight.
    #[inline(never)]
    fn try_admit_claim_slow(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        self.check_circuit()?;
        let Held::NewClaim { mut claim, .. } = self.held else {
            unreachable!("the call is new");
        };
        let now = if self.counts_in_flight() {
            Some(self.evaluate_in_flight(deadlines)?)
        } else {
            None
        };
        let inner = self.bulkhead.borrow().inner();
        match inner.queue.try_acquire_claim(
            &mut claim,
            || inner.runtime.now(),
            |claim| inner.undo_acquisition(claim),
        ) {
            TryAcquire::Acquired => {
                self.held = Held::Permits(claim);
                self.admit_claim(now, false, tags, deadlines).map(Some)
            }
            TryAcquire::MustWait => self.lack_permit(false, tags, deadlines),
            TryAcquire::Full => self.lack_permit(true, tags, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// Rejects a call that can never run, whatever the state of the circuit. If limits are only
    /// observed, it runs all the same.
    fn lack_weight(
        &mut self,
        weight: u32,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        let observes = self.inner().driver().is_some_and(|it| it.observes());
        if observes {
            return self.lack_permit(true, tags, deadlines);
        }
        self.inner().counters.count(Event::WeightTooLarge);
        Err(Rejection::WeightTooLarge(weight))
    }

    /// Step 3 for a call with permits.
    pub(crate) fn admit_claim(
        &mut self,
        now: Option<Instant>,
        waited: bool,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Admitted, Rejection> {
        let Held::Permits(claim) = self.held else {
            unreachable!("the call has permits");
        };
        let circuit = &self.bulkhead.borrow().inner().circuit;
        let ticket = match circuit {
            // If it is rejected, dropping the guard releases the permits.
            Some(circuit) => Some(circuit.admit(now).map_err(Rejection::Circuit)?),
            None => None,
        };
        let admitted = self.start_claim(Admitted { ticket }, claim);
        self.enter_probe(admitted);
        Ok(start_run(self, admitted, waited, true, tags, deadlines))
    }

    /// Counts the start of a call that holds a claim. From now on the caller owns the admission.
    pub(super) fn start_claim(&mut self, admitted: Admitted, claim: Claim) -> Admitted {
        let admitted = admitted.with_claim();
        let inner = self.bulkhead.borrow().inner();
        inner.counters.start();
        if self.observer.is_enabled() {
            // As in `start`.
            self.held = Held::AdmittedClaim(admitted, claim);
            self.observer.run(inner);
        }
        self.held = Held::OutClaim(claim);
        admitted
    }

    /// Takes the admission of a call that holds a claim. It must be finished or restored.
    #[inline]
    pub(crate) fn take_admitted_claim(&mut self) -> Option<Admitted> {
        let Held::AdmittedClaim(admitted, claim) = self.held else {
            return None;
        };
        self.held = Held::OutClaim(claim);
        self.enter_probe(admitted);
        Some(admitted)
    }

    /// Ends a call. Returns the claim that it held.
    pub(super) fn end_claim(&mut self) -> Claim {
        let Held::OutClaim(claim) = self.held else {
            unreachable!("the admission is out of the guard");
        };
        self.held = Held::EndedClaim(claim);
        claim
    }

    /// Step 2 when permits are not available: joins the queue. `true`: the call has them already.
    pub(crate) fn enqueue_claim(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> Result<bool, Rejection> {
        let Held::NewClaim {
            mut claim, share, ..
        } = self.held
        else {
            unreachable!("the call is new");
        };
        let inner = self.bulkhead.borrow().inner();
        let seen = check_circuit_before_enqueue(inner)?;
        let rejects = || seen.is_some_and(|(circuit, seen)| circuit.opened_since(seen));
        let request = Request {
            priority,
            deadline,
            share,
        };
        match inner
            .queue
            .enqueue_claim(request, &mut claim, waker, rejects, || inner.runtime.now())
        {
            Enqueue::Acquired => {
                self.held = Held::Permits(claim);
                Ok(true)
            }
            Enqueue::Waiting(id) => {
                self.held = Held::QueuedClaim(id, claim);
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

    /// Step 2 of a call that must not wait: acquires its permits if it comes before those that do.
    pub(crate) fn acquire_as_next(&mut self, priority: Priority) -> Result<(), Rejection> {
        self.ask_for_claim();
        let Held::NewClaim {
            mut claim, share, ..
        } = self.held
        else {
            unreachable!("the call is new");
        };
        let request = Request {
            priority,
            deadline: None,
            share,
        };
        let inner = self.bulkhead.borrow().inner();
        let acquired = inner
            .queue
            .try_acquire_as_next(request, &mut claim, || inner.runtime.now());
        if !acquired {
            return Err(self.reject_full());
        }
        self.held = Held::Permits(claim);
        Ok(())
    }

    /// Polls the waiter of the call, while it is queued. `None`: it is not.
    pub(crate) fn poll_claim(&mut self, waker: &Waker) -> Option<Poll<WaitResult>> {
        let Held::QueuedClaim(id, claim) = &mut self.held else {
            return None;
        };
        let queue = &self.bulkhead.borrow().inner().queue;
        Some(queue.poll_claim(*id, claim, waker))
    }

    /// Returns the waiter of the call, while it is queued.
    pub(crate) const fn queued_claim(&self) -> Option<WaiterId> {
        match self.held {
            Held::QueuedClaim(id, _) => Some(id),
            _ => None,
        }
    }

    /// Leaves the queue because the deadline of the wait has passed.
    pub(crate) fn expire_claim(&mut self) -> WaitResult {
        let Held::QueuedClaim(id, claim) = &mut self.held else {
            unreachable!("the call is queued");
        };
        let inner = self.bulkhead.borrow().inner();
        inner.queue.expire_claim(*id, claim, || inner.runtime.now())
    }

    /// Ends the wait: the call has permits, or is rejected. Its waiter is no longer valid.
    pub(crate) fn end_claim_wait(&mut self, waited: WaitResult) -> Result<(), Rejection> {
        let Held::QueuedClaim(_, claim) = self.held else {
            unreachable!("the call was queued");
        };
        self.held = Held::Nothing;
        match waited {
            WaitResult::Granted => {
                self.held = Held::Permits(claim);
                Ok(())
            }
            WaitResult::Rejected(reason) => Err(self.reject_waiter(reason)),
            WaitResult::Expired => Err(self.reject_timed_out()),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn release_held_claim(&mut self) {
        let held = std::mem::replace(&mut self.held, Held::Nothing);
        let inner = self.bulkhead.borrow().inner();
        match held {
            Held::QueuedClaim(id, claim) => {
                inner.counters.count(Event::CancelledWaiting);
                if inner.queue.cancel_claim(id, claim, || inner.runtime.now()) {
                    inner.notify_if_drained();
                }
            }
            Held::Permits(claim) => inner.release_claim(claim),
            Held::AdmittedClaim(admitted, claim) => {
                let admitted = inner.running.end(admitted);
                catch(|| inner.abandon_claim(admitted, claim));
            }
            _ => {}
        }
    }
}
