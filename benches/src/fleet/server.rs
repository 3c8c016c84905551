//! The PostgreSQL server, and its statistics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Row};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::Postgres;

/// A private server. It waits for the disk at each commit, as in production.
pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    options: PgConnectOptions,
}

impl Server {
    /// Starts a server that nothing else uses.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server without autovacuum, so that all of its work is for the fleet.
    pub(crate) fn start_without_maintenance() -> Self {
        Self::start_with(&[("autovacuum", "off")])
    }

    fn start_with(settings: &[(&str, &str)]) -> Self {
        let postgres = Postgres::start(&[&[("fsync", "on")], settings].concat());
        let options = postgres.url().parse().expect("a URL of the server");
        let server = Self { postgres, options };
        smol::block_on(async {
            server
                .builder("any")
                .build()
                .expect("valid settings")
                .migrate()
                .await
                .expect("migrates");
        });
        server
    }

    /// Returns the builder of a store in this server, with default settings.
    pub(crate) fn builder(&self, namespace: &str) -> PostgresStoreBuilder {
        PostgresStore::builder(self.options.clone()).namespace(namespace)
    }

    /// Returns the connection options for another port, such as that of a proxy.
    pub(crate) fn options_with_port(&self, port: u16) -> PgConnectOptions {
        self.options.clone().port(port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.options.get_port()))
    }

    /// Returns `true` if it accepts connections.
    pub(crate) fn accepts_connections(&self) -> bool {
        smol::block_on(async { PgConnection::connect_with(&self.options).await.is_ok() })
    }

    /// Returns the number of transactions so far. Every statement of a store is one.
    pub(crate) fn transactions(&self) -> f64 {
        let rows = self.query(
            "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()",
        );
        rows[0].get(0)
    }

    /// Returns the bytes of write-ahead log so far.
    pub(crate) fn wal_bytes(&self) -> f64 {
        self.query("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")[0].get(0)
    }

    /// Returns the number of other connections.
    pub(crate) fn connections(&self) -> f64 {
        let rows = self.query(
            "SELECT count(*)::float8 FROM pg_stat_activity
              WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
        rows[0].get(0)
    }

    /// Returns the state and epoch of every circuit of a namespace.
    pub(crate) fn circuits(&self, namespace: &str) -> BTreeMap<String, (String, u64)> {
        let rows = self.query(&format!(
            "SELECT name, state, epoch FROM bulkman.circuit WHERE namespace = '{namespace}'"
        ));
        let circuit = |row: &PgRow| {
            let state = STATES[usize::from(row.get::<i16, _>(1).unsigned_abs())];
            (
                row.get(0),
                (state.to_owned(), row.get::<i64, _>(2).unsigned_abs()),
            )
        };
        rows.iter().map(circuit).collect()
    }

    /// Runs a query on a new connection, since the server may have been restarted.
    fn query(&self, sql: &str) -> Vec<PgRow> {
        smol::block_on(async {
            let mut connection = PgConnection::connect_with(&self.options)
                .await
                .expect("the server answers");
            let statement = sqlx::query(AssertSqlSafe(sql));
            let rows = statement
                .fetch_all(&mut connection)
                .await
                .expect("a valid statement");
            connection.close().await.expect("closes");
            rows
        })
    }
}

/// The states, in the order of their numbers in the table.
const STATES: [&str; 5] = ["closed", "open", "half_open", "forced_open", "disabled"];

/// An isolation longer than any suite, so that circuits stay open.
pub(crate) const ONE_HOUR: Duration = Duration::from_secs(3600);
