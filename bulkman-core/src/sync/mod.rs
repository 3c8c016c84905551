//! The synchronization primitives of lock-free code, replaceable by loom.
//!
//! With `--cfg bulkman_loom`, atomics and mutexes are those of loom. The semaphore is then a model
//! of the one in `async_lock`: the same counter and fence, without the listeners, which this crate
//! never uses.

pub(crate) mod broadcast;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
#[cfg(all(test, bulkman_loom))]
pub(crate) mod sides;
pub(crate) mod unwind;
pub(crate) mod waker_set;

#[cfg(not(bulkman_loom))]
pub(crate) use async_lock::Semaphore;
#[cfg(not(bulkman_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(bulkman_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

#[cfg(bulkman_loom)]
pub(crate) use model::Semaphore;

/// Locks a mutex, even if it is poisoned.
///
/// No user code runs under a lock of this crate, so the data behind a poisoned one is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(bulkman_loom)]
mod model {
    use super::atomic::{AtomicUsize, Ordering, fence};

    /// The part of `async_lock::Semaphore` 3.5 that this crate uses, with the same orderings.
    #[derive(Debug)]
    pub(crate) struct Semaphore(AtomicUsize);

    pub(crate) struct Guard<'a>(&'a Semaphore);

    impl Semaphore {
        pub(crate) fn new(permits: usize) -> Self {
            Self(AtomicUsize::new(permits))
        }

        pub(crate) fn try_acquire(&self) -> Option<Guard<'_>> {
            let mut count = self.0.load(Ordering::Acquire);
            loop {
                if count == 0 {
                    return None;
                }
                match self
                    .0
                    .compare_exchange(count, count - 1, Ordering::AcqRel, Ordering::Acquire)
                {
                    Ok(_) => return Some(Guard(self)),
                    Err(current) => count = current,
                }
            }
        }

        pub(crate) fn add_permits(&self, n: usize) {
            self.0.fetch_add(n, Ordering::AcqRel);
            // `Event::notify` starts with this fence.
            fence(Ordering::SeqCst);
        }

        pub(crate) fn available_permits(&self) -> usize {
            self.0.load(Ordering::Acquire)
        }
    }

    impl Guard<'_> {
        pub(crate) fn forget(self) {
            std::mem::forget(self);
        }
    }

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }
}
