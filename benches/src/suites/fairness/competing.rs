//! What keys cost calls that compete for permits.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use asyncband_0_6::admission::FairShare;
use bulkman_core::bulkhead::Fairness;
use tokio::sync::Semaphore;

use super::bulkhead;
use super::simulation::{Acquire, AsyncbandFairShare, FairShares, Permits};
use crate::contenders::threads;
use crate::harness::Findings;
use crate::harness::measure::{Distribution, ratios};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

/// Stores the number of the waiter that was woken last.
struct Last(usize, Arc<AtomicUsize>);

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        self.1.store(self.0, Ordering::Relaxed);
    }
}

fn wait<P: Permits>(permits: &P, key: usize, waker: &Waker) -> Acquire<P::Permit> {
    let mut call = permits.acquire(key as u64, 1);
    let polled = call.as_mut().poll(&mut Context::from_waker(waker));
    assert!(polled.is_pending(), "the permit is held");
    call
}

/// Returns the nanoseconds of a release that grants a permit, with as many waiting keys.
fn grant<P: Permits>(keys: usize, grants: usize) -> Distribution {
    let permits = P::new(1);
    let mut permit = permits.acquire(0, 1);
    let Poll::Ready(mut permit) = permit
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("none holds a permit")
    };
    let last = Arc::<AtomicUsize>::default();
    let wakers: Vec<_> = (0..keys)
        .map(|key| Waker::from(Arc::new(Last(key, Arc::clone(&last)))))
        .collect();
    let mut waiting: Vec<_> = wakers
        .iter()
        .enumerate()
        .map(|(key, waker)| wait(&permits, key, waker))
        .collect();
    let mut times = Vec::with_capacity(grants);
    for _ in 0..grants {
        let begun = Instant::now();
        drop(permit);
        times.push(begun.elapsed().as_nanos() as f64);
        let key = last.load(Ordering::Relaxed);
        let polled = waiting[key]
            .as_mut()
            .poll(&mut Context::from_waker(&wakers[key]));
        let Poll::Ready(granted) = polled else {
            panic!("it was woken")
        };
        permit = granted;
        waiting[key] = wait(&permits, key, &wakers[key]);
    }
    Distribution::of(times)
}

pub(super) fn grants(findings: &mut Findings) {
    let mut table = Table::new(
        "a release that grants a permit",
        ["ns", "median", "p90", "p99"],
    );
    let mut row = |name: &str, keys: usize, time: Distribution| {
        table.row(
            format!("{name}: {keys} waiting keys"),
            [time.median, time.p90, time.p99],
        );
        time.median
    };
    let ours = [10, 1_000, 100_000]
        .map(|keys| row(FairShares::NAME, keys, grant::<FairShares>(keys, 20_000)));
    // Its time grows with the number of keys.
    for (keys, grants) in [(10, 20_000), (1_000, 20_000), (100_000, 200)] {
        let time = grant::<AsyncbandFairShare>(keys, grants);
        row(AsyncbandFairShare::NAME, keys, time);
    }
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        "fairness: a grant among 100,000 waiting keys, over among 10",
        ours[2] / ours[0],
        3.0,
        "x",
    ));
}

/// Two threads, and permits for both.
pub(super) fn two_threads(findings: &mut Findings) {
    const CALLS: u64 = 50_000;
    const ROUNDS: usize = 40;
    let contenders = threads::with_keys();
    let rounds = threads::run_in_turns(&contenders, ROUNDS, CALLS);
    let mut table = Table::new(
        "two threads with a key each, neither waits",
        ["ns per call and thread", "median", "p90"],
    );
    for (contender, cost) in contenders.iter().zip(&rounds) {
        let time = Distribution::of(cost.clone());
        table.row(contender.name, [time.median, time.p90]);
    }
    findings.tables.push(table);
    let [ours, fair_share] = &rounds[..] else {
        unreachable!("there are two contenders")
    };
    findings.targets.push(Target::at_most(
        "fairness: two threads with keys, over asyncband's FairShare",
        ratios(ours, fair_share).median,
        0.5,
        "x",
    ));
}

/// 64 tasks on two workers, 8 permits, with and without 8 keys, and with two peers.
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
    let fair_share = || {
        let admission = Arc::new(FairShare::new(8));
        round(&runtime, |task| {
            let admission = Arc::clone(&admission);
            async move {
                for _ in 0..CALLS {
                    let _permit = admission.acquire(task % 8).await;
                    work().await.expect("it succeeds");
                }
            }
        })
    };
    let (mut with, mut without, mut tokio) = (Vec::new(), Vec::new(), Vec::new());
    let mut asyncband = Vec::new();
    for _ in 0..ROUNDS {
        with.push(guarded(Some(Fairness::new())));
        without.push(guarded(None));
        tokio.push(semaphore());
        asyncband.push(fair_share());
    }
    findings.targets.push(Target::at_most(
        "fairness: 64 tasks with keys, over without",
        ratios(&with, &without).median,
        2.5,
        "x",
    ));
    findings.targets.push(Target::at_most(
        "fairness: 64 tasks with keys, over asyncband's FairShare",
        ratios(&with, &asyncband).median,
        1.0,
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
        ("asyncband, FairShare, 8 keys", asyncband),
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
