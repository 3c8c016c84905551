//! Model checks of the queue.
//!
//! Models of two threads try every interleaving. Models of three threads try those with at most
//! three preemptions, since all of them would take hours. Each runs on both [`Sides`], unless its
//! operations are the same.
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::task::{Poll, Waker};
use std::time::Instant;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::*;
use crate::sync::sides::{Sides, Woken, both_ways, both_ways_bounded, bounded};

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

fn release(queue: &Arc<WaitQueue>) -> bool {
    queue.release(no_clock)
}

fn try_acquire(queue: &Arc<WaitQueue>) -> bool {
    queue.try_acquire() == TryAcquire::Acquired
}

fn close(queue: &Arc<WaitQueue>) -> bool {
    queue.close()
}

/// Closes a queue as a shutdown does, which then needs no notification if this returns `true`.
fn shut_down(queue: &Arc<WaitQueue>) -> bool {
    queue.close();
    queue.is_drained()
}

fn resize(permits: usize, capacity: usize) -> impl FnOnce(&Arc<WaitQueue>) {
    move |queue| queue.resize(|| permits, fifo(capacity), no_clock)
}

fn reject_all(queue: &Arc<WaitQueue>) {
    queue.reject_all(QueueRejection::CircuitOpened, no_clock);
}

/// Rejects all waiters of a circuit that opens, and enqueues a call of it. Both run concurrently.
fn opening() -> (
    impl FnOnce(&Arc<WaitQueue>),
    impl FnOnce(&Arc<WaitQueue>) -> Enqueue,
) {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    let opens = move |queue: &Arc<WaitQueue>| {
        open.store(true, Ordering::Release);
        reject_all(queue);
    };
    let enqueue = move |queue: &Arc<WaitQueue>| {
        let is_rejected = || is_open.load(Ordering::Acquire);
        queue.enqueue(Priority::Normal, None, Waker::noop(), is_rejected, no_clock)
    };
    (opens, enqueue)
}

fn is_granted(queue: &WaitQueue, id: WaiterId) -> bool {
    match poll(queue, id) {
        Poll::Ready(WaitResult::Granted) => true,
        Poll::Pending => false,
        other => panic!("{other:?}"),
    }
}

/// Returns whether a call has its permit, at once or by a grant.
fn runs(queue: &WaitQueue, result: &Enqueue) -> bool {
    match *result {
        Enqueue::Acquired => true,
        Enqueue::Waiting(id) => is_granted(queue, id),
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
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (_, result) = sides.run(&queue, release, |queue| enqueue(queue));
        assert!(runs(&queue, &result));
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

#[test]
fn two_releases_grant_two_waiters() {
    loom::model(|| {
        let queue = queue(2);
        assert!(try_acquire(&queue) && try_acquire(&queue));
        let (first, second) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        Sides::AsWritten.run(&queue, release, release);
        assert!(is_granted(&queue, first));
        assert!(is_granted(&queue, second));
        assert_eq!(queue.in_use(), 2);
    });
}

#[test]
fn grant_racing_cancel_passes_the_permit_on() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (cancelled, next) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel(cancelled, no_clock);
        sides.run(&queue, release, cancel);
        assert!(is_granted(&queue, next));
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

#[test]
fn grant_racing_expiry_leaks_no_permit() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        let (_, waited) = sides.run(&queue, release, move |queue| queue.expire(waiter));
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
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (opens, enqueue) = opening();
        let ((), result) = sides.run(&queue, opens, enqueue);
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
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        sides.run(&queue, reject_all, release);
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
    both_ways(|sides| {
        let queue = queue(1);
        sides.run(&queue, close, |queue| {
            if try_acquire(queue) {
                assert!(!queue.is_drained());
                queue.release(no_clock);
            }
        });
        assert!(queue.is_drained());
        assert_eq!(queue.try_acquire(), TryAcquire::Closed);
    });
}

#[test]
fn shrink_racing_release_ends_at_the_new_limit() {
    both_ways(|sides| {
        let queue = queue(2);
        assert!(try_acquire(&queue) && try_acquire(&queue));
        sides.run(&queue, release, resize(1, 8));
        assert_eq!(queue.in_use(), 1);
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

/// Fault A17
#[test]
fn newest_values_win_whichever_change_is_applied_last() {
    both_ways_bounded(|sides| {
        let queue = queue(4);
        let sources = Arc::new([AtomicU64::new(4), AtomicU64::new(4)]);
        let change = |index: usize, value: u64| {
            let sources = sources.clone();
            move |queue: &Arc<WaitQueue>| {
                sources[index].store(value, Ordering::Release);
                let smallest = || {
                    let read = |source: &AtomicU64| source.load(Ordering::Acquire);
                    sources.iter().map(read).min().unwrap() as usize
                };
                queue.set_permits(smallest, no_clock);
            }
        };
        let acquire = |queue: &Arc<WaitQueue>| {
            let acquired = try_acquire(queue);
            // Permits in use are at most those in force and those to forget.
            assert!(queue.in_use() <= 4);
            acquired
        };
        let ((), (), acquired) = sides.run_three(&queue, change(0, 1), change(1, 2), acquire);
        assert_eq!(queue.limits().permits, 1);
        assert_eq!(queue.in_use(), usize::from(acquired));
        if acquired {
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn acquire_racing_release_never_overtakes_a_waiter() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        let (_, acquired) = sides.run(&queue, release, try_acquire);
        assert!(!acquired);
        assert!(is_granted(&queue, waiter));
    });
}

#[test]
fn shrink_racing_acquire_keeps_the_remaining_permit_available() {
    both_ways(|sides| {
        let queue = Arc::new(WaitQueue::new(2, fifo(0)));
        let ((), acquired) = sides.run(&queue, resize(1, 0), try_acquire);
        assert!(acquired, "one of two available permits remains");
    });
}

#[test]
fn grow_racing_acquire_serves_the_waiter() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        let ((), acquired) = sides.run(&queue, resize(2, 8), try_acquire);
        assert!(!acquired);
        assert!(is_granted(&queue, waiter));
    });
}

#[test]
fn grow_racing_acquire_and_release_leaks_no_permit() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        let ((), _, acquired) = sides.run_three(&queue, resize(2, 8), release, try_acquire);
        assert!(is_granted(&queue, waiter));
        if acquired {
            queue.release(no_clock);
        }
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

/// One permit is held, and one is in the reserve.
#[test]
fn released_and_reserved_permits_both_reach_the_waiter() {
    both_ways_bounded(|sides| {
        let queue = queue(2);
        assert!(try_acquire(&queue));
        let other = |queue: &Arc<WaitQueue>| try_acquire(queue) && release(queue);
        let (_, _, result) = sides.run_three(&queue, other, release, |queue| enqueue(queue));
        assert!(runs(&queue, &result));
        assert_eq!(queue.in_use(), 1);
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

#[test]
fn release_racing_two_enqueues_serves_both() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let join = |queue: &Arc<WaitQueue>| enqueue(queue);
        let (mine, _, other) = sides.run_three(&queue, join, release, join);
        let mut remaining = vec![mine, other];
        while !remaining.is_empty() {
            let served = remaining.iter().position(|result| runs(&queue, result));
            remaining.swap_remove(served.expect("a call waits while a permit is available"));
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

#[test]
fn close_racing_release_and_enqueue_drains() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (_, _, result) = sides.run_three(&queue, close, release, |queue| enqueue(queue));
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

/// A shutdown that finds the queue not drained is notified by the end of the last call.
#[test]
fn last_release_racing_a_shutdown_is_found_by_one_of_them() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (released, closed) = sides.run(&queue, release, shut_down);
        assert!(released || closed);
        assert!(queue.is_drained());
    });
}

#[test]
fn last_cancel_racing_a_shutdown_is_found_by_one_of_them() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel(waiter, no_clock);
        let (released, cancelled, closed) = sides.run_three(&queue, release, cancel, shut_down);
        assert!(released || cancelled || closed);
        assert!(queue.is_drained());
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    });
}

#[test]
fn shrink_racing_cancel_and_release_ends_at_the_new_limit() {
    both_ways_bounded(|sides| {
        let queue = queue(2);
        assert!(try_acquire(&queue) && try_acquire(&queue));
        let (cancelled, next) = (enqueue_waiter(&queue), enqueue_waiter(&queue));
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel(cancelled, no_clock);
        sides.run_three(&queue, resize(1, 8), release, cancel);
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
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let (opens, enqueue) = opening();
        let ((), _, result) = sides.run_three(&queue, opens, release, enqueue);
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
    both_ways(|sides| {
        let queue = queue(1);
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let [first, second] = [data.clone(), data.clone()];
        let attempt = move |queue: &Arc<WaitQueue>| {
            if try_acquire(queue) {
                first.with_mut(drop);
                queue.release(no_clock);
            }
        };
        let join = move |queue: &Arc<WaitQueue>| match enqueue(queue) {
            Enqueue::Acquired => {
                second.with_mut(drop);
                queue.release(no_clock);
                None
            }
            Enqueue::Waiting(id) => Some(id),
            unexpected => panic!("{unexpected:?}"),
        };
        let ((), waiting) = sides.run(&queue, attempt, join);
        if let Some(id) = waiting {
            assert!(is_granted(&queue, id));
            data.with_mut(drop);
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

/// The same for a permit that is passed to a waiter, which sees the grant without the lock.
#[test]
fn release_happens_before_a_grant_seen_without_the_lock() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let waiter = enqueue_waiter(&queue);
        happens_before_grant(sides, &queue, waiter, |queue| {
            queue.release(no_clock);
        });
    });
}

/// Releases the permit, which the waiter is granted, while that polls.
fn happens_before_grant(
    sides: Sides,
    queue: &Arc<WaitQueue>,
    waiter: WaiterId,
    release: impl FnOnce(&Arc<WaitQueue>) + Send + 'static,
) {
    let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
    let other = data.clone();
    let holder = move |queue: &Arc<WaitQueue>| {
        other.with_mut(drop);
        release(queue);
    };
    let poller = move |queue: &Arc<WaitQueue>| {
        let granted = is_granted(queue, waiter);
        if granted {
            data.with_mut(drop);
        }
        granted
    };
    let ((), granted) = sides.run(queue, holder, poller);
    assert!(granted || is_granted(queue, waiter));
}

/// The same for a shutdown that finds the queue drained, without the lock.
#[test]
fn last_release_happens_before_the_queue_is_found_drained() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        queue.close();
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let other = data.clone();
        let holder = move |queue: &Arc<WaitQueue>| {
            other.with_mut(drop);
            queue.release(no_clock);
        };
        let reader = move |queue: &Arc<WaitQueue>| {
            if queue.is_drained() {
                data.with_mut(drop);
            }
        };
        sides.run(&queue, holder, reader);
        assert!(queue.is_drained());
    });
}

#[test]
fn grant_racing_a_new_waker_wakes_it_or_is_seen() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let id = enqueue_waiter(&queue);
        let (woken, waker) = Woken::new();
        let (_, polled) = sides.run(&queue, release, move |queue| queue.poll(id, &waker));
        if polled.is_pending() {
            assert!(woken.is_woken(), "granted without a wake-up");
            assert!(is_granted(&queue, id));
        }
    });
}

#[test]
fn expired_waiter_racing_release_is_never_granted() {
    let base = Instant::now();
    both_ways_bounded(move |sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let now = move || base + std::time::Duration::from_secs(1);
        // A call waits already, so the counter is contended.
        let first = enqueue_waiter(&queue);
        let end = move |queue: &Arc<WaitQueue>| {
            queue.cancel(first, now);
            queue.release(now)
        };
        let join = move |queue: &Arc<WaitQueue>| {
            queue.enqueue(Priority::High, Some(base), Waker::noop(), || false, now)
        };
        let (_, result) = sides.run(&queue, end, join);
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
