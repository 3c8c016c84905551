//! The cost of a transition: time, round trips, write-ahead log.

use std::time::Instant;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitStore, Epoch, OperationId, StoreChange, StoreSession, StoreTransition, TransitionResult,
};
use bulkman_postgres::PostgresStore;

use crate::fleet::proxy::Proxy;
use crate::fleet::server::{ONE_HOUR, Server};
use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let direct = server
        .builder("transition")
        .build()
        .expect("valid settings");
    let mut circuit = Circuit::on(&direct);
    // Until the history is full, so that further rows replace old ones, and its pages are logged.
    circuit.transitions(4 * HISTORY);
    let before = server.wal_bytes();
    let took = Distribution::of(circuit.transitions(COUNTED));
    let log = (server.wal_bytes() - before) / COUNTED as f64;

    let proxy = Proxy::to(server.address());
    let through =
        PostgresStore::builder(server.options_with_port(proxy.port)).namespace("round trips");
    let mut circuit = Circuit::on(&through.build().expect("valid settings"));
    // The first transition of a session prepares the statement.
    circuit.transitions(1);
    let before = proxy.round_trips();
    circuit.transitions(COUNTED);
    let round_trips = (proxy.round_trips() - before) as f64 / COUNTED as f64;

    let columns = [
        "one process alone",
        "p50, ms",
        "p99, ms",
        "round trips",
        "log, bytes",
    ];
    let mut table = Table::new("a transition", columns);
    table.row("open and close", [took.median, took.p99, round_trips, log]);
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        "round trips of a transition",
        round_trips,
        1.0,
        "",
    ));
}

struct Circuit {
    session: Box<dyn StoreSession>,
    name: BulkheadName,
    epoch: Epoch,
}

impl Circuit {
    fn on(store: &PostgresStore) -> Self {
        let name = BulkheadName::new("a").expect("a short name");
        let connected = smol::block_on(CircuitStore::open_session(
            store,
            std::slice::from_ref(&name),
        ));
        Self {
            session: connected.expect("the server answers"),
            name,
            epoch: Epoch(0),
        }
    }

    /// Runs `count` transitions and returns the duration of each, in milliseconds.
    fn transitions(&mut self, count: usize) -> Vec<f64> {
        smol::block_on(async {
            let mut took = Vec::with_capacity(count);
            for _ in 0..count {
                let change = match self.epoch.0 % 2 {
                    0 => StoreChange::Open { open_for: ONE_HOUR },
                    _ => StoreChange::Close,
                };
                let operation = OperationId(self.epoch.0 + 1);
                let transition =
                    StoreTransition::new(self.name.clone(), self.epoch, change, operation);
                let before = Instant::now();
                let applied = self
                    .session
                    .transition(&transition)
                    .await
                    .expect("the server answers");
                took.push(before.elapsed().as_secs_f64() * 1e3);
                let TransitionResult::Applied(view) = applied else {
                    panic!("no other process changes it: {applied:?}")
                };
                self.epoch = view.epoch;
            }
            took
        })
    }
}

const COUNTED: usize = 2000;
/// The number of history entries that are kept for a circuit.
const HISTORY: usize = 100;
