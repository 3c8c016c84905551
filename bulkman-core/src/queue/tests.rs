//! The queue, and its waiters compared to a simple model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::model_tests::UNBOUNDED;
use super::*;
use crate::runtime::{ClockOnly, Runtime};

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

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Atomic::Relaxed);
    }
}

struct Client {
    id: WaiterId,
    woken: Arc<CountingWaker>,
    /// Whether it waits until a deadline. Then it keeps its slot until it collects its permit.
    timed: bool,
}

impl Client {
    fn enqueue(waiters: &mut Waiters, priority: Priority, deadline: Option<Instant>) -> Self {
        let woken = Arc::<CountingWaker>::default();
        let timed = deadline.is_some();
        let id = waiters.push(priority, deadline, Waker::from(Arc::clone(&woken)));
        Self { id, woken, timed }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Pushes `count` waiters that are alike.
    Push {
        priority: u8,
        deadline: Option<u8>,
        count: u8,
    },
    /// Grants this many permits.
    Grant(u8),
    /// Removes `count` successive waiters, in the order of arrival or in reverse.
    Remove {
        first: u16,
        count: u8,
        reverse: bool,
    },
    Reject,
    /// Advances the clock.
    Advance(u8),
    /// Sets the order: LIFO if `true`.
    SetOrder(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, proptest::option::of(1..20_u8), count())
            .prop_map(|(priority, deadline, count)| Op::Push { priority, deadline, count }),
        4 => count().prop_map(Op::Grant),
        3 => (any::<u16>(), count(), any::<bool>())
            .prop_map(|(first, count, reverse)| Op::Remove { first, count, reverse }),
        1 => Just(Op::Reject),
        2 => (1..10_u8).prop_map(Op::Advance),
        1 => any::<bool>().prop_map(Op::SetOrder),
    ]
}

/// Mostly one, or up to more than fit into a chunk.
fn count() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(1), 1 => 1..100_u8]
}

/// The waiters, as a list.
#[derive(Default)]
struct Model {
    now: u64,
    lifo: bool,
    /// Priority, deadline and index of each, in the order of arrival.
    waiting: Vec<(u8, Option<u64>, usize)>,
    states: Vec<WaiterState>,
}

impl Model {
    fn push(&mut self, priority: u8, deadline: Option<u64>) {
        self.waiting.push((priority, deadline, self.states.len()));
        self.states.push(WaiterState::Waiting);
    }

    fn grant(&mut self) -> bool {
        while let Some(position) = self.next() {
            let (_, deadline, index) = self.waiting.remove(position);
            if deadline.is_none_or(|deadline| deadline > self.now) {
                self.states[index] = WaiterState::Granted;
                return true;
            }
            self.states[index] = WaiterState::Expired;
        }
        false
    }

    fn next(&self) -> Option<usize> {
        let highest = self.waiting.iter().map(|waiting| waiting.0).max()?;
        let mut candidates =
            (0..self.waiting.len()).filter(|&position| self.waiting[position].0 == highest);
        if self.lifo {
            candidates.next_back()
        } else {
            candidates.next()
        }
    }

    fn remove(&mut self, index: usize) -> WaiterState {
        self.waiting.retain(|waiting| waiting.2 != index);
        self.states[index]
    }

    fn reject(&mut self, until: usize) {
        let states = &mut self.states;
        self.waiting.retain(|&(_, _, index)| {
            if index < until {
                states[index] = WaiterState::Rejected(QueueRejection::CircuitOpened);
            }
            index >= until
        });
    }
}

proptest! {
    #[test]
    fn waiters_match_the_model(ops in proptest::collection::vec(op(), 1..200)) {
        let base = ClockOnly.now();
        let at = |tick: u64| base + Duration::from_millis(tick);
        let mut waiters = Waiters::new(QueueOrder::Fifo);
        let grants = Grants::new();
        grants.allocate();
        let mut clients: Vec<Option<Client>> = Vec::new();
        let mut model = Model::default();
        let enqueue = |waiters: &mut Waiters, model: &mut Model, priority: u8, deadline: Option<u64>| {
            let class = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
            model.push(priority, deadline);
            Some(Client::enqueue(waiters, class, deadline.map(at)))
        };

        for op in ops {
            let mut wake = WakeList::default();
            match op {
                Op::Push { priority, deadline, count } => {
                    let deadline = deadline.map(|after| model.now + u64::from(after));
                    clients.extend((0..count).map(|_| enqueue(&mut waiters, &mut model, priority, deadline)));
                }
                Op::Grant(count) => {
                    for _ in 0..count {
                        let granted = waiters.grant(Some(at(model.now)), &mut wake);
                        let granted = granted.map(|granted| granted.publish(&grants).wake());
                        prop_assert_eq!(granted.is_some(), model.grant());
                    }
                }
                Op::Remove { first, count, reverse } => {
                    let mut present: Vec<usize> =
                        (0..clients.len()).filter(|&index| clients[index].is_some()).collect();
                    if reverse {
                        present.reverse();
                    }
                    let first = usize::from(first) % present.len().max(1);
                    for index in present.into_iter().skip(first).take(usize::from(count)) {
                        let (state, _waker) = waiters.remove(clients[index].take().unwrap().id);
                        prop_assert_eq!(state, model.remove(index));
                    }
                }
                Op::Reject => {
                    let (watermark, present) = (waiters.watermark(), clients.len());
                    // A waiter that arrives meanwhile is not rejected.
                    while !waiters.reject(QueueRejection::CircuitOpened, watermark, 20, &mut wake) {
                        clients.push(enqueue(&mut waiters, &mut model, 1, None));
                    }
                    model.reject(present);
                }
                Op::Advance(by) => model.now += u64::from(by),
                Op::SetOrder(newest_first) => {
                    model.lifo = newest_first;
                    let _changed = waiters.set_order(if newest_first { QueueOrder::Lifo } else { QueueOrder::Fifo });
                }
            }
            wake.wake();
            prop_assert_eq!(waiters.waiting() as usize, model.waiting.len());
            prop_assert_eq!(waiters.has_deadlines(), model.waiting.iter().any(|waiting| waiting.1.is_some()));
            let mut slots = 0;
            for (index, client) in clients.iter().enumerate() {
                let Some(client) = client else { continue };
                let woken = client.woken.0.load(Atomic::Relaxed);
                prop_assert_eq!(woken, usize::from(model.states[index] != WaiterState::Waiting), "waiter {}", index);
                slots += usize::from(client.timed || model.states[index] != WaiterState::Granted);
            }
            // A chunk is kept for a waiter in it. Up to three of each priority are kept for other
            // reasons: the scan has not left it, it has unused slots, or it is the spare.
            let allocated = waiters.allocated_slots();
            prop_assert!((slots..=(slots + 9) * 64).contains(&allocated), "{} for {}", allocated, slots);
        }
        for (index, client) in clients.iter().enumerate() {
            let Some(Client { id, woken, .. }) = client else { continue };
            let state = model.states[index];
            prop_assert!(!grants.contains(*id) || state == WaiterState::Granted, "waiter {}", index);
            prop_assert_eq!(waiters.poll(*id, &Waker::from(Arc::clone(woken))), Some(state), "waiter {}", index);
        }
        // No waker outlives the queue, even if its task still waits.
        drop(waiters);
        for client in clients.iter().flatten() {
            prop_assert_eq!(Arc::strong_count(&client.woken), 1);
        }
    }
}

#[test]
fn overwritten_grants_are_found_under_the_lock() {
    let (mut waiters, grants) = (Waiters::new(QueueOrder::Fifo), Grants::new());
    grants.allocate();
    let push = |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
    let ids: Vec<WaiterId> = (0..1000).map(|_| push(&mut waiters)).collect();
    for _ in &ids {
        let granted = waiters
            .grant(None, &mut WakeList::default())
            .expect("a call waits");
        granted.publish(&grants);
    }
    let visible = ids.iter().filter(|id| grants.contains(**id)).count();
    assert!(
        (1..1000).contains(&visible),
        "{visible} grants are visible without the lock"
    );
    // Their slots of the ring now belong to later waiters.
    let later: Vec<WaiterId> = (0..1000).map(|_| push(&mut waiters)).collect();
    for id in ids {
        assert_eq!(waiters.poll(id, Waker::noop()), Some(WaiterState::Granted));
        assert_eq!(waiters.remove(id).0, WaiterState::Granted);
    }
    assert_eq!(waiters.waiting(), 1000);
    assert!(
        later
            .into_iter()
            .all(|id| waiters.remove(id).0 == WaiterState::Waiting)
    );
}

#[test]
fn a_remaining_waiter_does_not_retain_chunks_of_removed_ones() {
    for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
        let mut waiters = Waiters::new(order);
        let push =
            |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
        let oldest = push(&mut waiters);
        let mut newest = push(&mut waiters);
        for _ in 0..100_000 {
            let next = push(&mut waiters);
            assert_eq!(waiters.remove(newest).0, WaiterState::Waiting);
            newest = next;
        }
        let (slots, entries) = (waiters.allocated_slots(), waiters.table_capacity());
        assert!(
            slots <= 4 * 64 && entries <= 64,
            "{order:?}: {slots} slots, {entries} entries"
        );
        assert_eq!(waiters.waiting(), 2);
        assert_eq!(waiters.remove(oldest).0, WaiterState::Waiting);
    }
}

#[test]
fn newest_first_scan_drops_entries_of_freed_chunks() {
    let mut waiters = Waiters::new(QueueOrder::Lifo);
    let push = |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
    let ids: Vec<WaiterId> = (0..100_000).map(|_| push(&mut waiters)).collect();
    // Most of them still wait, so the entries of freed chunks are kept.
    for id in &ids[60_000..] {
        assert_eq!(waiters.remove(*id).0, WaiterState::Waiting);
    }
    assert!(waiters.freed() > 600, "{}", waiters.freed());
    let mut wake = WakeList::default();
    assert!(waiters.grant(None, &mut wake).is_some());
    assert_eq!(waiters.freed(), 0);
    assert_eq!(waiters.remove(ids[59_999]).0, WaiterState::Granted);
    assert_eq!(waiters.waiting(), 59_999);
}

#[test]
fn queue_debug_takes_no_lock() {
    let queue = WaitQueue::new(1, fifo(1000));
    assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    for _ in 0..1000 {
        let result = queue.enqueue(
            Priority::Normal,
            None,
            Waker::noop(),
            || false,
            || ClockOnly.now(),
        );
        assert!(matches!(result, Enqueue::Waiting(_)));
    }
    let _locked = lock(&queue.waiters);
    let text = format!("{queue:?}");
    assert_eq!(
        text,
        "WaitQueue { permits: 1, in_use: 1, queue_capacity: 1000, waiting: 1000, closed: false }",
    );
}

#[test]
fn a_million_removed_waiters_release_their_memory() {
    let mut waiters = Waiters::new(QueueOrder::Fifo);
    let ids: Vec<WaiterId> = (0..1_000_000)
        .map(|_| waiters.push(Priority::Normal, None, Waker::noop().clone()))
        .collect();
    for id in ids {
        waiters.remove(id);
    }
    assert_eq!(waiters.waiting(), 0);
    let (slots, entries) = (waiters.allocated_slots(), waiters.table_capacity());
    assert!(
        slots <= 2 * 64 && entries <= 64,
        "{slots} slots and {entries} entries are left"
    );
}

#[test]
fn permits_to_forget_survive_growing_again() {
    let queue = WaitQueue::new(4, fifo(0));
    let now = || ClockOnly.now();
    for _ in 0..4 {
        assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    }
    queue.resize(|| 1, fifo(0), now);
    queue.resize(|| 3, fifo(0), now);
    assert_eq!(queue.in_use(), 4);
    queue.release(now);
    assert_eq!(queue.try_acquire(), TryAcquire::Full);
    queue.release(now);
    assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    assert_eq!(queue.in_use(), 3);
    assert_eq!(queue.try_acquire(), TryAcquire::Full);
}

/// Reading the clock takes longer than granting a permit.
#[test]
fn the_clock_is_read_for_deadlines_only() {
    let rules = KeyRules {
        min: 0,
        max: KeyRules::NO_MAX,
        max_queue: KeyRules::NO_MAX,
        evicts: false,
    };
    for keys in [None, Some(rules)] {
        let settings = QueueSettings { keys, ..fifo(10) };
        let queue = WaitQueue::new(1, settings);
        let reads = AtomicUsize::new(0);
        let now = || {
            reads.fetch_add(1, Atomic::Relaxed);
            ClockOnly.now()
        };
        let wait = |deadline| {
            let mut claim = Claim::ONE;
            let request = request(Priority::Normal, deadline);
            let waits = queue.enqueue_claim(request, &mut claim, Waker::noop(), || false, now);
            assert!(matches!(waits, Enqueue::Waiting(_)));
        };
        assert!(matches!(
            queue.try_acquire_as_calls(&mut Claim::ONE.clone(), now),
            TryAcquire::Acquired
        ));
        wait(None);
        wait(None);
        queue.release_claim(Claim::ONE, now);
        assert_eq!(reads.load(Atomic::Relaxed), 0);
        wait(Some(ClockOnly.now() + Duration::from_secs(60)));
        let joined = reads.load(Atomic::Relaxed);
        queue.release_claim(Claim::ONE, now);
        assert!((1..reads.load(Atomic::Relaxed)).contains(&joined));
    }
}

#[test]
fn queue_state_packs_its_extremes() {
    for closed in [false, true] {
        for to_forget in [0, 1, (1 << 32) - 1] {
            for waiting in [0, 1, (1 << 31) - 1] {
                let open = QueueState::IDLE
                    .with_permits_to_forget(to_forget)
                    .with_waiting(waiting);
                let state = if closed { open.with_closed() } else { open };
                let unpacked = QueueState::from_bits(state.to_bits());
                assert_eq!(
                    (
                        unpacked.is_closed(),
                        unpacked.permits_to_forget(),
                        unpacked.waiting()
                    ),
                    (closed, to_forget, waiting)
                );
                assert_eq!(unpacked.is_drained(), closed && to_forget == 0);
                assert_eq!(
                    unpacked == QueueState::IDLE,
                    !closed && to_forget == 0 && waiting == 0
                );
            }
        }
    }
}

#[test]
fn contended_permits_are_acquired_only_under_the_lock() {
    let permits = AvailablePermits::new();
    assert!(!permits.try_acquire());
    assert!(!permits.release(2));
    assert!(permits.try_acquire());
    permits.set_contended(true);
    assert!(!permits.try_acquire());
    assert!(permits.release(1), "a release learns that it is contended");
    assert_eq!(permits.available(), 2);
    assert!(permits.try_acquire_locked());
    assert!(permits.try_acquire_locked());
    assert!(!permits.try_acquire_locked());
    assert!(!permits.try_acquire(), "contended and empty");
    permits.set_contended(false);
    assert!(!permits.try_acquire());
    assert_eq!(permits.available(), 0);
}

/// Hazard K25.
#[test]
fn limit_of_zero_grants_nothing_of_any_weight() {
    let queue = WaitQueue::new(2, fifo(10));
    let now = || ClockOnly.now();
    queue.resize(|| 0, fifo(10), now);
    let mut waiting = Vec::new();
    for permits in [2, 1, 3] {
        let mut claim = Claim::new(permits);
        assert_ne!(
            queue.try_acquire_as_calls(&mut claim, now),
            TryAcquire::Acquired
        );
        let waker = Waker::noop();
        let result = queue.enqueue_claim(
            request(Priority::Normal, None),
            &mut claim,
            waker,
            || false,
            now,
        );
        let Enqueue::Waiting(id) = result else {
            panic!("{result:?}")
        };
        assert_eq!(queue.poll(id, waker), Poll::Pending);
        waiting.push(id);
    }
    queue.resize(|| 1, fifo(10), now);
    let mut claim = Claim::new(2);
    let granted = queue.poll_claim(waiting[0], &mut claim, Waker::noop());
    assert_eq!(granted, Poll::Ready(WaitResult::Granted));
    assert_eq!(claim.permits(), 1);
    assert_eq!((queue.in_use(), queue.waiting()), (1, 2));
}

/// Fault F04.
#[test]
fn late_collection_ends_the_search_for_overdue_permits() {
    let base = ClockOnly.now();
    let deadline = base + Duration::from_secs(1);
    let queue = WaitQueue::new(1, fifo(8));
    assert_eq!(queue.try_acquire(), TryAcquire::Acquired);
    let waiter = queue.enqueue(
        Priority::Normal,
        Some(deadline),
        Waker::noop(),
        || false,
        || base,
    );
    let Enqueue::Waiting(waiter) = waiter else {
        panic!("{waiter:?}")
    };
    queue.release(|| base);
    queue.deadline_passed(waiter, || deadline);
    assert_eq!(queue.elsewhere.load(Atomic::Relaxed), OVERDUE);
    let collected = queue.poll(waiter, Waker::noop());
    assert_eq!(collected, Poll::Ready(WaitResult::Granted));
    // A call without a permit takes the lock once to find that none is overdue.
    assert_eq!(queue.try_acquire(), TryAcquire::MustWait);
    assert_eq!(queue.elsewhere.load(Atomic::Relaxed), 0);
}

/// Returns a queue without available permits in which permits are shared between keys, and the time
/// of 100 operations on it: the shortest of several measurements.
fn time_of_100(
    keys: u64,
    waiters_of_each: u64,
    mut operation: impl FnMut(&WaitQueue, &[WaiterId]),
) -> Duration {
    let mut settings = fifo(1_000_000);
    settings.keys = Some(KeyRules {
        min: 0,
        max: KeyRules::NO_MAX,
        max_queue: KeyRules::NO_MAX,
        evicts: true,
    });
    let queue = WaitQueue::new(1, settings);
    let claim = |key: u64| Claim::ONE.with_key(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 | 2);
    let now = || ClockOnly.now();
    let holder = queue.try_acquire_as_calls(&mut claim(0), now);
    assert_eq!(holder, TryAcquire::Acquired);
    let mut waiting = Vec::new();
    for number in 0..keys * waiters_of_each {
        let request = request(Priority::Normal, None);
        let mut claim = claim(1 + number % keys);
        let result = queue.enqueue_claim(request, &mut claim, Waker::noop(), || false, now);
        let Enqueue::Waiting(id) = result else {
            panic!("{result:?}")
        };
        waiting.push(id);
    }
    let rounds = waiting.chunks(100).take(8).map(|waiters| {
        let begun = ClockOnly.now();
        operation(&queue, waiters);
        ClockOnly.now() - begun
    });
    rounds.min().unwrap()
}

/// Hazard K14.
#[test]
fn grant_does_not_search_the_waiting_keys() {
    let grant = |queue: &WaitQueue, waiters: &[WaiterId]| {
        for _ in waiters {
            // The key of the waiter that was granted the permit last.
            let held = queue.running_keys.get().unwrap().all();
            let &[(key, 1)] = &held[..] else {
                panic!("{held:?}")
            };
            queue.release_claim(Claim::ONE.with_key(key), || ClockOnly.now());
        }
    };
    let few = time_of_100(1_000, 1, grant);
    let many = time_of_100(100_000, 1, grant);
    // A search would take 100 times as long.
    assert!(many < 30 * few, "{few:?}, {many:?}");
}

/// Hazard K15.
#[test]
fn cancelled_waiter_does_not_search_its_key() {
    let cancel = |queue: &WaitQueue, waiters: &[WaiterId]| {
        for &id in waiters.iter().rev() {
            queue.cancel_claim(id, Claim::ONE.with_key(7), || ClockOnly.now());
        }
    };
    let few = time_of_100(1, 1_000, cancel);
    let many = time_of_100(1, 100_000, cancel);
    assert!(many < 30 * few, "{few:?}, {many:?}");
}

/// Entries of freed chunks are dropped before and behind those that stay.
#[test]
fn waiters_are_found_between_chunks_that_are_dropped() {
    const CHUNKS: usize = 15;
    let mut waiters = Waiters::new(QueueOrder::Fifo);
    let ids: Vec<_> = (0..CHUNKS * 64)
        .map(|_| waiters.push(Priority::Normal, None, Waker::noop().clone()))
        .collect();
    let mut remaining: Vec<_> = (0..CHUNKS).collect();
    for left in [13, 1, 2, 3, 4, 5, 6, 7] {
        for &id in &ids[left * 64..][..64] {
            assert_eq!(waiters.remove(id).0, WaiterState::Waiting);
        }
        remaining.retain(|&chunk| chunk != left);
    }
    assert_eq!(waiters.freed(), 0, "the entries of a majority are dropped");
    for id in remaining.iter().flat_map(|chunk| &ids[chunk * 64..][..64]) {
        assert_eq!(waiters.remove(*id).0, WaiterState::Waiting);
    }
    assert_eq!(waiters.waiting(), 0);
}

/// As other waiters, those of keys leave no memory behind.
#[test]
fn chunks_of_waiters_with_keys_are_freed_by_grants() {
    for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
        let mut settings = QueueSettings::of_capacity(10_000, order);
        settings.keys = Some(UNBOUNDED);
        let queue = WaitQueue::new(1, settings);
        let now = || ClockOnly.now();
        let mut running = Claim::ONE.with_key(2);
        let acquired = queue.try_acquire_as_calls(&mut running, now);
        assert_eq!(acquired, TryAcquire::Acquired);
        for number in 0..10_000 {
            let mut claim = Claim::ONE.with_key(2 + number % 3);
            let request = request(Priority::Normal, None);
            let joined = queue.enqueue_claim(request, &mut claim, Waker::noop(), || false, now);
            assert!(matches!(joined, Enqueue::Waiting(_)), "{joined:?}");
        }
        // The last waiter stays.
        for _ in 1..10_000 {
            let held = queue.running_keys.get().unwrap().all();
            let &[(key, 1)] = &held[..] else {
                panic!("{held:?}")
            };
            queue.release_claim(Claim::ONE.with_key(key), now);
        }
        let slots = lock(&queue.waiters).allocated_slots();
        assert!(slots <= 3 * 64, "{order:?}: {slots}");
    }
}

fn one_call_of_each_key(order: QueueOrder) -> QueueSettings {
    let mut settings = QueueSettings::of_capacity(8, order);
    settings.keys = Some(KeyRules {
        max: 1,
        ..UNBOUNDED
    });
    settings
}

/// A call may look for a permit just before permits are shared between keys, and join after that.
#[test]
fn waiter_that_joins_without_a_key_neither_waits_for_keys_nor_confuses_them() {
    let now = || ClockOnly.now();
    for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
        let settings = one_call_of_each_key(order);
        let queue = WaitQueue::new(2, settings);
        let waker = Waker::noop();
        let [mut suspended, mut first, mut second] = [5, 5, 6].map(|key| Claim::ONE.with_key(key));
        for claim in [&mut first, &mut second] {
            assert_eq!(queue.try_acquire_as_calls(claim, now), TryAcquire::Acquired);
        }
        let joined = queue.enqueue_claim(
            request(Priority::Normal, None),
            &mut suspended,
            waker,
            || false,
            now,
        );
        let Enqueue::Waiting(id) = joined else {
            panic!("{joined:?}")
        };
        let late = queue.enqueue(Priority::Normal, None, waker, || false, now);
        let Enqueue::Waiting(late) = late else {
            panic!("{late:?}")
        };
        queue.resize(|| 2, settings, now);
        queue.release_claim(second, now);
        let polled = queue.poll_claim(id, &mut suspended, waker);
        assert_eq!(
            polled,
            Poll::Pending,
            "its key is at its maximum: {order:?}"
        );
        let granted = Poll::Ready(WaitResult::Granted);
        assert_eq!(queue.poll(late, waker), granted, "{order:?}");
        queue.release(now);
        queue.release_claim(first, now);
        assert_eq!(queue.poll_claim(id, &mut suspended, waker), granted);
        queue.release_claim(suspended, now);
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    }
}

/// Hazard K16.
#[test]
fn call_of_another_key_takes_no_lock_beside_a_suspended_waiter() {
    let now = || ClockOnly.now();
    let queue = WaitQueue::new(2, one_call_of_each_key(QueueOrder::Fifo));
    let [mut first, mut suspended, mut other] = [5, 5, 6].map(|key| Claim::ONE.with_key(key));
    let call_of = |claim: &mut Claim| {
        assert_eq!(queue.try_acquire_as_calls(claim, now), TryAcquire::Acquired);
    };
    call_of(&mut first);
    // Its permit is in the counter from now on.
    call_of(&mut other);
    queue.release_claim(other, now);
    let request = request(Priority::Normal, None);
    let joined = queue.enqueue_claim(request, &mut suspended, Waker::noop(), || false, now);
    let Enqueue::Waiting(id) = joined else {
        panic!("{joined:?}")
    };
    {
        let _locked = lock(&queue.waiters);
        call_of(&mut other);
        queue.release_claim(other, now);
    }
    let mut poll = || queue.poll_claim(id, &mut suspended, Waker::noop());
    assert_eq!(poll(), Poll::Pending);
    queue.release_claim(first, now);
    assert_eq!(poll(), Poll::Ready(WaitResult::Granted));
    queue.release_claim(suspended, now);
    assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
}
