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
    queue: &Arc<WaitQueue>,
    waiter: WaiterId,
    now: impl Fn() -> Instant + Send + 'static,
) -> thread::JoinHandle<bool> {
    let queue = queue.clone();
    thread::spawn(move || queue.deadline_passed(waiter, now))
}

/// Fault F04.
#[test]
fn collecting_racing_take_back_leaves_one_holder() {
    loom::model(|| {
        let (queue, slow, late) = uncollected();
        let next = enqueue_waiter(&queue);
        let timer = deadline_passes(&queue, slow, late);
        let collected = poll(&queue, slow) == Poll::Ready(WaitResult::Granted);
        timer.join().unwrap();
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
    loom::model(|| {
        let (queue, slow, late) = uncollected();
        let next = enqueue_waiter(&queue);
        let timer = deadline_passes(&queue, slow, late);
        queue.cancel(slow, late);
        timer.join().unwrap();
        assert!(is_granted(&queue, next));
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn take_back_racing_enqueue_serves_the_new_call() {
    loom::model(|| {
        let (queue, slow, late) = uncollected();
        let timer = deadline_passes(&queue, slow, late);
        let new = queue.enqueue(Priority::Normal, None, Waker::noop(), || false, late);
        timer.join().unwrap();
        match new {
            Enqueue::Acquired => {}
            Enqueue::Waiting(id) => assert!(is_granted(&queue, id)),
            other => panic!("{other:?}"),
        }
        assert_eq!(poll(&queue, slow), Poll::Ready(WaitResult::Expired));
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn overdue_permit_is_acquired_by_one_call() {
    loom::model(|| {
        let (queue, slow, late) = uncollected();
        queue.deadline_passed(slow, late);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.try_acquire() == TryAcquire::Acquired)
        };
        let collected = poll(&queue, slow) == Poll::Ready(WaitResult::Granted);
        assert_ne!(collected, other.join().unwrap());
        queue.release(late);
        assert_all_available(&queue, 1);
    });
}

/// Fault F04.
#[test]
fn overdue_permit_racing_close_drains() {
    loom::model(|| {
        let (queue, slow, late) = uncollected();
        let timer = deadline_passes(&queue, slow, late);
        queue.close();
        queue.release_overdue(late);
        timer.join().unwrap();
        assert_ne!(poll(&queue, slow), Poll::Pending);
        assert!(queue.is_drained() || queue.release(late));
    });
}
