//! The SQL files that this crate ships.

use bulkman_core::store::StoreError;

use crate::schema::Schema;

/// Returns the SQL that creates or migrates the schema named `schema`.
///
/// [`PostgresStore::migrate`](crate::PostgresStore::migrate) runs the same statements. This is for
/// teams that apply schema changes with other tools. Run it in one transaction, as the role that is
/// to own the schema. It can be run repeatedly.
///
/// # Errors
///
/// [`StoreError::InvalidArgument`] for a name that is not `[a-z_][a-z0-9_]{0,39}`.
///
/// ```
/// let sql = bulkman_postgres::schema_sql("circuits")?;
/// assert!(sql.contains(r#"CREATE SCHEMA "circuits""#));
/// # Ok::<(), bulkman_core::store::StoreError>(())
/// ```
pub fn schema_sql(schema: &str) -> Result<String, StoreError> {
    Ok(Schema::new(schema)?.fill(SCHEMA))
}

/// Returns the SQL that creates the group roles and grants them their privileges.
///
/// The roles are `bulkman_app`, `bulkman_operator` and `bulkman_readonly`, whatever the schema is
/// called. Run it after [`schema_sql`], as a role that may create roles and owns the schema. It can
/// be run repeatedly.
///
/// # Errors
///
/// [`StoreError::InvalidArgument`] for a name that is not `[a-z_][a-z0-9_]{0,39}`.
///
/// ```
/// let sql = bulkman_postgres::roles_sql("circuits")?;
/// assert!(sql.contains(r#"GRANT USAGE ON SCHEMA "circuits" TO bulkman_app"#));
/// # Ok::<(), bulkman_core::store::StoreError>(())
/// ```
pub fn roles_sql(schema: &str) -> Result<String, StoreError> {
    Ok(Schema::new(schema)?.fill(ROLES))
}

pub(crate) const SCHEMA: &str = include_str!("../sql/schema.sql");

const ROLES: &str = include_str!("../sql/roles.sql");
