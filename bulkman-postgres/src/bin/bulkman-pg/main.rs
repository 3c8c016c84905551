//! `bulkman-pg`: manages the circuits that a fleet shares through PostgreSQL.
#![forbid(unsafe_code)]

mod arguments;
mod json;
mod objects;
mod report;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use bulkman_core::store::StoreError;
use bulkman_postgres::{CheckRole, PostgresStore, WarningThresholds, roles_sql, schema_sql};
use clap::Parser;

use arguments::{Action, Arguments, CheckOptions, Command};
use json::Json;
use report::Format;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = if arguments.json {
        Format::Json
    } else {
        Format::Text
    };
    match run(&arguments, format).await {
        Ok(code) => code,
        Err(error) => {
            report::error(format, &error);
            exit_code(&error)
        }
    }
}

async fn run(arguments: &Arguments, format: Format) -> Result<ExitCode, StoreError> {
    if let Some(sql) = shipped_sql(arguments)? {
        let print = || report::line(format_args!("{}", sql.trim_end()));
        format.print(|| Json::Object(vec![("sql", sql.as_str().into())]), print);
        return Ok(ExitCode::SUCCESS);
    }
    let store = &arguments.store()?;
    let admin = store.admin();
    match &arguments.command {
        Command::Sql | Command::Roles => {}
        Command::Migrate => migrate(store, format).await?,
        Command::Check(options) => return check(store, format, options).await,
        Command::Namespaces => report::namespaces(format, &admin.namespaces().await?),
        Command::Processes => {
            report::processes(format, &found(store, admin.processes().await?).await?);
        }
        Command::Leases => report::leases(format, &found(store, admin.leases().await?).await?),
        Command::Status => report::status(format, &found(store, admin.status().await?).await?),
        Command::Watch(options) => watch::watch(store, format, options).await?,
        Command::History { circuit, limit } => {
            let entries = admin.history(circuit.as_deref(), *limit).await?;
            report::history(format, &found(store, entries).await?);
        }
        Command::Prune { older_than } => {
            let age = Duration::from_secs(u64::from(*older_than) * 24 * 60 * 60);
            let deleted = admin.prune_history(age).await?;
            if deleted == 0 {
                require_namespace(store).await?;
            }
            let print = || report::line(format_args!("deleted {deleted} history entries"));
            format.print(|| Json::Object(vec![("deleted", deleted.into())]), print);
        }
        Command::Forget { circuit } => forget(store, format, circuit).await?,
        Command::ForceOpen { action, .. }
        | Command::Close(action)
        | Command::Disable(action)
        | Command::Reset(action) => change(store, format, arguments, action).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the SQL of a command that needs no database.
fn shipped_sql(arguments: &Arguments) -> Result<Option<String>, StoreError> {
    Ok(match &arguments.command {
        Command::Sql => Some(schema_sql(arguments.schema())?),
        Command::Roles => Some(roles_sql(arguments.schema())?),
        _ => None,
    })
}

async fn migrate(store: &PostgresStore, format: Format) -> Result<(), StoreError> {
    store.migrate().await?;
    let problems = store.check().await?;
    let json = || {
        Json::Object(vec![
            ("schema", store.schema().into()),
            ("problems", objects::diagnostics(&problems)),
        ])
    };
    let print = || {
        report::line(format_args!("schema \"{}\" is up to date", store.schema()));
        for problem in &problems {
            report::line(format_args!("warning: {problem}"));
        }
    };
    format.print(json, print);
    Ok(())
}

async fn check(
    store: &PostgresStore,
    format: Format,
    options: &CheckOptions,
) -> Result<ExitCode, StoreError> {
    let role: CheckRole = match options.role {
        Some(role) => role.into(),
        None => store.granted_role().await?,
    };
    let mut problems = store.check_as(role).await?;
    let circuits: Vec<&str> = options.circuits.iter().map(String::as_str).collect();
    problems.extend(store.check_circuits(&circuits).await?);
    let age = Duration::from_secs(options.transaction_age.into());
    let thresholds = WarningThresholds::new().transaction_age(age);
    let warnings = store.warnings(thresholds).await?;
    report::diagnostics(format, role, &problems, &warnings);
    let failed = !problems.is_empty() || options.strict && !warnings.is_empty();
    Ok(ExitCode::from(u8::from(failed)))
}

async fn forget(store: &PostgresStore, format: Format, circuit: &str) -> Result<(), StoreError> {
    if !store.admin().forget(circuit).await? {
        return Err(StoreError::invalid_argument(format!(
            "namespace {:?} has no circuit {circuit:?}; `status` lists them",
            store.namespace()
        )));
    }
    let print = || report::line(format_args!("{circuit} is forgotten"));
    format.print(|| Json::Object(vec![("forgotten", circuit.into())]), print);
    Ok(())
}

async fn change(
    store: &PostgresStore,
    format: Format,
    arguments: &Arguments,
    action: &Action,
) -> Result<(), StoreError> {
    let admin = store.admin();
    let (author, reason) = (arguments.author(action), &action.reason);
    let circuit = &action.circuit;
    let view = match &arguments.command {
        Command::ForceOpen { create, .. } => {
            if *create {
                admin.register(circuit).await?;
            }
            admin.force_open(circuit, &author, reason).await
        }
        Command::Disable(_) => admin.disable(circuit, &author, reason).await,
        Command::Reset(_) => admin.reset(circuit, &author, reason).await,
        _ => admin.close(circuit, &author, reason).await,
    };
    report::changed(format, &view?);
    Ok(())
}

/// Returns `items`, and an error if there are none because the namespace does not exist.
async fn found<T>(store: &PostgresStore, items: Vec<T>) -> Result<Vec<T>, StoreError> {
    if items.is_empty() {
        require_namespace(store).await?;
    }
    Ok(items)
}

/// Returns an error that lists the namespaces if the store's does not exist.
async fn require_namespace(store: &PostgresStore) -> Result<(), StoreError> {
    let namespaces = store.admin().namespaces().await?;
    let mut names = namespaces.iter().map(|summary| summary.namespace.as_str());
    if names.any(|name| name == store.namespace()) {
        return Ok(());
    }
    let names: Vec<_> = namespaces
        .iter()
        .map(|it| format!("{:?}", it.namespace))
        .collect();
    let known = if names.is_empty() {
        "there is none yet: a process creates it when it connects".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    let message = format!("there is no namespace {:?}; {known}", store.namespace());
    Err(StoreError::invalid_argument(message))
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
