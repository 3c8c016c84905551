//! The server is stopped, or frozen.

use std::thread;
use std::time::Duration;

use bulkman_test_support::StopMode;

use super::{PROCESSES, agreement};
use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::Report;
use crate::fleet::role::{Link, Role, Tells};
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
    let listening = Role::new(10, Tells::Nothing);
    let polling = listening.link(Link::Polling);
    let roles = [[listening; PROCESSES / 2], [polling; PROCESSES / 2]].concat();
    let processes = Processes::start(server, "frozen", roles);
    let before = clock::now();
    server.postgres.freeze();
    let mut noticed = vec![None; PROCESSES];
    let mut missing = PROCESSES;
    processes.listen(Duration::from_secs(15), |process, report| {
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
    let mut back = Vec::new();
    processes.listen(Duration::from_secs(15), |_, report| {
        if let Report::Synchronized { at } = report {
            back.push(clock::milliseconds(thawed, at) / 1e3);
        }
        back.len() < PROCESSES
    });
    let back_after = if back.len() < PROCESSES {
        f64::INFINITY
    } else {
        largest(&back)
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
        "all back after it goes on",
        back_after,
        3.0,
        " s",
    ));
}

/// Processes decide during the outage: some about separate circuits, some about the same ones.
fn crash(server: &Server, findings: &mut Findings) {
    let mut processes = Processes::start(
        server,
        CRASH,
        [Role::new(DISTINCT, Tells::Endings); PROCESSES],
    );
    server.postgres.stop(StopMode::Immediate);
    let stopped = clock::now();
    for decision in 0..DECISIONS {
        let next = stopped + AWAY.mul_f64(decision as f64 / DECISIONS as f64);
        thread::sleep(next.saturating_sub(clock::now()));
        let again = decision / DISTINCT;
        processes.order(
            (decision + 7 * again) % PROCESSES,
            &format!("open {}", decision % DISTINCT),
        );
    }
    thread::sleep((stopped + AWAY).saturating_sub(clock::now()));
    // Unlike pg_ctl, which polls ten times a second, this notices immediately.
    let up = thread::scope(|scope| {
        let first_answer = scope.spawn(|| {
            while !server.answers() {
                thread::sleep(Duration::from_millis(2));
            }
            clock::now()
        });
        server.postgres.restart();
        first_answer.join().expect("it does not panic")
    });
    let (mut published, mut superseded) = (0, 0);
    let all = processes.listen(Duration::from_secs(15), |_, report| {
        if let Report::Settled { ending, .. } = report {
            match ending.as_str() {
                "published" => published += 1,
                "superseded" => superseded += 1,
                ending => panic!("nothing else decides about these circuits: {ending}"),
            }
        }
        published + superseded < DECISIONS
    });
    let agreed = agreement::wait(&mut processes, server, CRASH, up, |_, _| {})
        .map_or(f64::INFINITY, |ms| ms / 1e3);
    let open = server
        .table(CRASH)
        .values()
        .filter(|(state, _)| state == "open")
        .count();
    let title =
        format!("{AWAY:?} without the server, {DECISIONS} decisions in {PROCESSES} processes");
    let mut table = Table::new(
        title,
        ["", "published", "superseded", "open", "all agree, s"],
    );
    table.row(
        "afterwards",
        [published as f64, superseded as f64, open as f64, agreed],
    );
    findings.tables.push(table);
    let unsettled = if all {
        0
    } else {
        DECISIONS - published - superseded
    };
    let lost = (unsettled + (DISTINCT - open)) as f64;
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
const AWAY: Duration = Duration::from_secs(6);
const DECISIONS: usize = 52;
/// The circuits that they are about.
const DISTINCT: usize = 46;
/// The default, in seconds.
const OPERATION_TIMEOUT: f64 = 2.0;
/// Stopping the server is a signal to each of its processes, one after the other.
const SIGNALS: f64 = 0.1;
