//! The cost of the unavoidable parts: the machine's floor under the other figures.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Instant;

use bulkman_core::BulkheadError;
use bulkman_core::bulkhead::BulkheadName;

use super::group::FLOOR;
use super::{Failed, Gate, PERMITS, Work, ready};
use crate::harness::measure::Case;

/// The unavoidable parts of calls.
pub(crate) const CLOSED: &str = "a compare-and-swap, three atomic adds";
pub(crate) const WINDOW: &str = "the same, and a mutex";
pub(crate) const TIMED: &str = "the same, a mutex and Instant::now";
pub(crate) const SLOW_CALLS: &str = "the same, a mutex and Instant::now twice";
pub(crate) const OPEN: &str = "Instant::now, an atomic add, an error with a name";
pub(crate) const FULL: &str =
    "async-lock: try_acquire in vain, an atomic add, an error with a name";

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

    // A permit is acquired and released, two counters are incremented.
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
        let refused_call = async {
            rejected.fetch_add(1, Ordering::Relaxed);
            match full.try_acquire() {
                Some(_) => Ok(()),
                None => Err(error(&name)),
            }
        };
        ready(refused_call).is_err()
    }));
    let rejected = AtomicU64::new(0);
    let (name, begin) = (
        BulkheadName::new("bench").expect("a short name"),
        Instant::now(),
    );
    cases.push(Case::new(FLOOR, OPEN, move || {
        let refused_call = async {
            rejected.fetch_add(1, Ordering::Relaxed);
            if Instant::now() < begin {
                Ok(())
            } else {
                Err(error(&name))
            }
        };
        ready(refused_call).is_err()
    }));
    cases
}

/// The error of a rejected call: a name, and two more words.
fn error(name: &BulkheadName) -> BulkheadError<Failed> {
    BulkheadError::Full {
        bulkhead: name.clone(),
        max_concurrent_calls: PERMITS,
        max_queue_size: PERMITS,
    }
}

/// The atomic operations of a call that need not wait, and what its circuit does.
fn call(record: impl Fn()) -> impl FnMut() {
    let permits = AtomicU64::new(PERMITS as u64);
    let (started, succeeded) = (AtomicU64::new(0), AtomicU64::new(0));
    move || {
        let free = permits.load(Ordering::Relaxed);
        let taken = permits.compare_exchange(free, free - 1, Ordering::Acquire, Ordering::Relaxed);
        taken.expect("nobody else takes any");
        started.fetch_add(1, Ordering::Relaxed);
        record();
        succeeded.fetch_add(1, Ordering::Release);
        permits.fetch_add(1, Ordering::Release);
    }
}

/// Admits every task after one yield: the remaining cost is that of the executor.
#[derive(Clone)]
pub(crate) struct TwoYields;

impl Gate for TwoYields {
    const NAME: &'static str = "two yields, no semaphore";

    fn new(_permits: usize) -> Self {
        Self
    }

    async fn pass(&mut self, work: Work) {
        Work::one_yield().await;
        work.await;
    }
}

/// A plain queue: a released permit goes to the oldest waiter. It has no counters, cancellation,
/// deadlines, priorities or limits.
#[derive(Clone)]
pub(crate) struct Line(Arc<Shared>);

struct Shared {
    line: Mutex<Waiting>,
    /// The number of waiters that were served; an earlier waiter need not check.
    served: AtomicU64,
}

struct Waiting {
    free: usize,
    joined: u64,
    wakers: VecDeque<Waker>,
}

impl Gate for Line {
    const NAME: &'static str = "a line of wakers, in order, and nothing else";

    fn new(permits: usize) -> Self {
        let line = Mutex::new(Waiting {
            free: permits,
            joined: 0,
            wakers: VecDeque::new(),
        });
        Self(Arc::new(Shared {
            line,
            served: AtomicU64::new(0),
        }))
    }

    async fn pass(&mut self, work: Work) {
        let Self(shared) = self;
        let mut place = None;
        poll_fn(|cx| match place {
            Some(place) if shared.served.load(Ordering::Acquire) > place => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                let mut line = shared.line.lock().expect("never poisoned");
                if line.free > 0 {
                    line.free -= 1;
                    return Poll::Ready(());
                }
                line.wakers.push_back(cx.waker().clone());
                place = Some(line.joined);
                line.joined += 1;
                Poll::Pending
            }
        })
        .await;
        work.await;
        let mut line = shared.line.lock().expect("never poisoned");
        match line.wakers.pop_front() {
            Some(waker) => {
                shared.served.fetch_add(1, Ordering::Release);
                drop(line);
                waker.wake();
            }
            None => line.free += 1,
        }
    }
}

/// Admits no task and keeps no order: a call takes the next slot and leaves it. The remaining cost
/// is the memory of a call and its slot, allocated and freed under a lock.
#[derive(Clone)]
pub(crate) struct Touching(Arc<Mutex<Vec<Place>>>);

/// As large as a waiter's slot: a waker.
type Place = [u64; 2];

impl Gate for Touching {
    const NAME: &'static str =
        "a future and a place of as many bytes, fetched and freed under a lock";

    fn new(_permits: usize) -> Self {
        Self(Arc::default())
    }

    async fn pass(&mut self, work: Work) {
        struct Taken<'a>(&'a Mutex<Vec<Place>>, usize);

        impl Drop for Taken<'_> {
            fn drop(&mut self) {
                let mut places = self.0.lock().expect("never poisoned");
                places[self.1][0] = 0;
                places[self.1][1] = 0;
            }
        }

        let place = {
            let mut places = self.0.lock().expect("never poisoned");
            places.push([1; 2]);
            places.len() - 1
        };
        let taken = Taken(&self.0, place);
        let padding = std::hint::black_box([0_u64; 14]);
        work.await;
        drop((taken, padding));
    }
}
