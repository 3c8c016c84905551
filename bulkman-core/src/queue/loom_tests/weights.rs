//! Model checks of calls that take several permits.

use super::*;

fn enqueue_heavy(queue: &WaitQueue, permits: u32) -> (Enqueue, Claim) {
    let mut claim = Claim::new(permits);
    let waker = Waker::noop();
    let result = queue.enqueue_claim(
        request(Priority::Normal, None),
        &mut claim,
        waker,
        || false,
        no_clock,
    );
    (result, claim)
}

fn enqueue_heavy_waiter(queue: &WaitQueue, permits: u32) -> WaiterId {
    match enqueue_heavy(queue, permits).0 {
        Enqueue::Waiting(id) => id,
        other => panic!("expected to wait, got {other:?}"),
    }
}

/// Both permits are held, a call waits for both, and another waits behind it. One of the two
/// permits is released, so the first waiter has collected it.
fn collecting() -> (Arc<WaitQueue>, WaiterId, WaiterId) {
    let queue = queue(2);
    for _ in 0..2 {
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    }
    let (head, next) = (enqueue_heavy_waiter(&queue, 2), enqueue_waiter(&queue));
    queue.release(no_clock);
    assert!(!is_granted(&queue, head) && !is_granted(&queue, next));
    (queue, head, next)
}

/// Hazard K1, K4.
#[test]
fn releases_racing_a_heavy_enqueue_are_all_collected() {
    both_ways_bounded(|sides| {
        let queue = queue(2);
        assert!(try_acquire(&queue) && try_acquire(&queue));
        let join = |queue: &Arc<WaitQueue>| enqueue_heavy(queue, 2);
        let (_, _, (result, claim)) = sides.run_three(&queue, release, release, join);
        if result == Enqueue::Acquired {
            assert_eq!(claim.permits(), 2);
        }
        assert!(runs(&queue, &result));
        assert_eq!(queue.in_use(), 2);
        queue.release_claim(Claim::new(2), no_clock);
        assert_all_available(&queue, 2);
    });
}

/// Hazard K3.
#[test]
fn new_calls_never_overtake_a_heavy_waiter() {
    both_ways_bounded(|sides| {
        let (queue, head, next) = collecting();
        let call = |queue: &Arc<WaitQueue>| {
            assert!(!try_acquire(queue));
            enqueue_waiter(queue)
        };
        let (_, last) = sides.run(&queue, release, call);
        assert!(is_granted(&queue, head));
        assert!(!is_granted(&queue, next) && !is_granted(&queue, last));
        queue.release_claim(Claim::new(2), no_clock);
        assert!(is_granted(&queue, next) && is_granted(&queue, last));
    });
}

/// Hazard K4.
#[test]
fn collected_permits_survive_a_cancelled_head() {
    both_ways(|sides| {
        let (queue, head, next) = collecting();
        let cancel =
            move |queue: &Arc<WaitQueue>| queue.cancel_claim(head, Claim::new(2), no_clock);
        sides.run(&queue, release, cancel);
        assert!(is_granted(&queue, next));
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

/// Hazard K4.
#[test]
fn collected_permits_survive_an_expired_head() {
    both_ways(|sides| {
        let (queue, head, next) = collecting();
        let expire =
            move |queue: &Arc<WaitQueue>| queue.expire_claim(head, &mut Claim::new(2), no_clock);
        let (_, waited) = sides.run(&queue, release, expire);
        match waited {
            WaitResult::Expired => {}
            WaitResult::Granted => {
                queue.release_claim(Claim::new(2), no_clock);
            }
            other => panic!("{other:?}"),
        }
        assert!(is_granted(&queue, next));
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

/// Hazard K4.
#[test]
fn collected_permits_survive_an_opening() {
    both_ways(|sides| {
        let (queue, head, next) = collecting();
        sides.run(&queue, reject_all, release);
        let was_granted = |id| match poll(&queue, id) {
            Poll::Ready(WaitResult::Granted) => true,
            Poll::Ready(WaitResult::Rejected(QueueRejection::CircuitOpened)) => false,
            other => panic!("{other:?}"),
        };
        if was_granted(head) {
            queue.release_claim(Claim::new(2), no_clock);
        }
        assert!(!was_granted(next), "it was behind the head");
        assert_all_available(&queue, 2);
    });
}

/// Hazard K4.
#[test]
fn collected_permits_serve_a_call_that_arrives_after_the_opening() {
    both_ways_bounded(|sides| {
        let (queue, head, _next) = collecting();
        // Its circuit admits it: it has closed again, or the call came first.
        let join = |queue: &Arc<WaitQueue>| enqueue_heavy(queue, 1).0;
        let ((), arrived) = sides.run(&queue, reject_all, join);
        match arrived {
            Enqueue::Acquired => {}
            Enqueue::Waiting(id) => match poll(&queue, id) {
                Poll::Ready(WaitResult::Granted) => {}
                Poll::Ready(WaitResult::Rejected(_)) => return,
                other => panic!("{other:?}: a permit is available"),
            },
            other => panic!("{other:?}"),
        }
        assert!(!matches!(
            poll(&queue, head),
            Poll::Ready(WaitResult::Granted)
        ));
        queue.release(no_clock);
        queue.release(no_clock);
        assert_all_available(&queue, 2);
    });
}

/// Hazard K5.
#[test]
fn shrink_below_a_waiting_weight_grants_all_of_the_limit() {
    both_ways(|sides| {
        let (queue, head, next) = collecting();
        sides.run(&queue, resize(1, 8), release);
        // It had both before the limit shrank, or has all permits of the smaller one.
        let mut claim = Claim::new(2);
        let polled = queue.poll_claim(head, &mut claim, Waker::noop());
        assert_eq!(polled, Poll::Ready(WaitResult::Granted));
        let permits = claim.permits();
        assert_eq!(queue.in_use(), permits as usize);
        assert!(!is_granted(&queue, next));
        queue.release_claim(Claim::new(permits), no_clock);
        assert!(is_granted(&queue, next));
        queue.release(no_clock);
        assert_all_available(&queue, 1);
    });
}

/// Hazard K4.
#[test]
fn close_racing_a_collecting_head_drains() {
    both_ways(|sides| {
        let (queue, head, next) = collecting();
        sides.run(&queue, close, release);
        let was_granted = |id| matches!(poll(&queue, id), Poll::Ready(WaitResult::Granted));
        if was_granted(head) {
            assert!(!queue.is_drained());
            assert!(
                queue.release_claim(Claim::new(2), no_clock),
                "drains the queue"
            );
        }
        assert!(!was_granted(next));
        assert!(queue.is_drained());
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    });
}

/// Hazard K6.
#[test]
fn heavy_attempt_hides_no_permit_from_others() {
    both_ways(|sides| {
        let queue = Arc::new(WaitQueue::new(3, fifo(0)));
        assert!(try_acquire(&queue));
        // Two of three permits are available, and stay so: the heavy call can't have them.
        let heavy =
            |queue: &Arc<WaitQueue>| queue.try_acquire_as_calls(&mut Claim::new(3), no_clock);
        let (heavy, acquired) = sides.run(&queue, heavy, try_acquire);
        assert!(acquired);
        assert_eq!(heavy, TryAcquire::Full);
        queue.release(no_clock);
        queue.release(no_clock);
        assert_eq!(
            queue.try_acquire_as_calls(&mut Claim::new(3), no_clock),
            TryAcquire::Acquired
        );
        queue.release_claim(Claim::new(3), no_clock);
        assert_all_available(&queue, 3);
    });
}

/// Hazard K26. None waits, so permits are acquired without the lock.
#[test]
fn calls_that_must_not_wait_share_no_permit() {
    both_ways_bounded(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let acquire = |queue: &Arc<WaitQueue>| {
            let request = request(Priority::Normal, None);
            try_acquire(queue) || queue.try_acquire_as_next(request, &mut Claim::new(1), no_clock)
        };
        let (_, mine, other) = sides.run_three(&queue, release, acquire, acquire);
        assert!(!(mine && other));
        if mine || other {
            queue.release(no_clock);
        }
        assert_all_available(&queue, 1);
    });
}

/// Hazard K10.
#[test]
fn two_heavy_calls_never_hold_a_part_each() {
    bounded(|| {
        let queue = queue(3);
        let join = |queue: &Arc<WaitQueue>| enqueue_heavy(queue, 2).0;
        let (mine, other) = Sides::AsWritten.run(&queue, join, join);
        let mut remaining = vec![mine, other];
        while !remaining.is_empty() {
            let served = remaining.iter().position(|result| runs(&queue, result));
            remaining.swap_remove(served.expect("one of the two has both permits"));
            queue.release_claim(Claim::new(2), no_clock);
        }
        assert_all_available(&queue, 3);
    });
}

#[test]
fn grow_racing_a_heavy_enqueue_serves_it() {
    both_ways(|sides| {
        let queue = queue(1);
        assert!(try_acquire(&queue));
        let join = |queue: &Arc<WaitQueue>| enqueue_heavy(queue, 2);
        let ((), (result, claim)) = sides.run(&queue, resize(3, 8), join);
        if result == Enqueue::Acquired {
            assert_eq!(claim.permits(), 2);
        }
        assert!(runs(&queue, &result));
        queue.release_claim(Claim::new(2), no_clock);
        queue.release(no_clock);
        assert_all_available(&queue, 3);
    });
}
