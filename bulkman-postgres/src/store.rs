//! The store and its maintenance methods.

use std::fmt;
use std::sync::Arc;

use crate::admin::Admin;
use crate::check::{self, CheckRole, Diagnostic, WarningThresholds};
use crate::connector::Connector;
use crate::migrate;
use crate::session::PostgresSession;
use crate::timeout::with_timeout;
use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitStore, StoreCapabilities, StoreFuture, StoreSession, StoreSettings,
};

/// A store in PostgreSQL, shared by all processes that use the same schema and namespace.
///
/// It holds no connection. The driver of each process opens one, and each method here opens one
/// while it runs. Cloning is cheap.
///
/// ```no_run
/// use bulkman_postgres::PostgresStore;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store =
///     PostgresStore::builder("postgres://shop@db.internal/shop?sslmode=verify-full")
///         .namespace("shop")
///         .build()?;
/// for diagnostic in store.check().await? {
///     eprintln!("{diagnostic}");
/// }
/// store
///     .admin()
///     .force_open("payments", "ada", "the provider is migrating")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    connector: Arc<Connector>,
}

impl PostgresStore {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector: Arc::new(connector),
        }
    }

    /// Creates the schema, or migrates it to this version; does nothing if it is up to date.
    ///
    /// The role must own the schema, or be allowed to create it. The migration is one transaction,
    /// is safe to run concurrently, and only adds objects. Run [`check`](Self::check) afterwards:
    /// it reports what a migration can't change, such as the database's encoding.
    ///
    /// # Errors
    ///
    /// [`StoreError::Denied`] if the role lacks a privilege, or [`StoreError::Unavailable`].
    pub async fn migrate(&self) -> Result<(), StoreError> {
        with_timeout(self.admin_timeout(), migrate::apply(&self.connector)).await
    }

    /// Checks the server, the schema and the privileges of an application's role.
    ///
    /// Returns one diagnostic per problem, with the SQL that fixes it, and none if all is well.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the check can't connect, or [`StoreError::Denied`] if the
    /// database rejects the role.
    pub async fn check(&self) -> Result<Vec<Diagnostic>, StoreError> {
        self.check_as(CheckRole::App).await
    }

    /// Checks as [`check`](Self::check) does, with the privileges that `role` needs.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    pub async fn check_as(&self, role: CheckRole) -> Result<Vec<Diagnostic>, StoreError> {
        with_timeout(self.admin_timeout(), check::check(&self.connector, role)).await
    }

    /// Returns the kind of group role that the role of this store is a member of.
    ///
    /// A member of several is the first one of app, operator and read-only, and so is a superuser.
    /// A member of none is [`CheckRole::App`].
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    pub async fn granted_role(&self) -> Result<CheckRole, StoreError> {
        check::granted_role(&self.admin()).await
    }

    /// Returns a diagnostic for each name that the encoding of the database can't hold.
    ///
    /// The namespace is checked, too.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    pub async fn check_circuits(&self, names: &[&str]) -> Result<Vec<Diagnostic>, StoreError> {
        let check = check::check_circuits(&self.connector, names);
        with_timeout(self.admin_timeout(), check).await
    }

    /// Returns what endangers the fleet although its store works now, and how to end it.
    ///
    /// These are old transactions, prepared transactions, replication slots without a consumer, a
    /// queue of notifications that fills up, CONNECT for PUBLIC, and a role without timeouts. Other
    /// roles' transactions are visible to members of `pg_read_all_stats`.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check).
    ///
    /// ```no_run
    /// # async fn example(
    /// #     store: bulkman_postgres::PostgresStore,
    /// # ) -> Result<(), bulkman_core::store::StoreError> {
    /// use bulkman_postgres::WarningThresholds;
    /// use std::time::Duration;
    ///
    /// let thresholds = WarningThresholds::new().transaction_age(Duration::from_secs(300));
    /// for warning in store.warnings(thresholds).await? {
    ///     eprintln!("{warning}");
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn warnings(
        &self,
        thresholds: WarningThresholds,
    ) -> Result<Vec<Diagnostic>, StoreError> {
        check::warnings(&self.admin(), thresholds).await
    }

    /// Returns a handle for operator commands in this store's namespace.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(Arc::clone(&self.connector))
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.connector.namespace
    }

    /// Returns the name of the schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        self.connector.schema.as_str()
    }

    /// The time limit for a connection and several statements.
    fn admin_timeout(&self) -> std::time::Duration {
        self.connector.maintenance_timeout()
    }
}

impl CircuitStore for PostgresStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::ALL.with_push(self.connector.listens())
    }

    fn settings(&self) -> StoreSettings {
        self.connector.settings.clone()
    }

    fn namespace(&self) -> &str {
        &self.connector.namespace
    }

    fn open_session<'a>(
        &'a self,
        circuits: &'a [BulkheadName],
    ) -> StoreFuture<'a, Box<dyn StoreSession>> {
        Box::pin(async move {
            let session = PostgresSession::open(Arc::clone(&self.connector), circuits).await?;
            Ok(Box::new(session) as Box<dyn StoreSession>)
        })
    }
}

/// Omits the password, which the implementation of sqlx would show.
impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut output = f.debug_struct("PostgresStore");
        if let Some(options) = self.connector.target.fixed() {
            output
                .field("host", &options.get_host())
                .field("port", &options.get_port())
                .field("user", &options.get_username())
                .field("database", &options.get_database());
        }
        output
            .field("schema", &self.connector.schema.as_str())
            .field("namespace", &self.connector.namespace)
            .finish_non_exhaustive()
    }
}
