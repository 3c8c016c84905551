//! The rows of waiters against a plain model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use super::waiters::Fate;
use super::*;
use crate::runtime::{ClockOnly, Runtime};

#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Atomic::Relaxed);
    }
}

struct Client {
    key: Key,
    woken: Arc<Counted>,
}

impl Client {
    fn join(waiters: &mut Waiters, priority: Priority, deadline: Option<Instant>) -> Self {
        let woken = Arc::<Counted>::default();
        let key = waiters.push(priority, deadline, Waker::from(Arc::clone(&woken)));
        Self { key, woken }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many, one like the other.
    Push {
        priority: u8,
        deadline: Option<u8>,
        count: u8,
    },
    Grant(u8),
    /// So many in a row, in the order of arrival or against it.
    Remove {
        first: u16,
        count: u8,
        back: bool,
    },
    Refuse,
    Tick(u8),
    Order(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, proptest::option::of(1..20_u8), some())
            .prop_map(|(priority, deadline, count)| Op::Push { priority, deadline, count }),
        4 => some().prop_map(Op::Grant),
        3 => (any::<u16>(), some(), any::<bool>())
            .prop_map(|(first, count, back)| Op::Remove { first, count, back }),
        1 => Just(Op::Refuse),
        2 => (1..10_u8).prop_map(Op::Tick),
        1 => any::<bool>().prop_map(Op::Order),
    ]
}

/// One, mostly; or more than have their places in one piece of memory.
fn some() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(1), 1 => 1..100_u8]
}

/// Waiters as anybody would write them down.
#[derive(Default)]
struct Model {
    now: u64,
    lifo: bool,
    /// Priority, deadline, number; in the order of arrival.
    waiting: Vec<(u8, Option<u64>, usize)>,
    fates: Vec<Fate>,
}

impl Model {
    fn push(&mut self, priority: u8, deadline: Option<u64>) {
        self.waiting.push((priority, deadline, self.fates.len()));
        self.fates.push(Fate::Waiting);
    }

    fn grant(&mut self) -> bool {
        while let Some(position) = self.next() {
            let (_, deadline, who) = self.waiting.remove(position);
            if deadline.is_none_or(|deadline| deadline > self.now) {
                self.fates[who] = Fate::Granted;
                return true;
            }
            self.fates[who] = Fate::Expired;
        }
        false
    }

    fn next(&self) -> Option<usize> {
        let urgent = self.waiting.iter().map(|waiting| waiting.0).max()?;
        let mut class =
            (0..self.waiting.len()).filter(|&position| self.waiting[position].0 == urgent);
        if self.lifo {
            class.next_back()
        } else {
            class.next()
        }
    }

    fn remove(&mut self, who: usize) -> Fate {
        self.waiting.retain(|waiting| waiting.2 != who);
        self.fates[who]
    }

    fn refuse(&mut self, until: usize) {
        let fates = &mut self.fates;
        self.waiting.retain(|&(_, _, who)| {
            if who < until {
                fates[who] = Fate::Refused(QueueRejection::Circuit);
            }
            who >= until
        });
    }
}

proptest! {
    #[test]
    fn waiters_follow_the_model(ops in proptest::collection::vec(op(), 1..200)) {
        let base = ClockOnly.now();
        let at = |tick: u64| base + Duration::from_millis(tick);
        let mut waiters = Waiters::new(QueueOrder::Fifo);
        let grants = Grants::new();
        grants.prepare();
        let mut clients: Vec<Option<Client>> = Vec::new();
        let mut model = Model::default();
        let join = |waiters: &mut Waiters, model: &mut Model, priority: u8, deadline: Option<u64>| {
            let class = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
            model.push(priority, deadline);
            Some(Client::join(waiters, class, deadline.map(at)))
        };

        for op in ops {
            let mut wake = WakeList::default();
            match op {
                Op::Push { priority, deadline, count } => {
                    let deadline = deadline.map(|after| model.now + u64::from(after));
                    clients.extend((0..count).map(|_| join(&mut waiters, &mut model, priority, deadline)));
                }
                Op::Grant(count) => {
                    for _ in 0..count {
                        let granted = waiters.grant(Some(at(model.now)), &mut wake);
                        let granted = granted.map(|granted| granted.tell(&grants).wake());
                        prop_assert_eq!(granted.is_some(), model.grant());
                    }
                }
                Op::Remove { first, count, back } => {
                    let mut present: Vec<usize> =
                        (0..clients.len()).filter(|&who| clients[who].is_some()).collect();
                    if back {
                        present.reverse();
                    }
                    let first = usize::from(first) % present.len().max(1);
                    for who in present.into_iter().skip(first).take(usize::from(count)) {
                        let (fate, _waker) = waiters.remove(clients[who].take().unwrap().key);
                        prop_assert_eq!(fate, model.remove(who));
                    }
                }
                Op::Refuse => {
                    let (until, known) = (waiters.arrivals(), clients.len());
                    // Somebody comes while the others are refused, and is not.
                    while !waiters.refuse(QueueRejection::Circuit, until, 20, &mut wake) {
                        clients.push(join(&mut waiters, &mut model, 1, None));
                    }
                    model.refuse(known);
                }
                Op::Tick(by) => model.now += u64::from(by),
                Op::Order(newest_first) => {
                    model.lifo = newest_first;
                    waiters.set_order(if newest_first { QueueOrder::Lifo } else { QueueOrder::Fifo });
                }
            }
            wake.wake();
            prop_assert_eq!(waiters.waiting() as usize, model.waiting.len());
            prop_assert_eq!(waiters.any_timed(), model.waiting.iter().any(|waiting| waiting.1.is_some()));
            let mut places = 0;
            for (who, client) in clients.iter().enumerate() {
                let Some(client) = client else { continue };
                let woken = client.woken.0.load(Atomic::Relaxed);
                prop_assert_eq!(woken, usize::from(model.fates[who] != Fate::Waiting), "waiter {}", who);
                places += usize::from(model.fates[who] != Fate::Granted);
            }
            // A chunk is kept for somebody in it; or, up to three of each priority, because the queue
            // has not moved on from it, its last places were not given yet, or as a spare.
            prop_assert!(waiters.capacity() <= (places + 9) * 64, "{} for {}", waiters.capacity(), places);
        }
        for (who, client) in clients.iter().enumerate() {
            let Some(Client { key, woken }) = client else { continue };
            let fate = model.fates[who];
            prop_assert!(!grants.include(*key) || fate == Fate::Granted, "waiter {}", who);
            prop_assert_eq!(waiters.poll(*key, &Waker::from(Arc::clone(woken))), Some(fate), "waiter {}", who);
        }
        // Some wait still: no waker outlives the queue.
        drop(waiters);
        for client in clients.iter().flatten() {
            prop_assert_eq!(Arc::strong_count(&client.woken), 1);
        }
    }
}

#[test]
fn a_grant_that_is_forgotten_is_seen_with_the_lock() {
    let (mut waiters, grants) = (Waiters::new(QueueOrder::Fifo), Grants::new());
    grants.prepare();
    let push = |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
    let keys: Vec<Key> = (0..1000).map(|_| push(&mut waiters)).collect();
    for _ in &keys {
        let granted = waiters
            .grant(None, &mut WakeList::default())
            .expect("somebody waits");
        granted.tell(&grants);
    }
    let known = keys.iter().filter(|key| grants.include(**key)).count();
    assert!(
        (1..1000).contains(&known),
        "{known} are known without the lock"
    );
    // What their places were is others' by now.
    let others: Vec<Key> = (0..1000).map(|_| push(&mut waiters)).collect();
    for key in keys {
        assert_eq!(waiters.poll(key, Waker::noop()), Some(Fate::Granted));
        assert_eq!(waiters.remove(key).0, Fate::Granted);
    }
    assert_eq!(waiters.waiting(), 1000);
    assert!(
        others
            .into_iter()
            .all(|key| waiters.remove(key).0 == Fate::Waiting)
    );
}

#[test]
fn one_who_stays_holds_no_memory_for_those_who_go() {
    for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
        let mut waiters = Waiters::new(order);
        let push =
            |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
        let oldest = push(&mut waiters);
        let mut newest = push(&mut waiters);
        for _ in 0..100_000 {
            let next = push(&mut waiters);
            assert_eq!(waiters.remove(newest).0, Fate::Waiting);
            newest = next;
        }
        let (capacity, entries) = (waiters.capacity(), waiters.entries());
        assert!(
            capacity <= 4 * 64 && entries <= 64,
            "{order:?}: {capacity} places, {entries} entries"
        );
        assert_eq!(waiters.waiting(), 2);
        assert_eq!(waiters.remove(oldest).0, Fate::Waiting);
    }
}

#[test]
fn those_who_have_gone_are_not_searched_twice() {
    let mut waiters = Waiters::new(QueueOrder::Lifo);
    let push = |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone());
    let keys: Vec<Key> = (0..100_000).map(|_| push(&mut waiters)).collect();
    // Most of them wait still, so that the entries of those who go are kept.
    for key in &keys[60_000..] {
        assert_eq!(waiters.remove(*key).0, Fate::Waiting);
    }
    assert!(waiters.given_up() > 600, "{}", waiters.given_up());
    let mut wake = WakeList::default();
    assert!(waiters.grant(None, &mut wake).is_some());
    assert_eq!(waiters.given_up(), 0);
    assert_eq!(waiters.remove(keys[59_999]).0, Fate::Granted);
    assert_eq!(waiters.waiting(), 59_999);
}

#[test]
fn what_is_said_of_a_queue_is_short_and_takes_no_lock() {
    let queue = WaitQueue::new(1, 1000, QueueOrder::Fifo);
    assert_eq!(queue.try_take(), Take::Taken);
    for _ in 0..1000 {
        let joined = queue.enqueue(
            Priority::Normal,
            None,
            Waker::noop(),
            || false,
            || ClockOnly.now(),
        );
        assert!(matches!(joined, Enqueued::Waiting(_)));
    }
    let _locked = lock(&queue.waiters);
    let text = format!("{queue:?}");
    assert_eq!(
        text,
        "WaitQueue { permits: 1, in_use: 1, places: 1000, waiting: 1000, closed: false }",
    );
}

#[test]
fn a_million_waiters_leave_no_memory_behind() {
    let mut waiters = Waiters::new(QueueOrder::Fifo);
    let clients: Vec<Key> = (0..1_000_000)
        .map(|_| waiters.push(Priority::Normal, None, Waker::noop().clone()))
        .collect();
    for key in clients {
        waiters.remove(key);
    }
    assert_eq!(waiters.waiting(), 0);
    let (capacity, entries) = (waiters.capacity(), waiters.entries());
    assert!(
        capacity <= 2 * 64 && entries <= 64,
        "{capacity} places and {entries} entries are left"
    );
}

#[test]
fn a_shrunk_queue_keeps_its_debt_across_growing_again() {
    let queue = WaitQueue::new(4, 0, QueueOrder::Fifo);
    let now = || ClockOnly.now();
    for _ in 0..4 {
        assert_eq!(queue.try_take(), Take::Taken);
    }
    queue.resize(1, 0, QueueOrder::Fifo, now);
    queue.resize(3, 0, QueueOrder::Fifo, now);
    assert_eq!(queue.in_use(), 4);
    queue.release(now);
    assert_eq!(queue.try_take(), Take::Full);
    queue.release(now);
    assert_eq!(queue.try_take(), Take::Taken);
    assert_eq!(queue.in_use(), 3);
    assert_eq!(queue.try_take(), Take::Full);
}

#[test]
fn the_pressure_word_holds_its_extremes() {
    for closed in [false, true] {
        for debt in [0, 1, (1 << 32) - 1] {
            for waiting in [0, 1, (1 << 31) - 1] {
                let open = Pressure::NONE.with_debt(debt).with_waiting(waiting);
                let pressure = if closed { open.closed() } else { open };
                let back = Pressure::from_word(pressure.word());
                assert_eq!(
                    (back.is_closed(), back.debt(), back.waiting()),
                    (closed, debt, waiting)
                );
                assert_eq!(back.is_drained(), closed && debt == 0);
                assert_eq!(back == Pressure::NONE, !closed && debt == 0 && waiting == 0);
            }
        }
    }
}

#[test]
fn a_busy_hand_gives_nothing_to_who_has_no_lock() {
    let hand = Hand::new();
    assert!(!hand.take());
    assert!(!hand.put(2));
    assert!(hand.take());
    hand.set_busy(true);
    assert!(!hand.take());
    assert!(hand.put(1), "who puts one in learns that it is busy");
    assert_eq!(hand.idle(), 2);
    assert!(hand.take_locked() && hand.take_locked() && !hand.take_locked());
    assert!(!hand.take(), "busy, and empty");
    hand.set_busy(false);
    assert!(!hand.take());
    assert_eq!(hand.idle(), 0);
}
