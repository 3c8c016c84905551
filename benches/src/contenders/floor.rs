//! What the parts cost that nobody can do without: the machine's floor under the other figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::group::FLOOR;
use super::{Gate, PERMITS, Work};
use crate::harness::measure::Case;

/// The least that calls can be made of here.
pub(crate) const CLOSED: &str = "a compare-and-swap, three atomic adds";
pub(crate) const WINDOW: &str = "the same, and a mutex";
pub(crate) const TIMED: &str = "the same, a mutex and Instant::now";
pub(crate) const SLOW_CALLS: &str = "the same, a mutex and Instant::now twice";
pub(crate) const OPEN: &str = "Instant::now, and an atomic add";
pub(crate) const FULL: &str = "async-lock: try_acquire in vain, and an atomic add";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let counter = AtomicU64::new(0);
    cases.push(Case::new(FLOOR, "atomic add", move || counter.fetch_add(1, Ordering::Relaxed)));
    cases.push(Case::new(FLOOR, "Instant::now", Instant::now));
    let mutex = Mutex::new(0_u64);
    cases.push(Case::new(FLOOR, "Mutex: lock and unlock", move || {
        *mutex.lock().expect("never poisoned") += 1;
    }));
    let shared = Arc::new(0_u64);
    cases.push(Case::new(FLOOR, "Arc: clone and drop", move || drop(Arc::clone(&shared))));
    cases.push(Case::new(FLOOR, "Box of 64 bytes", || drop(std::hint::black_box(Box::new([0_u64; 8])))));

    // A permit is taken and left, two counters are raised.
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
    let (full, refused) = (async_lock::Semaphore::new(0), AtomicU64::new(0));
    cases.push(Case::new(FLOOR, FULL, move || {
        refused.fetch_add(1, Ordering::Relaxed);
        full.try_acquire().is_none()
    }));
    let refused = AtomicU64::new(0);
    cases.push(Case::new(FLOOR, OPEN, move || {
        refused.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }));
    cases
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

/// Lets everybody pass, after the yield that a wait takes: what is left is the executor.
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
