//! Diagnosis of a server, a schema and the privileges of a role.

mod names;
mod role;
mod warnings;

use std::fmt;

use bulkman_core::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::connector::{Connector, StatementLimits, connect, session_token};
use crate::error::translate;
use crate::migrate::{OLDEST_VERSION, VERSION};
use crate::server_version::{OLDEST_SERVER, too_old};
use crate::statement::Statement;

pub(crate) use self::names::check_circuits;
pub use self::role::CheckRole;
pub(crate) use self::role::granted_role;
pub use self::warnings::WarningThresholds;
pub(crate) use self::warnings::warnings;

/// A problem that keeps a store from working or endangers it, and its fix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The problem.
    pub problem: String,
    /// The fix: SQL, or a command.
    pub fix: String,
}

impl Diagnostic {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; to fix it: {}", self.problem, self.fix)
    }
}

/// Checks the server, the schema and the privileges of the role, and returns all problems.
pub(crate) async fn check(
    connector: &Connector,
    role: CheckRole,
) -> Result<Vec<Diagnostic>, StoreError> {
    let limits = StatementLimits::maintenance(connector.maintenance_timeout());
    let mark = session_token();
    let mut connection = connector.connect_by(limits, &mark, connect).await?;
    let diagnostics = diagnose(connector, role, &mark, &mut connection)
        .await
        .map_err(|error| translate(&connector.schema, error))?;
    // The diagnostics are complete, so an error while closing is irrelevant.
    let _ = connection.close().await;
    Ok(diagnostics)
}

async fn diagnose(
    connector: &Connector,
    checked: CheckRole,
    mark: &str,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<Diagnostic>> {
    let schema = connector.schema.as_str();
    let mut diagnostics = Vec::new();
    let server = Statement::new(SERVER)
        .bind(schema)
        .bind(mark)
        .fetch_all(connector.protocol, &mut *connection)
        .await?;
    let server = server.first().ok_or(sqlx::Error::RowNotFound)?;
    let role: String = server.try_get("role")?;
    let role = quoted(&role);

    let version: i32 = server.try_get("server_version")?;
    if let Some(version) = too_old(version) {
        diagnostics.push(Diagnostic::new(
            format!("the server is PostgreSQL {version}, which is too old"),
            format!("use PostgreSQL {OLDEST_SERVER} or newer"),
        ));
    }
    let isolation: String = server.try_get("isolation")?;
    if isolation != "read committed" {
        diagnostics.push(Diagnostic::new(
            format!("the default transaction isolation is {isolation}"),
            format!("ALTER ROLE {role} SET default_transaction_isolation = 'read committed'"),
        ));
    }
    if server.try_get("recovery")? {
        diagnostics.push(Diagnostic::new(
            "the server is a standby",
            "connect to the primary",
        ));
    } else if server.try_get("read_only")? {
        diagnostics.push(Diagnostic::new(
            "transactions are read-only by default",
            format!("ALTER ROLE {role} SET default_transaction_read_only = off"),
        ));
    }

    let encoding: String = server.try_get("encoding")?;
    if encoding != "UTF8" {
        diagnostics.push(Diagnostic::new(
            format!("the database has the encoding {encoding}, which can't store all names"),
            "CREATE DATABASE <name> ENCODING 'UTF8' TEMPLATE template0, and use that one",
        ));
    }

    // A direct connection has the limits of the session.
    if server.try_get("pooled")? {
        for (limit, value) in [("statement_timeout", "2s"), ("lock_timeout", "1s")] {
            if server.try_get::<&str, _>(limit)? == "0" {
                diagnostics.push(Diagnostic::new(
                    format!("a pooler drops the limits of sessions, and the role has no {limit}"),
                    format!("ALTER ROLE {role} SET {limit} = '{value}'"),
                ));
            }
        }
    }

    match server.try_get::<Option<bool>, _>("usable")? {
        None => diagnostics.push(Diagnostic::new(
            format!("there is no schema \"{schema}\""),
            migrate(schema),
        )),
        Some(false) => diagnostics.push(Diagnostic::new(
            format!("role {role} lacks USAGE on schema \"{schema}\""),
            format!("GRANT USAGE ON SCHEMA \"{schema}\" TO {role}"),
        )),
        Some(true) => {
            check_schema(connector, checked, connection, &role, &mut diagnostics).await?;
        }
    }
    Ok(diagnostics)
}

async fn check_schema(
    connector: &Connector,
    checked: CheckRole,
    connection: &mut PgConnection,
    role: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> sqlx::Result<()> {
    let schema = connector.schema.as_str();
    let (tables, privileges): (Vec<String>, Vec<String>) = checked
        .privileges()
        .map(|(table, privilege)| (table.to_owned(), privilege.to_owned()))
        .unzip();
    let granted = Statement::new(GRANTED)
        .bind(schema)
        .bind(tables)
        .bind(privileges);
    let rows = granted
        .fetch_all(connector.protocol, &mut *connection)
        .await?;
    let mut can_read_version = false;
    for row in &rows {
        let (table, privilege): (String, String) = (row.try_get("name")?, row.try_get("wanted")?);
        match row.try_get::<Option<bool>, _>("granted")? {
            None if privilege == "SELECT" => {
                diagnostics.push(Diagnostic::new(
                    format!("there is no table \"{schema}\".{table}"),
                    migrate(schema),
                ));
            }
            Some(false) => diagnostics.push(Diagnostic::new(
                format!("role {role} lacks {privilege} on \"{schema}\".{table}"),
                format!("GRANT {privilege} ON \"{schema}\".{table} TO {role}"),
            )),
            granted => can_read_version |= granted == Some(true) && table == "meta",
        }
    }
    if !can_read_version {
        return Ok(());
    }
    let versions = Statement::new(
        connector
            .schema
            .fill("SELECT version, oldest_client FROM \"bulkman\".meta"),
    );
    let Some(row) = versions
        .fetch_all(connector.protocol, &mut *connection)
        .await?
        .into_iter()
        .next()
    else {
        diagnostics.push(Diagnostic::new(
            format!("table \"{schema}\".meta is empty"),
            migrate(schema),
        ));
        return Ok(());
    };
    let (version, oldest): (i32, i32) = (row.try_get("version")?, row.try_get("oldest_client")?);
    if version < OLDEST_VERSION {
        let problem = format!(
            "schema \"{schema}\" has version {version}, but version {OLDEST_VERSION} is required"
        );
        diagnostics.push(Diagnostic::new(problem, migrate(schema)));
    } else if version < VERSION {
        let problem = format!(
            "schema \"{schema}\" has version {version}, which works, but version {VERSION} also \
             lists the processes"
        );
        diagnostics.push(Diagnostic::new(problem, migrate(schema)));
    } else if oldest > VERSION {
        let problem = format!("schema \"{schema}\" has version {version}, which is too new");
        diagnostics.push(Diagnostic::new(
            problem,
            "use a newer version of this library",
        ));
    } else {
        check_functions(connector, checked, connection, role, diagnostics).await?;
    }
    Ok(())
}

async fn check_functions(
    connector: &Connector,
    checked: CheckRole,
    connection: &mut PgConnection,
    role: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> sqlx::Result<()> {
    let schema = connector.schema.as_str();
    let functions: Vec<String> = checked.functions().map(str::to_owned).collect();
    let executable = Statement::new(EXECUTABLE).bind(schema).bind(functions);
    let rows = executable
        .fetch_all(connector.protocol, &mut *connection)
        .await?;
    for row in &rows {
        let function: String = row.try_get("name")?;
        match row.try_get::<Option<bool>, _>("granted")? {
            Some(true) => {}
            Some(false) => diagnostics.push(Diagnostic::new(
                format!("role {role} lacks EXECUTE on function \"{schema}\".{function}"),
                format!("GRANT EXECUTE ON FUNCTION \"{schema}\".{function} TO {role}"),
            )),
            None => diagnostics.push(Diagnostic::new(
                format!("there is no function \"{schema}\".{function}"),
                migrate(schema),
            )),
        }
    }
    Ok(())
}

fn migrate(schema: &str) -> String {
    format!(
        "run `bulkman-pg migrate --schema {schema}` or the output of `bulkman-pg sql`, as the role \
         that will own it"
    )
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

const SERVER: &str = "
SELECT current_user::text AS role,
       current_setting('server_version_num')::int AS server_version,
       current_setting('transaction_isolation') AS isolation,
       current_setting('transaction_read_only') = 'on' AS read_only,
       pg_is_in_recovery() AS recovery,
       coalesce(current_setting('bulkman.session', true) <> $2, true) AS pooled,
       current_setting('statement_timeout') AS statement_timeout,
       current_setting('lock_timeout') AS lock_timeout,
       (SELECT pg_encoding_to_char(d.encoding)::text FROM pg_database d
         WHERE d.datname = current_database()) AS encoding,
       (SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace n WHERE n.nspname = $1) AS usable";

const GRANTED: &str = "
SELECT w.name, w.wanted,
       (SELECT has_table_privilege(c.oid, w.wanted)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = w.name) AS granted
  FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (name, wanted, nr)
 ORDER BY w.nr";

const EXECUTABLE: &str = "
SELECT w.name,
       (SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE'))
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = $1 AND p.proname = w.name) AS granted
  FROM unnest($2::text[]) AS w (name)";
