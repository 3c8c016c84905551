//! Models whose concurrent operations take turns in the threads.
//!
//! loom 0.7 tries a store before a load of another thread only if the thread that stores has not
//! loaded the same atomic itself: it compares a store with the last access alone. Nearly each store
//! of this crate follows a load, such as that of a compare-and-swap. The main thread runs first, so
//! what it loads is then never what another thread stores. Older values of a load are all tried.
//! So a model finds a race of a load and a store only if the operation that loads runs later by
//! default. These models run once in each order.
//!
//! That does not suffice for a load that follows another step of its operation, if the store must
//! come between the two. Such a model does that step before the race.

use std::sync::Arc;
use std::task::{Wake, Waker};

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// Which of concurrent operations are in the spawned threads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sides {
    /// All but the last.
    AsWritten,
    /// The last, and the first of three: each two operations are in the other order.
    Swapped,
}

impl Sides {
    /// Runs two operations concurrently, and returns their results.
    pub(crate) fn run<S, A, B>(
        self,
        shared: &S,
        first: impl FnOnce(&S) -> A + 'static,
        second: impl FnOnce(&S) -> B + 'static,
    ) -> (A, B)
    where
        S: Clone + 'static,
        A: 'static,
        B: 'static,
    {
        match self {
            Self::AsWritten => {
                let first = spawn(shared, first);
                let second = second(shared);
                (first.join().unwrap(), second)
            }
            Self::Swapped => {
                let second = spawn(shared, second);
                (first(shared), second.join().unwrap())
            }
        }
    }

    /// Runs three operations concurrently, and returns their results.
    pub(crate) fn run_three<S, A, B, C>(
        self,
        shared: &S,
        first: impl FnOnce(&S) -> A + 'static,
        second: impl FnOnce(&S) -> B + 'static,
        third: impl FnOnce(&S) -> C + 'static,
    ) -> (A, B, C)
    where
        S: Clone + 'static,
        A: 'static,
        B: 'static,
        C: 'static,
    {
        let first = spawn(shared, first);
        match self {
            Self::AsWritten => {
                let second = spawn(shared, second);
                let third = third(shared);
                (first.join().unwrap(), second.join().unwrap(), third)
            }
            Self::Swapped => {
                let third = spawn(shared, third);
                let second = second(shared);
                (first.join().unwrap(), second, third.join().unwrap())
            }
        }
    }
}

fn spawn<S: Clone + 'static, A: 'static>(
    shared: &S,
    operation: impl FnOnce(&S) -> A + 'static,
) -> thread::JoinHandle<A> {
    let shared = shared.clone();
    thread::spawn(move || operation(&shared))
}

/// Checks all interleavings of a model, on both sides.
pub(crate) fn both_ways(model: impl Fn(Sides) + Copy + Send + Sync + 'static) {
    for sides in [Sides::AsWritten, Sides::Swapped] {
        loom::model(move || model(sides));
    }
}

/// As [`both_ways`], with a bounded number of preemptions.
pub(crate) fn both_ways_bounded(model: impl Fn(Sides) + Copy + Send + Sync + 'static) {
    for sides in [Sides::AsWritten, Sides::Swapped] {
        bounded(move || model(sides));
    }
}

/// Checks a model with a bounded number of preemptions.
pub(crate) fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Whether a task was woken.
pub(crate) struct Woken(AtomicBool);

impl Woken {
    /// Returns a waker, and what reads whether it was woken.
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self(AtomicBool::new(false)));
        (Arc::clone(&woken), Waker::from(woken))
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
