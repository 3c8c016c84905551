//! The statements of an idle process.

use std::thread;
use std::time::Duration;

use super::{CIRCUITS, PROCESSES};
use crate::fleet::processes::Processes;
use crate::fleet::role::{Link, Role, Tells};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let mut table = Table::new("idle", ["circuits", "statements a second and process"]);
    let mut rate = |link: Link, circuits: usize| {
        let rate = rate(server, link, circuits);
        table.row(format!("{link}, {circuits}"), [rate]);
        rate
    };
    let listening = rate(Link::Listening, CIRCUITS);
    let polling = rate(Link::Polling, CIRCUITS);
    let one = rate(Link::Polling, 1);
    findings.tables.push(table);
    // 0.2 and 1; intervals vary a little, lest all move in step.
    for (name, rate, limit) in [("listening", listening, 0.22), ("polling", polling, 1.1)] {
        let name = format!("idle, {name}: statements a second and process");
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

fn rate(server: &Server, link: Link, circuits: usize) -> f64 {
    let role = Role::new(circuits, Tells::Nothing).link(link);
    let _crew = Processes::start(
        server,
        &format!("idle {link} {circuits}"),
        [role; PROCESSES],
    );
    // The server's processes publish their statistics late, and only with further work.
    thread::sleep(match link {
        Link::Polling => Duration::from_secs(3),
        _ => Duration::from_secs(8),
    });
    let before = server.transactions();
    thread::sleep(WHILE);
    let made = server.transactions() - before - OWN;
    made / PROCESSES as f64 / WHILE.as_secs_f64()
}

const WHILE: Duration = Duration::from_secs(20);
/// Asking how many there were is one of them.
const OWN: f64 = 1.0;
