//! Servers that can only be read: by a setting, or as a standby.

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::store::{FleetState, StoreError};
use bulkman_postgres::sqlx;
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{
    LONG, Process, Processes, decision_outcome, next, pause, store, store_at,
};

/// The setting changes while sessions are open: the first write detects it.
///
/// Fault C11.
pub(crate) async fn sessions_survive_a_read_only_server(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    let mut events = fleet[0].fleet.events();
    set_for_all(&database, "SET default_transaction_read_only = on").await;
    until_read_only(&database, &runtime, true).await;
    fleet[0].fail();
    next(
        &mut events,
        |event| matches!(event, FleetEvent::ReadOnly { error } if error.is_transient()),
    )
    .await;
    assert_eq!(
        fleet[0].state(),
        CircuitState::Open,
        "the local circuit breaker decides"
    );
    fleet[0].until(|process| is_read_only(process, 1)).await;
    assert_eq!(fleet[1].call(Ok(())).await, Ok(()));
    set_for_all(&database, "RESET default_transaction_read_only").await;
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
    fleet.all_reach(CircuitState::Open).await;
    let lost = |event: FleetEvent| matches!(event, FleetEvent::Degraded { .. });
    assert!(
        !std::iter::from_fn(|| events.try_next()).any(lost),
        "the session survives"
    );
}

/// The setting is that of the database, so that it applies to a session until its end.
///
/// Fault C11.
pub(crate) async fn read_only_database_is_read(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    drop(Processes::start(1, &runtime, LONG, || store(&database)).await);
    let alter = "ALTER DATABASE postgres SET default_transaction_read_only = on";
    database.execute(alter).await;
    let command = |function: &str| {
        format!("BEGIN READ WRITE; SELECT \"bulkman\".{function}('fleet', 'payments'); COMMIT")
    };
    database.execute(&command("force_open")).await;
    let fleet = Processes::start(8, &runtime, LONG, || store(&database)).await;
    for process in fleet.iter() {
        assert!(is_read_only(process, 0), "{:?}", process.fleet);
        assert_eq!(process.state(), CircuitState::ForcedOpen);
    }
    database.execute(&command("close")).await;
    fleet.all_reach(CircuitState::Closed).await;
    // A new circuit can't be registered, and uses its local rules.
    fleet[0].fail();
    fleet[0].until(|process| is_read_only(process, 1)).await;
    let error = database
        .store("fleet")
        .admin()
        .disable("payments", "ada", "")
        .await;
    assert!(
        matches!(&error, Err(StoreError::Unavailable { message, .. })
            if message.contains("nothing was changed")),
        "{error:?}"
    );

    let mut events = fleet[0].fleet.events();
    let alter =
        "BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT";
    database.execute(alter).await;
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
    fleet.all_reach(CircuitState::Open).await;
    for process in fleet.iter() {
        process
            .until(|process| !process.fleet.snapshot().read_only)
            .await;
    }
}

/// A hot standby streams the changes of its primary. It can't listen.
///
/// Fault C11.
pub(crate) async fn standby_is_read_until_it_is_promoted(runtime: impl Runtime + Clone) {
    let primary = Postgres::start(&[]);
    let database = Database::on(&primary);
    database.store("fleet").migrate().await.unwrap();
    drop(Processes::start(1, &runtime, LONG, || store(&database)).await);
    let standby = primary.start_standby();
    let url = standby.url();
    let admin = database.store("fleet").admin();
    admin.force_open("payments", "ada", "").await.unwrap();
    let fleet = Processes::start(8, &runtime, LONG, || store_at(&url, &database)).await;
    fleet.all_reach(CircuitState::ForcedOpen).await;
    // The list of processes has those of the standby, which report nothing there.
    let listed = store_at(&url, &database).build().unwrap().admin();
    let listed = listed.processes().await.unwrap();
    assert_eq!(listed.len(), 1, "all have one name: {listed:?}");
    assert_eq!((listed[0].connections, &listed[0].report), (8, &None));
    for process in fleet.iter() {
        process.until(|process| is_read_only(process, 0)).await;
        let error = process.fleet.snapshot().error.unwrap();
        assert!(error.contains("standby"), "{error}");
    }
    admin.close("payments", "ada", "").await.unwrap();
    fleet.all_reach(CircuitState::Closed).await;

    let mut events = fleet[0].fleet.events();
    fleet[0].fail();
    fleet[0].until(|process| is_read_only(process, 1)).await;
    assert_eq!(fleet[1].call(Ok(())).await, Ok(()), "calls are not delayed");
    let on_standby = store_at(&url, &database).build().unwrap().admin();
    assert_eq!(
        on_standby.status().await.unwrap()[0].state,
        FleetState::Closed
    );

    let mut connection = connect(&url).await;
    sqlx::query("SELECT pg_promote()")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
    fleet.all_reach(CircuitState::Open).await;
    for process in fleet.iter() {
        // It listens now.
        let resumed = |process: &Process| {
            let snapshot = process.fleet.snapshot();
            !snapshot.read_only && !snapshot.polling && snapshot.error.is_none()
        };
        process.until(resumed).await;
    }
}

/// Returns whether the process is connected to a server that it reads only.
fn is_read_only(process: &Process, pending: usize) -> bool {
    let snapshot = process.fleet.snapshot();
    let reason = snapshot
        .error
        .is_some_and(|error| error.contains("read-only"));
    snapshot.connected && snapshot.read_only && snapshot.pending == pending && reason
}

async fn connect(url: &str) -> sqlx::PgConnection {
    <sqlx::PgConnection as sqlx::Connection>::connect(url)
        .await
        .unwrap()
}

async fn set_for_all(database: &Database, setting: &str) {
    database.execute(&format!("ALTER SYSTEM {setting}")).await;
    database.execute("SELECT pg_reload_conf()").await;
}

/// Waits until new sessions have the setting.
async fn until_read_only(database: &Database, runtime: &impl Runtime, wanted: bool) {
    loop {
        let mut connection = database.connection().await;
        let statement = "SELECT current_setting('default_transaction_read_only')::bool";
        let found: bool = sqlx::query_scalar(statement)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if found == wanted {
            return;
        }
        pause(runtime).await;
    }
}
