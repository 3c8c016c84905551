//! The time until a decision of one process is applied by all others.
//!
//! Each circuit is opened once, by one process after another. The times are random, so that they
//! are independent of the polling interval.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::{CIRCUITS, PROCESSES};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Executor, Reporting, Role, Updates};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let title = format!("a decision in one process, applied in {PROCESSES} others");
    let mut table = Table::new(
        title.as_str(),
        ["ms", "p50", "p99", "max", "openings", "missing"],
    );
    let mut bars = Vec::new();
    for (name, executor, updates, limit) in [
        (
            "listening, tokio",
            Executor::Tokio,
            Updates::Listening,
            10.0,
        ),
        ("listening, smol", Executor::Smol, Updates::Listening, 10.0),
        (
            "polling, tokio",
            Executor::Tokio,
            Updates::Polling,
            POLL_INTERVAL + 50.0,
        ),
    ] {
        let role = Role::new(CIRCUITS, Reporting::Transitions)
            .executor(executor)
            .updates(updates);
        let Delays { delays, missing } = delays(server, &format!("spread {name}"), role);
        let openings = CIRCUITS as f64;
        let delays = Distribution::of(delays);
        table.row(
            name,
            [
                delays.median,
                delays.p99,
                delays.max,
                openings,
                missing as f64,
            ],
        );
        findings.targets.push(Target::at_most(
            format!("{name}: applied, p99"),
            delays.p99,
            limit,
            " ms",
        ));
        findings.targets.push(Target::at_most(
            format!("{name}: not applied"),
            missing as f64,
            0.0,
            "",
        ));
        for (quantile, value) in [("p50", delays.median), ("p99", delays.p99)] {
            bars.push((
                updates,
                Bar {
                    label: format!("{name}, {quantile}"),
                    value,
                },
            ));
        }
    }
    findings.tables.push(table);
    let block = |title: &str, wanted: Updates| {
        let chosen = bars.iter().filter(|(updates, _)| *updates == wanted);
        Block {
            title: title.to_owned(),
            bars: chosen.map(|(_, bar)| bar.clone()).collect(),
        }
    };
    findings.charts.push(Chart {
        file: "fleet".to_owned(),
        title,
        unit: "milliseconds",
        blocks: vec![
            block("with notifications", Updates::Listening),
            block("polling every second", Updates::Polling),
        ],
    });
}

struct Delays {
    /// The delays in milliseconds of each opening, in each process but the one that opened.
    delays: Vec<f64>,
    /// The number of openings that were not applied in time.
    missing: usize,
}

fn delays(server: &Server, namespace: &str, role: Role) -> Delays {
    let mut processes = Processes::start(server, namespace, [role; PROCESSES + 1]);
    let mut decisions = HashMap::new();
    let mut transitions = Vec::new();
    let mut record = |process: usize, report: Report| match report {
        Report::Opening { at, circuit } => drop(decisions.insert(circuit, (process, at))),
        Report::Transition { at, circuit, state } if state == "open" => {
            transitions.push((process, circuit, at))
        }
        _ => {}
    };
    for circuit in 0..CIRCUITS {
        processes.send(circuit % processes.len(), &format!("open {circuit}"));
        thread::sleep(GAP.mul_f64(2.0 * fastrand::f64()));
    }
    let mut open = 0;
    processes.receive_while(Duration::from_secs(5), |process, report| {
        open += usize::from(matches!(report, Report::Transition { .. }));
        record(process, report);
        open < CIRCUITS * (PROCESSES + 1)
    });
    let others = transitions
        .into_iter()
        .filter_map(|(process, circuit, at)| {
            let (decider, decided) = decisions[&circuit];
            (process != decider).then(|| clock::milliseconds(decided, at))
        });
    let delays: Vec<f64> = others.collect();
    Delays {
        missing: CIRCUITS * PROCESSES - delays.len(),
        delays,
    }
}

/// The average time between two decisions.
const GAP: Duration = Duration::from_millis(50);
/// The default polling interval, in milliseconds.
const POLL_INTERVAL: f64 = 1000.0;
