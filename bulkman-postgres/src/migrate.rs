//! Migration of the schema.

use bulkman_core::store::StoreError;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::connector::{Connector, StatementLimits};
use crate::error::translate;
use crate::server_version::{SERVER_VERSION, check_server_version};
use crate::shipped_sql::SCHEMA;
use crate::statement::Statement;

/// The schema version that this library creates.
pub(crate) const VERSION: i32 = 2;

/// The oldest schema version that this library works with. Version 1 has no table of processes.
pub(crate) const OLDEST_VERSION: i32 = 1;

/// Migrates the schema.
///
/// It is one batch in the simple protocol, which the server runs as one transaction. The batch
/// begins with an advisory lock, which serializes concurrent migrations.
pub(crate) async fn apply(connector: &Connector) -> Result<(), StoreError> {
    let failed = |error| translate(&connector.schema, error);
    let limits = StatementLimits::maintenance(connector.maintenance_timeout());
    let mut connection = connector.connect(limits).await?;
    // The batch would fail with an error that does not name the cause.
    let version = Statement::new(SERVER_VERSION)
        .fetch_all(connector.protocol, &mut connection)
        .await
        .map_err(failed)?;
    if let Some(row) = version.first() {
        check_server_version(row.try_get("server_version").map_err(failed)?)?;
    }
    let batch = connector.schema.fill(SCHEMA);
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(batch)))
        .await
        .map_err(failed)?;
    connection.close().await.map_err(failed)
}

/// Migrates the schema unless it is up to date; reading needs no DDL privilege.
pub(crate) async fn ensure(connector: &Connector) -> Result<(), StoreError> {
    let failed = |error| translate(&connector.schema, error);
    let limits = StatementLimits::maintenance(connector.maintenance_timeout());
    let mut connection = connector.connect(limits).await?;
    let query = "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta'";
    let query = Statement::new(query).bind(connector.schema.as_str());
    let found = query
        .fetch_all(connector.protocol, &mut connection)
        .await
        .map_err(failed)?;
    if !found.is_empty() {
        let query = Statement::new(
            connector
                .schema
                .fill("SELECT version FROM \"bulkman\".meta"),
        );
        let rows = query
            .fetch_all(connector.protocol, &mut connection)
            .await
            .map_err(failed)?;
        let version = rows
            .first()
            .map_or(Ok(0), |row| row.try_get::<i32, _>("version"))
            .map_err(failed)?;
        if version >= VERSION {
            return connection.close().await.map_err(failed);
        }
    }
    connection.close().await.map_err(failed)?;
    apply(connector).await
}
