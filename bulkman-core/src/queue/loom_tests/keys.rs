//! Model checks of permits that are shared between keys.

use super::*;

mod passed_on;

const A: u64 = 2;
const B: u64 = 3;
/// Another key of the bucket of `A`.
const C: u64 = 4;

/// A queue that shares its permits between keys.
fn shared(permits: usize, min: u32, max: u32) -> Arc<WaitQueue> {
    let settings = QueueSettings {
        keys: Some(KeyRules {
            min,
            max,
            max_queue: KeyRules::NO_MAX,
            evicts: true,
        }),
        ..fifo(8)
    };
    let queue = WaitQueue::new(permits, settings);
    queue.grants.allocate();
    Arc::new(queue)
}

fn of_key(key: u64) -> Claim {
    Claim::ONE.with_key(key)
}

fn enqueue_key(queue: &WaitQueue, key: u64) -> Enqueue {
    let request = request(Priority::Normal, None);
    queue.enqueue_claim(request, &mut of_key(key), Waker::noop(), || false, no_clock)
}

fn enqueue_waiter_of(queue: &WaitQueue, key: u64) -> WaiterId {
    match enqueue_key(queue, key) {
        Enqueue::Waiting(id) => id,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn try_key(queue: &WaitQueue, key: u64) -> bool {
    queue.try_acquire_as_calls(&mut of_key(key), no_clock) == TryAcquire::Acquired
}

/// As a call that must not wait.
fn try_key_as_next(queue: &WaitQueue, key: u64) -> bool {
    let request = request(Priority::Normal, None);
    try_key(queue, key) || queue.try_acquire_as_next(request, &mut of_key(key), no_clock)
}

fn release_key(queue: &WaitQueue, key: u64) -> bool {
    queue.release_claim(of_key(key), no_clock)
}

fn release_a(queue: &Arc<WaitQueue>) {
    release_key(queue, A);
}

fn assert_nothing_is_held(queue: &WaitQueue) {
    assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    assert_eq!(queue.idle_permits(), queue.limits().permits);
    let running = queue.running_keys.get().unwrap();
    assert_eq!((running.all(), running.suspended()), (vec![], [].into()));
    assert!(!queue.available.is_contended());
}

/// Hazard K22.
#[test]
fn two_first_calls_of_a_key_at_its_maximum_run_one_by_one() {
    bounded(|| {
        let queue = shared(2, 0, 1);
        let call = |queue: &WaitQueue| match try_key(queue, A) {
            true => Enqueue::Acquired,
            false => enqueue_key(queue, A),
        };
        let other = {
            let queue = queue.clone();
            thread::spawn(move || call(&queue))
        };
        let mine = call(&queue);
        let mut remaining = vec![mine, other.join().unwrap()];
        while !remaining.is_empty() {
            let running = remaining
                .iter()
                .filter(|result| runs(&queue, result))
                .count();
            assert_eq!(running, 1, "never both, and none waits beside a permit");
            assert_eq!(queue.in_use(), 1);
            let served = remaining
                .iter()
                .position(|result| runs(&queue, result))
                .unwrap();
            remaining.swap_remove(served);
            release_key(&queue, A);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K26. The waiter may get the reserved permit while the released one is not in the
/// counter.
#[test]
fn release_meets_a_call_below_its_minimum() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 1, KeyRules::NO_MAX);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let ((), acquired) = sides.run(&queue, release_a, |queue| try_key_as_next(queue, B));
        assert!(is_granted(&queue, waiter));
        assert!(acquired || try_key_as_next(&queue, B));
        for key in [A, B] {
            release_key(&queue, key);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K26. Of two, one acquires the reserved permit, and the waiter gets the next.
#[test]
fn two_calls_before_a_waiter_share_no_permit() {
    bounded(|| {
        let queue = shared(2, 1, KeyRules::NO_MAX);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || try_key_as_next(&queue, B))
        };
        let mine = try_key_as_next(&queue, B);
        assert!(mine != other.join().unwrap());
        release_key(&queue, A);
        assert!(is_granted(&queue, waiter));
        for key in [A, B] {
            release_key(&queue, key);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22.
#[test]
fn release_racing_a_call_that_is_suspended_resumes_its_key() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        let ((), result) = sides.run(&queue, release_a, |queue| enqueue_key(queue, A));
        assert!(runs(&queue, &result));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K16, K22.
#[test]
fn attempt_racing_a_suspended_waiter_leaves_it_served() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        // It may add its permit for a moment.
        let attempt = |queue: &Arc<WaitQueue>| try_key(queue, A) && release_key(queue, A);
        let enqueue = |queue: &Arc<WaitQueue>| enqueue_key(queue, A);
        let (_, (), result) = sides.run_three(&queue, attempt, release_a, enqueue);
        assert!(runs(&queue, &result));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22.
#[test]
fn calls_at_once_never_exceed_the_maximum() {
    bounded(|| {
        let queue = shared(2, 0, 1);
        // The permits are in the counter from now on.
        assert!(try_key(&queue, A));
        release_key(&queue, A);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || try_key(&queue, A))
        };
        let results = [try_key(&queue, A), other.join().unwrap()];
        let running = results.iter().filter(|acquired| **acquired).count();
        assert!(running <= 1, "the key holds one permit at most");
        assert_eq!(queue.in_use(), running);
        if running > 0 {
            release_key(&queue, A);
        }
        assert_nothing_is_held(&queue);
    });
}

/// A key with permits in two slots. A removal leaves no slot that still has some.
#[test]
fn additions_miss_no_permits_in_later_slots() {
    both_ways_bounded(|sides| {
        let keys = Arc::new(RunningKeys::new(1));
        keys.insert(C, 1);
        keys.insert(A, 1);
        keys.remove(C, 1);
        // The first slot is free, the second has a permit of `A` all the time.
        let add = |key| {
            move |keys: &Arc<RunningKeys>| {
                let added = keys.add(key, 1, 1).is_ok();
                if added {
                    keys.remove(key, 1);
                }
                added
            }
        };
        let added = sides.run_three(&keys, add(A), add(C), add(A));
        assert_eq!(added, (false, true, false));
        keys.remove(A, 1);
        assert_eq!(keys.all(), []);
    });
}

#[test]
fn other_keys_pass_a_suspended_waiter() {
    both_ways_bounded(|sides| {
        let queue = shared(3, 0, 1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let ((), acquired) = sides.run(&queue, release_a, |queue| try_key(queue, B));
        assert!(acquired, "a key at its maximum blocks no other");
        assert!(is_granted(&queue, waiter));
        release_key(&queue, A);
        release_key(&queue, B);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22. Both keys are at their maximum, so no release finds a contended counter.
#[test]
fn releases_of_two_suspended_keys_resume_both() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A) && try_key(&queue, B));
        let waiters = [enqueue_waiter_of(&queue, A), enqueue_waiter_of(&queue, B)];
        assert!(!queue.available.is_contended());
        sides.run(&queue, release_a, |queue| release_key(queue, B));
        for (waiter, key) in waiters.into_iter().zip([A, B]) {
            assert!(is_granted(&queue, waiter));
            release_key(&queue, key);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22. Permits of a suspended key are in two slots.
#[test]
fn releases_from_two_slots_resume_a_key() {
    bounded(|| {
        let queue = shared(3, 0, 2);
        assert!(try_key(&queue, C) && try_key(&queue, A));
        release_key(&queue, C);
        assert!(try_key(&queue, A));
        let waiters = [enqueue_waiter_of(&queue, A), enqueue_waiter_of(&queue, A)];
        Sides::AsWritten.run(&queue, release_a, release_a);
        for waiter in waiters {
            assert!(is_granted(&queue, waiter));
            release_key(&queue, A);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K28. Between the release and the grant, the key holds nothing.
#[test]
fn new_call_does_not_overtake_a_suspended_waiter() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let ((), acquired) = sides.run(&queue, release_a, |queue| try_key_as_next(queue, A));
        assert!(!acquired);
        assert!(is_granted(&queue, waiter));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22. The key is resumed while another key has all other permits.
#[test]
fn resumed_key_is_served_by_the_release_of_another() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A) && try_key(&queue, B));
        let waiter = enqueue_waiter_of(&queue, A);
        let resize = |queue: &Arc<WaitQueue>| queue.set_permits(|| 1, no_clock);
        sides.run_three(&queue, resize, release_a, |queue| release_key(queue, B));
        assert!(is_granted(&queue, waiter));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K22. The counter is not contended before, since the only waiter is suspended.
#[test]
fn release_racing_a_join_behind_a_suspended_waiter_reaches_it() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A) && try_key(&queue, B));
        let suspended = enqueue_waiter_of(&queue, A);
        let release = |queue: &Arc<WaitQueue>| release_key(queue, B);
        let (_, joined) = sides.run(&queue, release, |queue| enqueue_key(queue, C));
        assert!(runs(&queue, &joined));
        release_key(&queue, A);
        assert!(is_granted(&queue, suspended));
        for key in [A, C] {
            release_key(&queue, key);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K29. The limit becomes smaller than the call, which needs a reserved permit, too.
#[test]
fn shrink_racing_a_heavy_call_creates_no_permits() {
    both_ways(|sides| {
        let queue = shared(2, 1, KeyRules::NO_MAX);
        let heavy = || Claim::new(2).with_key(A);
        let acquire = move |queue: &Arc<WaitQueue>| {
            let mut claim = heavy();
            let acquired = queue.try_acquire_as_calls(&mut claim, no_clock);
            assert_eq!(acquired, TryAcquire::Acquired);
            claim
        };
        // The permits are in the counter from now on.
        queue.release_claim(acquire(&queue), no_clock);
        let shrink = |queue: &Arc<WaitQueue>| queue.set_permits(|| 1, no_clock);
        let (claim, ()) = sides.run(&queue, acquire, shrink);
        assert_eq!(queue.in_use(), claim.permits() as usize);
        queue.release_claim(claim, no_clock);
        assert_nothing_is_held(&queue);
    });
}

#[test]
fn last_call_of_a_key_racing_a_shutdown_is_found_by_one_of_them() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        let release = |queue: &Arc<WaitQueue>| release_key(queue, A);
        let (released, closed) = sides.run(&queue, release, shut_down);
        assert!(released || closed);
        assert!(queue.is_drained());
        assert_eq!(queue.in_use(), 0);
    });
}

#[test]
fn call_of_a_key_racing_a_shutdown_is_rejected_or_found() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        // The permits are in the counter from now on.
        assert!(try_key(&queue, A));
        release_key(&queue, A);
        let call = |queue: &Arc<WaitQueue>| {
            let acquired = try_key(queue, A);
            assert!(!(acquired && queue.is_drained()));
            (acquired, acquired && release_key(queue, A))
        };
        let ((acquired, released), closed) = sides.run(&queue, call, shut_down);
        assert!(released || closed, "{acquired}");
        assert!(queue.is_drained());
    });
}

/// The only suspended waiter leaves.
#[test]
fn cancelled_suspended_waiter_racing_a_release_leaves_nothing() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel_claim(waiter, of_key(A), no_clock);
        sides.run(&queue, release_a, cancel);
        assert!(try_key(&queue, A));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// The maximum ends while calls wait for it.
#[test]
fn release_racing_the_end_of_the_maximum_serves_the_waiter() {
    both_ways_bounded(|sides| {
        let queue = shared(2, 0, 1);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let keys = Some(KeyRules {
            min: 0,
            max: KeyRules::NO_MAX,
            max_queue: KeyRules::NO_MAX,
            evicts: true,
        });
        let settings = QueueSettings { keys, ..fifo(8) };
        let resize = move |queue: &Arc<WaitQueue>| {
            queue.resize(|| 2, settings, no_clock);
            is_granted(queue, waiter)
        };
        let ((), granted) = sides.run(&queue, release_a, resize);
        assert!(granted);
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K17.
#[test]
fn eviction_racing_a_grant_has_one_outcome() {
    both_ways_bounded(|sides| {
        let queue = shared(1, 0, KeyRules::NO_MAX);
        queue.resize(
            || 1,
            QueueSettings {
                capacity: 2,
                keys: Some(KeyRules {
                    min: 0,
                    max: KeyRules::NO_MAX,
                    max_queue: KeyRules::NO_MAX,
                    evicts: true,
                }),
                ..fifo(2)
            },
            no_clock,
        );
        assert!(try_key(&queue, A));
        let waiters = [enqueue_waiter_of(&queue, A), enqueue_waiter_of(&queue, A)];
        let ((), other) = sides.run(&queue, release_a, |queue| enqueue_waiter_of(queue, B));
        let mut granted = 0;
        let mut evicted = 0;
        for id in waiters {
            match poll(&queue, id) {
                Poll::Ready(WaitResult::Granted) => {
                    granted += 1;
                    release_key(&queue, A);
                }
                Poll::Ready(WaitResult::Rejected(QueueRejection::Evicted)) => evicted += 1,
                Poll::Pending => drop(queue.cancel_claim(id, of_key(A), no_clock)),
                other => panic!("{other:?}"),
            }
        }
        assert!(granted <= 2 && evicted <= 1);
        if is_granted(&queue, other) {
            release_key(&queue, B);
        } else {
            queue.cancel_claim(other, of_key(B), no_clock);
        }
        assert_nothing_is_held(&queue);
    });
}

/// Hazard K18, K23.
#[test]
fn reserved_permits_serve_a_key_below_its_minimum() {
    both_ways_bounded(|sides| {
        // One permit stays reserved for keys that hold nothing.
        let queue = shared(2, 1, KeyRules::NO_MAX);
        assert!(try_key(&queue, A));
        let waiter = enqueue_waiter_of(&queue, A);
        let ((), other) = sides.run(&queue, release_a, |queue| enqueue_key(queue, B));
        assert!(runs(&queue, &other));
        release_key(&queue, B);
        assert!(is_granted(&queue, waiter));
        release_key(&queue, A);
        assert_nothing_is_held(&queue);
    });
}
