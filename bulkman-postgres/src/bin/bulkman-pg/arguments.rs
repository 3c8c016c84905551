//! The command line.

use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_postgres::PostgresStore;
use clap::{Args, Parser, Subcommand};

/// Sets up, looks at, and acts on circuits that a fleet shares through PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "bulkman-pg", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The database: postgres://user@host:5432/database?sslmode=verify-full.
    ///
    /// A password is better left to the environment variable, or to PGPASSWORD or ~/.pgpass, since
    /// a command line can be read by others.
    #[arg(
        long,
        env = "BULKMAN_DATABASE_URL",
        hide_env_values = true,
        global = true,
        default_value = ""
    )]
    url: String,

    /// The schema with bulkman's tables.
    #[arg(long, env = "BULKMAN_SCHEMA", global = true, default_value = "bulkman")]
    schema: String,

    /// The namespace with the circuits.
    #[arg(
        long,
        short,
        env = "BULKMAN_NAMESPACE",
        global = true,
        default_value = "default"
    )]
    namespace: String,

    /// Seconds that connecting, and then each operation, may take.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,

    /// Refuses to connect without TLS.
    #[arg(long, global = true)]
    require_tls: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the schema, or brings it up to this version.
    Migrate,
    /// Says what is missing for this role to use the schema, and what mends it.
    Check,
    /// Lists the circuits of the namespace.
    Status,
    /// Follows the changes of the namespace, until interrupted.
    Watch(WatchOptions),
    /// Lists the latest changes, newest first: when, what, who and why.
    History {
        /// Of this circuit alone.
        circuit: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// First forgets changes that are older than so many days (needs the right to DELETE).
        #[arg(long)]
        prune_days: Option<u32>,
    },
    /// Holds a circuit open in all processes, until another command.
    ForceOpen(Action),
    /// Closes a circuit in all processes, from whatever state.
    Close(Action),
    /// Switches a circuit's breaker off in all processes: all calls pass.
    Disable(Action),
    /// Closes a circuit in all processes and forgets its counts and votes.
    Reset(Action),
}

#[derive(Debug, Args)]
pub(crate) struct WatchOptions {
    /// Ends after so many changes.
    #[arg(long)]
    pub(crate) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Action {
    /// The circuit, as `status` names it.
    pub(crate) circuit: String,
    /// Why, for the history.
    #[arg(long, short, default_value = "")]
    pub(crate) reason: String,
    /// Who, for the history; the user who runs this by default.
    #[arg(long)]
    by: Option<String>,
}

impl Action {
    pub(crate) fn by(&self) -> String {
        let user = || {
            std::env::var("USER")
                .or_else(|_| std::env::var("LOGNAME"))
                .unwrap_or_default()
        };
        self.by.clone().unwrap_or_else(user)
    }
}

impl Arguments {
    pub(crate) fn store(&self) -> Result<PostgresStore, StoreError> {
        let limit = Duration::from_secs(self.timeout.into());
        if self.url.is_empty() {
            return Err(StoreError::invalid_argument(
                "which database? give --url, or BULKMAN_DATABASE_URL",
            ));
        }
        PostgresStore::builder(&self.url)
            .schema(&self.schema)
            .namespace(&self.namespace)
            .require_tls(self.require_tls)
            .connect_timeout(limit)
            .operation_timeout(limit)
            .lease_ttl(limit * 2)
            .build()
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `check`: nothing is missing
  1  `check` found that something is missing
  2  the arguments are wrong, or the circuit does not exist
  3  the database is unavailable
  4  the database denied access
  5  the schema is missing, too old, or too new; or TLS can't be had as it is asked for";
