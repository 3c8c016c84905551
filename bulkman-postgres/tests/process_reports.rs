//! The table of processes: what each reports, which are listed, and what may prevent a report.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::store::{CircuitStore, ProcessStatus, StoreSession, StoreSettings};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Executor};
use bulkman_postgres::{PostgresStore, ProcessSummary};
use bulkman_tokio::TokioRuntime;

use common::processes::{LONG, Processes, SHORT, settings};
use common::{Database, on_tokio};

#[test]
fn processes_are_listed_with_what_they_report() {
    on_tokio(async {
        let database = Database::new().await;
        let store = |settings: StoreSettings| {
            let builder = database.builder().namespace(database.schema.name());
            builder.settings(settings)
        };
        let admin = store(settings()).application_name("psql");
        let admin = admin.build().unwrap().admin();
        let named = |name: &str| settings().instance(name).application_version("1.4");
        let long = format!("{}@node-7:4121", "p".repeat(90));
        let runtime = TokioRuntime::new();
        let first = Processes::start(1, &runtime, SHORT, || store(named("blue 7"))).await;
        let second = Processes::start(1, &runtime, SHORT, || store(named(&long))).await;
        first[0].fail();
        first.all_reach(CircuitState::Open).await;
        second.all_reach(CircuitState::Open).await;
        // One call creates the demand for a lease.
        first.all_reach(CircuitState::HalfOpen).await;
        let _rejected = first[0].call(Ok(())).await;
        let processes = list(&admin, |processes| {
            processes.iter().any(|process| process.leases == 1)
        });
        let processes = processes.await;
        let names: Vec<_> = processes.iter().map(|it| it.instance.as_str()).collect();
        assert_eq!(names, ["blue 7", &*long], "{processes:?}");
        assert_eq!((processes[0].leases, processes[1].leases), (1, 0));
        let leases = admin.leases().await.unwrap();
        assert_eq!(leases[0].instance, "blue 7");
        for process in &processes {
            assert_eq!(process.connections, 1);
            assert_eq!(process.address.as_deref(), Some("127.0.0.1"));
            let report = process.report.as_ref().unwrap();
            assert_eq!(report.application_version.as_deref(), Some("1.4"));
            assert_eq!(report.library_version, env!("CARGO_PKG_VERSION"));
            assert!(report.age < LONG, "{report:?}");
            assert_eq!((report.read_only, report.pending), (false, 0));
            assert_eq!(report.degraded_for, None);
        }
        // What the database rejects is reported as well, while the process can read.
        database
            .execute(
                "CREATE FUNCTION \"bulkman\".reject() RETURNS trigger LANGUAGE plpgsql \
                 AS $$BEGIN RAISE 'rejected' USING ERRCODE = '42501'; END$$; \
                 CREATE TRIGGER reject BEFORE UPDATE ON \"bulkman\".circuit \
                 FOR EACH STATEMENT EXECUTE FUNCTION \"bulkman\".reject()",
            )
            .await;
        second[0].bulkhead.circuit_breaker().unwrap().close();
        let processes = list(&admin, |processes| {
            let report = processes[1].report.as_ref().unwrap();
            report.pending == 1 && report.degraded_for.is_some()
        });
        assert_eq!(processes.await.len(), 2);
        database
            .execute("DROP TRIGGER reject ON \"bulkman\".circuit")
            .await;
        list(&admin, |processes| {
            let report = processes[1].report.as_ref().unwrap();
            report.pending == 0 && report.degraded_for.is_none()
        })
        .await;
        // A process that ends regularly is gone; one that crashes is listed for a while.
        first[0].fleet.shutdown().await;
        drop(first);
        drop(second);
        let processes = list(&admin, |processes| {
            processes.iter().all(|process| process.connections == 0)
        });
        let processes = processes.await;
        assert_eq!(processes.len(), 1, "{processes:?}");
        assert_eq!(processes[0].instance, long);
        assert!(processes[0].report.is_some());
    });
}

/// Processes with version 1 and 2 of the library, before and after a migration.
#[test]
fn schema_without_the_table_of_processes_works() {
    on_tokio(async {
        let database = Database::new().await;
        let version_1 = "DROP TABLE \"bulkman\".process; UPDATE \"bulkman\".meta SET version = 1";
        database.execute(version_1).await;
        let store = named(&database, "blue-7");
        let mut session = open(&store).await;
        let status = ProcessStatus::new("blue-7".into(), 7, LONG);
        let snapshot = session.resync(None, &status).await.unwrap();
        assert_eq!(
            (snapshot.circuits.len(), session.live_processes()),
            (1, None)
        );
        session.withdraw(&status).await.unwrap();
        let listed = store.admin().processes().await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(
            (listed[0].instance.as_str(), &listed[0].report),
            ("blue-7", &None)
        );
        let problems = store.check().await.unwrap();
        assert!(
            problems
                .iter()
                .all(|it| it.fix.contains("bulkman-pg migrate"))
        );
        assert!(
            problems
                .iter()
                .any(|it| it.problem.contains("version 1, which works"))
        );

        store.migrate().await.unwrap();
        assert_eq!(store.check().await.unwrap(), []);
        // Libraries of version 1 accept what does not exclude them.
        let (version, oldest): (i32, i32) = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT version, oldest_client FROM {}.meta",
            database.schema.name()
        )))
        .fetch_one(&mut database.connection().await)
        .await
        .unwrap();
        assert_eq!((version, oldest), (2, 1));
        session.resync(None, &status).await.unwrap();
        assert_eq!(session.live_processes(), None, "as of its handshake");
        let mut session = open(&store).await;
        session.resync(None, &status).await.unwrap();
        assert_eq!(session.live_processes(), Some(1));
        let listed = store.admin().processes().await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0].connections, 2);
        assert!(listed[0].report.is_some());
    });
}

#[test]
fn old_reports_are_removed_without_waiting() {
    on_tokio(async {
        let database = Database::new().await;
        let namespace = database.schema.name();
        let insert = "INSERT INTO \"bulkman\".process VALUES \
            ('shop', 'old', 1, NULL, '', \"bulkman\".clock() - interval '61 min', false, 0, NULL), \
            ('shop', 'locked', 2, NULL, '', \"bulkman\".clock() - interval '61 min', false, 0, NULL), \
            ('shop', 'self', 3, NULL, '', \"bulkman\".clock() - interval '61 min', false, 0, NULL), \
            ('shop', 'recent', 4, NULL, '', \"bulkman\".clock() - interval '59 min', false, 0, NULL), \
            ('bank', 'old', 5, NULL, '', \"bulkman\".clock() - interval '61 min', false, 0, NULL)";
        database
            .execute(&insert.replace("'shop'", &format!("'{namespace}'")))
            .await;
        let mut other = database.connection().await;
        let lock = format!(
            "BEGIN; SELECT FROM {}.process WHERE instance = 'locked' FOR UPDATE",
            database.schema.name()
        );
        let lock = sqlx::raw_sql(AssertSqlSafe(lock));
        other.execute(lock).await.unwrap();
        let mut session = open(&named(&database, "self")).await;
        let status = ProcessStatus::new("self".into(), 3, LONG * 2);
        session.resync(None, &status).await.unwrap();
        assert_eq!(session.live_processes(), Some(4), "before it removes one");
        session.resync(None, &status).await.unwrap();
        assert_eq!(session.live_processes(), Some(3), "itself and two others");
        let remaining: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT instance FROM {}.process ORDER BY id",
            database.schema.name()
        )))
        .fetch_all(&mut database.connection().await)
        .await
        .unwrap();
        assert_eq!(remaining, ["locked", "self", "recent", "old"]);
        let listed = database.store(namespace).admin().processes().await.unwrap();
        let listed: Vec<_> = listed.iter().map(|it| it.instance.as_str()).collect();
        assert_eq!(listed, ["recent", "self"]);
    });
}

/// A missing privilege, or a lock, does not keep a process from reading.
#[test]
fn reads_do_not_depend_on_the_table_of_processes() {
    on_tokio(async {
        let database = Database::new().await;
        let settings = StoreSettings::new().instance("shop");
        let builder = database.builder().namespace(database.schema.name());
        let builder = builder.settings(settings);
        let store = builder.build().unwrap();
        let mut session = open(&store).await;
        let status = ProcessStatus::new("shop".into(), 7, LONG);
        session.resync(None, &status).await.unwrap();
        let rename = "ALTER TABLE \"bulkman\".process RENAME TO hidden";
        database.execute(rename).await;
        let read = session.resync(None, &status).await.unwrap();
        assert_eq!(read.circuits.len(), 1);
        assert!(session.is_usable());
        let rename = "ALTER TABLE \"bulkman\".hidden RENAME TO process";
        database.execute(rename).await;
        // It is tried again, though not at once.
        database.execute("DELETE FROM \"bulkman\".process").await;
        let mut reads = 0;
        while store.admin().processes().await.unwrap()[0].report.is_none() {
            session.resync(None, &status).await.unwrap();
            reads += 1;
            assert!(reads < 100);
        }
        assert!(reads > 5, "{reads}");

        let mut other = database.connection().await;
        let lock = format!("BEGIN; LOCK TABLE {}.process", database.schema.name());
        let lock = sqlx::raw_sql(AssertSqlSafe(lock));
        other.execute(lock).await.unwrap();
        let mut session = open(&store).await;
        let read = session.resync(None, &status).await.unwrap();
        assert_eq!(read.circuits.len(), 1);
        other.execute("COMMIT").await.unwrap();

        // The setting of a role: nothing is written, and the list still works.
        database.execute("DELETE FROM \"bulkman\".process").await;
        let options: PgConnectOptions = database.url.parse().unwrap();
        let options = options.options([("default_transaction_read_only", "on")]);
        let store = PostgresStore::builder(options).schema(database.schema.name());
        let store = store.namespace(database.schema.name()).build().unwrap();
        let mut session = open(&store).await;
        session.resync(None, &status).await.unwrap();
        assert!(session.read_only_reason().is_some());
        session.withdraw(&status).await.unwrap();
        let listed = store.admin().processes().await.unwrap();
        assert!(listed.iter().all(|process| process.report.is_none()));
    });
}

async fn open(store: &PostgresStore) -> Box<dyn StoreSession> {
    let circuit = BulkheadName::new("payments").unwrap();
    CircuitStore::open_session(store, &[circuit]).await.unwrap()
}

fn named(database: &Database, instance: &str) -> PostgresStore {
    let settings = common::settings().instance(instance);
    let builder = database.builder().namespace(database.schema.name());
    let builder = builder.settings(settings);
    builder.build().unwrap()
}

/// Lists the processes until a condition holds.
async fn list(
    admin: &bulkman_postgres::Admin,
    expected: impl Fn(&[ProcessSummary]) -> bool,
) -> Vec<ProcessSummary> {
    loop {
        let processes = admin.processes().await.unwrap();
        if expected(&processes) {
            return processes;
        }
    }
}
