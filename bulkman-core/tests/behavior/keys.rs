//! Permits that are shared between keys.

use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::thread;
use std::time::Duration;

use bulkman::adaptive::Enforcement;
use bulkman::bulkhead::Fairness;
use bulkman::future::Acquire;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Permit, Priority};

use crate::harness::{Harness, now_or_never, poll_once};
use crate::operations::{Answer, blocking_work};

on_every_runtime![
    one_key_uses_all_permits_while_no_other_waits,
    key_with_the_fewest_permits_is_next,
    keys_that_hold_nothing_are_served_in_turn,
    key_share_multiplies_the_permits_of_a_key,
    priority_comes_before_keys,
    key_at_its_maximum_blocks_no_other,
    reserved_permits_admit_quiet_keys,
    reserved_permits_are_acquired_without_waiting,
    minimum_beyond_the_limit_blocks_nobody,
    busy_key_cannot_occupy_the_queue,
    queue_of_a_key_is_bounded,
    calls_without_a_key_share_one,
    every_kind_of_call_has_its_key,
    execute_sync_waits_in_its_key,
    weight_above_the_maximum_of_a_key_is_rejected,
    panic_in_hash_holds_nothing,
    fallback_keeps_its_key,
    opening_shutdown_and_deadline_leave_no_key,
    settings_change_while_calls_run_and_wait,
    lowered_maximum_serves_a_heavy_waiter_alone,
    chosen_keys_collide_in_no_other_bulkhead,
    idle_keys_leave_nothing,
    observe_mode_ignores_the_limits_of_keys,
    snapshot_lists_the_heaviest_keys,
    timed_out_blocking_work_counts_for_its_key,
];

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn config(permits: usize, fairness: Fairness) -> BulkheadConfig {
    BulkheadConfig::new("tenants")
        .max_concurrent_calls(permits)
        .fairness(fairness)
}

pub(crate) fn run(bulkhead: &Bulkhead, key: &str) -> Permit {
    bulkhead.call().key(key).try_acquire().unwrap()
}

/// A call that waits.
type Waiting = (String, Pin<Box<Acquire>>);

fn wait(bulkhead: &Bulkhead, key: &str) -> Waiting {
    let mut call = Box::pin(bulkhead.call().key(key).acquire());
    assert!(poll_once(call.as_mut()).is_pending());
    (key.to_owned(), call)
}

/// Returns the key and the permit of each call that was granted one.
fn granted(waiting: &mut Vec<Waiting>) -> Vec<(String, Permit)> {
    let mut granted = Vec::new();
    waiting.retain_mut(|(key, call)| match poll_once(call.as_mut()) {
        std::task::Poll::Ready(permit) => {
            granted.push((key.clone(), permit.unwrap()));
            false
        }
        std::task::Poll::Pending => true,
    });
    granted
}

async fn one_key_uses_all_permits_while_no_other_waits(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()));
    let held: Vec<_> = (0..4).map(|_| run(&bulkhead, "hog")).collect();
    assert_eq!(bulkhead.stats().permits_in_use, 4);
    drop(held);
}

async fn key_with_the_fewest_permits_is_next(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new()).max_queue_size(1000));
    let mut hog: Vec<_> = (0..4).map(|_| run(&bulkhead, "hog")).collect();
    let mut waiting: Vec<_> = (0..10).map(|_| wait(&bulkhead, "hog")).collect();
    waiting.extend(["a", "b", "a"].map(|key| wait(&bulkhead, key)));
    let mut running = Vec::new();
    let mut order = Vec::new();
    for _ in 0..3 {
        hog.pop().unwrap().succeed();
        for (key, permit) in granted(&mut waiting) {
            order.push(key);
            running.push(permit);
        }
    }
    // The second call of `a` is next: `a` and the hog hold one each, and `a` has done so longest.
    assert_eq!(order, ["a", "b", "a"]);
}

/// Hazard K21.
async fn keys_that_hold_nothing_are_served_in_turn(t: Harness) {
    let bulkhead = t.bulkhead(config(1, Fairness::new()).max_queue_size(1000));
    let mut permit = run(&bulkhead, "a");
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.extend(["a", "b", "c"].map(|key| wait(&bulkhead, key)));
    }
    let mut order = String::new();
    while !waiting.is_empty() {
        permit.succeed();
        let mut next = granted(&mut waiting);
        assert_eq!(next.len(), 1);
        let (key, granted) = next.remove(0);
        order.push_str(&key);
        permit = granted;
    }
    for turns in order.as_bytes().chunks(3) {
        let mut turns = turns.to_vec();
        turns.sort_unstable();
        assert_eq!(turns, b"abc", "{order}");
    }
}

async fn key_share_multiplies_the_permits_of_a_key(t: Harness) {
    let bulkhead = t.bulkhead(config(10, Fairness::new()).max_queue_size(1000));
    let mut first: Vec<_> = (0..10).map(|_| run(&bulkhead, "first")).collect();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(wait(&bulkhead, "bronze"));
        let mut call = Box::pin(bulkhead.call().key("gold").key_share(4).acquire());
        assert!(poll_once(call.as_mut()).is_pending());
        waiting.push((String::from("gold"), call));
    }
    let mut running = Vec::new();
    while let Some(permit) = first.pop() {
        permit.succeed();
        running.extend(granted(&mut waiting));
    }
    let gold = running.iter().filter(|(key, _)| key == "gold").count();
    assert_eq!((gold, running.len()), (8, 10));
}

/// Hazard K20.
async fn priority_comes_before_keys(t: Harness) {
    let bulkhead = t.bulkhead(config(2, Fairness::new()));
    let (first, _second) = (run(&bulkhead, "hog"), run(&bulkhead, "hog"));
    let mut quiet = wait(&bulkhead, "quiet");
    let urgent = bulkhead.call().key("hog").priority(Priority::High);
    let mut urgent = Box::pin(urgent.acquire());
    assert!(poll_once(urgent.as_mut()).is_pending());
    first.succeed();
    now_or_never(urgent).unwrap().succeed();
    assert!(poll_once(quiet.1.as_mut()).is_ready());
}

/// Hazard K16.
async fn key_at_its_maximum_blocks_no_other(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().max_per_key(2)));
    let (first, second) = (run(&bulkhead, "hog"), run(&bulkhead, "hog"));
    let waiting = wait(&bulkhead, "hog");
    let stats = bulkhead.stats();
    assert_eq!((stats.waiting, stats.waiting_at_key_maximum), (1, 1));
    // Calls of other keys take the permits that are left, and do not wait.
    run(&bulkhead, "a").succeed();
    let call = bulkhead.call().key("b").execute(async { Answer::Ok(1) });
    assert_eq!(now_or_never(call), Ok(1));
    first.succeed();
    let third = now_or_never(waiting.1).unwrap();
    assert_eq!(bulkhead.stats().waiting_at_key_maximum, 0);
    second.succeed();
    third.succeed();
}

async fn reserved_permits_admit_quiet_keys(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().min_per_key(1)));
    let mut hog: Vec<_> = (0..3).map(|_| run(&bulkhead, "hog")).collect();
    let mut waiting = vec![wait(&bulkhead, "hog")];
    // The call of the hog is queued, and the quiet key is below its minimum: it is next.
    let mut quiet = Box::pin(bulkhead.call().key("quiet").acquire());
    assert!(poll_once(quiet.as_mut()).is_pending());
    let quiet = now_or_never(quiet).unwrap();
    hog.pop().unwrap().succeed();
    assert!(
        granted(&mut waiting).is_empty(),
        "one permit stays reserved"
    );
    quiet.succeed();
    assert_eq!(granted(&mut waiting).len(), 1);
}

/// Hazard K26.
async fn reserved_permits_are_acquired_without_waiting(t: Harness) {
    for evicts in [false, true] {
        let fairness = Fairness::new().min_per_key(1).evict_longest(evicts);
        let bulkhead = t.bulkhead(config(3, fairness).max_queue_size(2));
        let running = (run(&bulkhead, "hog"), run(&bulkhead, "hog"));
        let mut hog = vec![wait(&bulkhead, "hog"), wait(&bulkhead, "hog")];
        let quiet = || bulkhead.call().key("quiet");
        let answer = || async { Answer::Ok(1) };
        // The queue is full, and one permit is available, which is reserved.
        run(&bulkhead, "quiet").succeed();
        let at_once = quiet().max_wait(Duration::ZERO);
        assert_eq!(now_or_never(at_once.execute(answer())), Ok(1));
        let at_once = quiet().max_wait(Duration::ZERO);
        assert_eq!(at_once.execute_sync(|| Answer::Ok(1)), Ok(1));
        assert_eq!(now_or_never(quiet().execute(answer())), Ok(1));
        assert_eq!(quiet().execute_sync(|| Answer::Ok(1)), Ok(1));
        let stats = bulkhead.stats();
        assert_eq!((stats.rejected.total(), stats.waiting), (0, 2));
        // It is not reserved for these.
        let _held = run(&bulkhead, "quiet");
        for key in ["hog", "quiet", "other"] {
            let rejected = bulkhead.call().key(key).try_acquire();
            assert!(matches!(rejected, Err(BulkheadError::Full { .. })), "{key}");
        }
        drop(running);
        assert_eq!(granted(&mut hog).len(), 1, "one permit stays reserved");
        assert_eq!(granted(&mut hog).len(), 1);
    }
}

/// Hazard K18, K23.
async fn minimum_beyond_the_limit_blocks_nobody(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().min_per_key(3)));
    let mut waiting = Vec::new();
    let mut running = Vec::new();
    for key in ["a", "b", "c", "d", "e"] {
        match bulkhead.call().key(key).try_acquire() {
            Ok(permit) => running.push((key.to_owned(), permit)),
            Err(_) => waiting.push(wait(&bulkhead, key)),
        }
    }
    assert_eq!(running.len(), 4);
    while let Some((_, permit)) = running.pop() {
        permit.succeed();
        running.extend(granted(&mut waiting));
    }
    assert!(waiting.is_empty());
    // Weight and minimum exceed the limit: it runs when nothing else does.
    let heavy = bulkhead.call().key("a").weight(4).try_acquire().unwrap();
    heavy.succeed();
}

/// Hazard K8.
async fn busy_key_cannot_occupy_the_queue(t: Harness) {
    let bulkhead = t.bulkhead(config(1, Fairness::new()).max_queue_size(4));
    let running = run(&bulkhead, "hog");
    let mut hog: Vec<_> = (0..4).map(|_| wait(&bulkhead, "hog")).collect();
    let quiet = wait(&bulkhead, "quiet");
    let (_, newest) = hog.pop().unwrap();
    assert!(matches!(
        now_or_never(newest),
        Err(BulkheadError::Full { .. })
    ));
    let second = wait(&bulkhead, "quiet");
    let (_, newest) = hog.pop().unwrap();
    assert!(matches!(
        now_or_never(newest),
        Err(BulkheadError::Full { .. })
    ));
    // Equal keys do not evict each other.
    let third = now_or_never(bulkhead.call().key("quiet").acquire());
    assert!(matches!(third, Err(BulkheadError::Full { .. })));
    let stats = bulkhead.stats();
    assert_eq!((stats.rejected.evicted, stats.rejected.full), (2, 1));
    assert_eq!((stats.rejected.total(), stats.waiting), (3, 4));
    running.succeed();
    now_or_never(quiet.1).unwrap().succeed();
    drop(second);

    let bulkhead = t.bulkhead(config(1, Fairness::new().evict_longest(false)).max_queue_size(2));
    let _running = run(&bulkhead, "hog");
    let _hog = (wait(&bulkhead, "hog"), wait(&bulkhead, "hog"));
    assert!(now_or_never(bulkhead.call().key("quiet").acquire()).is_err());
    assert_eq!(bulkhead.stats().rejected.evicted, 0);
}

async fn queue_of_a_key_is_bounded(t: Harness) {
    let bulkhead = t.bulkhead(config(1, Fairness::new().max_queue_per_key(2)));
    let _running = run(&bulkhead, "hog");
    let _hog = (wait(&bulkhead, "hog"), wait(&bulkhead, "hog"));
    let third = now_or_never(bulkhead.call().key("hog").acquire());
    assert!(matches!(third, Err(BulkheadError::Full { .. })));
    let _quiet = wait(&bulkhead, "quiet");
    let rejected = bulkhead.stats().rejected;
    assert_eq!(
        (rejected.key_queue_full, rejected.full, rejected.total()),
        (1, 0, 1)
    );
}

async fn calls_without_a_key_share_one(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().max_per_key(2)));
    let (first, _second) = (
        bulkhead.try_acquire().unwrap(),
        bulkhead.try_acquire().unwrap(),
    );
    assert!(bulkhead.try_acquire().is_err());
    let keyed = run(&bulkhead, "a");
    first.succeed();
    bulkhead.try_acquire().unwrap().succeed();
    keyed.succeed();
}

async fn every_kind_of_call_has_its_key(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().max_per_key(1)));
    let held = || {
        bulkhead
            .snapshot()
            .keys
            .iter()
            .map(|key| key.held)
            .sum::<u32>()
    };
    let call = || bulkhead.call().key("a");
    assert_eq!(call().execute(async { Ok::<_, ()>(held()) }).await, Ok(1));
    assert_eq!(call().execute_sync(|| Ok::<_, ()>(held())), Ok(1));
    let inside = bulkhead.clone();
    let blocking = call().execute_blocking(move || Ok::<_, ()>(inside.snapshot().keys[0].held));
    assert_eq!(blocking.await, Ok(1));
    let inside = bulkhead.clone();
    let owned = call().execute_owned(async move { Ok::<_, ()>(inside.snapshot().keys[0].held) });
    assert_eq!(owned.await, Ok(1));
    let timed = call()
        .timeout(SECOND)
        .execute(async { Ok::<_, ()>(held()) });
    assert_eq!(timed.await, Ok(1));
    let permit = call().acquire().await.unwrap();
    assert!(call().try_acquire().is_err());
    let key = bulkhead.call_key("a");
    assert!(bulkhead.call().with_key(key).try_acquire().is_err());
    permit.succeed();
    drop(call().try_acquire().unwrap());
    let mut cancelled = Box::pin(call().execute(std::future::pending::<Answer>()));
    assert!(poll_once(cancelled.as_mut()).is_pending());
    assert_eq!(held(), 1);
    drop(cancelled);
    assert_eq!(bulkhead.snapshot().keys, []);
}

async fn execute_sync_waits_in_its_key(t: Harness) {
    let runtime = ManualRuntime::new();
    let config = config(1, Fairness::new()).max_wait(SECOND);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let hog = run(&bulkhead, "hog");
    let mut next = wait(&bulkhead, "hog");
    let spawn = || {
        let bulkhead = bulkhead.clone();
        thread::spawn(move || {
            let call = bulkhead.call().key("quiet");
            call.execute_sync(|| Answer::Ok(1))
        })
    };
    let quiet = spawn();
    t.until(|| bulkhead.stats().waiting == 2).await;
    hog.succeed();
    assert_eq!(quiet.join().unwrap(), Ok(1), "its key holds least");
    let _hog = now_or_never(next.1.as_mut()).unwrap();
    let late = spawn();
    t.until(|| bulkhead.stats().waiting == 1).await;
    runtime.advance(SECOND);
    let error = late.join().unwrap().unwrap_err();
    assert!(matches!(error, BulkheadError::Timeout { .. }), "{error:?}");
    assert_eq!(bulkhead.stats().waiting, 0);
}

async fn weight_above_the_maximum_of_a_key_is_rejected(t: Harness) {
    let bulkhead = t.bulkhead(config(8, Fairness::new().max_per_key(3)));
    for call in [bulkhead.call().key("a"), bulkhead.call()] {
        let error = call.weight(4).try_acquire().unwrap_err();
        assert!(matches!(
            error,
            BulkheadError::WeightTooLarge {
                weight: 4,
                max: 3,
                ..
            }
        ));
    }
    run(&bulkhead, "a").succeed();
}

pub(crate) struct Panics;

impl Hash for Panics {
    fn hash<H: Hasher>(&self, _: &mut H) {
        panic!("no hash");
    }
}

/// Hazard K13.
async fn panic_in_hash_holds_nothing(t: Harness) {
    let bulkhead = t.bulkhead(config(1, Fairness::new()));
    let call = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(bulkhead.call().key(&Panics));
    }));
    assert!(call.is_err());
    assert_eq!(bulkhead.stats().permits_in_use, 0);
    run(&bulkhead, "a").succeed();
}

/// Hazard K19.
async fn fallback_keeps_its_key(t: Harness) {
    let primary = t.bulkhead(config(4, Fairness::new().max_per_key(1)));
    let fallback = t.bulkhead(config(4, Fairness::new().max_per_key(1)));
    let tenant = "tenant 17";
    let _first = run(&primary, tenant);
    assert!(primary.call().key(tenant).try_acquire().is_err());
    let _second = fallback.call().key(tenant).try_acquire().unwrap();
    // Each bulkhead hashes with its own seed, and both count the call for the tenant.
    assert!(fallback.call().key(tenant).try_acquire().is_err());
    assert_eq!(
        fallback.snapshot().keys[0].key,
        Some(fallback.call_key(tenant))
    );
}

async fn opening_shutdown_and_deadline_leave_no_key(t: Harness) {
    let bulkhead = t.bulkhead(config(2, Fairness::new().max_per_key(1)));
    let running = run(&bulkhead, "a");
    let waiting = wait(&bulkhead, "a");
    bulkhead.circuit_breaker().unwrap().open();
    assert!(matches!(
        now_or_never(waiting.1),
        Err(BulkheadError::CircuitOpen { .. })
    ));
    bulkhead.circuit_breaker().unwrap().close();
    let mut late = Box::pin(bulkhead.call().key("a").max_wait(SECOND).acquire());
    assert!(poll_once(late.as_mut()).is_pending());
    t.advance(SECOND).await;
    assert!(matches!(late.await, Err(BulkheadError::Timeout { .. })));
    let waiting = wait(&bulkhead, "a");
    bulkhead.shutdown();
    assert!(matches!(
        now_or_never(waiting.1),
        Err(BulkheadError::Shutdown { .. })
    ));
    running.succeed();
    bulkhead.drained().await;
    assert_eq!(bulkhead.snapshot().keys, []);
}

async fn settings_change_while_calls_run_and_wait(t: Harness) {
    let fair = config(2, Fairness::new().max_per_key(1));
    let bulkhead = t.bulkhead(fair.clone());
    let (first, mut waiting) = (run(&bulkhead, "a"), vec![wait(&bulkhead, "a")]);
    // Without fairness nothing holds the second call back.
    bulkhead.reconfigure(fair.clone().fairness(None)).unwrap();
    let second = granted(&mut waiting).remove(0).1;
    assert_eq!(bulkhead.stats().permits_in_use, 2);
    // Both were added to their key, and count once more.
    bulkhead.reconfigure(fair.clone()).unwrap();
    first.succeed();
    assert!(bulkhead.call().key("a").try_acquire().is_err());
    second.succeed();
    run(&bulkhead, "a").succeed();
    // A call that began without fairness is in no key, and waits first.
    bulkhead.reconfigure(fair.clone().fairness(None)).unwrap();
    let (first, second) = (run(&bulkhead, "a"), run(&bulkhead, "a"));
    let mut before = wait(&bulkhead, "a");
    bulkhead.reconfigure(fair).unwrap();
    let mut after = wait(&bulkhead, "b");
    first.succeed();
    assert!(poll_once(after.1.as_mut()).is_pending());
    assert!(poll_once(before.1.as_mut()).is_ready());
    second.succeed();
    now_or_never(after.1).unwrap().succeed();
    assert_eq!(bulkhead.snapshot().keys, []);
}

async fn lowered_maximum_serves_a_heavy_waiter_alone(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().max_per_key(3)));
    let running = run(&bulkhead, "a");
    let mut heavy = Box::pin(bulkhead.call().key("a").weight(3).acquire());
    assert!(poll_once(heavy.as_mut()).is_pending());
    bulkhead
        .reconfigure(config(4, Fairness::new().max_per_key(2)))
        .unwrap();
    assert!(poll_once(heavy.as_mut()).is_pending());
    running.succeed();
    now_or_never(heavy).unwrap().succeed();
}

/// Hazard K12.
async fn chosen_keys_collide_in_no_other_bulkhead(t: Harness) {
    let [known, other] = [(); 2].map(|()| t.bulkhead(config(1, Fairness::new())));
    let last = |bulkhead: &Bulkhead, key: u32| {
        let key = bulkhead.call_key(&key).to_string();
        key[key.len() - 2..].to_owned()
    };
    let first = last(&known, 0);
    let chosen: Vec<u32> = (0..20_000)
        .filter(|key| last(&known, *key) == first)
        .take(16)
        .collect();
    assert_eq!(chosen.len(), 16);
    let unique: std::collections::BTreeSet<_> =
        chosen.iter().map(|key| last(&other, *key)).collect();
    assert!(unique.len() > 1, "{unique:?}");
}

/// Hazard K9.
async fn idle_keys_leave_nothing(t: Harness) {
    let bulkhead = t.bulkhead(config(2, Fairness::new().max_per_key(1)));
    for tenant in 0..10_000 {
        bulkhead
            .call()
            .key(&tenant)
            .try_acquire()
            .unwrap()
            .succeed();
    }
    assert_eq!(bulkhead.snapshot().keys, []);
}

async fn observe_mode_ignores_the_limits_of_keys(t: Harness) {
    let observing = config(2, Fairness::new().max_per_key(1)).enforcement(Enforcement::Observe);
    let bulkhead = t.bulkhead(observing);
    let (first, second) = (run(&bulkhead, "a"), run(&bulkhead, "a"));
    let stats = bulkhead.stats();
    assert_eq!((stats.active, stats.permits_in_use), (2, 1));
    first.succeed();
    second.succeed();
    assert_eq!(
        (bulkhead.stats().active, bulkhead.snapshot().keys.len()),
        (0, 0)
    );
}

/// Hazard K11.
async fn snapshot_lists_the_heaviest_keys(t: Harness) {
    let bulkhead = t.bulkhead(config(40, Fairness::new().max_per_key(2)));
    let _running: Vec<_> = (0..38)
        .map(|tenant: i32| bulkhead.call().key(&tenant).try_acquire().unwrap())
        .collect();
    let _heavy = bulkhead
        .call()
        .key("heavy")
        .weight(2)
        .try_acquire()
        .unwrap();
    let _waiting = (wait(&bulkhead, "heavy"), wait(&bulkhead, "heavy"));
    let keys = bulkhead.snapshot().keys;
    assert_eq!(keys.len(), 32);
    assert_eq!(keys[0].key, Some(bulkhead.call_key("heavy")));
    assert_eq!(
        (keys[0].held, keys[0].waiting, keys[0].at_maximum),
        (2, 2, true)
    );
    assert!(
        keys[1..]
            .iter()
            .all(|key| (key.held, key.waiting) == (1, 0))
    );
}

async fn timed_out_blocking_work_counts_for_its_key(t: Harness) {
    let bulkhead = t.bulkhead(config(4, Fairness::new().max_per_key(1)));
    let (control, operation) = blocking_work();
    let call = bulkhead.call().key("a").timeout(SECOND);
    let mut call = Box::pin(call.execute_blocking(operation));
    assert!(poll_once(call.as_mut()).is_pending());
    t.until(|| control.has_started()).await;
    t.advance(SECOND).await;
    assert!(matches!(call.await, Err(BulkheadError::Timeout { .. })));
    assert!(bulkhead.call().key("a").try_acquire().is_err());
    control.succeed();
    t.until(|| bulkhead.stats().permits_in_use == 0).await;
    run(&bulkhead, "a").succeed();
}
