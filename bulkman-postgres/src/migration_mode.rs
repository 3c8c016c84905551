//! When a store migrates its schema.

/// What a store does about a schema that is missing or outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MigrationMode {
    /// Does nothing. Sessions fail with
    /// [`StoreError::Incompatible`](bulkman_core::store::StoreError::Incompatible).
    Off,
    /// Connecting through [`PostgresStore::connect`](crate::PostgresStore::connect) or
    /// [`PostgresStoreBuilder::connect`](crate::PostgresStoreBuilder::connect) verifies the schema
    /// and the privileges, and fails with an error that contains the fix.
    #[default]
    Check,
    /// Connecting migrates the schema, if the role is allowed to.
    Apply,
}
