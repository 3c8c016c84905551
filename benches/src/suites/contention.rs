//! What a call costs when others want the same permits: throughput, waiting times, fairness.
//!
//! Tasks loop over a [`Gate`] on two workers; the work done with a permit is one yield to the
//! executor. And two plain threads share one object without ever having to wait.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::contenders::floor::{Line, TwoYields};
use crate::contenders::semaphores::{AsyncLock, Asyncband, FuturesIntrusive, Tokio};
use crate::contenders::{
    Gate, Work, bulkman, execution_policy, threads, throttle_net, tower, tower_resilience,
};
use crate::harness::Findings;
use crate::harness::measure::{Distribution, ratios};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

/// Tasks and permits.
const CROWDS: [WaitingCalls; 4] = [
    WaitingCalls {
        tasks: 64,
        permits: 8,
        calls: 1000,
        rounds: 15,
    },
    WaitingCalls {
        tasks: 64,
        permits: 64,
        calls: 2000,
        rounds: 15,
    },
    WaitingCalls {
        tasks: 10_000,
        permits: 8,
        calls: 64,
        rounds: 9,
    },
    WaitingCalls {
        tasks: 10_000,
        permits: 64,
        calls: 64,
        rounds: 9,
    },
];

#[derive(Clone, Copy)]
struct WaitingCalls {
    tasks: usize,
    permits: usize,
    /// Calls of each task: enough that starting and ending tasks is a small part.
    calls: usize,
    rounds: usize,
}

/// Calls of each of the two threads in a round.
const THREAD_CALLS: u64 = 50_000;
const THREAD_ROUNDS: usize = 60;

pub(crate) fn run() -> Findings {
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    for workers in [Workers::tokio(2), Workers::smol(2)] {
        for waiting_calls in CROWDS {
            throughput(&workers, waiting_calls, &mut findings, &mut blocks);
        }
    }
    findings.charts.push(Chart {
        file: "contention".to_owned(),
        title: "A call among many, two workers; the work is one yield".to_owned(),
        unit: "nanoseconds of wall time a call",
        blocks,
    });
    let mut blocks = Vec::new();
    for workers in [Workers::tokio(2), Workers::smol(2)] {
        waiting_times(&workers, CROWDS[0], &mut findings, &mut blocks);
    }
    findings.charts.push(Chart {
        file: "waiting".to_owned(),
        title: "The longest wait of one call in a hundred, 64 tasks and 8 permits".to_owned(),
        unit: "microseconds (p99)",
        blocks,
    });
    two_threads(&mut findings);
    findings
}

/// All contenders.
fn contenders(workers: &Workers) -> Vec<Contender> {
    vec![
        match workers {
            Workers::Tokio(_) => contender::<bulkman::OnTokio>(),
            Workers::Smol { .. } => contender::<bulkman::OnSmol>(),
        },
        contender::<Tokio>(),
        contender::<AsyncLock>(),
        contender::<FuturesIntrusive>(),
        contender::<Asyncband>(),
        contender::<tower::Limit>(),
        contender::<tower_resilience::Waiting>(),
        contender::<throttle_net::Waiting>(),
        contender::<execution_policy::Waiting>(),
        contender::<Line>(),
        contender::<TwoYields>(),
    ]
}

/// Where bulkman, the semaphore that the target is a multiple of, and the least that a queue can do
/// are among the contenders.
const BULKMAN: usize = 0;
const TOKIO: usize = 1;
const FLOOR: usize = 9;

struct Contender {
    name: &'static str,
    /// Nanoseconds of wall time a call.
    cost: fn(&Workers, WaitingCalls) -> f64,
    waits: fn(&Workers, WaitingCalls) -> Vec<Record>,
}

fn contender<G: Gate>() -> Contender {
    Contender {
        name: G::NAME,
        cost: cost::<G>,
        waits: waits::<G>,
    }
}

fn throughput(
    workers: &Workers,
    waiting_calls: WaitingCalls,
    findings: &mut Findings,
    blocks: &mut Vec<Block>,
) {
    let contenders = contenders(workers);
    let mut rounds = vec![Vec::with_capacity(waiting_calls.rounds); contenders.len()];
    for _ in 0..waiting_calls.rounds {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push((contender.cost)(workers, waiting_calls));
        }
    }
    let WaitingCalls { tasks, permits, .. } = waiting_calls;
    let title = format!("{tasks} tasks, {permits} permits, {}", workers.name());
    let columns = [
        "throughput",
        "M calls/s",
        "p10",
        "p90",
        "ns a call",
        "over tokio",
    ];
    let mut table = Table::new(&title, columns);
    let mut bars = Vec::new();
    for (contender, cost) in contenders.iter().zip(&rounds) {
        let time = Distribution::of(cost.clone());
        // The slow rounds are the low throughputs.
        let rate = |time: f64| 1e3 / time;
        let relative = ratios(&rounds[TOKIO], cost).median;
        table.row(
            contender.name,
            [
                rate(time.median),
                rate(time.p90),
                rate(time.p10),
                time.median,
                relative,
            ],
        );
        bars.push(Bar {
            label: contender.name.to_owned(),
            value: time.median,
        });
    }
    let bulkman = ratios(&rounds[TOKIO], &rounds[BULKMAN]).median;
    if permits < 64 {
        let name = format!("throughput, {title}, over tokio's semaphore");
        let floor = ratios(&rounds[TOKIO], &rounds[FLOOR]).median;
        let target = Target::at_least(name, bulkman, 1.3, "x");
        findings.targets.push(target.above(floor, Line::NAME));
    }
    findings.tables.push(table);
    blocks.push(Block { title, bars });
}

fn cost<G: Gate>(workers: &Workers, waiting_calls: WaitingCalls) -> f64 {
    let gate = G::new(waiting_calls.permits);
    let tasks = (0..waiting_calls.tasks).map(|_| {
        let mut gate = gate.clone();
        async move {
            for _ in 0..waiting_calls.calls {
                gate.pass(Work::one_yield()).await;
            }
        }
    });
    let took = finish(workers, tasks.collect());
    took.as_nanos() as f64 / (waiting_calls.tasks * waiting_calls.calls) as f64
}

/// Runs all tasks to their end.
fn finish<F>(workers: &Workers, tasks: Vec<F>) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let running = Arc::new(Running {
        left: AtomicUsize::new(tasks.len()),
        thread: std::thread::current(),
    });
    let start = Instant::now();
    for task in tasks {
        let running = Arc::clone(&running);
        workers.spawn(async move {
            task.await;
            running.one_ended();
        });
    }
    while running.left.load(Ordering::Acquire) > 0 {
        std::thread::park();
    }
    start.elapsed()
}

struct Running {
    left: AtomicUsize,
    thread: Thread,
}

impl Running {
    fn one_ended(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.thread.unpark();
        }
    }
}

/// When a call got its permit, and its rank.
#[derive(Debug)]
pub(crate) struct Began {
    clock: Instant,
    order: Arc<AtomicU64>,
    after: AtomicU64,
    rank: AtomicU64,
}

impl Began {
    /// The permit has just been granted.
    pub(crate) fn now(&self) {
        self.rank.store(
            self.order.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.after
            .store(self.clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

/// One call that asked as number `ticket` and began as number `rank`.
struct Record {
    ticket: u64,
    rank: u64,
    waited: Duration,
}

fn waits<G: Gate>(workers: &Workers, waiting_calls: WaitingCalls) -> Vec<Record> {
    let gate = G::new(waiting_calls.permits);
    let tickets = Arc::new(AtomicU64::new(0));
    let order = Arc::new(AtomicU64::new(0));
    let clock = Instant::now();
    let (sender, records) = std::sync::mpsc::channel();
    let tasks = (0..waiting_calls.tasks).map(|_| {
        let mut gate = gate.clone();
        let sender = sender.clone();
        let tickets = Arc::clone(&tickets);
        let (after, rank) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = Arc::new(Began {
            clock,
            order: Arc::clone(&order),
            after,
            rank,
        });
        async move {
            let mut records = Vec::with_capacity(waiting_calls.calls);
            for _ in 0..waiting_calls.calls {
                let asked = clock.elapsed();
                let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                gate.pass(Work::one_yield().telling(Arc::clone(&began)))
                    .await;
                let after = Duration::from_nanos(began.after.load(Ordering::Relaxed));
                let waited = after.saturating_sub(asked);
                records.push(Record {
                    ticket,
                    rank: began.rank.load(Ordering::Relaxed),
                    waited,
                });
            }
            sender
                .send(records)
                .expect("the receiver outlives the tasks");
        }
    });
    finish(workers, tasks.collect());
    drop(sender);
    records.into_iter().flatten().collect()
}

fn waiting_times(
    workers: &Workers,
    waiting_calls: WaitingCalls,
    findings: &mut Findings,
    blocks: &mut Vec<Block>,
) {
    let WaitingCalls { tasks, permits, .. } = waiting_calls;
    let title = format!("{tasks} tasks, {permits} permits, {}", workers.name());
    let columns = [
        "waiting, us",
        "p50",
        "p99",
        "max",
        "overtaken, %",
        "worst, times",
    ];
    let mut table = Table::new(&title, columns);
    let mut bars = Vec::new();
    for contender in &contenders(workers)[..FLOOR] {
        // The first run warms up, and the middle one of the others speaks for all.
        let mut runs: Vec<[f64; 5]> = (0..6)
            .map(|_| summary((contender.waits)(workers, waiting_calls)))
            .skip(1)
            .collect();
        runs.sort_by(|a, b| a[1].total_cmp(&b[1]));
        let run = runs[runs.len() / 2];
        table.row(contender.name, run);
        bars.push(Bar {
            label: contender.name.to_owned(),
            value: run[1],
        });
    }
    findings.tables.push(table);
    blocks.push(Block { title, bars });
}

fn summary(mut records: Vec<Record>) -> [f64; 5] {
    let waited = records
        .iter()
        .map(|record| record.waited.as_nanos() as f64 / 1e3)
        .collect();
    let waited = Distribution::of(waited);
    records.sort_by_key(|record| record.rank);
    let overtaken = overtakings(&records);
    let share = overtaken.iter().filter(|times| **times > 0).count() as f64 / records.len() as f64;
    let worst = overtaken.iter().max().copied().unwrap_or_default();
    [
        waited.median,
        waited.p99,
        waited.max,
        100.0 * share,
        worst as f64,
    ]
}

/// For each record, in the order in which they began: how many had asked later and began earlier.
fn overtakings(records: &[Record]) -> Vec<u64> {
    // A Fenwick tree over the tickets: counts those that have begun.
    let mut tree = vec![0_u64; records.len() + 1];
    let mut times = Vec::with_capacity(records.len());
    for (started, record) in records.iter().enumerate() {
        let ticket = record.ticket as usize + 1;
        let (mut earlier, mut node) = (0, ticket);
        while node > 0 {
            earlier += tree[node];
            node &= node - 1;
        }
        times.push(started as u64 - earlier);
        node = ticket;
        while node < tree.len() {
            tree[node] += 1;
            node += node & node.wrapping_neg();
        }
    }
    times
}

fn two_threads(findings: &mut Findings) {
    let contenders = threads::contenders();
    let mut rounds = vec![Vec::with_capacity(THREAD_ROUNDS); contenders.len()];
    for _ in 0..THREAD_ROUNDS {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push(contender.run(THREAD_CALLS));
        }
    }
    let title = "two threads on one object, nobody waits";
    let columns = [
        "ns a call and thread",
        "median",
        "p10",
        "p90",
        "over async-lock",
    ];
    let mut table = Table::new(title, columns);
    let mut bars = Vec::new();
    for (contender, cost) in contenders.iter().zip(&rounds) {
        let time = Distribution::of(cost.clone());
        let relative = ratios(cost, &rounds[0]).median;
        table.row(contender.name, [time.median, time.p10, time.p90, relative]);
        bars.push(Bar {
            label: contender.name.to_owned(),
            value: time.median,
        });
    }
    let relative = ratios(&rounds[1], &rounds[0]).median;
    findings.targets.push(Target::at_most(
        "two threads, over async-lock",
        relative,
        1.3,
        "x",
    ));
    findings.tables.push(table);
    findings.charts.push(Chart {
        file: "threads".to_owned(),
        title: "Two threads on one object".to_owned(),
        unit: "nanoseconds a call and thread",
        blocks: vec![Block {
            title: title.to_owned(),
            bars,
        }],
    });
}
