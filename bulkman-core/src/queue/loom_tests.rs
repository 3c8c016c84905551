//! Every interleaving of two sides of the queue; of three sides those with few preemptions, since
//! all of them would take hours.
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::task::{Poll, Waker};
use std::time::Instant;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::*;

fn unasked() -> Instant {
    unreachable!("no waiter has a deadline")
}

fn queue(permits: usize) -> Arc<WaitQueue> {
    let queue = WaitQueue::new(permits, 8, QueueOrder::Fifo);
    // Else the first who waits does it. loom does not see that a `OnceLock` hands over what is in it.
    queue.grants.prepare();
    Arc::new(queue)
}

fn join(queue: &WaitQueue) -> Enqueued {
    queue.enqueue(Priority::Normal, None, Waker::noop(), || false, unasked)
}

fn waits(queue: &WaitQueue) -> Key {
    match join(queue) {
        Enqueued::Waiting(key) => key,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn look(queue: &WaitQueue, key: Key) -> Poll<Waited> {
    queue.poll(key, Waker::noop())
}

/// As many preemptions as a model of three threads can afford.
fn bounded(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn release(queue: &Arc<WaitQueue>) -> thread::JoinHandle<bool> {
    let queue = queue.clone();
    thread::spawn(move || queue.release(unasked))
}

fn resize(queue: &Arc<WaitQueue>, permits: usize, places: usize) -> thread::JoinHandle<()> {
    let queue = queue.clone();
    thread::spawn(move || queue.resize(permits, places, QueueOrder::Fifo, unasked))
}

fn is_granted(queue: &WaitQueue, key: Key) -> bool {
    match look(queue, key) {
        Poll::Ready(Waited::Granted) => true,
        Poll::Pending => false,
        other => panic!("{other:?}"),
    }
}

/// All permits are back: they can all be taken, and no more.
fn assert_all_free(queue: &WaitQueue, permits: usize) {
    assert_eq!(queue.in_use(), 0);
    for _ in 0..permits {
        assert_eq!(queue.try_take(), Take::Taken);
    }
    assert_ne!(queue.try_take(), Take::Taken);
}

#[test]
fn a_release_against_a_newcomer_never_leaves_it_beside_an_idle_permit() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        let joined = join(&queue);
        releaser.join().unwrap();
        match joined {
            Enqueued::Taken => {}
            Enqueued::Waiting(key) => assert_eq!(look(&queue, key), Poll::Ready(Waited::Granted)),
            other => panic!("{other:?}"),
        }
        queue.release(unasked);
        assert_all_free(&queue, 1);
    });
}

#[test]
fn two_releases_grant_two_waiters() {
    loom::model(|| {
        let queue = queue(2);
        assert_eq!(queue.try_take(), Take::Taken);
        assert_eq!(queue.try_take(), Take::Taken);
        let (first, second) = (waits(&queue), waits(&queue));
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        queue.release(unasked);
        releaser.join().unwrap();
        assert_eq!(look(&queue, first), Poll::Ready(Waited::Granted));
        assert_eq!(look(&queue, second), Poll::Ready(Waited::Granted));
        assert_eq!(queue.in_use(), 2);
    });
}

#[test]
fn a_grant_against_a_cancel_hands_the_permit_on() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let (leaver, next) = (waits(&queue), waits(&queue));
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        queue.cancel(leaver, unasked);
        releaser.join().unwrap();
        assert_eq!(look(&queue, next), Poll::Ready(Waited::Granted));
        queue.release(unasked);
        assert_all_free(&queue, 1);
    });
}

#[test]
fn a_grant_against_a_timeout_is_one_or_the_other() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        let waited = queue.expire(waiter);
        releaser.join().unwrap();
        match waited {
            Waited::Granted => {
                assert_eq!(queue.in_use(), 1);
                queue.release(unasked);
            }
            Waited::Expired => {}
            Waited::Refused(_) => panic!("nobody refuses"),
        }
        assert_all_free(&queue, 1);
    });
}

#[test]
fn an_opening_against_a_newcomer_leaves_nobody_waiting() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let open = Arc::new(AtomicBool::new(false));
        let opener = {
            let (queue, open) = (queue.clone(), open.clone());
            thread::spawn(move || {
                open.store(true, Ordering::Release);
                queue.refuse_all(QueueRejection::Circuit);
            })
        };
        let refuses = || open.load(Ordering::Acquire);
        let joined = queue.enqueue(Priority::Normal, None, Waker::noop(), refuses, unasked);
        opener.join().unwrap();
        match joined {
            Enqueued::Refused(QueueRejection::Circuit) => {}
            Enqueued::Waiting(key) => {
                assert_eq!(
                    look(&queue, key),
                    Poll::Ready(Waited::Refused(QueueRejection::Circuit))
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.waiting(), 0);
    });
}

#[test]
fn a_grant_against_an_opening_loses_no_permit() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let opener = {
            let queue = queue.clone();
            thread::spawn(move || queue.refuse_all(QueueRejection::Circuit))
        };
        queue.release(unasked);
        opener.join().unwrap();
        match look(&queue, waiter) {
            Poll::Ready(Waited::Granted) => {
                queue.release(unasked);
            }
            Poll::Ready(Waited::Refused(QueueRejection::Circuit)) => {}
            other => panic!("{other:?}"),
        }
        assert_all_free(&queue, 1);
    });
}

#[test]
fn a_shutdown_against_a_newcomer_drains_only_when_it_has_gone() {
    loom::model(|| {
        let queue = queue(1);
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        if queue.try_take() == Take::Taken {
            assert!(!queue.is_drained());
            queue.release(unasked);
        }
        closer.join().unwrap();
        assert!(queue.is_drained());
        assert_eq!(queue.try_take(), Take::Closed);
    });
}

#[test]
fn shrinking_against_a_release_ends_at_the_new_limit() {
    loom::model(|| {
        let queue = queue(2);
        assert_eq!(queue.try_take(), Take::Taken);
        assert_eq!(queue.try_take(), Take::Taken);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        queue.resize(1, 8, QueueOrder::Fifo, unasked);
        releaser.join().unwrap();
        assert_eq!(queue.in_use(), 1);
        queue.release(unasked);
        assert_all_free(&queue, 1);
    });
}

#[test]
fn a_newcomer_never_overtakes_a_waiter() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || queue.release(unasked))
        };
        assert_ne!(queue.try_take(), Take::Taken);
        releaser.join().unwrap();
        assert_eq!(look(&queue, waiter), Poll::Ready(Waited::Granted));
    });
}

#[test]
fn shrinking_refuses_no_newcomer_beside_a_permit_that_stays() {
    loom::model(|| {
        let queue = Arc::new(WaitQueue::new(2, 0, QueueOrder::Fifo));
        let resizer = resize(&queue, 1, 0);
        let taken = queue.try_take();
        resizer.join().unwrap();
        assert_eq!(taken, Take::Taken, "two were idle, of which one stays");
    });
}

#[test]
fn a_limit_that_grows_serves_who_waits_and_not_who_comes() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let grower = resize(&queue, 2, 8);
        let newcomer = queue.try_take();
        grower.join().unwrap();
        assert_ne!(newcomer, Take::Taken);
        assert!(is_granted(&queue, waiter));
    });
}

#[test]
fn growing_against_a_newcomer_and_a_release_ends_with_all_permits() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let (grower, releaser) = (resize(&queue, 2, 8), release(&queue));
        let newcomer = queue.try_take();
        grower.join().unwrap();
        releaser.join().unwrap();
        assert!(is_granted(&queue, waiter));
        if newcomer == Take::Taken {
            queue.release(unasked);
        }
        queue.release(unasked);
        assert_all_free(&queue, 2);
    });
}

/// One permit is held and one was never needed yet.
#[test]
fn a_permit_in_hand_and_one_in_reserve_both_find_the_waiter() {
    bounded(|| {
        let queue = queue(2);
        assert_eq!(queue.try_take(), Take::Taken);
        let taker = {
            let queue = queue.clone();
            thread::spawn(move || queue.try_take() == Take::Taken && queue.release(unasked))
        };
        let releaser = release(&queue);
        let joined = join(&queue);
        taker.join().unwrap();
        releaser.join().unwrap();
        match joined {
            Enqueued::Taken => {}
            Enqueued::Waiting(key) => assert!(is_granted(&queue, key)),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.in_use(), 1);
        queue.release(unasked);
        assert_all_free(&queue, 2);
    });
}

#[test]
fn two_newcomers_against_a_release_are_both_served() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || join(&queue))
        };
        let releaser = release(&queue);
        let mine = join(&queue);
        let theirs = other.join().unwrap();
        releaser.join().unwrap();
        let mut left = vec![mine, theirs];
        while !left.is_empty() {
            let served = left.iter().position(|joined| match *joined {
                Enqueued::Taken => true,
                Enqueued::Waiting(key) => is_granted(&queue, key),
                other => panic!("{other:?}"),
            });
            left.swap_remove(served.expect("somebody waits beside an idle permit"));
            queue.release(unasked);
        }
        assert_all_free(&queue, 1);
    });
}

#[test]
fn a_shutdown_against_a_release_and_a_newcomer_is_drained_when_all_have_gone() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let closer = {
            let queue = queue.clone();
            thread::spawn(move || queue.close())
        };
        let releaser = release(&queue);
        let joined = join(&queue);
        closer.join().unwrap();
        releaser.join().unwrap();
        let granted = match joined {
            Enqueued::Taken => true,
            Enqueued::Refused(QueueRejection::Shutdown) => false,
            Enqueued::Waiting(key) => match look(&queue, key) {
                Poll::Ready(Waited::Granted) => true,
                Poll::Ready(Waited::Refused(QueueRejection::Shutdown)) => false,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(queue.is_drained(), !granted);
        if granted {
            assert!(queue.release(unasked), "the last one drains it");
        }
        assert!(queue.is_drained());
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    });
}

#[test]
fn shrinking_against_a_cancel_and_a_release_ends_at_the_new_limit() {
    bounded(|| {
        let queue = queue(2);
        assert_eq!(queue.try_take(), Take::Taken);
        assert_eq!(queue.try_take(), Take::Taken);
        let (leaver, next) = (waits(&queue), waits(&queue));
        let (shrinker, releaser) = (resize(&queue, 1, 8), release(&queue));
        queue.cancel(leaver, unasked);
        shrinker.join().unwrap();
        releaser.join().unwrap();
        // The permit that came back went to the next in line, or to pay for the shrinking.
        if !is_granted(&queue, next) {
            assert_eq!(queue.in_use(), 1);
            queue.release(unasked);
            assert!(is_granted(&queue, next));
        } else {
            assert_eq!(queue.in_use(), 2);
            queue.release(unasked);
        }
        queue.release(unasked);
        assert_all_free(&queue, 1);
    });
}

#[test]
fn an_opening_against_a_newcomer_and_a_release_loses_no_permit() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let open = Arc::new(AtomicBool::new(false));
        let opener = {
            let (queue, open) = (queue.clone(), open.clone());
            thread::spawn(move || {
                open.store(true, Ordering::Release);
                queue.refuse_all(QueueRejection::Circuit);
            })
        };
        let releaser = release(&queue);
        let refuses = || open.load(Ordering::Acquire);
        let joined = queue.enqueue(Priority::Normal, None, Waker::noop(), refuses, unasked);
        opener.join().unwrap();
        releaser.join().unwrap();
        let granted = match joined {
            Enqueued::Taken => true,
            Enqueued::Refused(QueueRejection::Circuit) => false,
            Enqueued::Waiting(key) => match look(&queue, key) {
                Poll::Ready(Waited::Granted) => true,
                Poll::Ready(Waited::Refused(QueueRejection::Circuit)) => false,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        if granted {
            queue.release(unasked);
        }
        assert_all_free(&queue, 1);
    });
}

/// What one call did with its permit happens before what the next does with it.
#[test]
fn a_permit_carries_memory_from_call_to_call() {
    loom::model(|| {
        let queue = queue(1);
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let touch = |data: &loom::cell::UnsafeCell<u32>| data.with_mut(drop);
        let other = {
            let (queue, data) = (queue.clone(), data.clone());
            thread::spawn(move || {
                if queue.try_take() == Take::Taken {
                    data.with_mut(drop);
                    queue.release(unasked);
                }
            })
        };
        let waiting = match join(&queue) {
            Enqueued::Taken => {
                touch(&data);
                queue.release(unasked);
                None
            }
            Enqueued::Waiting(key) => Some(key),
            unexpected => panic!("{unexpected:?}"),
        };
        other.join().unwrap();
        if let Some(key) = waiting {
            assert!(is_granted(&queue, key));
            touch(&data);
            queue.release(unasked);
        }
        assert_all_free(&queue, 1);
    });
}

/// The same from hand to hand, where the permit is seen without the lock.
#[test]
fn a_permit_that_is_handed_over_carries_memory() {
    loom::model(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let waiter = waits(&queue);
        let data = Arc::new(loom::cell::UnsafeCell::new(0_u32));
        let holder = {
            let (queue, data) = (queue.clone(), data.clone());
            thread::spawn(move || {
                data.with_mut(drop);
                queue.release(unasked);
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
fn a_waiter_that_comes_with_another_waker_is_woken_by_it_or_sees_its_permit() {
    bounded(|| {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let key = waits(&queue);
        let releaser = release(&queue);
        let woken = std::sync::Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let seen = queue.poll(key, &waker);
        releaser.join().unwrap();
        if seen.is_pending() {
            assert!(
                woken.0.load(Ordering::SeqCst),
                "granted, and nobody was woken"
            );
            assert!(is_granted(&queue, key));
        }
    });
}

#[test]
fn a_newcomer_whose_time_is_over_is_never_granted() {
    let base = std::time::Instant::now();
    bounded(move || {
        let queue = queue(1);
        assert_eq!(queue.try_take(), Take::Taken);
        let now = move || base + std::time::Duration::from_secs(1);
        // Somebody waits already, so the hand is busy.
        let first = waits(&queue);
        let releaser = {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.cancel(first, now);
                queue.release(now)
            })
        };
        let joined = queue.enqueue(Priority::High, Some(base), Waker::noop(), || false, now);
        releaser.join().unwrap();
        match joined {
            Enqueued::Taken => {}
            Enqueued::Waiting(key) => {
                let fate = queue.poll(key, Waker::noop());
                assert_ne!(fate, Poll::Ready(Waited::Granted));
            }
            other => panic!("{other:?}"),
        }
    });
}
