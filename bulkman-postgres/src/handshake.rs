//! The first statements of a session: they check the server and end abandoned sessions.

use bulkman_core::store::StoreError;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::connector::{Backend, Connector};
use crate::read_only::ReadOnly;
use crate::server_version::check_server_version;
use crate::statement::{Protocol, Statement};

/// What a session knows of its server.
pub(crate) struct Handshake {
    pub(crate) channel: String,
    pub(crate) incarnation: u64,
    /// The store's clock, in microseconds.
    pub(crate) now_us: i64,
    pub(crate) may_read_key: bool,
    /// Whether the session can store the status of its process.
    pub(crate) may_report: bool,
    /// Why the server rejects changes.
    pub(crate) read_only: Option<ReadOnly>,
    /// The backend, if it serves this session only; `None` behind a pooler.
    pub(crate) backend: Option<Backend>,
}

/// Runs the first statements on a new connection.
///
/// They use the simple protocol: one round trip each, and none to prepare what runs once.
pub(crate) async fn handshake(
    connector: &Connector,
    token: &str,
    connection: &mut PgConnection,
) -> Result<Handshake, StoreError> {
    let abandoned = connector.abandoned_backends();
    let column = |of: fn(&Backend) -> i64| abandoned.iter().map(of).collect::<Vec<i64>>();
    let begin = Statement::new(BEGIN)
        .bind(token)
        .bind(column(|backend| backend.pid.into()))
        .bind(column(|backend| backend.started));
    // No table of the schema, which may be locked: nothing delays the end of abandoned sessions.
    let row = first(connector, begin, connection).await?;
    let failed = |error| connector.failed(error);
    check_server_version(row.try_get("server_version").map_err(failed)?)?;
    let exclusive: bool = row.try_get("exclusive").map_err(failed)?;
    let backend = Backend {
        pid: row.try_get("pid").map_err(failed)?,
        started: row.try_get("started").map_err(failed)?,
    };
    connector.ended(&abandoned);

    let statement = Statement::new(connector.statements.handshake.clone());
    let statement = statement.bind(&*connector.namespace);
    let row = first(connector, statement, connection).await?;
    let (channel, incarnation) = check_server(connector, &row)?;
    Ok(Handshake {
        channel,
        incarnation,
        now_us: row.try_get("now_us").map_err(failed)?,
        may_read_key: row.try_get("may_read_key").map_err(failed)?,
        may_report: row.try_get("may_report").map_err(failed)?,
        read_only: ReadOnly::of(&row).map_err(failed)?,
        backend: exclusive.then_some(backend),
    })
}

async fn first(
    connector: &Connector,
    statement: Statement,
    connection: &mut PgConnection,
) -> Result<PgRow, StoreError> {
    let rows = statement.fetch_all(Protocol::Simple, connection).await;
    let row = rows.and_then(|rows| rows.into_iter().next().ok_or(sqlx::Error::RowNotFound));
    row.map_err(|error| connector.failed(error))
}

/// Checks the server and the schema, and returns the channel and the incarnation.
fn check_server(connector: &Connector, handshake: &PgRow) -> Result<(String, u64), StoreError> {
    let failed = |error| connector.failed(error);
    let schema = &connector.schema;
    let isolation: &str = handshake.try_get("isolation").map_err(failed)?;
    if isolation != "read committed" {
        return Err(StoreError::incompatible(format!(
            "the default transaction isolation is `{isolation}` instead of `read committed`; run \
             ALTER ROLE <this role> SET default_transaction_isolation = 'read committed'"
        )));
    }
    let version: i32 = handshake.try_get("version").map_err(failed)?;
    let oldest: i32 = handshake.try_get("oldest_client").map_err(failed)?;
    if version < crate::migrate::OLDEST_VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" has version {version}, but version {} is required: run \
             `bulkman-pg migrate --schema {schema}`, PostgresStore::migrate() or sql/schema.sql as its owner",
            crate::migrate::OLDEST_VERSION
        )));
    }
    if oldest > crate::migrate::VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" has version {version}, which requires a newer version of this library"
        )));
    }
    let incarnation: i64 = handshake.try_get("incarnation").map_err(failed)?;
    Ok((
        handshake.try_get("channel").map_err(failed)?,
        incarnation.cast_unsigned(),
    ))
}

/// $1 mark, $2 process ids, $3 start times.
///
/// A backend without the mark may serve other clients, and its settings would reach them.
const BEGIN: &str = "
SELECT own.pid, own.started, own.exclusive,
       current_setting('server_version_num')::int AS server_version,
       CASE WHEN own.exclusive AND current_setting('idle_session_timeout', true) <> '0'
            THEN set_config('idle_session_timeout', '0', false) END AS idle_session_timeout,
       CASE WHEN own.exclusive THEN
         (SELECT count(pg_terminate_backend(a.pid))
            FROM pg_stat_activity a
            JOIN unnest($2, $3) AS w (pid, started)
              ON w.pid = a.pid AND w.started = (extract(epoch FROM a.backend_start) * 1e6)::bigint
           WHERE a.usename = current_user)
       END AS ended
  FROM (SELECT a.pid, (extract(epoch FROM a.backend_start) * 1e6)::bigint AS started,
               coalesce(current_setting('bulkman.session', true) = $1, false) AS exclusive
          FROM pg_stat_activity a
         WHERE a.pid = pg_backend_pid()) own";
