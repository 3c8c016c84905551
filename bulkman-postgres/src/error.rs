//! What the database says, as what a store says.

use bulkman_core::store::StoreError;
use sqlx::error::DatabaseError;

use crate::schema::Schema;

/// The kind of a failure, with what mends it where somebody has to.
pub(crate) fn translate(schema: &Schema, error: sqlx::Error) -> StoreError {
    let translated = match &error {
        sqlx::Error::Database(said) => from_database(schema, &**said),
        sqlx::Error::Tls(reason) => StoreError::incompatible(format!(
            "TLS could not be established: {reason}; fix the server's certificate or sslrootcert, \
             offer TLS there, or change sslmode"
        )),
        // So says rustls of a certificate that it does not accept.
        sqlx::Error::Io(reason) if reason.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::incompatible(format!(
                "TLS could not be established: {reason}; fix the server's certificate or sslrootcert"
            ))
        }
        sqlx::Error::Io(_) => StoreError::unavailable("the connection failed"),
        sqlx::Error::PoolTimedOut => StoreError::unavailable(
            "no connection in time: the server refuses, is starting up, or does not answer",
        ),
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Encode(_) => {
            StoreError::invalid_argument("it can't be sent to the database")
        }
        sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => StoreError::incompatible(format!(
            "schema \"{schema}\" answered something else than it should: is it another's?"
        )),
        _ => StoreError::unavailable("the connection is unusable"),
    };
    translated.with_source(error)
}

/// By the condition's code; see appendix A of PostgreSQL's manual.
fn from_database(schema: &Schema, said: &dyn DatabaseError) -> StoreError {
    let code = said.code().unwrap_or_default();
    match &*code {
        "42501" => StoreError::denied(format!(
            "{}; as its owner, run sql/roles.sql and GRANT bulkman_app to this role (schema \"{schema}\")",
            said.message()
        )),
        "28000" | "28P01" => StoreError::denied(said.message().to_owned()),
        "3D000" => StoreError::incompatible(format!("{}; create it", said.message())),
        // Undefined table, schema, column, function.
        "42P01" | "3F000" | "42703" | "42883" => StoreError::incompatible(format!(
            "{}; run `bulkman-pg migrate --schema {schema}`, PostgresStore::migrate() or sql/schema.sql as its owner",
            said.message()
        )),
        // Only a standby or default_transaction_read_only: somebody else may be the primary soon.
        "25006" => {
            StoreError::unavailable("the server takes no writes: it is a standby, or read-only")
        }
        code if code.starts_with("22") || code.starts_with("23") => {
            StoreError::invalid_argument(said.message().to_owned())
        }
        _ => StoreError::unavailable(said.message().to_owned()),
    }
}
