//! What weights and keys cost a call that does not wait, and memory.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use asyncband_0_6::admission::FairShare;
use bulkman_core::bulkhead::Fairness;
use tokio::sync::Semaphore;

use super::bulkhead;
use crate::contenders::ready;
use crate::harness::Findings;
use crate::harness::alloc;
use crate::harness::measure::{Case, Effort, interleaved};
use crate::harness::table::Table;
use crate::harness::target::Target;

const GROUP: &str = "a call that does not wait";
const TENANT: &str = "tenant-1234";

fn shared() -> bulkman_core::Bulkhead {
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
    const FAIR_SHARE: usize = 11;
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
    let fair = FairShare::new(10);
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
                let mut hasher = seed.build_hasher();
                hasher.write(TENANT.as_bytes());
                let hash = hasher.finish() & 1;
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
        Case::new(GROUP, "asyncband, FairShare", move || {
            drop(ready(fair.acquire(TENANT)));
        }),
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
    findings.targets.push(Target::at_most(
        "fairness: a call with a key, over asyncband's FairShare",
        measured[HASHED].over(&measured[FAIR_SHARE]).median,
        0.8,
        "x",
    ));
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
