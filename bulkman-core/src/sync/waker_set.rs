//! A set of wakers for one event, woken outside every lock.
//!
//! A waker is user code. Waking it may run a task immediately; cloning and dropping it run
//! functions of its vtable. None of these runs while a lock is held. A waker that panics does not
//! prevent other wake-ups.

use std::task::Waker;

use crate::sync::unwind::{catch, drop_catching};
use crate::sync::{Mutex, lock};

/// The wakers of tasks that wait for one event, each in its own slot.
#[derive(Debug, Default)]
pub(crate) struct WakerSet {
    slots: Mutex<Slots>,
}

impl WakerSet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Stores `waker` in the slot of `key`. The first call assigns the slot.
    ///
    /// The caller must check its condition again afterwards: an earlier wake-up did not reach this
    /// waker.
    pub(crate) fn register(&self, key: &mut Option<WakerKey>, waker: &Waker) {
        if let Some(WakerKey(index)) = *key {
            let registered = &lock(&self.slots).wakers[index];
            if registered
                .as_ref()
                .is_some_and(|registered| registered.will_wake(waker))
            {
                return;
            }
        }
        let waker = waker.clone();
        let replaced = {
            let mut slots = lock(&self.slots);
            let WakerKey(index) = *key.get_or_insert_with(|| slots.allocate());
            slots.wakers[index].replace(waker)
        };
        drop_catching(replaced);
    }

    /// Frees the slot of `key`.
    pub(crate) fn remove(&self, key: &mut Option<WakerKey>) {
        if let Some(WakerKey(index)) = key.take() {
            let removed = lock(&self.slots).free(index);
            drop_catching(removed);
        }
    }

    /// Wakes all tasks that have registered since the last call.
    pub(crate) fn wake_all(&self) {
        // Collected first: a woken task may register again before the last one is woken.
        let wakers: Vec<Waker> = {
            let mut slots = lock(&self.slots);
            slots.wakers.iter_mut().filter_map(Option::take).collect()
        };
        for waker in wakers {
            wake_catching(waker);
        }
    }
}

/// A slot of a [`WakerSet`].
#[derive(Debug)]
pub(crate) struct WakerKey(usize);

/// Wakes a task, and catches a panic of its waker.
pub(crate) fn wake_catching(waker: Waker) {
    catch(|| waker.wake());
}

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    /// Indices of slots without an owner.
    vacant: Vec<usize>,
}

impl Slots {
    fn allocate(&mut self) -> WakerKey {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        });
        WakerKey(index)
    }

    fn free(&mut self, index: usize) -> Option<Waker> {
        self.vacant.push(index);
        self.wakers[index].take()
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker panics");
        }
    }

    /// Uses the set when it is woken and dropped: either would deadlock under the lock of the set.
    struct Reentrant(Arc<WakerSet>);

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {
            self.0.wake_all();
        }
    }

    impl Drop for Reentrant {
        fn drop(&mut self) {
            self.0.wake_all();
        }
    }

    #[test]
    fn each_registration_is_woken_once() {
        let set = WakerSet::new();
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        let mut keys: Vec<_> = counts.iter().map(|_| None).collect();
        for (count, key) in counts.iter().zip(&mut keys) {
            set.register(key, &count.clone().into());
            set.register(key, &count.clone().into());
        }
        set.wake_all();
        set.wake_all();
        assert!(
            counts
                .iter()
                .all(|count| count.0.load(Ordering::Relaxed) == 1)
        );
    }

    #[test]
    fn panicking_waker_does_not_prevent_other_wake_ups() {
        let set = WakerSet::new();
        let count = Arc::new(Count::default());
        let (mut first, mut second) = (None, None);
        set.register(&mut first, &Arc::new(Panics).into());
        set.register(&mut second, &count.clone().into());
        set.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn slots_are_reused() {
        let set = WakerSet::new();
        for _ in 0..100 {
            let mut key = None;
            set.register(&mut key, Waker::noop());
            set.remove(&mut key);
        }
        assert_eq!(lock(&set.slots).wakers.len(), 1);
    }

    /// Hazard H78.
    #[test]
    fn wakers_are_woken_and_dropped_outside_the_lock() {
        let set = Arc::new(WakerSet::new());
        let mut key = None;
        set.register(&mut key, &Arc::new(Reentrant(Arc::clone(&set))).into());
        // Replacing, waking and removing each drop a `Reentrant`.
        set.register(&mut key, &Arc::new(Reentrant(Arc::clone(&set))).into());
        set.wake_all();
        set.register(&mut key, &Arc::new(Reentrant(Arc::clone(&set))).into());
        set.remove(&mut key);
        assert!(key.is_none());
    }
}
