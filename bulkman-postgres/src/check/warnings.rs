//! What endangers a fleet, although its store works now.

use std::time::Duration;

use bulkman_core::store::StoreError;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};

use super::{Diagnostic, quoted};
use crate::admin::Admin;
use crate::connector::Connector;
use crate::rows;
use crate::statement::Statement;
use crate::timeout::with_timeout;

/// The values above which [`PostgresStore::warnings`](crate::PostgresStore::warnings) warns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct WarningThresholds {
    /// The age of a transaction, prepared or not. Default: a minute.
    pub transaction_age: Duration,
    /// The used part of the server's queue of notifications: 0 to 1. Default: 0.1.
    pub notification_queue: f64,
}

impl WarningThresholds {
    /// Creates the default thresholds.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            transaction_age: Duration::from_secs(60),
            notification_queue: 0.1,
        }
    }

    /// Sets [`transaction_age`](Self#structfield.transaction_age).
    #[must_use]
    pub const fn transaction_age(mut self, age: Duration) -> Self {
        self.transaction_age = age;
        self
    }

    /// Sets [`notification_queue`](Self#structfield.notification_queue).
    #[must_use]
    pub const fn notification_queue(mut self, used: f64) -> Self {
        self.notification_queue = used;
        self
    }
}

impl Default for WarningThresholds {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns what endangers the fleet, and how to end it.
pub(crate) async fn warnings(
    admin: &Admin,
    thresholds: WarningThresholds,
) -> Result<Vec<Diagnostic>, StoreError> {
    let age = rows::to_micros(thresholds.transaction_age);
    let failed = |error| admin.connector().failed(error);
    let mut warnings = Vec::new();
    let lists: [(&str, Decode); 3] = [
        (SNAPSHOTS, old_snapshot),
        (PREPARED, prepared_transaction),
        (SLOTS, idle_slot),
    ];
    for (text, decode) in lists {
        let statement = Statement::new(text).bind(age);
        for row in admin.query(statement).await? {
            warnings.push(decode(&row).map_err(failed)?);
        }
    }
    let rows = admin.query(Statement::new(SERVER)).await?;
    let server = rows
        .first()
        .ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
    warnings.extend(of_server(server, thresholds).map_err(failed)?);
    warnings.extend(missing_limits(admin.connector()).await?);
    Ok(warnings)
}

/// Returns a warning if the role lacks a limit. A session sets its own, unless a pooler drops it.
async fn missing_limits(connector: &Connector) -> Result<Option<Diagnostic>, StoreError> {
    let failed = |error| connector.failed(error);
    let rows = with_timeout(connector.maintenance_timeout(), async {
        let mut connection = connector.connect_without_limits().await?;
        let limits = Statement::new(LIMITS).fetch_all(connector.protocol, &mut connection);
        let rows = limits.await.map_err(failed)?;
        // The result is complete, so an error while closing is irrelevant.
        let _ = connection.close().await;
        Ok(rows)
    })
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
    let role = quoted(row.try_get("role").map_err(failed)?);
    let (mut missing, mut fixes) = (Vec::new(), Vec::new());
    for (limit, value) in [
        ("statement_timeout", "2s"),
        ("lock_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ] {
        if row.try_get::<&str, _>(limit).map_err(failed)? == "0" {
            missing.push(limit);
            fixes.push(format!("ALTER ROLE {role} SET {limit} = '{value}'"));
        }
    }
    let problem = || {
        format!(
            "role {role} has no {}: what it leaves open in psql or through a pooler blocks others",
            missing.join(", ")
        )
    };
    Ok((!missing.is_empty()).then(|| Diagnostic::new(problem(), fixes.join("; "))))
}

type Decode = fn(&PgRow) -> sqlx::Result<Diagnostic>;

/// The server keeps all versions of rows that an old snapshot can read.
fn old_snapshot(row: &PgRow) -> sqlx::Result<Diagnostic> {
    let pid: i32 = row.try_get("pid")?;
    let (role, name): (String, String) = (row.try_get("role")?, row.try_get("name")?);
    let (age, state): (i64, String) = (row.try_get("age_us")?, row.try_get("state")?);
    let age = seconds(age);
    let problem = format!(
        "server process {pid} of role {} ({name:?}, {state}) has a transaction of {age} s, which slows \
         down every statement",
        quoted(&role)
    );
    let fix = format!("end the transaction, or SELECT pg_terminate_backend({pid})");
    Ok(Diagnostic::new(problem, fix))
}

fn prepared_transaction(row: &PgRow) -> sqlx::Result<Diagnostic> {
    let (name, role): (String, String) = (row.try_get("name")?, row.try_get("role")?);
    let age = seconds(row.try_get("age_us")?);
    let problem = format!(
        "role {} has prepared the transaction {name:?} {age} s ago, which slows down every \
         statement",
        quoted(&role)
    );
    let name = name.replace('\'', "''");
    let fix = format!("COMMIT PREPARED '{name}', or ROLLBACK PREPARED '{name}'");
    Ok(Diagnostic::new(problem, fix))
}

fn idle_slot(row: &PgRow) -> sqlx::Result<Diagnostic> {
    let name: String = row.try_get("name")?;
    let problem = format!(
        "the replication slot {name:?} has no consumer, and keeps old rows or the write-ahead log"
    );
    let name = name.replace('\'', "''");
    let fix = format!("start its consumer, or SELECT pg_drop_replication_slot('{name}')");
    Ok(Diagnostic::new(problem, fix))
}

fn of_server(row: &PgRow, thresholds: WarningThresholds) -> sqlx::Result<Vec<Diagnostic>> {
    let mut warnings = Vec::new();
    let role = quoted(row.try_get("role")?);
    let database = quoted(row.try_get("database")?);
    let used: f64 = row.try_get("queue_usage")?;
    if used > thresholds.notification_queue {
        let problem = format!(
            "{:.1} % of the queue of notifications is used; every change fails once it is full",
            used * 100.0
        );
        let fix = match row.try_get::<Option<i32>, _>("listener")? {
            Some(pid) => format!(
                "server process {pid} has the oldest transaction, in which a listener reads nothing: end \
                 it, or SELECT pg_terminate_backend({pid})"
            ),
            None => "end the transactions of sessions that LISTEN".to_owned(),
        };
        warnings.push(Diagnostic::new(problem, fix));
    }
    if row.try_get("public_connect")? {
        warnings.push(Diagnostic::new(
            format!("every role may connect to {database}, and flood it with notifications"),
            format!(
                "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE \
                 {database} TO bulkman_app, bulkman_operator, bulkman_readonly"
            ),
        ));
    }
    if row.try_get("hidden_sessions")? {
        warnings.push(Diagnostic::new(
            format!("role {role} can't inspect the sessions of other roles"),
            format!("GRANT pg_read_all_stats TO {role}"),
        ));
    }
    Ok(warnings)
}

fn seconds(micros: i64) -> u64 {
    rows::micros(micros).as_secs()
}

/// $1 age in microseconds.
const SNAPSHOTS: &str = "
SELECT a.pid, coalesce(a.usename::text, '') AS role, a.application_name AS name,
       coalesce(a.state, '') AS state,
       (extract(epoch FROM clock_timestamp() - a.xact_start) * 1e6)::bigint AS age_us
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
   AND a.backend_type NOT LIKE 'autovacuum%'
   AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND clock_timestamp() - a.xact_start >= $1 * interval '1 microsecond'
 ORDER BY a.xact_start
 LIMIT 5";

/// $1 age in microseconds.
const PREPARED: &str = "
SELECT p.gid AS name, p.owner::text AS role,
       (extract(epoch FROM clock_timestamp() - p.prepared) * 1e6)::bigint AS age_us
  FROM pg_prepared_xacts p
 WHERE p.database = current_database()
   AND clock_timestamp() - p.prepared >= $1 * interval '1 microsecond'
 ORDER BY p.prepared
 LIMIT 5";

/// $1 unused. A temporary slot ends with its session.
const SLOTS: &str = "
SELECT s.slot_name::text AS name
  FROM pg_replication_slots s
 WHERE NOT s.active AND NOT s.temporary AND $1 >= 0
   AND (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL OR s.restart_lsn IS NOT NULL)
 ORDER BY s.slot_name
 LIMIT 5";

const LIMITS: &str = "
SELECT current_user::text AS role, current_setting('statement_timeout') AS statement_timeout,
       current_setting('lock_timeout') AS lock_timeout,
       current_setting('idle_in_transaction_session_timeout') AS idle_in_transaction_session_timeout";

const SERVER: &str = "
SELECT current_user::text AS role, current_database()::text AS database,
       pg_notification_queue_usage() AS queue_usage,
       (SELECT a.pid FROM pg_stat_activity a
         WHERE a.datname = current_database() AND a.state LIKE 'idle in transaction%'
         ORDER BY a.xact_start LIMIT 1) AS listener,
       has_database_privilege('public', current_database(), 'CONNECT') AS public_connect,
       EXISTS (SELECT FROM pg_stat_activity a
                WHERE a.datname = current_database()
                  AND a.query = '<insufficient privilege>') AS hidden_sessions";
