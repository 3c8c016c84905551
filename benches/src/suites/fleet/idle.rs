//! The statements of idle processes.

use std::thread;
use std::time::Duration;

use super::{CIRCUITS, PROCESSES};
use crate::fleet::processes::Processes;
use crate::fleet::role::{Reporting, Role, Updates};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let mut table = Table::new(
        "idle",
        ["updates, circuits", "statements per second and process"],
    );
    let mut rate = |updates: Updates, circuits: usize| {
        let rate = rate(server, updates, circuits);
        table.row(format!("{updates}, {circuits}"), [rate]);
        rate
    };
    let listening = rate(Updates::Listening, CIRCUITS);
    let polling = rate(Updates::Polling, CIRCUITS);
    let one = rate(Updates::Polling, 1);
    findings.tables.push(table);
    // 0.2 and 1 by the settings. The intervals vary a little, so that processes do not synchronize.
    for (name, rate, limit) in [("listening", listening, 0.22), ("polling", polling, 1.1)] {
        let name = format!("idle, {name}: statements per second and process");
        findings
            .targets
            .push(Target::at_most(name, rate, limit, ""));
    }
    let ratio = polling / one;
    findings.targets.push(Target::at_most(
        "the same with 200 circuits over with 1",
        ratio,
        1.1,
        " x",
    ));
}

fn rate(server: &Server, updates: Updates, circuits: usize) -> f64 {
    let role = Role::new(circuits, Reporting::Nothing).updates(updates);
    let _processes = Processes::start(
        server,
        &format!("idle {updates} {circuits}"),
        [role; PROCESSES],
    );
    // The server publishes its statistics with a delay, and only with further work.
    thread::sleep(match updates {
        Updates::Polling => Duration::from_secs(3),
        _ => Duration::from_secs(8),
    });
    let before = server.transactions();
    thread::sleep(MEASURED);
    let statements = server.transactions() - before - QUERIES;
    statements / PROCESSES as f64 / MEASURED.as_secs_f64()
}

const MEASURED: Duration = Duration::from_secs(20);
/// The query for the number of statements is one of them.
const QUERIES: f64 = 1.0;
