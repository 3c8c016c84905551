//! Model checks of calls with a key whose permit is passed on: it is never available, and the key
//! holds it until then.

use super::*;

/// A queue that shares its permits between keys, and bounds nothing.
fn unbounded(permits: usize) -> Arc<WaitQueue> {
    shared(permits, 0, KeyRules::NO_MAX)
}

fn enqueue_of(key: u64) -> impl FnOnce(&Arc<WaitQueue>) -> Enqueue {
    move |queue| enqueue_key(queue, key)
}

/// Asserts what all keys hold, and that as many permits are in use.
fn assert_held(queue: &WaitQueue, held: [u32; 3]) {
    let running = queue.running_keys.get().unwrap();
    assert_eq!([A, B, C].map(|key| running.held(key)), held);
    assert_eq!(queue.in_use(), held.iter().sum::<u32>() as usize);
}

fn one_of(key: u64) -> [u32; 3] {
    [A, B, C].map(|it| u32::from(it == key))
}

/// The counter is not contended when the call begins to end, or is.
fn release_racing_a_join(key: u64) {
    both_ways(move |sides| {
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        let ((), joined) = sides.run(&queue, release_a, enqueue_of(key));
        assert!(runs(&queue, &joined));
        assert_held(&queue, one_of(key));
        release_key(&queue, key);
        assert_nothing_is_held(&queue);
    });
}

#[test]
fn release_racing_a_join_of_its_key_reaches_it() {
    release_racing_a_join(A);
}

#[test]
fn release_racing_a_join_of_another_key_reaches_it() {
    release_racing_a_join(B);
}

#[test]
fn release_racing_a_join_of_a_key_of_its_bucket_reaches_it() {
    release_racing_a_join(C);
}

/// The permit is passed on under the lock, before another call joins, or after that.
fn passed_permit_racing_a_join(waiting: u64, joining: u64) {
    both_ways(move |sides| {
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, waiting);
        let ((), joined) = sides.run(&queue, release_a, enqueue_of(joining));
        let Enqueue::Waiting(joined) = joined else {
            panic!("no permit is available: {joined:?}");
        };
        let (mut first, mut second) = ((waiter, waiting), (joined, joining));
        // A call of another key, which holds nothing, is next if it joins before the release.
        if waiting != joining && is_granted(&queue, joined) {
            std::mem::swap(&mut first, &mut second);
        } else {
            assert!(is_granted(&queue, waiter));
        }
        assert!(!is_granted(&queue, second.0));
        assert_held(&queue, one_of(first.1));
        release_key(&queue, first.1);
        assert!(is_granted(&queue, second.0));
        assert_held(&queue, one_of(second.1));
        release_key(&queue, second.1);
        assert_nothing_is_held(&queue);
    });
}

#[test]
fn permit_passed_within_a_key_racing_a_join_of_it() {
    passed_permit_racing_a_join(A, A);
}

#[test]
fn permit_passed_within_a_key_racing_a_join_of_another() {
    passed_permit_racing_a_join(A, B);
}

#[test]
fn permit_passed_to_another_key_racing_a_join_of_that() {
    passed_permit_racing_a_join(C, C);
}

/// The counter is contended when the call begins to end, and not later if the waiter has left.
fn passed_permit_racing_a_cancellation(waiting: u64) {
    both_ways(move |sides| {
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, waiting);
        let claim = of_key(waiting);
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel_claim(waiter, claim, no_clock);
        sides.run(&queue, release_a, cancel);
        assert_nothing_is_held(&queue);
        assert!(try_key(&queue, waiting));
        assert_held(&queue, one_of(waiting));
    });
}

#[test]
fn permit_passed_within_a_key_racing_a_cancellation() {
    passed_permit_racing_a_cancellation(A);
}

#[test]
fn permit_passed_to_another_key_racing_a_cancellation() {
    passed_permit_racing_a_cancellation(C);
}

/// The call adds its permit to its key before it finds the counter contended.
fn passed_permit_racing_an_attempt(key: u64) {
    both_ways(move |sides| {
        // The permits are in the counter from now on.
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        release_key(&queue, A);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, C);
        let attempt = move |queue: &Arc<WaitQueue>| try_key(queue, key);
        let ((), acquired) = sides.run(&queue, release_a, attempt);
        assert!(!acquired, "it does not overtake the waiter");
        assert!(is_granted(&queue, waiter));
        assert_held(&queue, one_of(C));
        release_key(&queue, C);
        assert_nothing_is_held(&queue);
    });
}

#[test]
fn permit_passed_to_another_key_racing_an_attempt_of_the_same_key() {
    passed_permit_racing_an_attempt(A);
}

#[test]
fn permit_passed_to_another_key_racing_an_attempt_of_that() {
    passed_permit_racing_an_attempt(C);
}

/// Two calls end. One of them may be the last to find a waiter.
fn two_permits_passed_on(running: [u64; 2], waiting: [u64; 2]) {
    both_ways(move |sides| {
        let queue = unbounded(2);
        assert!(running.iter().all(|&key| try_key(&queue, key)));
        let waiters = waiting.map(|key| enqueue_waiter_of(&queue, key));
        let [first, second] = running.map(|key| {
            move |queue: &Arc<WaitQueue>| {
                release_key(queue, key);
            }
        });
        sides.run(&queue, first, second);
        assert!(waiters.into_iter().all(|waiter| is_granted(&queue, waiter)));
        let of = |key| waiting.iter().filter(|it| **it == key).count() as u32;
        assert_held(&queue, [A, B, C].map(of));
        for key in waiting {
            release_key(&queue, key);
        }
        assert_nothing_is_held(&queue);
    });
}

#[test]
fn two_permits_are_passed_to_two_keys() {
    two_permits_passed_on([A, B], [A, B]);
}

#[test]
fn two_permits_of_a_key_are_passed_to_another() {
    two_permits_passed_on([A, A], [C, C]);
}

/// The second release finds no waiter.
#[test]
fn two_releases_with_one_waiter_leave_one_permit_available() {
    both_ways(|sides| {
        let queue = unbounded(2);
        assert!(try_key(&queue, A) && try_key(&queue, B));
        let waiter = enqueue_waiter_of(&queue, A);
        sides.run(&queue, release_a, |queue| release_key(queue, B));
        assert!(is_granted(&queue, waiter));
        assert_held(&queue, one_of(A));
        assert_eq!(queue.idle_permits(), 1);
        assert!(try_key(&queue, B), "no call waits");
        release_key(&queue, A);
        release_key(&queue, B);
        assert_nothing_is_held(&queue);
    });
}

/// The permit is passed on, or forgotten.
#[test]
fn passed_permit_racing_a_smaller_limit_is_held_or_forgotten() {
    both_ways(|sides| {
        let queue = unbounded(2);
        assert!(try_key(&queue, A) && try_key(&queue, B));
        let waiter = enqueue_waiter_of(&queue, C);
        let shrink = |queue: &Arc<WaitQueue>| queue.set_permits(|| 1, no_clock);
        sides.run(&queue, release_a, shrink);
        let mut held = one_of(B);
        if is_granted(&queue, waiter) {
            held[2] = 1;
            assert_held(&queue, held);
            release_key(&queue, B);
        } else {
            assert_held(&queue, held);
            release_key(&queue, B);
            assert!(is_granted(&queue, waiter));
        }
        assert_held(&queue, one_of(C));
        release_key(&queue, C);
        assert_nothing_is_held(&queue);
    });
}

/// The waiter is granted its permit, or rejected. Either way, one side finds the queue drained.
#[test]
fn passed_permit_racing_a_shutdown_drains() {
    both_ways(|sides| {
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, C);
        let release = |queue: &Arc<WaitQueue>| release_key(queue, A);
        let (released, closed) = sides.run(&queue, release, shut_down);
        match poll(&queue, waiter) {
            Poll::Ready(WaitResult::Granted) => {
                assert!(!released && !closed, "it runs");
                assert!(release_key(&queue, C));
            }
            Poll::Ready(WaitResult::Rejected(QueueRejection::Shutdown)) => {
                assert!(released || closed);
            }
            other => panic!("{other:?}"),
        }
        assert!(queue.is_drained());
        assert_held(&queue, [0; 3]);
    });
}

/// Sharing ends, so the waiter is in no key. Its permit is added to its key all the same.
#[test]
fn passed_permit_racing_the_end_of_sharing_is_added_to_its_key() {
    both_ways(|sides| {
        let queue = unbounded(1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, C);
        let stop = |queue: &Arc<WaitQueue>| queue.resize(|| 1, fifo(8), no_clock);
        sides.run(&queue, release_a, stop);
        assert!(is_granted(&queue, waiter));
        assert_held(&queue, one_of(C));
        release_key(&queue, C);
        assert_nothing_is_held(&queue);
    });
}

/// What a call did happens before what the waiter does that sees the grant without the lock.
#[test]
fn call_happens_before_the_waiter_that_its_permit_is_passed_to() {
    for key in [A, C] {
        both_ways(move |sides| {
            let queue = unbounded(1);
            assert!(try_key(&queue, A));
            let waiter = enqueue_waiter_of(&queue, key);
            happens_before_grant(sides, &queue, waiter, release_a);
        });
    }
}
