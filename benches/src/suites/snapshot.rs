//! The cost of a snapshot of all bulkheads, as a dashboard takes it every second.

use std::time::Duration;

use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadManager, Permit};

use crate::contenders::bulkman::rate_over_calls;
use crate::harness::Findings;
use crate::harness::measure::{Case, Effort, interleaved};
use crate::harness::table::Table;
use crate::harness::target::Target;

/// The numbers of bulkheads in a manager.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// The limit for a thousand bulkheads: a hundredth of a polling interval of one second.
const LIMIT_MS: f64 = 10.0;

/// The time in which a snapshot may read the list of 10,000 running calls.
const SCAN_LIMIT_US: f64 = 50.0;

pub(crate) fn run() -> Findings {
    let mut findings = Findings::default();
    let mut table = Table::new(
        "a snapshot of all bulkheads, us",
        ["bulkheads", "median", "p99", "each"],
    );
    let mut cases = Vec::new();
    for size in SIZES {
        let manager = manager(size);
        let clone = manager.clone();
        cases.push((
            size,
            Case::new("snapshot", "snapshot", move || clone.snapshot()),
        ));
        cases.push((
            size,
            Case::new("snapshot", "as a table", move || {
                manager.snapshot().to_string().len()
            }),
        ));
    }
    let running = running_calls();
    cases.push((
        1,
        Case::new("snapshot", "10,000 running calls", move || {
            running.0.snapshot().oldest.len()
        }),
    ));
    let (sizes, mut cases): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for (size, measured) in sizes.into_iter().zip(interleaved(&mut cases, EFFORT)) {
        let us = measured.time.median / 1e3;
        let row = format!("{size}: {}", measured.name);
        table.row(row, [us, measured.time.p99 / 1e3, us / size as f64]);
        if size == 1 {
            findings.targets.push(Target::at_most(
                measured.name.clone(),
                us,
                SCAN_LIMIT_US,
                " us",
            ));
        }
        if size == 1_000 {
            let name = format!("1000 bulkheads: {}", measured.name);
            findings
                .targets
                .push(Target::at_most(name, us / 1e3, LIMIT_MS, " ms"));
        }
    }
    findings.tables.push(table);
    findings
}

/// Returns a bulkhead with 10,000 running calls, in a table of 32,768 slots.
fn running_calls() -> (Bulkhead, Vec<Permit>) {
    const CALLS: usize = 10_000;
    let config = BulkheadConfig::new("bench")
        .max_concurrent_calls(CALLS)
        .track_running_calls(true);
    let bulkhead = Bulkhead::new(config, ClockOnly).expect("a valid configuration");
    let permits = (0..CALLS)
        .map(|_| bulkhead.try_acquire().expect("a free permit"))
        .collect();
    (bulkhead, permits)
}

/// The effort for calls that take milliseconds: a batch is one call.
const EFFORT: Effort = Effort {
    rounds: 20,
    batches: 5,
    batch: Duration::from_nanos(1),
};

/// Creates a manager. Each bulkhead has a full window and a full history of transitions.
fn manager(bulkheads: usize) -> BulkheadManager {
    let manager = BulkheadManager::new(ClockOnly);
    for number in 0..bulkheads {
        let config =
            BulkheadConfig::new(format!("backend-{number}")).circuit_breaker(rate_over_calls(100));
        let bulkhead = manager
            .create_bulkhead(config)
            .expect("a valid configuration");
        let circuit = bulkhead.circuit_breaker().expect("it is enabled");
        for _ in 0..4 {
            circuit.open();
            circuit.close();
        }
        for call in 0..100 {
            let result = if call % 10 == 0 { Err(()) } else { Ok(()) };
            let _ = bulkhead.execute_sync(|| result);
        }
    }
    manager
}
