//! The cost of calls that need not wait: on one thread, each future is ready at its first poll.

use std::time::Duration;

use crate::contenders::semaphores::REFERENCE;
use crate::contenders::{
    blocking, breakers, bulkman, execution_policy, floor, group, pairs, semaphores, throttle_net,
    tower, tower_resilience,
};
use crate::harness::Findings;
use crate::harness::measure::{Case, Effort, Measured, interleaved};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

const GROUPS: [&str; 10] = [
    group::FLOOR,
    group::SEMAPHORE,
    group::BULKHEAD,
    group::BREAKER,
    group::BOTH,
    group::TIMEOUT,
    group::SYNC,
    group::BLOCKING,
    group::OPEN,
    group::FULL,
];

pub(crate) fn run() -> Findings {
    let workers = Workers::tokio(1);
    let _entered = workers.enter();
    let mut measured = interleaved(&mut cases(), Effort::CALLS);
    measured.extend(interleaved(&mut blocking::cases(), SINGLE_CALLS));
    let reference = find(&measured, group::SEMAPHORE, REFERENCE);
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    for group in GROUPS {
        let mut table = Table::new(
            group,
            [
                "ns per call",
                "median",
                "p10",
                "p90",
                "p99",
                "in S",
                "allocations",
            ],
        );
        let mut bars = Vec::new();
        for case in measured.iter().filter(|case| case.group == group) {
            let time = case.time;
            let relative = case.over(reference).median;
            table.row(
                &case.name,
                [
                    time.median,
                    time.p10,
                    time.p90,
                    time.p99,
                    relative,
                    case.allocations,
                ],
            );
            bars.push(Bar {
                label: case.name.clone(),
                value: time.median,
            });
        }
        findings.tables.push(table);
        blocks.push(Block {
            title: group.to_owned(),
            bars,
        });
    }
    findings.charts.push(Chart {
        file: "overhead".to_owned(),
        title: "A call that need not wait, one thread".to_owned(),
        unit: "nanoseconds per call",
        blocks,
    });
    findings.targets = targets(&measured);
    findings
}

/// The effort for calls that take microseconds: a batch is one call.
const SINGLE_CALLS: Effort = Effort {
    rounds: 200,
    batches: 10,
    batch: Duration::from_nanos(1),
};

fn targets(measured: &[Measured]) -> Vec<Target> {
    let reference = find(measured, group::SEMAPHORE, REFERENCE);
    let mut targets = Vec::new();
    let (closed, limit) = if cfg!(feature = "tracing") {
        ("closed, tracing on, no subscriber", 1.6)
    } else {
        ("closed", 1.45)
    };
    for (name, group, case, limit, parts) in [
        (closed, group::BOTH, bulkman::CLOSED, limit, floor::CLOSED),
        (
            "closed, count window",
            group::BOTH,
            bulkman::COUNT_WINDOW,
            2.0,
            floor::CLOSED,
        ),
        (
            "closed, time window",
            group::BOTH,
            bulkman::TIME_WINDOW,
            3.0,
            floor::TIMED,
        ),
        (
            "closed, slow calls",
            group::BOTH,
            bulkman::SLOW_CALLS,
            4.0,
            floor::SLOW_CALLS,
        ),
        (
            "rejected, open",
            group::OPEN,
            bulkman::CLOSED,
            1.2,
            floor::OPEN,
        ),
        (
            "rejected, full",
            group::FULL,
            bulkman::CLOSED,
            0.33,
            floor::FULL,
        ),
    ] {
        let case = find(measured, group, case);
        let floor = find(measured, group::FLOOR, parts).over(reference).median;
        let target = Target::at_most(name, case.over(reference).median, limit, " S");
        targets.push(target.with_floor(floor, parts));
        let name = format!("{name}: allocations");
        targets.push(Target::at_most(name, case.allocations, 0.0, ""));
    }
    let pair = find(measured, group::BOTH, pairs::BEST_PAIR);
    let closed = find(measured, group::BOTH, bulkman::CLOSED);
    let relative = closed.over(pair).median;
    targets.push(Target::at_most(
        "closed, over the best pair of peers",
        relative,
        1.0,
        "x",
    ));
    for (name, case, over, limit) in [
        (
            "adaptive limit, over the same call without",
            bulkman::ADAPTIVE,
            bulkman::CLOSED,
            1.1,
        ),
        (
            "adaptive limit, every call a sample, over slow calls",
            bulkman::ADAPTIVE_EVERY_CALL,
            bulkman::SLOW_CALLS,
            1.05,
        ),
    ] {
        let (case, over) = (
            find(measured, group::BOTH, case),
            find(measured, group::BOTH, over),
        );
        targets.push(Target::at_most(name, case.over(over).median, limit, "x"));
        let name = format!("{name}: allocations");
        targets.push(Target::at_most(name, case.allocations, 0.0, ""));
    }
    let tracked = find(measured, group::BOTH, bulkman::RUNNING_CALLS);
    targets.push(Target::at_most(
        "closed, running calls tracked",
        tracked.over(reference).median,
        2.0,
        " S",
    ));
    let slow = find(measured, group::BOTH, bulkman::SLOW_CALLS);
    let in_flight = find(measured, group::BOTH, bulkman::CALLS_IN_FLIGHT);
    targets.push(Target::at_most(
        "closed, calls in flight, beside slow calls",
        in_flight.over(slow).median,
        1.12,
        "x",
    ));
    for (name, readings) in bulkman::clock_readings() {
        let limit = match name {
            "closed" | "closed, count window" => 0.0,
            "rejected, open" => 1.0,
            _ => 2.0,
        };
        targets.push(Target::at_most(
            format!("{name}: clock readings"),
            readings,
            limit,
            "",
        ));
    }
    targets
}

fn cases() -> Vec<Case> {
    let mut cases = bulkman::cases();
    cases.extend(floor::cases());
    cases.extend(semaphores::cases());
    cases.extend(tower::cases());
    cases.extend(throttle_net::cases());
    cases.extend(execution_policy::cases());
    cases.extend(breakers::cases());
    cases.extend(pairs::cases());
    cases.extend(tower_resilience::cases());
    cases
}

fn find<'a>(measured: &'a [Measured], group: &str, name: &str) -> &'a Measured {
    let case = measured
        .iter()
        .find(|case| case.group == group && case.name == name);
    case.unwrap_or_else(|| panic!("{group} has no case {name}"))
}
