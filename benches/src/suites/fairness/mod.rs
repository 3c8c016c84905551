//! Weights, and permits that are shared between keys.
//!
//! Costs are measured in real time. Waiting times and shares are simulated: calls end at virtual
//! instants, and the order in which they are granted permits is that of the real queue.

mod competing;
mod cost;
mod simulation;

use bulkman_core::bulkhead::Fairness;
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, BulkheadConfig};

use crate::harness::Findings;
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use simulation::{
    AsyncbandFairShare, ByArrival, CappedKeys, FairShares, Outcome, Overtaking, TokioSemaphore,
    run_hog,
};

pub(crate) fn run() -> Findings {
    let mut findings = Findings::default();
    cost::uncontended(&mut findings);
    cost::memory(&mut findings);
    competing::two_threads(&mut findings);
    competing::grants(&mut findings);
    competing::among_tasks(&mut findings);
    hog(&mut findings);
    shares(&mut findings);
    mixed_weights(&mut findings);
    findings
}

fn bulkhead(permits: usize, fairness: Option<Fairness>) -> Bulkhead {
    let config = BulkheadConfig::new("shared")
        .max_concurrent_calls(permits)
        .max_queue_size(1_000_000)
        .fairness(fairness);
    Bulkhead::new(config, ClockOnly).expect("the configuration is valid")
}

/// One key with 10,000 waiters, and 99 keys with a call per second each.
fn hog(findings: &mut Findings) {
    let outcomes: [Outcome; 5] = [
        run_hog::<FairShares>(),
        run_hog::<AsyncbandFairShare>(),
        run_hog::<ByArrival>(),
        run_hog::<TokioSemaphore>(),
        run_hog::<CappedKeys>(),
    ];
    let mut table = Table::new(
        "a key with 10,000 waiters, and 99 with one call a second; 10 permits",
        [
            "ms",
            "wait of the 99, median",
            "p99",
            "between releases, p99",
            "permits in use, %",
        ],
    );
    let mut bars = Vec::new();
    for outcome in &outcomes {
        let (wait, gap) = (outcome.waits(), outcome.gaps());
        let used = 100.0 * outcome.utilization();
        table.row(outcome.name, [wait.median, wait.p99, gap.p99, used]);
        bars.push(Bar {
            label: outcome.name.to_owned(),
            value: wait.p99,
        });
    }
    findings.tables.push(table);
    findings.charts.push(Chart {
        file: "fairness".to_owned(),
        title: "The wait of a tenant beside one with 10,000 waiting calls".to_owned(),
        unit: "milliseconds (p99)",
        blocks: vec![Block {
            title: "99 tenants with one call a second each, 10 permits".to_owned(),
            bars,
        }],
    });
    let [fair, ..] = &outcomes;
    findings.targets.push(Target::at_most(
        "fairness: p99 wait beside a busy key, over the p99 between two releases",
        fair.waits().p99 / fair.gaps().p99,
        1.2,
        "x",
    ));
}

/// Ten keys that always have waiters, with calls of 1 to 50 ms.
fn shares(findings: &mut Findings) {
    let fair = simulation::run_shares::<FairShares>();
    let asyncband = simulation::run_shares::<AsyncbandFairShare>();
    let arrival = simulation::run_shares::<ByArrival>();
    let tokio = simulation::run_shares::<TokioSemaphore>();
    let mut table = Table::new(
        "ten keys that always wait, calls of 1 to 50 ms; 10 permits",
        ["", "Jain's index of permit time", "permits in use, %"],
    );
    for outcome in [&fair, &asyncband, &arrival, &tokio] {
        table.row(
            outcome.name,
            [outcome.jain(), 100.0 * outcome.utilization()],
        );
    }
    findings.tables.push(table);
    findings.targets.push(Target::at_least(
        "fairness: Jain's index of permit time",
        fair.jain(),
        0.99,
        "",
    ));
    findings.targets.push(Target::at_least(
        "fairness: permits in use, over those in the order of arrival",
        fair.utilization() / arrival.utilization(),
        0.97,
        "x",
    ));
}

/// Calls of weight 1 and 50 under a limit of 100.
fn mixed_weights(findings: &mut Findings) {
    let ours = simulation::run_weights::<ByArrival>();
    let tokio = simulation::run_weights::<TokioSemaphore>();
    let mut table = Table::new(
        "calls of weight 1 and 50 under a limit of 100",
        [
            "",
            "permits in use, %",
            "calls",
            "wait, 1: ms",
            "p99",
            "50: ms",
            "p99",
        ],
    );
    let overtaking = [
        simulation::run_weights::<Overtaking<8>>(),
        simulation::run_weights::<Overtaking<64>>(),
    ];
    for outcome in [&ours, &tokio].into_iter().chain(&overtaking) {
        let (light, heavy) = (outcome.waits_of(1), outcome.waits_of(50));
        let used = 100.0 * outcome.utilization();
        let calls = outcome.calls as f64;
        table.row(
            outcome.name,
            [
                used,
                calls,
                light.median,
                light.p99,
                heavy.median,
                heavy.p99,
            ],
        );
    }
    findings.tables.push(table);
    findings.targets.push(Target::at_least(
        "fairness: permits in use with mixed weights, over tokio's semaphore",
        ours.utilization() / tokio.utilization(),
        0.95,
        "x",
    ));
}
