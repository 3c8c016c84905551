//! Models of permits that are taken back because their waiters do not collect them.

use super::*;

/// Returns a queue whose only permit was granted to a waiter that did not collect it, the waiter,
/// and a clock that is past its deadline.
fn uncollected() -> (Arc<WaitQueue>, WaiterId, impl Fn() -> Instant + Copy + Send) {
    let base = Instant::now();
    let deadline = base + std::time::Duration::from_secs(1);
    let queue = queue(1);
    assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    let early = move || base;
    let waiter = queue.enqueue(
        Priority::Normal,
        Some(deadline),
        Waker::noop(),
        || false,
        early,
    );
    let Enqueue::Waiting(waiter) = waiter else {
        panic!("{waiter:?}")
    };
    queue.release(early);
    (queue, waiter, move || deadline)
}

fn deadline_passes(
    waiter: WaiterId,
    now: impl Fn() -> Instant,
) -> impl FnOnce(&Arc<WaitQueue>) -> bool {
    move |queue| queue.deadline_passed(waiter, now)
}

/// Returns whether a waiter that was granted a permit still has it, and collects it then.
fn collects(waiter: WaiterId) -> impl FnOnce(&Arc<WaitQueue>) -> bool {
    move |queue| poll(queue, waiter) == Poll::Ready(WaitResult::Granted)
}

/// Fault F04.
#[test]
fn collecting_racing_take_back_leaves_one_holder() {
    both_ways(|sides| {
        let (queue, slow, late) = uncollected();
        let next = enqueue_waiter(&queue);
        let (_, collected) = sides.run(&queue, deadline_passes(slow, late), collects(slow));
        assert_ne!(collected, is_granted(&queue, next));
        queue.release(late);
        if collected {
            assert!(is_granted(&queue, next));
            queue.release(late);
        }
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn cancel_racing_take_back_passes_the_permit_on_once() {
    both_ways(|sides| {
        let (queue, slow, late) = uncollected();
        let next = enqueue_waiter(&queue);
        let cancel = move |queue: &Arc<WaitQueue>| queue.cancel(slow, late);
        sides.run(&queue, deadline_passes(slow, late), cancel);
        assert!(is_granted(&queue, next));
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn take_back_racing_enqueue_serves_the_new_call() {
    both_ways(|sides| {
        let (queue, slow, late) = uncollected();
        let join = move |queue: &Arc<WaitQueue>| {
            queue.enqueue(Priority::Normal, None, Waker::noop(), || false, late)
        };
        let (_, new) = sides.run(&queue, deadline_passes(slow, late), join);
        assert!(runs(&queue, &new));
        assert_eq!(poll(&queue, slow), Poll::Ready(WaitResult::Expired));
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn overdue_permit_is_acquired_by_one_call() {
    both_ways(|sides| {
        let (queue, slow, late) = uncollected();
        queue.deadline_passed(slow, late);
        let (acquired, collected) = sides.run(&queue, try_acquire, collects(slow));
        assert_ne!(collected, acquired);
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn overdue_permit_racing_close_drains() {
    both_ways(|sides| {
        let (queue, slow, late) = uncollected();
        let shutdown = move |queue: &Arc<WaitQueue>| {
            queue.close();
            queue.release_overdue(late);
            queue.is_drained()
        };
        let (drained, closed) = sides.run(&queue, deadline_passes(slow, late), shutdown);
        assert_eq!(queue.is_drained(), drained || closed);
        assert_ne!(poll(&queue, slow), Poll::Pending);
        assert!(queue.is_drained() || queue.release(late));
    });
}
