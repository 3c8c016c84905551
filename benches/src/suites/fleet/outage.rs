//! Outages: the server is frozen, or crashes and restarts.

use std::thread;
use std::time::Duration;

use bulkman_test_support::StopMode;

use super::{PROCESSES, agreement};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Reporting, Role, Updates};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    freeze(server, findings);
    crash(server, findings);
}

/// Half of the processes receive notifications, half poll.
fn freeze(server: &Server, findings: &mut Findings) {
    let listening = Role::new(10, Reporting::Nothing);
    let polling = listening.updates(Updates::Polling);
    let roles = [[listening; PROCESSES / 2], [polling; PROCESSES / 2]].concat();
    let processes = Processes::start(server, "frozen", roles);
    let before = clock::now();
    server.postgres.freeze();
    let mut noticed = vec![None; PROCESSES];
    let mut missing = PROCESSES;
    processes.receive_while(Duration::from_secs(15), |process, report| {
        if let Report::Degraded { at } = report {
            let first = noticed[process]
                .replace(clock::milliseconds(before, at) / 1e3)
                .is_none();
            missing -= usize::from(first);
        }
        missing > 0
    });
    server.postgres.thaw();
    let thawed = clock::now();
    let mut reconnected = Vec::new();
    processes.receive_while(Duration::from_secs(15), |_, report| {
        if let Report::Synchronized { at } = report {
            reconnected.push(clock::milliseconds(thawed, at) / 1e3);
        }
        reconnected.len() < PROCESSES
    });
    let reconnected_after = if reconnected.len() < PROCESSES {
        f64::INFINITY
    } else {
        largest(&reconnected)
    };
    let mut table = Table::new(
        "the server is frozen",
        ["s", "noticed first", "noticed last"],
    );
    let mut last = |name: &str, range: &[Option<f64>]| {
        let seconds: Vec<f64> = range
            .iter()
            .map(|noticed| noticed.unwrap_or(f64::INFINITY))
            .collect();
        table.row(
            name,
            [
                seconds.iter().copied().fold(f64::INFINITY, f64::min),
                largest(&seconds),
            ],
        );
        largest(&seconds)
    };
    let listeners = last("listening", &noticed[..PROCESSES / 2]);
    let pollers = last("polling", &noticed[PROCESSES / 2..]);
    findings.tables.push(table);
    for (name, seconds, interval) in [("listening", listeners, 5.0), ("polling", pollers, 1.0)] {
        let limit = interval + OPERATION_TIMEOUT + SIGNALS;
        findings.targets.push(Target::at_most(
            format!("frozen server noticed, {name}"),
            seconds,
            limit,
            " s",
        ));
    }
    findings.targets.push(Target::at_most(
        "all reconnected after it resumes",
        reconnected_after,
        3.0,
        " s",
    ));
}

/// Processes open circuits during the outage, some of them the same circuit.
fn crash(server: &Server, findings: &mut Findings) {
    let mut processes = Processes::start(
        server,
        CRASH,
        [Role::new(DISTINCT, Reporting::Decisions); PROCESSES],
    );
    server.postgres.stop(StopMode::Immediate);
    let stopped = clock::now();
    for decision in 0..DECISIONS {
        let next = stopped + OUTAGE.mul_f64(decision as f64 / DECISIONS as f64);
        thread::sleep(next.saturating_sub(clock::now()));
        let again = decision / DISTINCT;
        processes.send(
            (decision + 7 * again) % PROCESSES,
            &format!("open {}", decision % DISTINCT),
        );
    }
    thread::sleep((stopped + OUTAGE).saturating_sub(clock::now()));
    // Polled here, since `pg_ctl` polls only ten times per second.
    let up = thread::scope(|scope| {
        let first_connection = scope.spawn(|| {
            while !server.accepts_connections() {
                thread::sleep(Duration::from_millis(2));
            }
            clock::now()
        });
        server.postgres.restart();
        first_connection.join().expect("the thread does not panic")
    });
    let (mut published, mut superseded) = (0, 0);
    let all = processes.receive_while(Duration::from_secs(15), |_, report| {
        if let Report::DecisionResolved { outcome, .. } = report {
            match outcome.as_str() {
                "published" => published += 1,
                "superseded" => superseded += 1,
                outcome => panic!("unexpected outcome of a decision: {outcome}"),
            }
        }
        published + superseded < DECISIONS
    });
    let agreed = agreement::wait(&mut processes, server, CRASH, up, |_, _| {})
        .map_or(f64::INFINITY, |ms| ms / 1e3);
    let open = server
        .circuits(CRASH)
        .values()
        .filter(|(state, _)| state == "open")
        .count();
    let title =
        format!("{OUTAGE:?} without the server, {DECISIONS} decisions in {PROCESSES} processes");
    let mut table = Table::new(
        title,
        ["", "published", "superseded", "open", "all agree, s"],
    );
    table.row(
        "after the restart",
        [published as f64, superseded as f64, open as f64, agreed],
    );
    findings.tables.push(table);
    let unresolved = if all {
        0
    } else {
        DECISIONS - published - superseded
    };
    let lost = (unresolved + (DISTINCT - open)) as f64;
    findings.targets.push(Target::at_most(
        "decisions lost in an outage",
        lost,
        0.0,
        "",
    ));
    findings.targets.push(Target::at_most(
        "all agree after the server is up",
        agreed,
        3.0,
        " s",
    ));
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max)
}

const CRASH: &str = "crash";
const OUTAGE: Duration = Duration::from_secs(6);
const DECISIONS: usize = 52;
/// The number of circuits that are opened.
const DISTINCT: usize = 46;
/// The default operation timeout, in seconds.
const OPERATION_TIMEOUT: f64 = 2.0;
/// The time to freeze the server, which takes a signal to each of its processes.
const SIGNALS: f64 = 0.1;
