//! The command-line arguments.

use std::time::Duration;

use bulkman_core::store::{StoreError, StoreSettings};
use bulkman_postgres::PostgresStore;
use clap::{Args, Parser, Subcommand};

/// Manages circuits that a fleet shares through PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "bulkman-pg", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The database URL: postgres://user@host:5432/database?sslmode=verify-full.
    ///
    /// Pass a password through the environment variable, PGPASSWORD or ~/.pgpass, since other users
    /// can read the command line.
    #[arg(
        long,
        env = "BULKMAN_DATABASE_URL",
        hide_env_values = true,
        hide_default_value = true,
        global = true,
        default_value = ""
    )]
    url: String,

    /// The schema with the tables of bulkman.
    #[arg(long, env = "BULKMAN_SCHEMA", global = true, default_value = "bulkman")]
    schema: String,

    /// The namespace of the circuits.
    #[arg(
        long,
        short,
        env = "BULKMAN_NAMESPACE",
        global = true,
        default_value = "default"
    )]
    namespace: String,

    /// Timeout in seconds for connecting, and for each operation.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,

    /// Requires TLS.
    #[arg(long, global = true)]
    require_tls: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates the schema, or migrates it to this version.
    Migrate,
    /// Checks the server, the schema and this role's privileges, and prints how to fix problems.
    Check,
    /// Lists the circuits of the namespace with their states.
    Status,
    /// Prints changes of the namespace as they happen, until interrupted.
    Watch(WatchOptions),
    /// Lists the latest changes, newest first, with their authors and reasons.
    History {
        /// The circuit to list; all circuits of the namespace by default.
        circuit: Option<String>,
        /// Maximum number of entries.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Deletes old history entries of the namespace. Requires the DELETE privilege.
    Prune {
        /// Minimum age of the entries to delete, in days.
        #[arg(long, value_name = "DAYS")]
        older_than: u32,
    },
    /// Forces a circuit open in all processes, until another command.
    ForceOpen(Action),
    /// Closes a circuit in all processes, from any state.
    Close(Action),
    /// Disables a circuit breaker in all processes, until another command: all calls are admitted.
    Disable(Action),
    /// Closes a circuit in all processes, and clears its counts and votes.
    Reset(Action),
}

#[derive(Debug, Args)]
pub(crate) struct WatchOptions {
    /// Exits after this number of changes.
    #[arg(long)]
    pub(crate) count: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Action {
    /// The name of the circuit, as `status` lists it.
    pub(crate) circuit: String,
    /// The reason, stored in the history.
    #[arg(long, short, default_value = "")]
    pub(crate) reason: String,
    /// The author, stored in the history; the current user by default.
    #[arg(long)]
    author: Option<String>,
}

impl Action {
    pub(crate) fn author(&self) -> String {
        let user = || {
            std::env::var("USER")
                .or_else(|_| std::env::var("LOGNAME"))
                .unwrap_or_default()
        };
        self.author.clone().unwrap_or_else(user)
    }
}

impl Arguments {
    pub(crate) fn store(&self) -> Result<PostgresStore, StoreError> {
        let timeout = Duration::from_secs(self.timeout.into());
        if self.url.is_empty() {
            return Err(StoreError::invalid_argument(
                "no database: set --url or BULKMAN_DATABASE_URL",
            ));
        }
        let settings = StoreSettings::new()
            .connect_timeout(timeout)
            .operation_timeout(timeout)
            .lease_ttl(timeout * 2);
        PostgresStore::builder(&self.url)
            .schema(&self.schema)
            .namespace(&self.namespace)
            .require_tls(self.require_tls)
            .settings(settings)
            .build()
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success; for `check`: no problems
  1  `check` found problems
  2  invalid arguments, or unknown circuit
  3  the database is unavailable
  4  the database denied access
  5  the schema is missing, too old or too new, or TLS could not be established";
