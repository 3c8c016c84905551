//! The queue, compared to a plain model after each operation.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::task::Wake;
use std::time::Duration;

use proptest::prelude::*;

use self::model::{Model, State};
use super::*;
use crate::runtime::{ClockOnly, Runtime};

#[derive(Default)]
pub(super) struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub(super) fn count(&self) -> usize {
        self.0.load(Atomic::Relaxed)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Atomic::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A call that may wait.
    Enqueue(Arrival),
    /// A call that does not wait.
    Try(Arrival),
    /// A running call ends.
    End(usize),
    /// A waiter, or a granted call that was not polled yet, is dropped.
    Cancel(usize),
    Advance(u8),
    /// The timer of a waiter fires, which may have been granted permits and not have been polled.
    Fire(usize),
    Resize(Resize),
    RejectAll,
}

#[derive(Clone, Debug)]
struct Arrival {
    priority: u8,
    deadline: Option<u8>,
    permits: u32,
    /// Zero for a call without a key.
    key: u64,
    share: u32,
}

#[derive(Clone, Debug)]
struct Resize {
    permits: usize,
    capacity: usize,
    max_weight: Option<u32>,
    lifo: bool,
    overtaking: u32,
    rules: Option<KeyRules>,
}

/// The keys of calls, with [`Claim::SHARED_KEY`].
const KEYS: std::ops::Range<u64> = 1..6;

pub(super) const UNBOUNDED: KeyRules = KeyRules {
    min: 0,
    max: KeyRules::NO_MAX,
    max_queue: KeyRules::NO_MAX,
    evicts: true,
};

impl From<(u8, Option<u8>, u32, u64, u32)> for Arrival {
    fn from((priority, deadline, permits, key, share): (u8, Option<u8>, u32, u64, u32)) -> Self {
        Self {
            priority,
            deadline,
            permits,
            key,
            share,
        }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let deadline = proptest::option::weighted(0.3, 0..20_u8);
    (0..3_u8, deadline, permits(), key(), 1..4_u32).prop_map(Arrival::from)
}

fn permits() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(1_u32), 3 => 2..7_u32]
}

fn key() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 4 => 2..KEYS.end]
}

fn rules() -> impl Strategy<Value = KeyRules> {
    let max = || prop_oneof![2 => Just(KeyRules::NO_MAX), 3 => 1..5_u32];
    (0..3_u32, max(), max(), any::<bool>()).prop_map(|(min, max, max_queue, evicts)| KeyRules {
        min: min.min(max),
        max,
        max_queue,
        evicts,
    })
}

fn resize() -> impl Strategy<Value = Resize> {
    let max_weight = proptest::option::of(1..20_u32);
    let rules = proptest::option::weighted(0.8, rules());
    let overtaking = prop_oneof![2 => Just(0_u32), 3 => 1..4_u32];
    (
        0..8_usize,
        0..12_usize,
        max_weight,
        any::<bool>(),
        overtaking,
        rules,
    )
        .prop_map(
            |(permits, capacity, max_weight, lifo, overtaking, rules)| Resize {
                permits,
                capacity,
                max_weight,
                lifo,
                overtaking,
                rules,
            },
        )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => arrival().prop_map(Op::Enqueue),
        4 => arrival().prop_map(Op::Try),
        9 => any::<usize>().prop_map(Op::End),
        4 => any::<usize>().prop_map(Op::Cancel),
        3 => (1..10_u8).prop_map(Op::Advance),
        4 => any::<usize>().prop_map(Op::Fire),
        2 => resize().prop_map(Op::Resize),
        1 => Just(Op::RejectAll),
    ]
}

/// A call to which a released permit is usually granted in one step.
fn usual_arrival() -> impl Strategy<Value = Arrival> {
    let priority = prop_oneof![8 => Just(1_u8), 1 => Just(0_u8), 1 => Just(2_u8)];
    let deadline = proptest::option::weighted(0.01, 0..20_u8);
    let permits = prop_oneof![40 => Just(1_u32), 1 => 2..4_u32];
    let share = prop_oneof![3 => Just(1_u32), 1 => 2..4_u32];
    (priority, deadline, permits, 2..KEYS.end, share).prop_map(Arrival::from)
}

/// Rules that bound nothing, and others for a time.
fn usual_resize() -> impl Strategy<Value = Resize> {
    let unbounded = any::<bool>().prop_map(|evicts| KeyRules {
        evicts,
        ..UNBOUNDED
    });
    let rules = prop_oneof![
        6 => unbounded.prop_map(Some),
        1 => Just(None),
        1 => rules().prop_map(Some),
    ];
    let capacity = prop_oneof![1 => 0..12_usize, 1 => Just(100_usize)];
    let overtaking = prop_oneof![8 => Just(0_u32), 1 => 1..4_u32];
    (0..8_usize, capacity, any::<bool>(), overtaking, rules).prop_map(
        |(permits, capacity, lifo, overtaking, rules)| Resize {
            permits,
            capacity,
            max_weight: None,
            lifo,
            overtaking,
            rules,
        },
    )
}

/// Operations of calls with keys, enough that chunks of waiters are freed.
fn usual_ops() -> impl Strategy<Value = Vec<Op>> {
    let begin = (prop_oneof![Just(6_usize), Just(100_usize)], any::<bool>()).prop_map(
        |(capacity, lifo)| {
            Op::Resize(Resize {
                permits: 4,
                capacity,
                max_weight: None,
                lifo,
                overtaking: 0,
                rules: Some(UNBOUNDED),
            })
        },
    );
    let several = (usual_arrival(), 2..30_usize);
    let op = prop_oneof![
        12 => usual_arrival().prop_map(|it| vec![Op::Enqueue(it)]),
        1 => several.prop_map(|(it, count)| vec![Op::Enqueue(it); count]),
        1 => usual_arrival().prop_map(|it| vec![Op::Try(it)]),
        16 => any::<usize>().prop_map(|it| vec![Op::End(it)]),
        4 => any::<usize>().prop_map(|it| vec![Op::Cancel(it)]),
        1 => (1..10_u8).prop_map(|it| vec![Op::Advance(it)]),
        1 => usual_resize().prop_map(|it| vec![Op::Resize(it)]),
        1 => prop_oneof![5 => Just(vec![]), 1 => Just(vec![Op::RejectAll])],
    ];
    let ops = proptest::collection::vec(op, 1..200);
    (begin, ops).prop_map(|(begin, ops)| {
        let ops = ops.into_iter().flatten();
        std::iter::once(begin).chain(ops).collect()
    })
}

/// The queue under test, and what its callers hold.
struct Callers {
    queue: WaitQueue,
    base: Instant,
    /// The claims of running calls.
    running: Vec<Claim>,
    /// The waiters that are neither running nor gone.
    waiters: Vec<Caller>,
    /// Permits may be acquired under the lock although no call waits for them: a waiter in no key
    /// has left others that are suspended. The next release notices.
    left_contended: bool,
}

struct Caller {
    /// Its index in the model.
    index: usize,
    id: WaiterId,
    claim: Claim,
    woken: Arc<CountingWaker>,
}

impl Caller {
    fn poll(&mut self, queue: &WaitQueue) -> Poll<WaitResult> {
        let waker = Waker::from(Arc::clone(&self.woken));
        queue.poll_claim(self.id, &mut self.claim, &waker)
    }
}

fn class(priority: u8) -> Priority {
    [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)]
}

proptest! {
    #[test]
    fn queue_matches_the_model(ops in proptest::collection::vec(op(), 1..120), timers in any::<bool>()) {
        run(&ops, timers)?;
    }

    #[test]
    fn queue_of_usual_calls_with_keys_matches_the_model(ops in usual_ops(), timers in any::<bool>()) {
        run(&ops, timers)?;
    }
}

/// A key whose call has ended is behind the others of the level that it enters, in all priorities,
/// also if the permit goes to that key at once.
#[test]
fn key_enters_its_level_before_its_permit_is_granted_to_it() {
    const NORMAL: u8 = 1;
    const HIGH: u8 = 2;
    let arrival = |priority, key| Arrival {
        priority,
        deadline: None,
        permits: 1,
        key,
        share: 1,
    };
    let (first, second, third) = (2, 3, 4);
    let running = [first, second, third, third].map(|key| arrival(NORMAL, key));
    let waiting = [
        arrival(NORMAL, first),
        arrival(NORMAL, second),
        arrival(HIGH, first),
    ];
    let mut ops: Vec<_> = running
        .into_iter()
        .chain(waiting)
        .map(Op::Enqueue)
        .collect();
    // The call of the first key ends, and its waiter of the higher priority runs. Then a call of
    // the third key ends.
    ops.extend([Op::End(0), Op::End(2)]);
    let result = run(&ops, false);
    assert!(result.is_ok(), "{result:?}");
}

/// New rules give two keys the same level. The key that entered its level last is behind the other,
/// also if it did so when its waiter was granted a permit in one step.
#[test]
fn keys_keep_their_order_under_new_rules_after_a_grant() {
    let (first, second, third) = (2, 3, 4);
    // Calls of the third key end.
    matches_under_new_rules(
        [second, second, third, third],
        [first, first, second],
        [2, 2],
    );
}

/// As above. The permit of the first key goes to its own waiter, so what it holds does not change.
#[test]
fn key_that_keeps_its_permit_is_behind_others_under_new_rules() {
    let (first, second, third) = (2, 3, 4);
    // The call of the first key ends, and later that of the third.
    matches_under_new_rules(
        [first, second, second, third],
        [first, first, second],
        [0, 0],
    );
}

/// `running`, `waiting`: the keys of calls. `ends`: the calls that end before and after a change of
/// the rules, by their index.
fn matches_under_new_rules(running: [u64; 4], waiting: [u64; 3], ends: [usize; 2]) {
    let arrival = |key| Arrival {
        priority: 1,
        deadline: None,
        permits: 1,
        key,
        share: 1,
    };
    let calls = running.into_iter().chain(waiting);
    let mut ops: Vec<_> = calls.map(|key| Op::Enqueue(arrival(key))).collect();
    let rules = Resize {
        permits: 4,
        capacity: 1000,
        max_weight: None,
        lifo: false,
        overtaking: 0,
        rules: Some(KeyRules {
            min: 3,
            ..UNBOUNDED
        }),
    };
    let [before, after] = ends.map(Op::End);
    ops.extend([before, Op::Resize(rules), after]);
    let result = run(&ops, false);
    assert!(result.is_ok(), "{result:?}");
}

/// Of two keys that may overtake a heavy waiter, the one that holds less is first.
#[test]
fn keys_overtake_in_the_order_of_their_levels() {
    let arrival = |(key, permits)| Arrival {
        priority: 1,
        deadline: None,
        permits,
        key,
        share: 1,
    };
    let (heavy, one, two, other) = (2, 3, 4, 5);
    let settings = Resize {
        permits: 4,
        capacity: 1000,
        max_weight: None,
        lifo: false,
        overtaking: 1,
        rules: Some(UNBOUNDED),
    };
    let running = [(one, 1), (two, 1), (two, 1), (other, 1)];
    let waiting = [(two, 1), (one, 1), (heavy, 4)];
    let calls = running.into_iter().chain(waiting);
    let ops: Vec<_> = std::iter::once(Op::Resize(settings))
        .chain(calls.map(|call| Op::Enqueue(arrival(call))))
        .chain([Op::End(3)])
        .collect();
    let result = run(&ops, false);
    assert!(result.is_ok(), "{result:?}");
}

/// `timers`: a waiter leaves as soon as its deadline has passed. Otherwise it is skipped when it is
/// next, and counts until then; so the queue is not bounded.
fn run(ops: &[Op], timers: bool) -> Result<(), TestCaseError> {
    let capacity = if timers { 6 } else { 1000 };
    let mut settings = QueueSettings::of_capacity(capacity, QueueOrder::Fifo);
    settings.keys = Some(UNBOUNDED);
    let mut model = Model::new(4, settings);
    let mut callers = Callers {
        queue: WaitQueue::new(4, settings),
        base: ClockOnly.now(),
        running: Vec::new(),
        waiters: Vec::new(),
        left_contended: false,
    };
    for op in ops {
        apply(op, timers, &mut model, &mut callers)?;
        compare(&model, &mut callers)?;
        check_suspended(&callers)?;
    }
    end(model.permits, callers)
}

/// Checks that nothing is held, and every permit is available, once all calls have ended.
fn end(permits: usize, callers: Callers) -> Result<(), TestCaseError> {
    let Callers {
        queue,
        base,
        running,
        waiters,
        ..
    } = callers;
    for claim in running {
        queue.release_claim(claim, || base);
    }
    queue.reject_all(QueueRejection::CircuitOpened, || base);
    for mut caller in waiters {
        match caller.poll(&queue) {
            Poll::Ready(WaitResult::Granted) => drop(queue.release_claim(caller.claim, || base)),
            Poll::Ready(_) => {}
            Poll::Pending => prop_assert!(false, "rejected waiters are decided"),
        }
    }
    prop_assert_eq!((queue.in_use(), queue.waiting()), (0, 0));
    prop_assert_eq!(queue.idle_permits(), permits);
    prop_assert_eq!(lock(&queue.waiters).suspended(), 0);
    prop_assert_eq!(lock(&queue.waiters).overtaken(), 0);
    if let Some(running) = queue.running_keys.get() {
        prop_assert_eq!(
            (running.all(), running.suspended()),
            (Vec::new(), [].into())
        );
    }
    if permits > 0 {
        let mut all = Claim::new(permits as u32);
        queue.set_key(&mut all);
        let max = lock(&queue.waiters)
            .special
            .keys
            .as_ref()
            .map(|keys| keys.rules.max);
        if max.is_none_or(|max| max as usize >= permits) {
            let acquired = queue.try_acquire_as_calls(&mut all, || base);
            prop_assert_eq!(acquired, TryAcquire::Acquired);
        }
    }
    let plain = QueueSettings::of_capacity(1000, QueueOrder::Fifo);
    queue.resize(|| permits, plain, || base);
    prop_assert!(lock(&queue.waiters).is_ordinary());
    Ok(())
}

fn apply(
    op: &Op,
    timers: bool,
    model: &mut Model,
    callers: &mut Callers,
) -> Result<(), TestCaseError> {
    let Callers {
        queue,
        base,
        running,
        waiters,
        left_contended,
    } = callers;
    let at = |tick: u64| *base + Duration::from_millis(tick);
    let now = at(model.now);
    match *op {
        Op::Enqueue(ref request) => {
            // With timers, no waiter is queued that has to leave at once.
            let after = request.deadline;
            let after = after.map(|after| u64::from(if timers { after.max(1) } else { after }));
            let deadline = after.map(|after| model.now + after);
            let mut claim = Claim::new(request.permits).with_key(request.key);
            let woken = Arc::<CountingWaker>::default();
            let (priority, deadline_at) = (class(request.priority), deadline.map(at));
            let waker = Waker::from(Arc::clone(&woken));
            let result = if claim.is_plain() && model.settings.keys.is_none() {
                queue.enqueue(priority, deadline_at, &waker, || false, || now)
            } else {
                let request = Request {
                    priority,
                    deadline: deadline_at,
                    share: request.share,
                };
                queue.enqueue_claim(request, &mut claim, &waker, || false, || now)
            };
            let key = model.key(request.key);
            prop_assert_eq!(claim.key(), key);
            let (full, evictable) = (
                model.is_full(request.permits),
                model.evictable(request, key),
            );
            let has_no_room = full || model.is_key_full(key);
            let acquired = model.try_acquire_or_revoke(request.permits, key);
            let acquired =
                acquired.or_else(|| has_no_room.then(|| model.acquire_as_next(request, key))?);
            if let Some(granted) = acquired {
                prop_assert_eq!((result, claim.permits()), (Enqueue::Acquired, granted));
                running.push(claim);
            } else if model.is_key_full(key) {
                prop_assert_eq!(result, Enqueue::KeyFull);
            } else if full && evictable.is_empty() {
                prop_assert_eq!(result, Enqueue::Full);
            } else {
                let Enqueue::Waiting(id) = result else {
                    return Err(TestCaseError::fail(format!("{result:?}, not waiting")));
                };
                if full {
                    evict(&evictable, model, queue, waiters)?;
                }
                waiters.push(Caller {
                    index: model.waiters.len(),
                    id,
                    claim,
                    woken,
                });
                model.push(request, deadline, key);
            }
        }
        Op::Try(ref request) => {
            let mut claim = Claim::new(request.permits).with_key(request.key);
            queue.set_key(&mut claim);
            let key = model.key(request.key);
            let mut result = queue.try_acquire_as_calls(&mut claim, || now);
            if matches!(result, TryAcquire::MustWait | TryAcquire::Full) {
                let next = Request {
                    priority: class(request.priority),
                    deadline: None,
                    share: request.share,
                };
                if queue.try_acquire_as_next(next, &mut claim, || now) {
                    prop_assert_eq!(result, TryAcquire::MustWait);
                    result = TryAcquire::Acquired;
                }
            }
            let granted = model.try_acquire_or_revoke(request.permits, key);
            let fits = request.permits.min(model.permits as u32) as usize <= model.available();
            match granted.or_else(|| fits.then(|| model.acquire_as_next(request, key))?) {
                Some(granted) => {
                    prop_assert_eq!((result, claim.permits()), (TryAcquire::Acquired, granted));
                    running.push(claim);
                }
                None => prop_assert!(matches!(result, TryAcquire::MustWait | TryAcquire::Full)),
            }
        }
        Op::End(index) if !running.is_empty() => {
            let claim = running.swap_remove(index % running.len());
            queue.release_claim(claim, || now);
            model.release(claim.permits(), claim.key());
        }
        Op::Cancel(index) if !waiters.is_empty() => {
            let caller = waiters.swap_remove(index % waiters.len());
            if caller.claim.is_plain() {
                queue.cancel(caller.id, || now);
                *left_contended = true;
            } else {
                queue.cancel_claim(caller.id, caller.claim, || now);
            }
            model.overdue.retain(|index| *index != caller.index);
            let waiter = &model.waiters[caller.index];
            if let State::Granted(permits) = waiter.state {
                model.release(permits, waiter.added_to);
            } else {
                model.end_wait(caller.index, State::Rejected);
                // One permit does not accumulate, so its waiter leaves none behind.
                if !caller.claim.is_plain() {
                    model.assign();
                }
            }
        }
        Op::Advance(by) => {
            model.now += u64::from(by);
            let now = at(model.now);
            if timers {
                for caller in waiters.iter() {
                    let waiter = &model.waiters[caller.index];
                    let passed = waiter.deadline.is_some_and(|it| it <= model.now);
                    if passed && matches!(waiter.state, State::Waiting | State::Expired) {
                        model.end_wait(caller.index, State::Expired);
                        let expired = if caller.claim.is_plain() {
                            *left_contended = true;
                            queue.expire(caller.id)
                        } else {
                            queue.expire_claim(caller.id, &mut caller.claim.clone(), || now)
                        };
                        prop_assert_eq!(expired, WaitResult::Expired);
                        if !caller.claim.is_plain() {
                            model.assign();
                        }
                    }
                }
                waiters.retain(|caller| model.waiters[caller.index].state != State::Expired);
            }
        }
        Op::Resize(ref resize) => {
            let settings = &mut model.settings;
            settings.order = if resize.lifo {
                QueueOrder::Lifo
            } else {
                QueueOrder::Fifo
            };
            settings.overtaking = resize.overtaking;
            settings.keys = resize.rules;
            if timers {
                settings.capacity = resize.capacity;
                settings.max_weight = resize.max_weight;
            } else if let Some(rules) = &mut settings.keys {
                rules.max_queue = KeyRules::NO_MAX;
            }
            model.permits = resize.permits;
            if resize.rules.is_none() {
                model.leave_keys();
            }
            model.update_levels();
            queue.resize(|| resize.permits, model.settings, || now);
            model.assign();
            queue.release_overdue(|| now);
            while !model.is_idle() {
                let Some(overdue) = model.overdue.pop() else {
                    break;
                };
                model.revoke(overdue);
            }
        }
        Op::Fire(index) if !waiters.is_empty() => {
            let caller = &waiters[index % waiters.len()];
            let waiter = &model.waiters[caller.index];
            let passed = waiter.deadline.is_some_and(|it| it <= model.now);
            if passed && matches!(waiter.state, State::Granted(_)) {
                queue.deadline_passed(caller.id, || now);
                if !model.is_idle() {
                    model.overdue.retain(|index| *index != caller.index);
                    model.revoke(caller.index);
                } else if !model.overdue.contains(&caller.index) {
                    model.overdue.push(caller.index);
                }
            } else if passed && waiter.state == State::Waiting {
                let may_block = lock(&queue.waiters).has_special();
                queue.deadline_passed(caller.id, || now);
                if may_block {
                    caller.woken.0.fetch_add(1, Atomic::Relaxed); // by the timer
                    model.end_wait(caller.index, State::Expired);
                    model.assign();
                }
            }
        }
        Op::RejectAll => {
            queue.reject_all(QueueRejection::CircuitOpened, || now);
            let waiting: Vec<_> = model.waiting().map(|(index, _)| index).collect();
            for index in waiting {
                model.end_wait(index, State::Rejected);
            }
        }
        Op::End(_) | Op::Cancel(_) | Op::Fire(_) => {}
    }
    Ok(())
}

/// The first eight waiters behind the next one are examined, in the order of the queue.
#[test]
fn eight_waiters_are_examined_for_one_that_fits() {
    for order in [QueueOrder::Fifo, QueueOrder::Lifo] {
        for (keys, heavy) in (1..12).flat_map(|heavy| [(None, heavy), (Some(UNBOUNDED), heavy)]) {
            let mut settings = QueueSettings::of_capacity(100, order);
            (settings.overtaking, settings.keys) = (1, keys);
            let queue = WaitQueue::new(4, settings);
            let now = || ClockOnly.now();
            let wait = |permits: u32| {
                let mut claim = Claim::new(permits).with_key(2);
                let request = Request::plain(Priority::Normal, None);
                let waits = queue.enqueue_claim(request, &mut claim, Waker::noop(), || false, now);
                let Enqueue::Waiting(id) = waits else {
                    panic!("{waits:?}")
                };
                (id, claim)
            };
            let running = [3, 1].map(|permits| {
                let mut claim = Claim::new(permits).with_key(2);
                let acquired = queue.try_acquire_as_calls(&mut claim, now);
                assert_eq!(acquired, TryAcquire::Acquired);
                claim
            });
            // The last one in the order of the queue.
            let light = (order == QueueOrder::Lifo).then(|| wait(1));
            for _ in 0..heavy {
                wait(2);
            }
            let (id, mut claim) = light.unwrap_or_else(|| wait(1));
            queue.release_claim(running[1], now);
            let polled = queue.poll_claim(id, &mut claim, Waker::noop());
            assert_eq!(polled.is_ready(), heavy <= 8, "{order:?} {keys:?} {heavy}");
        }
    }
}

/// Any of the longest keys may have lost its newest waiter.
fn evict(
    evictable: &[usize],
    model: &mut Model,
    queue: &WaitQueue,
    waiters: &mut Vec<Caller>,
) -> Result<(), TestCaseError> {
    let evicted = Poll::Ready(WaitResult::Rejected(QueueRejection::Evicted));
    let position = waiters
        .iter_mut()
        .position(|caller| evictable.contains(&caller.index) && caller.poll(queue) == evicted);
    let Some(position) = position else {
        return Err(TestCaseError::fail("no waiter was evicted"));
    };
    let caller = waiters.swap_remove(position);
    prop_assert_eq!(caller.woken.count(), 1);
    model.end_wait(caller.index, State::Rejected);
    Ok(())
}

/// Checks that the slots of suspended keys have their bit, and that permits are acquired under the
/// lock if other calls wait.
fn check_suspended(callers: &Callers) -> Result<(), TestCaseError> {
    let queue = &callers.queue;
    let waiters = lock(&queue.waiters);
    let keys = waiters.keys().into_iter();
    let suspended = keys.filter_map(|(key, _, suspended)| suspended.then_some(key));
    if let Some(running) = queue.running_keys.get() {
        prop_assert_eq!(running.suspended(), suspended.collect());
    }
    let others = queue.state().with_waiting(waiters.eligible());
    let is_contended = queue.available.is_contended();
    if !callers.left_contended || others != QueueState::IDLE {
        prop_assert_eq!(is_contended, others != QueueState::IDLE);
    }
    Ok(())
}

/// Compares every waiter. Granted ones run from now on.
fn compare(model: &Model, callers: &mut Callers) -> Result<(), TestCaseError> {
    let Callers {
        queue,
        running,
        waiters,
        ..
    } = callers;
    prop_assert_eq!(queue.in_use(), model.in_use);
    for key in KEYS {
        let held = queue.running_keys.get().map_or(0, |it| it.held(key));
        prop_assert_eq!(held, model.held(key), "key {}", key);
    }
    let mut remaining = Vec::new();
    for mut caller in std::mem::take(waiters) {
        let (index, expected) = (caller.index, model.waiters[caller.index].state);
        if index % 3 == 0 && matches!(expected, State::Granted(_)) {
            // Its task is slow: the grant may be cancelled.
            remaining.push(caller);
            continue;
        }
        let polled = caller.poll(queue);
        let is_woken = caller.woken.count();
        prop_assert_eq!(is_woken, usize::from(polled.is_ready()), "waiter {}", index);
        let state = match polled {
            Poll::Pending => State::Waiting,
            Poll::Ready(WaitResult::Granted) => State::Granted(caller.claim.permits()),
            Poll::Ready(WaitResult::Rejected(_)) => State::Rejected,
            Poll::Ready(WaitResult::Expired) => State::Expired,
        };
        // A waiter whose deadline has passed is skipped when it is next. The model notices earlier.
        let unnoticed =
            expected == State::Expired && matches!(state, State::Waiting | State::Rejected);
        prop_assert!(
            state == expected || unnoticed,
            "waiter {}: {:?}, not {:?}",
            index,
            state,
            expected
        );
        match state {
            State::Waiting => remaining.push(caller),
            State::Granted(permits) => running.push(caller.claim.with_permits(permits)),
            State::Rejected | State::Expired => {}
        }
    }
    *waiters = remaining;
    Ok(())
}
