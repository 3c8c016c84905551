//! Every interleaving of two sides of the queue.
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
    Arc::new(WaitQueue::new(permits, 8, QueueOrder::Fifo))
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
    queue.poll(key, false, Waker::noop())
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
        queue.cancel(leaver, false, unasked);
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
        let waited = queue.expire(waiter, false);
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
                queue.refuse_all(Refusal::Circuit);
            })
        };
        let refuses = || open.load(Ordering::Acquire);
        let joined = queue.enqueue(Priority::Normal, None, Waker::noop(), refuses, unasked);
        opener.join().unwrap();
        match joined {
            Enqueued::Refused(Refusal::Circuit) => {}
            Enqueued::Waiting(key) => {
                assert_eq!(look(&queue, key), Poll::Ready(Waited::Refused(Refusal::Circuit)));
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
            thread::spawn(move || queue.refuse_all(Refusal::Circuit))
        };
        queue.release(unasked);
        opener.join().unwrap();
        match look(&queue, waiter) {
            Poll::Ready(Waited::Granted) => {
                queue.release(unasked);
            }
            Poll::Ready(Waited::Refused(Refusal::Circuit)) => {}
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
