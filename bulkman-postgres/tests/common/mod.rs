//! A store in a separate schema of the shared server, with a clock that tests can shift.

pub(crate) mod processes;
pub(crate) mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::conformance::Harness;
use bulkman_core::store::{CircuitStore, StoreSettings};
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::{Postgres, TestSchema};

pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) schema: TestSchema,
    shift_us: AtomicI64,
}

impl Database {
    /// Creates a migrated, empty schema.
    pub(crate) async fn new() -> Self {
        let database = Self::without_schema();
        database
            .store("migrating")
            .migrate()
            .await
            .expect("the schema is migrated");
        database
    }

    /// Reserves a schema name without creating the schema.
    pub(crate) fn without_schema() -> Self {
        Self::on(Postgres::shared())
    }

    pub(crate) fn on(server: &Postgres) -> Self {
        Self {
            url: server.url(),
            schema: server.schema(),
            shift_us: AtomicI64::new(0),
        }
    }

    pub(crate) fn builder(&self) -> PostgresStoreBuilder {
        PostgresStore::builder(&self.url)
            .schema(self.schema.name())
            .settings(settings())
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
            .expect("the server accepts connections")
    }

    /// Runs SQL with the schema name "bulkman" replaced by this schema.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut connection = self.connection().await;
        let sql = sql.replace("\"bulkman\"", self.schema.name());
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .expect("the statement succeeds");
        connection.close().await.expect("the connection closes");
    }

    /// Shifts the schema's clock forward or back.
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

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.shift_clock(i64::try_from(by.as_micros()).expect("a representable duration")))
    }
}

/// Timeouts for a slow machine that runs all tests at once.
pub(crate) fn settings() -> StoreSettings {
    StoreSettings::new()
        .connect_timeout(Duration::from_secs(60))
        .operation_timeout(Duration::from_secs(20))
        .lease_ttl(Duration::from_secs(60))
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
