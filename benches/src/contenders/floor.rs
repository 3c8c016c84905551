//! What the parts cost that nobody can do without: the machine's floor under the other figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::PERMITS;
use super::group::FLOOR;
use crate::harness::measure::Case;

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

    // The least that a call can be made of here: the permit, and the two counters.
    let semaphore = async_lock::Semaphore::new(PERMITS);
    let (started, succeeded) = (AtomicU64::new(0), AtomicU64::new(0));
    cases.push(Case::new(FLOOR, "async-lock: try_acquire, and two atomic adds", move || {
        let permit = semaphore.try_acquire().expect("a free permit");
        started.fetch_add(1, Ordering::Relaxed);
        succeeded.fetch_add(1, Ordering::Release);
        drop(permit);
    }));
    let (full, refused) = (async_lock::Semaphore::new(0), AtomicU64::new(0));
    cases.push(Case::new(FLOOR, "async-lock: try_acquire in vain, and an atomic add", move || {
        refused.fetch_add(1, Ordering::Relaxed);
        full.try_acquire().is_none()
    }));
    let refused = AtomicU64::new(0);
    cases.push(Case::new(FLOOR, "Instant::now, and an atomic add", move || {
        refused.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    }));
    cases
}
