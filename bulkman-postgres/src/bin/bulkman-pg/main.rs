//! `bulkman-pg`: manages the circuits that a fleet shares through PostgreSQL.
#![forbid(unsafe_code)]

mod arguments;
mod report;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use bulkman_core::store::CircuitView;
use bulkman_core::store::StoreError;
use bulkman_postgres::PostgresStore;
use clap::Parser;

use arguments::{Action, Arguments, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.store() {
        Ok(store) => run(&store, &arguments.command).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            exit_code(&error)
        }
    }
}

async fn run(store: &PostgresStore, command: &Command) -> Result<ExitCode, StoreError> {
    match command {
        Command::Migrate => {
            store.migrate().await?;
            report::line(format_args!("schema \"{}\" is up to date", store.schema()));
            for diagnostic in store.check().await? {
                report::line(format_args!("warning: {diagnostic}"));
            }
        }
        Command::Check => return check(store).await,
        Command::Status => report::status(&store.admin().status().await?),
        Command::Watch(options) => watch::watch(store, options).await?,
        Command::History { circuit, limit } => {
            report::history(&store.admin().history(circuit.as_deref(), *limit).await?);
        }
        Command::Prune { older_than } => {
            let age = std::time::Duration::from_secs(u64::from(*older_than) * 24 * 60 * 60);
            let deleted = store.admin().prune_history(age).await?;
            report::line(format_args!("deleted {deleted} history entries"));
        }
        Command::ForceOpen(action)
        | Command::Close(action)
        | Command::Disable(action)
        | Command::Reset(action) => {
            let view = act(store, command, action).await?;
            report::changed(&view);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(store: &PostgresStore) -> Result<ExitCode, StoreError> {
    let diagnostics = store.check().await?;
    for diagnostic in &diagnostics {
        report::line(format_args!(
            "{}\n    {}",
            diagnostic.problem, diagnostic.fix
        ));
    }
    if diagnostics.is_empty() {
        report::line(format_args!("no problems"));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(1))
}

async fn act(
    store: &PostgresStore,
    command: &Command,
    action: &Action,
) -> Result<CircuitView, StoreError> {
    let admin = store.admin();
    let (circuit, author, reason) = (
        action.circuit.as_str(),
        action.author(),
        action.reason.as_str(),
    );
    match command {
        Command::ForceOpen(_) => admin.force_open(circuit, &author, reason).await,
        Command::Disable(_) => admin.disable(circuit, &author, reason).await,
        Command::Reset(_) => admin.reset(circuit, &author, reason).await,
        _ => admin.close(circuit, &author, reason).await,
    }
}

/// Returns the exit code that `--help` documents.
fn exit_code(error: &StoreError) -> ExitCode {
    let _ = std::io::stdout().flush();
    ExitCode::from(match error {
        StoreError::InvalidArgument { .. } => 2,
        StoreError::Denied { .. } => 4,
        StoreError::Incompatible { .. } => 5,
        _ => 3,
    })
}
