//! A private PostgreSQL server for the tests of bulkman.
//!
//! [`Postgres::shared`] is one server for all tests of a binary, [`Postgres::start`] one that a
//! test may stop, freeze or crash. Both listen on a free port of 127.0.0.1 only, keep their data
//! in a temporary directory, and are stopped and removed when their process ends, however it
//! ends: a child that waits on a pipe sees to it.
//!
//! `BULKMAN_TEST_DATABASE_URL` names a server to be used for the shared one instead; every test
//! works in a [schema](Postgres::schema) of its own, and drops it there.
#![forbid(unsafe_code)]

mod account;
mod authority;
mod cluster;
mod process;
mod programs;
mod schema;
mod watchdog;

pub use authority::Authority;
pub use cluster::StopMode;
pub use schema::TestSchema;

use std::env;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cluster::Cluster;

/// A PostgreSQL server that tests may use.
#[derive(Debug)]
pub struct Postgres {
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Private(Cluster),
    Given(String),
}

impl Postgres {
    /// The server that all tests of this binary share: the one that
    /// `BULKMAN_TEST_DATABASE_URL` names, or else a private one.
    ///
    /// # Panics
    ///
    /// If there is none and none can be started; the message says what to install or set.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| match env::var(GIVEN) {
            Ok(url) if !url.is_empty() => Self {
                origin: Origin::Given(url),
            },
            _ => Self::start(&[]),
        })
    }

    /// A private server for the caller alone, with these settings on top of the defaults.
    ///
    /// # Panics
    ///
    /// If none can be started; the message says what to install.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        match Cluster::start(settings, None) {
            Ok(cluster) => Self {
                origin: Origin::Private(cluster),
            },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// A private server that offers TLS, as `host` by the word of `authority`. It is reached by
    /// 127.0.0.1, or by `localhost` where that is the same; its [URL](Self::url) goes without TLS.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_with_tls(authority: &Authority, host: &str) -> Self {
        let started = authority
            .identify(host)
            .and_then(|identity| Cluster::start(&[], Some(&identity)));
        match started {
            Ok(cluster) => Self {
                origin: Origin::Private(cluster),
            },
            Err(reason) => panic!("{reason}"),
        }
    }

    /// Where it is, with an account that may do everything.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.origin {
            Origin::Private(cluster) => cluster.url(),
            Origin::Given(url) => url.clone(),
        }
    }

    /// The name of a schema that nobody else uses; dropped with the value.
    #[must_use]
    pub fn schema(&self) -> TestSchema {
        let server = match &self.origin {
            // It goes with the server.
            Origin::Private(_) => None,
            Origin::Given(url) => Some(url.clone()),
        };
        TestSchema::new(server)
    }

    /// `psql` on this server, as the account that may do everything, without anybody's settings.
    #[must_use]
    pub fn psql(&self) -> Command {
        let mut command = Command::new(programs::psql());
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
    /// If it is not private, or can't be stopped.
    pub fn stop(&self, mode: StopMode) {
        self.cluster()
            .stop(mode)
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Starts a stopped private server again, at the same address over the same data.
    ///
    /// # Panics
    ///
    /// If it is not private, or can't be started.
    pub fn start_again(&self) {
        self.cluster()
            .launch()
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// As [`start_again`](Self::start_again), as a hot standby: it answers, and takes no writes
    /// until `pg_promote()` is called.
    ///
    /// # Panics
    ///
    /// If it is not private, or can't be started.
    pub fn start_again_as_standby(&self) {
        self.cluster()
            .become_standby()
            .unwrap_or_else(|reason| panic!("{reason}"));
        self.start_again();
    }

    /// Stops all processes of a private server where they are: connections stay and nobody
    /// answers.
    ///
    /// # Panics
    ///
    /// If it is not private, or is not running.
    pub fn freeze(&self) {
        self.cluster()
            .signal("STOP")
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// Lets a frozen private server go on.
    ///
    /// # Panics
    ///
    /// If it is not private, or is not running.
    pub fn thaw(&self) {
        self.cluster()
            .signal("CONT")
            .unwrap_or_else(|reason| panic!("{reason}"));
    }

    /// The process of a private server that all its others are children of.
    ///
    /// # Panics
    ///
    /// If it is not private, or is not running.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.cluster()
            .process_id()
            .unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn cluster(&self) -> &Cluster {
        match &self.origin {
            Origin::Private(cluster) => cluster,
            Origin::Given(_) => {
                panic!("only a private server may be stopped: use `Postgres::start`")
            }
        }
    }
}

const GIVEN: &str = "BULKMAN_TEST_DATABASE_URL";
