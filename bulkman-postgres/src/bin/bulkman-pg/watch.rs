//! `bulkman-pg watch`.

use std::time::Duration;

use bulkman_core::StoreError;
use bulkman_core::store::{CircuitStore, Revision, StoreSession};
use bulkman_postgres::PostgresStore;

use crate::arguments::WatchOptions;
use crate::report::{self, Change};

/// Prints changes as they come, until there were enough; goes on after a lost connection.
pub(crate) async fn watch(store: &PostgresStore, options: &WatchOptions) -> Result<(), StoreError> {
    let mut watched = Watched { since: None, left: options.count };
    loop {
        let error = match follow(store, &mut watched).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_transient() || watched.since.is_none() => return Err(error),
            Err(error) => error,
        };
        report::complain(&error);
        tokio::time::sleep(PAUSE).await;
    }
}

struct Watched {
    /// Up to where changes were printed; `None` before the first connection.
    since: Option<Revision>,
    left: Option<u32>,
}

async fn follow(store: &PostgresStore, watched: &mut Watched) -> Result<(), StoreError> {
    let limit = store.settings().operation_timeout;
    let connecting = store.settings().connect_timeout + limit;
    let mut session = bounded(connecting, CircuitStore::connect(store, &[])).await?;
    let mut since = match watched.since {
        Some(since) => since,
        None => {
            let snapshot = bounded(limit, session.snapshot(None)).await?;
            report::status(&snapshot.circuits);
            snapshot.revision
        }
    };
    loop {
        since = print_since(&mut *session, since, limit, &mut watched.left).await?;
        watched.since = Some(since);
        if watched.left == Some(0) {
            return Ok(());
        }
        // A lost announcement, and a lost connection, is noticed by looking all the same.
        if let Ok(event) = tokio::time::timeout(INTERVAL, session.changed()).await {
            event?;
        }
    }
}

async fn print_since(
    session: &mut dyn StoreSession,
    since: Revision,
    limit: Duration,
    left: &mut Option<u32>,
) -> Result<Revision, StoreError> {
    let snapshot = bounded(limit, session.snapshot(Some(since))).await?;
    if snapshot.revision == since {
        return Ok(since);
    }
    let entries = bounded(limit, session.history(None, MOST)).await?;
    let news = entries.iter().rev().filter(|entry| entry.revision > since);
    let mut reached = snapshot.revision;
    for entry in news {
        if *left == Some(0) {
            break;
        }
        report::line(format_args!("{}", Change(entry)));
        reached = reached.max(entry.revision);
        *left = left.map(|left| left - 1);
    }
    Ok(reached)
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
