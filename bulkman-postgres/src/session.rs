//! A session: one connection that listens and runs the statements.
//!
//! The server limits each statement, and a session ends the backends of its predecessors that were
//! dropped in the middle of one. So a process has at most two connections, whatever blocks it.

mod bindings;
mod notifications;
mod process_reports;

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    BucketedWindow, CircuitView, CountsDelta, Fingerprint, FleetAction, FleetCommand, FleetCounts,
    FleetState, HistoryEntry, ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult,
    ProcessStatus, RejectReason, Revision, Snapshot, StoreEvent, StoreFuture, StoreSession,
    StoreTime, StoreTransition, StoreVote, TransitionResult, VoteResult,
};
use sqlx::Row;
use sqlx::postgres::{PgDatabaseError, PgRow, PgSeverity};

use self::bindings::{
    bind_leases, bind_opening, bind_requests, bind_results, bind_status, bind_transitions, text,
};
use self::notifications::{MAX_PER_POLL, yield_now};
use self::process_reports::ProcessReports;
use crate::connector::{Backend, Connector};
use crate::error::in_operation;
use crate::handshake::Handshake;
use crate::inbox::NotificationInbox;
use crate::link::{LARGE_RESPONSE, Link, RESPONSE, ResponseSize};
use crate::migration_mode::MigrationMode;
use crate::notification::NotificationVerifier;
use crate::read_only::{REJECTED_CHANGE, ReadOnly};
use crate::rows;
use crate::statement::{Protocol, Statement};
use crate::statements::Query;

pub(crate) struct PostgresSession {
    connector: Arc<Connector>,
    link: Link,
    /// The backend of this session; `None` if it may serve other clients.
    backend: Option<Backend>,
    verifier: NotificationVerifier,
    incarnation: u64,
    /// When an operator's command has been reported as failed, by the store's clock.
    commands_not_after: Option<StoreTime>,
    inbox: NotificationInbox,
    is_listening: bool,
    /// Why the server rejects changes, as of the last statement.
    read_only: Option<ReadOnly>,
    process_reports: ProcessReports,
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
        let listens = connector.listens();
        let (mut session, handshake) = Self::connect(connector, listens).await?;
        if listens {
            // A standby can't listen.
            if !session.connector.is_flooded() && session.read_only != Some(ReadOnly::Standby) {
                session.listen_to_channel().await?;
            }
            if handshake.may_read_key {
                session.read_notification_key().await?;
            }
        }
        if session.read_only.is_none() {
            session.register_circuits(circuits).await?;
            session.prepare_statements(circuits).await?;
        }
        Ok(session)
    }

    /// Opens a session for a command or a query of an operator.
    pub(crate) async fn open_for_operator(connector: Arc<Connector>) -> Result<Self, StoreError> {
        if connector.migration_mode == MigrationMode::Apply {
            crate::migrate::ensure(&connector).await?;
        }
        let limit = connector.command_timeout();
        let (mut session, handshake) = Self::connect(connector, false).await?;
        let not_after = StoreTime(handshake.now_us).saturating_add(limit);
        session.commands_not_after = Some(not_after);
        Ok(session)
    }

    async fn connect(
        connector: Arc<Connector>,
        listens: bool,
    ) -> Result<(Self, Handshake), StoreError> {
        let (link, handshake) = Link::open(&connector, listens).await?;
        connector.close_unknown().await;
        let session = Self {
            inbox: NotificationInbox::new(handshake.now_us),
            connector,
            link,
            backend: handshake.backend,
            verifier: NotificationVerifier::new(
                handshake.channel.clone(),
                None,
                handshake.incarnation,
            ),
            incarnation: handshake.incarnation,
            commands_not_after: None,
            is_listening: false,
            read_only: handshake.read_only,
            process_reports: ProcessReports::new(handshake.may_report),
            state: State::Ready,
        };
        Ok((session, handshake))
    }

    async fn listen_to_channel(&mut self) -> Result<(), StoreError> {
        self.state = State::Busy;
        let listened = self.link.listen(self.verifier.channel()).await;
        listened.map_err(|error| self.failed(error))?;
        self.state = State::Ready;
        self.is_listening = true;
        Ok(())
    }

    async fn read_notification_key(&mut self) -> Result<(), StoreError> {
        let statement = self.connector.statements.notification_key.clone();
        let rows = self
            .fetch(Statement::new(statement), Protocol::Simple, RESPONSE)
            .await?;
        let key: Option<String> = rows
            .first()
            .map(|row| row.try_get("inner_key"))
            .transpose()
            .map_err(|error| self.failed(error))?;
        self.verifier.set_key(key.as_deref());
        Ok(())
    }

    async fn register_circuits(&mut self, circuits: &[BulkheadName]) -> Result<(), StoreError> {
        if circuits.is_empty() {
            // A session that only reads needs no write privilege.
            return Ok(());
        }
        let statement = self.connector.statements.register.clone();
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
        statement: Query,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.run_expecting(RESPONSE, statement, bind).await
    }

    async fn run_expecting(
        &mut self,
        response: ResponseSize,
        statement: Query,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, StoreError> {
        if self.state == State::Busy {
            return Err(StoreError::unavailable(
                "an operation of this session was dropped before it completed",
            ));
        }
        let namespace = self.connector.namespace.to_string();
        let name = statement.name;
        let statement = bind(Statement::new(statement).bind(namespace));
        // Notifications that arrive before the response are buffered without a bound.
        self.receive_arrived().await?;
        let rows = self
            .fetch(statement, self.connector.protocol, response)
            .await;
        rows.map_err(|error| in_operation(name, error))
    }

    async fn fetch(
        &mut self,
        statement: Statement,
        protocol: Protocol,
        response: ResponseSize,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.state = State::Busy;
        let rows = match self.link.fetch_all(statement, protocol, response).await {
            Ok(Some(rows)) => rows,
            Ok(None) => return Err(self.flooded()),
            Err(error) => {
                // The server has ended the statement, and the connection continues.
                if is_statement_error(&error) {
                    self.state = State::Ready;
                }
                if has_code(&error, REJECTED_CHANGE) {
                    self.read_only.get_or_insert(ReadOnly::Setting);
                }
                return Err(self.failed(error));
            }
        };
        self.state = State::Ready;
        Ok(rows)
    }

    /// Decodes a snapshot, and adopts whether the server accepts changes.
    async fn read_snapshot(&mut self, rows: &[PgRow]) -> Result<Snapshot, StoreError> {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound);
        let read_only = first.and_then(ReadOnly::of);
        let read_only = read_only.map_err(|error| self.failed(error))?;
        self.update_access(read_only).await?;
        let mut decode = || -> sqlx::Result<Snapshot> {
            let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let now = StoreTime(first.try_get("now_us")?);
            self.inbox.advance(now.0);
            let Some(revision) = first.try_get("namespace_rev")? else {
                // The namespace was deleted with all its circuits.
                return Ok(Snapshot::new(
                    Revision(0),
                    0,
                    Fingerprint(0),
                    now,
                    Vec::new(),
                ));
            };
            let revision = Revision(rows::unsigned(revision));
            let fingerprint = Fingerprint(first.try_get::<i64, _>("fingerprint")?.cast_unsigned());
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
    }

    /// Adopts whether the server accepts changes, from a snapshot.
    async fn update_access(&mut self, read_only: Option<ReadOnly>) -> Result<(), StoreError> {
        self.read_only = read_only;
        // A pooler may pass the setting on to other clients.
        if read_only == Some(ReadOnly::Setting) && self.backend.is_some() {
            let statement = self.connector.statements.lift_read_only.clone();
            if !self.run(statement, |statement| statement).await?.is_empty() {
                self.read_only = None;
            }
        }
        Ok(())
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        self.connector.failed(error)
    }

    /// Decodes leases by the names of their circuits.
    fn leases(&self, rows: &[PgRow]) -> Result<BTreeMap<String, ProbeLease>, StoreError> {
        let decode = |row: &PgRow| -> sqlx::Result<(String, ProbeLease)> {
            let slot: i16 = row.try_get("slot")?;
            let token = rows::unsigned(row.try_get("token")?);
            Ok((
                row.try_get("name")?,
                ProbeLease::new(slot.unsigned_abs(), token),
            ))
        };
        let leases: sqlx::Result<_> = rows.iter().map(decode).collect();
        leases.map_err(|error| self.failed(error))
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
            let statement = self.connector.statements.snapshot.clone();
            let since_revision = since.map(|revision| rows::to_signed(revision.0));
            let rows = self
                .run_expecting(snapshot_size(since), statement, |statement| {
                    statement.bind(since_revision)
                })
                .await?;
            self.read_snapshot(&rows).await
        })
    }

    fn resync<'a>(
        &'a mut self,
        since: Option<Revision>,
        status: &'a ProcessStatus,
    ) -> StoreFuture<'a, Snapshot> {
        Box::pin(async move {
            if !self.process_reports.are_due(self.read_only.is_some()) {
                return self.snapshot(since).await;
            }
            let statement = self.connector.statements.resync.clone();
            let rows = self
                .run_expecting(snapshot_size(since), statement, |statement| {
                    bind_status(statement, since, status)
                })
                .await;
            match rows {
                Ok(rows) => {
                    let stored = self.process_reports.stored(&rows);
                    stored.map_err(|error| self.failed(error))?;
                    self.read_snapshot(&rows).await
                }
                // What keeps the status from being stored need not keep this process from reading.
                Err(_) if self.is_usable() => {
                    self.process_reports.rejected();
                    self.snapshot(since).await
                }
                Err(error) => Err(error),
            }
        })
    }

    fn live_processes(&self) -> Option<u32> {
        self.process_reports.live_processes()
    }

    fn withdraw<'a>(&'a mut self, status: &'a ProcessStatus) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if !self.process_reports.are_allowed() || self.read_only.is_some() {
                return Ok(());
            }
            let statement = self.connector.statements.withdraw.clone();
            self.run(statement, |statement| {
                statement
                    .bind(text(&status.instance))
                    .bind(status.id.cast_signed())
            })
            .await?;
            Ok(())
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
            let statement = self.connector.statements.transitions.clone();
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
            let statement = self.connector.statements.vote.clone();
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
            let statement = self.connector.statements.command.clone();
            let not_after = self.commands_not_after.map(|at| at.0);
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
                        .bind(not_after)
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
            let leases = self.acquire_probes(std::slice::from_ref(request)).await?;
            Ok(leases.into_iter().next().flatten())
        })
    }

    fn acquire_probes<'a>(
        &'a mut self,
        requests: &'a [ProbeRequest],
    ) -> StoreFuture<'a, Vec<Option<ProbeLease>>> {
        Box::pin(async move {
            let statement = self.connector.statements.acquire_probes.clone();
            let rows = self
                .run(statement, |statement| bind_requests(statement, requests))
                .await?;
            let mut leases = self.leases(&rows)?;
            let lease_of = |request: &ProbeRequest| leases.remove(request.circuit.as_str());
            Ok(requests.iter().map(lease_of).collect())
        })
    }

    fn renew_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        Box::pin(async move {
            let leases = self.renew_probes(&[(request.clone(), lease)]).await?;
            Ok(leases.into_iter().next().flatten())
        })
    }

    fn renew_probes<'a>(
        &'a mut self,
        held: &'a [(ProbeRequest, ProbeLease)],
    ) -> StoreFuture<'a, Vec<Option<ProbeLease>>> {
        Box::pin(async move {
            let statement = self.connector.statements.renew_probes.clone();
            let rows = self
                .run(statement, |statement| bind_leases(statement, held))
                .await?;
            let renewed = self.leases(&rows)?;
            let is_renewed = |(request, lease): &(ProbeRequest, ProbeLease)| {
                (renewed.get(request.circuit.as_str()) == Some(lease)).then_some(*lease)
            };
            Ok(held.iter().map(is_renewed).collect())
        })
    }

    fn report_probe<'a>(
        &'a mut self,
        result: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult> {
        Box::pin(async move {
            let reports = self.report_probes(std::slice::from_ref(result)).await?;
            let lost = ProbeReportResult::Lost { current: None };
            Ok(reports.into_iter().next().unwrap_or(lost))
        })
    }

    fn report_probes<'a>(
        &'a mut self,
        results: &'a [ProbeResult],
    ) -> StoreFuture<'a, Vec<ProbeReportResult>> {
        Box::pin(async move {
            let statement = self.connector.statements.report_probes.clone();
            let rows = self
                .run(statement, |statement| bind_results(statement, results))
                .await?;
            let decode = |row: &PgRow| -> sqlx::Result<_> {
                let current = rows::required_view(row)?;
                let name = current.circuit.clone();
                Ok(match row.try_get("result")? {
                    "decided" => (name, ProbeReportResult::Decided(current)),
                    "counted" => {
                        let slot: i16 = row.try_get("slot")?;
                        let token = rows::unsigned(row.try_get("token")?);
                        let lease = ProbeLease::new(slot.unsigned_abs(), token);
                        (name, ProbeReportResult::Counted { lease, current })
                    }
                    _ => {
                        let current = Some(current);
                        (name, ProbeReportResult::Lost { current })
                    }
                })
            };
            let reports: sqlx::Result<BTreeMap<_, _>> = rows.iter().map(decode).collect();
            let mut reports = reports.map_err(|error| self.failed(error))?;
            let report_of = |result: &ProbeResult| {
                let lost = ProbeReportResult::Lost { current: None };
                reports.remove(&result.request.circuit).unwrap_or(lost)
            };
            Ok(results.iter().map(report_of).collect())
        })
    }

    fn release_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
        lease: ProbeLease,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.release_probes(&[(request.clone(), lease)]).await })
    }

    fn release_probes<'a>(
        &'a mut self,
        held: &'a [(ProbeRequest, ProbeLease)],
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            if held.is_empty() {
                return Ok(());
            }
            let statement = self.connector.statements.release_probes.clone();
            self.run(statement, |statement| bind_leases(statement, held))
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
            let statement = self.connector.statements.add_counts.clone();
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
            let statement = self.connector.statements.history.clone();
            let rows = self
                .run_expecting(LARGE_RESPONSE, statement, |statement| {
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
            let mut received = 0;
            loop {
                if let Some(event) = self.inbox.pop() {
                    return Ok(event);
                }
                let Link::Listener(listener) = &mut self.link else {
                    return std::future::pending().await;
                };
                let notification = listener.try_recv().await;
                if let Some(event) = self.accept(notification)? {
                    return Ok(event);
                }
                received += 1;
                if received % MAX_PER_POLL == 0 {
                    yield_now().await;
                }
            }
        })
    }

    fn is_usable(&self) -> bool {
        self.state == State::Ready
    }

    fn read_only_reason(&self) -> Option<&str> {
        self.read_only.map(ReadOnly::reason)
    }

    fn is_listening(&self) -> bool {
        self.is_listening || !self.connector.listens()
    }

    fn listen(&mut self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            if self.is_listening() || self.read_only == Some(ReadOnly::Standby) {
                return Ok(());
            }
            self.listen_to_channel().await?;
            if self.connector.is_flooded() {
                self.connector.set_flooded(false);
                self.inbox.expect_burst();
            }
            Ok(())
        })
    }
}

/// A statement that was abandoned may still run, and hold the connection on the server.
impl Drop for PostgresSession {
    fn drop(&mut self) {
        if self.state == State::Busy {
            self.connector.abandon(self.backend, self.link.take());
        }
    }
}

/// Returns the size of the response to a read of the changes since a revision.
const fn snapshot_size(since: Option<Revision>) -> ResponseSize {
    match since {
        Some(_) => RESPONSE,
        None => LARGE_RESPONSE,
    }
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some(code))
}

/// Returns whether the server rejected a statement, and not the connection.
fn is_statement_error(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        let error = error.try_downcast_ref::<PgDatabaseError>();
        error.is_some_and(|error| error.severity() == PgSeverity::Error)
    })
}
