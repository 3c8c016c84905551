//! New calls that are next, although others wait.
//!
//! Permits are available while calls wait if the next of them needs more: it collects them, or they
//! are reserved for keys that hold fewer than the minimum. A new call of a higher priority or of
//! another key may come before it, and then need not wait.

use std::time::Instant;

use super::WaitQueue;
use super::claim::Claim;
use super::order::QueueOrder;
use super::waiters::{PRIORITY_ORDER, Waiters, index_of};
use super::waiting_claims::Request;
use super::wake_list::SmallWakeList;

impl WaitQueue {
    /// Acquires the permits of a call that must not wait, if it is next.
    ///
    /// If the call acquires all permits of a limit that is smaller than its claim, the claim is
    /// changed.
    #[cold]
    #[inline(never)]
    pub(crate) fn try_acquire_as_next(
        &self,
        request: Request,
        claim: &mut Claim,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if !self.may_be_next(*claim) {
            return false;
        }
        let (mut waiters, now) = self.lock_with_time(now, false);
        self.set_key(claim);
        let mut wake = SmallWakeList::default();
        let acquired = self.acquire_as_next(&mut waiters, now, request, claim, &mut wake);
        self.settle(&mut waiters);
        drop(waiters);
        wake.wake();
        acquired
    }

    /// Returns `false` if a new call has to wait, whichever of the calls is next.
    #[inline]
    pub(super) fn may_be_next(&self, claim: Claim) -> bool {
        self.idle_permits() >= self.permits_to_grant(claim.permits()) as usize
    }

    /// As [`try_acquire_as_next`](Self::try_acquire_as_next). The caller holds the lock, wakes, and
    /// [settles](Self::settle).
    pub(super) fn acquire_as_next(
        &self,
        waiters: &mut Waiters,
        now: Option<Instant>,
        request: Request,
        claim: &mut Claim,
        wake: &mut SmallWakeList,
    ) -> bool {
        let state = self.state();
        if state.is_closed() || state.permits_to_forget() > 0 || self.idle_permits() == 0 {
            return false;
        }
        // Those before it whose deadlines have passed do not count.
        wake.append(self.assign_permits(waiters, now));
        let had_overdue = self.has_overdue();
        if self.acquire_idle(waiters, self.state(), claim) {
            return true;
        }
        if had_overdue {
            // Permits that were returned, and do not suffice, may suffice for a waiter.
            wake.append(self.assign_permits(waiters, now));
        }
        if waiters.waiting() == 0 || !waiters.come_after(request, *claim) {
            return false;
        }
        if claim.key() == 0 {
            return self.acquire_many(claim);
        }
        let acquired = self.acquire_for_key(waiters, claim);
        if acquired {
            // A waiter of its key may have been next, and another may be now.
            waiters.set_level_of(claim.key());
            wake.append(self.assign_permits(waiters, now));
        }
        acquired
    }
}

impl Waiters {
    /// Returns `true` if a new call would be next: before all that wait, except those whose key is
    /// at its maximum.
    fn come_after(&self, request: Request, claim: Claim) -> bool {
        let own = index_of(request.priority);
        let keys = self.special.keys.as_deref();
        let is_empty = |index: usize| {
            self.waiting_in_no_key(index) == 0 && keys.is_none_or(|keys| keys.next(index).is_none())
        };
        let mut higher = PRIORITY_ORDER.into_iter().take_while(|&index| index != own);
        if !higher.all(is_empty) {
            return false;
        }
        match (claim.key(), keys) {
            // In the order of arrival, others are before it.
            (0, _) => is_empty(own) || self.order == QueueOrder::Lifo,
            (_, None) => false,
            (key, Some(keys)) => {
                self.waiting_in_no_key(own) == 0
                    && keys.come_after(key, own, request.share, claim.permits(), self.order)
            }
        }
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use std::sync::Arc;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::queue::limits::{KeyRules, QueueSettings};
    use crate::queue::model_tests::{CountingWaker, UNBOUNDED};
    use crate::queue::{Enqueue, Priority, TryAcquire, WaitResult, WaiterId};
    use crate::runtime::{ClockOnly, Runtime};

    struct Call {
        priority: Priority,
        key: u64,
        permits: u32,
        share: u32,
    }

    fn call(priority: Priority, key: u64, permits: u32) -> Call {
        Call {
            priority,
            key,
            permits,
            share: 1,
        }
    }

    struct Waiting {
        id: WaiterId,
        claim: Claim,
        woken: Arc<CountingWaker>,
    }

    impl Waiting {
        /// Returns the result, and how often the waiter was woken.
        fn poll(&mut self, queue: &WaitQueue) -> (Poll<WaitResult>, usize) {
            let woken = self.woken.count();
            let waker = Waker::from(Arc::clone(&self.woken));
            (queue.poll_claim(self.id, &mut self.claim, &waker), woken)
        }
    }

    /// A queue whose clock is set by the test.
    struct Test {
        queue: WaitQueue,
        now: Instant,
    }

    impl Test {
        fn new(permits: usize, settings: QueueSettings) -> Self {
            Self {
                queue: WaitQueue::new(permits, settings),
                now: ClockOnly.now(),
            }
        }

        fn run(&self, key: u64, permits: u32) -> Claim {
            let mut claim = Claim::new(permits).with_key(key);
            let acquired = self.queue.try_acquire_as_calls(&mut claim, || self.now);
            assert_eq!(acquired, TryAcquire::Acquired);
            claim
        }

        /// `timed`: with a deadline, which is the next [`pass`](Self::pass).
        fn join(&self, call: &Call, timed: bool) -> (Enqueue, Waiting) {
            let woken = Arc::<CountingWaker>::default();
            let mut claim = Claim::new(call.permits).with_key(call.key);
            let request = Request {
                priority: call.priority,
                deadline: timed.then(|| self.now + TICK),
                share: call.share,
            };
            let waker = Waker::from(Arc::clone(&woken));
            let joined =
                self.queue
                    .enqueue_claim(request, &mut claim, &waker, || false, || self.now);
            let id = match joined {
                Enqueue::Waiting(id) => id,
                _ => WaiterId::new(0, 0),
            };
            (joined, Waiting { id, claim, woken })
        }

        fn wait(&self, call: &Call, timed: bool) -> Waiting {
            let (joined, waiting) = self.join(call, timed);
            assert!(matches!(joined, Enqueue::Waiting(_)), "{joined:?}");
            waiting
        }

        fn pass(&mut self) {
            self.now += TICK;
        }

        fn try_next(&self, call: &Call) -> bool {
            let mut claim = Claim::new(call.permits).with_key(call.key);
            let request = Request {
                priority: call.priority,
                deadline: None,
                share: call.share,
            };
            self.queue
                .try_acquire_as_next(request, &mut claim, || self.now)
        }
    }

    const TICK: Duration = Duration::from_millis(10);
    const GRANTED: (Poll<WaitResult>, usize) = (Poll::Ready(WaitResult::Granted), 1);

    fn fifo(capacity: usize, keys: Option<KeyRules>) -> QueueSettings {
        let mut settings = QueueSettings::of_capacity(capacity, QueueOrder::Fifo);
        settings.keys = keys;
        settings
    }

    const ALONE: KeyRules = KeyRules {
        max: 1,
        ..UNBOUNDED
    };
    const RESERVING: KeyRules = KeyRules {
        min: 1,
        ..UNBOUNDED
    };

    /// A call that is rejected finds waiters whose deadlines have passed.
    #[test]
    fn rejected_call_leaves_no_permits_to_nobody() {
        let mut test = Test::new(4, fifo(10, None));
        let _running = test.run(0, 1);
        let _expiring = test.wait(&call(Priority::Normal, 0, 4), true);
        let mut normal = test.wait(&call(Priority::Normal, 0, 2), false);
        let mut low = test.wait(&call(Priority::Low, 0, 1), false);
        test.pass();
        assert!(!test.try_next(&call(Priority::Normal, 0, 3)));
        let polled = [normal.poll(&test.queue), low.poll(&test.queue)];
        assert_eq!(polled, [GRANTED, GRANTED]);

        let mut test = Test::new(3, fifo(10, Some(RESERVING)));
        let _running = (test.run(2, 1), test.run(2, 1));
        let _expiring = test.wait(&call(Priority::Normal, 2, 1), true);
        let mut low = test.wait(&call(Priority::Low, 3, 1), false);
        test.pass();
        assert!(!test.try_next(&call(Priority::Normal, 2, 1)));
        assert_eq!(low.poll(&test.queue), GRANTED);
    }

    #[test]
    fn call_that_evicts_another_wakes_those_granted_before() {
        let mut test = Test::new(4, fifo(5, Some(UNBOUNDED)));
        let _running = test.run(9, 1);
        let _expiring = test.wait(&call(Priority::Normal, 2, 4), true);
        let mut next = test.wait(&call(Priority::Low, 3, 3), false);
        let long = call(Priority::Low, 4, 1);
        let _long = [(); 3].map(|()| test.wait(&long, false));
        test.queue
            .resize(|| 4, fifo(3, Some(UNBOUNDED)), || test.now);
        test.pass();
        let (joined, _joined) = test.join(&call(Priority::Low, 5, 1), false);
        assert!(matches!(joined, Enqueue::Waiting(_)), "{joined:?}");
        assert_eq!(next.poll(&test.queue), GRANTED);
    }

    #[test]
    fn queue_that_an_expired_waiter_left_is_not_full() {
        let mut test = Test::new(3, fifo(3, Some(RESERVING)));
        let _running = (test.run(2, 1), test.run(3, 1));
        let _expiring = test.wait(&call(Priority::Normal, 2, 1), true);
        let _others = [(); 2].map(|()| test.wait(&call(Priority::Normal, 2, 1), false));
        test.pass();
        let (joined, _joined) = test.join(&call(Priority::Normal, 3, 1), false);
        assert!(matches!(joined, Enqueue::Waiting(_)), "{joined:?}");
    }

    /// A waiter whose key had no meaning meanwhile still adds its permits to the key.
    #[test]
    fn key_is_later_once_a_waiter_in_no_key_holds_permits_of_it() {
        let test = Test::new(4, fifo(10, Some(RESERVING)));
        let ends = test.run(9, 2);
        let mut in_no_key = test.wait(&call(Priority::Normal, 2, 3), false);
        for keys in [None, Some(RESERVING)] {
            test.queue.resize(|| 4, fifo(10, keys), || test.now);
        }
        let mut waiting = test.wait(&call(Priority::Normal, 2, 3), false);
        test.queue.release_claim(ends, || test.now);
        assert_eq!(in_no_key.poll(&test.queue), GRANTED);
        assert!(test.try_next(&call(Priority::Normal, 5, 1)));
        assert_eq!(waiting.poll(&test.queue), (Poll::Pending, 0));
    }

    /// Permits are acquired without the lock then.
    #[test]
    fn call_that_does_not_fit_is_rejected_while_none_waits() {
        let test = Test::new(2, fifo(10, Some(RESERVING)));
        let _running = test.run(2, 1);
        assert!(!test.try_next(&call(Priority::High, 2, 1)));
        assert!(test.try_next(&call(Priority::Low, 3, 1)));
    }

    #[test]
    fn admitted_call_leaves_permits_to_another_key() {
        let test = Test::new(5, fifo(10, Some(UNBOUNDED)));
        let _running = test.run(9, 1);
        let _heavy = test.wait(&call(Priority::Low, 2, 5), false);
        let mut light = test.wait(&call(Priority::Low, 3, 1), false);
        assert!(test.try_next(&call(Priority::High, 2, 3)));
        assert_eq!(light.poll(&test.queue), GRANTED);
    }

    #[test]
    fn overdue_permit_of_a_suspended_key_resumes_it() {
        let mut test = Test::new(2, fifo(10, Some(ALONE)));
        let (first, second) = (test.run(8, 1), test.run(9, 1));
        let overdue = test.wait(&call(Priority::Normal, 2, 1), true);
        test.queue.release_claim(first, || test.now);
        test.pass();
        test.queue.deadline_passed(overdue.id, || test.now);
        // Another thread changes the limit, and has not released what is overdue yet.
        test.queue.set_permits(|| 1, || test.now);
        let mut waiting = test.wait(&call(Priority::Normal, 2, 1), false);
        test.queue.release_claim(second, || test.now);
        let mut other = test.wait(&call(Priority::Normal, 3, 1), false);
        assert_eq!(waiting.poll(&test.queue), GRANTED, "it was first");
        test.queue.release_overdue(|| test.now);
        assert_eq!(other.poll(&test.queue), (Poll::Pending, 0));
        test.queue.release_claim(waiting.claim, || test.now);
        assert_eq!(other.poll(&test.queue), GRANTED);
    }

    #[test]
    fn rejected_call_leaves_the_permit_of_an_overdue_waiter_to_another() {
        let mut test = Test::new(4, fifo(10, Some(ALONE)));
        let _running = test.run(3, 1);
        let (first, second) = (test.run(4, 1), test.run(2, 1));
        let overdue = test.wait(&call(Priority::Normal, 2, 1), true);
        test.queue.release_claim(second, || test.now);
        let third = test.run(6, 1);
        test.pass();
        test.queue.deadline_passed(overdue.id, || test.now);
        // Another thread changes the limit, and has not released what is overdue yet.
        test.queue.set_permits(|| 3, || test.now);
        let mut waiting = test.wait(&call(Priority::Normal, 2, 1), false);
        test.queue.release_claim(first, || test.now);
        test.queue.release_claim(third, || test.now);
        assert!(!test.try_next(&call(Priority::Normal, 3, 1)));
        assert_eq!(waiting.poll(&test.queue), GRANTED);
    }

    #[test]
    fn rejected_call_keeps_the_share_of_its_key() {
        let test = Test::new(5, fifo(10, Some(UNBOUNDED)));
        let (_running, ends) = ((test.run(2, 1), test.run(3, 1)), test.run(9, 1));
        let shared = |key, share| Call {
            share,
            ..call(Priority::Normal, key, 3)
        };
        let mut larger = test.wait(&shared(2, 4), false);
        let mut smaller = test.wait(&shared(3, 2), false);
        assert!(!test.try_next(&call(Priority::Normal, 2, 1)));
        test.queue.release_claim(ends, || test.now);
        assert_eq!(larger.poll(&test.queue), GRANTED);
        assert_eq!(smaller.poll(&test.queue), (Poll::Pending, 0));
    }

    #[test]
    fn rejected_call_is_not_counted_as_waiting() {
        let test = Test::new(4, fifo(2, None));
        let _running = test.run(0, 3);
        let _waiting = test.wait(&call(Priority::Normal, 0, 4), false);
        std::thread::scope(|scope| {
            let rejected = scope.spawn(|| {
                for _ in 0..20_000 {
                    assert!(!test.try_next(&call(Priority::Normal, 0, 1)));
                }
            });
            while !rejected.is_finished() {
                let tried = test
                    .queue
                    .try_acquire_as_calls(&mut Claim::new(3), || test.now);
                assert_eq!((tried, test.queue.waiting()), (TryAcquire::MustWait, 1));
            }
        });
    }
}
