//! What operators do.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitView, FleetAction, FleetCommand, HistoryEntry, OperationId, StoreSession,
    TransitionResult,
};
use sqlx::Connection;

use crate::bounded::bounded;
use crate::error::translate;
use crate::rows;
use crate::session::PostgresSession;
use crate::statement::Statement;
use crate::store::Inner;

/// Acts on circuits in every process of a namespace, and looks at them; see
/// [`PostgresStore::admin`](crate::PostgresStore::admin).
///
/// Each method opens a connection and closes it. Whoever has a psql at hand may use the functions
/// of the schema instead: `select bulkman.force_open('shop', 'payments', 'maintenance')`.
///
/// # Errors
///
/// All methods: [`StoreError::InvalidArgument`] for a circuit that does not exist,
/// [`StoreError::Unavailable`], [`StoreError::Denied`], [`StoreError::Incompatible`].
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

impl Admin {
    pub(crate) const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Holds `circuit` open in all processes, until another command.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn force_open(
        &self,
        circuit: &str,
        by: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.act(circuit, FleetAction::ForceOpen, by, reason).await
    }

    /// Switches the breaker of `circuit` off in all processes, until another command.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn disable(
        &self,
        circuit: &str,
        by: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.act(circuit, FleetAction::Disable, by, reason).await
    }

    /// Closes `circuit` in all processes, from whatever state.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn close(
        &self,
        circuit: &str,
        by: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.act(circuit, FleetAction::Close, by, reason).await
    }

    /// Closes `circuit` in all processes, from whatever state, and forgets its counts and votes.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn reset(
        &self,
        circuit: &str,
        by: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.act(circuit, FleetAction::Reset, by, reason).await
    }

    /// All circuits of the namespace, by name.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn status(&self) -> Result<Vec<CircuitView>, StoreError> {
        let mut circuits = bounded(self.patience(), async {
            Ok(self.session().await?.snapshot(None).await?.circuits)
        })
        .await?;
        circuits.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        Ok(circuits)
    }

    /// The latest changes of `circuit`, or of all, newest first. The last hundred of each circuit
    /// are kept (`history_limit` in the schema's table `meta`).
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn history(
        &self,
        circuit: Option<&str>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let circuit = circuit.map(named).transpose()?;
        bounded(self.patience(), async {
            self.session().await?.history(circuit.as_ref(), limit).await
        })
        .await
    }

    /// Forgets changes of this namespace that are older than `age`; how many. Its role must be
    /// allowed to DELETE. Not needed to bound the history, which is bounded anyway.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn prune_history(&self, age: Duration) -> Result<u64, StoreError> {
        let failed = |error| translate(&self.inner.schema, error);
        bounded(self.patience(), async {
            let mut connection = self.inner.connection().await?;
            let prune = Statement::new(Arc::clone(&self.inner.statements.prune))
                .bind(&*self.inner.namespace)
                .bind(rows::to_micros(age));
            let gone = prune
                .fetch_all(self.inner.protocol, &mut connection)
                .await
                .map_err(failed)?;
            // It is committed; how the connection ends changes nothing.
            let _ = connection.close().await;
            Ok(gone.len() as u64)
        })
        .await
    }

    async fn act(
        &self,
        circuit: &str,
        action: FleetAction,
        by: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        let name = named(circuit)?;
        // The standard library's only source of randomness.
        let operation = OperationId(RandomState::new().build_hasher().finish() | 1);
        let command = FleetCommand::new(name, action, operation, by, reason);
        let applied = bounded(self.patience(), async {
            self.session().await?.command(&command).await
        })
        .await?;
        match applied {
            TransitionResult::Applied(view) => Ok(view),
            _ => Err(StoreError::invalid_argument(format!(
                "namespace {:?} has no circuit {circuit:?}; `status` lists them",
                self.inner.namespace
            ))),
        }
    }

    async fn session(&self) -> Result<PostgresSession, StoreError> {
        PostgresSession::open(Arc::clone(&self.inner), &[]).await
    }

    fn patience(&self) -> Duration {
        self.inner.settings.connect_timeout + self.inner.settings.operation_timeout * 2
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("namespace", &self.inner.namespace)
            .finish_non_exhaustive()
    }
}

fn named(circuit: &str) -> Result<BulkheadName, StoreError> {
    BulkheadName::new(circuit).map_err(|error| StoreError::invalid_argument(error.to_string()))
}
