//! The PostgreSQL server, and its statistics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Connection, Row};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};
use bulkman_test_support::Postgres;

use super::processes::processor_seconds;

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

    /// As [`start_without_maintenance`](Self::start_without_maintenance), and counts statements.
    pub(crate) fn start_counting() -> Self {
        let preload = ("shared_preload_libraries", "pg_stat_statements");
        let server = Self::start_with(&[("autovacuum", "off"), preload]);
        server.query("CREATE EXTENSION pg_stat_statements");
        server
    }

    /// Returns the number of statements of stores so far, on a server that counts them.
    pub(crate) fn statements(&self) -> f64 {
        // Only statements of stores quote the name of the schema.
        let rows = self.query(
            "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements
              WHERE query LIKE '%\"bulkman\".%'",
        );
        rows[0].get(0)
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

    /// Returns the number of transactions so far.
    ///
    /// Every statement of a store is one, and so are its preparation and the delivery of
    /// notifications to a listener.
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

    /// Returns the processor time of the connected backends so far, in seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let rows = self.query("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
        let processes = rows.iter().map(|row| row.get::<i32, _>(0).unsigned_abs());
        processes.map(processor_seconds).sum()
    }

    /// Returns how long each circuit of a namespace stayed open after its isolation, at its last
    /// closing, in seconds.
    pub(crate) fn recoveries(&self, namespace: &str) -> Vec<f64> {
        let rows = self.query(&format!(
            "SELECT (SELECT extract(epoch FROM max(h.at) FILTER (WHERE h.to_state = 0)
                            - max(h.at + h.open_for_us * interval '1 us') FILTER (WHERE h.to_state = 1))::float8
                       FROM bulkman.history h
                      WHERE (h.namespace, h.name) = (c.namespace, c.name))
               FROM bulkman.circuit c
              WHERE c.namespace = '{namespace}' AND c.state = 0"
        ));
        rows.iter()
            .filter_map(|row| row.get::<Option<f64>, _>(0))
            .collect()
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

/// A connection that counts circuits repeatedly.
pub(crate) struct Observer(PgConnection);

impl Server {
    pub(crate) fn observer(&self) -> Observer {
        let connection = smol::block_on(PgConnection::connect_with(&self.options));
        Observer(connection.expect("the server answers"))
    }
}

impl Observer {
    /// Returns the circuits of a namespace that are not closed, and those that are.
    pub(crate) fn not_closed_and_closed(&mut self, namespace: &str) -> (i64, i64) {
        let count = "SELECT count(*) FILTER (WHERE state <> 0), count(*) FILTER (WHERE state = 0)
                       FROM bulkman.circuit WHERE namespace = $1";
        let count = sqlx::query_as(count).bind(namespace);
        smol::block_on(count.fetch_one(&mut self.0)).expect("a valid statement")
    }
}

/// The states, in the order of their numbers in the table.
const STATES: [&str; 5] = ["closed", "open", "half_open", "forced_open", "disabled"];

/// An isolation longer than any suite, so that circuits stay open.
pub(crate) const ONE_HOUR: Duration = Duration::from_secs(3600);
