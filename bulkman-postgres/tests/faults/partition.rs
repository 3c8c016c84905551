//! A network that drops what is sent, and says nothing. In a network namespace of its own, where
//! the server and its clients are alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::DecisionOutcome;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{LONG, Processes, ending, store};
use crate::took;

pub(crate) async fn packets_that_are_dropped_hold_up_nobody(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let limited = || {
        store(&database)
            .operation_timeout(OPERATION)
            .connect_timeout(CONNECT)
            .resync_interval(RESYNC)
    };
    let fleet = Processes::start(2, &runtime, LONG, limited).await;
    let mut events = fleet[0].fleet.events();

    let options: PgConnectOptions = database.url.parse().unwrap();
    let cut = Cut::around(options.get_port());
    let began = runtime.now();
    for process in fleet.iter() {
        process
            .until(|process| !process.fleet.snapshot().connected)
            .await;
    }
    let noticed = took("silent partition noticed after", &runtime, began);
    // A fifth more or less between two looks; the rest is for a machine that is busy.
    assert!(
        noticed < RESYNC.mul_f64(1.2) + OPERATION + SLACK,
        "{noticed:?}"
    );

    let failing = runtime.now();
    fleet[0].fail();
    assert_eq!(fleet[0].state(), CircuitState::Open, "local rules go on");
    assert_eq!(fleet[1].call(Ok(())).await, Ok(()), "and hold up nobody");
    assert!(took("calls meanwhile", &runtime, failing) < SLACK);

    // Connecting is given up as well, rather than after the two minutes of the system.
    for process in fleet.iter() {
        let told = |error: Option<String>| {
            error.is_some_and(|error| error.contains("no connection in time"))
        };
        process
            .until(|process| told(process.fleet.snapshot().error))
            .await;
    }
    took("connecting given up after", &runtime, began);

    let healed = runtime.now();
    drop(cut);
    assert_eq!(ending(&mut events).await, DecisionOutcome::Published);
    fleet.all_reach(CircuitState::Open).await;
    took("all views equal after", &runtime, healed);
}

/// Drops what is sent to and from a port of this namespace, as long as it lives.
struct Cut;

impl Cut {
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

impl Drop for Cut {
    fn drop(&mut self) {
        nft("delete table inet bulkman");
    }
}

fn nft(rules: &str) {
    let status = Command::new("nft").arg(rules).stdin(Stdio::null()).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "nft can't {rules}"
    );
}

const OPERATION: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_millis(1_500);
const RESYNC: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_millis(1_500);
