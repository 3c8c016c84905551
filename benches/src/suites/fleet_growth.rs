//! Fleets of growing size: idle, all circuits open at once, and their recovery.
//!
//! Each process calls each circuit once a second.

use std::thread;
use std::time::{Duration, Instant};

use crate::fleet::clock;
use crate::fleet::processes::Processes;
use crate::fleet::role::{Reporting, Role};
use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

/// The size of a fleet, and the limits of its recovery.
struct Size {
    processes: usize,
    circuits: usize,
    /// Until the last circuit is closed after its isolation.
    seconds: f64,
    /// The transactions of the server until then: statements, and notifications of listeners.
    transactions: f64,
    /// The statements of the whole fleet until then.
    statements: f64,
}

/// With one request for each lease, the transactions were 1,057, 4,546, 14,306 and 103,499. The
/// limits are a third of that, and more for 20 processes with 10 circuits: 220 transactions are
/// notifications there.
const SIZES: [Size; 4] = [
    Size {
        processes: 20,
        circuits: 10,
        seconds: 3.0,
        transactions: 450.0,
        statements: 250.0,
    },
    Size {
        processes: 100,
        circuits: 10,
        seconds: 3.0,
        transactions: 1_515.0,
        statements: 700.0,
    },
    Size {
        processes: 20,
        circuits: 200,
        seconds: 4.0,
        transactions: 4_700.0,
        statements: 2_000.0,
    },
    Size {
        processes: 20,
        circuits: 1_000,
        seconds: 10.0,
        transactions: 34_000.0,
        statements: 10_000.0,
    },
];

pub(crate) fn run() -> Findings {
    let server = Server::start_counting();
    let mut findings = Findings::default();
    let mut table = Table::new(
        "one call a second for each circuit and process; all circuits open at once",
        [
            "processes x circuits",
            "idle, statements/s",
            "all open after, s",
            "statements",
            "closed, s, p50",
            "closed, s, max",
            "transactions",
            "statements",
            "cores of the server",
            "cores of the processes",
        ],
    );
    for size in &SIZES {
        let figures = measure(&server, size);
        let name = format!("{} x {}", size.processes, size.circuits);
        findings.targets.push(Target::at_most(
            format!("{name}: closed after the isolation"),
            figures[4],
            size.seconds,
            " s",
        ));
        findings.targets.push(Target::at_most(
            format!("{name}: transactions until then"),
            figures[5],
            size.transactions,
            "",
        ));
        findings.targets.push(Target::at_most(
            format!("{name}: statements until then"),
            figures[6],
            size.statements,
            "",
        ));
        table.row(name, figures);
    }
    findings.tables.push(table);
    findings
}

fn measure(server: &Server, size: &Size) -> [f64; 9] {
    let namespace = format!("growth {} {}", size.processes, size.circuits);
    let role = Role::new(size.circuits, Reporting::Nothing)
        .isolation(ISOLATION)
        .successes(3);
    let mut processes = Processes::start(server, &namespace, vec![role; size.processes]);
    let mut observer = server.observer();
    // The server publishes the statistics of the start with the next statement of each process.
    thread::sleep(Duration::from_secs(7));
    let before = server.transactions();
    thread::sleep(IDLE);
    let idle = (server.transactions() - before - 1.0) / IDLE.as_secs_f64();

    let before = server.transactions();
    let began = clock::now() + Duration::from_millis(200);
    processes.send_all(&format!("fail-all {}", began.as_nanos()));
    processes.send_all("steady 1000");
    let mut queries = until(|| observer.not_closed_and_closed(&namespace).1 == 0);
    let opened = clock::milliseconds(began, clock::now()) / 1e3;
    // The first isolation ends after this.
    let rest = (began + ISOLATION).saturating_sub(clock::now());
    thread::sleep(rest.saturating_sub(Duration::from_millis(100)));
    let recovering = server.transactions();
    let recovering_statements = server.statements();
    let opening = recovering - before - queries - 1.0;
    let measured = Instant::now();
    let cores = [server.processor_seconds(), processes.processor_seconds()];
    queries = until(|| observer.not_closed_and_closed(&namespace).0 == 0);
    let took = measured.elapsed().as_secs_f64();
    let cores = [
        (server.processor_seconds() - cores[0]) / took,
        (processes.processor_seconds() - cores[1]) / took,
    ];
    let closed = server.recoveries(&namespace);
    thread::sleep(STATISTICS);
    let transactions = server.transactions() - recovering - queries - 5.0;
    let statements = server.statements() - recovering_statements;
    let complete = closed.len() == size.circuits;
    let closed = Distribution::of(closed);
    let last = if complete { closed.max } else { f64::INFINITY };
    [
        idle,
        opened,
        opening,
        closed.median,
        last,
        transactions,
        statements,
        cores[0],
        cores[1],
    ]
}

/// Polls until a condition holds, or for a minute. Returns the number of queries.
fn until(mut condition: impl FnMut() -> bool) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut queries = 1.0;
    while !condition() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
        queries += 1.0;
    }
    queries
}

const ISOLATION: Duration = Duration::from_secs(8);
const IDLE: Duration = Duration::from_secs(5);
/// The server publishes its statistics with a delay.
const STATISTICS: Duration = Duration::from_millis(1_500);
