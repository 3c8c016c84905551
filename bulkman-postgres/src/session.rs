//! One connection: it listens, and runs the statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::StoreError;
use bulkman_core::store::{
    BucketedWindow, CircuitView, CountsDelta, Fingerprint, FleetAction, FleetCommand, FleetCounts,
    FleetState, HistoryEntry, ProbeLease, ProbeReportResult, ProbeRequest, ProbeResult,
    RejectReason, Revision, Snapshot, StoreChange, StoreEvent, StoreFuture, StoreSession,
    StoreTime, StoreTransition, StoreVote, TransitionResult, VoteResult,
};
use sqlx::Row;
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};

use crate::announcement::Ear;
use crate::error::translate;
use crate::plan::PlanColumns;
use crate::rows;
use crate::statement::{Protocol, Statement};
use crate::store::{Inner, MigrationMode};

pub(crate) struct PostgresSession {
    inner: Arc<Inner>,
    listener: PgListener,
    ear: Ear,
    incarnation: u64,
    state: State,
}

/// A statement that was given up midway leaves its answer on the connection, where the next one
/// would take it for its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Busy,
}

impl PostgresSession {
    /// Connects, looks whether this is a database to work with, and listens.
    pub(crate) async fn open(
        inner: Arc<Inner>,
        circuits: &[BulkheadName],
    ) -> Result<Self, StoreError> {
        if inner.migrate == MigrationMode::Apply {
            crate::migrate::ensure(&inner).await?;
        }
        let failed = |error| translate(&inner.schema, error);
        // A pool of its own, only because a listener wants one: a single connection that is never
        // reaped, tested or made anew.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .min_connections(0)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(inner.settings.connect_timeout)
            .connect_lazy_with(inner.options.clone());
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.ignore_pool_close_event(true);
        // It would hide that notifications were lost.
        listener.eager_reconnect(false);

        let greeting =
            Statement::new(Arc::clone(&inner.statements.session)).bind(&*inner.namespace);
        let greeting = greeting
            .fetch_all(inner.protocol, &mut listener)
            .await
            .map_err(failed)?;
        let greeting = greeting
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .map_err(failed)?;
        let (channel, incarnation) = inspect(&inner, greeting)?;
        let mut key = None;
        if inner.push {
            listener.listen(&channel).await.map_err(failed)?;
            if greeting.try_get("may_read_key").map_err(failed)? {
                let rows = Statement::new(Arc::clone(&inner.statements.key));
                let rows = rows
                    .fetch_all(inner.protocol, &mut listener)
                    .await
                    .map_err(failed)?;
                key = rows
                    .first()
                    .map(|row| row.try_get("inner_key"))
                    .transpose()
                    .map_err(failed)?;
            }
        }
        let ear = Ear::new(channel, key, incarnation);
        let mut session = Self {
            inner,
            listener,
            ear,
            incarnation,
            state: State::Ready,
        };
        session.register_circuits(circuits).await?;
        session.rehearse(circuits).await?;
        Ok(session)
    }

    async fn register_circuits(&mut self, circuits: &[BulkheadName]) -> Result<(), StoreError> {
        if circuits.is_empty() {
            // Who only watches need not be able to write.
            return Ok(());
        }
        let statement = Arc::clone(&self.inner.statements.register);
        let names: Vec<&str> = circuits.iter().map(BulkheadName::as_str).collect();
        self.run(statement, |statement| statement.bind(names))
            .await?;
        Ok(())
    }

    /// Has the statement that tells of an opening prepared and planned, which takes longer than to run
    /// it: the first opening is the one for which the fleet waits.
    async fn rehearse(&mut self, circuits: &[BulkheadName]) -> Result<(), StoreError> {
        if self.inner.protocol == Protocol::Prepared && !circuits.is_empty() {
            self.transitions(&[]).await?;
        }
        Ok(())
    }

    /// Runs one statement, with the namespace as its first argument, as its own transaction.
    async fn run(
        &mut self,
        statement: Arc<str>,
        bind: impl FnOnce(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, StoreError> {
        if self.state == State::Busy {
            return Err(StoreError::unavailable(
                "an operation was given up midway on this link",
            ));
        }
        let namespace = self.inner.namespace.to_string();
        let statement = bind(Statement::new(statement).bind(namespace));
        self.state = State::Busy;
        let rows = statement
            .fetch_all(self.inner.protocol, &mut self.listener)
            .await;
        let rows = rows.map_err(|error| self.failed(error))?;
        self.state = State::Ready;
        Ok(rows)
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        translate(&self.inner.schema, error)
    }

    /// What a compare-and-swap returned.
    fn swapped(&self, rows: &[PgRow]) -> Result<Swapped, StoreError> {
        let Some(row) = rows.first() else {
            return Ok(Swapped::Unknown);
        };
        let decode = || -> sqlx::Result<_> {
            let view = rows::certain_view(row)?;
            Ok(match row.try_get("verdict")? {
                // A vote that is not enough changes nothing that others see.
                "go" => Swapped::Counted(rows::unsigned(row.try_get("votes")?)),
                verdict => match rows::refusal(verdict)? {
                    None => Swapped::Made(view),
                    Some(why) => Swapped::Refused(why, view),
                },
            })
        };
        decode().map_err(|error| self.failed(error))
    }
}

enum Swapped {
    Made(CircuitView),
    Counted(u64),
    Refused(RejectReason, CircuitView),
    Unknown,
}

impl StoreSession for PostgresSession {
    fn register<'a>(&'a mut self, circuits: &'a [BulkheadName]) -> StoreFuture<'a, ()> {
        Box::pin(self.register_circuits(circuits))
    }

    fn snapshot(&mut self, since: Option<Revision>) -> StoreFuture<'_, Snapshot> {
        Box::pin(async move {
            let statement = Arc::clone(&self.inner.statements.snapshot);
            let since = since.map(|revision| rows::to_signed(revision.0));
            let found = self
                .run(statement, |statement| statement.bind(since))
                .await?;
            let decode = || -> sqlx::Result<Snapshot> {
                let Some(first) = found.first() else {
                    // The namespace is gone, and all its circuits with it.
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
                let views = found.iter().filter_map(|row| rows::view(row).transpose());
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
            let answers = self.transitions(std::slice::from_ref(transition)).await?;
            Ok(answers
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
            let statement = Arc::clone(&self.inner.statements.transitions);
            let found = self
                .run(statement, |statement| {
                    bind_transitions(statement, transitions)
                })
                .await?;
            let mut answers = BTreeMap::new();
            for row in &found {
                let (name, answer) = match self.swapped(std::slice::from_ref(row))? {
                    Swapped::Made(view) => (view.circuit.clone(), TransitionResult::Applied(view)),
                    Swapped::Refused(why, current) => (
                        current.circuit.clone(),
                        TransitionResult::Rejected { why, current },
                    ),
                    Swapped::Counted(_) | Swapped::Unknown => continue,
                };
                answers.insert(name, answer);
            }
            let mut answer = |transition: &StoreTransition| answers.remove(&transition.circuit);
            Ok(transitions
                .iter()
                .map(|it| answer(it).unwrap_or(TransitionResult::UnknownCircuit))
                .collect())
        })
    }

    fn vote<'a>(&'a mut self, vote: &'a StoreVote) -> StoreFuture<'a, VoteResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.inner.statements.vote);
            let found = self
                .run(statement, |statement| {
                    bind_opening(statement, &vote.opening)
                        .bind(vote.voter.to_string())
                        .bind(i32::from(vote.quorum))
                        .bind(rows::to_micros(vote.window))
                })
                .await?;
            Ok(match self.swapped(&found)? {
                Swapped::Made(view) => VoteResult::Opened(view),
                Swapped::Counted(votes) => VoteResult::Counted {
                    votes: u32::try_from(votes).unwrap_or(u32::MAX),
                },
                Swapped::Refused(why, current) => VoteResult::Refused { why, current },
                Swapped::Unknown => VoteResult::Unknown,
            })
        })
    }

    fn command<'a>(&'a mut self, command: &'a FleetCommand) -> StoreFuture<'a, TransitionResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.inner.statements.command);
            let state = match command.action {
                FleetAction::ForceOpen => FleetState::ForcedOpen,
                FleetAction::Disable => FleetState::Disabled,
                FleetAction::Close | FleetAction::Reset => FleetState::Closed,
                action => {
                    let message = format!("this version can't {}", action.as_str());
                    return Err(StoreError::invalid_argument(message));
                }
            };
            let found = self
                .run(statement, |statement| {
                    statement
                        .bind(command.circuit.as_str())
                        .bind(rows::state_code(state))
                        .bind(command.action == FleetAction::Reset)
                        .bind(cut(&command.by))
                        .bind(cut(&command.reason))
                        .bind(rows::to_bits(command.operation))
                })
                .await?;
            Ok(match self.swapped(&found)? {
                Swapped::Made(view) => TransitionResult::Applied(view),
                Swapped::Refused(why, current) => TransitionResult::Rejected { why, current },
                Swapped::Counted(_) | Swapped::Unknown => TransitionResult::UnknownCircuit,
            })
        })
    }

    fn acquire_probe<'a>(
        &'a mut self,
        request: &'a ProbeRequest,
    ) -> StoreFuture<'a, Option<ProbeLease>> {
        Box::pin(async move {
            let statement = Arc::clone(&self.inner.statements.acquire);
            let found = self
                .run(statement, |statement| bind_request(statement, request))
                .await?;
            let decode = |row: &PgRow| -> sqlx::Result<ProbeLease> {
                let slot: i16 = row.try_get("slot")?;
                Ok(ProbeLease::new(
                    slot.unsigned_abs(),
                    rows::unsigned(row.try_get("token")?),
                ))
            };
            found
                .first()
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
            let statement = Arc::clone(&self.inner.statements.renew);
            let found = self
                .run(statement, |statement| {
                    bind_lease(bind_request(statement, request), lease)
                })
                .await?;
            Ok((!found.is_empty()).then_some(lease))
        })
    }

    fn report_probe<'a>(
        &'a mut self,
        verdict: &'a ProbeResult,
    ) -> StoreFuture<'a, ProbeReportResult> {
        Box::pin(async move {
            let statement = Arc::clone(&self.inner.statements.verdict);
            let found = self
                .run(statement, |statement| {
                    bind_lease(bind_request(statement, &verdict.request), verdict.lease)
                        .bind(verdict.success)
                        .bind(verdict.slow)
                        .bind(rows::to_micros(verdict.wait))
                        .bind(rows::to_bits(verdict.operation))
                        .bind(cut(&verdict.by))
                        .bind(cut(&verdict.reason))
                })
                .await?;
            let Some(row) = found.first() else {
                return Ok(ProbeReportResult::Lost { current: None });
            };
            let decode = || -> sqlx::Result<ProbeReportResult> {
                let current = rows::certain_view(row)?;
                Ok(match row.try_get("verdict")? {
                    "decided" => ProbeReportResult::Decided(current),
                    "counted" => {
                        let token = rows::unsigned(row.try_get("token")?);
                        ProbeReportResult::Counted {
                            lease: ProbeLease::new(verdict.lease.slot, token),
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
            let statement = Arc::clone(&self.inner.statements.release);
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
            let statement = Arc::clone(&self.inner.statements.counts);
            let names: Vec<&str> = deltas.iter().map(|delta| delta.circuit.as_str()).collect();
            let column = |of: fn(&CountsDelta) -> u64| -> Vec<i64> {
                deltas
                    .iter()
                    .map(|delta| rows::to_signed(of(delta)))
                    .collect()
            };
            let buckets = i16::try_from(window.buckets).unwrap_or(i16::MAX).max(1);
            let found = self
                .run(statement, |statement| {
                    statement
                        .bind(names)
                        .bind(column(|delta| delta.epoch.0))
                        .bind(column(|delta| delta.successes))
                        .bind(column(|delta| delta.failures))
                        .bind(rows::to_micros(window.bucket).max(1))
                        .bind(buckets)
                })
                .await?;
            let totals = found.iter().filter_map(|row| rows::counts(row).transpose());
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
            let statement = Arc::clone(&self.inner.statements.history);
            let found = self
                .run(statement, |statement| {
                    statement
                        .bind(circuit.map(BulkheadName::as_str))
                        .bind(i64::from(limit))
                })
                .await?;
            let entries = found
                .iter()
                .filter_map(|row| rows::history_entry(row).transpose());
            entries
                .collect::<Result<_, _>>()
                .map_err(|error| self.failed(error))
        })
    }

    fn changed(&mut self) -> StoreFuture<'_, StoreEvent> {
        Box::pin(async move {
            if !self.inner.push {
                return std::future::pending().await;
            }
            loop {
                let heard = self
                    .listener
                    .try_recv()
                    .await
                    .map_err(|error| self.failed(error))?;
                let Some(heard) = heard else {
                    return Err(StoreError::unavailable("the connection was closed"));
                };
                if let Some(event) = self.ear.understand(heard.payload()) {
                    return Ok(event);
                }
            }
        })
    }
}

/// Whether this is a database to work with; its channel, and its incarnation.
fn inspect(inner: &Inner, greeting: &PgRow) -> Result<(String, u64), StoreError> {
    let failed = |error| translate(&inner.schema, error);
    let schema = &inner.schema;
    let isolation: &str = greeting.try_get("isolation").map_err(failed)?;
    if isolation != "read committed" {
        return Err(StoreError::incompatible(format!(
            "the default isolation is `{isolation}`, it must be `read committed`: \
             ALTER ROLE <this role> SET default_transaction_isolation = 'read committed'"
        )));
    }
    if greeting.try_get("read_only").map_err(failed)? {
        return Err(StoreError::unavailable(
            "the server takes no writes: it is a standby, or default_transaction_read_only is on",
        ));
    }
    let version: i32 = greeting.try_get("version").map_err(failed)?;
    let oldest: i32 = greeting.try_get("oldest_client").map_err(failed)?;
    if version < crate::migrate::VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" is at version {version}, version {} is needed: run \
             `bulkman-pg migrate --schema {schema}`, PostgresStore::migrate() or sql/schema.sql as its owner",
            crate::migrate::VERSION
        )));
    }
    if oldest > crate::migrate::VERSION {
        return Err(StoreError::incompatible(format!(
            "schema \"{schema}\" is at version {version} and needs a newer version of this library"
        )));
    }
    let incarnation: i64 = greeting.try_get("incarnation").map_err(failed)?;
    Ok((
        greeting.try_get("channel").map_err(failed)?,
        incarnation.cast_unsigned(),
    ))
}

/// Columns of `transitions.sql`, one element for each.
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
        .bind(numbers(|transition| transition.by_hand.into()))
        .bind(numbers(|transition| {
            transition.not_after.map_or(i64::MAX, |time| time.0)
        }))
        .bind(numbers(|transition| rows::to_micros(target(transition).1)))
        .bind(numbers(|transition| rows::to_bits(transition.operation)))
        .bind(texts(|transition| cut(&transition.by)))
        .bind(texts(|transition| cut(&transition.reason)))
        .bind(numbers(|transition| {
            PlanColumns::of(transition.change).limit.into()
        }))
        .bind(numbers(|transition| {
            PlanColumns::of(transition.change).need.into()
        }))
        .bind(numbers(|transition| {
            PlanColumns::of(transition.change).calls.into()
        }))
        .bind(numbers(|transition| {
            PlanColumns::of(transition.change)
                .max_failed
                .unwrap_or(-1)
                .into()
        }))
        .bind(numbers(|transition| {
            PlanColumns::of(transition.change)
                .max_slow
                .unwrap_or(-1)
                .into()
        }))
}

/// The arguments of `vote.sql` that are those of a transition.
fn bind_opening(statement: Statement, opening: &StoreTransition) -> Statement {
    let (to, wait) = target(opening);
    statement
        .bind(opening.circuit.as_str())
        .bind(rows::to_signed(opening.base.0))
        .bind(rows::state_code(to))
        .bind(opening.by_hand)
        .bind(opening.not_after.map(|time| time.0))
        .bind(rows::to_micros(wait))
        .bind(rows::to_bits(opening.operation))
        .bind(cut(&opening.by))
        .bind(cut(&opening.reason))
}

/// Where to, and for how long.
fn target(transition: &StoreTransition) -> (FleetState, Duration) {
    match transition.change {
        StoreChange::Open { wait } => (FleetState::Open, wait),
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

/// At most 200 bytes, cut between characters; without the one character that text can't have.
fn cut(text: &str) -> String {
    let end = (0..=text.len().min(200))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text[..end].replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_a_column() {
        assert_eq!(cut("a\0b"), "ab");
        assert_eq!(cut(&"ü".repeat(300)).len(), 200);
        assert_eq!(cut(&format!("x{}", "ü".repeat(300))).len(), 199);
    }
}
