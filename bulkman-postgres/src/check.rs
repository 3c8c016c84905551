//! Finding out what is missing.

use std::fmt;

use bulkman_core::store::StoreError;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use crate::error::translate;
use crate::migrate::VERSION;
use crate::statement::Statement;
use crate::store::Inner;

/// Something that keeps a store from working.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// What is wrong.
    pub problem: String,
    /// What mends it: SQL, or a command.
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

/// Looks at the server, the schema and the rights of the role, and reports all that is wrong.
pub(crate) async fn check(inner: &Inner) -> Result<Vec<Diagnostic>, StoreError> {
    let mut connection = inner.connection().await?;
    let findings = look(inner, &mut connection)
        .await
        .map_err(|error| translate(&inner.schema, error))?;
    // The answer is had; how the connection ends changes nothing.
    let _ = connection.close().await;
    Ok(findings)
}

async fn look(inner: &Inner, connection: &mut PgConnection) -> sqlx::Result<Vec<Diagnostic>> {
    let schema = inner.schema.as_str();
    let mut findings = Vec::new();
    let server = Statement::new(SERVER)
        .bind(schema)
        .fetch_all(inner.protocol, &mut *connection)
        .await?;
    let server = server.first().ok_or(sqlx::Error::RowNotFound)?;
    let role: String = server.try_get("role")?;
    let role = quoted(&role);

    let version: i32 = server.try_get("server_version")?;
    if version < OLDEST_SERVER {
        let problem = format!("the server is PostgreSQL {}", version / 10_000);
        findings.push(Diagnostic::new(problem, "use PostgreSQL 13 or newer"));
    }
    let isolation: String = server.try_get("isolation")?;
    if isolation != "read committed" {
        findings.push(Diagnostic::new(
            format!("transactions begin as {isolation}"),
            format!("ALTER ROLE {role} SET default_transaction_isolation = 'read committed'"),
        ));
    }
    if server.try_get("recovery")? {
        findings.push(Diagnostic::new(
            "the server is a standby",
            "connect to the primary",
        ));
    } else if server.try_get("read_only")? {
        findings.push(Diagnostic::new(
            "transactions begin read-only",
            format!("ALTER ROLE {role} SET default_transaction_read_only = off"),
        ));
    }

    match server.try_get::<Option<bool>, _>("usable")? {
        None => findings.push(Diagnostic::new(
            format!("there is no schema \"{schema}\""),
            migrate(schema),
        )),
        Some(false) => findings.push(Diagnostic::new(
            format!("role {role} may not use schema \"{schema}\""),
            format!("GRANT USAGE ON SCHEMA \"{schema}\" TO {role}"),
        )),
        Some(true) => look_into_schema(inner, connection, &role, &mut findings).await?,
    }
    Ok(findings)
}

async fn look_into_schema(
    inner: &Inner,
    connection: &mut PgConnection,
    role: &str,
    findings: &mut Vec<Diagnostic>,
) -> sqlx::Result<()> {
    let schema = inner.schema.as_str();
    let tables: Vec<String> = RIGHTS
        .iter()
        .map(|(table, _)| (*table).to_owned())
        .collect();
    let rights: Vec<String> = RIGHTS
        .iter()
        .map(|(_, right)| (*right).to_owned())
        .collect();
    let granted = Statement::new(GRANTED)
        .bind(schema)
        .bind(tables)
        .bind(rights);
    let rows = granted.fetch_all(inner.protocol, &mut *connection).await?;
    let mut may_read_version = false;
    for row in &rows {
        let (table, right): (String, String) = (row.try_get("name")?, row.try_get("wanted")?);
        match row.try_get::<Option<bool>, _>("granted")? {
            None if right == "SELECT" => {
                findings.push(Diagnostic::new(
                    format!("there is no table \"{schema}\".{table}"),
                    migrate(schema),
                ));
            }
            Some(false) => findings.push(Diagnostic::new(
                format!("role {role} may not {right} on \"{schema}\".{table}"),
                format!("GRANT {right} ON \"{schema}\".{table} TO {role}"),
            )),
            granted => may_read_version |= granted == Some(true) && table == "meta",
        }
    }
    if !may_read_version {
        return Ok(());
    }
    let versions = Statement::new(
        inner
            .schema
            .fill("SELECT version, oldest_client FROM \"bulkman\".meta"),
    );
    let Some(row) = versions
        .fetch_all(inner.protocol, &mut *connection)
        .await?
        .into_iter()
        .next()
    else {
        findings.push(Diagnostic::new(
            format!("table \"{schema}\".meta is empty"),
            migrate(schema),
        ));
        return Ok(());
    };
    let (version, oldest): (i32, i32) = (row.try_get("version")?, row.try_get("oldest_client")?);
    if version < VERSION {
        let problem = format!("schema \"{schema}\" is at version {version}, {VERSION} is needed");
        findings.push(Diagnostic::new(problem, migrate(schema)));
    } else if oldest > VERSION {
        let problem = format!("schema \"{schema}\" is at version {version}, which is too new");
        findings.push(Diagnostic::new(
            problem,
            "use a newer version of this library",
        ));
    } else {
        look_at_functions(inner, connection, role, findings).await?;
    }
    Ok(())
}

async fn look_at_functions(
    inner: &Inner,
    connection: &mut PgConnection,
    role: &str,
    findings: &mut Vec<Diagnostic>,
) -> sqlx::Result<()> {
    let schema = inner.schema.as_str();
    let functions: Vec<String> = FUNCTIONS.iter().map(|name| (*name).to_owned()).collect();
    let executable = Statement::new(EXECUTABLE).bind(schema).bind(functions);
    let rows = executable
        .fetch_all(inner.protocol, &mut *connection)
        .await?;
    for row in &rows {
        let function: String = row.try_get("name")?;
        match row.try_get::<Option<bool>, _>("granted")? {
            Some(true) => {}
            Some(false) => findings.push(Diagnostic::new(
                format!("role {role} may not execute \"{schema}\".{function}"),
                format!("GRANT EXECUTE ON FUNCTION \"{schema}\".{function} TO {role}"),
            )),
            None => findings.push(Diagnostic::new(
                format!("there is no function \"{schema}\".{function}"),
                migrate(schema),
            )),
        }
    }
    Ok(())
}

fn migrate(schema: &str) -> String {
    format!(
        "`bulkman-pg migrate --schema {schema}` or sql/schema.sql, as the role that is to own it"
    )
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

const OLDEST_SERVER: i32 = 130_000;

const SERVER: &str = "
SELECT current_user::text AS role,
       current_setting('server_version_num')::int AS server_version,
       current_setting('transaction_isolation') AS isolation,
       current_setting('transaction_read_only') = 'on' AS read_only,
       pg_is_in_recovery() AS recovery,
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

/// What the statements need, and no more.
const RIGHTS: [(&str, &str); 17] = [
    ("meta", "SELECT"),
    ("namespace", "SELECT"),
    ("namespace", "INSERT"),
    ("namespace", "UPDATE"),
    ("circuit", "SELECT"),
    ("circuit", "INSERT"),
    ("circuit", "UPDATE"),
    ("probe", "SELECT"),
    ("probe", "INSERT"),
    ("probe", "UPDATE"),
    ("history", "SELECT"),
    ("history", "INSERT"),
    ("history", "UPDATE"),
    ("announcer", "SELECT"),
    ("tally", "SELECT"),
    ("tally", "INSERT"),
    ("tally", "UPDATE"),
];

const FUNCTIONS: [&str; 5] = ["clock", "channel", "combined", "announce", "act"];
