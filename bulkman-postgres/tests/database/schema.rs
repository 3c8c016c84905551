//! Privileges, the shipped SQL, versions and migrations.

use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitStore, FleetState, Revision, StoreError, StoreEvent, conformance,
};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, Row};
use bulkman_postgres::{MigrationMode, PostgresStore};
use bulkman_test_support::Postgres;

use super::AsApp;
use crate::common::{Database, on_tokio};
use crate::session_of;

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
            include_str!("../../sql/schema.sql"),
            include_str!("../../sql/roles.sql"),
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

/// A function hides the real version, as far as the library reads it.
#[test]
fn too_old_server_is_named() {
    on_tokio(async {
        let database = Database::new().await;
        let schema = database.schema.name();
        let fake = "CREATE FUNCTION \"bulkman\".current_setting(text) RETURNS text LANGUAGE sql AS \
                    $$SELECT CASE $1 WHEN 'server_version_num' THEN '120022' \
                             ELSE pg_catalog.current_setting($1) END$$";
        database.execute(fake).await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let path = format!("{schema},pg_catalog");
        let builder = |options: PgConnectOptions| PostgresStore::builder(options).schema(schema);
        let store = builder(options.clone().options([("search_path", &path)]));
        let store = store.build().unwrap();
        let errors = [
            CircuitStore::open_session(&store, &[]).await.err().unwrap(),
            store.migrate().await.unwrap_err(),
            store.admin().status().await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
            let message =
                "the server is PostgreSQL 12, which is too old: use PostgreSQL 13 or newer";
            assert!(error.to_string().contains(message), "{error}");
        }
        let problems = store.check().await.unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].problem.contains("PostgreSQL 12"));
        assert_eq!(problems[0].fix, "use PostgreSQL 13 or newer");
        // Also where the statements are run by `psql`.
        let sql = bulkman_postgres::schema_sql(schema).unwrap();
        let mut connection = database.connection().await;
        let path = format!("SET search_path = {path}");
        connection.execute(AssertSqlSafe(path)).await.unwrap();
        let error = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("use PostgreSQL 13 or newer"), "{error}");

        let current = builder(options).build().unwrap();
        assert_eq!(current.check().await.unwrap(), []);
        CircuitStore::open_session(&current, &[]).await.unwrap();
    });
}

#[test]
fn recreated_schema_has_another_incarnation() {
    on_tokio(async {
        let database = Database::new().await;
        let store = database.store("x");
        let (circuit, mut session) = session_of(&store, "a").await;
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
