//! The store.

use std::fmt;
use std::sync::Arc;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitStore, Push, StoreCapabilities, StoreFuture, StoreSession, StoreSettings,
};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::admin::Admin;
use crate::bounded::bounded;
use crate::builder::{ConnectTarget, PostgresStoreBuilder};
use crate::check::{self, Diagnostic};
use crate::error::translate;
use crate::migrate;
use crate::schema::Schema;
use crate::session::PostgresSession;
use crate::statement::Protocol;
use crate::statements::Statements;

/// Circuit state in PostgreSQL, shared by every process that uses the same schema and namespace.
///
/// It holds no connection: the synchroniser opens one for each process, and so does each of the
/// methods here, for as long as it takes. Cloning is cheap.
///
/// ```no_run
/// use bulkman_postgres::PostgresStore;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::builder("postgres://shop@db.internal/shop?sslmode=verify-full")
///     .namespace("shop")
///     .build()?;
/// for finding in store.check().await? {
///     eprintln!("{finding}");
/// }
/// store.admin().force_open("payments", "ada", "the provider is migrating").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: PgConnectOptions,
    pub(crate) schema: Schema,
    pub(crate) namespace: Arc<str>,
    pub(crate) statements: Statements,
    pub(crate) settings: StoreSettings,
    pub(crate) migrate: MigrationMode,
    pub(crate) protocol: Protocol,
    /// Whether to listen.
    pub(crate) push: bool,
}

/// What a store does about a schema that is missing or too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MigrationMode {
    /// Nothing but to fail with [`StoreError::Incompatible`] when it is used.
    Off,
    /// [`PostgresStore::connect`] and [`PostgresStoreBuilder::connect`] look for whatever is
    /// missing, and fail with words that mend it.
    #[default]
    Check,
    /// Whoever connects makes it, if its role may.
    Apply,
}

impl PostgresStore {
    /// A store at a URL or at [`PgConnectOptions`], in the namespace `default`, found to be in
    /// order.
    ///
    /// A process that should start while the database is down uses [`builder`](Self::builder) and
    /// [`build`](PostgresStoreBuilder::build), which does not connect.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidArgument`] for a URL that is none; else what
    /// [`check`](Self::check) finds, or why it can't.
    pub async fn connect(target: impl Into<ConnectTarget>) -> Result<Self, StoreError> {
        Self::builder(target).connect().await
    }

    /// A store at a URL or at [`PgConnectOptions`], to be told more.
    pub fn builder(target: impl Into<ConnectTarget>) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(target.into())
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes the schema, or brings it up to this version; does nothing where that is done.
    ///
    /// Its role must be allowed to create a schema, or own it. It is one transaction, and safe
    /// when many do it at once. It only ever adds.
    ///
    /// # Errors
    ///
    /// [`StoreError::Denied`] when the role may not; [`StoreError::Unavailable`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        bounded(self.patience(), migrate::apply(&self.inner)).await
    }

    /// What is missing for this role to work with this store, in words, with the SQL that mends
    /// it; nothing when all is well.
    ///
    /// # Errors
    ///
    /// When it can't even look: [`StoreError::Unavailable`], or [`StoreError::Denied`] when the
    /// database does not let the role in.
    pub async fn check(&self) -> Result<Vec<Diagnostic>, StoreError> {
        bounded(self.patience(), check::check(&self.inner)).await
    }

    /// What operators do: to circuits of this store's namespace, in every process.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.inner))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        self.inner.schema.as_str()
    }

    /// For a connection and several statements.
    fn patience(&self) -> std::time::Duration {
        self.inner.settings.connect_timeout + self.inner.settings.operation_timeout * 10
    }
}

impl CircuitStore for PostgresStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::ALL.with_push(self.inner.push)
    }

    fn settings(&self) -> StoreSettings {
        self.inner.settings.clone()
    }

    fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        Box::pin(async move {
            let session = PostgresSession::open(Arc::clone(&self.inner), circuits).await?;
            Ok(Box::new(session) as Box<dyn StoreSession>)
        })
    }
}

impl Inner {
    /// A connection for one errand.
    pub(crate) async fn connection(&self) -> Result<PgConnection, StoreError> {
        let connecting = PgConnection::connect_with(&self.options);
        connecting
            .await
            .map_err(|error| translate(&self.schema, error))
    }

    pub(crate) const fn push_wanted(settings: &StoreSettings) -> bool {
        !matches!(settings.push, Push::Off)
    }
}

/// Without the password: sqlx's own would show it.
impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.inner.options;
        f.debug_struct("PostgresStore")
            .field("host", &options.get_host())
            .field("port", &options.get_port())
            .field("user", &options.get_username())
            .field("database", &options.get_database())
            .field("schema", &self.inner.schema.as_str())
            .field("namespace", &self.inner.namespace)
            .finish_non_exhaustive()
    }
}
