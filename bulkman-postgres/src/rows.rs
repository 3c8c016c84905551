//! Decoding of rows into the types of a store.

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitView, Epoch, FleetCounts, FleetState, HistoryEntry, OperationId, ProbePolicy,
    RejectReason, Revision,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::probe_policy::ProbePolicyColumns;

/// Decodes the columns of `fragment_view.sql`; `None` for a row without a circuit or with a name
/// that this library does not accept.
pub(crate) fn view(row: &PgRow) -> sqlx::Result<Option<CircuitView>> {
    let name: Option<&str> = row.try_get("name")?;
    let Some(name) = name.and_then(|name| BulkheadName::new(name).ok()) else {
        return Ok(None);
    };
    let mut view = CircuitView::new(name);
    view.state = state(row.try_get("state")?)?;
    view.epoch = Epoch(unsigned(row.try_get("epoch")?));
    view.revision = Revision(unsigned(row.try_get("rev")?));
    view.open_count = row.try_get::<i32, _>("open_count")?.unsigned_abs();
    view.open_for = micros(row.try_get("open_for_us")?);
    view.remaining = micros(row.try_get("remaining_us")?);
    view.age = micros(row.try_get("age_us")?);
    view.probe_policy = probe_policy(row)?;
    view.probes_succeeded = row.try_get::<i32, _>("probes_succeeded")?.unsigned_abs();
    view.probes_failed = row.try_get::<i32, _>("probes_failed")?.unsigned_abs();
    view.operation = operation(row.try_get("op_id")?);
    view.author = Arc::from(row.try_get::<&str, _>("author")?);
    view.reason = Arc::from(row.try_get::<&str, _>("reason")?);
    Ok(Some(view))
}

/// Like [`view`], for rows that always have a circuit.
pub(crate) fn required_view(row: &PgRow) -> sqlx::Result<CircuitView> {
    view(row)?.ok_or(sqlx::Error::RowNotFound)
}

pub(crate) fn history_entry(row: &PgRow) -> sqlx::Result<Option<HistoryEntry>> {
    let Ok(name) = BulkheadName::new(row.try_get::<&str, _>("name")?) else {
        return Ok(None);
    };
    let mut entry = HistoryEntry::new(
        name,
        Epoch(unsigned(row.try_get("epoch")?)),
        Revision(unsigned(row.try_get("rev")?)),
        (
            state(row.try_get("from_state")?)?,
            state(row.try_get("to_state")?)?,
        ),
        micros(row.try_get("age_us")?),
    );
    entry.open_for = micros(row.try_get("open_for_us")?);
    entry.author = Arc::from(row.try_get::<&str, _>("author")?);
    entry.reason = Arc::from(row.try_get::<&str, _>("reason")?);
    Ok(Some(entry))
}

pub(crate) fn counts(row: &PgRow) -> sqlx::Result<Option<FleetCounts>> {
    let Ok(name) = BulkheadName::new(row.try_get::<&str, _>("name")?) else {
        return Ok(None);
    };
    Ok(Some(FleetCounts::new(
        name,
        Epoch(unsigned(row.try_get("epoch")?)),
        unsigned(row.try_get("successes")?),
        unsigned(row.try_get("failures")?),
    )))
}

/// Decodes the result of a compare-and-swap: `None` if it was applied, otherwise the reason.
pub(crate) fn rejection(result: &str) -> sqlx::Result<Option<RejectReason>> {
    Ok(Some(match result {
        "applied" => return Ok(None),
        "stale" => RejectReason::Stale,
        "already_in_state" => RejectReason::AlreadyInState,
        "not_due" => RejectReason::NotDue,
        "expired" => RejectReason::Expired,
        "forced_by_operator" => RejectReason::ForcedByOperator,
        other => return Err(unexpected("result", other)),
    }))
}

/// Converts to microseconds, at most a century, since timestamps of the database are bounded.
pub(crate) fn to_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros())
        .unwrap_or(i64::MAX)
        .min(CENTURY_US)
}

/// Converts an operation id to a signed number with the same bits.
pub(crate) const fn to_bits(operation: OperationId) -> i64 {
    operation.0.cast_signed()
}

pub(crate) fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) const fn state_code(state: FleetState) -> i16 {
    match state {
        FleetState::Open => 1,
        FleetState::HalfOpen => 2,
        FleetState::ForcedOpen => 3,
        FleetState::Disabled => 4,
        _ => 0,
    }
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn state(code: i16) -> sqlx::Result<FleetState> {
    known_state(code).ok_or_else(|| unexpected("state", code))
}

pub(crate) fn known_state(code: i16) -> Option<FleetState> {
    let states = [
        FleetState::Closed,
        FleetState::Open,
        FleetState::HalfOpen,
        FleetState::ForcedOpen,
        FleetState::Disabled,
    ];
    states.into_iter().find(|state| state_code(*state) == code)
}

fn probe_policy(row: &PgRow) -> sqlx::Result<ProbePolicy> {
    Ok(ProbePolicyColumns {
        limit: row.try_get("probe_limit")?,
        success_threshold: row.try_get("probe_success_threshold")?,
        sample_size: row.try_get("probe_sample_size")?,
        failure_threshold: row.try_get("probe_failure_threshold")?,
        slow_threshold: row.try_get("probe_slow_threshold")?,
    }
    .to_policy())
}

pub(crate) fn micros(micros: i64) -> Duration {
    Duration::from_micros(unsigned(micros))
}

pub(crate) const fn operation(bits: i64) -> OperationId {
    OperationId(bits.cast_unsigned())
}

fn unexpected(column: &str, value: impl std::fmt::Display) -> sqlx::Error {
    let source = format!("{value} is not a {column} of this version").into();
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source,
    }
}

const CENTURY_US: i64 = 100 * 366 * 24 * 60 * 60 * 1_000_000;
