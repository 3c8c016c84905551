//! Behavior specific to PostgreSQL: privileges, versions, clocks, notifications, failures, secrets.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::StoreError;
use bulkman_core::store::conformance::{self, Harness};
use bulkman_core::store::{
    CircuitStore, Epoch, FleetState, OperationId, ProbePolicy, Push, Revision, StoreChange,
    StoreEvent, StoreSettings, StoreTransition, TransitionResult,
};
use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgListener};
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, Row};
use bulkman_postgres::{MigrationMode, PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::{Postgres, StopMode};
use bulkman_tokio::TokioRuntime;

use common::{Database, on_smol, on_tokio, settings};

#[test]
fn check_names_exactly_the_required_privileges() {
    on_tokio(async {
        let database = Database::new().await;
        let (role, password) = (
            format!("{}_app", database.schema.name()),
            "only for this test",
        );
        database
            .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"))
            .await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let options = options.username(&role).password(password);
        let as_app = || PostgresStore::builder(options.clone()).schema(database.schema.name());
        let app = as_app().build().unwrap();

        // Without privileges, the diagnostics and errors contain the fix.
        let diagnostics = app.check().await.unwrap();
        assert!(
            diagnostics[0].fix.starts_with("GRANT USAGE ON SCHEMA"),
            "{diagnostics:?}"
        );
        let error = CircuitStore::open_session(&app, &[]).await.err().unwrap();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        let error = as_app().connect().await.err().unwrap();
        assert!(error.to_string().contains("GRANT USAGE"), "{error}");

        // With the suggested privileges, every statement succeeds.
        for _ in 0..3 {
            for diagnostic in app.check().await.unwrap() {
                database.execute(&diagnostic.fix).await;
            }
        }
        assert_eq!(app.check().await.unwrap(), []);
        conformance::enough_successes_close(&AsApp(&database, as_app, "probes")).await;
        conformance::counts_of_processes_are_summed(&AsApp(&database, as_app, "counts")).await;
        conformance::quorum_opens(&AsApp(&database, as_app, "votes")).await;

        // They include neither DDL nor DELETE.
        let error = app.admin().prune_history(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        assert!(
            database
                .store("default")
                .admin()
                .prune_history(Duration::ZERO)
                .await
                .is_ok()
        );
        database
            .execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
            .await;
    });
}

#[test]
fn shipped_sql_files_create_schema_and_roles() {
    on_tokio(async {
        // A separate server, since roles belong to the whole server.
        let server = Postgres::start(&[]);
        let database = Database::on(&server);
        let mut connection = database.connection().await;
        for file in [
            include_str!("../sql/schema.sql"),
            include_str!("../sql/roles.sql"),
        ] {
            for _ in 0..2 {
                sqlx::raw_sql(file).execute(&mut connection).await.unwrap();
            }
        }
        sqlx::raw_sql(
            "CREATE ROLE shop LOGIN PASSWORD 'x'; GRANT bulkman_app TO shop; \
             CREATE ROLE ada LOGIN PASSWORD 'x'; GRANT bulkman_operator TO ada; \
             CREATE ROLE graph LOGIN PASSWORD 'x'; GRANT bulkman_readonly TO graph",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();

        let options: PgConnectOptions = database.url.parse().unwrap();
        let options = options.password("x");
        let shop = PostgresStore::builder(options.clone().username("shop")).namespace("shop");
        let shop = shop.connect().await.unwrap();
        let payments = BulkheadName::new("payments").unwrap();
        let mut session = CircuitStore::open_session(&shop, std::slice::from_ref(&payments))
            .await
            .unwrap();

        let mut ada = sqlx::PgConnection::connect_with(&options.clone().username("ada"))
            .await
            .unwrap();
        let mut epoch = 0;
        for (statement, state, reason) in [
            (
                "select bulkman.force_open('shop', 'payments', 'maintenance')",
                FleetState::ForcedOpen,
                "maintenance",
            ),
            (
                "select bulkman.disable('shop', 'payments')",
                FleetState::Disabled,
                "",
            ),
            (
                "select bulkman.close('shop', 'payments', reason => 'finished')",
                FleetState::Closed,
                "finished",
            ),
            (
                "select bulkman.reset('shop', 'payments', 'again', 'the boss')",
                FleetState::Closed,
                "again",
            ),
        ] {
            let new: i64 = sqlx::query_scalar(statement)
                .fetch_one(&mut ada)
                .await
                .unwrap();
            epoch += 1;
            assert_eq!(new, epoch);
            let StoreEvent::Applied(event) = session.changed().await.unwrap() else {
                panic!()
            };
            assert_eq!(event.revision, Revision(epoch.unsigned_abs()));
            assert_eq!(
                (event.circuits[0].state, &*event.circuits[0].reason),
                (state, reason)
            );
            let view = session.snapshot(None).await.unwrap().circuits.remove(0);
            assert_eq!((view.state, &*view.reason), (state, reason));
            assert_eq!(
                &*view.author,
                if reason == "again" { "the boss" } else { "ada" }
            );
        }
        let unknown = sqlx::query("select bulkman.close('shop', 'paiments')")
            .execute(&mut ada)
            .await;
        let unknown = unknown.unwrap_err().to_string();
        assert!(
            unknown.contains(r#"namespace "shop" has no circuit "paiments""#),
            "{unknown}"
        );

        let graph = options.username("graph");
        let mut psql = sqlx::PgConnection::connect_with(&graph).await.unwrap();
        let row = sqlx::query("select * from bulkman.status('shop')")
            .fetch_one(&mut psql)
            .await
            .unwrap();
        assert_eq!(
            (row.get::<&str, _>("circuit"), row.get::<&str, _>("state")),
            ("payments", "closed")
        );
        let rows = sqlx::query("select * from bulkman.changes('shop')")
            .fetch_all(&mut psql)
            .await
            .unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0].get::<&str, _>("author"), "the boss");
        let denied = sqlx::query("select bulkman.close('shop', 'payments')")
            .execute(&mut psql)
            .await;
        assert!(
            denied
                .unwrap_err()
                .to_string()
                .contains("permission denied")
        );

        // Without the key every notification is a hint, which is enough for watching.
        let watching = PostgresStore::builder(graph.clone())
            .namespace("shop")
            .build()
            .unwrap();
        let mut watching = CircuitStore::open_session(&watching, &[]).await.unwrap();
        shop.admin().disable("payments", "ada", "").await.unwrap();
        assert_eq!(
            watching.changed().await.unwrap(),
            StoreEvent::Changed {
                revision: Revision(5)
            }
        );
        let found = watching.snapshot(Some(Revision(4))).await.unwrap();
        assert_eq!(found.circuits[0].state, FleetState::Disabled);
    });
}

#[test]
fn admin_applies_commands() {
    on_smol(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let admin = store.admin();
        let error = admin.close("payments", "ada", "").await.unwrap_err();
        assert!(
            error.to_string().contains(r#"no circuit "payments""#),
            "{error}"
        );
        let payments = BulkheadName::new("payments").unwrap();
        CircuitStore::open_session(&store, &[payments])
            .await
            .unwrap();
        let view = admin
            .force_open("payments", "ada", "maintenance")
            .await
            .unwrap();
        assert_eq!((view.state, &*view.author), (FleetState::ForcedOpen, "ada"));
        assert_eq!(
            admin.disable("payments", "ada", "").await.unwrap().state,
            FleetState::Disabled
        );
        assert_eq!(
            admin.reset("payments", "ada", "").await.unwrap().state,
            FleetState::Closed
        );
        assert_eq!(
            admin.close("payments", "bob", "").await.unwrap().epoch,
            Epoch(4)
        );
        assert_eq!(admin.status().await.unwrap().len(), 1);
        let history = admin.history(Some("payments"), 2).await.unwrap();
        assert_eq!((history.len(), &*history[0].author), (2, "bob"));
        assert_eq!(admin.history(None, 10).await.unwrap().len(), 4);
        assert_eq!(
            admin
                .prune_history(Duration::from_secs(3600))
                .await
                .unwrap(),
            0
        );
        assert_eq!(admin.prune_history(Duration::ZERO).await.unwrap(), 4);
        assert!(admin.history(None, 10).await.unwrap().is_empty());
    });
}

/// Fault C10.
#[test]
fn failed_commands_are_not_applied_later() {
    on_tokio(async {
        let database = Database::new().await;
        let settings = StoreSettings::new()
            .connect_timeout(Duration::from_secs(20))
            .operation_timeout(Duration::from_millis(200));
        let build = |protocol| {
            let builder = database
                .builder()
                .namespace("shop")
                .settings(settings.clone());
            builder.simple_protocol(protocol).build().unwrap()
        };
        let circuit = BulkheadName::new("payments").unwrap();
        CircuitStore::open_session(&database.store("shop"), &[circuit])
            .await
            .unwrap();
        for simple in [false, true] {
            let admin = build(simple).admin();
            let mut blocker = database.connection().await;
            let block = format!(
                "BEGIN; SELECT {}.force_open('shop', 'payments', 'blocks')",
                database.schema.name()
            );
            blocker
                .execute(sqlx::raw_sql(AssertSqlSafe(block)))
                .await
                .unwrap();
            let mut failed = vec![
                admin.close("payments", "late", "").await,
                admin.reset("payments", "late", "").await,
                admin.disable("payments", "late", "").await,
                admin.force_open("payments", "late", "").await,
            ];
            let error = failed.remove(0).unwrap_err();
            assert!(
                error.is_transient() && error.to_string().contains("history"),
                "{error}"
            );
            assert!(failed.iter().all(Result::is_err));
            blocker.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
            // The row can be locked again, so that no abandoned command waits for it.
            let view = database
                .store("shop")
                .admin()
                .close("payments", "ada", "")
                .await;
            assert_eq!(&*view.unwrap().author, "ada");
            let history = database.store("shop").admin().history(None, 100).await;
            let history = history.unwrap();
            assert!(
                history.iter().all(|entry| &*entry.author != "late"),
                "{history:?}"
            );
        }
        // Without the server's limits, as behind a pooler, the command's own limit applies.
        let late = format!(
            "SELECT * FROM {}.apply_command('shop', 'payments', 4::smallint, false, 'late', '', 7, \
                                            now() - interval '1 second')",
            database.schema.name()
        );
        let mut connection = database.connection().await;
        let error = connection
            .execute(sqlx::raw_sql(AssertSqlSafe(late)))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("is not applied"), "{error}");
    });
}

#[test]
fn missing_schema_is_incompatible_until_migrated() {
    on_tokio(async {
        let database = Database::without_schema();
        let store = database.store("x");
        let error = CircuitStore::open_session(&store, &[]).await.err().unwrap();
        assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("bulkman-pg migrate"), "{error}");
        let diagnostics = store.check().await.unwrap();
        assert!(
            diagnostics[0].problem.contains("no schema"),
            "{diagnostics:?}"
        );
        assert!(
            diagnostics[0].fix.contains("bulkman-pg migrate"),
            "{diagnostics:?}"
        );

        let applying = database
            .builder()
            .migration_mode(MigrationMode::Apply)
            .build()
            .unwrap();
        CircuitStore::open_session(&applying, &[]).await.unwrap();
        CircuitStore::open_session(&store, &[]).await.unwrap();

        // A schema that is older than this library, or too new for it.
        for (sql, message) in [
            ("UPDATE \"bulkman\".meta SET version = 0", "version 0"),
            (
                "UPDATE \"bulkman\".meta SET version = 9, oldest_client = 9",
                "newer version of this library",
            ),
        ] {
            database.execute(sql).await;
            let error = CircuitStore::open_session(&store, &[]).await.err().unwrap();
            assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
            assert!(error.to_string().contains(message), "{error}");
            assert_eq!(store.check().await.unwrap().len(), 1);
        }
        // A newer schema that is compatible with this library.
        database
            .execute("UPDATE \"bulkman\".meta SET version = 9, oldest_client = 1")
            .await;
        CircuitStore::open_session(&store, &[]).await.unwrap();
        assert_eq!(store.check().await.unwrap(), []);
    });
}

#[test]
fn wrong_isolation_and_read_only_are_distinguished() {
    on_tokio(async {
        let database = Database::new().await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let with = |name: &str, value: &str| {
            PostgresStore::builder(options.clone().options([(name, value)]))
                .schema(database.schema.name())
                .build()
                .unwrap()
        };
        let wrong = with("default_transaction_isolation", "serializable");
        let error = CircuitStore::open_session(&wrong, &[]).await.err().unwrap();
        assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("ALTER ROLE"), "{error}");
        assert!(
            wrong.check().await.unwrap()[0]
                .fix
                .contains("read committed")
        );

        let read_only = with("default_transaction_read_only", "on");
        let circuit = BulkheadName::new("payments").unwrap();
        let circuits = std::slice::from_ref(&circuit);
        let mut session = CircuitStore::open_session(&read_only, circuits)
            .await
            .unwrap();
        assert!(session.read_only_reason().is_some());
        assert!(session.snapshot(None).await.unwrap().circuits.is_empty());
        let error = session.register(circuits).await.unwrap_err();
        assert!(error.is_transient(), "a standby may be promoted: {error}");
        assert!(session.is_usable());
        assert!(
            read_only.check().await.unwrap()[0]
                .fix
                .contains("default_transaction_read_only")
        );
    });
}

#[test]
fn forged_notifications_are_only_hints() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let circuit = BulkheadName::new("payments").unwrap();
        let mut session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let channel = channel_of(&database, "shop").await;
        for payload in [
            "",
            "1|1|1|open",
            "x",
            "1|18446744073709551615",
            "1|-5",
            "2|7",
            &"|".repeat(7_000),
        ] {
            database
                .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
                .await;
        }
        // Well-formed payloads arrive as hints, and change nothing.
        let hint = |revision| StoreEvent::Changed {
            revision: Revision(revision),
        };
        assert_eq!(session.changed().await.unwrap(), hint(1));
        let snapshot = session.snapshot(None).await.unwrap();
        assert_eq!(
            (snapshot.revision, snapshot.circuits[0].state),
            (Revision(0), FleetState::Closed)
        );
        assert_eq!(session.changed().await.unwrap(), hint(u64::MAX));

        // A listener can replay a notification, or modify it.
        let mut spy = PgListener::connect(&database.url).await.unwrap();
        spy.listen(&channel).await.unwrap();
        store
            .admin()
            .force_open("payments", "ada", "maintenance")
            .await
            .unwrap();
        let applied = session.changed().await.unwrap();
        let StoreEvent::Applied(after) = &applied else {
            panic!("{applied:?}")
        };
        assert_eq!(
            (after.revision, after.circuits[0].state),
            (Revision(1), FleetState::ForcedOpen)
        );
        let payload = spy.recv().await.unwrap().payload().to_owned();
        let forged = [
            payload.replacen("1|1|", "1|2|", 1),
            payload.replace("ada", "eve"),
            payload.replacen("|3|", "|0|", 1),
            payload[..payload.len() - 1].to_owned(),
        ];
        for forged in &forged {
            assert_ne!(*forged, payload);
            database
                .execute(&format!("SELECT pg_notify('{channel}', '{forged}')"))
                .await;
        }
        database
            .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
            .await;
        for revision in [2, 1, 1, 1] {
            assert_eq!(session.changed().await.unwrap(), hint(revision));
        }
        assert_eq!(
            session.changed().await.unwrap(),
            applied,
            "a replayed notification is authentic, but old"
        );

        // It is not authentic in another namespace.
        let other = database.store("stock");
        let mut session = CircuitStore::open_session(&other, &[circuit])
            .await
            .unwrap();
        let channel = channel_of(&database, "stock").await;
        database
            .execute(&format!("SELECT pg_notify('{channel}', '{payload}')"))
            .await;
        assert_eq!(session.changed().await.unwrap(), hint(1));
    });
}

/// Fault C02.
#[test]
fn statement_waits_for_the_end_of_forged_notifications() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let circuit = BulkheadName::new("payments").unwrap();
        let mut session = CircuitStore::open_session(&store, &[circuit])
            .await
            .unwrap();
        let notify = format!(
            "SELECT pg_notify('{}', '1|7|forged')",
            channel_of(&database, "shop").await
        );
        database.execute(&notify).await;
        session.changed().await.unwrap();
        let runtime = TokioRuntime::new();
        let began = runtime.now();
        session.snapshot(None).await.unwrap();
        let waited = runtime.now().saturating_duration_since(began);
        assert!(waited >= Duration::from_millis(200), "{waited:?}");

        // If they do not end, it is executed nevertheless.
        let mut connection = database.connection().await;
        let notifying = tokio::spawn(async move {
            loop {
                let notify = sqlx::raw_sql(AssertSqlSafe(notify.clone()));
                connection.execute(notify).await.unwrap();
            }
        });
        session.changed().await.unwrap();
        session.snapshot(None).await.unwrap();
        notifying.abort();
    });
}

/// Fault C02.
#[test]
fn first_statement_with_push_again_waits_for_a_flood() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("shop");
        let circuit = BulkheadName::new("payments").unwrap();
        let open = || CircuitStore::open_session(&store, std::slice::from_ref(&circuit));
        let mut session = open().await.unwrap();
        let channel = channel_of(&database, "shop").await;
        // 10 MB, of which 8 MB are received.
        database
            .execute(&format!(
                "SELECT pg_notify('{channel}', i || repeat('x', 7000)) FROM generate_series(1, 1500) i"
            ))
            .await;
        let error = session.changed().await.unwrap_err().to_string();
        assert!(error.contains("flooded"), "{error}");
        drop(session);
        let mut session = open().await.unwrap();
        assert!(!session.is_listening());
        session.listen().await.unwrap();
        let runtime = TokioRuntime::new();
        let began = runtime.now();
        session.snapshot(None).await.unwrap();
        let waited = runtime.now().saturating_duration_since(began);
        assert!(waited >= Duration::from_millis(200), "{waited:?}");
    });
}

async fn channel_of(database: &Database, namespace: &str) -> String {
    let mut connection = database.connection().await;
    let channel = format!("SELECT {}.channel('{namespace}')", database.schema.name());
    sqlx::query_scalar(AssertSqlSafe(channel))
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// Hazard P14.
#[test]
fn clock_steps_are_clamped() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let circuit = BulkheadName::new("a").unwrap();
        let mut session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let hour = Duration::from_secs(3_600);
        let opening = StoreTransition::new(
            circuit.clone(),
            Epoch(0),
            StoreChange::Open { open_for: hour },
            OperationId(1),
        );
        session.transition(&opening).await.unwrap();
        database.shift_clock(60_000_000).await;
        // A step back by 30 s prolongs the isolation, but never beyond its initial length.
        database.shift_clock(-30_000_000).await;
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert!(
            view.remaining <= hour && view.remaining > hour - Duration::from_secs(60),
            "{view:?}"
        );
        // A step back to before the opening: the end is unknown, so the isolation has elapsed.
        database.shift_clock(-86_400_000_000).await;
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert!(view.isolation_elapsed(), "{view:?}");
        let probe_policy = ProbePolicy::default();
        let half_open = StoreTransition::new(
            circuit.clone(),
            Epoch(1),
            StoreChange::HalfOpen { probe_policy },
            OperationId(2),
        );
        let applied = session.transition(&half_open).await.unwrap();
        assert!(
            matches!(applied, TransitionResult::Applied(_)),
            "{applied:?}"
        );

        // A lease from before the step is available, since its expiry is unknown.
        database.shift_clock(86_400_000_000).await;
        let request = |holder: &str| {
            bulkman_core::store::ProbeRequest::new(circuit.clone(), Epoch(2), holder.into(), hour)
        };
        session.acquire_probe(&request("x")).await.unwrap().unwrap();
        assert!(
            session
                .acquire_probe(&request("y"))
                .await
                .unwrap()
                .is_none()
        );
        database.shift_clock(-86_400_000_000).await;
        assert!(
            session
                .acquire_probe(&request("y"))
                .await
                .unwrap()
                .is_some()
        );
    });
}

#[test]
fn huge_durations_are_clamped() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let circuit = BulkheadName::new("a").unwrap();
        let mut session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let longest = StoreChange::Open {
            open_for: Duration::MAX,
        };
        let opening = StoreTransition::new(circuit, Epoch(0), longest, OperationId(u64::MAX));
        let TransitionResult::Applied(view) = session.transition(&opening).await.unwrap() else {
            panic!()
        };
        assert!(
            view.remaining > Duration::from_secs(50 * 365 * 86_400),
            "{view:?}"
        );
        assert_eq!(view.operation, OperationId(u64::MAX), "all bits are stored");
    });
}

#[test]
fn session_fails_with_its_connection() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        for waiting in [false, true] {
            let mut session = CircuitStore::open_session(&store, &[]).await.unwrap();
            let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                             WHERE pid <> pg_backend_pid() AND query LIKE '%\"bulkman\"%'";
            let terminate = terminate.replace("\"bulkman\"", database.schema.name());
            database.execute(&terminate).await;
            let error = if waiting {
                session.changed().await.err().unwrap()
            } else {
                session.snapshot(None).await.err().unwrap()
            };
            assert!(error.is_transient(), "{error}");
        }
        CircuitStore::open_session(&store, &[]).await.unwrap();
    });
}

#[test]
fn stopped_or_frozen_server_is_unavailable_in_time() {
    let server = Postgres::start(&[]);
    on_tokio(async {
        let database = Database::on(&server);
        let timeout = Duration::from_millis(500);
        let settings = StoreSettings::new()
            .connect_timeout(timeout)
            .operation_timeout(timeout);
        // A running server may need longer than that on a slow machine.
        let patient = database.store("x");
        patient.migrate().await.unwrap();
        let store = database
            .builder()
            .settings(settings)
            .namespace("x")
            .build()
            .unwrap();
        let circuit = BulkheadName::new("a").unwrap();
        let mut session = CircuitStore::open_session(&patient, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let opening = StoreChange::Open {
            open_for: Duration::from_secs(3_600),
        };
        let opening = StoreTransition::new(circuit.clone(), Epoch(0), opening, OperationId(7));
        session.transition(&opening).await.unwrap();

        server.stop(StopMode::Immediate);
        assert!(session.snapshot(None).await.unwrap_err().is_transient());
        assert!(
            CircuitStore::open_session(&store, &[])
                .await
                .err()
                .unwrap()
                .is_transient()
        );
        assert!(store.check().await.unwrap_err().is_transient());
        assert!(store.admin().status().await.unwrap_err().is_transient());

        server.restart();
        let mut session = CircuitStore::open_session(&patient, &[]).await.unwrap();
        let view = session.snapshot(None).await.unwrap().circuits.remove(0);
        assert_eq!(
            (view.state, view.operation),
            (FleetState::Open, OperationId(7)),
            "the state survives a crash"
        );
        let again = session.transition(&opening).await.unwrap();
        assert!(matches!(again, TransitionResult::Applied(view) if view.epoch == Epoch(1)));

        server.freeze();
        #[allow(clippy::disallowed_methods, reason = "the test measures real time")]
        let before = std::time::Instant::now();
        assert!(store.admin().status().await.unwrap_err().is_transient());
        assert!(store.check().await.unwrap_err().is_transient());
        assert!(store.migrate().await.unwrap_err().is_transient());
        assert!(
            before.elapsed() < Duration::from_secs(30),
            "each operation has a time limit: {:?}",
            before.elapsed()
        );
        server.thaw();
        assert_eq!(patient.admin().status().await.unwrap().len(), 1);
    });
}

#[test]
fn recreated_schema_has_another_incarnation() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let circuit = BulkheadName::new("a").unwrap();
        let mut session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit))
            .await
            .unwrap();
        let before = session.snapshot(None).await.unwrap();
        database.execute("DELETE FROM \"bulkman\".namespace").await;
        let gone = session.snapshot(Some(before.revision)).await.unwrap();
        assert_ne!(
            gone.incarnation, before.incarnation,
            "a deleted namespace has another incarnation"
        );
        drop(session);
        database.execute("DROP SCHEMA \"bulkman\" CASCADE").await;
        store.migrate().await.unwrap();
        let mut session = CircuitStore::open_session(&store, &[circuit])
            .await
            .unwrap();
        let after = session.snapshot(None).await.unwrap();
        assert_ne!(after.incarnation, before.incarnation);
    });
}

#[test]
fn session_without_push_does_not_listen() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database
            .builder()
            .settings(settings().push(Push::Off))
            .build()
            .unwrap();
        assert!(!store.capabilities().push);
        let _session = CircuitStore::open_session(&store, &[]).await.unwrap();
        let mut connection = database.connection().await;
        let listening: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE query = $1")
                .bind("LISTEN")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(listening, 0);
    });
}

#[test]
fn secrets_are_never_printed() {
    on_tokio(async {
        const SECRET: &str = "hunter2-topsecret";
        let check = |text: String| assert!(!text.contains(SECRET), "{text}");
        // Invalid URLs, with the secret in every component.
        for url in [
            format!("postgres://u:{SECRET}@[::1"),
            format!("postgres://u:{SECRET}@host:99999/x"),
            format!("mysql://u:{SECRET}@host/x"),
            format!("postgres://u:{SECRET}@host/x?sslmode={SECRET}"),
            SECRET.to_owned(),
        ] {
            let builder = PostgresStore::builder(&url);
            check(format!("{builder:?}"));
            if let Err(error) = builder.build() {
                check(format!("{error} {error:?}"));
            }
        }
        let database = Database::new().await;
        let wrong: PgConnectOptions = database.url.parse().unwrap();
        let builder = PostgresStore::builder(wrong.password(SECRET)).schema(database.schema.name());
        check(format!("{builder:?}"));
        let store = builder.build().unwrap();
        check(format!("{store:?} {:?}", store.admin()));
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        check(format!(
            "{error} {error:?} {:?}",
            std::error::Error::source(&error)
        ));
        let error = CircuitStore::open_session(&store, &[]).await.err().unwrap();
        check(format!("{error} {error:?}"));
    });
}

#[test]
fn invalid_settings_are_rejected() {
    let build = |builder: PostgresStoreBuilder| builder.build().unwrap_err().to_string();
    let url = "postgres://u@localhost/x";
    assert!(build(PostgresStore::builder(url).schema("a\"b")).contains("schema"));
    assert!(build(PostgresStore::builder(url).namespace("")).contains("namespace"));
    assert!(build(PostgresStore::builder(url).namespace("n".repeat(201))).contains("namespace"));
    assert!(build(PostgresStore::builder(url).namespace("a\0b")).contains("namespace"));
    assert!(
        build(
            PostgresStore::builder(url)
                .settings(StoreSettings::new().poll_interval(Duration::ZERO))
        )
        .contains("poll_interval")
    );
    let no_tls = PostgresStore::builder(format!("{url}?sslmode=disable")).require_tls(true);
    assert!(build(no_tls).contains("require_tls"));
}

/// A harness with the privileges of the application, and a separate namespace for each case.
struct AsApp<'a, F>(&'a Database, F, &'static str);

impl<F> Harness for AsApp<'_, F>
where
    F: Fn() -> PostgresStoreBuilder + Sync,
{
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        Arc::new(
            (self.1)()
                .namespace(format!("{namespace} {}", self.2))
                .build()
                .unwrap(),
        )
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.0.advance(by)
    }
}
