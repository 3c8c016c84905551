//! The arguments of the statements.

use std::time::Duration;

use bulkman_core::store::{
    FleetState, ProbeLease, ProbeRequest, ProbeResult, ProcessStatus, Revision, StoreChange,
    StoreTransition, truncate_text,
};

use crate::probe_policy::ProbePolicyColumns;
use crate::rows;
use crate::statement::Statement;

/// Binds the arguments of `transitions.sql`: one array per column.
pub(super) fn bind_transitions(statement: Statement, transitions: &[StoreTransition]) -> Statement {
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
pub(super) fn bind_opening(statement: Statement, opening: &StoreTransition) -> Statement {
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

/// Binds one array per column.
pub(super) fn bind_requests(statement: Statement, requests: &[ProbeRequest]) -> Statement {
    bind_columns(statement, &requests.iter().collect::<Vec<_>>())
}

/// Binds one array per column.
pub(super) fn bind_leases(statement: Statement, held: &[(ProbeRequest, ProbeLease)]) -> Statement {
    let requests: Vec<_> = held.iter().map(|(request, _)| request).collect();
    let numbers = |of: fn(&ProbeLease) -> i64| -> Vec<i64> {
        held.iter().map(|(_, lease)| of(lease)).collect()
    };
    bind_columns(statement, &requests)
        .bind(numbers(|lease| lease.slot.into()))
        .bind(numbers(|lease| rows::to_signed(lease.token)))
}

fn bind_columns(statement: Statement, requests: &[&ProbeRequest]) -> Statement {
    let texts = |of: fn(&ProbeRequest) -> &str| -> Vec<String> {
        requests
            .iter()
            .map(|request| of(request).to_owned())
            .collect()
    };
    let numbers = |of: fn(&ProbeRequest) -> i64| -> Vec<i64> {
        requests.iter().map(|request| of(request)).collect()
    };
    statement
        .bind(texts(|request| request.circuit.as_str()))
        .bind(numbers(|request| rows::to_signed(request.epoch.0)))
        .bind(texts(|request| &request.holder))
        .bind(numbers(|request| rows::to_micros(request.ttl)))
}

/// Binds the arguments of `report_probes.sql`: one array per column.
pub(super) fn bind_results(statement: Statement, results: &[ProbeResult]) -> Statement {
    let requests: Vec<_> = results.iter().map(|result| &result.request).collect();
    let numbers = |of: fn(&ProbeResult) -> i64| results.iter().map(of).collect::<Vec<i64>>();
    let texts = |of: fn(&ProbeResult) -> &str| -> Vec<String> {
        results.iter().map(|result| text(of(result))).collect()
    };
    bind_columns(statement, &requests)
        .bind(numbers(|result| result.lease.slot.into()))
        .bind(numbers(|result| rows::to_signed(result.lease.token)))
        .bind(numbers(|result| result.success.into()))
        .bind(numbers(|result| result.slow.into()))
        .bind(numbers(|result| rows::to_micros(result.open_for)))
        .bind(numbers(|result| rows::to_bits(result.operation)))
        .bind(texts(|result| &result.author))
        .bind(texts(|result| &result.reason))
}

/// Binds the arguments of `resync.sql`.
pub(super) fn bind_status(
    statement: Statement,
    since: Option<Revision>,
    status: &ProcessStatus,
) -> Statement {
    statement
        .bind(since.map(|revision| rows::to_signed(revision.0)))
        .bind(text(&status.instance))
        .bind(status.id.cast_signed())
        .bind(status.application_version.as_deref().map(text))
        .bind(status.library_version)
        .bind(status.read_only)
        .bind(i64::try_from(status.pending).unwrap_or(i64::MAX))
        .bind(status.degraded_for.map(rows::to_micros))
        .bind(rows::to_micros(status.valid_for))
}

/// Truncates a text, and removes the one character that PostgreSQL does not accept.
pub(super) fn text(text: &str) -> String {
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
