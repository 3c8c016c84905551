//! The time until a decision of one process is applied by all others.
//!
//! Each circuit is opened once, by one process after the other, at random moments: so the delays
//! of polling are those of a decision that comes at any time.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::{CIRCUITS, PROCESSES};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Executor, Link, Role, Tells};
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
        ["ms", "p50", "p99", "slowest", "openings", "missing"],
    );
    let mut bars = Vec::new();
    for (name, executor, link, limit) in [
        ("listening, tokio", Executor::Tokio, Link::Listening, 10.0),
        ("listening, smol", Executor::Smol, Link::Listening, 10.0),
        (
            "polling, tokio",
            Executor::Tokio,
            Link::Polling,
            POLL_INTERVAL + 50.0,
        ),
    ] {
        let role = Role::new(CIRCUITS, Tells::Moves)
            .executor(executor)
            .link(link);
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
                link,
                Bar {
                    label: format!("{name}, {quantile}"),
                    value,
                },
            ));
        }
    }
    findings.tables.push(table);
    let block = |title: &str, wanted: Link| {
        let chosen = bars.iter().filter(|(link, _)| *link == wanted);
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
            block("announced by the server", Link::Listening),
            block("looked for every second", Link::Polling),
        ],
    });
}

struct Delays {
    /// Of each opening in each process but the one that decided.
    delays: Vec<f64>,
    /// Those that never came.
    missing: usize,
}

fn delays(server: &Server, namespace: &str, role: Role) -> Delays {
    let mut processes = Processes::start(server, namespace, [role; PROCESSES + 1]);
    let mut decisions = HashMap::new();
    let mut moves = Vec::new();
    let mut take = |process: usize, report: Report| match report {
        Report::Decides { at, circuit } => drop(decisions.insert(circuit, (process, at))),
        Report::Moved { at, circuit, state } if state == "open" => {
            moves.push((process, circuit, at))
        }
        _ => {}
    };
    for circuit in 0..CIRCUITS {
        processes.order(circuit % processes.len(), &format!("open {circuit}"));
        thread::sleep(GAP.mul_f64(2.0 * fastrand::f64()));
    }
    let mut open = 0;
    processes.listen(Duration::from_secs(5), |process, report| {
        open += usize::from(matches!(report, Report::Moved { .. }));
        take(process, report);
        open < CIRCUITS * (PROCESSES + 1)
    });
    let others = moves.into_iter().filter_map(|(process, circuit, at)| {
        let (decider, decided) = decisions[&circuit];
        (process != decider).then(|| clock::milliseconds(decided, at))
    });
    let delays: Vec<f64> = others.collect();
    Delays {
        missing: CIRCUITS * PROCESSES - delays.len(),
        delays,
    }
}

/// Between two decisions, on average.
const GAP: Duration = Duration::from_millis(50);
/// The default, in milliseconds.
const POLL_INTERVAL: f64 = 1000.0;
