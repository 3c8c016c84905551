//! Commands of operators.

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitView, FleetAction, FleetCommand, HistoryEntry, OperationId, StoreSession,
    TransitionResult,
};
use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};

use crate::connector::{Connector, StatementLimits};
use crate::error::translate;
use crate::rows;
use crate::session::PostgresSession;
use crate::statement::Statement;
use crate::timeout::with_timeout;

/// A handle for operator commands, which apply to every process of a namespace.
///
/// It is returned by [`PostgresStore::admin`](crate::PostgresStore::admin). Each method opens a
/// connection and closes it. With `psql`, the functions of the schema do the same:
/// `select bulkman.force_open('shop', 'payments', 'maintenance')`.
///
/// # Errors
///
/// All methods return [`StoreError::InvalidArgument`] for a circuit that does not exist,
/// [`StoreError::Unavailable`], [`StoreError::Denied`], [`StoreError::Incompatible`].
#[derive(Clone)]
pub struct Admin {
    connector: Arc<Connector>,
}

impl Admin {
    pub(crate) const fn new(connector: Arc<Connector>) -> Self {
        Self { connector }
    }

    /// Forces `circuit` open in all processes, until another command.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn force_open(
        &self,
        circuit: &str,
        author: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.command(circuit, FleetAction::ForceOpen, author, reason)
            .await
    }

    /// Disables the circuit breaker of `circuit` in all processes, until another command.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn disable(
        &self,
        circuit: &str,
        author: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.command(circuit, FleetAction::Disable, author, reason)
            .await
    }

    /// Closes `circuit` in all processes, from any state.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn close(
        &self,
        circuit: &str,
        author: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.command(circuit, FleetAction::Close, author, reason)
            .await
    }

    /// Closes `circuit` in all processes, from any state, and clears its counts and votes.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn reset(
        &self,
        circuit: &str,
        author: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        self.command(circuit, FleetAction::Reset, author, reason)
            .await
    }

    /// Returns all circuits of the namespace, sorted by name.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn status(&self) -> Result<Vec<CircuitView>, StoreError> {
        let mut circuits = with_timeout(self.timeout(), async {
            Ok(self.session().await?.snapshot(None).await?.circuits)
        })
        .await?;
        circuits.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        Ok(circuits)
    }

    /// Returns the latest changes of `circuit`, or of all circuits, newest first.
    ///
    /// The last 100 changes of each circuit are kept (`history_limit` in the schema's table
    /// `meta`).
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn history(
        &self,
        circuit: Option<&str>,
        limit: u32,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let circuit = circuit.map(circuit_name).transpose()?;
        with_timeout(self.timeout(), async {
            self.session().await?.history(circuit.as_ref(), limit).await
        })
        .await
    }

    /// Deletes history entries of this namespace older than `age`, and returns the number deleted.
    ///
    /// The role needs the DELETE privilege. The history is bounded without it, too.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn prune_history(&self, age: Duration) -> Result<u64, StoreError> {
        let failed = |error| translate(&self.connector.schema, error);
        let timeout = self.connector.maintenance_timeout();
        with_timeout(timeout, async {
            let limits = StatementLimits::maintenance(timeout);
            let mut connection = self.connector.connect(limits).await?;
            let prune = Statement::new(self.connector.statements.prune_history.clone())
                .bind(&*self.connector.namespace)
                .bind(rows::to_micros(age));
            let deleted = prune
                .fetch_all(self.connector.protocol, &mut connection)
                .await
                .map_err(failed)?;
            // The statement is committed, so an error while closing is irrelevant.
            let _ = connection.close().await;
            Ok(deleted.len() as u64)
        })
        .await
    }

    /// Registers `circuit`, closed, unless it exists.
    ///
    /// A process registers its circuits itself. So this is for a circuit that is to be forced open
    /// before a process shares it.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn register(&self, circuit: &str) -> Result<(), StoreError> {
        let circuit = circuit_name(circuit)?;
        with_timeout(self.timeout(), async {
            let mut session = self.session().await?;
            session.register(std::slice::from_ref(&circuit)).await
        })
        .await
    }

    /// Deletes `circuit` with its history, and returns whether it existed.
    ///
    /// It is meant for a circuit that no process shares any more. A process that still does
    /// registers it again, as after a loss of history. The role needs the DELETE privilege.
    ///
    /// # Errors
    ///
    /// See [`Admin`].
    pub async fn forget(&self, circuit: &str) -> Result<bool, StoreError> {
        let circuit = circuit_name(circuit)?;
        let forget = Statement::new(self.connector.statements.forget.clone())
            .bind(&*self.connector.namespace)
            .bind(circuit.as_str());
        let rows = self.query(forget).await?;
        let forgotten = rows.first().map(|row| row.try_get("forgotten"));
        let forgotten = forgotten.transpose();
        Ok(forgotten.map_err(|error| self.connector.failed(error))? == Some(true))
    }

    /// Runs one statement of an operator on a separate connection.
    pub(crate) async fn query(&self, statement: Statement) -> Result<Vec<PgRow>, StoreError> {
        with_timeout(self.timeout(), async {
            let limits = self.connector.session_limits();
            let mut connection = self.connector.connect(limits).await?;
            let rows = statement
                .fetch_all(self.connector.protocol, &mut connection)
                .await
                .map_err(|error| self.connector.failed(error))?;
            // The statement is complete, so an error while closing is irrelevant.
            let _ = connection.close().await;
            Ok(rows)
        })
        .await
    }

    pub(crate) const fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    async fn command(
        &self,
        circuit: &str,
        action: FleetAction,
        author: &str,
        reason: &str,
    ) -> Result<CircuitView, StoreError> {
        let name = circuit_name(circuit)?;
        let command = FleetCommand::new(name, action, OperationId::random(), author, reason);
        let mut session = with_timeout(self.timeout(), self.session()).await?;
        if let Some(reason) = session.read_only_reason() {
            let error = format!("the server is read-only: {reason}; nothing was changed");
            return Err(StoreError::unavailable(error));
        }
        // The limit starts after the session's, which the store compares: a command that is
        // reported as failed is not applied later.
        let limit = self.connector.command_timeout();
        let result = with_timeout(limit, session.command(&command)).await;
        match result.map_err(|error| unknown_result(error, circuit))? {
            TransitionResult::Applied(view) => Ok(view),
            _ => Err(StoreError::invalid_argument(format!(
                "namespace {:?} has no circuit {circuit:?}; `status` lists them",
                self.connector.namespace
            ))),
        }
    }

    async fn session(&self) -> Result<PostgresSession, StoreError> {
        PostgresSession::open_for_operator(Arc::clone(&self.connector)).await
    }

    fn timeout(&self) -> Duration {
        self.connector.settings.connect_timeout + self.connector.settings.operation_timeout * 2
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("namespace", &self.connector.namespace)
            .finish_non_exhaustive()
    }
}

/// Adds how to find out whether a command was applied.
fn unknown_result(error: StoreError, circuit: &str) -> StoreError {
    match error {
        StoreError::Unavailable { message, source } => StoreError::Unavailable {
            message: format!(
                "{message}; it is unknown whether the command was applied to {circuit:?}, and it \
                 will not be applied from now on: read the circuit's history"
            )
            .into(),
            source,
        },
        error => error,
    }
}

fn circuit_name(circuit: &str) -> Result<BulkheadName, StoreError> {
    BulkheadName::new(circuit).map_err(|error| StoreError::invalid_argument(error.to_string()))
}
