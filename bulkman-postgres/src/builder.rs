//! Builder of a store.

use bulkman_core::store::StoreError;
use bulkman_core::store::{StoreSettings, check_namespace};

use crate::application_name;
use crate::connect_target::ConnectTarget;
use crate::connector::{Connector, ServerKnowledge};
use crate::migration_mode::MigrationMode;
use crate::schema::{DEFAULT_SCHEMA, Schema};
use crate::statement::Protocol;
use crate::statements::Statements;
use crate::store::PostgresStore;

/// Builder for [`PostgresStore`]; every setting has a default.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` or `connect` is called"]
pub struct PostgresStoreBuilder {
    target: ConnectTarget,
    namespace: String,
    schema: String,
    migration_mode: MigrationMode,
    require_tls: bool,
    protocol: Protocol,
    application_name: Option<String>,
    settings: StoreSettings,
}

impl PostgresStoreBuilder {
    pub(crate) fn new(target: ConnectTarget) -> Self {
        Self {
            target,
            namespace: "default".to_owned(),
            schema: DEFAULT_SCHEMA.to_owned(),
            migration_mode: MigrationMode::default(),
            require_tls: false,
            protocol: Protocol::Prepared,
            application_name: None,
            settings: StoreSettings::new(),
        }
    }

    /// Sets the namespace, of 1 to 200 bytes. Default: `default`.
    ///
    /// Circuits in different namespaces are independent, even if they have the same name.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the schema of the tables: `[a-z_][a-z0-9_]{0,39}`. Default: `bulkman`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets what to do about a missing or outdated schema. Default: [`MigrationMode::Check`].
    pub const fn migration_mode(mut self, mode: MigrationMode) -> Self {
        self.migration_mode = mode;
        self
    }

    /// Sets whether connections without TLS are rejected. Default: `false`.
    ///
    /// Without it, the default `sslmode=prefer` of sqlx falls back to plain text if the server, or
    /// an impostor, offers no TLS, or if no TLS feature is enabled.
    ///
    /// With it, an `sslmode` below `require` becomes `verify-full`. `require` and `verify-ca` are
    /// kept. Only `verify-full` verifies the identity of the server.
    pub const fn require_tls(mut self, require: bool) -> Self {
        self.require_tls = require;
        self
    }

    /// Sets whether statements use the simple protocol instead of being prepared. Default: `false`.
    ///
    /// It is needed behind a pooler in transaction mode that does not track prepared statements:
    /// PgBouncer before 1.21, or with `max_prepared_statements = 0`. There, a statement may be
    /// executed on another connection than the one that prepared it. In the simple protocol the
    /// server plans each statement again, which takes a few tenths of a millisecond.
    pub const fn simple_protocol(mut self, simple: bool) -> Self {
        self.protocol = if simple {
            Protocol::Simple
        } else {
            Protocol::Prepared
        };
        self
    }

    /// Sets the name by which the server lists the connections.
    ///
    /// It has 1 to 63 printable bytes of ASCII. Default: that of the URL or of `PGAPPNAME`, and
    /// otherwise `bulkman`, the namespace and the [name of the
    /// process](StoreSettings::instance_name), as in `bulkman shop checkout@node-7:4121`. Another
    /// [schema](Self::schema) than the default stands before the namespace, as in `bulkman
    /// staging.shop checkout@node-7:4121`. With another name,
    /// [`Admin::processes`](crate::Admin::processes) does not list the process.
    ///
    /// ```
    /// use bulkman_postgres::PostgresStore;
    ///
    /// let builder = PostgresStore::builder("postgres://shop@db.internal/shop");
    /// assert!(builder.application_name("shop/checkout").build().is_ok());
    /// ```
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self
    }

    /// Sets the timeouts, intervals and sharing of the fleet. Default: [`StoreSettings::new`].
    ///
    /// ```
    /// use bulkman_core::store::{Push, StoreSettings};
    /// use bulkman_postgres::PostgresStore;
    /// use std::time::Duration;
    ///
    /// // Behind PgBouncer in transaction mode, which does not deliver notifications.
    /// let settings = StoreSettings::new()
    ///     .push(Push::Off)
    ///     .poll_interval(Duration::from_secs(2));
    /// let store = PostgresStore::builder("postgres://shop@db.internal/shop")
    ///     .namespace("shop")
    ///     .settings(settings)
    ///     .build()?;
    /// # let _ = store;
    /// # Ok::<(), bulkman_core::store::StoreError>(())
    /// ```
    pub fn settings(mut self, settings: StoreSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Builds the store without connecting.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidArgument`] for an invalid setting.
    pub fn build(self) -> Result<PostgresStore, StoreError> {
        let mut target = self.target.source()?;
        let schema = Schema::new(&self.schema)?;
        check_namespace(&self.namespace)
            .map_err(|error| StoreError::invalid_argument(error.to_string()))?;
        self.settings
            .validate()
            .map_err(|error| StoreError::invalid_argument(error.to_string()))?;
        if let Some(name) = &self.application_name {
            application_name::check(name)?;
        }
        if self.require_tls {
            target.require_tls()?;
        }
        Ok(PostgresStore::new(Connector {
            target,
            statements: Statements::new(&schema),
            schema,
            namespace: self.namespace.into(),
            settings: self.settings,
            migration_mode: self.migration_mode,
            protocol: self.protocol,
            application_name: self.application_name,
            server: ServerKnowledge::default(),
        }))
    }

    /// Connects and verifies the schema, migrating it with [`MigrationMode::Apply`].
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), [`PostgresStore::check`] and [`PostgresStore::migrate`];
    /// [`StoreError::Incompatible`] with everything that is missing.
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        let mode = self.migration_mode;
        let store = self.build()?;
        match mode {
            MigrationMode::Off => {}
            MigrationMode::Apply => store.migrate().await?,
            MigrationMode::Check => {
                let diagnostics: Vec<_> = store
                    .check()
                    .await?
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                if !diagnostics.is_empty() {
                    return Err(StoreError::incompatible(diagnostics.join("; ")));
                }
            }
        }
        Ok(store)
    }
}

impl PostgresStore {
    /// Connects to a database in the namespace `default`, and verifies the schema.
    ///
    /// A process that must start while the database is down uses [`builder`](Self::builder) and
    /// [`build`](PostgresStoreBuilder::build), which does not connect.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidArgument`] for an invalid URL, [`StoreError::Incompatible`] with the
    /// diagnostics of [`check`](Self::check), or an error of `check` itself.
    pub async fn connect(target: impl Into<ConnectTarget>) -> Result<Self, StoreError> {
        Self::builder(target).connect().await
    }

    /// Returns a builder for a store at a URL, or at other [targets](ConnectTarget).
    pub fn builder(target: impl Into<ConnectTarget>) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(target.into())
    }
}
