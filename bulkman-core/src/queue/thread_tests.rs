//! Calls of keys in several threads, which end with nothing held and every permit available.
//!
//! Each round has its own settings and operations, chosen at random from the number of the round.
//! `PROPTEST_CASES` sets the number of rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as Atomic};
use std::time::Duration;

use super::model_tests::{CountingWaker, UNBOUNDED};
use super::*;
use crate::random::Random;
use crate::runtime::{ClockOnly, Runtime};

#[derive(Clone, Copy, PartialEq)]
enum Change {
    None,
    /// Limits and rules change at any time.
    Settings,
    /// The queue is closed at some time.
    Close,
}

struct Round {
    queue: WaitQueue,
    settings: QueueSettings,
    limit: usize,
    /// Most calls ask for one permit and have no deadline, and nothing bounds a key: so a released
    /// permit is granted in one step.
    usual: bool,
    keys: Vec<u64>,
    change: Change,
    /// What the calls of each key hold that have their permits.
    held: Vec<AtomicU32>,
    /// What all calls hold that have their permits.
    in_use: AtomicU32,
    /// How often the queue was drained.
    drained: AtomicU32,
}

struct Waiting {
    id: WaiterId,
    claim: Claim,
    deadline: Option<Instant>,
    woken: Arc<CountingWaker>,
}

/// The calls of one thread.
struct Calls<'a> {
    round: &'a Round,
    random: Random,
    running: Vec<Claim>,
    waiting: Vec<Waiting>,
    /// The wakers of calls that waited, and were granted their permits or rejected.
    decided: Vec<Arc<CountingWaker>>,
}

fn now() -> Instant {
    ClockOnly.now()
}

fn below(random: &mut Random, bound: usize) -> usize {
    (random.next_u64() >> 16) as usize % bound
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[below(random, of.len())]
}

/// Usual rules bound nothing.
fn rules(random: &mut Random, usual: bool) -> KeyRules {
    if usual && below(random, 8) > 0 {
        return KeyRules {
            evicts: below(random, 2) == 0,
            ..UNBOUNDED
        };
    }
    let max = 1 + below(random, 4) as u32;
    KeyRules {
        min: (below(random, 3) as u32).min(max),
        max,
        max_queue: pick(random, &[1, 3, KeyRules::NO_MAX, KeyRules::NO_MAX]),
        evicts: below(random, 2) == 0,
    }
}

fn overtaking(random: &mut Random, usual: bool) -> u32 {
    if usual && below(random, 8) > 0 {
        return 0;
    }
    pick(random, &[0, 2])
}

fn order(random: &mut Random) -> QueueOrder {
    pick(random, &[QueueOrder::Fifo, QueueOrder::Lifo])
}

impl Round {
    fn new(random: &mut Random, change: Change) -> Self {
        let usual = below(random, 2) == 0;
        let settings = QueueSettings {
            max_permits: 8,
            capacity: pick(random, &[3, 8, 30]),
            max_weight: pick(random, &[None, None, Some(8)]),
            order: order(random),
            overtaking: overtaking(random, usual),
            keys: Some(rules(random, usual)),
        };
        // Keys of one bucket, some of them more than it has slots, or of several.
        let (keys, apart) = pick(random, &[(1, 64), (2, 64), (12, 64), (12, 1)]);
        let keys: Vec<_> = (0..keys).map(|number| 2 + number * apart).collect();
        let limit = 1 + below(random, 6);
        Self {
            queue: WaitQueue::new(limit, settings),
            limit,
            settings,
            usual,
            in_use: AtomicU32::new(0),
            held: keys.iter().map(|_| AtomicU32::new(0)).collect(),
            keys,
            change,
            drained: AtomicU32::new(0),
        }
    }

    /// Counts what a call has or had: the wrapped difference is what the key holds.
    fn count(&self, claim: Claim, permits: u32) -> u32 {
        let in_use = self.in_use.fetch_add(permits, Atomic::SeqCst);
        if self.change != Change::Settings {
            let limit = self.limit as u32;
            assert!(in_use.wrapping_add(permits) <= limit, "{claim:?}: {in_use}");
        }
        let index = self.keys.iter().position(|&key| key == claim.key());
        index.map_or(0, |index| {
            let before = self.held[index].fetch_add(permits, Atomic::SeqCst);
            before.wrapping_add(permits)
        })
    }

    fn count_drained(&self, drained: bool) {
        self.drained.fetch_add(u32::from(drained), Atomic::SeqCst);
    }

    fn end(&self, claim: Claim) {
        self.count(claim, 0_u32.wrapping_sub(claim.permits()));
        self.count_drained(self.queue.release_claim(claim, now));
    }

    /// As calls do: at once, or else as they may.
    fn try_acquire(&self, claim: &mut Claim) -> bool {
        let undo = |claim| self.count_drained(self.queue.release_claim(claim, now));
        let acquired = self
            .queue
            .try_acquire_claim_at_once::<false>(*claim, now, undo)
            .or_else(|| {
                self.queue
                    .try_acquire_claim_at_once::<true>(*claim, now, undo)
            });
        match acquired {
            Some(acquired) => {
                *claim = acquired;
                true
            }
            None => self.queue.try_acquire_claim(claim, now, undo) == TryAcquire::Acquired,
        }
    }

    fn change_settings(&self, random: &mut Random) {
        let permits = 1 + below(random, 6);
        let settings = QueueSettings {
            order: order(random),
            overtaking: overtaking(random, self.usual),
            keys: (below(random, 8) > 0).then(|| rules(random, self.usual)),
            ..self.settings
        };
        if below(random, 2) == 0 {
            self.queue.resize(|| permits, settings, now);
        } else {
            self.queue.set_permits(|| permits, now);
        }
        self.count_drained(self.queue.release_overdue(now));
    }

    fn close(&self) {
        let closed = self.queue.close();
        self.count_drained(closed && self.queue.is_drained());
        self.count_drained(self.queue.release_overdue(now));
    }

    /// Checks that nothing is left, once all calls have ended.
    fn check(&self) {
        let queue = &self.queue;
        assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
        let running = queue.running_keys.get().unwrap();
        assert_eq!(
            (running.all(), running.suspended()),
            (Vec::new(), [].into())
        );
        assert!(running.has_none_spilled());
        assert_eq!(lock(&queue.waiters).suspended(), 0);
        assert_eq!(lock(&queue.waiters).overtaken(), 0);
        if queue.is_closed() {
            assert_eq!((queue.is_drained(), queue.idle_permits()), (true, 0));
            assert_ne!(self.drained.load(Atomic::SeqCst), 0, "nothing reported it");
            return;
        }
        assert_eq!(queue.idle_permits(), queue.limits().permits);
        assert!(!queue.available.is_contended());
    }
}

impl Calls<'_> {
    fn below(&mut self, bound: usize) -> usize {
        below(&mut self.random, bound)
    }

    fn run(&mut self, operations: usize) {
        for _ in 0..operations {
            match self.below(20) {
                0..=9 if self.running.len() < 4 && self.waiting.len() < 4 => self.call(),
                10..=13 if !self.running.is_empty() => {
                    let index = self.below(self.running.len());
                    let claim = self.running.swap_remove(index);
                    self.round.end(claim);
                }
                14..=18 if !self.waiting.is_empty() => {
                    let index = self.below(self.waiting.len());
                    let waiting = self.waiting.swap_remove(index);
                    match self.below(5) {
                        0 => {
                            let queue = &self.round.queue;
                            let drained = queue.cancel_claim(waiting.id, waiting.claim, now);
                            self.round.count_drained(drained);
                        }
                        _ => self.poll(waiting),
                    }
                }
                19 => self.change(),
                _ => {}
            }
        }
        // The calls that wait are granted their permits, or expire.
        let start = now();
        loop {
            self.running
                .drain(..)
                .for_each(|claim| self.round.end(claim));
            if self.waiting.is_empty() {
                break;
            }
            let waiting = std::mem::take(&mut self.waiting);
            waiting.into_iter().for_each(|it| self.poll(it));
            assert!(start.elapsed() < Duration::from_secs(60), "calls wait");
            std::thread::yield_now();
        }
    }

    fn change(&mut self) {
        let change = self.round.change;
        match change {
            Change::Settings if self.below(3) == 0 => self.round.change_settings(&mut self.random),
            Change::Close if self.below(20) == 0 => self.round.close(),
            _ if self.below(12) == 0 => {
                let queue = &self.round.queue;
                queue.reject_all(QueueRejection::CircuitOpened, now);
            }
            _ => {}
        }
    }

    fn call(&mut self) {
        let round = self.round;
        let key = pick(&mut self.random, &round.keys);
        let is_usual = round.usual && self.below(40) > 0;
        let weights: &[_] = if is_usual { &[1] } else { &[1, 1, 1, 2, 4] };
        let permits = pick(&mut self.random, weights);
        let mut claim = Claim::new(permits).with_key(key);
        let priorities = [Priority::Normal, Priority::High, Priority::Low];
        let mut request = Request {
            priority: pick(&mut self.random, &priorities),
            deadline: None,
            share: 1 + self.below(3) as u32,
        };
        let joins_at_once = self.below(5) == 0;
        if !joins_at_once && round.try_acquire(&mut claim) {
            return self.begin(claim);
        }
        if !joins_at_once && self.below(4) == 0 {
            if round.queue.try_acquire_as_next(request, &mut claim, now) {
                self.begin(claim);
            }
            return;
        }
        let after = Duration::from_micros(self.below(60) as u64);
        request.deadline = (!is_usual && self.below(3) == 0).then(|| now() + after);
        let (woken, queue) = (Arc::<CountingWaker>::default(), &round.queue);
        let waker = Waker::from(Arc::clone(&woken));
        match queue.enqueue_claim(request, &mut claim, &waker, || false, now) {
            Enqueue::Acquired => self.begin(claim),
            Enqueue::Waiting(id) => self.waiting.push(Waiting {
                id,
                claim,
                deadline: request.deadline,
                woken,
            }),
            _ => {}
        }
    }

    fn poll(&mut self, mut waiting: Waiting) {
        let queue = &self.round.queue;
        let (id, claim) = (waiting.id, &mut waiting.claim);
        let result = if waiting.deadline.is_some_and(|it| it <= now()) {
            self.round.count_drained(queue.deadline_passed(id, now));
            queue.expire_claim(id, claim, now)
        } else {
            match queue.poll_claim(id, claim, &Waker::from(Arc::clone(&waiting.woken))) {
                Poll::Ready(result) => {
                    self.decided.push(waiting.woken);
                    result
                }
                Poll::Pending => return self.waiting.push(waiting),
            }
        };
        if result == WaitResult::Granted {
            self.begin(waiting.claim);
        }
    }

    fn begin(&mut self, claim: Claim) {
        let held = self.round.count(claim, claim.permits());
        if let (Change::None | Change::Close, Some(rules)) =
            (self.round.change, self.round.settings.keys)
        {
            assert!(
                held <= rules.max || held == claim.permits(),
                "{claim:?}: {held}"
            );
        }
        self.running.push(claim);
    }
}

fn run(change: Change) {
    let cases = std::env::var("PROPTEST_CASES").ok();
    let rounds = cases.and_then(|it| it.parse().ok()).unwrap_or(256);
    for number in 0..rounds {
        let mut random = Random::new(number);
        let round = Round::new(&mut random, change);
        let operations = 20 + below(&mut random, 200);
        let decided = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for thread in 1..=4 {
                let mut calls = Calls {
                    round: &round,
                    random: Random::new(number << 3 | thread),
                    running: Vec::new(),
                    waiting: Vec::new(),
                    decided: Vec::new(),
                };
                let run = move || {
                    calls.run(operations);
                    calls.decided
                };
                threads.push(scope.spawn(run));
            }
            let decided = threads.into_iter().map(|thread| thread.join().unwrap());
            decided.flatten().collect::<Vec<_>>()
        });
        // Each once; by now all of them.
        assert!(decided.iter().all(|woken| woken.count() == 1));
        round.check();
        if !round.queue.is_closed() {
            // Also for one call, under rules that do not bound it.
            let permits = round.queue.limits().permits;
            let settings = QueueSettings {
                keys: Some(UNBOUNDED),
                ..round.settings
            };
            round.queue.resize(|| permits, settings, now);
            let mut all = Claim::new(permits as u32).with_key(9);
            assert!(round.try_acquire(&mut all));
            round.count(all, all.permits());
            round.end(all);
        }
    }
}

/// Hazard K22, K24.
#[test]
fn threads_of_calls_leave_nothing_and_exceed_no_maximum() {
    run(Change::None);
}

/// Hazard K22, K24.
#[test]
fn threads_of_calls_and_changes_leave_nothing() {
    run(Change::Settings);
}

/// Hazard K22, K24.
#[test]
fn threads_of_calls_of_a_closing_queue_drain_it() {
    run(Change::Close);
}
