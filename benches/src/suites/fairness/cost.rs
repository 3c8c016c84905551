//! What weights and keys cost.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use bulkman_core::bulkhead::Fairness;
use bulkman_core::future::Acquire;
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, BulkheadConfig, Permit};
use tokio::sync::Semaphore;

use crate::contenders::ready;
use crate::harness::Findings;
use crate::harness::alloc;
use crate::harness::measure::{Case, Distribution, Effort, interleaved, ratios};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

const GROUP: &str = "a call that does not wait";
const TENANT: &str = "tenant-1234";

fn bulkhead(permits: usize, fairness: Option<Fairness>) -> Bulkhead {
    let config = BulkheadConfig::new("shared")
        .max_concurrent_calls(permits)
        .max_queue_size(1_000_000)
        .fairness(fairness);
    Bulkhead::new(config, ClockOnly).expect("the configuration is valid")
}

fn shared() -> Bulkhead {
    bulkhead(10, Some(Fairness::new()))
}

/// A call that does not wait, beside a semaphore and a map of semaphores.
pub(super) fn uncontended(findings: &mut Findings) {
    const PLAIN: usize = 0;
    const HASHED: usize = 1;
    const COMPUTED: usize = 2;
    const FLOOR: usize = 8;
    const BESIDE: usize = 9;
    const COMPUTED_BESIDE: usize = 10;
    let plain = bulkhead(10, None);
    let heavy = plain.clone();
    let (hashed, computed, bounded) = (
        shared(),
        shared(),
        bulkhead(10, Some(Fairness::new().min_per_key(1).max_per_key(8))),
    );
    let key = computed.call_key(TENANT);
    // One key is at its maximum, and a call of it waits.
    let beside = bulkhead(10, Some(Fairness::new().max_per_key(1)));
    let busy = || beside.call().key("busy");
    let _running = busy().try_acquire().expect("it is idle");
    let mut waiting = Box::pin(busy().acquire());
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    let (beside, computed_beside) = (beside.clone(), beside.clone());
    let other = beside.call_key(TENANT);
    let (one, many) = (Semaphore::new(10), Semaphore::new(10));
    let (bare, seed, held) = (plain.clone(), RandomState::new(), AtomicU64::new(0));
    let count = move |by: u64| {
        let before = held.load(Ordering::Relaxed);
        let after = before.wrapping_add(by);
        held.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    };
    let map: Mutex<HashMap<String, Arc<Semaphore>>> = Mutex::default();
    let mut cases = [
        Case::new(GROUP, "bulkman", move || {
            ready(plain.execute(async { Ok::<_, ()>(7) })).is_ok()
        }),
        Case::new(GROUP, "bulkman, key", move || {
            let call = hashed.call().key(TENANT);
            ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
        }),
        Case::new(GROUP, "bulkman, key computed before", move || {
            let call = computed.call().with_key(key);
            ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
        }),
        Case::new(GROUP, "bulkman, key with minimum and maximum", move || {
            let call = bounded.call().key(TENANT);
            ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
        }),
        Case::new(GROUP, "bulkman, weight", move || {
            let call = heavy.call().weight(3);
            ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
        }),
        Case::new(GROUP, "tokio, acquire", move || {
            drop(ready(one.acquire()).expect("open"));
        }),
        Case::new(GROUP, "tokio, acquire_many", move || {
            drop(ready(many.acquire_many(3)).expect("open"));
        }),
        Case::new(GROUP, "map of semaphores", move || {
            let semaphore = {
                let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
                match map.get(TENANT) {
                    Some(semaphore) => Arc::clone(semaphore),
                    None => {
                        let new = Arc::new(Semaphore::new(10));
                        map.insert(TENANT.to_owned(), Arc::clone(&new));
                        new
                    }
                }
            };
            drop(ready(semaphore.acquire()).expect("open"));
        }),
        Case::new(
            GROUP,
            "floor: bulkman, a hash, two compare-and-swaps",
            move || {
                let hash = seed.hash_one(TENANT) & 1;
                let added = count(1 + hash);
                let result = ready(bare.execute(async { Ok::<_, ()>(7) })).is_ok();
                result && added && count(0_u64.wrapping_sub(1 + hash))
            },
        ),
        Case::new(
            GROUP,
            "bulkman, key, another waits at its maximum",
            move || {
                let call = beside.call().key(TENANT);
                ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
            },
        ),
        Case::new(
            GROUP,
            "bulkman, key computed before, another waits",
            move || {
                let call = computed_beside.call().with_key(other);
                ready(call.execute(async { Ok::<_, ()>(7) })).is_ok()
            },
        ),
    ];
    let measured = interleaved(&mut cases, Effort::CALLS);
    let mut table = Table::new(
        GROUP,
        ["ns", "median", "p90", "over bulkman", "allocations"],
    );
    for case in &measured {
        let over = case.over(&measured[PLAIN]).median;
        table.row(
            &case.name,
            [case.time.median, case.time.p90, over, case.allocations],
        );
    }
    findings.tables.push(table);
    for (name, case, limit) in [
        ("key", HASHED, 1.6),
        ("key computed before", COMPUTED, 1.35),
        ("key while another waits at its maximum", BESIDE, 3.0),
        (
            "key computed before while another waits at its maximum",
            COMPUTED_BESIDE,
            3.0,
        ),
    ] {
        let target = Target::at_most(
            format!("fairness: a call with a {name}, over one without"),
            measured[case].over(&measured[PLAIN]).median,
            limit,
            "x",
        );
        let floor = measured[FLOOR].over(&measured[PLAIN]).median;
        findings
            .targets
            .push(target.with_floor(floor, "a call without, a hash, two compare-and-swaps"));
        findings.targets.push(Target::at_most(
            format!("fairness: allocations of a call with a {name}"),
            measured[case].allocations,
            0.0,
            "",
        ));
    }
}

/// Stores the number of the waiter that was woken last.
struct Last(usize, Arc<AtomicUsize>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        self.1.store(self.0, Ordering::Relaxed);
    }
}

fn wait(bulkhead: &Bulkhead, key: usize, waker: &Waker) -> Pin<Box<Acquire>> {
    let mut call = Box::pin(bulkhead.call().key(&key).acquire());
    let polled = call.as_mut().poll(&mut Context::from_waker(waker));
    assert!(polled.is_pending(), "the permit is held");
    call
}

/// Returns the nanoseconds of a release that grants a permit, with as many waiting keys.
fn grant(keys: usize) -> Distribution {
    const GRANTS: usize = 20_000;
    let bulkhead = bulkhead(1, Some(Fairness::new()));
    let mut permit: Permit = bulkhead.try_acquire().expect("the first call");
    let last = Arc::<AtomicUsize>::default();
    let wakers: Vec<_> = (0..keys)
        .map(|key| Waker::from(Arc::new(Last(key, Arc::clone(&last)))))
        .collect();
    let mut waiting: Vec<_> = wakers
        .iter()
        .enumerate()
        .map(|(key, waker)| wait(&bulkhead, key, waker))
        .collect();
    let mut times = Vec::with_capacity(GRANTS);
    for _ in 0..GRANTS {
        let begun = Instant::now();
        permit.succeed();
        times.push(begun.elapsed().as_nanos() as f64);
        let key = last.load(Ordering::Relaxed);
        let polled = waiting[key]
            .as_mut()
            .poll(&mut Context::from_waker(&wakers[key]));
        let Poll::Ready(Ok(granted)) = polled else {
            panic!("it was woken")
        };
        permit = granted;
        waiting[key] = wait(&bulkhead, key, &wakers[key]);
    }
    Distribution::of(times)
}

pub(super) fn grants(findings: &mut Findings) {
    let mut table = Table::new(
        "a release that grants a permit",
        ["ns", "median", "p90", "p99"],
    );
    let mut medians = Vec::new();
    for keys in [10, 1_000, 100_000] {
        let time = grant(keys);
        table.row(
            format!("{keys} waiting keys"),
            [time.median, time.p90, time.p99],
        );
        medians.push(time.median);
    }
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        "fairness: a grant among 100,000 waiting keys, over among 10",
        medians[2] / medians[0],
        3.0,
        "x",
    ));
}

/// 64 tasks on two workers, 8 permits, with and without 8 keys, and with tokio's semaphore.
pub(super) fn among_tasks(findings: &mut Findings) {
    const ROUNDS: usize = 15;
    let workers = Workers::tokio(2);
    let _entered = workers.enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("threads can be started");
    let work = || async {
        tokio::task::yield_now().await;
        Ok::<_, ()>(())
    };
    let guarded = |fairness: Option<Fairness>| {
        let bulkhead = bulkhead(8, fairness);
        round(&runtime, |task| {
            let bulkhead = bulkhead.clone();
            let key = bulkhead.call_key(&(task % 8));
            async move {
                for _ in 0..CALLS {
                    let call = bulkhead.call().with_key(key);
                    call.execute(work()).await.expect("the queue has room");
                }
            }
        })
    };
    let semaphore = || {
        let semaphore = Arc::new(Semaphore::new(8));
        round(&runtime, |_| {
            let semaphore = Arc::clone(&semaphore);
            async move {
                for _ in 0..CALLS {
                    let _permit = semaphore.acquire().await.expect("open");
                    work().await.expect("it succeeds");
                }
            }
        })
    };
    let (mut with, mut without, mut tokio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.push(guarded(Some(Fairness::new())));
        without.push(guarded(None));
        tokio.push(semaphore());
    }
    findings.targets.push(Target::at_most(
        "fairness: 64 tasks with keys, over without",
        ratios(&with, &without).median,
        2.5,
        "x",
    ));
    let over = ratios(&tokio, &with).median;
    let floor = ratios(&tokio, &without).median;
    let target = Target::at_least(
        "fairness: 64 tasks with keys, throughput over tokio's semaphore",
        over,
        1.0,
        "x",
    );
    findings
        .targets
        .push(target.with_floor(floor, "without keys"));
    let mut table = Table::new(
        "64 tasks, 8 permits, two workers",
        ["ns per call", "median", "p90"],
    );
    for (name, rounds) in [
        ("bulkman, 8 keys", with),
        ("bulkman", without),
        ("tokio, acquire", tokio),
    ] {
        let time = Distribution::of(rounds);
        table.row(name, [time.median, time.p90]);
    }
    findings.tables.push(table);
}

const TASKS: usize = 64;
const CALLS: u32 = 1_000;

/// Returns the nanoseconds of a call of many tasks at once.
fn round<F: Future<Output = ()> + Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    task: impl Fn(usize) -> F,
) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS).map(|index| runtime.spawn(task(index))).collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no task panics");
        }
    });
    begun.elapsed().as_nanos() as f64 / (TASKS as f64 * f64::from(CALLS))
}

/// The heap of keys and of their waiters.
pub(super) fn memory(findings: &mut Findings) {
    const KEYS: usize = 100_000;
    const WAITERS: usize = 64_000;
    let bulkhead = shared();
    let call = |key: usize| drop(bulkhead.call().key(&key).try_acquire().expect("none waits"));
    call(0);
    let ((), idle) = alloc::during(|| (0..KEYS).for_each(call));
    let busy: Vec<_> = (0..10)
        .map(|key: usize| bulkhead.call().key(&key).try_acquire().expect("none waits"))
        .collect();
    let mut calls: Vec<_> = (0..WAITERS)
        .map(|call| Box::pin(bulkhead.call().key(&(call % 100)).acquire()))
        .collect();
    let waiters = alloc::during(|| {
        for call in &mut calls {
            let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "all permits are held");
        }
    });
    let each = waiters.1.kept as f64 / WAITERS as f64;
    let mut table = Table::new("memory", ["", "bytes"]);
    table.row(format!("{KEYS} idle keys"), [idle.kept as f64]);
    table.row("a waiter of 100 keys", [each]);
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        format!("fairness: {KEYS} idle keys"),
        idle.kept as f64,
        0.0,
        "bytes",
    ));
    findings.targets.push(Target::at_most(
        "fairness: heap of a waiter with a key",
        each,
        48.0,
        "bytes",
    ));
    drop((calls, busy));
}
