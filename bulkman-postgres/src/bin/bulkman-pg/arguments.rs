//! The command-line arguments.

use std::time::Duration;

use bulkman_core::store::{Push, StoreError, StoreSettings};
use bulkman_postgres::sqlx::postgres::PgConnectOptions;
use bulkman_postgres::{CheckRole, PostgresStore};
use clap::{Args, Parser, Subcommand, ValueEnum};

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

    /// Prints JSON: one value, or one per line for `watch`. Errors are JSON, too.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates the schema, or migrates it to this version.
    Migrate,
    /// Checks the server, the schema and this role's privileges, and prints how to fix problems.
    ///
    /// Warnings concern what works now but endangers the fleet, such as old transactions.
    Check(CheckOptions),
    /// Prints the SQL that creates or migrates the schema, to be run in one transaction.
    Sql,
    /// Prints the SQL that creates the group roles, with what they are granted.
    Roles,
    /// Lists the namespaces of the schema with the numbers of their circuits.
    Namespaces,
    /// Lists the processes of the namespace that are connected.
    Processes,
    /// Lists the probe leases that processes of the namespace hold.
    Leases,
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
    /// Deletes a circuit that no process shares any more. Requires the DELETE privilege.
    Forget {
        /// The name of the circuit, as `status` lists it.
        circuit: String,
    },
    /// Forces a circuit open in all processes, until another command.
    ForceOpen {
        #[command(flatten)]
        action: Action,
        /// Registers the circuit first, if no process has shared it yet.
        #[arg(long)]
        create: bool,
    },
    /// Closes a circuit in all processes, from any state.
    Close(Action),
    /// Disables a circuit breaker in all processes, until another command: all calls are admitted.
    Disable(Action),
    /// Closes a circuit in all processes, and clears its counts and votes.
    Reset(Action),
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Circuits whose names the database must be able to store.
    pub(crate) circuits: Vec<String>,
    /// The kind of role; by default the one that this role was granted, otherwise `app`.
    #[arg(long = "as", value_enum)]
    pub(crate) role: Option<RoleName>,
    /// Age in seconds above which a transaction of another session is reported.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) transaction_age: u32,
    /// Exits with 1 for warnings, too.
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleName {
    App,
    Operator,
    Readonly,
}

impl From<RoleName> for CheckRole {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::App => Self::App,
            RoleName::Operator => Self::Operator,
            RoleName::Readonly => Self::ReadOnly,
        }
    }
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
    /// The author, stored in the history; the current user, this program and the host by default.
    #[arg(long)]
    author: Option<String>,
}

impl Arguments {
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the author of a command: the given one, or `ada via bulkman-pg@laptop:4711`.
    pub(crate) fn author(&self, action: &Action) -> String {
        if let Some(author) = &action.author {
            return author.clone();
        }
        let variables = ["USER", "LOGNAME"];
        let variables = variables.iter().filter_map(|name| std::env::var(name).ok());
        // A container may have no user: then it is the role, as for the functions of the schema.
        let role = self
            .options()
            .map(|options| options.get_username().to_owned());
        let mut users = variables.chain(role).filter(|user| !user.trim().is_empty());
        let user = users.next().unwrap_or_else(|| "unknown".to_owned());
        format!("{user} via {}", StoreSettings::new().instance_name())
    }

    fn options(&self) -> Option<PgConnectOptions> {
        self.url.parse().ok()
    }

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
            .lease_ttl(timeout * 2)
            // For `watch`, the only command with a session that would listen.
            .push(Push::Off);
        let mut builder = PostgresStore::builder(&self.url)
            .schema(&self.schema)
            .namespace(&self.namespace)
            .require_tls(self.require_tls);
        let options = self.options();
        if options.is_some_and(|options| options.get_application_name().is_none()) {
            builder = builder.application_name(application_name(&settings.instance_name()));
        }
        builder.settings(settings).build()
    }
}

/// Returns the name by which the server lists the connections: `bulkman-pg@laptop:4711`.
fn application_name(instance: &str) -> String {
    let ascii = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    instance.chars().map(ascii).take(63).collect()
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success; for `check`: no problems
  1  `check` found problems
  2  invalid arguments, unknown circuit or unknown namespace
  3  the database is unavailable
  4  the database denied access
  5  the schema is missing, too old or too new, or TLS could not be established";
