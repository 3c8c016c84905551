//! Making the schema.

use bulkman_core::store::StoreError;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::error::translate;
use crate::statement::Statement;
use crate::store::Inner;

/// What this version of the library makes, and needs.
pub(crate) const VERSION: i32 = 1;

/// Makes what is missing: one batch in the simple protocol, which the server runs as one
/// transaction, and which begins with a lock that all who migrate wait for.
pub(crate) async fn apply(inner: &Inner) -> Result<(), StoreError> {
    let failed = |error| translate(&inner.schema, error);
    let mut connection = inner.connection().await?;
    let batch = inner.schema.fill(SCHEMA);
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(batch)))
        .await
        .map_err(failed)?;
    connection.close().await.map_err(failed)
}

/// As [`apply`], unless one look says that it is done: a role without DDL may still look.
pub(crate) async fn ensure(inner: &Inner) -> Result<(), StoreError> {
    let failed = |error| translate(&inner.schema, error);
    let mut connection = inner.connection().await?;
    let look = "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta'";
    let look = Statement::new(look).bind(inner.schema.as_str());
    let found = look
        .fetch_all(inner.protocol, &mut connection)
        .await
        .map_err(failed)?;
    if !found.is_empty() {
        let look = Statement::new(inner.schema.fill("SELECT version FROM \"bulkman\".meta"));
        let rows = look
            .fetch_all(inner.protocol, &mut connection)
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
    apply(inner).await
}

const SCHEMA: &str = include_str!("../sql/schema.sql");
