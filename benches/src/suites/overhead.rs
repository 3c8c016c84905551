//! What a call costs that need not wait: one thread, every future ready at its first poll.

use crate::contenders::semaphores::REFERENCE;
use crate::contenders::{
    breakers, execution_policy, group, pairs, semaphores, throttle_net, tower, tower_resilience,
};
use crate::harness::Findings;
use crate::harness::measure::{Case, Effort, Measured, interleaved};
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;

const GROUPS: [&str; 8] = [
    group::SEMAPHORE,
    group::BULKHEAD,
    group::BREAKER,
    group::BOTH,
    group::TIMEOUT,
    group::SYNC,
    group::OPEN,
    group::FULL,
];

pub(crate) fn run() -> Findings {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a Tokio runtime");
    let _entered = runtime.enter();
    let measured = interleaved(&mut cases(), Effort::CALLS);
    let reference = find(&measured, group::SEMAPHORE, REFERENCE);
    let mut findings = Findings::default();
    let mut blocks = Vec::new();
    for group in GROUPS {
        let mut table =
            Table::new(group, ["ns a call", "median", "p10", "p90", "p99", "in S", "allocations"]);
        let mut bars = Vec::new();
        for case in measured.iter().filter(|case| case.group == group) {
            let time = case.time;
            let relative = case.over(reference).median;
            table.row(&case.name, [time.median, time.p10, time.p90, time.p99, relative, case.allocations]);
            bars.push(Bar { label: case.name.clone(), value: time.median });
        }
        findings.tables.push(table);
        blocks.push(Block { title: group.to_owned(), bars });
    }
    findings.charts.push(Chart {
        file: "overhead".to_owned(),
        title: "A call that need not wait, one thread".to_owned(),
        unit: "nanoseconds a call",
        blocks,
    });
    findings
}

fn cases() -> Vec<Case> {
    let mut cases = semaphores::cases();
    cases.extend(tower::cases());
    cases.extend(throttle_net::cases());
    cases.extend(execution_policy::cases());
    cases.extend(breakers::cases());
    cases.extend(pairs::cases());
    cases.extend(tower_resilience::cases());
    cases
}

fn find<'a>(measured: &'a [Measured], group: &str, name: &str) -> &'a Measured {
    let case = measured.iter().find(|case| case.group == group && case.name == name);
    case.unwrap_or_else(|| panic!("{group} has no case {name}"))
}
