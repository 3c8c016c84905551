//! The subcommand `watch`.

use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitStore, Fingerprint, HistoryEntry, Revision, Snapshot, StoreSession,
};
use bulkman_postgres::PostgresStore;

use crate::arguments::WatchOptions;
use crate::report::{self, DisplayEntry};

/// Prints changes until the requested count; reconnects after a lost connection.
pub(crate) async fn watch(store: &PostgresStore, options: &WatchOptions) -> Result<(), StoreError> {
    let mut progress = Progress {
        position: None,
        remaining: options.count,
    };
    loop {
        let error = match follow(store, &mut progress).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_transient() || progress.position.is_none() => {
                return Err(error);
            }
            Err(error) => error,
        };
        report::error(&error);
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

struct Progress {
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
        None => print_all(&mut *session, timeout).await?,
    };
    loop {
        position = print_since(&mut *session, position, timeout, &mut progress.remaining).await?;
        progress.position = Some(position);
        if progress.remaining == Some(0) {
            return Ok(());
        }
        // Polling finds lost notifications and lost connections.
        if let Ok(event) = tokio::time::timeout(POLL_INTERVAL, session.changed()).await {
            event?;
        }
    }
}

async fn print_all(
    session: &mut dyn StoreSession,
    timeout: Duration,
) -> Result<Position, StoreError> {
    let snapshot = with_timeout(timeout, session.snapshot(None)).await?;
    report::status(&snapshot.circuits);
    Ok(Position::of(&snapshot))
}

async fn print_since(
    session: &mut dyn StoreSession,
    position: Position,
    timeout: Duration,
    remaining: &mut Option<u32>,
) -> Result<Position, StoreError> {
    let snapshot = with_timeout(timeout, session.snapshot(Some(position.revision))).await?;
    let now = Position::of(&snapshot);
    if position.is_lost_in(now) {
        report::line(format_args!(
            "history was lost, possibly because a backup was restored; current state:"
        ));
        return print_all(session, timeout).await;
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
        report::line(format_args!("{}", DisplayEntry(entry)));
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

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The number of changes printed at once.
const MAX_ENTRIES: u32 = 10_000;
