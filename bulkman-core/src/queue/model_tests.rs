//! The queue, compared to a plain model after each operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::runtime::{ClockOnly, Runtime};

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Atomic::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A call that may wait.
    Enqueue(Request),
    /// A call that does not wait.
    Try {
        permits: u32,
    },
    /// A running call ends.
    End(usize),
    /// A waiter, or a granted call that was not polled yet, is dropped.
    Cancel(usize),
    Advance(u8),
    Resize {
        permits: usize,
        capacity: usize,
        max_weight: Option<u32>,
        lifo: bool,
    },
    RejectAll,
}

#[derive(Clone, Debug)]
struct Request {
    priority: u8,
    deadline: Option<u8>,
    permits: u32,
}

fn op() -> impl Strategy<Value = Op> {
    let permits = || prop_oneof![4 => Just(1_u32), 3 => 2..7_u32];
    prop_oneof![
        10 => (0..3_u8, proptest::option::weighted(0.3, 0..20_u8), permits())
            .prop_map(|(priority, deadline, permits)| Op::Enqueue(Request { priority, deadline, permits })),
        3 => permits().prop_map(|permits| Op::Try { permits }),
        9 => any::<usize>().prop_map(Op::End),
        4 => any::<usize>().prop_map(Op::Cancel),
        3 => (1..10_u8).prop_map(Op::Advance),
        2 => (0..8_usize, 0..12_usize, proptest::option::of(1..20_u32), any::<bool>())
            .prop_map(|(permits, capacity, max_weight, lifo)| Op::Resize { permits, capacity, max_weight, lifo }),
        1 => Just(Op::RejectAll),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    /// Its permits.
    Granted(u32),
    Rejected,
    Expired,
}

struct Waiter {
    request: Request,
    deadline: Option<u64>,
    state: State,
}

/// All waiters that ever were, in the order of arrival, and the number of permits in use.
struct Model {
    permits: usize,
    settings: QueueSettings,
    in_use: usize,
    now: u64,
    waiters: Vec<Waiter>,
}

impl Model {
    fn waiting(&self) -> impl DoubleEndedIterator<Item = (usize, &Waiter)> {
        let waiters = self.waiters.iter().enumerate();
        waiters.filter(|(_, waiter)| waiter.state == State::Waiting)
    }

    fn available(&self) -> usize {
        self.permits.saturating_sub(self.in_use)
    }

    /// Returns how many permits a call is granted now that is next: zero if it has to wait.
    fn grant(&self, permits: u32) -> u32 {
        let granted = permits.min(self.permits as u32);
        if granted as usize <= self.available() {
            granted
        } else {
            0
        }
    }

    fn next(&self) -> Option<usize> {
        let priority = self
            .waiting()
            .map(|(_, waiter)| waiter.request.priority)
            .max()?;
        let mut candidates = self
            .waiting()
            .filter(|(_, waiter)| waiter.request.priority == priority)
            .map(|(index, _)| index);
        match self.settings.order {
            QueueOrder::Fifo => candidates.next(),
            QueueOrder::Lifo => candidates.next_back(),
        }
    }

    fn assign(&mut self) {
        while let Some(next) = self.next() {
            let waiter = &self.waiters[next];
            if waiter.deadline.is_some_and(|deadline| deadline <= self.now) {
                self.waiters[next].state = State::Expired;
                continue;
            }
            let granted = self.grant(waiter.request.permits);
            if granted == 0 {
                return;
            }
            self.in_use += granted as usize;
            self.waiters[next].state = State::Granted(granted);
        }
    }

    fn try_acquire(&mut self, permits: u32) -> Option<u32> {
        let granted = if self.waiting().next().is_none() {
            self.grant(permits)
        } else {
            0
        };
        self.in_use += granted as usize;
        (granted > 0).then_some(granted)
    }

    fn is_full(&self, permits: u32) -> bool {
        let queued: u32 = self
            .waiting()
            .map(|(_, waiter)| waiter.request.permits)
            .sum();
        self.waiting().count() >= self.settings.capacity
            || self
                .settings
                .max_weight
                .is_some_and(|max| queued + permits > max)
    }
}

/// The queue under test, and what its callers hold.
struct Callers {
    queue: WaitQueue,
    base: Instant,
    /// The claims of running calls.
    running: Vec<Claim>,
    /// The waiters that are neither running nor gone, by their index in the model.
    waiters: Vec<(usize, WaiterId, Claim, Arc<CountingWaker>)>,
}

fn class(priority: u8) -> Priority {
    [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)]
}

proptest! {
    #[test]
    fn queue_matches_the_model(ops in proptest::collection::vec(op(), 1..120), timers in any::<bool>()) {
        run(&ops, timers)?;
    }
}

/// `timers`: a waiter leaves as soon as its deadline has passed. Otherwise it is skipped when it is
/// next, and counts until then; so the queue is not bounded.
fn run(ops: &[Op], timers: bool) -> Result<(), TestCaseError> {
    let settings = QueueSettings::of_capacity(if timers { 6 } else { 1000 }, QueueOrder::Fifo);
    let mut model = Model {
        permits: 4,
        settings,
        in_use: 0,
        now: 0,
        waiters: Vec::new(),
    };
    let mut callers = Callers {
        queue: WaitQueue::new(4, settings),
        base: ClockOnly.now(),
        running: Vec::new(),
        waiters: Vec::new(),
    };
    for op in ops {
        apply(op, timers, &mut model, &mut callers)?;
        compare(&model, &mut callers)?;
    }
    // At rest, nothing is held and every permit is available.
    for claim in std::mem::take(&mut callers.running) {
        callers.queue.release_claim(claim, || callers.base);
    }
    callers
        .queue
        .reject_all(QueueRejection::CircuitOpened, || callers.base);
    let mut granted = Vec::new();
    for (_, id, claim, woken) in callers.waiters.drain(..) {
        match callers.queue.poll(id, &Waker::from(woken)) {
            Poll::Ready(WaitResult::Granted) => granted.push(claim),
            Poll::Ready(WaitResult::GrantedFewer(permits)) => {
                granted.push(claim.with_permits(permits))
            }
            Poll::Ready(_) => {}
            Poll::Pending => prop_assert!(false, "rejected waiters are decided"),
        }
    }
    for claim in granted {
        callers.queue.release_claim(claim, || callers.base);
    }
    prop_assert_eq!((callers.queue.in_use(), callers.queue.waiting()), (0, 0));
    if model.permits > 0 {
        let mut all = Claim::new(model.permits as u32);
        prop_assert_eq!(
            callers.queue.try_acquire_claim(&mut all),
            TryAcquire::Acquired
        );
    }
    Ok(())
}

fn apply(
    op: &Op,
    timers: bool,
    model: &mut Model,
    callers: &mut Callers,
) -> Result<(), TestCaseError> {
    let Callers {
        queue,
        base,
        running,
        waiters,
    } = callers;
    let at = |tick: u64| *base + Duration::from_millis(tick);
    let now = at(model.now);
    match *op {
        Op::Enqueue(ref request) => {
            // With timers, no waiter is queued that has to leave at once.
            let after = request
                .deadline
                .map(|after| if timers { after.max(1) } else { after });
            let deadline = after.map(|after| model.now + u64::from(after));
            let mut claim = Claim::new(request.permits);
            let woken = Arc::<CountingWaker>::default();
            let result = queue.enqueue(
                class(request.priority),
                deadline.map(at),
                &mut claim,
                &Waker::from(Arc::clone(&woken)),
                || false,
                || now,
            );
            if let Some(granted) = model.try_acquire(request.permits) {
                prop_assert_eq!((result, claim.permits()), (Enqueue::Acquired, granted));
                running.push(claim);
            } else if model.is_full(request.permits) {
                prop_assert_eq!(result, Enqueue::Full);
            } else {
                let Enqueue::Waiting(id) = result else {
                    return Err(TestCaseError::fail(format!(
                        "{result:?} instead of waiting"
                    )));
                };
                waiters.push((model.waiters.len(), id, claim, woken));
                model.waiters.push(Waiter {
                    request: request.clone(),
                    deadline,
                    state: State::Waiting,
                });
                model.assign();
            }
        }
        Op::Try { permits } => {
            let mut claim = Claim::new(permits);
            let result = queue.try_acquire_claim(&mut claim);
            match model.try_acquire(permits) {
                Some(granted) => {
                    prop_assert_eq!((result, claim.permits()), (TryAcquire::Acquired, granted));
                    running.push(claim);
                }
                None => prop_assert!(matches!(result, TryAcquire::MustWait | TryAcquire::Full)),
            }
        }
        Op::End(index) if !running.is_empty() => {
            let claim = running.swap_remove(index % running.len());
            queue.release_claim(claim, || now);
            model.in_use -= claim.permits() as usize;
            model.assign();
        }
        Op::Cancel(index) if !waiters.is_empty() => {
            let (index, id, claim, _) = waiters.swap_remove(index % waiters.len());
            queue.cancel(id, claim, || now);
            if let State::Granted(permits) = model.waiters[index].state {
                model.in_use -= permits as usize;
            }
            model.waiters[index].state = State::Rejected;
            model.assign();
        }
        Op::Advance(by) => {
            model.now += u64::from(by);
            let now = at(model.now);
            if timers {
                for &(index, id, ..) in waiters.iter() {
                    let waiter = &mut model.waiters[index];
                    let passed = waiter
                        .deadline
                        .is_some_and(|deadline| deadline <= model.now);
                    if passed && matches!(waiter.state, State::Waiting | State::Expired) {
                        waiter.state = State::Expired;
                        prop_assert_eq!(queue.expire(id, || now), WaitResult::Expired);
                        model.assign();
                    }
                }
                waiters.retain(|&(index, ..)| model.waiters[index].state != State::Expired);
            }
        }
        Op::Resize {
            permits,
            capacity,
            max_weight,
            lifo,
        } => {
            model.permits = permits;
            model.settings.order = if lifo {
                QueueOrder::Lifo
            } else {
                QueueOrder::Fifo
            };
            if timers {
                model.settings.capacity = capacity;
                model.settings.max_weight = max_weight;
            }
            queue.resize(|| permits, model.settings, || now);
            model.assign();
        }
        Op::RejectAll => {
            queue.reject_all(QueueRejection::CircuitOpened, || now);
            for waiter in &mut model.waiters {
                if waiter.state == State::Waiting {
                    waiter.state = State::Rejected;
                }
            }
        }
        Op::End(_) | Op::Cancel(_) => {}
    }
    Ok(())
}

/// Compares every waiter. Granted ones run from now on.
fn compare(model: &Model, callers: &mut Callers) -> Result<(), TestCaseError> {
    let Callers {
        queue,
        running,
        waiters,
        ..
    } = callers;
    prop_assert_eq!(queue.in_use(), model.in_use);
    let mut remaining = Vec::new();
    for (index, id, claim, woken) in std::mem::take(waiters) {
        let expected = model.waiters[index].state;
        if index % 3 == 0 && matches!(expected, State::Granted(_)) {
            // Its task is slow: the grant may be cancelled.
            remaining.push((index, id, claim, woken));
            continue;
        }
        let polled = queue.poll(id, &Waker::from(Arc::clone(&woken)));
        let is_woken = woken.0.load(Atomic::Relaxed);
        prop_assert_eq!(is_woken, usize::from(polled.is_ready()), "waiter {}", index);
        let state = match polled {
            Poll::Pending => State::Waiting,
            Poll::Ready(WaitResult::Granted) => State::Granted(claim.permits()),
            Poll::Ready(WaitResult::GrantedFewer(permits)) => State::Granted(permits),
            Poll::Ready(WaitResult::Rejected(_)) => State::Rejected,
            Poll::Ready(WaitResult::Expired) => State::Expired,
        };
        // A waiter whose deadline has passed is skipped when it is next. The model notices earlier.
        let unnoticed =
            expected == State::Expired && matches!(state, State::Waiting | State::Rejected);
        prop_assert!(
            state == expected || unnoticed,
            "waiter {}: {:?}, not {:?}",
            index,
            state,
            expected
        );
        match state {
            State::Waiting => remaining.push((index, id, claim, woken)),
            State::Granted(permits) => running.push(claim.with_permits(permits)),
            State::Rejected | State::Expired => {}
        }
    }
    *waiters = remaining;
    Ok(())
}
