//! The database to connect to, and its credentials.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;

use bulkman_core::runtime::BoxFuture;
use bulkman_core::store::StoreError;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The database to connect to: a URL, [`PgConnectOptions`], or a function that returns them.
pub struct ConnectTarget(Result<Target, StoreError>);

type RequestError = Box<dyn StdError + Send + Sync>;
type Request = dyn Fn() -> BoxFuture<'static, Result<PgConnectOptions, RequestError>> + Send + Sync;

/// Where the connect options come from.
#[derive(Clone)]
pub(crate) struct Target {
    source: Source,
    require_tls: bool,
}

#[derive(Clone)]
enum Source {
    Fixed(Box<PgConnectOptions>),
    Requested(Arc<Request>),
}

impl ConnectTarget {
    /// Calls `request` before each connect, for credentials that expire.
    ///
    /// An error is reported as [`StoreError::Unavailable`], and the request is repeated with the
    /// next attempt to connect. `request` shares the timeout for connecting, and is dropped when
    /// that elapses. A session that is connected stays so when its credentials expire.
    ///
    /// ```
    /// use bulkman_postgres::sqlx::postgres::PgConnectOptions;
    /// use bulkman_postgres::{ConnectTarget, PostgresStore};
    ///
    /// # async fn token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let target = ConnectTarget::requested(|| async {
    ///     let options = PgConnectOptions::new().host("db.internal").username("shop");
    ///     Ok(options.password(&token().await?))
    /// });
    /// let store = PostgresStore::builder(target).namespace("shop").build()?;
    /// # let _ = store;
    /// # Ok::<(), bulkman_core::store::StoreError>(())
    /// ```
    pub fn requested<F, R>(request: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<PgConnectOptions, Box<dyn StdError + Send + Sync>>>
            + Send
            + 'static,
    {
        Self::new(Source::Requested(Arc::new(move || Box::pin(request()))))
    }

    const fn new(source: Source) -> Self {
        Self(Ok(Target {
            source,
            require_tls: false,
        }))
    }

    pub(crate) fn source(self) -> Result<Target, StoreError> {
        self.0
    }
}

impl Target {
    /// Requires TLS, also of options that are requested later.
    pub(crate) fn require_tls(&mut self) -> Result<(), StoreError> {
        self.require_tls = true;
        match &self.source {
            Source::Fixed(options) => with_tls(PgConnectOptions::clone(options)).map(drop),
            Source::Requested(_) => check_tls_feature(),
        }
    }

    /// Returns the options for one attempt to connect.
    pub(crate) async fn options(&self) -> Result<PgConnectOptions, StoreError> {
        let options = match &self.source {
            Source::Fixed(options) => PgConnectOptions::clone(options),
            Source::Requested(request) => request().await.map_err(|error| {
                StoreError::unavailable(format!("the connect options are not available: {error}"))
                    .with_source(Requested(error))
            })?,
        };
        let options = if self.require_tls {
            with_tls(options)?
        } else {
            options
        };
        // Poolers reject connections that set this parameter.
        Ok(options.extra_float_digits(None).disable_statement_logging())
    }

    /// Returns the options if they are known in advance.
    pub(crate) fn fixed(&self) -> Option<&PgConnectOptions> {
        match &self.source {
            Source::Fixed(options) => Some(options),
            Source::Requested(_) => None,
        }
    }
}

/// The error of a request, as a source.
#[derive(Debug)]
struct Requested(RequestError);

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Requested {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<&str> for ConnectTarget {
    fn from(url: &str) -> Self {
        // The message of sqlx may quote the URL, which may contain a password.
        PgConnectOptions::from_str(url).map_or_else(
            |_| {
                Self(Err(StoreError::invalid_argument(
                    "the database URL (not shown, since it may contain a password) is not of the form \
                     postgres://user:password@host:5432/database?sslmode=verify-full",
                )))
            },
            Self::from,
        )
    }
}

impl From<String> for ConnectTarget {
    fn from(url: String) -> Self {
        Self::from(url.as_str())
    }
}

impl From<&String> for ConnectTarget {
    fn from(url: &String) -> Self {
        Self::from(url.as_str())
    }
}

impl From<PgConnectOptions> for ConnectTarget {
    fn from(options: PgConnectOptions) -> Self {
        Self::new(Source::Fixed(Box::new(options)))
    }
}

impl fmt::Debug for ConnectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().map(Target::fixed) {
            Ok(Some(options)) => write!(
                f,
                "ConnectTarget({}:{})",
                options.get_host(),
                options.get_port()
            ),
            Ok(None) => f.write_str("ConnectTarget(requested)"),
            Err(error) => write!(f, "ConnectTarget({error})"),
        }
    }
}

fn with_tls(options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    check_tls_feature()?;
    match options.get_ssl_mode() {
        PgSslMode::Disable => Err(StoreError::invalid_argument(
            "require_tls contradicts sslmode=disable: remove one of them",
        )),
        PgSslMode::Allow | PgSslMode::Prefer => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Ok(options),
    }
}

fn check_tls_feature() -> Result<(), StoreError> {
    if cfg!(not(any(feature = "tls-rustls", feature = "tls-native"))) {
        return Err(StoreError::invalid_argument(
            "require_tls needs the feature `tls-rustls` or `tls-native` of bulkman-postgres",
        ));
    }
    Ok(())
}
