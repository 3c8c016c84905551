//! A session: one connection that listens and runs the statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    BucketedWindow, CircuitView, CountsDelta, Fingerprint, FleetAction, FleetCommand, FleetCounts,
    FleetState, HistoryEntry, ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult,
    RejectReason, Revision, Snapshot, StoreChange, StoreEvent, StoreFuture, StoreSession,
    StoreTime, StoreTransition, StoreVote, TransitionResult, VoteResult, truncate_text,
};
use sqlx::Row;
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};

use crate::connector::Connector;
use crate::error::translate;
use crate::migration_mode::MigrationMode;
use crate::notification::NotificationVerifier;
use crate::probe_policy::ProbePolicyColumns;
use crate::rows;
use crate::statement::{Protocol, Statement};

pub(crate) struct PostgresSession {
    connector: Arc<Connector>,
    listener: PgListener,
    verifier: NotificationVerifier,
    incarnation: u64,
    state: State,
}

/// Whether a statement is in progress.
///
/// A dropped statement leaves its response on the connection, where the next one would receive it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Busy,
}

impl PostgresSession {
    /// Connects, checks the server and the schema, and listens.
    pub(crate) async fn open(
        connector: Arc<Connector>,
        circuits: &[BulkheadName],
    ) -> Result<Self, StoreError> {
        if connector.migration_mode == MigrationMode::Apply {
            crate::migrate::ensure(&connector).await?;
        }
        let failed = |error| translate(&connector.schema, error);
        // A listener requires a pool. This one holds a single connection, which is never closed,
        // tested or replaced.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .min_connections(0)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(connector.settings.connect_timeout)
            .connect_lazy_with(connector.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.ignore_pool_close_event(true);
        // Reconnecting would hide lost notifications.
        listener.eager_reconnect(false);

        let handshake =
            Statement::new(Arc::clone(&connector.statements.handshake)).bind(&*connector.namespace);
        let handshake = handshake
            .fetch_all(connector.protocol, &mut listener)
            .await
            .map_err(failed)?;
        let handshake = handshake
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .map_err(failed)?;
        let (channel, incarnation) = check_server(&connector, handshake)?;
        let mut key = None;
        if connector.listens() {
            listener.listen(&channel).await.map_err(failed)?;
            if handshake.try_get("may_read_key").map_err(failed)? {
                let rows = Statement::new(Arc::clone(&connector.statements.notification_key));
                let rows = rows
                    .fetch_all(connector.protocol, &mut listener)
                    .await
                    .map_err(failed)?;
                key = rows
                    .first()
                    .map(|row| row.try_get("inner_key"))
                    .transpose()
                    .map_err(failed)?;
            }
        }
        let verifier = NotificationVerifier::new(channel, key, incarnation);
        let mut session = Self {
            connector,
            listener,
            verifier,
            incarnation,
            state: State::Ready,
        };
        session.register_circuits(circuits).await?;
        session.prepare_statements(circuits).await?;
        Ok(session)
    }

    async fn register_circuits(&mut self, circuits: &[BulkheadName]) -> Result<(), StoreError> {
        if circuits.is_empty() {
            // A session that only reads needs no write privilege.
            return Ok(());
        }
        let statement = Arc::clone(&self.connector.statements.register);
        let names: Vec<&str> = circuits.iter().map(BulkheadName::as_str).collect();
        self.run(statement, |statement| statement.bind(names))
            .await?;
        Ok(())
    }

    /// Prepares the statement for transitions in advance, by running it without any.
    ///
    /// Preparing takes longer than running it, and would delay the first opening for the whole
    /// fleet.
    async fn prepare_statements(&mut self, circuits: &[BulkheadName]) -> Result<(), StoreError> {
        if self.connector.protocol == Protocol::Prepared && !circuits.is_empty() {
            self.transitions(&[]).await?;
        }
        Ok(())
    }

    /// Runs one statement as a separate transaction, with the namespace as its first argument.
    async fn run(
        &mut self,
        statement: Arc<str>,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, StoreError> {
        if self.state == State::Busy {
            return Err(StoreError::unavailable(
                "an operation of this session was dropped before it completed",
            ));
        }
        let namespace = self.connector.namespace.to_string();
        let statement = bind(Statement::new(statement).bind(namespace));
        self.state = State::Busy;
        let rows = statement
            .fetch_all(self.connector.protocol, &mut self.listener)
            .await;
        let rows = rows.map_err(|error| self.failed(error))?;
        self.state = State::Ready;
        Ok(rows)
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        translate(&self.connector.schema, error)
    }

    /// Decodes the result of a compare-and-swap.
    fn cas_result(&self, rows: &[PgRow]) -> Result<CasResult, StoreError> {
        let Some(row) = rows.first() else {
            return Ok(CasResult::UnknownCircuit);
        };
        let decode = || -> sqlx::Result<_> {
            let view = rows::required_view(row)?;
            Ok(match row.try_get("result")? {
                // Only a vote below the quorum is accepted without being applied.
                "accepted" => CasResult::Counted(rows::unsigned(row.try_get("votes")?)),
                result => match rows::rejection(result)? {
                    None => CasResult::Applied(view),
                    Some(reason) => CasResult::Rejected(reason, view),
                },
            })
        };
        decode().map_err(|error| self.failed(error))
    }
}

/// The result of a compare-and-swap or a vote.
enum CasResult {
    Applied(CircuitView),
    /// A vote was counted, with this number in total.
    Counted(u64),
    Rejected(RejectReason, CircuitView),
    UnknownCircuit,
}

impl StoreSession for PostgresSession {
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()> {
        Box::pin(self.register_circuits(circuits))
    }

    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.snapshot);
            let since = since.map(|revision| rows::to_signed(revision.0));
            let rows = self
                .run(statement, |statement| statement.bind(since))
                .await?;
            let decode = || -> sqlx::Result<Snapshot> {
                let Some(first) = rows.first() else {
                    // The namespace was deleted with all its circuits.
                    return Ok(Snapshot::new(
                        Revision(0),
                        0,
                        Fingerprint(0),
                        StoreTime(0),
                        Vec::new(),
                    ));
                };
                let revision = Revision(rows::unsigned(first.try_get("namespace_rev")?));
                let now = StoreTime(first.try_get("now_us")?);
                let fingerprint =
                    Fingerprint(first.try_get::<i64, _>("fingerprint")?.cast_unsigned());
                let views = rows.iter().filter_map(|row| rows::view(row).transpose());
                let views = views.collect::<Result<_, _>>()?;
                Ok(Snapshot::new(
                    revision,
                    self.incarnation,
                    fingerprint,
                    now,
                    views,
                ))
            };
            decode().map_err(|error| self.failed(error))
        })
    }

    fn transition<'a>(
        &'a mut self,
        transition: &'a StoreTransition,
    ) -> StoreFuture<'a, TransitionResult> {
        Box::pin(async move {
            let results = self.transitions(std::slice::from_ref(transition)).await?;
            Ok(results
                .into_iter()
                .next()
                .unwrap_or(TransitionResult::UnknownCircuit))
        })
    }

    fn transitions<'a>(
        &'a mut self,
        transitions: &'a [StoreTransition],
    ) -> StoreFuture<'a, Vec<TransitionResult>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.transitions);
            let rows = self
                .run(statement, |statement| {
                    bind_transitions(statement, transitions)
                })
                .await?;
            let mut results = BTreeMap::new();
            for row in &rows {
                let (name, result) = match self.cas_result(std::slice::from_ref(row))? {
                    CasResult::Applied(view) => {
                        (view.circuit.clone(), TransitionResult::Applied(view))
                    }
                    CasResult::Rejected(reason, current) => (
                        current.circuit.clone(),
                        TransitionResult::Rejected { reason, current },
                    ),
                    CasResult::Counted(_) | CasResult::UnknownCircuit => continue,
                };
                results.insert(name, result);
            }
            let mut result_of = |transition: &StoreTransition| results.remove(&transition.circuit);
            Ok(transitions
                .iter()
                .map(|transition| result_of(transition).unwrap_or(TransitionResult::UnknownCircuit))
                .collect())
        })
    }

    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.vote);
            let rows = self
                .run(statement, |statement| {
                    bind_opening(statement, &vote.opening)
                        .bind(vote.voter.to_string())
                        .bind(i32::from(vote.quorum))
                        .bind(rows::to_micros(vote.window))
                })
                .await?;
            Ok(match self.cas_result(&rows)? {
                CasResult::Applied(view) => VoteResult::Opened(view),
                CasResult::Counted(votes) => VoteResult::Counted {
                    votes: u32::try_from(votes).unwrap_or(u32::MAX),
                },
                CasResult::Rejected(reason, current) => VoteResult::Rejected { reason, current },
                CasResult::UnknownCircuit => VoteResult::UnknownCircuit,
            })
        })
    }

    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.command);
            let state = match command.action {
                FleetAction::ForceOpen => FleetState::ForcedOpen,
                FleetAction::Disable => FleetState::Disabled,
                FleetAction::Close | FleetAction::Reset => FleetState::Closed,
                action => {
                    let message = format!("this version does not support {}", action.as_str());
                    return Err(StoreError::invalid_argument(message));
                }
            };
            let rows = self
                .run(statement, |statement| {
                    statement
                        .bind(command.circuit.as_str())
                        .bind(rows::state_code(state))
                        .bind(command.action == FleetAction::Reset)
                        .bind(text(&command.author))
                        .bind(text(&command.reason))
                        .bind(rows::to_bits(command.operation))
                })
                .await?;
            Ok(match self.cas_result(&rows)? {
                CasResult::Applied(view) => TransitionResult::Applied(view),
                CasResult::Rejected(reason, current) => {
                    TransitionResult::Rejected { reason, current }
                }
                CasResult::Counted(_) | CasResult::UnknownCircuit => {
                    TransitionResult::UnknownCircuit
                }
            })
        })
    }

    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.acquire_probe);
            let rows = self
                .run(statement, |statement| bind_request(statement, request))
                .await?;
            let decode = |row: &PgRow| -> sqlx::Result<ProbeLease> {
                let slot: i16 = row.try_get("slot")?;
                Ok(ProbeLease::new(
                    slot.unsigned_abs(),
                    rows::unsigned(row.try_get("token")?),
                ))
            };
            rows.first()
                .map(decode)
                .transpose()
                .map_err(|error| self.failed(error))
        })
    }

    fn renew_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.renew_probe);
            let rows = self
                .run(statement, |statement| {
                    bind_lease(bind_request(statement, request), lease)
                })
                .await?;
            Ok((!rows.is_empty()).then_some(lease))
        })
    }

    fn report_probe<'a>(
        &'a mut self,
        result: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.report_probe);
            let rows = self
                .run(statement, |statement| {
                    bind_lease(bind_request(statement, &result.request), result.lease)
                        .bind(result.success)
                        .bind(result.slow)
                        .bind(rows::to_micros(result.open_for))
                        .bind(rows::to_bits(result.operation))
                        .bind(text(&result.author))
                        .bind(text(&result.reason))
                })
                .await?;
            let Some(row) = rows.first() else {
                return Ok(ProbeReportResult::Lost { current: None });
            };
            let decode = || -> sqlx::Result<ProbeReportResult> {
                let current = rows::required_view(row)?;
                Ok(match row.try_get("result")? {
                    "decided" => ProbeReportResult::Decided(current),
                    "counted" => {
                        let token = rows::unsigned(row.try_get("token")?);
                        ProbeReportResult::Counted {
                            lease: ProbeLease::new(result.lease.slot, token),
                            current,
                        }
                    }
                    _ => ProbeReportResult::Lost {
                        current: Some(current),
                    },
                })
            };
            decode().map_err(|error| self.failed(error))
        })
    }

    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.release_probe);
            self.run(statement, |statement| {
                let statement = statement
                    .bind(request.circuit.as_str())
                    .bind(rows::to_signed(request.epoch.0))
                    .bind(request.holder.to_string());
                bind_lease(statement, lease)
            })
            .await?;
            Ok(())
        })
    }

    fn add_counts<'a>(
        &'a mut self,
        window: BucketedWindow,
        deltas: &'a [CountsDelta],
    ) -> StoreFuture<'a, Vec<FleetCounts>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.add_counts);
            let names: Vec<&str> = deltas.iter().map(|delta| delta.circuit.as_str()).collect();
            let column = |of: fn(&CountsDelta) -> u64| -> Vec<i64> {
                deltas
                    .iter()
                    .map(|delta| rows::to_signed(of(delta)))
                    .collect()
            };
            let buckets = i16::try_from(window.buckets).unwrap_or(i16::MAX).max(1);
            let rows = self
                .run(statement, |statement| {
                    statement
                        .bind(names)
                        .bind(column(|delta| delta.epoch.0))
                        .bind(column(|delta| delta.successes))
                        .bind(column(|delta| delta.failures))
                        .bind(rows::to_micros(window.bucket_length()).max(1))
                        .bind(buckets)
                })
                .await?;
            let totals = rows.iter().filter_map(|row| rows::counts(row).transpose());
            totals
                .collect::<Result<_, _>>()
                .map_err(|error| self.failed(error))
        })
    }

    fn history<'a>(
        &'a mut self,
        circuit: Option<&'a BulkheadName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<HistoryEntry>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.connector.statements.history);
            let rows = self
                .run(statement, |statement| {
                    statement
                        .bind(circuit.map(BulkheadName::as_str))
                        .bind(i64::from(limit))
                })
                .await?;
            let entries = rows
                .iter()
                .filter_map(|row| rows::history_entry(row).transpose());
            entries
                .collect::<Result<_, _>>()
                .map_err(|error| self.failed(error))
        })
    }

    fn changed(&mut self) -> StoreFuture<'_, StoreEvent> {
        Box::pin(async move {
            if !self.connector.listens() {
                return std::future::pending().await;
            }
            loop {
                let notification = self
                    .listener
                    .try_recv()
                    .await
                    .map_err(|error| self.failed(error))?;
                let Some(notification) = notification else {
                    return Err(StoreError::unavailable("the connection was closed"));
                };
                if let Some(event) = self.verifier.parse(notification.payload()) {
                    return Ok(event);
                }
            }
        })
    }
}

/// Checks the server and the schema, and returns the channel and the incarnation.
fn check_server(connector: &Connector, handshake: &PgRow) -> Result<(String, u64), StoreError> {
    let failed = |error| translate(&connector.schema, error);
    let schema = &connector.schema;
    let isolation: &str = handshake.try_get("isolation").map_err(failed)?;
    if isolation != "read committed" {
        return Err(StoreError::incompatible(format!(
            "the default transaction isolation is `{isolation}` instead of `read committed`; run \
             ALTER ROLE <this role> SET default_transaction_isolation = 'read committed'"
        )));
    }
    if handshake.try_get("read_only").map_err(failed)? {
        return Err(StoreError::unavailable(
            "the server is read-only: it is a standby, or default_transaction_read_only is on",
        ));
    }
    let version: i32 = handshake.try_get("version").map_err(failed)?;
    let oldest: i32 = handshake.try_get("oldest_client").map_err(failed)?;
    if version < crate::migrate::VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" has version {version}, but version {} is required: run \
             `bulkman-pg migrate --schema {schema}`, PostgresStore::migrate() or sql/schema.sql as its owner",
            crate::migrate::VERSION
        )));
    }
    if oldest > crate::migrate::VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" has version {version}, which requires a newer version of this library"
        )));
    }
    let incarnation: i64 = handshake.try_get("incarnation").map_err(failed)?;
    Ok((
        handshake.try_get("channel").map_err(failed)?,
        incarnation.cast_unsigned(),
    ))
}

/// Binds the arguments of `transitions.sql`: one array per column.
fn bind_transitions(statement: Statement, transitions: &[StoreTransition]) -> Statement {
    let numbers =
        |of: fn(&StoreTransition) -> i64| transitions.iter().map(of).collect::<Vec<i64>>();
    let texts =
        |of: fn(&StoreTransition) -> String| transitions.iter().map(of).collect::<Vec<String>>();
    statement
        .bind(texts(|transition| transition.circuit.as_str().to_owned()))
        .bind(numbers(|transition| rows::to_signed(transition.base.0)))
        .bind(numbers(|transition| {
            rows::state_code(target(transition).0).into()
        }))
        .bind(numbers(|transition| transition.manual.into()))
        .bind(numbers(|transition| {
            transition.not_after.map_or(i64::MAX, |time| time.0)
        }))
        .bind(numbers(|transition| rows::to_micros(target(transition).1)))
        .bind(numbers(|transition| rows::to_bits(transition.operation)))
        .bind(texts(|transition| text(&transition.author)))
        .bind(texts(|transition| text(&transition.reason)))
        .bind(numbers(|transition| {
            ProbePolicyColumns::of(transition.change).limit.into()
        }))
        .bind(numbers(|transition| {
            ProbePolicyColumns::of(transition.change)
                .success_threshold
                .into()
        }))
        .bind(numbers(|transition| {
            ProbePolicyColumns::of(transition.change).sample_size.into()
        }))
        .bind(numbers(|transition| {
            ProbePolicyColumns::of(transition.change)
                .failure_threshold
                .unwrap_or(-1)
                .into()
        }))
        .bind(numbers(|transition| {
            ProbePolicyColumns::of(transition.change)
                .slow_threshold
                .unwrap_or(-1)
                .into()
        }))
}

/// Binds the arguments of `vote.sql` that describe the opening.
fn bind_opening(statement: Statement, opening: &StoreTransition) -> Statement {
    let (to, open_for) = target(opening);
    statement
        .bind(opening.circuit.as_str())
        .bind(rows::to_signed(opening.base.0))
        .bind(rows::state_code(to))
        .bind(opening.manual)
        .bind(opening.not_after.map(|time| time.0))
        .bind(rows::to_micros(open_for))
        .bind(rows::to_bits(opening.operation))
        .bind(text(&opening.author))
        .bind(text(&opening.reason))
}

/// Returns the new state, and how long it stays open.
fn target(transition: &StoreTransition) -> (FleetState, Duration) {
    match transition.change {
        StoreChange::Open { open_for } => (FleetState::Open, open_for),
        StoreChange::HalfOpen { .. } => (FleetState::HalfOpen, Duration::ZERO),
        _ => (FleetState::Closed, Duration::ZERO),
    }
}

fn bind_request(statement: Statement, request: &ProbeRequest) -> Statement {
    statement
        .bind(request.circuit.as_str())
        .bind(rows::to_signed(request.epoch.0))
        .bind(request.holder.to_string())
        .bind(rows::to_micros(request.ttl))
}

fn bind_lease(statement: Statement, lease: ProbeLease) -> Statement {
    statement
        .bind(i16::try_from(lease.slot).unwrap_or(i16::MAX))
        .bind(rows::to_signed(lease.token))
}

/// Truncates a text, and removes the one character that PostgreSQL does not accept.
fn text(text: &str) -> String {
    truncate_text(text).replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_their_columns() {
        assert_eq!(text("a\0b"), "ab");
        assert_eq!(text(&"ü".repeat(300)).len(), 200);
        assert_eq!(text(&format!("x{}", "ü".repeat(300))).len(), 199);
    }
}
