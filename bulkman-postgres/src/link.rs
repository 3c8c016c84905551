//! The connection of a session.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::StoreError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::{Acquire, AssertSqlSafe, Executor};

use crate::connector::{Connector, connect, session_token};
use crate::handshake::{Handshake, handshake};
use crate::statement::{Protocol, Statement};

/// The connection of a session.
pub(crate) enum Link {
    /// For statements only. Dropping it closes the socket.
    Plain(PgConnection),
    /// For statements and notifications.
    ///
    /// Dropping it starts a task that waits for the server.
    Listener(PgListener),
    /// Taken by [`take`](Link::take).
    Taken,
}

impl Link {
    /// Connects, and runs the first statements.
    ///
    /// A dropped future closes the socket at once.
    pub(crate) async fn open(
        connector: &Arc<Connector>,
        listens: bool,
    ) -> Result<(Self, Handshake), StoreError> {
        let limits = connector.session_limits();
        let token = session_token();
        if !listens {
            let mut connection = connector.connect_by(limits, &token, connect).await?;
            let handshake = handshake(connector, &token, &mut connection).await?;
            return Ok((Self::Plain(connection), handshake));
        }
        let outcome = Arc::new(Mutex::new(None));
        let listen = |options: PgConnectOptions| -> BoxFuture<'static, _> {
            let pool = pool(connector, &token, &outcome).connect_lazy_with(options);
            Box::pin(async move {
                match PgListener::connect_with(&pool).await {
                    Ok(listener) => Ok(Some(listener)),
                    Err(sqlx::Error::PoolTimedOut) => Ok(None),
                    Err(error) => Err(error),
                }
            })
        };
        let Some(mut listener) = connector.connect_by(limits, &token, listen).await? else {
            return Err(connector.rejection(limits).await);
        };
        listener.ignore_pool_close_event(true);
        // Reconnecting would hide lost notifications.
        listener.eager_reconnect(false);
        let outcome = outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let handshake = outcome
            .unwrap_or_else(|| Err(StoreError::unavailable("the connection was not set up")))?;
        Ok((Self::Listener(listener), handshake))
    }

    /// Runs a statement; `None` if more arrives than its response.
    ///
    /// sqlx buffers notifications that arrive before the response, without a bound. One poll reads
    /// on while the socket is readable, so this ends a slow flood only: a fast one has to be over,
    /// or detected, before a statement.
    pub(crate) async fn fetch_all(
        &mut self,
        statement: Statement,
        protocol: Protocol,
        response: ResponseSize,
    ) -> sqlx::Result<Option<Vec<PgRow>>> {
        let listener = match self {
            Self::Plain(connection) => {
                return statement.fetch_all(protocol, connection).await.map(Some);
            }
            Self::Listener(listener) => listener,
            Self::Taken => return Err(sqlx::Error::WorkerCrashed),
        };
        let mut rows = pin!(statement.fetch_all(protocol, listener));
        let mut polls = 0;
        poll_fn(|cx| {
            if let Poll::Ready(rows) = rows.as_mut().poll(cx) {
                return Poll::Ready(rows.map(Some));
            }
            polls += 1;
            if polls > response.polls {
                return Poll::Ready(Ok(None));
            }
            Poll::Pending
        })
        .await
    }

    /// Takes the connection out of a session that is dropped.
    pub(crate) const fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Taken)
    }

    /// Closes the socket at once. Dropping a listener waits for its server, so it gets the
    /// connection `spare`, whose server responds.
    pub(crate) async fn close_with(self, mut spare: PgConnection) {
        if let Self::Listener(mut listener) = self
            && let Ok(stuck) = Acquire::acquire(&mut listener).await
        {
            std::mem::swap(stuck, &mut spare);
        }
    }

    /// Drops the connection. Without a runtime, a listener can't be closed and is leaked.
    pub(crate) fn discard(self) {
        #[cfg(not(feature = "smol"))]
        if matches!(self, Self::Listener(_)) && tokio_is_missing() {
            std::mem::forget(self);
        }
    }

    /// Listens on `channel`. A connection for statements only does nothing.
    pub(crate) async fn listen(&mut self, channel: &str) -> sqlx::Result<()> {
        if let Self::Listener(listener) = self {
            let listen = format!("LISTEN \"{}\"", channel.replace('"', "\"\""));
            let listen = sqlx::raw_sql(AssertSqlSafe(listen));
            listener.execute(listen).await?;
        }
        Ok(())
    }
}

#[cfg(not(feature = "smol"))]
fn tokio_is_missing() -> bool {
    #[cfg(feature = "tokio")]
    return tokio::runtime::Handle::try_current().is_err();
    #[cfg(not(feature = "tokio"))]
    true
}

/// The size of a response, by how often it is polled. Each poll reads at least one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseSize {
    polls: u32,
}

pub(crate) const RESPONSE: ResponseSize = ResponseSize { polls: 2_000 };

/// For the whole namespace: 10,000 circuits are 2 MB.
pub(crate) const LARGE_RESPONSE: ResponseSize = ResponseSize { polls: 100_000 };

/// Creates the pool that a listener requires.
///
/// It holds a single connection, which is never closed, tested or replaced. The first statements
/// run before the listener exists, so that a future dropped meanwhile leaves no task behind.
fn pool(
    connector: &Arc<Connector>,
    token: &str,
    outcome: &Arc<Mutex<Option<Result<Handshake, StoreError>>>>,
) -> PgPoolOptions {
    let timeout = connector.settings.connect_timeout + connector.settings.operation_timeout;
    let (connector, token, outcome) = (
        // The connector may keep a connection of this pool.
        Arc::downgrade(connector),
        Arc::<str>::from(token),
        Arc::clone(outcome),
    );
    PgPoolOptions::new()
        .max_connections(1)
        .min_connections(0)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // For the connection, and for the first statements.
        .acquire_timeout(timeout)
        .after_connect(move |connection, _| {
            let (connector, token, outcome) = (
                connector.upgrade(),
                Arc::clone(&token),
                Arc::clone(&outcome),
            );
            Box::pin(async move {
                let Some(connector) = connector else {
                    return Err(sqlx::Error::PoolClosed);
                };
                let handshake = handshake(&connector, &token, connection).await;
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(handshake);
                // The pool would retry after an error.
                Ok(())
            })
        })
}
