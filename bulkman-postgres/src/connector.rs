//! The configuration of a store, from which connections are opened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::{OperationId, Push, StoreError, StoreSettings};
use sqlx::Connection;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::application_name;
use crate::connect_target::Target;
use crate::error::{translate, translate_connect};
use crate::link::Link;
use crate::migration_mode::MigrationMode;
use crate::schema::Schema;
use crate::statement::Protocol;
use crate::statements::Statements;
use crate::timeout::within;

/// Everything that a session, a check, a migration or a command needs of a store.
pub(crate) struct Connector {
    pub(crate) target: Target,
    pub(crate) schema: Schema,
    pub(crate) namespace: Arc<str>,
    pub(crate) statements: Statements,
    pub(crate) settings: StoreSettings,
    pub(crate) migration_mode: MigrationMode,
    pub(crate) protocol: Protocol,
    /// `None`: the name of the URL, or the default.
    pub(crate) application_name: Option<String>,
    pub(crate) server: ServerKnowledge,
}

/// What earlier connections of this store have learned.
#[derive(Default)]
pub(crate) struct ServerKnowledge {
    /// The server rejected options at connect, as a pooler does.
    rejects_options: AtomicBool,
    /// Sessions don't listen, since there were too many notifications.
    flooded: AtomicBool,
    /// Sessions that were dropped in the middle of a statement.
    abandoned: Mutex<Vec<Abandoned>>,
}

/// A dropped session with a statement that may still run on the server.
struct Abandoned {
    /// The backend to end; `None` behind a pooler.
    backend: Option<Backend>,
    /// Dropped after the backend was ended: closing waits for the server, and first receives all
    /// that it has sent.
    link: Link,
}

impl Drop for ServerKnowledge {
    fn drop(&mut self) {
        let abandoned = self.abandoned.get_mut();
        let abandoned = abandoned.unwrap_or_else(PoisonError::into_inner);
        for session in abandoned.drain(..) {
            session.link.discard();
        }
    }
}

/// A server process; a process id alone may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) pid: i32,
    /// Microseconds since the epoch.
    pub(crate) started: i64,
}

/// The server's limits for the statements of a connection.
///
/// They bound what an abandoned statement can hold: the server does not notice that its client is
/// gone while it waits for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatementLimits {
    statement: Duration,
    /// `None`: only the limit for statements applies.
    lock: Option<Duration>,
}

impl StatementLimits {
    /// The limits for statements that the client abandons after `timeout`.
    ///
    /// Both end before that, so that the client receives the server's error.
    pub(crate) fn operation(timeout: Duration) -> Self {
        Self {
            statement: timeout * 9 / 10,
            lock: Some(timeout / 2),
        }
    }

    /// The limit for maintenance, which may wait for locks.
    pub(crate) const fn maintenance(timeout: Duration) -> Self {
        Self {
            statement: timeout,
            lock: None,
        }
    }
}

impl Connector {
    /// Opens a connection outside of a session.
    pub(crate) async fn connect(
        &self,
        limits: StatementLimits,
    ) -> Result<PgConnection, StoreError> {
        self.connect_by(limits, "", connect).await
    }

    /// Opens a connection with the settings of its role, and none of a session.
    pub(crate) async fn connect_without_limits(&self) -> Result<PgConnection, StoreError> {
        let options = self.named(self.target.options().await?);
        let connected = connect(options.clone()).await;
        connected.map_err(|error| translate_connect(&self.schema, &options, error))
    }

    /// Connects by `connect`, with `limits` and the mark `token` unless a pooler rejects them.
    pub(crate) async fn connect_by<T>(
        &self,
        limits: StatementLimits,
        token: &str,
        connect: impl Fn(PgConnectOptions) -> BoxFuture<'static, sqlx::Result<T>>,
    ) -> Result<T, StoreError> {
        let options = self.named(self.target.options().await?);
        let failed = |error| translate_connect(&self.schema, &options, error);
        if !self.server.rejects_options.load(Ordering::Relaxed) {
            match connect(with_session_options(options.clone(), limits, token)).await {
                Err(sqlx::Error::Database(error)) if rejects_options(&*error) => {
                    self.server.rejects_options.store(true, Ordering::Relaxed);
                }
                outcome => return outcome.map_err(failed),
            }
        }
        connect(options.clone()).await.map_err(failed)
    }

    /// Sets the name by which the server lists the connection.
    fn named(&self, options: PgConnectOptions) -> PgConnectOptions {
        match (&self.application_name, options.get_application_name()) {
            (Some(name), _) => options.application_name(name),
            (None, Some(_)) => options,
            (None, None) => {
                options.application_name(&self.default_name(&self.settings.instance_name()))
            }
        }
    }

    /// Returns the name of the connections of a process of the namespace.
    pub(crate) fn default_name(&self, instance: &str) -> String {
        application_name::default_name(self.schema.as_str(), &self.namespace, instance)
    }

    /// Returns the process of the namespace with connections of this name.
    pub(crate) fn instance_in<'a>(&self, name: &'a str) -> Option<&'a str> {
        application_name::instance_in(name, self.schema.as_str(), &self.namespace)
    }

    /// Returns the error with which the server rejects a connection now.
    ///
    /// A pool retries and keeps no error.
    pub(crate) async fn rejection(&self, limits: StatementLimits) -> StoreError {
        match within(REJECTION_TIMEOUT, self.connect(limits)).await {
            Ok(Some(Ok(_))) => StoreError::unavailable("no connection in time"),
            Ok(None) => {
                StoreError::unavailable("no connection in time: the server does not respond")
            }
            Ok(Some(Err(error))) | Err(error) => error,
        }
    }

    /// Translates an error of a statement.
    pub(crate) fn failed(&self, error: sqlx::Error) -> StoreError {
        translate(&self.schema, error)
    }

    /// Returns `true` if sessions listen for notifications.
    pub(crate) const fn listens(&self) -> bool {
        !matches!(self.settings.push, Push::Off)
    }

    /// Returns the limits for the statements of a session.
    pub(crate) fn session_limits(&self) -> StatementLimits {
        StatementLimits::operation(self.settings.operation_timeout)
    }

    /// The time limit for a command or a query of an operator, once it is connected.
    pub(crate) fn command_timeout(&self) -> Duration {
        self.settings.operation_timeout * 2
    }

    /// The time limit for a connection and several statements.
    pub(crate) fn maintenance_timeout(&self) -> Duration {
        self.settings.connect_timeout + self.settings.operation_timeout * 10
    }

    pub(crate) fn is_flooded(&self) -> bool {
        self.server.flooded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_flooded(&self, flooded: bool) {
        self.server.flooded.store(flooded, Ordering::Relaxed);
    }

    /// Keeps a connection that may still execute a statement, until the next session has
    /// ended that.
    pub(crate) fn abandon(&self, backend: Option<Backend>, link: Link) {
        self.abandoned().push(Abandoned { backend, link });
    }

    /// Returns the backends to end.
    pub(crate) fn abandoned_backends(&self) -> Vec<Backend> {
        let abandoned = self.abandoned();
        abandoned
            .iter()
            .filter_map(|session| session.backend)
            .collect()
    }

    /// Handles that the server was asked to end `backends`.
    pub(crate) fn ended(&self, backends: &[Backend]) {
        let is_ended = |session: &mut Abandoned| {
            session
                .backend
                .is_some_and(|backend| backends.contains(&backend))
        };
        let ended: Vec<_> = self.abandoned().extract_if(.., is_ended).collect();
        for session in ended {
            session.link.discard();
        }
    }

    /// Closes connections to unknown backends, once another connection works.
    ///
    /// Errors are ignored: the next session tries it again.
    pub(crate) async fn close_unknown(&self) {
        let is_unknown = |session: &Abandoned| session.backend.is_none();
        while self.abandoned().iter().any(is_unknown) {
            let Ok(spare) = self.connect(self.session_limits()).await else {
                return;
            };
            let unknown = {
                let mut abandoned = self.abandoned();
                let index = abandoned.iter().position(is_unknown);
                index.map(|index| abandoned.swap_remove(index))
            };
            if let Some(session) = unknown {
                session.link.close_with(spare).await;
            }
        }
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Abandoned>> {
        let abandoned = self.server.abandoned.lock();
        abandoned.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection for statements.
pub(crate) fn connect(options: PgConnectOptions) -> BoxFuture<'static, sqlx::Result<PgConnection>> {
    Box::pin(async move { PgConnection::connect_with(&options).await })
}

/// Creates a mark by which a session recognizes that its options have reached its backend.
pub(crate) fn session_token() -> String {
    format!("{:016x}", OperationId::random().0)
}

/// Adds the limits and the mark, unless the URL sets the same option.
///
/// Options of the startup packet apply from the first statement on, need no round trip, and end
/// with the connection: a pooler can't pass them on to another client.
fn with_session_options(
    options: PgConnectOptions,
    limits: StatementLimits,
    token: &str,
) -> PgConnectOptions {
    let milliseconds = |limit: Duration| limit.as_millis().clamp(1, i32::MAX as u128).to_string();
    let given = options.get_options().unwrap_or_default().to_owned();
    let mut wanted = vec![
        ("statement_timeout", milliseconds(limits.statement)),
        ("tcp_keepalives_idle", "60".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ];
    wanted.extend(limits.lock.map(|lock| ("lock_timeout", milliseconds(lock))));
    if !token.is_empty() {
        wanted.push((SESSION_MARK, token.to_owned()));
    }
    let is_given = |name: &str| {
        given
            .split([' ', '='])
            .any(|word| word.trim_start_matches("-c") == name)
    };
    wanted.retain(|(name, _)| !is_given(name));
    options.options(wanted)
}

/// Returns whether a pooler rejects options in the startup packet.
fn rejects_options(error: &dyn DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("08P01" | "0A000"))
        || error.message().contains("startup parameter")
}

/// The setting that marks the connections of a session.
pub(crate) const SESSION_MARK: &str = "bulkman.session";

const REJECTION_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_option_of_the_url_replaces_a_limit() {
        let limits = StatementLimits::operation(Duration::from_secs(2));
        let options_with = |name| {
            let options = PgConnectOptions::new().options([(name, "7s")]);
            let options = with_session_options(options, limits, "");
            options.get_options().unwrap_or_default().to_owned()
        };
        assert!(options_with("deadlock_timeout").contains(" lock_timeout=1000"));
        assert!(!options_with("lock_timeout").contains(" lock_timeout=1000"));
    }
}
