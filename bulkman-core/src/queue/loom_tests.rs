//! Model checks of the queue.
//!
//! Models of two threads try every interleaving. Models of three threads try those with at most
//! three preemptions, since all of them would take hours.
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::task::{Poll, Waker};
use std::time::Instant;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::*;

mod keys;
mod uncollected;
mod weights;

fn no_clock() -> Instant {
    unreachable!("no waiter has a deadline")
}

fn request(priority: Priority, deadline: Option<Instant>) -> Request {
    Request {
        priority,
        deadline,
        share: 1,
    }
}

fn fifo(capacity: usize) -> QueueSettings {
    QueueSettings::of_capacity(capacity, QueueOrder::Fifo)
}

fn queue(permits: usize) -> Arc<WaitQueue> {
    let queue = WaitQueue::new(permits, fifo(8));
    // Otherwise the first waiter allocates. loom does not see that a `OnceLock` synchronizes.
    queue.grants.allocate();
    Arc::new(queue)
}

fn enqueue(queue: &WaitQueue) -> Enqueue {
    queue.enqueue(Priority::Normal, None, Waker::noop(), || false, no_clock)
}

fn enqueue_waiter(queue: &WaitQueue) -> WaiterId {
    match enqueue(queue) {
        Enqueue::Waiting(id) => id,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn poll(queue: &WaitQueue, id: WaiterId) -> Poll<WaitResult> {
    queue.poll(id, Waker::noop())
}

/// Checks a model of three threads with a bounded number of preemptions.
fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn release(queue: &Arc<WaitQueue>) -> thread::JoinHandle<bool> {
    let queue = queue.clone();
    thread::spawn(move || queue.release(no_clock))
}

fn resize(queue: &Arc<WaitQueue>, permits: usize, places: usize) -> thread::JoinHandle<()> {
    let queue = queue.clone();
    thread::spawn(move || queue.resize(|| permits, fifo(places), no_clock))
}

fn is_granted(queue: &WaitQueue, id: WaiterId) -> bool {
    match poll(queue, id) {
        Poll::Ready(WaitResult::Granted) => true,
        Poll::Pending => false,
        other => panic!("{other:?}"),
    }
}

/// Asserts that no call holds a permit, and that `permits` of them can be acquired, and no more.
fn assert_all_available(queue: &WaitQueue, permits: usize) {
    assert_eq!(queue.in_use(), 0);
    for _ in 0..permits {
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    }
    assert_ne!(queue.try_acquire(), TryAcquire::Acquired);
}

#[test]
fn release_racing_enqueue_reaches_the_waiter() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        let result = enqueue(&queue);
        releaser.join().unwrap();
        match result {
            Enqueue::Acquired => {}
            Enqueue::Waiting(id) => assert_eq!(poll(&queue, id), Poll::Ready(WaitResult::Granted)),
            other => panic!("{other:?}"),
        }
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

#[test]
fn two_releases_grant_two_waiters() {
    loom::model(|| {
        let queue = queue(2);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let (first, second) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        queue.release(no_clock);
        releaser.join().unwrap();
        assert_eq!(poll(&queue, first), Poll::Ready(WaitResult::Granted));
        assert_eq!(poll(&queue, second), Poll::Ready(WaitResult::Granted));
        assert_eq!(queue.in_use(), 2);
    });
}

#[test]
fn grant_racing_cancel_passes_the_permit_on() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let (cancelled, next) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        queue.cancel(cancelled, no_clock);
        releaser.join().unwrap();
        assert_eq!(poll(&queue, next), Poll::Ready(WaitResult::Granted));
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

#[test]
fn grant_racing_expiry_leaks_no_permit() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        let waited = queue.expire(waiter);
        releaser.join().unwrap();
        match waited {
            WaitResult::Granted => {
                assert_eq!(queue.in_use(), 1);
                queue.release(no_clock);
            }
            WaitResult::Expired => {}
            other => panic!("{other:?}"),
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn reject_all_racing_enqueue_leaves_no_waiter() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let open = Arc::new(AtomicBool::new(false));
        let opener = {
            let (queue, open) = (queue.clone(), open.clone());
            thread::spawn(move || {
                open.store(true, Ordering::Release);
                queue.reject_all(QueueRejection::CircuitOpened, no_clock);
            })
        };
        let is_rejected = || open.load(Ordering::Acquire);
        let result = queue.enqueue(Priority::Normal, None, Waker::noop(), is_rejected, no_clock);
        opener.join().unwrap();
        match result {
            Enqueue::Rejected(QueueRejection::CircuitOpened) => {}
            Enqueue::Waiting(id) => {
                assert_eq!(
                    poll(&queue, id),
                    Poll::Ready(WaitResult::Rejected(QueueRejection::CircuitOpened))
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.waiting(), 0);
    });
}

#[test]
fn grant_racing_reject_all_leaks_no_permit() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let opener = {
            let queue = queue.clone();
            thread::spawn(move || queue.reject_all(QueueRejection::CircuitOpened, no_clock))
        };
        queue.release(no_clock);
        opener.join().unwrap();
        match poll(&queue, waiter) {
            Poll::Ready(WaitResult::Granted) => {
                queue.release(no_clock);
            }
            Poll::Ready(WaitResult::Rejected(QueueRejection::CircuitOpened)) => {}
            other => panic!("{other:?}"),
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn close_racing_acquire_drains_after_the_release() {
    loom::model(|| {
        let queue = queue(1);
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        if queue.try_acquire() == TryAcquire::Acquired {
            assert!(!queue.is_drained());
            queue.release(no_clock);
        }
        closer.join().unwrap();
        assert!(queue.is_drained());
        assert_eq!(queue.try_acquire(), TryAcquire::Closed);
    });
}

#[test]
fn shrink_racing_release_ends_at_the_new_limit() {
    loom::model(|| {
        let queue = queue(2);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        queue.resize(|| 1, fifo(8), no_clock);
        releaser.join().unwrap();
        assert_eq!(queue.in_use(), 1);
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

/// Fault A17
#[test]
fn newest_values_win_whichever_change_is_applied_last() {
    bounded(|| {
        let queue = queue(4);
        let sources = Arc::new([AtomicU64::new(4), AtomicU64::new(4)]);
        let change = |index: usize, value: u64| {
            let (queue, sources) = (queue.clone(), sources.clone());
            thread::spawn(move || {
                sources[index].store(value, Ordering::Release);
                let smallest = || {
                    let read = |source: &AtomicU64| source.load(Ordering::Acquire);
                    sources.iter().map(read).min().unwrap() as usize
                };
                queue.set_permits(smallest, no_clock);
            })
        };
        let changes = [change(0, 1), change(1, 2)];
        let acquired = usize::from(queue.try_acquire() == TryAcquire::Acquired);
        // Permits in use are at most those in force and those to forget.
        assert!(queue.in_use() <= 4);
        for change in changes {
            change.join().unwrap();
        }
        assert_eq!(queue.limits().permits, 1);
        assert_eq!(queue.in_use(), acquired);
        if acquired == 1 {
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn acquire_racing_release_never_overtakes_a_waiter() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(no_clock))
        };
        assert_ne!(queue.try_acquire(), TryAcquire::Acquired);
        releaser.join().unwrap();
        assert_eq!(poll(&queue, waiter), Poll::Ready(WaitResult::Granted));
    });
}

#[test]
fn shrink_racing_acquire_keeps_the_remaining_permit_available() {
    loom::model(|| {
        let queue = Arc::new(WaitQueue::new(2, fifo(0)));
        let resizer = resize(&queue, 1, 0);
        let acquired = queue.try_acquire();
        resizer.join().unwrap();
        assert_eq!(
            acquired,
            TryAcquire::Acquired,
            "one of two available permits remains"
        );
    });
}

#[test]
fn grow_racing_acquire_serves_the_waiter() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let grower = resize(&queue, 2, 8);
        let acquired = queue.try_acquire();
        grower.join().unwrap();
        assert_ne!(acquired, TryAcquire::Acquired);
        assert!(is_granted(&queue, waiter));
    });
}

#[test]
fn grow_racing_acquire_and_release_leaks_no_permit() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let (grower, releaser) = (resize(&queue, 2, 8), release(&queue));
        let acquired = queue.try_acquire();
        grower.join().unwrap();
        releaser.join().unwrap();
        assert!(is_granted(&queue, waiter));
        if acquired == TryAcquire::Acquired {
            queue.release(no_clock);
        }
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

/// One permit is held, and one is in the reserve.
#[test]
fn released_and_reserved_permits_both_reach_the_waiter() {
    bounded(|| {
        let queue = queue(2);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.try_acquire() == TryAcquire::Acquired && queue.release(no_clock)
            })
        };
        let releaser = release(&queue);
        let result = enqueue(&queue);
        other.join().unwrap();
        releaser.join().unwrap();
        match result {
            Enqueue::Acquired => {}
            Enqueue::Waiting(id) => assert!(is_granted(&queue, id)),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.in_use(), 1);
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

#[test]
fn release_racing_two_enqueues_serves_both() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || enqueue(&queue))
        };
        let releaser = release(&queue);
        let mine = enqueue(&queue);
        let other = other.join().unwrap();
        releaser.join().unwrap();
        let mut remaining = vec![mine, other];
        while !remaining.is_empty() {
            let served = remaining.iter().position(|result| match *result {
                Enqueue::Acquired => true,
                Enqueue::Waiting(id) => is_granted(&queue, id),
                other => panic!("{other:?}"),
            });
            remaining.swap_remove(served.expect("a call waits while a permit is available"));
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn close_racing_release_and_enqueue_drains() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        let releaser = release(&queue);
        let result = enqueue(&queue);
        closer.join().unwrap();
        releaser.join().unwrap();
        let granted = match result {
            Enqueue::Acquired => true,
            Enqueue::Rejected(QueueRejection::Shutdown) => false,
            Enqueue::Waiting(id) => match poll(&queue, id) {
                Poll::Ready(WaitResult::Granted) => true,
                Poll::Ready(WaitResult::Rejected(QueueRejection::Shutdown)) => false,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(queue.is_drained(), !granted);
        if granted {
            assert!(queue.release(no_clock), "the last release drains the queue");
        }
        assert!(queue.is_drained());
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    });
}

#[test]
fn shrink_racing_cancel_and_release_ends_at_the_new_limit() {
    bounded(|| {
        let queue = queue(2);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let (cancelled, next) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        let (shrinker, releaser) = (resize(&queue, 1, 8), release(&queue));
        queue.cancel(cancelled, no_clock);
        shrinker.join().unwrap();
        releaser.join().unwrap();
        // The released permit was granted to the next waiter, or forgotten.
        if !is_granted(&queue, next) {
            assert_eq!(queue.in_use(), 1);
            queue.release(no_clock);
            assert!(is_granted(&queue, next));
        } else {
            assert_eq!(queue.in_use(), 2);
            queue.release(no_clock);
        }
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

#[test]
fn reject_all_racing_enqueue_and_release_leaks_no_permit() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let open = Arc::new(AtomicBool::new(false));
        let opener = {
            let (queue, open) = (queue.clone(), open.clone());
            thread::spawn(move || {
                open.store(true, Ordering::Release);
                queue.reject_all(QueueRejection::CircuitOpened, no_clock);
            })
        };
        let releaser = release(&queue);
        let is_rejected = || open.load(Ordering::Acquire);
        let result = queue.enqueue(Priority::Normal, None, Waker::noop(), is_rejected, no_clock);
        opener.join().unwrap();
        releaser.join().unwrap();
        let granted = match result {
            Enqueue::Acquired => true,
            Enqueue::Rejected(QueueRejection::CircuitOpened) => false,
            Enqueue::Waiting(id) => match poll(&queue, id) {
                Poll::Ready(WaitResult::Granted) => true,
                Poll::Ready(WaitResult::Rejected(QueueRejection::CircuitOpened)) => false,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        if granted {
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

/// What a call did with a permit happens before what the next holder does with it.
#[test]
fn release_happens_before_the_next_acquisition() {
    loom::model(|| {
        let queue = queue(1);
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let touch = |data: &loom::cell::UnsafeCell<u32>| data.with_mut(drop);
        let other = {
            let (queue, data) = (queue.clone(), data.clone());
            thread::spawn(move || {
                if queue.try_acquire() == TryAcquire::Acquired {
                    data.with_mut(drop);
                    queue.release(no_clock);
                }
            })
        };
        let waiting = match enqueue(&queue) {
            Enqueue::Acquired => {
                touch(&data);
                queue.release(no_clock);
                None
            }
            Enqueue::Waiting(id) => Some(id),
            unexpected => panic!("{unexpected:?}"),
        };
        other.join().unwrap();
        if let Some(id) = waiting {
            assert!(is_granted(&queue, id));
            touch(&data);
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

/// The same for a permit that is passed to a waiter, which sees the grant without the lock.
#[test]
fn release_happens_before_a_grant_seen_without_the_lock() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let waiter = enqueue_waiter(&queue);
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let holder = {
            let (queue, data) = (queue.clone(), data.clone());
            thread::spawn(move || {
                data.with_mut(drop);
                queue.release(no_clock);
            })
        };
        if is_granted(&queue, waiter) {
            data.with_mut(drop);
        } else {
            holder.join().unwrap();
            assert!(is_granted(&queue, waiter));
        }
    });
}

struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn grant_racing_a_new_waker_wakes_it_or_is_seen() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let id = enqueue_waiter(&queue);
        let releaser = release(&queue);
        let woken = std::sync::Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let polled = queue.poll(id, &waker);
        releaser.join().unwrap();
        if polled.is_pending() {
            assert!(woken.0.load(Ordering::SeqCst), "granted without a wake-up");
            assert!(is_granted(&queue, id));
        }
    });
}

#[test]
fn expired_waiter_racing_release_is_never_granted() {
    let base = Instant::now();
    bounded(move || {
        let queue = queue(1);
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
        let now = move || base + std::time::Duration::from_secs(1);
        // A call waits already, so the counter is contended.
        let first = enqueue_waiter(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.cancel(first, now);
                queue.release(now)
            })
        };
        let result = queue.enqueue(Priority::High, Some(base), Waker::noop(), || false, now);
        releaser.join().unwrap();
        match result {
            Enqueue::Acquired => {}
            Enqueue::Waiting(id) => {
                let polled = queue.poll(id, Waker::noop());
                assert_ne!(polled, Poll::Ready(WaitResult::Granted));
            }
            other => panic!("{other:?}"),
        }
    });
}
