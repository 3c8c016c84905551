//! The lists of waiters against a plain model.

use std::collections::VecDeque;
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
    fn join(waiters: &mut Waiters, grants: &Grants, priority: Priority, deadline: Option<Instant>) -> Self {
        let woken = Arc::<Counted>::default();
        let key = waiters.push(priority, deadline, Waker::from(Arc::clone(&woken)), grants);
        Self { key, woken }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push { priority: u8, deadline: Option<u8> },
    Grant,
    Remove(u8),
    Refuse,
    Tick(u8),
    Order(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, proptest::option::of(1..20_u8)).prop_map(|(priority, deadline)| Op::Push { priority, deadline }),
        4 => Just(Op::Grant),
        3 => any::<u8>().prop_map(Op::Remove),
        1 => Just(Op::Refuse),
        2 => (1..10_u8).prop_map(Op::Tick),
        1 => any::<bool>().prop_map(Op::Order),
    ]
}

/// What the model knows of one that waits: priority, deadline, number.
type Waiting = (u8, Option<u64>, usize);

proptest! {
    #[test]
    fn waiters_follow_the_model(ops in proptest::collection::vec(op(), 1..200)) {
        let base = ClockOnly.now();
        let at = |tick: u64| base + Duration::from_millis(tick);
        let mut waiters = Waiters::new(QueueOrder::Fifo);
        let grants = Grants::new();
        let mut clients: Vec<Option<Client>> = Vec::new();
        let mut model: VecDeque<Waiting> = VecDeque::new();
        let mut fates: Vec<Fate> = Vec::new();
        let (mut now, mut lifo) = (0_u64, false);

        for op in ops {
            let mut wake = WakeList::default();
            match op {
                Op::Push { priority, deadline } => {
                    let deadline = deadline.map(|after| now + u64::from(after));
                    let class = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
                    clients.push(Some(Client::join(&mut waiters, &grants, class, deadline.map(at))));
                    model.push_back((priority, deadline, fates.len()));
                    fates.push(Fate::Waiting);
                }
                Op::Grant => {
                    let granted = waiters.grant(Some(at(now)), &grants, &mut wake).map(Waker::wake).is_some();
                    let mut expected = false;
                    while let Some(position) = next(&model, lifo) {
                        let (_, deadline, who) = model.remove(position).unwrap();
                        if deadline.is_some_and(|deadline| deadline <= now) {
                            fates[who] = Fate::Expired;
                        } else {
                            fates[who] = Fate::Granted;
                            expected = true;
                            break;
                        }
                    }
                    prop_assert_eq!(granted, expected);
                }
                Op::Remove(pick) => {
                    let present: Vec<usize> =
                        (0..clients.len()).filter(|&who| clients[who].is_some()).collect();
                    if let Some(&who) = present.get(usize::from(pick) % present.len().max(1)) {
                        let client = clients[who].take().unwrap();
                        let (fate, _waker) = waiters.remove(client.key);
                        prop_assert_eq!(fate, fates[who]);
                        model.retain(|waiting| waiting.2 != who);
                    }
                }
                Op::Refuse => {
                    let until = waiters.arrivals();
                    while !waiters.refuse(Refusal::Circuit, until, 2, &mut wake) {}
                    for (_, _, who) in model.drain(..) {
                        fates[who] = Fate::Refused(Refusal::Circuit);
                    }
                }
                Op::Tick(by) => now += u64::from(by),
                Op::Order(newest_first) => {
                    lifo = newest_first;
                    waiters.set_order(if lifo { QueueOrder::Lifo } else { QueueOrder::Fifo });
                }
            }
            wake.wake();
            prop_assert_eq!(waiters.waiting() as usize, model.len());
            for (who, client) in clients.iter().enumerate() {
                let Some(client) = client else { continue };
                let woken = client.woken.0.load(Atomic::Relaxed);
                prop_assert_eq!(woken, usize::from(fates[who] != Fate::Waiting), "waiter {}", who);
            }
        }
        for (who, client) in clients.into_iter().enumerate() {
            if let Some(client) = client {
                // Fewer than the ring has places for, so nobody's is another's.
                prop_assert_eq!(grants.include(client.key), fates[who] == Fate::Granted, "waiter {}", who);
                let seen = waiters.poll(client.key, &Waker::from(client.woken));
                prop_assert_eq!(seen, Some(fates[who]), "waiter {}", who);
            }
        }
    }
}

fn next(model: &VecDeque<Waiting>, lifo: bool) -> Option<usize> {
    let highest = model.iter().map(|waiting| waiting.0).max()?;
    let mut class = (0..model.len()).filter(|&position| model[position].0 == highest);
    if lifo { class.next_back() } else { class.next() }
}

#[test]
fn a_grant_that_is_forgotten_is_seen_with_the_lock() {
    let (mut waiters, grants) = (Waiters::new(QueueOrder::Fifo), Grants::new());
    let push = |waiters: &mut Waiters| waiters.push(Priority::Normal, None, Waker::noop().clone(), &grants);
    let keys: Vec<Key> = (0..1000).map(|_| push(&mut waiters)).collect();
    for _ in &keys {
        assert!(waiters.grant(None, &grants, &mut WakeList::default()).is_some());
    }
    let known = keys.iter().filter(|key| grants.include(**key)).count();
    assert!((1..1000).contains(&known), "{known} are known without the lock");
    // Their nodes are others' by now.
    let others: Vec<Key> = (0..1000).map(|_| push(&mut waiters)).collect();
    for key in keys {
        assert_eq!(waiters.poll(key, Waker::noop()), Some(Fate::Granted));
        assert_eq!(waiters.remove(key).0, Fate::Granted);
    }
    assert_eq!(waiters.waiting(), 1000);
    assert!(others.into_iter().all(|key| waiters.remove(key).0 == Fate::Waiting));
}

#[test]
fn a_million_waiters_leave_no_memory_behind() {
    let mut waiters = Waiters::new(QueueOrder::Fifo);
    let grants = Grants::new();
    let clients: Vec<Key> = (0..1_000_000)
        .map(|_| waiters.push(Priority::Normal, None, Waker::noop().clone(), &grants))
        .collect();
    for key in clients {
        waiters.remove(key);
    }
    assert_eq!((waiters.waiting(), waiters.capacity()), (0, 0));
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
                let pressure = Pressure { closed, debt, waiting };
                let back = Pressure::unpack(pressure.pack());
                assert_eq!((back.closed, back.debt, back.waiting), (closed, debt, waiting));
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
