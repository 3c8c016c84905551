//! A private PostgreSQL server for the tests of bulkman.
//!
//! [`Postgres::shared`] is one server for all tests of a binary. [`Postgres::start`] starts a
//! server that a test can stop, freeze or crash. Both listen on a free port of 127.0.0.1 only, and
//! store their data in a temporary directory. A child process stops and removes them when the test
//! process exits, even if it is killed.
//!
//! `BULKMAN_TEST_DATABASE_URL` names an external server for [`Postgres::shared`]. Every test uses a
//! separate [schema](Postgres::schema), which is dropped there.
#![forbid(unsafe_code)]

mod binaries;
mod certificate_authority;
mod cluster;
mod os_user;
mod process;
mod schema;
mod watchdog;

pub use certificate_authority::CertificateAuthority;
pub use cluster::StopMode;
pub use schema::TestSchema;

use std::env;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cluster::Cluster;

/// A PostgreSQL server for tests.
#[derive(Debug)]
pub struct Postgres {
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Private(Cluster),
    External(String),
}

impl Postgres {
    /// Returns the server that all tests of this binary share.
    ///
    /// It is the one that `BULKMAN_TEST_DATABASE_URL` names, or a private one.
    ///
    /// # Panics
    ///
    /// Panics if no server can be started; the message contains what to install or set.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| match env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Self {
                origin: Origin::External(url),
            },
            _ => Self::start(&[]),
        })
    }

    /// Starts a private server, with these settings in addition to the defaults.
    ///
    /// # Panics
    ///
    /// Panics if no server can be started; the message contains what to install.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        match Cluster::start(settings, None) {
            Ok(cluster) => Self {
                origin: Origin::Private(cluster),
            },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Starts a hot standby of this private server, read-only until `pg_promote()` is called.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or the standby can't be started.
    #[must_use]
    pub fn start_standby(&self) -> Self {
        match Cluster::start_standby_of(self.cluster()) {
            Ok(cluster) => Self {
                origin: Origin::Private(cluster),
            },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Starts a private server with TLS and a certificate for `host`, signed by `authority`.
    ///
    /// The server listens on 127.0.0.1. Its [URL](Self::url) disables TLS.
    ///
    /// # Panics
    ///
    /// Panics like [`start`](Self::start).
    #[must_use]
    pub fn start_with_tls(authority: &CertificateAuthority, host: &str) -> Self {
        let started = authority
            .sign(host)
            .and_then(|identity| Cluster::start(&[], Some(&identity)));
        match started {
            Ok(cluster) => Self {
                origin: Origin::Private(cluster),
            },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Returns the URL, with a superuser.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.origin {
            Origin::Private(cluster) => cluster.url(),
            Origin::External(url) => url.clone(),
        }
    }

    /// Reserves a unique schema name; the schema is dropped with the value.
    #[must_use]
    pub fn schema(&self) -> TestSchema {
        let server = match &self.origin {
            // The schema is removed with the server.
            Origin::Private(_) => None,
            Origin::External(url) => Some(url.clone()),
        };
        TestSchema::new(server)
    }

    /// Creates a `psql` command for this server, as a superuser and without a user's settings.
    #[must_use]
    pub fn psql(&self) -> Command {
        let mut command = Command::new(binaries::psql());
        command.args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--set",
            "ON_ERROR_STOP=1",
        ]);
        command.arg("--dbname").arg(self.url()).stdin(Stdio::null());
        command
    }

    /// Stops a private server.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or can't be stopped.
    pub fn stop(&self, mode: StopMode) {
        self.cluster()
            .stop(mode)
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Restarts a stopped private server, with the same address and data.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or can't be started.
    pub fn restart(&self) {
        self.cluster()
            .launch()
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Restarts a stopped private server as a hot standby, read-only until `pg_promote()` is
    /// called.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or can't be started.
    pub fn restart_as_standby(&self) {
        self.cluster()
            .configure_standby()
            .unwrap_or_else(|reason| panic!("{reason}"));
        self.restart();
    }

    /// Suspends all processes of a private server: connections stay open without a response.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or is not running.
    pub fn freeze(&self) {
        self.cluster()
            .suspend(true)
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Resumes a frozen private server.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or is not running.
    pub fn thaw(&self) {
        self.cluster()
            .suspend(false)
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Returns the id of the main process of a private server.
    ///
    /// # Panics
    ///
    /// Panics if the server is not private, or is not running.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.cluster()
            .process_id()
            .unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn cluster(&self) -> &Cluster {
        match &self.origin {
            Origin::Private(cluster) => cluster,
            Origin::External(_) => {
                panic!("only a private server can be controlled: use `Postgres::start`")
            }
        }
    }
}

const URL_VARIABLE: &str = "BULKMAN_TEST_DATABASE_URL";
