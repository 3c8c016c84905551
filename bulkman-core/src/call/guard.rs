//! What one call holds, given back when it is dropped.

use std::borrow::Borrow;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::bulkhead::stats::Event;
use crate::bulkhead::{Bulkhead, Inner};
use crate::call::deadlines::Deadlines;
use crate::call::outcome::Outcome;
use crate::call::rejection::{Lack, Rejection};
use crate::circuit_breaker::Ticket;
use crate::error::{BulkheadError, TimeoutPhase};
use crate::observe::{CallEnd, Observer};
use crate::queue::{Enqueued, Key, Priority, QueueRejection, Take, Waited};
use crate::sync::unwind::contain;

/// A call's hold on its bulkhead: nothing yet, a place in the queue, a permit, or a permit and
/// an admission by the circuit.
///
/// Dropping it gives back whatever is held and counts the call as cancelled, so a future that is
/// dropped at any point loses nothing. `H` is a reference for calls that borrow, a clone for
/// those that own.
#[derive(Debug)]
pub(crate) struct CallGuard<H: Borrow<Bulkhead>> {
    bulkhead: H,
    held: Held,
    observer: Observer,
}

// As wide as a word: what is stored as a byte and loaded with what follows it stalls the load.
#[derive(Debug)]
#[repr(u64)]
enum Held {
    Nothing,
    Place(Key),
    Permit,
    Seat(Seat),
    Done,
}

/// A permit and an admission: what a running call holds.
///
/// Plain data, so that a call that is ready at once keeps it in registers; whoever has it must
/// [`finish`](Inner::finish) it once, or give it to a [`CallGuard`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// `None`: the circuit waits for no outcome (any more).
    pub(crate) ticket: Option<Ticket>,
}

impl Seat {
    /// Whether the circuit's rules need to know how long the operation takes.
    #[inline]
    pub(crate) fn needs_duration(self) -> bool {
        self.ticket.is_some_and(Ticket::needs_duration)
    }
}

impl<H: Borrow<Bulkhead>> CallGuard<H> {
    /// `report`: the number of the call's report, or zero.
    #[inline]
    pub(crate) const fn new(bulkhead: H, report: u64) -> Self {
        Self {
            bulkhead,
            held: Held::Nothing,
            observer: Observer::new(report),
        }
    }

    /// The call begins, for those who listen.
    #[inline]
    pub(crate) fn observe(&mut self) {
        self.observer.begin(self.bulkhead.borrow().inner());
    }

    pub(crate) const fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Steps 1 to 3 without waiting; `None`: the permit has to be waited for.
    #[inline(always)]
    pub(crate) fn enter(&mut self) -> Result<Option<Seat>, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            Some(circuit) => match circuit.try_admit_fast() {
                Some(ticket) => Some(ticket),
                None => return self.enter_watched(),
            },
            None => None,
        };
        match inner.queue.try_take() {
            Take::Taken => Ok(Some(self.sit(ticket))),
            Take::Wait => Ok(None),
            Take::Full => Err(self.reject_full()),
            Take::Closed => Err(self.reject_shutdown()),
        }
    }

    /// The call has a permit and an admission: it starts. The seat is the caller's.
    #[inline(always)]
    fn sit(&mut self, ticket: Option<Ticket>) -> Seat {
        let inner = self.bulkhead.borrow().inner();
        let seat = Seat { ticket };
        inner.counters.start();
        if self.observer.listens() {
            // Who listens reads the clock, which is the user's code: meanwhile the guard has the seat.
            self.held = Held::Seat(seat);
            self.observer.run(inner);
        }
        self.held = Held::Done;
        seat
    }

    /// As [`enter`](Self::enter), while the circuit is not closed: one step at a time.
    #[inline(never)]
    fn enter_watched(&mut self) -> Result<Option<Seat>, Rejection> {
        self.check_circuit()?;
        match self.inner().queue.try_take() {
            Take::Taken => {
                self.held = Held::Permit;
                self.admit().map(Some)
            }
            Take::Wait => Ok(None),
            Take::Full => Err(self.reject_full()),
            Take::Closed => Err(self.reject_shutdown()),
        }
    }

    fn check_circuit(&self) -> Result<(), Rejection> {
        match &self.inner().circuit {
            Some(circuit) => circuit.check().map_err(Rejection::Circuit),
            None => Ok(()),
        }
    }

    /// Step 2, in the queue: joins it, or looks whether the permit has come.
    pub(crate) fn poll_permit(
        &mut self,
        priority: Priority,
        deadlines: &mut Deadlines,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejection>> {
        let joins = self.is_new();
        if joins {
            if !deadlines.may_wait() {
                return Poll::Ready(Err(self.reject_full()));
            }
            let deadline = deadlines.queue();
            match self.enqueue(priority, deadline, cx.waker()) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(rejection) => return Poll::Ready(Err(rejection)),
            }
        }
        let Held::Place(key) = self.held else {
            panic!("polled after completion")
        };
        let inner = self.bulkhead.borrow().inner();
        // Who has just joined need not look: whatever becomes of it from here on wakes it.
        let seen = if joins {
            Poll::Pending
        } else {
            inner.queue.poll(key, cx.waker())
        };
        let waited = match seen {
            Poll::Ready(waited) => waited,
            Poll::Pending => {
                let Some(deadline) = deadlines.queue() else {
                    return Poll::Pending;
                };
                if deadlines.poll(deadline, &*inner.runtime, cx).is_pending() {
                    return Poll::Pending;
                }
                self.held = Held::Nothing;
                inner.queue.expire(key)
            }
        };
        Poll::Ready(self.end_wait(waited, deadlines))
    }

    /// Step 3: the circuit may have opened while the call waited. The seat is the caller's.
    pub(crate) fn admit(&mut self) -> Result<Seat, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        let ticket = match &inner.circuit {
            // Dropping the guard gives the permit back.
            Some(circuit) => Some(circuit.admit().map_err(Rejection::Circuit)?),
            None => None,
        };
        Ok(self.sit(ticket))
    }

    /// Takes the seat out, to be finished or put back.
    #[inline]
    pub(crate) fn take_seat(&mut self) -> Option<Seat> {
        let Held::Seat(seat) = self.held else {
            return None;
        };
        self.held = Held::Done;
        Some(seat)
    }

    /// Keeps the seat until the next poll.
    #[inline]
    pub(crate) fn put_back(&mut self, seat: Seat) {
        self.held = Held::Seat(seat);
    }

    /// Steps 5 and 6: tells the circuit and the statistics how it ended, gives the permit back.
    pub(crate) fn finish(&mut self, outcome: Outcome, ran: Option<Duration>) {
        self.end(outcome, ran, CallEnd::Ran(outcome));
    }

    /// As [`finish`](Self::finish), for an operation that was given up.
    pub(crate) fn finish_timed_out(&mut self, outcome: Outcome, ran: Option<Duration>) {
        self.end(outcome, ran, CallEnd::TimedOut);
    }

    /// As [`finish`](Self::finish) for work that timed out, and whose outcome the circuit was told
    /// then.
    pub(crate) fn finish_settled(&mut self, outcome: Outcome) {
        if let Held::Seat(seat) = &mut self.held {
            seat.ticket = None;
        }
        self.finish_timed_out(outcome, None);
    }

    /// As [`finish`](Self::finish), for an operation that panicked: a failure.
    pub(crate) fn finish_panicked(&mut self, ran: Option<Duration>) {
        self.inner().counters.count(Event::Panicked);
        self.end(Outcome::Failure, ran, CallEnd::Panicked);
    }

    fn end(&mut self, outcome: Outcome, ran: Option<Duration>, ending: CallEnd) {
        if let Some(seat) = self.take_seat() {
            let inner = self.bulkhead.borrow().inner();
            inner.finish(seat, outcome, ran);
            self.observer.end(inner, ending);
        }
    }

    /// Whether the circuit's rules need to know how long the operation takes.
    pub(crate) fn needs_duration(&self) -> bool {
        matches!(self.held, Held::Seat(seat) if seat.needs_duration())
    }

    pub(crate) const fn is_new(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Nothing is held and nothing more will be: the call was refused.
    ///
    /// Not cold: under overload this is what most calls come to. It makes the caller's whole
    /// result in the place where it stays, since copying an error costs more than counting the
    /// refusal.
    pub(crate) fn refuse<R: Refused>(&mut self, rejection: Rejection, deadlines: &Deadlines) -> R {
        if !self.is_new() {
            self.give_back();
        }
        self.held = Held::Done;
        let inner = self.bulkhead.borrow().inner();
        #[cfg(feature = "tracing")]
        crate::observe::refused(&self.observer, inner, rejection.reason());
        self.observer
            .end(inner, CallEnd::Refused(rejection.reason()));
        match rejection {
            Rejection::Circuit(denied) => R::of(BulkheadError::CircuitOpen {
                bulkhead: inner.name.clone(),
                reason: denied.reason,
                retry_after: denied.retry_after(),
            }),
            Rejection::Full => {
                let limits = inner.queue.limits();
                R::of(BulkheadError::Full {
                    bulkhead: inner.name.clone(),
                    max_concurrent_calls: limits.permits,
                    max_queue_size: limits.places,
                })
            }
            Rejection::TimedOut => {
                let (queued, ran) = deadlines.spent(inner.runtime.now());
                let bulkhead = inner.name.clone();
                R::of(BulkheadError::Timeout {
                    bulkhead,
                    phase: TimeoutPhase::Queued,
                    queued,
                    ran,
                })
            }
            Rejection::Shutdown => R::of(BulkheadError::Shutdown {
                bulkhead: inner.name.clone(),
            }),
            Rejection::Unsupported(&Lack { setting, needs }) => R::of(BulkheadError::Unsupported {
                bulkhead: inner.name.clone(),
                setting,
                needs,
            }),
        }
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        self.bulkhead.borrow().inner()
    }

    /// Step 2, on a thread of one's own: parks it until the permit comes. `waker` unparks it.
    pub(crate) fn wait_for_permit(
        &mut self,
        priority: Priority,
        deadlines: &Deadlines,
        waker: &Waker,
    ) -> Result<(), Rejection> {
        if !deadlines.may_wait() {
            return Err(self.reject_full());
        }
        let deadline = deadlines.queue();
        if self.enqueue(priority, deadline, waker)? {
            return Ok(());
        }
        let Held::Place(key) = self.held else {
            unreachable!("it waits")
        };
        let inner = self.bulkhead.borrow().inner();
        let waited = loop {
            if let Poll::Ready(waited) = inner.queue.poll(key, waker) {
                break waited;
            }
            if deadline.is_some_and(|deadline| deadline <= inner.runtime.now()) {
                break inner.queue.expire(key);
            }
            inner.runtime.park(deadline);
        };
        self.end_wait(waited, deadlines)
    }

    fn enqueue(
        &mut self,
        priority: Priority,
        deadline: Option<Instant>,
        waker: &Waker,
    ) -> Result<bool, Rejection> {
        let inner = self.bulkhead.borrow().inner();
        // The circuit is asked once more, so that what it says under the queue's lock can be
        // compared: if it opens from here on, either that look or the opening's sweep of the
        // queue refuses this call.
        let seen = match &inner.circuit {
            Some(circuit) => {
                let seen = circuit.version();
                circuit.check().map_err(Rejection::Circuit)?;
                Some((circuit, seen))
            }
            None => None,
        };
        let refuses = || seen.is_some_and(|(circuit, seen)| circuit.opened_since(seen));
        match inner
            .queue
            .enqueue(priority, deadline, waker, refuses, || inner.runtime.now())
        {
            Enqueued::Taken => {
                self.held = Held::Permit;
                Ok(true)
            }
            Enqueued::Waiting(key) => {
                self.held = Held::Place(key);
                Ok(false)
            }
            Enqueued::Full => Err(self.reject_full()),
            Enqueued::Refused(why) => Err(self.reject_all(why)),
        }
    }

    fn end_wait(&mut self, waited: Waited, deadlines: &Deadlines) -> Result<(), Rejection> {
        // The key is gone either way.
        self.held = Held::Nothing;
        match waited {
            Waited::Granted => self.held = Held::Permit,
            Waited::Refused(why) => return Err(self.reject_all(why)),
            Waited::Expired => return Err(self.reject_timed_out()),
        }
        // Granted in time, but looked at too late: what has no time left must not run.
        if deadlines
            .total()
            .is_some_and(|deadline| deadline <= self.inner().runtime.now())
        {
            self.give_back();
            return Err(self.reject_timed_out());
        }
        Ok(())
    }

    fn give_back(&mut self) {
        let inner = self.bulkhead.borrow().inner();
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing | Held::Done => {}
            Held::Place(key) => {
                if inner.queue.cancel(key, || inner.runtime.now()) {
                    inner.notify_if_drained();
                }
            }
            Held::Permit => inner.release(),
            // The circuit may ask the clock; a `Drop` must not panic for that.
            Held::Seat(seat) => drop(contain(|| inner.abandon(seat))),
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

    fn reject_all(&self, why: QueueRejection) -> Rejection {
        match (why, &self.inner().circuit) {
            (QueueRejection::Circuit, Some(circuit)) => Rejection::Circuit(circuit.reject_waiter()),
            _ => self.reject_shutdown(),
        }
    }
}

/// What a refused call returns: an error, in whatever its caller wraps it.
pub(crate) trait Refused {
    type Operation;
    fn of(error: BulkheadError<Self::Operation>) -> Self;
}

impl<T, E> Refused for Result<T, BulkheadError<E>> {
    type Operation = E;
    #[inline]
    fn of(error: BulkheadError<E>) -> Self {
        Err(error)
    }
}

impl<T, E> Refused for Poll<Result<T, BulkheadError<E>>> {
    type Operation = E;
    #[inline]
    fn of(error: BulkheadError<E>) -> Self {
        Self::Ready(Err(error))
    }
}

impl CallGuard<&Bulkhead> {
    /// The same call, in a guard that may outlive the borrow.
    pub(crate) fn into_owned(mut self, seat: Seat) -> CallGuard<Bulkhead> {
        let observer = std::mem::replace(&mut self.observer, Observer::new(0));
        CallGuard {
            bulkhead: self.bulkhead.clone(),
            held: Held::Seat(seat),
            observer,
        }
    }
}

impl CallGuard<Bulkhead> {
    pub(crate) const fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The admission, to tell the circuit an outcome before the work has ended.
    pub(crate) const fn ticket(&self) -> Option<Ticket> {
        match self.held {
            Held::Seat(seat) => seat.ticket,
            _ => None,
        }
    }
}

impl<H: Borrow<Bulkhead>> Drop for CallGuard<H> {
    #[inline]
    fn drop(&mut self) {
        if matches!(self.held, Held::Done | Held::Nothing) {
            return;
        }
        if matches!(self.held, Held::Place { .. }) {
            self.inner().counters.count(Event::CancelledWaiting);
        }
        self.give_back();
        if self.observer.listens() {
            contain(|| {
                self.observer
                    .end(self.bulkhead.borrow().inner(), CallEnd::Cancelled)
            });
        }
    }
}
