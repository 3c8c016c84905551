//! `check`, `sql` and `roles`.

use std::process::{Command, Output};

use bulkman_postgres::sqlx::Executor;
use bulkman_test_support::Postgres;

use super::{Exited, PROGRAM, program, register, run_to_exit};
use crate::common::{Database, on_tokio};

#[test]
fn printed_sql_sets_up_a_database() {
    let server = Postgres::start(&[]);
    let print = |command: &str| {
        let output = run_to_exit(Command::new(PROGRAM).args([command, "--schema", "circuits"]));
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
        output.out
    };
    for command in ["sql", "roles", "sql", "roles"] {
        psql(&server, &print(command));
    }
    psql(
        &server,
        "CREATE ROLE shop LOGIN PASSWORD 'x'; GRANT bulkman_app TO shop; \
         CREATE ROLE ada LOGIN PASSWORD 'x'; GRANT bulkman_operator TO ada; \
         CREATE ROLE graph LOGIN PASSWORD 'x'; GRANT bulkman_readonly TO graph; \
         CREATE ROLE nobody LOGIN PASSWORD 'x'",
    );
    let check = |user: &str, arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.env("BULKMAN_DATABASE_URL", url_of(&server, user));
        command
            .args(["check", "--schema", "circuits"])
            .args(arguments);
        run_to_exit(&mut command)
    };
    // Each role is checked for what it was granted.
    for (user, role) in [("shop", "app"), ("ada", "operator"), ("graph", "readonly")] {
        let output = check(user, &[]);
        let expected = format!("no problems as {role}\n");
        assert!(
            output.out.starts_with(&expected) && output.code == 0,
            "{output:?}"
        );
        assert!(
            output.out.contains("warning: every role may connect"),
            "{output:?}"
        );
        assert_eq!(check(user, &["--strict"]).code, 1);
    }
    let output = check("graph", &["--as", "operator"]);
    assert_eq!(output.code, 1, "{output:?}");
    let lacking = "role \"graph\" lacks UPDATE on \"circuits\".circuit\n    \
                   GRANT UPDATE ON \"circuits\".circuit TO \"graph\"\n";
    assert!(output.out.contains(lacking), "{output:?}");
    let output = check("nobody", &[]);
    assert!(
        output.out.contains("lacks USAGE") && output.code == 1,
        "{output:?}"
    );
    // With the grants, an operator works.
    let mut force = Command::new(PROGRAM);
    force.env("BULKMAN_DATABASE_URL", url_of(&server, "ada"));
    force.args(["force-open", "payments", "--create", "--schema", "circuits"]);
    assert_eq!(run_to_exit(&mut force).code, 0);
}

/// Fault C17.
#[test]
fn check_names_the_session_with_an_old_snapshot() {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    on_tokio(async {
        let mut report = database.connection().await;
        report
            .execute(
                "SET application_name = 'nightly report'; \
                 BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1",
            )
            .await
            .unwrap();
        let check = |age: &str| -> Exited {
            let arguments = ["check", "--transaction-age", age];
            run_to_exit(&mut program(&database, &arguments))
        };
        let output = check("0");
        assert!(
            output
                .out
                .contains("\"nightly report\", idle in transaction"),
            "{output:?}"
        );
        assert!(
            output.out.contains("SELECT pg_terminate_backend("),
            "{output:?}"
        );
        assert!(!check("3600").out.contains("nightly report"));
    });
}

#[test]
fn check_reports_names_that_cannot_be_stored() {
    let server = Postgres::start(&[]);
    psql(
        &server,
        "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    );
    let run = |arguments: &[&str]| {
        let url = server.url().replace("/postgres?", "/latin1?");
        run_to_exit(
            Command::new(PROGRAM)
                .env("BULKMAN_DATABASE_URL", url)
                .args(arguments),
        )
    };
    assert_eq!(run(&["migrate"]).code, 0);
    let output = run(&["check", "payments", "\u{6f22}\u{5b57}"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.out.contains("can't store the circuit \"\u{6f22}"),
        "{output:?}"
    );
    assert!(!output.out.contains("payments"), "{output:?}");
    assert!(output.out.contains("encoding LATIN1"), "{output:?}");
}

/// Runs SQL as the documentation suggests.
pub(crate) fn psql(server: &Postgres, sql: &str) {
    let mut command = server.psql();
    command.args([
        "--single-transaction",
        "--set",
        "ON_ERROR_STOP=1",
        "--command",
        sql,
    ]);
    if sql.contains("CREATE DATABASE") {
        command = server.psql();
        command.args(["--set", "ON_ERROR_STOP=1", "--command", sql]);
    }
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

fn url_of(server: &Postgres, user: &str) -> String {
    let (_, after) = server
        .url()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    format!("postgres://{user}:x@{after}")
}
