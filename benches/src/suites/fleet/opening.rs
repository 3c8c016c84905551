//! Every process opens every circuit at the same moment, as when all depend on one thing that fails.

use std::collections::HashMap;
use std::time::Duration;

use super::agreement;
use super::{CIRCUITS, PROCESSES};
use crate::fleet::clock;
use crate::fleet::crew::Crew;
use crate::fleet::role::{Role, Tells};
use crate::fleet::server::Server;
use crate::fleet::told::Told;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let mut crew = Crew::start(server, NAMESPACE, [Role::new(CIRCUITS, Tells::Endings); PROCESSES]);
    let moment = clock::now() + Duration::from_millis(500);
    crew.order_all(&format!("open-all {}", moment.as_nanos()));
    let mut endings = HashMap::new();
    let mut moments = vec![vec![moment]; PROCESSES];
    let mut settled = 0;
    let all = crew.listen(Duration::from_secs(30), |process, told| {
        if let Told::Settled { at, ending, .. } = told {
            *endings.entry(ending).or_insert(0) += 1;
            moments[process].push(at);
            settled += 1;
        }
        settled < CIRCUITS * PROCESSES
    });
    let agreed = agreement::wait(&mut crew, server, NAMESPACE, moment);
    let statements = moments.iter().flat_map(|moments| moments.windows(2));
    let took = Distribution::of(statements.map(|pair| clock::milliseconds(pair[0], pair[1])).collect());
    let last = moments.iter().flatten().max().expect("they began");
    let winners = endings.get("published").copied().unwrap_or(0);
    let table_rows = server.table(NAMESPACE);
    let once = table_rows.values().filter(|(state, epoch)| state == "open" && *epoch == 1).count();

    let title = format!("{PROCESSES} processes open {CIRCUITS} circuits at once");
    let columns = ["settled one by one", "p50, ms", "p99, ms", "all settled, ms", "all agree, ms"];
    let mut table = Table::new(title, columns);
    let settled_after = clock::milliseconds(moment, *last);
    table.row("each process", [took.median, took.p99, settled_after, agreed.unwrap_or(f64::NAN)]);
    findings.tables.push(table);
    let unsettled = if all { 0.0 } else { (CIRCUITS * PROCESSES - settled) as f64 };
    let not_once = (winners as f64 - CIRCUITS as f64).abs() + (CIRCUITS - once) as f64;
    findings.targets.push(Target::at_most("opening at once: circuits without one winner", not_once, 0.0, ""));
    findings.targets.push(Target::at_most("opening at once: unsettled", unsettled, 0.0, ""));
    findings.targets.push(Target::at_most("opening at once: to settle one, p99", took.p99, 15.0, " ms"));
}

const NAMESPACE: &str = "opening";
