//! What one call holds. It is released when the guard is dropped.

mod claims;
mod finish;
mod reject;

use std::borrow::Borrow;
use std::task::Waker;
use std::time::Instant;

use crate::adaptive::Mark;
use crate::bulkhead::running::CallTags;
use crate::bulkhead::stats::Event;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::admission::start_run;
use crate::call::admitted::Admitted;
use crate::call::deadlines::Deadlines;
use crate::call::options::CallOptions;
use crate::call::queue_timer::queue_timer;
use crate::call::rejection::Rejection;
use crate::circuit_breaker::{CircuitBreaker, Ticket};
use crate::observe::{CallEnd, Observer};
use crate::queue::{Claim, Enqueue, Priority, TryAcquire, WaitResult, WaiterId};
use crate::runtime::Sleep;
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
    observer: Observer,
}

/// Decides about a call that finds no permit: see [`CallGuard::try_admit`].
type Lack<H> =
    fn(&mut CallGuard<H>, bool, CallTags, &mut Deadlines) -> Result<Option<Admitted>, Rejection>;

// As wide as a word: a tag that is stored as a byte and loaded together with what follows it
// stalls the load.
#[derive(Debug)]
#[repr(u64)]
enum Held {
    // Those that need nothing when the guard is dropped come first: one comparison finds them.
    Nothing,
    Ended,
    /// The end of a call that held a claim.
    EndedClaim(Claim),
    Queued(WaiterId),
    Admitted(Admitted),
    Permit,
    // Calls that ask for several permits or have a key. Calls with one permit neither set nor test
    // these: they are what is left where a state is none of those above.
    NewClaim {
        claim: Claim,
        /// As the caller gave it.
        weight: u32,
        share: u32,
    },
    QueuedClaim(WaiterId, Claim),
    AdmittedClaim(Admitted, Claim),
    Permits(Claim),
    /// The admission is out of the guard.
    OutClaim(Claim),
}

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    #[inline]
    pub(crate) const fn new(bulkhead: H, options: &CallOptions) -> Self {
        Self {
            bulkhead,
            held: Held::new(options),
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

    pub(crate) const fn is_new(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Returns the key of the waiter, while the call is queued.
    pub(crate) const fn queue_key(&self) -> Option<WaiterId> {
        match self.held {
            Held::Queued(key) => Some(key),
            _ => None,
        }
    }

    /// Steps 1 to 3 without waiting. `None`: the call has to wait for a permit.
    ///
    /// `lack` decides about a call that finds no permit. Its second argument is `true` if the queue
    /// is full.
    #[inline(always)]
    pub(crate) fn try_admit(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
        lack: Lack<H>,
    ) -> Result<Option<Admitted>, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            Some(circuit) => match circuit.try_admit_fast() {
                Some(ticket) => Some(ticket),
                None => {
                    // Most calls end here while the circuit is open: they pass nothing on.
                    self.check_circuit()?;
                    return self.try_admit_slow(tags, deadlines, lack);
                }
            },
            None => None,
        };
        match inner.queue.try_acquire() {
            TryAcquire::Acquired => {
                let admitted = self.start(ticket);
                Ok(Some(start_run(
                    self, admitted, false, false, tags, deadlines,
                )))
            }
            TryAcquire::MustWait => lack(self, false, tags, deadlines),
            TryAcquire::Full => lack(self, true, tags, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// Steps 1 to 3 of a call that need not wait, where the limit adapts. A call that is a sample
    /// has the mark of one. `None`: nothing has happened.
    #[inline(always)]
    pub(crate) fn try_admit_by_count(&mut self) -> Option<Admitted> {
        let ticket = self.inner().try_start_by_count()?;
        self.held = Held::Ended;
        Some(Admitted {
            ticket: Some(ticket),
        })
    }

    /// As [`try_admit`](Self::try_admit), one step at a time, after the circuit was checked.
    ///
    /// Used while the circuit is not closed, and by circuits that count calls in flight.
    #[inline(never)]
    fn try_admit_slow(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
        lack: Lack<H>,
    ) -> Result<Option<Admitted>, Rejection> {
        let now = if self.counts_in_flight() {
            Some(self.evaluate_in_flight(deadlines)?)
        } else {
            None
        };
        match self.inner().queue.try_acquire() {
            TryAcquire::Acquired => {
                self.held = Held::Permit;
                self.admit_without_wait(now, tags, deadlines).map(Some)
            }
            TryAcquire::MustWait => lack(self, false, tags, deadlines),
            TryAcquire::Full => lack(self, true, tags, deadlines),
            TryAcquire::Closed => Err(self.reject_shutdown()),
        }
    }

    /// Decides about a call that finds no permit, where the limit adapts or is observed.
    ///
    /// If it is only observed, the call runs all the same.
    pub(crate) fn lack_permit(
        &mut self,
        is_full: bool,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Option<Admitted>, Rejection> {
        let runs = self.inner().driver().is_some_and(|driver| {
            driver.record_lack_of_permit();
            driver.observes()
        });
        if runs {
            self.admit_without_permit(tags, deadlines).map(Some)
        } else if is_full {
            Err(self.reject_full())
        } else {
            Ok(None)
        }
    }

    /// Step 3 for a call without a permit.
    fn admit_without_permit(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Admitted, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            Some(circuit) => Some(circuit.admit(None).map_err(Rejection::Circuit)?),
            None => None,
        };
        if !inner.start_without_permit(deadlines.may_wait()) {
            if let (Some(circuit), Some(ticket)) = (&inner.circuit, ticket) {
                circuit.cancel(ticket);
            }
            return Err(self.reject_shutdown());
        }
        let admitted = Admitted { ticket }.with_mark(Mark::UNCOUNTED.without_permit());
        let admitted = self.start_claim(admitted, Claim::new(0));
        self.enter_probe(admitted);
        Ok(start_run(self, admitted, false, true, tags, deadlines))
    }

    #[inline(never)]
    fn admit_without_wait(
        &mut self,
        now: Option<Instant>,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Admitted, Rejection> {
        self.admit(now, false, tags, deadlines)
    }

    fn counts_in_flight(&self) -> bool {
        let circuit = &self.inner().circuit;
        circuit
            .as_ref()
            .is_some_and(CircuitBreaker::counts_in_flight)
    }

    /// Evaluates the rules that count calls in flight, which may open the circuit.
    ///
    /// A call that waits or is rejected may be the only event while calls that hang hold all
    /// permits.
    #[inline(never)]
    fn evaluate_in_flight(&self, deadlines: &mut Deadlines) -> Result<Instant, Rejection> {
        let inner = self.inner();
        let now = deadlines.began(&*inner.runtime);
        if let Some(circuit) = &inner.circuit {
            if circuit.evaluate_in_flight(now) {
                self.check_circuit()?;
            }
        }
        Ok(now)
    }

    #[inline(never)]
    fn check_circuit(&self) -> Result<(), Rejection> {
        match &self.inner().circuit {
            Some(circuit) => circuit.check().map_err(Rejection::Circuit),
            None => Ok(()),
        }
    }

    /// Step 2 when no permit is available: joins the queue. `true`: the call has a permit already.
    pub(crate) fn enqueue(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> Result<bool, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let seen = check_circuit_before_enqueue(inner)?;
        // By value, so that both stay in registers.
        let rejects = move || seen.is_some_and(|(circuit, seen)| circuit.opened_since(seen));
        let now = move || inner.runtime.now();
        match inner.queue.enqueue(priority, deadline, waker, rejects, now) {
            Enqueue::Acquired => {
                self.held = Held::Permit;
                Ok(true)
            }
            Enqueue::Waiting(key) => {
                self.held = Held::Queued(key);
                Ok(false)
            }
            // A call without a key is not rejected for one.
            Enqueue::Full | Enqueue::KeyFull => Err(self.reject_full()),
            Enqueue::Rejected(reason) => Err(self.reject_waiter(reason)),
        }
    }

    /// Creates the timer of a call that waits.
    pub(crate) fn queue_timer(&self, key: WaiterId, deadline: Instant) -> Sleep {
        queue_timer(self.bulkhead.borrow(), key, deadline)
    }

    /// Leaves the queue because the deadline of the wait has passed.
    pub(crate) fn expire(&mut self, key: WaiterId) -> WaitResult {
        self.held = Held::Nothing;
        self.bulkhead.borrow().inner().queue.expire(key)
    }

    /// Ends the wait: the call has a permit, or is rejected. Its key is no longer valid.
    pub(crate) fn end_wait(&mut self, waited: WaitResult) -> Result<(), Rejection> {
        self.held = Held::Nothing;
        match waited {
            WaitResult::Granted => {
                self.held = Held::Permit;
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

    /// Step 3 for a call with a permit that has waited: the circuit may have opened meanwhile.
    #[inline(always)]
    pub(crate) fn admit_after_wait(
        &mut self,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Admitted, Rejection> {
        self.admit(None, true, tags, deadlines)
    }

    #[inline(always)]
    fn admit(
        &mut self,
        now: Option<Instant>,
        waited: bool,
        tags: CallTags,
        deadlines: &mut Deadlines,
    ) -> Result<Admitted, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            // If it is rejected, dropping the guard releases the permit.
            Some(circuit) => Some(circuit.admit(now).map_err(Rejection::Circuit)?),
            None => None,
        };
        let admitted = self.start(ticket);
        self.enter_probe(admitted);
        Ok(start_run(self, admitted, waited, true, tags, deadlines))
    }

    /// Counts the start of the call. From now on the caller owns the admission.
    ///
    /// While the admission of a probe is out of the guard, the thread runs the code of the call:
    /// see [`ProbeScope`](crate::circuit_breaker::ProbeScope).
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
        self.enter_probe(admitted);
        Some(admitted)
    }

    /// The thread now runs code of the call, until its admission is restored or ends.
    #[inline]
    fn enter_probe(&self, admitted: Admitted) {
        if admitted.is_probe() {
            self.inner().enter_probe(admitted.ticket);
        }
    }

    /// As [`take_admitted`](Self::take_admitted), also for a call that holds a claim.
    #[inline]
    pub(crate) fn take_admission(&mut self) -> Option<Admitted> {
        match self.take_admitted() {
            None => self.take_admitted_claim(),
            admitted => admitted,
        }
    }

    /// Holds the admission until the next poll, or while code runs that may panic.
    #[inline]
    pub(crate) fn restore(&mut self, admitted: Admitted) {
        if admitted.is_probe_or_claim() {
            self.restore_probe_or_claim(admitted);
        } else {
            self.held = Held::Admitted(admitted);
        }
    }

    #[cold]
    #[inline(never)]
    fn restore_probe_or_claim(&mut self, admitted: Admitted) {
        self.held = match self.held {
            Held::OutClaim(claim) => Held::AdmittedClaim(admitted, claim),
            _ => Held::Admitted(admitted),
        };
        if admitted.is_probe() {
            self.inner().leave_probe(admitted.ticket);
        }
    }

    fn release_held(&mut self) {
        let inner = self.bulkhead.borrow().inner();
        match self.held {
            Held::Nothing | Held::Ended | Held::EndedClaim(_) => {}
            Held::Queued(key) => {
                self.held = Held::Nothing;
                if inner.queue.cancel(key, || inner.runtime.now()) {
                    inner.notify_if_drained();
                }
            }
            Held::Permit => {
                self.held = Held::Nothing;
                inner.release();
            }
            // The circuit may read the clock, which may panic. A `Drop` must not.
            Held::Admitted(admitted) => {
                self.held = Held::Nothing;
                let admitted = inner.running.end(admitted);
                catch(|| inner.abandon(admitted));
            }
            _ => self.release_held_claim(),
        }
    }
}

impl CallGuard<&Bulkhead> {
    /// Converts to a guard that owns the bulkhead and holds `admitted`.
    pub(crate) fn into_owned(mut self, admitted: Admitted) -> CallGuard<Bulkhead> {
        self.restore(admitted);
        let held = std::mem::replace(&mut self.held, Held::Ended);
        let observer = std::mem::replace(&mut self.observer, Observer::new(0));
        CallGuard {
            bulkhead: self.bulkhead.clone(),
            held,
            observer,
        }
    }
}

impl CallGuard<Bulkhead> {
    pub(crate) const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// Returns the ticket, with which a timeout is recorded before the work has ended.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        let admitted = self.held.admitted()?;
        self.inner().running.original(admitted).ticket
    }
}

impl<H: Borrow<Bulkhead>> Drop for CallGuard<H> {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.held, Held::Nothing | Held::Ended | Held::EndedClaim(_)) {
            return;
        }
        if matches!(self.held, Held::Queued(_)) {
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

/// Checks the circuit once more before a call joins the queue. Returns it with its version, which
/// was read before.
///
/// If it opens from here on, either the comparison under the lock of the queue or the opening
/// itself, which rejects all waiters, rejects the call.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "it is a part of two functions that are not inlined"
)]
fn check_circuit_before_enqueue(
    inner: &Inner,
) -> Result<Option<(&CircuitBreaker, u64)>, Rejection> {
    let Some(circuit) = &inner.circuit else {
        return Ok(None);
    };
    let seen = circuit.version();
    circuit.check().map_err(Rejection::Circuit)?;
    Ok(Some((circuit, seen)))
}
