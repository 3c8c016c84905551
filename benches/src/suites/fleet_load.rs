//! A fleet under load: dependencies fail and recover, and circuits open and close.

use std::time::Duration;

use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::report::{Calls, Report};
use crate::fleet::role::{Reporting, Role, Updates};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::suites::fleet::agreement;

pub(crate) fn run(duration: Duration) -> Findings {
    let server = Server::start();
    let mut findings = Findings::default();
    let without = load(&server, Updates::None, duration);
    let with = load(&server, Updates::Listening, duration);
    let title = format!("{PROCESSES} processes, {CIRCUITS} circuits, {duration:?}");
    let mut table = Table::new(
        title,
        [
            "",
            "calls",
            "rejected",
            "p50, ns",
            "p99, ns",
            "p999, ns",
            "p99 without, ns",
            "changes per second",
            "KiB before",
            "KiB after",
        ],
    );
    for (name, load) in [("without a store", &without), ("with a store", &with)] {
        let memory = [load.memory_before, load.memory_after];
        table.row(
            name,
            [
                load.count,
                load.rejected,
                load.p50,
                load.p99,
                load.p999,
                load.p99_without_store,
                load.changes,
                memory[0],
                memory[1],
            ],
        );
    }
    findings.tables.push(table);
    let expected_changes = CIRCUITS as f64 / 10.0;
    findings.targets.push(Target::at_least(
        "changes per second",
        with.changes,
        expected_changes,
        "",
    ));
    let agreed = with.agreed.map_or(f64::INFINITY, |ms| ms / 1e3);
    findings.targets.push(Target::at_most(
        "all views equal the table after",
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
    let (minimum, maximum) = with.connections;
    findings.targets.push(Target::at_most(
        "connections, maximum",
        maximum,
        PROCESSES as f64,
        "",
    ));
    findings.targets.push(Target::at_least(
        "connections, minimum",
        minimum,
        PROCESSES as f64,
        "",
    ));
    let ratio = with.p99 / without.p99;
    let target = Target::at_most("calls' p99 with a store over without", ratio, 1.25, " x");
    // With a store the machine is busier, which slows even calls that do not use it.
    let floor = with.p99_without_store / without.p99;
    findings
        .targets
        .push(target.with_floor(floor, "circuits without a store, in the same processes"));
    let ratio = with.p99 / with.p99_without_store;
    let name = "calls' p99 with a store over without, in the same processes";
    findings
        .targets
        .push(Target::at_most(name, ratio, 1.25, " x"));
    findings
}

struct Load {
    count: f64,
    rejected: f64,
    /// The median of the processes, in nanoseconds.
    p50: f64,
    p99: f64,
    p999: f64,
    /// The p99 of calls through circuits without a store, in the same processes at the same time.
    p99_without_store: f64,
    /// Changes of all circuits in the table, per second.
    changes: f64,
    /// The memory of the median process in KiB, after half of the time and at the end.
    memory_before: f64,
    memory_after: f64,
    connections: (f64, f64),
    /// The milliseconds from the last call until all views equal the table.
    agreed: Option<f64>,
}

fn load(server: &Server, updates: Updates, duration: Duration) -> Load {
    let namespace = format!("load {updates}");
    let role = Role::new(CIRCUITS, Reporting::Nothing)
        .updates(updates)
        .isolation(Duration::from_secs(1));
    let mut processes = Processes::start(server, &namespace, [role; PROCESSES]);
    processes.send_all(&format!("call {}", duration.as_millis()));
    let mut connections = (f64::INFINITY, 0.0_f64);
    let mut calls: Vec<Calls> = Vec::new();
    let mut collect = |_, report| {
        if let Report::Calls(result) = report {
            calls.push(result);
        }
        true
    };
    let mut memory_before = f64::NAN;
    for tenth in 1..10 {
        processes.receive_while(duration / 10, &mut collect);
        let now = server.connections();
        connections = (connections.0.min(now), connections.1.max(now));
        if tenth == 5 {
            memory_before = Distribution::of(processes.resident_memory()).median;
        }
    }
    let memory_after = Distribution::of(processes.resident_memory()).median;
    let mut missing = PROCESSES - calls.len();
    processes.receive_while(duration, |_, report| {
        if let Report::Calls(result) = report {
            calls.push(result);
            missing -= 1;
        }
        missing > 0
    });
    assert_eq!(
        calls.len(),
        PROCESSES,
        "not every process has reported its calls"
    );
    let agreed = match updates {
        Updates::None => None,
        _ => agreement::wait(&mut processes, server, &namespace, clock::now(), |_, _| {}),
    };
    let median = |of: fn(&Calls) -> f64| Distribution::of(calls.iter().map(of).collect()).median;
    let changes: u64 = server
        .circuits(&namespace)
        .values()
        .map(|(_, epoch)| epoch)
        .sum();
    Load {
        count: calls.iter().map(|calls| calls.count as f64).sum(),
        rejected: calls.iter().map(|calls| calls.rejected as f64).sum(),
        p50: median(|calls| calls.p50),
        p99: median(|calls| calls.p99),
        p999: median(|calls| calls.p999),
        p99_without_store: median(|calls| calls.p99_without_store),
        changes: changes as f64 / duration.as_secs_f64(),
        memory_before,
        memory_after,
        connections,
        agreed,
    }
}

const PROCESSES: usize = 20;
const CIRCUITS: usize = 200;
