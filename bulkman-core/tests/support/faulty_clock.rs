//! A clock that panics.

use std::ops::{Bound, RangeBounds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bulkman_core::Runtime;
use bulkman_core::runtime::{BoxFuture, Sleep};
use bulkman_core::testing::ManualRuntime;

/// A virtual clock that panics at chosen readings.
#[derive(Clone, Debug)]
pub(crate) struct FaultyClock {
    pub(crate) runtime: ManualRuntime,
    /// The readings that panic, and the number of the next one.
    faulty: Arc<Mutex<Option<(Readings, usize)>>>,
}

type Readings = (Bound<usize>, Bound<usize>);

impl FaultyClock {
    pub(crate) fn new() -> Self {
        Self {
            runtime: ManualRuntime::new(),
            faulty: Arc::default(),
        }
    }

    /// Runs `code` while these readings panic, as in [`fail_at`](Self::fail_at).
    ///
    /// Returns `None` if `code` panicked.
    pub(crate) fn while_faulty<R>(
        &self,
        readings: impl RangeBounds<usize>,
        code: impl FnOnce() -> R,
    ) -> Option<R> {
        self.fail_at(readings);
        let ended = catch_unwind(AssertUnwindSafe(code)).ok();
        self.repair();
        ended
    }

    /// From now on, these readings panic; the next one is number 0.
    pub(crate) fn fail_at(&self, readings: impl RangeBounds<usize>) {
        let (start, end) = (readings.start_bound(), readings.end_bound());
        *self.faulty.lock().unwrap() = Some(((start.cloned(), end.cloned()), 0));
    }

    /// From now on, no reading panics.
    pub(crate) fn repair(&self) {
        *self.faulty.lock().unwrap() = None;
    }

    fn is_faulty_now(&self) -> bool {
        let mut faulty = self.faulty.lock().unwrap();
        faulty.as_mut().is_some_and(|(readings, next)| {
            let number = *next;
            *next += 1;
            readings.contains(&number)
        })
    }
}

impl Runtime for FaultyClock {
    fn now(&self) -> Instant {
        assert!(!self.is_faulty_now(), "the clock panics");
        self.runtime.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.runtime.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        self.runtime.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(job);
    }
}
