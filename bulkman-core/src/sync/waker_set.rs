//! Wakers kept until something happens, woken outside every lock.
//!
//! A waker is user code: waking one may run a task on the spot, cloning or dropping one may run
//! whatever its vtable says. So none of the three happens while a lock is held, and a waker that
//! panics takes nobody else's wake-up with it.

use std::task::Waker;

use crate::sync::unwind::{contain, discard};
use crate::sync::{Mutex, lock};

/// The wakers of those who wait for one event, each in a place of its own.
#[derive(Debug, Default)]
pub(crate) struct WakerSet {
    places: Mutex<Places>,
}

impl WakerSet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Keeps `waker` in the place of `key`, which is given one at its first call.
    ///
    /// After it, the caller must look once more at what it waits for: a wake-up that came before
    /// was not for this waker.
    pub(crate) fn register(&self, key: &mut Option<WakerKey>, waker: &Waker) {
        if let Some(WakerKey(place)) = *key {
            let kept = &lock(&self.places).wakers[place];
            if kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                return;
            }
        }
        let waker = waker.clone();
        let replaced = {
            let mut places = lock(&self.places);
            let WakerKey(place) = *key.get_or_insert_with(|| places.take());
            places.wakers[place].replace(waker)
        };
        discard(replaced);
    }

    /// Gives the place of `key` back.
    pub(crate) fn remove(&self, key: &mut Option<WakerKey>) {
        if let Some(WakerKey(place)) = key.take() {
            let removed = lock(&self.places).give_back(place);
            discard(removed);
        }
    }

    /// Wakes everybody who has registered since the last call.
    pub(crate) fn wake_all(&self) {
        // Collected first: a woken task may well register again before the last one is woken.
        let woken: Vec<Waker> = {
            let mut places = lock(&self.places);
            places.wakers.iter_mut().filter_map(Option::take).collect()
        };
        for waker in woken {
            wake(waker);
        }
    }
}

/// A place in a [`WakerSet`].
#[derive(Debug)]
pub(crate) struct WakerKey(usize);

/// Wakes one task; a panic of its waker ends here.
pub(crate) fn wake(waker: Waker) {
    contain(|| waker.wake());
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    vacant: Vec<usize>,
}

impl Places {
    fn take(&mut self) -> WakerKey {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        });
        WakerKey(place)
    }

    fn give_back(&mut self, place: usize) -> Option<Waker> {
        self.vacant.push(place);
        self.wakers[place].take()
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
            panic!("a waker of the user's");
        }
    }

    /// Looks at the set from its clone, wake and drop: each would deadlock under the set's lock.
    struct Nosy(Arc<WakerSet>);

    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            self.0.wake_all();
        }
    }

    impl Drop for Nosy {
        fn drop(&mut self) {
            self.0.wake_all();
        }
    }

    #[test]
    fn everybody_is_woken_once_per_registration() {
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
    fn a_panicking_waker_takes_nobody_elses_wake_up() {
        let set = WakerSet::new();
        let count = Arc::new(Count::default());
        let (mut first, mut second) = (None, None);
        set.register(&mut first, &Arc::new(Panics).into());
        set.register(&mut second, &count.clone().into());
        set.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn places_are_used_again() {
        let set = WakerSet::new();
        for _ in 0..100 {
            let mut key = None;
            set.register(&mut key, Waker::noop());
            set.remove(&mut key);
        }
        assert_eq!(lock(&set.places).wakers.len(), 1);
    }

    /// Hazard H78.
    #[test]
    fn no_waker_runs_or_drops_under_the_lock() {
        let set = Arc::new(WakerSet::new());
        let mut key = None;
        set.register(&mut key, &Arc::new(Nosy(Arc::clone(&set))).into());
        // Replaced, woken, removed: each drops a `Nosy`.
        set.register(&mut key, &Arc::new(Nosy(Arc::clone(&set))).into());
        set.wake_all();
        set.register(&mut key, &Arc::new(Nosy(Arc::clone(&set))).into());
        set.remove(&mut key);
        assert!(key.is_none());
    }
}
