//! Every process opens every circuit at once, as when a common dependency fails.

use std::time::Duration;

use super::agreement;
use super::{CIRCUITS, PROCESSES};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Reporting, Role};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let mut processes = Processes::start(
        server,
        NAMESPACE,
        [Role::new(CIRCUITS, Reporting::Decisions); PROCESSES],
    );
    let start = clock::now() + Duration::from_millis(500);
    processes.send_all(&format!("fail-all {}", start.as_nanos()));
    let mut decisions = Decisions {
        times: vec![vec![start]; PROCESSES],
        published: 0,
    };
    processes.receive_while(Duration::from_secs(30), |process, report| {
        decisions.add(process, report);
        decisions.published < CIRCUITS
    });
    let agreed = agreement::wait(
        &mut processes,
        server,
        NAMESPACE,
        start,
        |process, report| decisions.add(process, report),
    );
    // Receive the remaining reports.
    while processes.receive_while(Duration::from_secs(1), |process, report| {
        decisions.add(process, report);
        false
    }) {}
    let gaps = decisions.times.iter().flat_map(|times| times.windows(2));
    let took = Distribution::of(
        gaps.map(|pair| clock::milliseconds(pair[0], pair[1]))
            .collect(),
    );
    let last = decisions
        .times
        .iter()
        .flatten()
        .max()
        .expect("the start is included");
    let resolved = decisions
        .times
        .iter()
        .map(|times| times.len() - 1)
        .sum::<usize>();
    let opened = server.circuits(NAMESPACE);
    let once = opened
        .values()
        .filter(|(state, epoch)| state == "open" && *epoch == 1)
        .count();

    let title = format!("{PROCESSES} processes open {CIRCUITS} circuits at once");
    let columns = [
        "",
        "decisions",
        "p50, ms",
        "p99, ms",
        "all resolved, ms",
        "all agree, ms",
    ];
    let mut table = Table::new(title, columns);
    let all_resolved = clock::milliseconds(start, *last);
    let figures = [
        resolved as f64,
        took.median,
        took.p99,
        all_resolved,
        agreed.unwrap_or(f64::NAN),
    ];
    table.row("each decision", figures);
    findings.tables.push(table);
    let published = decisions.published as f64;
    findings.targets.push(Target::at_most(
        "opening at once: published decisions",
        published,
        CIRCUITS as f64,
        "",
    ));
    findings.targets.push(Target::at_least(
        "opening at once: opened once",
        once as f64,
        CIRCUITS as f64,
        "",
    ));
    findings.targets.push(Target::at_most(
        "opening at once: to resolve one, p99",
        took.p99,
        15.0,
        " ms",
    ));
}

/// The reports about resolved decisions.
struct Decisions {
    /// For each process, the start and the times at which its decisions were resolved.
    times: Vec<Vec<Duration>>,
    published: usize,
}

impl Decisions {
    fn add(&mut self, process: usize, report: Report) {
        if let Report::DecisionResolved { at, outcome, .. } = report {
            self.times[process].push(at);
            self.published += usize::from(outcome == "published");
        }
    }
}

const NAMESPACE: &str = "opening";
