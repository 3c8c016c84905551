//! Tests on an external server, which they don't start themselves.

use std::process::{Command, ExitCode};

use bulkman_postgres::sqlx;
use bulkman_test_support::Postgres;

use crate::common::{Database, on_tokio};

/// Runs `command` with an external server, and checks that it leaves no schema behind.
pub(crate) fn run(command: &[&str]) -> ExitCode {
    let server = Postgres::start(&[]);
    let [program, arguments @ ..] = command else {
        return ExitCode::from(2);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("BULKMAN_TEST_DATABASE_URL", server.url())
        .status()
        .expect("the command starts");
    let left = on_tokio(left_behind(&Database::on(&server)));
    println!(
        "    {} schemas were created, {} are left",
        left.created, left.schemas
    );
    let clean = left.created > 0 && left.schemas == 0;
    if status.success() && clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Leftovers {
    created: i64,
    schemas: i64,
}

async fn left_behind(database: &Database) -> Leftovers {
    let mut connection = database.connection().await;
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulkman%'";
    let schemas = sqlx::query_scalar(schemas)
        .fetch_one(&mut connection)
        .await
        .expect("the query succeeds");
    // Deleted rows of the catalog show that there were schemas.
    let created = "SELECT pg_stat_get_tuples_deleted('pg_catalog.pg_namespace'::regclass)";
    let created = sqlx::query_scalar(created)
        .fetch_one(&mut connection)
        .await
        .expect("the query succeeds");
    Leftovers { created, schemas }
}
