//! A store in a schema of its own, on the shared server, with a clock that tests can move.

pub(crate) mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::CircuitStore;
use bulkman_core::store::conformance::Harness;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::{Postgres, TestSchema};

pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) schema: TestSchema,
    shift_us: AtomicI64,
}

impl Database {
    /// Migrated, and empty.
    pub(crate) async fn new() -> Self {
        let database = Self::bare();
        database
            .store("migrating")
            .migrate()
            .await
            .expect("migrates");
        database
    }

    /// Without the schema.
    pub(crate) fn bare() -> Self {
        Self::on(Postgres::shared())
    }

    pub(crate) fn on(server: &Postgres) -> Self {
        Self {
            url: server.url(),
            schema: server.schema(),
            shift_us: AtomicI64::new(0),
        }
    }

    /// Patient, since a machine that runs all tests at once is slow.
    pub(crate) fn builder(&self) -> PostgresStoreBuilder {
        PostgresStore::builder(&self.url)
            .schema(self.schema.name())
            .connect_timeout(Duration::from_secs(60))
            .operation_timeout(Duration::from_secs(20))
    }

    pub(crate) fn store(&self, namespace: &str) -> PostgresStore {
        self.builder()
            .namespace(namespace)
            .build()
            .expect("valid settings")
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("the server answers")
    }

    /// Runs SQL that is about the schema "bulkman" in this one.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut connection = self.connection().await;
        let sql = sql.replace("\"bulkman\"", self.schema.name());
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .expect("executes");
        connection.close().await.expect("closes");
    }

    /// Sets the schema's clock on, or back.
    pub(crate) async fn shift_clock(&self, by_us: i64) {
        let shift = self.shift_us.fetch_add(by_us, Ordering::Relaxed) + by_us;
        self.execute(&format!(
            "CREATE OR REPLACE FUNCTION \"bulkman\".clock() RETURNS timestamptz \
             LANGUAGE sql VOLATILE PARALLEL SAFE \
             AS 'SELECT pg_catalog.clock_timestamp() + {shift} * interval ''1 microsecond'''"
        ))
        .await;
    }
}

impl Harness for Database {
    fn store(&self, namespace: &str) -> Arc<dyn CircuitStore> {
        Arc::new(Self::store(self, namespace))
    }

    fn advance(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.shift_clock(i64::try_from(time.as_micros()).expect("a sane duration")))
    }
}

/// Blocks on Tokio.
pub(crate) fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Blocks on smol.
pub(crate) fn on_smol<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(future)
}
