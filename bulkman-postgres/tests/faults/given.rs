//! A server that was given, rather than started by the tests themselves.

use std::process::{Command, ExitCode};

use bulkman_postgres::sqlx;
use bulkman_test_support::Postgres;

use crate::common::{Database, on_tokio};

/// Runs `command` with a server given to it, and looks whether it has left something there.
pub(crate) fn run(command: &[&str]) -> ExitCode {
    let server = Postgres::start(&[]);
    let [program, arguments @ ..] = command else {
        return ExitCode::from(2);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("BULKMAN_TEST_DATABASE_URL", server.url())
        .status()
        .expect("the command can be run");
    let left = on_tokio(left_behind(&Database::on(&server)));
    println!(
        "    {} schemas were made there, {} are left",
        left.made, left.schemas
    );
    let clean = left.made > 0 && left.schemas == 0;
    if status.success() && clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Left {
    made: i64,
    schemas: i64,
}

async fn left_behind(database: &Database) -> Left {
    let mut connection = database.connection().await;
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulkman%'";
    let schemas = sqlx::query_scalar(schemas)
        .fetch_one(&mut connection)
        .await
        .expect("counts");
    // The catalogue's own rows tell that there were some.
    let made = "SELECT pg_stat_get_tuples_deleted('pg_catalog.pg_namespace'::regclass)";
    let made = sqlx::query_scalar(made)
        .fetch_one(&mut connection)
        .await
        .expect("counts");
    Left { made, schemas }
}
