//! The memory of waiting calls, bulkheads and futures, and the cost of cancelling waiting calls.

use std::mem::size_of_val;
use std::time::Instant;

use bulkman_core::Bulkhead;

use crate::contenders::floor::MemoryAccess;
use crate::contenders::semaphores::{AsyncLock, Asyncband, FuturesIntrusive, Tokio};
use crate::contenders::{
    ConcurrencyLimiter, bulkman, execution_policy, ready, succeeds, throttle_net, tower,
    tower_resilience,
};
use crate::harness::measure::{Distribution, ratios};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::harness::{Findings, alloc};
use crate::waiting_calls::{WaitingCalls, call};
use crate::workers::Workers;

const WAITING: usize = 100_000;
const ROUNDS: usize = 11;

pub(crate) fn run() -> Findings {
    let workers = Workers::tokio(1);
    let _entered = workers.enter();
    let mut findings = Findings::default();
    waiting_calls(&mut findings);
    cancellations(&mut findings);
    objects(&mut findings);
    futures(&mut findings);
    findings
}

struct Contender {
    name: &'static str,
    bytes: fn() -> Bytes,
    cancel: fn(Order) -> f64,
}

fn contenders() -> Vec<Contender> {
    fn contender<L: ConcurrencyLimiter>() -> Contender {
        Contender {
            name: L::NAME,
            bytes: bytes::<L>,
            cancel: cancel::<L>,
        }
    }
    vec![
        contender::<bulkman::OnTokio>(),
        contender::<Tokio>(),
        contender::<AsyncLock>(),
        contender::<FuturesIntrusive>(),
        contender::<Asyncband>(),
        contender::<tower::Limit>(),
        contender::<tower_resilience::Limit>(),
        contender::<throttle_net::Limit>(),
        contender::<execution_policy::Limit>(),
    ]
}

/// The floor of cancelling: the memory of a future and its slot, without a list.
const FLOOR: fn(Order) -> f64 = cancel::<MemoryAccess>;

/// The bytes of one waiting call.
struct Bytes {
    future: usize,
    heap: f64,
}

fn bytes<L: ConcurrencyLimiter>() -> Bytes {
    let future = size_of_val(&call(L::new(1)));
    let limiter = L::new(1);
    let mut waiting_calls = WaitingCalls::new(WAITING, || call(limiter.clone()));
    let ((), allocations) = alloc::during(|| waiting_calls.queue());
    Bytes {
        future,
        heap: allocations.kept as f64 / WAITING as f64,
    }
}

fn waiting_calls(findings: &mut Findings) {
    let title = format!("a waiting call, of {WAITING}");
    let mut table = Table::new(&title, ["bytes", "future", "heap", "total"]);
    let mut bars = Vec::new();
    for contender in contenders() {
        let Bytes { future, heap } = (contender.bytes)();
        let total = future as f64 + heap;
        table.row(contender.name, [future as f64, heap, total]);
        bars.push(Bar {
            label: contender.name.to_owned(),
            value: total,
        });
        if contender.name == bulkman::CLOSED {
            findings.targets.push(Target::at_most(
                "heap of a waiting call",
                heap,
                128.0,
                " bytes",
            ));
        }
    }
    findings.tables.push(table);
    findings.charts.push(Chart {
        file: "memory".to_owned(),
        title: "Memory of a waiting call".to_owned(),
        unit: "bytes of the future and its allocations",
        blocks: vec![Block { title, bars }],
    });
}

#[derive(Clone, Copy)]
enum Order {
    FirstToLast,
    LastToFirst,
    Random,
}

impl Order {
    const ALL: [(&'static str, Self); 3] = [
        ("first to last", Self::FirstToLast),
        ("last to first", Self::LastToFirst),
        ("at random", Self::Random),
    ];

    fn of(self, calls: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..calls).collect();
        match self {
            Self::FirstToLast => {}
            Self::LastToFirst => order.reverse(),
            Self::Random => fastrand::Rng::with_seed(7).shuffle(&mut order),
        }
        order
    }
}

/// Cancels all waiting calls in this order, and returns the nanoseconds for each.
fn cancel<L: ConcurrencyLimiter>(order: Order) -> f64 {
    let order = order.of(WAITING);
    let limiter = L::new(1);
    let mut waiting_calls = WaitingCalls::new(WAITING, || call(limiter.clone()));
    waiting_calls.queue();
    let start = Instant::now();
    for index in order {
        waiting_calls.cancel(index);
    }
    start.elapsed().as_nanos() as f64 / WAITING as f64
}

fn cancellations(findings: &mut Findings) {
    let mut blocks = Vec::new();
    for (title, order) in Order::ALL {
        let contenders = contenders();
        let mut rounds = vec![Vec::with_capacity(ROUNDS); contenders.len()];
        let (mut reference, mut floor) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
        for _ in 0..ROUNDS {
            reference.push(acquire_and_release());
            floor.push(FLOOR(order));
            for (contender, rounds) in contenders.iter().zip(&mut rounds) {
                rounds.push((contender.cancel)(order));
            }
        }
        let title = format!("cancelling {WAITING} waiting calls, {title}");
        let mut table = Table::new(&title, ["ns each", "median", "p10", "p90", "in S"]);
        let mut bars = Vec::new();
        for (contender, rounds) in contenders.iter().zip(rounds) {
            let relative = ratios(&rounds, &reference).median;
            let time = Distribution::of(rounds);
            table.row(contender.name, [time.median, time.p10, time.p90, relative]);
            bars.push(Bar {
                label: contender.name.to_owned(),
                value: time.median,
            });
            if contender.name == bulkman::CLOSED {
                let floor = ratios(&floor, &reference).median;
                let target = Target::at_most(&title, relative, 2.0, " S");
                findings
                    .targets
                    .push(target.with_floor(floor, MemoryAccess::NAME));
            }
        }
        findings.tables.push(table);
        blocks.push(Block { title, bars });
    }
    findings.charts.push(Chart {
        file: "cancel".to_owned(),
        title: "Cancelling one of many waiting calls".to_owned(),
        unit: "nanoseconds for each",
        blocks,
    });
}

/// Measures `S`, the unit of the targets.
fn acquire_and_release() -> f64 {
    const CALLS: u32 = 2000;
    let semaphore = async_lock::Semaphore::new(2);
    let batch = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            drop(std::hint::black_box(ready(semaphore.acquire())));
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    Distribution::of((0..9).map(|_| batch()).collect()).median
}

fn objects(findings: &mut Findings) {
    const BULKHEADS: usize = 1000;
    let mut table = Table::new(
        "a bulkhead with its circuit breaker",
        ["bytes", "handle", "heap", "total"],
    );
    for (name, config) in [
        ("bulkman", bulkman_core::BulkheadConfig::new("bench")),
        (
            "bulkman: count window of 100",
            bulkman::config().circuit_breaker(bulkman::rate_over_calls(100)),
        ),
    ] {
        let (bulkheads, allocations) = alloc::during(|| {
            let mut bulkheads = Vec::with_capacity(BULKHEADS);
            bulkheads.extend((0..BULKHEADS).map(|_| bulkman::on_tokio(config.clone())));
            bulkheads
        });
        let handle = size_of::<Bulkhead>();
        let heap = (allocations.kept as f64 / BULKHEADS as f64) - handle as f64;
        drop(bulkheads);
        table.row(name, [handle as f64, heap, heap + handle as f64]);
        if name == "bulkman" {
            let bytes = heap + handle as f64;
            findings
                .targets
                .push(Target::at_most("a bulkhead", bytes, 2047.0, " bytes"));
        }
    }
    findings.tables.push(table);
}

fn futures(findings: &mut Findings) {
    let bulkhead = bulkman::on_tokio(bulkman::config());
    let operation = size_of_val(&succeeds!());
    let mut table = Table::new("a call's future", ["bytes", "without the operation's"]);
    let execute = size_of_val(&bulkhead.execute(succeeds!())) - operation;
    table.row("bulkman: execute", [execute as f64]);
    table.row(
        "bulkman: report",
        [(size_of_val(&bulkhead.call().execute_with_report(succeeds!())) - operation) as f64],
    );
    table.row(
        "bulkman: acquire",
        [size_of_val(&bulkhead.acquire()) as f64],
    );
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        "the future of execute",
        execute as f64,
        256.0,
        " bytes",
    ));
}
