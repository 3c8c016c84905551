//! Synchronous work off the executor.
//!
//! A thread can't be interrupted, so the permit belongs to the closure and not to the caller: it
//! is free when the closure has really ended, also when the caller has timed out or gone. The
//! limit never lies. Until a thread begins with it, the closure is the caller's: one that nobody
//! waits for any more never runs.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::bulkhead::Bulkhead;
use crate::bulkhead::stats::Event;
use crate::call::CallOptions;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::execute::{duration, poll_admission, timed_out};
use crate::call::guard::CallGuard;
use crate::call::outcome::Outcome;
use crate::call::rejection::{Lack, Rejection};
use crate::circuit_breaker::Ticket;
use crate::error::{BulkheadError, TimeoutPhase};
use crate::name::BulkheadName;
use crate::queue::Priority;
use crate::sync::unwind::{contain, discard};
use crate::sync::waker_set::wake;
use crate::sync::{Mutex, lock};

/// The future of [`Bulkhead::execute_blocking`].
///
/// # Cancel safety
///
/// Dropped before the closure has begun, also while the runtime has no thread for it, it gives
/// back its place or permit and the closure never runs. Dropped later, the closure runs on, keeps
/// its permit until it has ended, and its outcome is recorded.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use bulkman::testing::ManualRuntime;
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("disk"), runtime.clone())?;
/// let dropped = bulkhead.execute_blocking(|| -> Result<(), ()> { unreachable!("it was never polled") });
/// drop(dropped);
/// let read = bulkhead.execute_blocking(|| Ok::<_, std::io::Error>(512));
/// assert_eq!(runtime.block_on(read).unwrap(), 512);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ExecuteBlocking<F, T, E, C> {
    stage: Stage<F, T, E, C>,
    priority: Priority,
}

enum Stage<F, T, E, C> {
    Entering {
        guard: CallGuard<Bulkhead>,
        operation: F,
        classifier: C,
        deadlines: Deadlines,
    },
    Running(Running<T, E>),
    Ended,
}

struct Running<T, E> {
    desk: Arc<Desk<T, E>>,
    bulkhead: Bulkhead,
    /// The job owns the seat; this is for recording a timeout at once.
    ticket: Option<Ticket>,
    deadlines: Deadlines,
}

impl<F, T, E, C> ExecuteBlocking<F, T, E, C> {
    pub(crate) fn new(
        bulkhead: Bulkhead,
        operation: F,
        classifier: C,
        options: CallOptions,
    ) -> Self {
        let (guard, deadlines) = (
            CallGuard::new(bulkhead, options.report),
            options.deadlines(),
        );
        Self {
            stage: Stage::Entering {
                guard,
                operation,
                classifier,
                deadlines,
            },
            priority: options.priority,
        }
    }
}

// Nothing in it is pinned in place: closures and guards may move between polls.
impl<F, T, E, C> Unpin for ExecuteBlocking<F, T, E, C> {}

impl<F, T, E, C> Future for ExecuteBlocking<F, T, E, C>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    C: Classifier<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, BulkheadError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Stage::Entering {
            guard, deadlines, ..
        } = &mut this.stage
        {
            let admitted = if guard.inner().capabilities.tasks {
                ready!(poll_admission(guard, this.priority, deadlines, cx))
            } else {
                Err(Rejection::Unsupported(&Lack::BLOCKING))
            };
            match admitted {
                Ok(seat) => guard.put_back(seat),
                Err(rejection) => {
                    let refused = guard.refuse(rejection, deadlines);
                    this.stage = Stage::Ended;
                    return refused;
                }
            }
            let Stage::Entering {
                guard,
                operation,
                classifier,
                deadlines,
            } = std::mem::replace(&mut this.stage, Stage::Ended)
            else {
                unreachable!("matched above")
            };
            this.stage = Stage::Running(start(guard, operation, classifier, deadlines));
        }
        let Stage::Running(running) = &mut this.stage else {
            panic!("`ExecuteBlocking` polled after completion")
        };
        let result = ready!(running.poll(cx));
        this.stage = Stage::Ended;
        Poll::Ready(result)
    }
}

impl<T, E> Running<T, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, BulkheadError<E>>> {
        if let Some(result) = self.desk.collect(cx.waker()) {
            return Poll::Ready(result);
        }
        let Some(deadline) = self.deadlines.run_until() else {
            return Poll::Pending;
        };
        let inner = self.bulkhead.inner();
        ready!(self.deadlines.poll(deadline, &*inner.runtime, cx));
        if let Some(mut guard) = self.desk.take_guard() {
            // No thread has begun with it, and none will: that says nothing of the dependency.
            let (waited, for_a_thread) = self.deadlines.spent(inner.runtime.now());
            guard.finish_timed_out(Outcome::Ignored, None);
            return Poll::Ready(Err(BulkheadError::Timeout {
                bulkhead: inner.name.clone(),
                phase: TimeoutPhase::Queued,
                queued: waited + for_a_thread,
                ran: Duration::ZERO,
            }));
        }
        let (outcome, error) = timed_out(inner, &self.deadlines);
        if self.desk.claim(outcome).is_err() {
            // It has ended in time after all, and is being recorded; the result comes at once.
            self.deadlines = Deadlines::Unkept;
            return match self.desk.collect(cx.waker()) {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            };
        }
        inner.counters.count(Event::TimedOutRunning);
        if let (Some(circuit), Some(ticket)) = (&inner.circuit, self.ticket) {
            circuit.record(ticket, outcome, self.deadlines.ran(&*inner.runtime));
        }
        Poll::Ready(Err(error))
    }
}

impl<T, E> Drop for Running<T, E> {
    fn drop(&mut self) {
        // The caller has gone; if no thread has begun with the closure, none will.
        drop(self.desk.take_guard());
    }
}

fn start<F, T, E, C>(
    guard: CallGuard<Bulkhead>,
    operation: F,
    classifier: C,
    deadlines: Deadlines,
) -> Running<T, E>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    C: Classifier<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (bulkhead, ticket) = (guard.bulkhead().clone(), guard.ticket());
    let runtime = Arc::clone(&guard.inner().runtime);
    let desk = Arc::new(Desk::new(guard));
    let job = Job {
        desk: Arc::clone(&desk),
        bulkhead: bulkhead.name().clone(),
        times: deadlines.without_timer(),
    };
    let span = crate::observe::span::Current::capture();
    runtime.spawn_blocking(Box::new(move || {
        span.within(|| job.run(operation, &classifier))
    }));
    Running {
        desk,
        bulkhead,
        ticket,
        deadlines,
    }
}

/// The closure's side. Dropped without having run (a runtime that dies), it says so.
struct Job<T, E> {
    desk: Arc<Desk<T, E>>,
    bulkhead: BulkheadName,
    times: Deadlines,
}

impl<T, E> Job<T, E> {
    fn run(self, operation: impl FnOnce() -> Result<T, E>, classifier: &impl Classifier<T, E>) {
        // Gone with a caller that did not wait so long.
        let Some(mut guard) = self.desk.take_guard() else {
            return;
        };
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let _span = guard.observer().enter();
            let result = operation();
            (classifier.classify(&result), result)
        }));
        let panicked = ended.is_err();
        let (outcome, result) = match ended {
            Ok((outcome, result)) => (outcome, result.map_err(BulkheadError::Operation)),
            Err(panic) => {
                let error = self.panicked(&*panic);
                discard(panic);
                (Outcome::Failure, Err(error))
            }
        };
        // It has run, and whatever a clock or a listener does now, its caller must hear so.
        let ran = contain(|| duration(&guard, &self.times)).flatten();
        contain(|| self.record(&mut guard, outcome, panicked, ran));
        discard(guard);
        self.desk.deliver(result);
    }

    fn record(
        &self,
        guard: &mut CallGuard<Bulkhead>,
        outcome: Outcome,
        panicked: bool,
        ran: Option<Duration>,
    ) {
        match self.desk.claim(outcome) {
            Ok(()) if panicked => guard.finish_panicked(ran),
            Ok(()) => guard.finish(outcome, ran),
            // The caller's timeout was recorded long ago; only the permit is still to be freed. A
            // panic after it reaches nobody, but is counted.
            Err(earlier) if panicked => {
                guard.inner().counters.count(Event::Panicked);
                guard.finish_settled(earlier);
            }
            Err(earlier) => guard.finish_settled(earlier),
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> BulkheadError<E> {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("(no message)").into();
        BulkheadError::Panicked {
            bulkhead: self.bulkhead.clone(),
            message,
        }
    }
}

impl<T, E> Drop for Job<T, E> {
    fn drop(&mut self) {
        // Neither does anything after `run`, which has taken the guard and delivered.
        drop(self.desk.take_guard());
        self.desk.deliver(Err(BulkheadError::Shutdown {
            bulkhead: self.bulkhead.clone(),
        }));
    }
}

/// Where the result changes hands, and the call's guard before that.
struct Desk<T, E> {
    /// Taken by who comes first: the thread that begins with the closure, or a caller that gives
    /// up before.
    guard: Mutex<Option<CallGuard<Bulkhead>>>,
    /// Who recorded the outcome, and which: whoever comes first, the closure or the timeout.
    verdict: AtomicU8,
    slot: Mutex<Slot<T, E>>,
}

struct Slot<T, E> {
    result: Option<Result<T, BulkheadError<E>>>,
    delivered: bool,
    waker: Option<Waker>,
}

impl<T, E> Desk<T, E> {
    fn new(guard: CallGuard<Bulkhead>) -> Self {
        let slot = Slot {
            result: None,
            delivered: false,
            waker: None,
        };
        Self {
            guard: Mutex::new(Some(guard)),
            verdict: AtomicU8::new(0),
            slot: Mutex::new(slot),
        }
    }

    fn take_guard(&self) -> Option<CallGuard<Bulkhead>> {
        lock(&self.guard).take()
    }

    /// Claims the right to tell the circuit; `Err`: what was told already.
    fn claim(&self, outcome: Outcome) -> Result<(), Outcome> {
        let claim = 1 + outcome as u8;
        match self
            .verdict
            .compare_exchange(0, claim, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(1) => Err(Outcome::Success),
            Err(2) => Err(Outcome::Failure),
            Err(_) => Err(Outcome::Ignored),
        }
    }

    /// The first delivery counts.
    fn deliver(&self, result: Result<T, BulkheadError<E>>) {
        let (waker, unwanted) = {
            let mut slot = lock(&self.slot);
            if std::mem::replace(&mut slot.delivered, true) {
                (None, Some(result))
            } else {
                slot.result = Some(result);
                (slot.waker.take(), None)
            }
        };
        discard(unwanted);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    fn collect(&self, waker: &Waker) -> Option<Result<T, BulkheadError<E>>> {
        // Cloned and dropped outside the lock: both are the executor's code.
        let waker = waker.clone();
        let mut slot = lock(&self.slot);
        if let Some(result) = slot.result.take() {
            return Some(result);
        }
        let replaced = slot.waker.replace(waker);
        drop(slot);
        discard(replaced);
        None
    }
}

impl<F, T, E, C> fmt::Debug for ExecuteBlocking<F, T, E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Entering { .. } => "entering",
            Stage::Running { .. } => "running",
            Stage::Ended => "ended",
        };
        f.debug_struct("ExecuteBlocking")
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}
