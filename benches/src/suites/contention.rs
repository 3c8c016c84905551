//! The cost of calls that compete for permits: throughput, waiting times, fairness.
//!
//! Tasks run through a [`ConcurrencyLimiter`] in a loop, on two worker threads. While it holds a
//! permit, a task yields once. In another case, two threads share one object and never wait.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::contenders::floor::{TwoYields, WakerQueue};
use crate::contenders::semaphores::{AsyncLock, Asyncband, FuturesIntrusive, Tokio};
use crate::contenders::{
    ConcurrencyLimiter, Work, bulkman, execution_policy, threads, throttle_net, tower,
    tower_resilience,
};
use crate::harness::Findings;
use crate::harness::measure::{Distribution, ratios};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

/// The numbers of tasks and permits.
const LOADS: [Load; 4] = [
    Load {
        tasks: 64,
        permits: 8,
        calls: 1000,
        rounds: 15,
    },
    Load {
        tasks: 64,
        permits: 64,
        calls: 2000,
        rounds: 15,
    },
    Load {
        tasks: 10_000,
        permits: 8,
        calls: 64,
        rounds: 9,
    },
    Load {
        tasks: 10_000,
        permits: 64,
        calls: 64,
        rounds: 9,
    },
];

#[derive(Clone, Copy)]
struct Load {
    tasks: usize,
    permits: usize,
    /// The calls of each task: enough that starting and ending tasks costs little in comparison.
    calls: usize,
    rounds: usize,
}

/// The calls of each of the two threads in a round.
const THREAD_CALLS: u64 = 50_000;
const THREAD_ROUNDS: usize = 60;

pub(crate) fn run() -> Findings {
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    for workers in [Workers::tokio(2), Workers::smol(2)] {
        for load in LOADS {
            throughput(&workers, load, &mut findings, &mut blocks);
        }
    }
    findings.charts.push(Chart {
        file: "contention".to_owned(),
        title: "A call among many, two workers; the work is one yield".to_owned(),
        unit: "nanoseconds of wall time per call",
        blocks,
    });
    let mut blocks = Vec::new();
    for workers in [Workers::tokio(2), Workers::smol(2)] {
        waiting_times(&workers, LOADS[0], &mut findings, &mut blocks);
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

/// Returns all contenders.
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
        contender::<tower_resilience::Limit>(),
        contender::<throttle_net::Limit>(),
        contender::<execution_policy::Limit>(),
        contender::<WakerQueue>(),
        contender::<TwoYields>(),
    ]
}

/// The indices of bulkman, of the semaphore to which the target refers, and of the floor.
const BULKMAN: usize = 0;
const TOKIO: usize = 1;
const FLOOR: usize = 9;

struct Contender {
    name: &'static str,
    /// Returns the nanoseconds of wall time per call.
    cost: fn(&Workers, Load) -> f64,
    waits: fn(&Workers, Load) -> Vec<Record>,
}

fn contender<L: ConcurrencyLimiter>() -> Contender {
    Contender {
        name: L::NAME,
        cost: cost::<L>,
        waits: waits::<L>,
    }
}

fn throughput(workers: &Workers, load: Load, findings: &mut Findings, blocks: &mut Vec<Block>) {
    let contenders = contenders(workers);
    let mut rounds = vec![Vec::with_capacity(load.rounds); contenders.len()];
    for _ in 0..load.rounds {
        for (contender, rounds) in contenders.iter().zip(&mut rounds) {
            rounds.push((contender.cost)(workers, load));
        }
    }
    let Load { tasks, permits, .. } = load;
    let title = format!("{tasks} tasks, {permits} permits, {}", workers.name());
    let columns = [
        "throughput",
        "M calls/s",
        "p10",
        "p90",
        "ns per call",
        "over tokio",
    ];
    let mut table = Table::new(&title, columns);
    let mut bars = Vec::new();
    for (contender, cost) in contenders.iter().zip(&rounds) {
        let time = Distribution::of(cost.clone());
        // A slow round has a low throughput, so the percentiles are swapped.
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
        findings
            .targets
            .push(target.with_floor(floor, WakerQueue::NAME));
    }
    findings.tables.push(table);
    blocks.push(Block { title, bars });
}

fn cost<L: ConcurrencyLimiter>(workers: &Workers, load: Load) -> f64 {
    let limiter = L::new(load.permits);
    let tasks = (0..load.tasks).map(|_| {
        let mut limiter = limiter.clone();
        async move {
            for _ in 0..load.calls {
                limiter.run(Work::one_yield()).await;
            }
        }
    });
    let took = run_to_completion(workers, tasks.collect());
    took.as_nanos() as f64 / (load.tasks * load.calls) as f64
}

/// Runs all tasks to completion, and returns the elapsed time.
fn run_to_completion<F>(workers: &Workers, tasks: Vec<F>) -> Duration
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
            running.task_ended();
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
    fn task_ended(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.thread.unpark();
        }
    }
}

/// The time of the latest grant to a task, and its rank among all grants.
#[derive(Debug)]
pub(crate) struct GrantRecord {
    clock: Instant,
    order: Arc<AtomicU64>,
    after: AtomicU64,
    rank: AtomicU64,
}

impl GrantRecord {
    /// Records that a permit has just been granted.
    pub(crate) fn record(&self) {
        self.rank.store(
            self.order.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.after
            .store(self.clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

/// A call: number `ticket` to request a permit, and number `rank` to be granted one.
struct Record {
    ticket: u64,
    rank: u64,
    waited: Duration,
}

fn waits<L: ConcurrencyLimiter>(workers: &Workers, load: Load) -> Vec<Record> {
    let limiter = L::new(load.permits);
    let tickets = Arc::new(AtomicU64::new(0));
    let order = Arc::new(AtomicU64::new(0));
    let clock = Instant::now();
    let (sender, records) = std::sync::mpsc::channel();
    let tasks = (0..load.tasks).map(|_| {
        let mut limiter = limiter.clone();
        let sender = sender.clone();
        let tickets = Arc::clone(&tickets);
        let (after, rank) = (AtomicU64::new(0), AtomicU64::new(0));
        let grant = Arc::new(GrantRecord {
            clock,
            order: Arc::clone(&order),
            after,
            rank,
        });
        async move {
            let mut records = Vec::with_capacity(load.calls);
            for _ in 0..load.calls {
                let requested = clock.elapsed();
                let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                limiter
                    .run(Work::one_yield().recording(Arc::clone(&grant)))
                    .await;
                let after = Duration::from_nanos(grant.after.load(Ordering::Relaxed));
                let waited = after.saturating_sub(requested);
                records.push(Record {
                    ticket,
                    rank: grant.rank.load(Ordering::Relaxed),
                    waited,
                });
            }
            sender
                .send(records)
                .expect("the receiver outlives the tasks");
        }
    });
    run_to_completion(workers, tasks.collect());
    drop(sender);
    records.into_iter().flatten().collect()
}

fn waiting_times(workers: &Workers, load: Load, findings: &mut Findings, blocks: &mut Vec<Block>) {
    let Load { tasks, permits, .. } = load;
    let title = format!("{tasks} tasks, {permits} permits, {}", workers.name());
    let columns = [
        "waiting, us",
        "p50",
        "p99",
        "max",
        "overtaken, %",
        "at most, times",
    ];
    let mut table = Table::new(&title, columns);
    let mut bars = Vec::new();
    for contender in &contenders(workers)[..FLOOR] {
        // The first run warms up. Of the others, the one with the median p99 is reported.
        let mut runs: Vec<[f64; 5]> = (0..6)
            .map(|_| summary((contender.waits)(workers, load)))
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

/// Returns how many calls overtook each call: they requested a permit later and got it earlier.
///
/// The records are in the order of their grants.
fn overtakings(records: &[Record]) -> Vec<u64> {
    // A Fenwick tree over the tickets, which counts those with a grant.
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
    let rounds = threads::run_in_turns(&contenders, THREAD_ROUNDS, THREAD_CALLS);
    let title = "two threads on one object, neither waits";
    let columns = [
        "ns per call and thread",
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
        unit: "nanoseconds per call and thread",
        blocks: vec![Block {
            title: title.to_owned(),
            bars,
        }],
    });
}
