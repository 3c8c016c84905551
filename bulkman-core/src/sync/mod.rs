//! The synchronisation primitives used by the lock-free parts, so that loom can replace them.
//!
//! Built with `--cfg bulkman_loom`, atomics and mutexes are loom's and the semaphore is a model
//! of `async_lock`'s: the same counter and the same fence, without its listeners, which this
//! library never uses.

pub(crate) mod broadcast;
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

/// Locks, also when a panic has poisoned the mutex.
///
/// No user code runs under any lock of this library, so a poisoned one is still consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(bulkman_loom)]
mod model {
    use super::atomic::{AtomicUsize, Ordering, fence};

    /// What this library uses of `async_lock::Semaphore` 3.5, with the same orderings.
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
                    Err(seen) => count = seen,
                }
            }
        }

        pub(crate) fn add_permits(&self, n: usize) {
            self.0.fetch_add(n, Ordering::AcqRel);
            // `Event::notify` begins with it.
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
