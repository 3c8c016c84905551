//! A fleet under load: dependencies fail and recover, and circuits open and close.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::{Calls, Report};
use crate::fleet::role::{Link, Role, Tells};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::suites::fleet::agreement;

pub(crate) fn run(how_long: Duration) -> Findings {
    let server = Server::start();
    let mut findings = Findings::default();
    let without = load(&server, Link::Alone, how_long);
    let with = load(&server, Link::Listening, how_long);
    let title = format!("{PROCESSES} processes, {CIRCUITS} circuits, {how_long:?}");
    let mut table = Table::new(
        title,
        [
            "",
            "calls",
            "rejected",
            "p50, ns",
            "p99, ns",
            "p999, ns",
            "p99 beside, ns",
            "changes a second",
            "KiB before",
            "KiB after",
        ],
    );
    for (name, load) in [("without a store", &without), ("with a store", &with)] {
        let memory = [load.memory_before, load.memory_after];
        table.row(
            name,
            [
                load.made,
                load.rejected,
                load.p50,
                load.p99,
                load.p999,
                load.beside,
                load.changes,
                memory[0],
                memory[1],
            ],
        );
    }
    findings.tables.push(table);
    let changes_wanted = CIRCUITS as f64 / 10.0;
    findings.targets.push(Target::at_least(
        "changes a second",
        with.changes,
        changes_wanted,
        "",
    ));
    let agreed = with.agreed.map_or(f64::INFINITY, |ms| ms / 1e3);
    findings.targets.push(Target::at_most(
        "all views equal the table, after",
        agreed,
        5.0,
        " s",
    ));
    let growth = with.memory_after / with.memory_before;
    findings.targets.push(Target::at_most(
        "memory of a process, end over middle",
        growth,
        1.05,
        " x",
    ));
    let (fewest, most) = with.connections;
    findings.targets.push(Target::at_most(
        "connections, the most",
        most,
        PROCESSES as f64,
        "",
    ));
    findings.targets.push(Target::at_least(
        "connections, the fewest",
        fewest,
        PROCESSES as f64,
        "",
    ));
    let ratio = with.p99 / without.p99;
    let target = Target::at_most("calls' p99 with a store over without", ratio, 1.25, " x");
    // The machine is busier with a store, which also slows calls that do not use it.
    let beside = with.beside / without.p99;
    findings
        .targets
        .push(target.above(beside, "circuits without a store, in the same processes"));
    let ratio = with.p99 / with.beside;
    let name = "calls' p99 with a store over without, in the same processes";
    findings
        .targets
        .push(Target::at_most(name, ratio, 1.25, " x"));
    findings
}

struct Load {
    made: f64,
    rejected: f64,
    /// The median process's.
    p50: f64,
    p99: f64,
    p999: f64,
    /// The p99 of calls to circuits without a store, in the same processes at the same time.
    beside: f64,
    /// Of all circuits, in the table.
    changes: f64,
    /// KiB of the median process, after half of the time and at the end.
    memory_before: f64,
    memory_after: f64,
    connections: (f64, f64),
    /// Milliseconds after the last call.
    agreed: Option<f64>,
}

fn load(server: &Server, link: Link, how_long: Duration) -> Load {
    let namespace = format!("load {link}");
    let role = Role::new(CIRCUITS, Tells::Nothing)
        .link(link)
        .isolation(Duration::from_secs(1));
    let mut processes = Processes::start(server, &namespace, [role; PROCESSES]);
    processes.order_all(&format!("call {}", how_long.as_millis()));
    let mut connections = (f64::INFINITY, 0.0_f64);
    let mut calls: Vec<Calls> = Vec::new();
    let mut take = |_, report| {
        if let Report::Calls(made) = report {
            calls.push(made);
        }
        true
    };
    let mut memory_before = f64::NAN;
    for tenth in 1..10 {
        processes.listen(how_long / 10, &mut take);
        let now = server.connections();
        connections = (connections.0.min(now), connections.1.max(now));
        if tenth == 5 {
            memory_before = Distribution::of(processes.resident()).median;
        }
    }
    let memory_after = Distribution::of(processes.resident()).median;
    let mut missing = PROCESSES - calls.len();
    processes.listen(how_long, |_, report| {
        if let Report::Calls(made) = report {
            calls.push(made);
            missing -= 1;
        }
        missing > 0
    });
    assert_eq!(
        calls.len(),
        PROCESSES,
        "every process says how its calls went"
    );
    let agreed = match link {
        Link::Alone => None,
        _ => agreement::wait(&mut processes, server, &namespace, clock::now(), |_, _| {}),
    };
    let median = |of: fn(&Calls) -> f64| Distribution::of(calls.iter().map(of).collect()).median;
    let changes: u64 = server
        .table(&namespace)
        .values()
        .map(|(_, epoch)| epoch)
        .sum();
    Load {
        made: calls.iter().map(|calls| calls.made as f64).sum(),
        rejected: calls.iter().map(|calls| calls.rejected as f64).sum(),
        p50: median(|calls| calls.p50),
        p99: median(|calls| calls.p99),
        p999: median(|calls| calls.p999),
        beside: median(|calls| calls.beside),
        changes: changes as f64 / how_long.as_secs_f64(),
        memory_before,
        memory_after,
        connections,
        agreed,
    }
}

const PROCESSES: usize = 20;
const CIRCUITS: usize = 200;
