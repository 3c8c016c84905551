//! The cost of a call through a shared circuit: as much as without a store, and no statement.

use std::time::Duration;

use bulkman_core::fleet::Fleet;
use bulkman_core::{Bulkhead, BulkheadConfig};
use bulkman_tokio::TokioRuntime;

use crate::contenders::{group, ready, succeeds};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::{Case, Effort, interleaved};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::workers::Workers;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let workers = Workers::tokio(1);
    let _entered = workers.enter();
    let store = server.builder("call").build().expect("valid settings");
    let fleet = Fleet::new(store, TokioRuntime::new()).expect("valid settings");
    let shared = bulkhead();
    fleet.attach(&shared).expect("it is not attached yet");
    assert!(
        smol::block_on(fleet.wait_ready(Duration::from_secs(10))),
        "the store is available"
    );
    let mut cases = [
        case("without a store", bulkhead()),
        case("with a store", shared.clone()),
        case("without a store, again", bulkhead()),
    ];
    let measured = interleaved(&mut cases, Effort::CALLS);
    let mut table = Table::new(
        "a call, circuit closed",
        ["ns", "median", "p10", "p90", "x without"],
    );
    for measured_case in &measured {
        let time = measured_case.time;
        let ratio = measured_case.over(&measured[0]).median;
        table.row(
            measured_case.name.as_str(),
            [time.median, time.p10, time.p90, ratio],
        );
    }
    findings.tables.push(table);
    let ratio = measured[1].over(&measured[0]).median;
    findings.targets.push(Target::at_most(
        "a call with a store over one without",
        ratio,
        1.05,
        " x",
    ));

    let before = server.transactions();
    for _ in 0..CALLS {
        ready(shared.execute(succeeds!())).expect("closed");
    }
    let statements = server.transactions() - before;
    let rate = statements / (CALLS as f64 / 1e6);
    // The periodic polls, and the queries of this benchmark.
    findings.targets.push(Target::at_most(
        "statements in a million calls",
        rate,
        1.0,
        "",
    ));
}

/// Creates a case. All cases have the same type and code, so only their circuits differ.
fn case(name: &'static str, bulkhead: Bulkhead) -> Case {
    Case::new(group::BOTH, name, move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    })
}

fn bulkhead() -> Bulkhead {
    Bulkhead::new(BulkheadConfig::new("bench"), TokioRuntime::new()).expect("a valid configuration")
}

const CALLS: u64 = 10_000_000;
