//! The unavoidable parts of calls: the floor that the machine sets for the other figures.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Instant;

use bulkman_core::BulkheadError;
use bulkman_core::bulkhead::BulkheadName;

use super::group::FLOOR;
use super::{ConcurrencyLimiter, Failed, PERMITS, Work, ready};
use crate::harness::measure::Case;

/// The names of the cases that are floors of targets.
pub(crate) const CLOSED: &str = "a compare-and-swap, three atomic adds";
pub(crate) const WINDOW: &str = "the same, and a mutex";
pub(crate) const TIMED: &str = "the same, a mutex and Instant::now";
pub(crate) const SLOW_CALLS: &str = "the same, a mutex and Instant::now twice";
pub(crate) const OPEN: &str = "Instant::now, an atomic add, an error with a name";
pub(crate) const FULL: &str =
    "async-lock: a failed try_acquire, an atomic add, an error with a name";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let counter = AtomicU64::new(0);
    cases.push(Case::new(FLOOR, "atomic add", move || {
        counter.fetch_add(1, Ordering::Relaxed)
    }));
    cases.push(Case::new(FLOOR, "Instant::now", Instant::now));
    let mutex = Mutex::new(0_u64);
    cases.push(Case::new(FLOOR, "Mutex: lock and unlock", move || {
        *mutex.lock().expect("never poisoned") += 1;
    }));
    let shared = Arc::new(0_u64);
    cases.push(Case::new(FLOOR, "Arc: clone and drop", move || {
        drop(Arc::clone(&shared))
    }));
    cases.push(Case::new(FLOOR, "Box of 64 bytes", || {
        drop(std::hint::black_box(Box::new([0_u64; 8])))
    }));

    // A permit is acquired and released, and two counters are incremented.
    cases.push(Case::new(FLOOR, CLOSED, call(|| ())));
    let window = Mutex::new(0_u64);
    let record = move || *window.lock().expect("never poisoned") += 1;
    cases.push(Case::new(FLOOR, WINDOW, call(record)));
    let window = Mutex::new(Instant::now());
    let record = move || *window.lock().expect("never poisoned") = Instant::now();
    cases.push(Case::new(FLOOR, TIMED, call(record)));
    let window = Mutex::new(Instant::now());
    let record = move || {
        std::hint::black_box(Instant::now());
        *window.lock().expect("never poisoned") = Instant::now();
    };
    cases.push(Case::new(FLOOR, SLOW_CALLS, call(record)));
    let (full, rejected) = (async_lock::Semaphore::new(0), AtomicU64::new(0));
    let name = BulkheadName::new("bench").expect("a short name");
    cases.push(Case::new(FLOOR, FULL, move || {
        let rejected_call = async {
            rejected.fetch_add(1, Ordering::Relaxed);
            match full.try_acquire() {
                Some(_) => Ok(()),
                None => Err(error(&name)),
            }
        };
        ready(rejected_call).is_err()
    }));
    let rejected = AtomicU64::new(0);
    let (name, start) = (
        BulkheadName::new("bench").expect("a short name"),
        Instant::now(),
    );
    cases.push(Case::new(FLOOR, OPEN, move || {
        let rejected_call = async {
            rejected.fetch_add(1, Ordering::Relaxed);
            if Instant::now() < start {
                Ok(())
            } else {
                Err(error(&name))
            }
        };
        ready(rejected_call).is_err()
    }));
    cases
}

/// Returns the error of a rejected call: a name and two more words.
fn error(name: &BulkheadName) -> BulkheadError<Failed> {
    BulkheadError::Full {
        bulkhead: name.clone(),
        max_concurrent_calls: PERMITS,
        max_queue_size: PERMITS,
    }
}

/// Returns the atomic operations of a call that need not wait, with `record` as its circuit.
fn call(record: impl Fn()) -> impl FnMut() {
    let permits = AtomicU64::new(PERMITS as u64);
    let (started, succeeded) = (AtomicU64::new(0), AtomicU64::new(0));
    move || {
        let free = permits.load(Ordering::Relaxed);
        permits
            .compare_exchange(free, free - 1, Ordering::Acquire, Ordering::Relaxed)
            .expect("no other thread acquires permits");
        started.fetch_add(1, Ordering::Relaxed);
        record();
        succeeded.fetch_add(1, Ordering::Release);
        permits.fetch_add(1, Ordering::Release);
    }
}

/// Admits every task after one yield, which leaves only the cost of the executor.
#[derive(Clone)]
pub(crate) struct TwoYields;

impl ConcurrencyLimiter for TwoYields {
    const NAME: &'static str = "two yields, no semaphore";

    fn new(_permits: usize) -> Self {
        Self
    }

    async fn run(&mut self, work: Work) {
        Work::one_yield().await;
        work.await;
    }
}

/// A queue of wakers under a mutex: a released permit is granted to the oldest waiter.
///
/// It has no counters, cancellation, deadlines, priorities or capacity.
#[derive(Clone)]
pub(crate) struct WakerQueue(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// The number of grants. Waiters with a lower number need not take the lock.
    granted: AtomicU64,
}

struct Queue {
    available: usize,
    queued: u64,
    wakers: VecDeque<Waker>,
}

impl ConcurrencyLimiter for WakerQueue {
    const NAME: &'static str = "a queue of wakers under a mutex, nothing else";

    fn new(permits: usize) -> Self {
        let queue = Mutex::new(Queue {
            available: permits,
            queued: 0,
            wakers: VecDeque::new(),
        });
        Self(Arc::new(Shared {
            queue,
            granted: AtomicU64::new(0),
        }))
    }

    async fn run(&mut self, work: Work) {
        let Self(shared) = self;
        let mut number = None;
        poll_fn(|cx| match number {
            Some(number) if shared.granted.load(Ordering::Acquire) > number => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                let mut queue = shared.queue.lock().expect("never poisoned");
                if queue.available > 0 {
                    queue.available -= 1;
                    return Poll::Ready(());
                }
                queue.wakers.push_back(cx.waker().clone());
                number = Some(queue.queued);
                queue.queued += 1;
                Poll::Pending
            }
        })
        .await;
        work.await;
        let mut queue = shared.queue.lock().expect("never poisoned");
        match queue.wakers.pop_front() {
            Some(waker) => {
                shared.granted.fetch_add(1, Ordering::Release);
                drop(queue);
                waker.wake();
            }
            None => queue.available += 1,
        }
    }
}

/// Admits no task and keeps no order: a call only takes a slot and frees it.
///
/// The cost is that of the memory of a call and its slot, allocated and freed under a lock.
#[derive(Clone)]
pub(crate) struct MemoryAccess(Arc<Mutex<Vec<Slot>>>);

/// As large as the slot of a waiter, which contains a waker.
type Slot = [u64; 2];

impl ConcurrencyLimiter for MemoryAccess {
    const NAME: &'static str =
        "a future and a slot of as many bytes, fetched and freed under a lock";

    fn new(_permits: usize) -> Self {
        Self(Arc::default())
    }

    async fn run(&mut self, work: Work) {
        struct SlotGuard<'a>(&'a Mutex<Vec<Slot>>, usize);

        impl Drop for SlotGuard<'_> {
            fn drop(&mut self) {
                let mut slots = self.0.lock().expect("never poisoned");
                slots[self.1][0] = 0;
                slots[self.1][1] = 0;
            }
        }

        let index = {
            let mut slots = self.0.lock().expect("never poisoned");
            slots.push([1; 2]);
            slots.len() - 1
        };
        let guard = SlotGuard(&self.0, index);
        let padding = std::hint::black_box([0_u64; 14]);
        work.await;
        drop((guard, padding));
    }
}
