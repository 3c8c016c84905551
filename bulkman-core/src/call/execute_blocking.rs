//! Blocking work on the runtime's blocking pool.
//!
//! A thread can't be interrupted, so the permit belongs to the closure and not to the caller. It is
//! released when the closure has ended, even if the caller timed out or was dropped, so the limit
//! holds. Until a thread starts it, the closure belongs to the caller: if the caller ends before,
//! the closure never runs.

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
use crate::bulkhead::running::CallTags;
use crate::bulkhead::stats::Event;
use crate::call::admission::poll_admission;
use crate::call::classifier::Classifier;
use crate::call::deadlines::Deadlines;
use crate::call::guard::CallGuard;
use crate::call::options::CallOptions;
use crate::call::outcome::Outcome;
use crate::call::rejection::{MissingCapability, Rejection};
use crate::call::run::{OperationRun, needed_run, timed_out};
use crate::circuit_breaker::Ticket;
use crate::error::{BulkheadError, TimeoutPhase, note_rejection};
use crate::name::BulkheadName;
use crate::observe::{CallSpan, TracingContext};
use crate::sync::unwind::{catch, drop_catching};
use crate::sync::waker_set::wake_catching;
use crate::sync::{Mutex, lock};

/// The future of [`Bulkhead::execute_blocking`].
///
/// # Cancel safety
///
/// If it is dropped before a thread has started the closure, its place in the queue or its permit
/// is released and the closure never runs. If it is dropped later, the closure continues, keeps its
/// permit until it has ended, and its outcome is recorded.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("disk"), runtime.clone())?;
/// let dropped =
///     bulkhead.execute_blocking(|| -> Result<(), ()> { unreachable!("never polled") });
/// drop(dropped);
/// let read = bulkhead.execute_blocking(|| Ok::<_, std::io::Error>(512));
/// assert_eq!(runtime.block_on(read).unwrap(), 512);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct ExecuteBlocking<F, T, E, C> {
    state: State<F, T, E, C>,
    tags: CallTags,
}

enum State<F, T, E, C> {
    /// Steps 1 to 3.
    Admission {
        guard: CallGuard<Bulkhead>,
        operation: F,
        classifier: C,
        deadlines: Deadlines,
    },
    /// The job was passed to the runtime.
    Spawned(Spawned<T, E>),
    Done,
}

impl<F, T, E, C> ExecuteBlocking<F, T, E, C> {
    pub(crate) fn new(
        bulkhead: Bulkhead,
        operation: F,
        classifier: C,
        options: CallOptions,
    ) -> Self {
        Self {
            state: State::Admission {
                guard: CallGuard::new(bulkhead, &options),
                operation,
                classifier,
                deadlines: options.deadlines(),
            },
            tags: options.tags,
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
        if let State::Admission {
            guard, deadlines, ..
        } = &mut this.state
        {
            let inner = guard.inner();
            let admission = if !inner.capabilities.blocking {
                Err(Rejection::Unsupported(&MissingCapability::BLOCKING))
            } else if guard.has_not_begun() && !inner.runtime.is_running() {
                Err(Rejection::Unsupported(&MissingCapability::RUNNING))
            } else {
                ready!(poll_admission(guard, this.tags, deadlines, cx))
            };
            match admission {
                Ok(admitted) => guard.restore(admitted),
                Err(rejection) => {
                    let span = guard.observer().span();
                    let rejected = guard.reject(rejection, deadlines);
                    span.in_scope(|| this.state = State::Done);
                    return rejected;
                }
            }
            let State::Admission {
                guard,
                operation,
                classifier,
                deadlines,
            } = std::mem::replace(&mut this.state, State::Done)
            else {
                unreachable!("matched above")
            };
            this.state = State::Spawned(spawn(guard, operation, classifier, deadlines));
        }
        let State::Spawned(spawned) = &mut this.state else {
            panic!("`ExecuteBlocking` polled after completion")
        };
        let result = ready!(spawned.poll(cx));
        this.state = State::Done;
        Poll::Ready(result)
    }
}

impl<F, T, E, C> Drop for ExecuteBlocking<F, T, E, C> {
    fn drop(&mut self) {
        // What the closure logs when it is dropped belongs to the call.
        if let State::Admission { guard, .. } = &self.state {
            if guard.observer().is_enabled() {
                let span = guard.observer().span();
                span.in_scope(|| self.state = State::Done);
            }
        }
    }
}

impl<F, T, E, C> fmt::Debug for ExecuteBlocking<F, T, E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Admission { .. } => "admission",
            State::Spawned { .. } => "spawned",
            State::Done => "done",
        };
        f.debug_struct("ExecuteBlocking")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

/// Passes the closure to the runtime.
fn spawn<F, T, E, C>(
    guard: CallGuard<Bulkhead>,
    operation: F,
    classifier: C,
    deadlines: Deadlines,
) -> Spawned<T, E>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    C: Classifier<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (bulkhead, ticket) = (guard.bulkhead().clone(), guard.ticket());
    let runtime = Arc::clone(&guard.inner().runtime);
    let span = guard.observer().span();
    let shared = Arc::new(BlockingState::new(guard));
    let job = Job {
        shared: Arc::clone(&shared),
        bulkhead: bulkhead.name().clone(),
        times: deadlines.without_timer(),
    };
    let work = SpannedWork {
        work: Some((operation, classifier)),
        span,
        context: Some(TracingContext::capture()),
        job: Some(job),
    };
    runtime.spawn_blocking(Box::new(move || work.run()));
    Spawned {
        shared,
        bulkhead,
        ticket,
        deadlines,
    }
}

/// The caller's side of a job that was passed to the runtime.
struct Spawned<T, E> {
    shared: Arc<BlockingState<T, E>>,
    bulkhead: Bulkhead,
    /// Records a timeout at once. The job owns the admission.
    ticket: Option<Ticket>,
    deadlines: Deadlines,
}

impl<T, E> Spawned<T, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, BulkheadError<E>>> {
        if let Some(result) = self.shared.recv(cx.waker()) {
            return Poll::Ready(result);
        }
        let Some(deadline) = self.deadlines.run_deadline() else {
            return Poll::Pending;
        };
        let inner = self.bulkhead.inner();
        ready!(self.deadlines.poll(deadline, &*inner.runtime, cx));
        if let Some(mut guard) = self.shared.take_guard() {
            // No thread has started the closure, and none will. The dependency was not called.
            let (queued, unstarted) = self.deadlines.elapsed(inner.runtime.now());
            guard.finish_timed_out(Outcome::Ignored, None);
            note_rejection(true);
            return Poll::Ready(Err(BulkheadError::Timeout {
                bulkhead: inner.name.clone(),
                phase: TimeoutPhase::Queued,
                queued: queued + unstarted,
                ran: Duration::ZERO,
            }));
        }
        let (outcome, error) = timed_out(inner, &self.deadlines);
        if self.shared.try_record(outcome).is_err() {
            // The closure has ended in time and is being recorded. Its result follows at once.
            self.deadlines = Deadlines::Untracked;
            return match self.shared.recv(cx.waker()) {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            };
        }
        inner.counters.count(Event::TimedOutRunning);
        if let Some(ticket) = self.ticket {
            inner.record_early(ticket, outcome, self.deadlines.run_started());
        }
        Poll::Ready(Err(error))
    }
}

impl<T, E> Drop for Spawned<T, E> {
    fn drop(&mut self) {
        // If no thread has started the closure, none will.
        drop(self.shared.take_guard());
    }
}

/// The closure and its job, which run and are dropped within the span of the call.
struct SpannedWork<F, C, T, E> {
    work: Option<(F, C)>,
    span: CallSpan,
    context: Option<TracingContext>,
    job: Option<Job<T, E>>,
}

impl<F, C, T, E> SpannedWork<F, C, T, E>
where
    F: FnOnce() -> Result<T, E>,
    C: Classifier<T, E>,
{
    fn run(mut self) {
        let taken = (self.work.take(), self.context.take(), self.job.take());
        let (Some((operation, classifier)), Some(context), Some(job)) = taken else {
            unreachable!("taken once, here")
        };
        context.in_scope(|| self.span.in_scope(|| job.run(operation, &classifier)));
    }
}

impl<F, C, T, E> Drop for SpannedWork<F, C, T, E> {
    fn drop(&mut self) {
        // The runtime has dropped the closure without running it.
        if let Some(work) = self.work.take() {
            self.span.in_scope(|| drop(work));
        }
    }
}

/// The thread's side.
///
/// If the runtime drops it without running it, the caller receives an error.
struct Job<T, E> {
    shared: Arc<BlockingState<T, E>>,
    bulkhead: BulkheadName,
    times: Deadlines,
}

impl<T, E> Job<T, E> {
    fn run(self, operation: impl FnOnce() -> Result<T, E>, classifier: &impl Classifier<T, E>) {
        // Taken by a caller that timed out or was dropped before.
        let Some(mut guard) = self.shared.take_guard() else {
            return;
        };
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let circuit = guard.inner().circuit.as_ref();
            let probe = circuit.zip(guard.ticket());
            let _probe = probe.and_then(|(circuit, ticket)| circuit.enter_probe(ticket));
            let result = operation();
            (classifier.classify(&result), result)
        }));
        let panicked = ended.is_err();
        let (outcome, result) = match ended {
            Ok((outcome, result)) => (outcome, result.map_err(BulkheadError::Operation)),
            Err(panic) => {
                let error = self.panicked(&*panic);
                drop_catching(panic);
                (Outcome::Failure, Err(error))
            }
        };
        // The closure has run. The caller must receive its result even if a clock or an observer
        // panics now.
        let run = catch(|| needed_run(&guard, &self.times)).flatten();
        catch(|| self.record(&mut guard, outcome, panicked, run));
        drop_catching(guard);
        self.shared.send(result);
    }

    fn record(
        &self,
        guard: &mut CallGuard<Bulkhead>,
        outcome: Outcome,
        panicked: bool,
        run: Option<OperationRun>,
    ) {
        match self.shared.try_record(outcome) {
            Ok(()) if panicked => guard.finish_panicked(run),
            Ok(()) => guard.finish(outcome, run),
            // The caller's timeout was recorded before, so only the permit is released. A panic
            // after a timeout is returned to no caller, but it is counted.
            Err(earlier) if panicked => {
                guard.inner().counters.count(Event::Panicked);
                guard.finish_recorded(earlier);
            }
            Err(earlier) => guard.finish_recorded(earlier),
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
        // After `run`, which has taken the guard and sent a result, neither has an effect.
        drop(self.shared.take_guard());
        self.shared.send(Err(BulkheadError::Shutdown {
            bulkhead: self.bulkhead.clone(),
        }));
    }
}

/// What the caller and the thread share: the guard, the recorded outcome, and the result.
struct BlockingState<T, E> {
    /// Taken by whichever side runs first: the thread that starts the closure, or a caller that
    /// ends before.
    guard: Mutex<Option<CallGuard<Bulkhead>>>,
    /// The outcome that was recorded, plus one; zero if there is none yet. It is set by whichever
    /// side runs first: the closure that ends, or the timeout.
    recorded: AtomicU8,
    slot: Mutex<ResultSlot<T, E>>,
}

struct ResultSlot<T, E> {
    result: Option<Result<T, BulkheadError<E>>>,
    sent: bool,
    waker: Option<Waker>,
}

impl<T, E> BlockingState<T, E> {
    fn new(guard: CallGuard<Bulkhead>) -> Self {
        let slot = ResultSlot {
            result: None,
            sent: false,
            waker: None,
        };
        Self {
            guard: Mutex::new(Some(guard)),
            recorded: AtomicU8::new(0),
            slot: Mutex::new(slot),
        }
    }

    fn take_guard(&self) -> Option<CallGuard<Bulkhead>> {
        lock(&self.guard).take()
    }

    /// Acquires the right to record the outcome. `Err`: the outcome that was recorded before.
    fn try_record(&self, outcome: Outcome) -> Result<(), Outcome> {
        let recorded = 1 + match outcome {
            Outcome::Success => 0,
            Outcome::Failure => 1,
            Outcome::Ignored => 2,
            Outcome::Overloaded => 3,
        };
        match self
            .recorded
            .compare_exchange(0, recorded, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(1) => Err(Outcome::Success),
            Err(2) => Err(Outcome::Failure),
            Err(3) => Err(Outcome::Ignored),
            Err(_) => Err(Outcome::Overloaded),
        }
    }

    /// Sends the result to the caller, unless one was sent before.
    fn send(&self, result: Result<T, BulkheadError<E>>) {
        let (waker, unsent) = {
            let mut slot = lock(&self.slot);
            if std::mem::replace(&mut slot.sent, true) {
                (None, Some(result))
            } else {
                slot.result = Some(result);
                (slot.waker.take(), None)
            }
        };
        drop_catching(unsent);
        if let Some(waker) = waker {
            wake_catching(waker);
        }
    }

    /// Receives the result, or registers `waker` for it.
    fn recv(&self, waker: &Waker) -> Option<Result<T, BulkheadError<E>>> {
        // Cloned and dropped outside of the lock: both run code of the executor.
        let waker = waker.clone();
        let mut slot = lock(&self.slot);
        if let Some(result) = slot.result.take() {
            return Some(result);
        }
        let replaced = slot.waker.replace(waker);
        drop(slot);
        drop_catching(replaced);
        None
    }
}
