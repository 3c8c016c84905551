//! The configuration of a store, from which connections are opened.

use std::sync::Arc;

use bulkman_core::store::{Push, StoreError, StoreSettings};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::error::translate;
use crate::migration_mode::MigrationMode;
use crate::schema::Schema;
use crate::statement::Protocol;
use crate::statements::Statements;

/// Everything that a session, a check, a migration or a command needs of a store.
pub(crate) struct Connector {
    pub(crate) options: PgConnectOptions,
    pub(crate) schema: Schema,
    pub(crate) namespace: Arc<str>,
    pub(crate) statements: Statements,
    pub(crate) settings: StoreSettings,
    pub(crate) migration_mode: MigrationMode,
    pub(crate) protocol: Protocol,
}

impl Connector {
    /// Opens a connection outside of a session.
    pub(crate) async fn connect(&self) -> Result<PgConnection, StoreError> {
        PgConnection::connect_with(&self.options)
            .await
            .map_err(|error| translate(&self.schema, error))
    }

    /// Returns `true` if sessions listen for notifications.
    pub(crate) const fn listens(&self) -> bool {
        !matches!(self.settings.push, Push::Off)
    }
}
