//! The number of connections that a process holds, whatever blocks its statements.

use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::DecisionOutcome;
use bulkman_core::store::StoreSettings;
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, PgConnection};
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{
    LONG, Processes, TIMEOUT, decision_outcome, pause, settings, store_with,
};
use crate::common::proxy::Proxy;

/// Fault C01.
pub(crate) async fn blocked_statements_hold_two_connections(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let fleet = Processes::start(PROCESSES, &runtime, LONG, || {
        store_with(&database, short_timeouts())
    })
    .await;
    let mut observer = database.connection().await;
    until_connections(&mut observer, &runtime, PROCESSES).await;
    let schema = database.schema.name();
    let blocked = [
        (
            format!("BEGIN; SELECT {schema}.force_open('fleet', 'payments')"),
            "ROLLBACK",
        ),
        (
            format!("BEGIN; LOCK TABLE {schema}.circuit IN EXCLUSIVE MODE"),
            "ROLLBACK",
        ),
        (
            "ALTER SYSTEM SET synchronous_standby_names = 'gone'".to_owned(),
            "ALTER SYSTEM RESET synchronous_standby_names",
        ),
    ];
    for (block, unblock) in blocked {
        let mut events = fleet[0].fleet.events();
        let mut blocker = database.connection().await;
        raw(&mut blocker, &block).await;
        raw(&mut blocker, "SELECT pg_reload_conf()").await;
        for process in fleet.iter() {
            process.bulkhead.circuit_breaker().unwrap().open();
        }
        // Enough for several attempts of each process.
        let until = runtime.now() + 6 * OPERATION;
        let mut most = 0;
        while runtime.now() < until {
            most = most.max(connections(&mut observer).await);
            pause(&runtime).await;
        }
        // The blocker is one of them.
        assert!(most <= 2 * PROCESSES + 1, "{block}: {most} connections");

        raw(&mut blocker, unblock).await;
        raw(&mut blocker, "SELECT pg_reload_conf()").await;
        sqlx::Connection::close(blocker).await.unwrap();
        let outcome = decision_outcome(&mut events).await;
        assert!(
            matches!(
                outcome,
                DecisionOutcome::Published | DecisionOutcome::Superseded
            ),
            "{block}: {outcome:?}"
        );
        fleet.all_reach(CircuitState::Open).await;
        until_connections(&mut observer, &runtime, PROCESSES).await;
        for process in fleet.iter() {
            process
                .until(|process| process.fleet.snapshot().pending == 0)
                .await;
        }
        fleet[0].bulkhead.circuit_breaker().unwrap().close();
        decision_outcome(&mut events).await;
        fleet.all_reach(CircuitState::Closed).await;
    }
}

/// Behind a pooler, a session does not know its backend, and can't end it.
///
/// Fault C01.
pub(crate) async fn lost_answers_leave_no_connection_behind(runtime: impl Runtime + Clone) {
    for pooled in [false, true] {
        lose_answers(runtime.clone(), pooled).await;
    }
}

async fn lose_answers(runtime: impl Runtime + Clone, pooled: bool) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let options: PgConnectOptions = database.url.parse().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], options.get_port()).into());
    let url = proxy.url(&database.url, options.get_port());
    let options: PgConnectOptions = url.parse().unwrap();
    // A session that does not find its own mark takes the server for a pooler.
    let mark = pooled.then_some(("bulkman.session", "another"));
    let through = || {
        PostgresStore::builder(options.clone().options(mark))
            .schema(database.schema.name())
            .namespace("fleet")
            .settings(short_timeouts())
    };
    let fleet = Processes::start(1, &runtime, LONG, through).await;
    let mut observer = database.connection().await;
    for _ in 0..3 {
        proxy.swallow_answers(true);
        let until = runtime.now() + 8 * OPERATION;
        while runtime.now() < until {
            // One of the session, one that connects, and one that the proxy has yet to close.
            let (open, backends) = (proxy.open_connections(), connections(&mut observer).await);
            assert!(
                open <= 3 && backends <= 2 + usize::from(pooled),
                "{open} connections of the client, {backends} of the server"
            );
            pause(&runtime).await;
        }
        assert!(!fleet[0].fleet.snapshot().connected);
        proxy.swallow_answers(false);
        fleet[0]
            .until(|process| process.fleet.snapshot().connected && proxy.open_connections() == 1)
            .await;
        until_connections(&mut observer, &runtime, 1).await;
    }
}

/// Returns the number of clients of the server, without the observer.
async fn connections(observer: &mut PgConnection) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let count: i64 = sqlx::query_scalar(count).fetch_one(observer).await.unwrap();
    usize::try_from(count).unwrap()
}

async fn until_connections(observer: &mut PgConnection, runtime: &impl Runtime, wanted: usize) {
    let deadline = runtime.now() + TIMEOUT;
    loop {
        let found = connections(observer).await;
        if found == wanted {
            return;
        }
        assert!(runtime.now() < deadline, "{found} connections are left");
        pause(runtime).await;
    }
}

async fn raw(connection: &mut PgConnection, text: &str) {
    use sqlx::Executor;
    connection
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())))
        .await
        .unwrap();
}

fn short_timeouts() -> StoreSettings {
    settings()
        .operation_timeout(OPERATION)
        .connect_timeout(OPERATION)
}

const PROCESSES: usize = 3;
const OPERATION: Duration = Duration::from_millis(500);
