//! What `--json` prints: the fields are stable, and later versions only add some.

use bulkman_core::store::{CircuitView, FleetState, HistoryEntry, StoreError};
use bulkman_postgres::{Diagnostic, LeaseHolder, NamespaceSummary, ProcessSummary, sqlx};

use crate::json::Json;

pub(crate) fn circuit(view: &CircuitView) -> Json {
    let open = view.state == FleetState::Open;
    Json::Object(vec![
        ("circuit", view.circuit.as_str().into()),
        ("state", view.state.as_str().into()),
        ("age_seconds", view.age.into()),
        ("remaining_seconds", open.then_some(view.remaining).into()),
        ("epoch", view.epoch.0.into()),
        ("open_count", view.open_count.into()),
        ("probes_succeeded", view.probes_succeeded.into()),
        ("probes_failed", view.probes_failed.into()),
        ("author", Json::text_or_null(&view.author)),
        ("reason", Json::text_or_null(&view.reason)),
    ])
}

pub(crate) fn change(entry: &HistoryEntry) -> Json {
    let opened = entry.to == FleetState::Open;
    Json::Object(vec![
        ("circuit", entry.circuit.as_str().into()),
        ("from", entry.from.as_str().into()),
        ("to", entry.to.as_str().into()),
        ("age_seconds", entry.age.into()),
        ("open_for_seconds", opened.then_some(entry.open_for).into()),
        ("epoch", entry.epoch.0.into()),
        ("author", Json::text_or_null(&entry.author)),
        ("reason", Json::text_or_null(&entry.reason)),
    ])
}

pub(crate) fn namespace(summary: &NamespaceSummary) -> Json {
    Json::Object(vec![
        ("namespace", summary.namespace.as_str().into()),
        ("revision", summary.revision.0.into()),
        ("circuits", summary.circuits.into()),
        ("open", summary.open.into()),
        ("forced", summary.forced.into()),
        ("last_change_seconds", summary.last_change.into()),
    ])
}

pub(crate) fn process(process: &ProcessSummary) -> Json {
    let report = process.report.as_ref();
    let application = report.and_then(|report| report.application_version.as_deref());
    let library = report.map(|report| report.library_version.as_str());
    let degraded = report.and_then(|report| report.degraded_for);
    Json::Object(vec![
        ("instance", process.instance.as_str().into()),
        ("address", process.address.as_deref().into()),
        ("connections", process.connections.into()),
        ("connected_seconds", process.connected_for.into()),
        ("leases", process.leases.into()),
        ("application_version", application.into()),
        ("library_version", library.into()),
        ("report_age_seconds", report.map(|it| it.age).into()),
        ("read_only", report.map(|it| it.read_only).into()),
        ("pending", report.map(|it| it.pending).into()),
        ("degraded_seconds", degraded.into()),
    ])
}

pub(crate) fn lease(lease: &LeaseHolder) -> Json {
    Json::Object(vec![
        ("circuit", lease.circuit.as_str().into()),
        ("slot", lease.slot.into()),
        ("instance", lease.instance.as_str().into()),
        ("remaining_seconds", lease.remaining.into()),
    ])
}

pub(crate) fn diagnostics(diagnostics: &[Diagnostic]) -> Json {
    let diagnostic = |diagnostic: &Diagnostic| {
        Json::Object(vec![
            ("problem", diagnostic.problem.as_str().into()),
            ("fix", diagnostic.fix.as_str().into()),
        ])
    };
    Json::List(diagnostics.iter().map(diagnostic).collect())
}

pub(crate) fn list<T>(items: &[T], object: impl Fn(&T) -> Json) -> Json {
    Json::List(items.iter().map(object).collect())
}

pub(crate) fn error(error: &StoreError) -> Json {
    let (kind, message, source) = match error {
        StoreError::Unavailable { message, source } => ("unavailable", message, source),
        StoreError::Incompatible { message, source } => ("incompatible", message, source),
        StoreError::Denied { message, source } => ("denied", message, source),
        StoreError::InvalidArgument { message, source } => ("invalid_argument", message, source),
        other => return Json::Object(vec![("message", other.to_string().into())]),
    };
    let database = source
        .as_deref()
        .and_then(|source| source.downcast_ref::<sqlx::Error>())
        .and_then(sqlx::Error::as_database_error);
    let state = database.and_then(|error| error.code());
    Json::Object(vec![
        ("kind", kind.into()),
        ("message", (&**message).into()),
        ("sqlstate", state.as_deref().into()),
    ])
}
