//! How costs grow with the number of bulkheads in a manager, and of calls in a window or a queue.
//!
//! Even a cost that does not depend on the size grows a little, once the memory exceeds the caches.
//! Names are picked at random, which is the worst case for the caches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{BulkheadConfig, BulkheadManager, CircuitBreaker};

use crate::contenders::bulkman::{self, rate_over_calls};
use crate::contenders::semaphores::Tokio;
use crate::contenders::{ConcurrencyLimiter, Failed, group, ready};
use crate::harness::Findings;
use crate::harness::measure::{Case, Effort, Measured, interleaved};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::waiting_calls::{WaitingCalls, call};
use crate::workers::Workers;

const EFFORT: Effort = Effort {
    rounds: 60,
    batches: 10,
    batch: Duration::from_micros(50),
};

/// The limit for the growth of a cost per decade of the size, which includes cache misses.
const FLAT: f64 = 2.0;

pub(crate) fn run() -> Findings {
    let workers = Workers::tokio(1);
    let _entered = workers.enter();
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    let sizes = [1, 10, 100, 1000, 10_000, 100_000];
    let lookups = grow(
        "a lookup among n bulkheads",
        &sizes,
        lookup,
        &mut findings,
        &mut blocks,
    );
    let title = "a lookup in a HashMap of n, for comparison";
    let maps = grow(title, &sizes, hash_map, &mut findings, &mut blocks);
    let decades = |lookups: &[Measured]| lookups[5].over(&lookups[1]).median;
    let target = Target::at_most(
        "lookup among 100000 over among 10",
        decades(&lookups),
        4.0,
        "x",
    );
    findings
        .targets
        .push(target.with_floor(decades(&maps), "a HashMap of Arcs"));
    let sizes = [10, 100, 1000, 10_000, 100_000, 1_000_000];
    let windows = grow(
        "a call, count window of n calls",
        &sizes,
        count_window,
        &mut findings,
        &mut blocks,
    );
    flat("recording in a count window", &windows, &mut findings);
    let buckets = [1, 10, 100, 1000, 10_000];
    let windows = grow(
        "a call, time window of n buckets",
        &buckets,
        time_window,
        &mut findings,
        &mut blocks,
    );
    flat("recording in a time window", &windows, &mut findings);
    let title = "the oldest of n waiters leaves, another queues";
    let leaving = grow(
        title,
        &sizes,
        leave::<bulkman::OnTokio>,
        &mut findings,
        &mut blocks,
    );
    flat("leaving a queue in order", &leaving, &mut findings);
    let at_random = leave_at_random::<bulkman::OnTokio>;
    grow(
        "a random one of n waiters leaves, another queues",
        &sizes,
        at_random,
        &mut findings,
        &mut blocks,
    );
    let tokio = leave_at_random::<Tokio>;
    grow(
        "the same with tokio's Semaphore, for comparison",
        &sizes,
        tokio,
        &mut findings,
        &mut blocks,
    );
    let grants = grow(
        "a grant in a queue of n waiters",
        &sizes,
        grant::<bulkman::OnTokio>,
        &mut findings,
        &mut blocks,
    );
    flat("a grant", &grants, &mut findings);
    findings.charts.push(Chart {
        file: "scaling".to_owned(),
        title: "bulkman at growing sizes".to_owned(),
        unit: "nanoseconds",
        blocks,
    });
    findings
}

/// Measures the cases that `make` creates for each size, in turns.
fn grow(
    title: &'static str,
    sizes: &[usize],
    make: fn(usize) -> Case,
    findings: &mut Findings,
    blocks: &mut Vec<Block>,
) -> Vec<Measured> {
    let mut cases: Vec<Case> = sizes.iter().map(|size| make(*size)).collect();
    let measured = interleaved(&mut cases, EFFORT);
    let mut table = Table::new(title, ["ns", "median", "p10", "p90", "per decade"]);
    let mut bars = Vec::new();
    for (index, (size, case)) in sizes.iter().zip(&measured).enumerate() {
        let time = case.time;
        let growth = index
            .checked_sub(1)
            .map_or(f64::NAN, |before| case.over(&measured[before]).median);
        table.row(size.to_string(), [time.median, time.p10, time.p90, growth]);
        bars.push(Bar {
            label: case.name.clone(),
            value: time.median,
        });
    }
    findings.tables.push(table);
    blocks.push(Block {
        title: title.to_owned(),
        bars,
    });
    measured
}

/// Adds a target for the steepest decade.
fn flat(name: &str, measured: &[Measured], findings: &mut Findings) {
    let growth = measured
        .windows(2)
        .map(|pair| pair[1].over(&pair[0]).median)
        .fold(f64::MIN, f64::max);
    findings.targets.push(Target::at_most(
        format!("{name}: steepest decade"),
        growth,
        FLAT,
        "x",
    ));
}

fn lookup(bulkheads: usize) -> Case {
    let manager = BulkheadManager::new(ClockOnly);
    for index in 0..bulkheads {
        let config = BulkheadConfig::new(Label::of(index).as_str());
        manager.create_bulkhead(config).expect("a new name");
    }
    let mut pick = picker(bulkheads);
    Case::new(group::BOTH, format!("bulkman: {bulkheads}"), move || {
        manager.get_bulkhead(Label::of(pick()).as_str()).is_some()
    })
}

fn hash_map(entries: usize) -> Case {
    let map: HashMap<String, Arc<usize>> = (0..entries)
        .map(|index| (Label::of(index).as_str().to_owned(), Arc::new(index)))
        .collect();
    let mut pick = picker(entries);
    Case::new(group::BOTH, format!("HashMap: {entries}"), move || {
        map.get(Label::of(pick()).as_str()).cloned()
    })
}

/// A name that is created in place, so that no memory access for it is measured.
struct Label([u8; 15]);

impl Label {
    fn of(mut index: usize) -> Self {
        let mut bytes = *b"bulkhead-000000";
        for digit in bytes.iter_mut().rev().take(6) {
            *digit = b'0' + (index % 10) as u8;
            index /= 10;
        }
        Self(bytes)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ASCII")
    }
}

fn count_window(calls: usize) -> Case {
    let config = rate_over_calls(u32::try_from(calls).expect("a window's size"));
    guarded(config, calls)
}

fn time_window(buckets: usize) -> Case {
    guarded(
        bulkman::rate_over_time(u32::try_from(buckets).expect("a number of buckets")),
        buckets,
    )
}

fn guarded(config: bulkman_core::CircuitBreakerConfig, size: usize) -> Case {
    let breaker = CircuitBreaker::new("bench", config, ClockOnly).expect("a valid configuration");
    // The window is full from the start. It always contains failures, since one more success in a
    // window of successes changes nothing.
    let mut calls = 0_u32;
    let caller = breaker.clone();
    let mut call = move || {
        calls = calls.wrapping_add(1);
        ready(caller.execute(async move {
            std::hint::black_box(if calls.is_multiple_of(5) {
                Err(Failed)
            } else {
                Ok(7_u64)
            })
        }))
    };
    for _ in 0..size {
        let _failed = call().is_err();
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    Case::new(group::BREAKER, format!("bulkman: {size}"), call)
}

/// Cancels the oldest waiter.
fn leave<L: ConcurrencyLimiter>(waiting: usize) -> Case {
    let mut oldest = 0;
    leaving::<L>(waiting, move || {
        let index = oldest;
        oldest = (oldest + 1) % waiting;
        index
    })
}

/// Cancels a random waiter. Beyond the size of the caches, fetching the call dominates the cost.
fn leave_at_random<L: ConcurrencyLimiter>(waiting: usize) -> Case {
    leaving::<L>(waiting, picker(waiting))
}

fn leaving<L: ConcurrencyLimiter>(
    waiting: usize,
    mut pick: impl FnMut() -> usize + 'static,
) -> Case {
    let limiter = L::new(1);
    let mut waiting_calls = WaitingCalls::new(waiting, || call(limiter.clone()));
    waiting_calls.queue();
    Case::new(
        group::BULKHEAD,
        format!("{}: {waiting}", L::NAME),
        move || {
            let index = pick();
            waiting_calls.cancel(index);
            waiting_calls.refill(index, call(limiter.clone()));
        },
    )
}

fn grant<L: ConcurrencyLimiter>(waiting: usize) -> Case {
    let limiter = L::new(1);
    let mut waiting_calls = WaitingCalls::new(waiting, || call(limiter.clone()));
    waiting_calls.queue();
    let mut head = 0;
    Case::new(
        group::BULKHEAD,
        format!("{}: {waiting}", L::NAME),
        move || {
            waiting_calls.grant_next(head);
            waiting_calls.refill(head, call(limiter.clone()));
            head = (head + 1) % waiting;
        },
    )
}

/// Returns a generator of random indices below `end`, the same in each run.
fn picker(end: usize) -> impl FnMut() -> usize {
    let mut random = fastrand::Rng::with_seed(7);
    move || random.usize(..end)
}
