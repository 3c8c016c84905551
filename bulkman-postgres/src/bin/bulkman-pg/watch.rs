//! The subcommand `watch`.

use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitStore, Fingerprint, HistoryEntry, Revision, Snapshot, StoreSession,
};
use bulkman_postgres::PostgresStore;

use crate::arguments::WatchOptions;
use crate::json::Json;
use crate::report::{self, DisplayEntry, Format};
use crate::{objects, require_namespace};

/// Prints changes until the requested count; reconnects after a lost connection.
///
/// It polls: a listener would discard the error with which the server ends a connection.
pub(crate) async fn watch(
    store: &PostgresStore,
    format: Format,
    options: &WatchOptions,
) -> Result<(), StoreError> {
    let mut progress = Progress {
        format,
        position: None,
        remaining: options.count,
    };
    let mut reported = String::new();
    loop {
        let error = match follow(store, &mut progress).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_transient() || progress.position.is_none() => {
                return Err(error);
            }
            Err(error) => error,
        };
        // An outage is reported once, and not at each attempt to connect.
        let text = error.to_string();
        if text != reported {
            report::error(format, &error);
            reported = text;
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

struct Progress {
    format: Format,
    /// The position up to which changes were printed; `None` before the first connection.
    position: Option<Position>,
    remaining: Option<u32>,
}

/// A position in the history of the namespace.
#[derive(Clone, Copy)]
struct Position {
    revision: Revision,
    incarnation: u64,
    fingerprint: Fingerprint,
}

impl Position {
    fn of(snapshot: &Snapshot) -> Self {
        let Snapshot {
            revision,
            incarnation,
            fingerprint,
            ..
        } = *snapshot;
        Self {
            revision,
            incarnation,
            fingerprint,
        }
    }

    /// Returns `true` if `later` does not continue this history.
    fn is_lost_in(self, later: Self) -> bool {
        later.revision < self.revision
            || later.revision == self.revision && later.fingerprint != self.fingerprint
            // A namespace without circuits has no incarnation.
            || self.incarnation != 0 && later.incarnation != self.incarnation
    }
}

async fn follow(store: &PostgresStore, progress: &mut Progress) -> Result<(), StoreError> {
    let timeout = store.settings().operation_timeout;
    let connect_timeout = store.settings().connect_timeout + timeout;
    let mut session = with_timeout(connect_timeout, CircuitStore::open_session(store, &[])).await?;
    let mut position = match progress.position {
        Some(position) => position,
        None => print_all(store, &mut *session, progress.format).await?,
    };
    loop {
        position = print_since(store, &mut *session, position, progress).await?;
        progress.position = Some(position);
        if progress.remaining == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn print_all(
    store: &PostgresStore,
    session: &mut dyn StoreSession,
    format: Format,
) -> Result<Position, StoreError> {
    let timeout = store.settings().operation_timeout;
    let snapshot = with_timeout(timeout, session.snapshot(None)).await?;
    if snapshot.circuits.is_empty() {
        require_namespace(store).await?;
    }
    let print = || report::status(Format::Text, &snapshot.circuits);
    let json = || {
        let circuits = objects::list(&snapshot.circuits, objects::circuit);
        Json::Object(vec![("circuits", circuits)])
    };
    format.print(json, print);
    Ok(Position::of(&snapshot))
}

async fn print_since(
    store: &PostgresStore,
    session: &mut dyn StoreSession,
    position: Position,
    progress: &mut Progress,
) -> Result<Position, StoreError> {
    let timeout = store.settings().operation_timeout;
    let Progress {
        format, remaining, ..
    } = progress;
    let snapshot = with_timeout(timeout, session.snapshot(Some(position.revision))).await?;
    let now = Position::of(&snapshot);
    if position.is_lost_in(now) {
        let text = "history was lost, possibly because a backup was restored; current state:";
        let json = || Json::Object(vec![("history_lost", true.into())]);
        format.print(json, || report::line(format_args!("{text}")));
        return print_all(store, session, *format).await;
    }
    if now.revision == position.revision {
        return Ok(now);
    }
    let entries = with_timeout(timeout, session.history(None, MAX_ENTRIES)).await?;
    // Later changes are printed next time.
    let is_new = |entry: &&HistoryEntry| {
        entry.revision > position.revision && entry.revision <= now.revision
    };
    for entry in entries.iter().rev().filter(is_new) {
        if *remaining == Some(0) {
            break;
        }
        let print = || report::line(format_args!("{}", DisplayEntry(entry)));
        let json = || Json::Object(vec![("change", objects::change(entry))]);
        format.print(json, print);
        *remaining = remaining.map(|remaining| remaining - 1);
    }
    Ok(now)
}

async fn with_timeout<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let timed_out =
        |_| StoreError::unavailable(format!("the database did not answer within {timeout:?}"));
    tokio::time::timeout(timeout, operation)
        .await
        .map_err(timed_out)?
}

/// A query without a change takes 0.04 ms on the server.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The number of changes printed at once.
const MAX_ENTRIES: u32 = 10_000;
