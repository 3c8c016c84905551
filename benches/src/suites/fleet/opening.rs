//! Every process opens every circuit at the same moment, as when all depend on one thing that
//! fails.

use std::time::Duration;

use super::agreement;
use super::{CIRCUITS, PROCESSES};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Role, Tells};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let mut processes = Processes::start(
        server,
        NAMESPACE,
        [Role::new(CIRCUITS, Tells::Endings); PROCESSES],
    );
    let moment = clock::now() + Duration::from_millis(500);
    processes.order_all(&format!("fail-all {}", moment.as_nanos()));
    let mut said = Said {
        moments: vec![vec![moment]; PROCESSES],
        published: 0,
    };
    processes.listen(Duration::from_secs(30), |process, report| {
        said.take(process, report);
        said.published < CIRCUITS
    });
    let agreed = agreement::wait(
        &mut processes,
        server,
        NAMESPACE,
        moment,
        |process, report| said.take(process, report),
    );
    // Until there are no more reports.
    while processes.listen(Duration::from_secs(1), |process, report| {
        said.take(process, report);
        false
    }) {}
    let gaps = said.moments.iter().flat_map(|moments| moments.windows(2));
    let took = Distribution::of(
        gaps.map(|pair| clock::milliseconds(pair[0], pair[1]))
            .collect(),
    );
    let last = said.moments.iter().flatten().max().expect("they began");
    let decisions = said
        .moments
        .iter()
        .map(|moments| moments.len() - 1)
        .sum::<usize>();
    let opened = server.table(NAMESPACE);
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
        "all settled, ms",
        "all agree, ms",
    ];
    let mut table = Table::new(title, columns);
    let settled = clock::milliseconds(moment, *last);
    let figures = [
        decisions as f64,
        took.median,
        took.p99,
        settled,
        agreed.unwrap_or(f64::NAN),
    ];
    table.row("settled one by one", figures);
    findings.tables.push(table);
    let winners = said.published as f64;
    findings.targets.push(Target::at_most(
        "opening at once: winners",
        winners,
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
        "opening at once: to settle one, p99",
        took.p99,
        15.0,
        " ms",
    ));
}

/// The reports about decisions.
struct Said {
    /// When the decisions of each process were resolved, in order.
    moments: Vec<Vec<Duration>>,
    published: usize,
}

impl Said {
    fn take(&mut self, process: usize, report: Report) {
        if let Report::Settled { at, ending, .. } = report {
            self.moments[process].push(at);
            self.published += usize::from(ending == "published");
        }
    }
}

const NAMESPACE: &str = "opening";
