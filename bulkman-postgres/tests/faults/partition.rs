//! A network that silently drops packets, in a network namespace with only the server and its
//! clients.

use std::process::{Command, Stdio};
use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::DecisionOutcome;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{LONG, Processes, decision_outcome, settings, store_with};
use crate::print_elapsed;

pub(crate) async fn dropped_packets_delay_no_call(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let limited = || {
        let settings = settings()
            .operation_timeout(OPERATION)
            .connect_timeout(CONNECT)
            .resync_interval(RESYNC);
        store_with(&database, settings)
    };
    let fleet = Processes::start(2, &runtime, LONG, limited).await;
    let mut events = fleet[0].fleet.events();

    let options: PgConnectOptions = database.url.parse().unwrap();
    let partition = Partition::around(options.get_port());
    let began = runtime.now();
    for process in fleet.iter() {
        process
            .until(|process| !process.fleet.snapshot().connected)
            .await;
    }
    let detected = print_elapsed("silent partition detected after", &runtime, began);
    // The slack is for a busy machine.
    assert!(
        detected < RESYNC.mul_f64(1.2) + OPERATION + SLACK,
        "{detected:?}"
    );

    let failing = runtime.now();
    fleet[0].fail();
    assert_eq!(
        fleet[0].state(),
        CircuitState::Open,
        "the local circuit breaker decides"
    );
    assert_eq!(
        fleet[1].call(Ok(())).await,
        Ok(()),
        "other calls are not delayed"
    );
    assert!(print_elapsed("calls during the partition", &runtime, failing) < SLACK);

    // Connecting times out long before the two minutes of the operating system.
    for process in fleet.iter() {
        let timed_out = |error: Option<String>| {
            error.is_some_and(|error| error.contains("no connection in time"))
        };
        process
            .until(|process| timed_out(process.fleet.snapshot().error))
            .await;
    }
    print_elapsed("connecting timed out after", &runtime, began);

    let healed = runtime.now();
    drop(partition);
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
    fleet.all_reach(CircuitState::Open).await;
    print_elapsed("all views are equal after", &runtime, healed);
}

/// Drops packets to and from a port of this namespace until it is dropped.
struct Partition;

impl Partition {
    fn around(port: u16) -> Self {
        nft(&format!(
            "add table inet bulkman; \
             add chain inet bulkman cut {{ type filter hook input priority 0; }}; \
             add rule inet bulkman cut tcp dport {port} drop; \
             add rule inet bulkman cut tcp sport {port} drop"
        ));
        Self
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        nft("delete table inet bulkman");
    }
}

fn nft(rules: &str) {
    let status = Command::new("nft").arg(rules).stdin(Stdio::null()).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "nft failed: {rules}"
    );
}

const OPERATION: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_millis(1_500);
const RESYNC: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_millis(1_500);
