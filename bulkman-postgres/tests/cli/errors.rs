//! Errors: what the server refuses, how soon it is reported, and the fix.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bulkman_postgres::sqlx::{Connection, PgConnection};
use bulkman_test_support::{Postgres, StopMode};

use super::{Watch, program, register, run_to_exit};
use crate::common::{Database, on_tokio};

/// Fault C16.
#[test]
fn refusing_server_is_reported_at_once() {
    let server = Postgres::start(&[
        ("max_connections", "4"),
        ("superuser_reserved_connections", "1"),
    ]);
    let database = Database::on(&server);
    run_to_exit(&mut program(&database, &["migrate"]));
    // The timeout is an hour: an error that waits for it is never reported.
    let fails = |database: &Database, command: &str, parts: &[&str]| {
        let mut command = program(database, &[command, "--timeout", "3600"]);
        let output = run_to_exit(&mut command);
        for part in parts {
            assert!(output.err.contains(part), "{part}: {output:?}");
        }
        output.code
    };
    let mut held = Vec::new();
    on_tokio(async {
        while let Ok(connection) = PgConnection::connect(&database.url).await {
            held.push(connection);
        }
    });
    for command in ["status", "check", "watch", "migrate"] {
        let code = fails(
            &database,
            command,
            &["SQLSTATE 53300", "raise max_connections"],
        );
        assert_eq!(code, 3, "{command}");
    }
    drop(held);
    server.stop(StopMode::Fast);
    for command in ["status", "check", "watch", "migrate", "namespaces"] {
        let code = fails(
            &database,
            command,
            &["127.0.0.1:", "refused", "start the server"],
        );
        assert_eq!(code, 3, "{command}");
    }
}

#[test]
fn errors_have_their_code_and_the_fix() {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    let with_url = |url: &str| {
        let mut command = program(&database, &["--timeout", "3600", "status"]);
        run_to_exit(command.env("BULKMAN_DATABASE_URL", url))
    };
    let url = &database.url;
    let (before, after) = url.split_once('@').unwrap();
    let password = format!("{before}wrong@{after}");
    let cases = [
        (password, 4, "SQLSTATE 28P01", "correct the password"),
        (
            url.replace("/postgres?", "/absent?"),
            5,
            "SQLSTATE 3D000",
            "CREATE DATABASE",
        ),
        (url.clone(), 5, "SQLSTATE 42P01", "bulkman-pg migrate"),
        (
            format!("postgres://absent.invalid:1/x?{}", "sslmode=disable"),
            3,
            "absent.invalid:1",
            "correct the address",
        ),
        (
            "postgres:///x?host=/absent&sslmode=disable".to_owned(),
            3,
            "/absent",
            "start the server",
        ),
    ];
    for (url, code, state, fix) in cases {
        let output = with_url(&url);
        assert_eq!(output.code, code, "{output:?}");
        assert!(
            output.err.contains(state) && output.err.contains(fix),
            "{output:?}"
        );
    }
}

#[test]
fn unknown_namespace_lists_the_known_ones() {
    let database = Database::without_schema();
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    for command in [
        &["status"][..],
        &["history"],
        &["leases"],
        &["processes"],
        &["watch"],
        &["prune", "--older-than", "1"],
    ] {
        let mut command = program(&database, command);
        let output = run_to_exit(command.args(["--namespace", "defualt"]));
        assert_eq!(output.code, 2, "{output:?}");
        assert!(
            output
                .err
                .contains(r#"no namespace "defualt"; there are "default""#),
            "{output:?}"
        );
    }
}

#[test]
fn watch_reports_the_error_of_the_server() {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    for (json, code) in [(false, "SQLSTATE 57P01"), (true, r#""sqlstate":"57P01""#)] {
        let mut command = program(&database, &["watch", "--count", "1"]);
        if json {
            command.arg("--json");
        }
        let mut watch = Watch::start(command.stderr(Stdio::piped()));
        watch.line();
        let mut errors = BufReader::new(watch.child.stderr.take().unwrap()).lines();
        on_tokio(database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
              WHERE application_name LIKE 'bulkman-pg%'",
        ));
        let error = errors.next().unwrap().unwrap();
        assert!(error.contains(code), "{error}");
        assert!(error.contains("terminating connection"), "{error}");
        // It continues on another connection.
        run_to_exit(&mut program(&database, &["force-open", "payments"]));
        assert!(watch.line().contains("forced_open"));
        assert!(watch.child.wait().unwrap().success());
    }
}
