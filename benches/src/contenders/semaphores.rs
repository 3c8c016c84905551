//! Bare semaphores: the floor of every bulkhead.

use std::sync::Arc;

use super::group::{FULL, SEMAPHORE};
use super::{ConcurrencyLimiter, ONE_HOUR, PERMITS, Work, ready};
use crate::harness::measure::Case;

/// The case that is the unit of the limits: `S` in the tables.
pub(crate) const REFERENCE: &str = "async-lock: acquire (S)";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let semaphore = async_lock::Semaphore::new(PERMITS);
    cases.push(Case::new(SEMAPHORE, REFERENCE, move || {
        drop(ready(semaphore.acquire()))
    }));
    let semaphore = async_lock::Semaphore::new(PERMITS);
    cases.push(Case::new(SEMAPHORE, "async-lock: try_acquire", move || {
        drop(semaphore.try_acquire().expect("a free permit"));
    }));
    let semaphore = Arc::new(async_lock::Semaphore::new(PERMITS));
    cases.push(Case::new(SEMAPHORE, "async-lock: acquire_arc", move || {
        drop(ready(semaphore.acquire_arc()))
    }));
    let semaphore = tokio::sync::Semaphore::new(PERMITS);
    cases.push(Case::new(SEMAPHORE, "tokio: acquire", move || {
        drop(ready(semaphore.acquire()).expect("never closed"));
    }));
    let semaphore = tokio::sync::Semaphore::new(PERMITS);
    cases.push(Case::new(SEMAPHORE, "tokio: try_acquire", move || {
        drop(semaphore.try_acquire().expect("a free permit"));
    }));
    let semaphore = tokio::sync::Semaphore::new(PERMITS);
    cases.push(Case::new(
        SEMAPHORE,
        "tokio: acquire under timeout",
        move || {
            drop(ready(tokio::time::timeout(ONE_HOUR, semaphore.acquire())));
        },
    ));
    let semaphore = asyncband::semaphore::Semaphore::new(PERMITS);
    cases.push(Case::new(SEMAPHORE, "asyncband: acquire", move || {
        drop(ready(semaphore.acquire(1)))
    }));
    let semaphore = futures_intrusive::sync::Semaphore::new(true, PERMITS);
    cases.push(Case::new(
        SEMAPHORE,
        "futures-intrusive, fair: acquire",
        move || {
            drop(ready(semaphore.acquire(1)));
        },
    ));

    let semaphore = async_lock::Semaphore::new(0);
    cases.push(Case::new(FULL, "async-lock: try_acquire", move || {
        semaphore.try_acquire().is_none()
    }));
    let semaphore = tokio::sync::Semaphore::new(0);
    cases.push(Case::new(FULL, "tokio: try_acquire", move || {
        semaphore.try_acquire().is_err()
    }));
    cases
}

#[derive(Clone)]
pub(crate) struct Tokio(Arc<tokio::sync::Semaphore>);

impl ConcurrencyLimiter for Tokio {
    const NAME: &'static str = "tokio Semaphore";

    fn new(permits: usize) -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(permits)))
    }

    async fn run(&mut self, work: Work) {
        let _permit = self.0.acquire().await.expect("never closed");
        work.await;
    }
}

#[derive(Clone)]
pub(crate) struct AsyncLock(Arc<async_lock::Semaphore>);

impl ConcurrencyLimiter for AsyncLock {
    const NAME: &'static str = "async-lock Semaphore";

    fn new(permits: usize) -> Self {
        Self(Arc::new(async_lock::Semaphore::new(permits)))
    }

    async fn run(&mut self, work: Work) {
        let _permit = self.0.acquire().await;
        work.await;
    }
}

#[derive(Clone)]
pub(crate) struct Asyncband(Arc<asyncband::semaphore::Semaphore>);

impl ConcurrencyLimiter for Asyncband {
    const NAME: &'static str = "asyncband Semaphore";

    fn new(permits: usize) -> Self {
        Self(Arc::new(asyncband::semaphore::Semaphore::new(permits)))
    }

    async fn run(&mut self, work: Work) {
        let _permit = self.0.acquire(1).await;
        work.await;
    }
}

#[derive(Clone)]
pub(crate) struct FuturesIntrusive(Arc<futures_intrusive::sync::Semaphore>);

impl ConcurrencyLimiter for FuturesIntrusive {
    const NAME: &'static str = "futures-intrusive Semaphore, fair";

    fn new(permits: usize) -> Self {
        Self(Arc::new(futures_intrusive::sync::Semaphore::new(
            true, permits,
        )))
    }

    async fn run(&mut self, work: Work) {
        let _permit = self.0.acquire(1).await;
        work.await;
    }
}
