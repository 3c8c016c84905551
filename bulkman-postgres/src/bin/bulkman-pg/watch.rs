//! `bulkman-pg watch`.

use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_core::store::{
    CircuitStore, Fingerprint, HistoryEntry, Revision, Snapshot, StoreSession,
};
use bulkman_postgres::PostgresStore;

use crate::arguments::WatchOptions;
use crate::report::{self, Change};

/// Prints changes as they come, until there were enough; goes on after a lost connection.
pub(crate) async fn watch(store: &PostgresStore, options: &WatchOptions) -> Result<(), StoreError> {
    let mut watched = Watched {
        seen: None,
        left: options.count,
    };
    loop {
        let error = match follow(store, &mut watched).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_transient() || watched.seen.is_none() => return Err(error),
            Err(error) => error,
        };
        report::complain(&error);
        tokio::time::sleep(PAUSE).await;
    }
}

struct Watched {
    /// Up to where changes were printed; `None` before the first connection.
    seen: Option<Seen>,
    left: Option<u32>,
}

/// A moment of the namespace's history.
#[derive(Clone, Copy)]
struct Seen {
    revision: Revision,
    incarnation: u64,
    fingerprint: Fingerprint,
}

impl Seen {
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

    /// Whether the history that `later` is of can't be this one's.
    fn is_lost_in(self, later: Self) -> bool {
        later.revision < self.revision
            || later.revision == self.revision && later.fingerprint != self.fingerprint
            // A namespace that is not there yet is of no incarnation.
            || self.incarnation != 0 && later.incarnation != self.incarnation
    }
}

async fn follow(store: &PostgresStore, watched: &mut Watched) -> Result<(), StoreError> {
    let limit = store.settings().operation_timeout;
    let connecting = store.settings().connect_timeout + limit;
    let mut session = bounded(connecting, CircuitStore::open_session(store, &[])).await?;
    let mut seen = match watched.seen {
        Some(seen) => seen,
        None => print_all(&mut *session, limit).await?,
    };
    loop {
        seen = print_since(&mut *session, seen, limit, &mut watched.left).await?;
        watched.seen = Some(seen);
        if watched.left == Some(0) {
            return Ok(());
        }
        // A lost announcement, and a lost connection, is noticed by looking all the same.
        if let Ok(event) = tokio::time::timeout(INTERVAL, session.changed()).await {
            event?;
        }
    }
}

async fn print_all(session: &mut dyn StoreSession, limit: Duration) -> Result<Seen, StoreError> {
    let snapshot = bounded(limit, session.snapshot(None)).await?;
    report::status(&snapshot.circuits);
    Ok(Seen::of(&snapshot))
}

async fn print_since(
    session: &mut dyn StoreSession,
    seen: Seen,
    limit: Duration,
    left: &mut Option<u32>,
) -> Result<Seen, StoreError> {
    let snapshot = bounded(limit, session.snapshot(Some(seen.revision))).await?;
    let now = Seen::of(&snapshot);
    if seen.is_lost_in(now) {
        report::line(format_args!(
            "history was lost (a backup was restored?); from now on:"
        ));
        return print_all(session, limit).await;
    }
    if now.revision == seen.revision {
        return Ok(now);
    }
    let entries = bounded(limit, session.history(None, MOST)).await?;
    // What was changed since the look is for the next one.
    let news =
        |entry: &&HistoryEntry| entry.revision > seen.revision && entry.revision <= now.revision;
    for entry in entries.iter().rev().filter(news) {
        if *left == Some(0) {
            break;
        }
        report::line(format_args!("{}", Change(entry)));
        *left = left.map(|left| left - 1);
    }
    Ok(now)
}

async fn bounded<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::unavailable(format!("the database did not answer within {limit:?}"));
    tokio::time::timeout(limit, operation).await.map_err(late)?
}

const INTERVAL: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
/// Changes that can be printed at once.
const MOST: u32 = 10_000;
