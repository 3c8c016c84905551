//! Settings of a store.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_core::store::{OnOutage, Push, SharingMode, StoreSettings, check_namespace};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::schema::Schema;
use crate::statement::Protocol;
use crate::statements::Statements;
use crate::store::{Inner, MigrationMode, PostgresStore};

/// Where a database is: a URL, or sqlx's own options.
pub struct ConnectTarget(Result<PgConnectOptions, StoreError>);

impl From<&str> for ConnectTarget {
    fn from(url: &str) -> Self {
        // What sqlx says may quote the URL, and with it the password.
        Self(PgConnectOptions::from_str(url).map_err(|_| {
            StoreError::invalid_argument(
                "the database's URL (not shown, it may have a password) is not of the form \
                 postgres://user:password@host:5432/database?sslmode=verify-full",
            )
        }))
    }
}

impl From<String> for ConnectTarget {
    fn from(url: String) -> Self {
        Self::from(url.as_str())
    }
}

impl From<&String> for ConnectTarget {
    fn from(url: &String) -> Self {
        Self::from(url.as_str())
    }
}

impl From<PgConnectOptions> for ConnectTarget {
    fn from(options: PgConnectOptions) -> Self {
        Self(Ok(options))
    }
}

impl fmt::Debug for ConnectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(options) => write!(
                f,
                "ConnectTarget({}:{})",
                options.get_host(),
                options.get_port()
            ),
            Err(error) => write!(f, "ConnectTarget({error})"),
        }
    }
}

/// A [`PostgresStore`] in the making; every setting has a default.
#[derive(Debug)]
#[must_use = "a builder makes nothing until `build` or `connect`"]
pub struct PostgresStoreBuilder {
    target: ConnectTarget,
    namespace: String,
    schema: String,
    migrate: MigrationMode,
    require_tls: bool,
    protocol: Protocol,
    settings: StoreSettings,
}

/// Settings of the synchroniser, passed on.
macro_rules! pass_on {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            $(#[$doc])*
            pub fn $name(mut self, $($argument: $type),*) -> Self {
                self.settings = self.settings.$name($($argument),*);
                self
            }
        )*
    };
}

impl PostgresStoreBuilder {
    pub(crate) fn new(target: ConnectTarget) -> Self {
        Self {
            target,
            namespace: "default".to_owned(),
            schema: "bulkman".to_owned(),
            migrate: MigrationMode::default(),
            require_tls: false,
            protocol: Protocol::Prepared,
            settings: StoreSettings::new(),
        }
    }

    /// Which circuits: those of other namespaces are others, whatever their names. 1 to 200 bytes.
    /// Default: `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The schema with the tables: `[a-z_][a-z0-9_]{0,39}`. Default: `bulkman`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// What to do about a schema that is missing or old. Default: [`MigrationMode::Check`].
    pub const fn migrate(mut self, migrate: MigrationMode) -> Self {
        self.migrate = migrate;
        self
    }

    /// Whether a connection without TLS is refused. Default: no.
    ///
    /// Without it, sqlx's default `sslmode=prefer` goes on in plain text when the server, or
    /// whoever answers in its place, offers no TLS, or when no TLS feature is on. With it, an
    /// `sslmode` below `require` becomes `verify-full`. `require` and `verify-ca` stay; only
    /// `verify-full` makes sure that the server is the one that was meant.
    pub const fn require_tls(mut self, require: bool) -> Self {
        self.require_tls = require;
        self
    }

    /// Whether statements are sent whole instead of being prepared. Default: no.
    ///
    /// For a pooler in transaction mode that does not keep prepared statements apart: PgBouncer
    /// before 1.21, or with `max_prepared_statements = 0`. There, a prepared statement may be
    /// looked for on another connection than it was made on. The server then plans each statement
    /// anew, which costs it a few tenths of a millisecond.
    pub const fn simple_protocol(mut self, simple: bool) -> Self {
        self.protocol = if simple {
            Protocol::Simple
        } else {
            Protocol::Prepared
        };
        self
    }

    /// All settings of the synchroniser at once.
    pub fn settings(mut self, settings: StoreSettings) -> Self {
        self.settings = settings;
        self
    }

    pass_on! {
        /// See [`StoreSettings::operation_timeout`].
        operation_timeout(limit: Duration);
        /// See [`StoreSettings::connect_timeout`].
        connect_timeout(limit: Duration);
        /// See [`StoreSettings::push`]; [`Push::Off`] for a pooler in transaction mode.
        push(push: Push);
        /// See [`StoreSettings::resync_interval`].
        resync_interval(interval: Duration);
        /// See [`StoreSettings::poll_interval`].
        poll_interval(interval: Duration);
        /// See [`StoreSettings::backoff`].
        backoff(min: Duration, max: Duration);
        /// See [`StoreSettings::lease_ttl`].
        lease_ttl(term: Duration);
        /// See [`StoreSettings::probe_limit`].
        probe_limit(limit: u16);
        /// See [`StoreSettings::probe_jitter`].
        probe_jitter(jitter: Duration);
        /// See [`StoreSettings::share`].
        share(share: SharingMode);
        /// See [`StoreSettings::flush_interval`].
        flush_interval(interval: Duration);
        /// See [`StoreSettings::on_outage`].
        on_outage(on_outage: OnOutage);
        /// See [`StoreSettings::shutdown_flush`].
        shutdown_flush(limit: Duration);
        /// See [`StoreSettings::instance`].
        instance(instance: impl Into<Arc<str>>);
    }

    /// The store, without connecting.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidArgument`] for what can't be used.
    pub fn build(self) -> Result<PostgresStore, StoreError> {
        let options = self.target.0?;
        let schema = Schema::new(&self.schema)?;
        check_namespace(&self.namespace)
            .map_err(|error| StoreError::invalid_argument(error.to_string()))?;
        self.settings
            .validate()
            .map_err(|error| StoreError::invalid_argument(error.to_string()))?;
        let options = if self.require_tls {
            with_tls(options)?
        } else {
            options
        };
        Ok(PostgresStore::new(Inner {
            // Poolers refuse connections that set this at start.
            options: options.extra_float_digits(None).disable_statement_logging(),
            statements: Statements::new(&schema),
            push: Inner::push_wanted(&self.settings),
            schema,
            namespace: self.namespace.into(),
            settings: self.settings,
            migrate: self.migrate,
            protocol: self.protocol,
        }))
    }

    /// The store, found to be in order (or made so, with [`MigrationMode::Apply`]).
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), [`PostgresStore::check`] and [`PostgresStore::migrate`];
    /// [`StoreError::Incompatible`] with all that is missing.
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        let migrate = self.migrate;
        let store = self.build()?;
        match migrate {
            MigrationMode::Off => {}
            MigrationMode::Apply => store.migrate().await?,
            MigrationMode::Check => {
                let findings: Vec<_> = store
                    .check()
                    .await?
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                if !findings.is_empty() {
                    return Err(StoreError::incompatible(findings.join("; ")));
                }
            }
        }
        Ok(store)
    }
}

fn with_tls(options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    if cfg!(not(any(feature = "tls-rustls", feature = "tls-native"))) {
        return Err(StoreError::invalid_argument(
            "require_tls needs the feature `tls-rustls` or `tls-native` of bulkman-postgres",
        ));
    }
    match options.get_ssl_mode() {
        PgSslMode::Disable => Err(StoreError::invalid_argument(
            "require_tls contradicts sslmode=disable: leave one out",
        )),
        PgSslMode::Allow | PgSslMode::Prefer => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Ok(options),
    }
}
