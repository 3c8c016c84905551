//! Translation of database errors to store errors.

use std::sync::Arc;

use bulkman_core::store::StoreError;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;

use crate::schema::Schema;

/// Translates an error of sqlx, and adds the fix if an operator has to act.
pub(crate) fn translate(schema: &Schema, error: sqlx::Error) -> StoreError {
    let translated = match &error {
        sqlx::Error::Database(error) => from_database(schema, &**error),
        sqlx::Error::Tls(reason) => StoreError::incompatible(format!(
            "TLS could not be established: {reason}; fix the server's certificate or sslrootcert, \
             offer TLS there, or change sslmode"
        )),
        // rustls reports a rejected certificate as this kind.
        sqlx::Error::Io(reason) if reason.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::incompatible(format!(
                "TLS could not be established: {reason}; fix the server's certificate or sslrootcert"
            ))
        }
        sqlx::Error::Io(_) => StoreError::unavailable("the connection failed"),
        sqlx::Error::PoolTimedOut => StoreError::unavailable(
            "no connection in time: the server rejects connections, is starting, or does not respond",
        ),
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Encode(_) => {
            StoreError::invalid_argument("a value can't be sent to the database")
        }
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => StoreError::incompatible(format!(
            "schema \"{schema}\" returned an unexpected result: it may belong to another application"
        )),
        _ => StoreError::unavailable("the connection is unusable"),
    };
    translated.with_source(error)
}

/// Translates an error of an attempt to connect, and adds the address.
pub(crate) fn translate_connect(
    schema: &Schema,
    options: &PgConnectOptions,
    error: sqlx::Error,
) -> StoreError {
    match error {
        sqlx::Error::Io(reason) if reason.kind() != std::io::ErrorKind::InvalidData => {
            let address = match options.get_socket() {
                Some(path) => path.display().to_string(),
                None => format!("{}:{}", options.get_host(), options.get_port()),
            };
            StoreError::unavailable(format!(
                "connecting to {address} failed: {reason}; start the server, or correct the address"
            ))
            .with_source(sqlx::Error::Io(reason))
        }
        error => translate(schema, error),
    }
}

/// Adds the operation that failed.
pub(crate) fn in_operation(operation: &str, error: StoreError) -> StoreError {
    let add = |message: Arc<str>| format!("{operation}: {message}").into();
    match error {
        StoreError::Unavailable { message, source } => StoreError::Unavailable {
            message: add(message),
            source,
        },
        StoreError::Incompatible { message, source } => StoreError::Incompatible {
            message: add(message),
            source,
        },
        StoreError::Denied { message, source } => StoreError::Denied {
            message: add(message),
            source,
        },
        StoreError::InvalidArgument { message, source } => StoreError::InvalidArgument {
            message: add(message),
            source,
        },
        error => error,
    }
}

/// Translates by error code; see appendix A of the PostgreSQL manual.
fn from_database(schema: &Schema, error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let message = format!("{} (SQLSTATE {code})", error.message());
    match &*code {
        "42501" => StoreError::denied(format!(
            "{message}; as its owner, run sql/roles.sql and GRANT bulkman_app to this role (schema \"{schema}\"); \
             `bulkman-pg check` lists what is missing",
        )),
        "28P01" => StoreError::denied(format!(
            "{message}; correct the password in the URL, PGPASSWORD or ~/.pgpass"
        )),
        "28000" => StoreError::denied(format!(
            "{message}; create the role WITH LOGIN, or allow this host in pg_hba.conf"
        )),
        "3D000" => StoreError::incompatible(format!(
            "{message}; create it: CREATE DATABASE <name> ENCODING 'UTF8' TEMPLATE template0"
        )),
        "53300" => StoreError::unavailable(format!(
            "{message}; raise max_connections, or connect through a pooler"
        )),
        "55P03" | "57014" => StoreError::unavailable(format!(
            "{message}; another session may hold a lock: end its transaction, which \
             `bulkman-pg check` lists"
        )),
        // Prepared statements of another connection, or none of this one.
        "26000" | "42P05" => StoreError::incompatible(format!(
            "{message}; a pooler mixes prepared statements: use PgBouncer 1.21 or newer with \
             max_prepared_statements, or PostgresStoreBuilder::simple_protocol(true)"
        )),
        // Undefined table, schema, column, function.
        "42P01" | "3F000" | "42703" | "42883" => StoreError::incompatible(format!(
            "{message}; run `bulkman-pg migrate --schema {schema}`, PostgresStore::migrate() or sql/schema.sql as its owner",
        )),
        // The server is a standby, or read-only by default: a primary may be available soon.
        "25006" => StoreError::unavailable(
            "the server is read-only: it is a standby, or default_transaction_read_only is on",
        ),
        code if code.starts_with("22") || code.starts_with("23") => {
            StoreError::invalid_argument(message)
        }
        _ => StoreError::unavailable(message),
    }
}
