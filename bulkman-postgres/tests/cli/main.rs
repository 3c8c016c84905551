//! The program `bulkman-pg`, as an operator runs it.

mod check;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod guide;
mod output;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::CircuitStore;
use bulkman_test_support::{Postgres, StopMode};

use common::{Database, on_tokio};

#[test]
fn operator_workflow() {
    let database = Database::without_schema();
    let run = |arguments: &[&str]| run_to_exit(&mut program(&database, arguments));

    // Without a schema.
    let output = run(&["check"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.out.contains("no schema") && output.out.contains("bulkman-pg migrate"),
        "{output:?}"
    );
    let output = run(&["status"]);
    assert_eq!(output.code, 5, "{output:?}");
    assert!(output.err.contains("bulkman-pg migrate"), "{output:?}");

    // Migrating twice is allowed.
    for _ in 0..2 {
        let output = run(&["migrate"]);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
    }
    let output = run(&["check"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.out.starts_with("no problems as app\n"), "{output:?}");
    // An empty schema has no namespace yet.
    for command in ["status", "history", "leases", "processes", "watch"] {
        let output = run(&[command]);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.err.contains("there is none yet"), "{output:?}");
    }

    register(&database, &["payments", "mail"]);
    assert_eq!(run(&["history"]).out.trim(), "no history");
    assert_eq!(run(&["leases"]).out.trim(), "no leases");
    let output = run(&["status"]);
    assert_eq!(output.out.lines().count(), 2, "{output:?}");
    assert!(
        output.out.starts_with("mail      closed"),
        "circuits are sorted and aligned: {output:?}"
    );

    for (command, state) in [
        ("force-open", "forced_open"),
        ("disable", "disabled"),
        ("close", "closed"),
        ("reset", "closed"),
    ] {
        let output = run(&[
            command,
            "payments",
            "--author",
            "ada",
            "--reason",
            &format!("to {command}"),
        ]);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(
            output.out.contains(&format!("payments is {state}")),
            "{output:?}"
        );
        let status = run(&["status"]).out;
        assert!(
            status.contains(&format!("by ada: to {command}")),
            "{status}"
        );
    }
    let output = run(&["history", "payments", "--limit", "2"]);
    let lines: Vec<_> = output.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains("payments: closed -> closed, by ada: to reset"),
        "{output:?}"
    );
    assert!(
        lines[1].contains("payments: disabled -> closed, by ada: to close"),
        "{output:?}"
    );

    let output = run(&["prune", "--older-than", "0"]);
    assert!(
        output.out.contains("deleted 4 history entries"),
        "{output:?}"
    );
    assert_eq!(run(&["history"]).out.trim(), "no history");
}

#[test]
fn errors_have_exit_codes_and_messages() {
    let database = Database::without_schema();
    run_to_exit(&mut program(&database, &["migrate"]));
    let output = run_to_exit(&mut program(&database, &["close", "paiments"]));
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.err.contains(r#"no circuit "paiments""#),
        "{output:?}"
    );
    let output = run_to_exit(&mut program(&database, &["status", "--schema", "a\"b"]));
    assert_eq!(output.code, 2, "{output:?}");
    let output = run_to_exit(&mut program(&database, &["open", "payments"]));
    assert_eq!(output.code, 2, "{output:?}");

    let mut without = Command::new(PROGRAM);
    let output = run_to_exit(without.env_remove("BULKMAN_DATABASE_URL").arg("status"));
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.err.contains("--url"), "{output:?}");

    let mut wrong = program(&database, &["status"]);
    let url = database.url.replace("secret-", "another-secret-");
    let output = run_to_exit(wrong.env("BULKMAN_DATABASE_URL", &url));
    if url != database.url {
        assert_eq!(output.code, 4, "{output:?}");
        assert!(!output.err.contains("secret"), "{output:?}");
    }
    let output = run_to_exit(&mut program(&database, &["--help"]));
    assert!(
        output.out.contains("Exit codes:") && !output.out.contains("secret"),
        "{output:?}"
    );
}

#[test]
fn watch_reconnects_after_a_restart() {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    let mut watch = Watch::start(&mut program(&database, &["watch", "--count", "3"]));
    assert!(watch.line().starts_with("payments  closed"));

    run_to_exit(&mut program(
        &database,
        &[
            "force-open",
            "payments",
            "--author",
            "ada",
            "--reason",
            "\u{1b}[1mx",
        ],
    ));
    assert_eq!(
        watch.line(),
        "payments: closed -> forced_open, by ada: \\u{1b}[1mx"
    );
    server.stop(StopMode::Fast);
    server.restart();
    for command in ["disable", "close"] {
        run_to_exit(&mut program(
            &database,
            &[command, "payments", "--author", "ada"],
        ));
    }
    assert_eq!(watch.line(), "payments: forced_open -> disabled, by ada");
    assert_eq!(watch.line(), "payments: disabled -> closed, by ada");
    assert!(
        watch.child.wait().unwrap().success(),
        "it exits after the requested number of changes"
    );
}

#[test]
fn watch_reports_lost_history() {
    let database = Database::without_schema();
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    let mut watch = Watch::start(&mut program(&database, &["watch", "--count", "2"]));
    assert!(watch.line().starts_with("payments  closed"));
    let force_open = |reason: &str| {
        let arguments = [
            "force-open",
            "payments",
            "--author",
            "ada",
            "--reason",
            reason,
        ];
        run_to_exit(&mut program(&database, &arguments));
    };
    force_open("once");
    assert_eq!(
        watch.line(),
        "payments: closed -> forced_open, by ada: once"
    );
    // The effect of restoring an earlier backup, with a later change: the revision is the same.
    let restore = "UPDATE \"bulkman\".namespace SET rev = 0, fingerprint = 0; DELETE FROM \"bulkman\".history; \
                   UPDATE \"bulkman\".circuit SET state = 0, epoch = 0, rev = 0, op_id = 0; \
                   SELECT \"bulkman\".apply_command('default', 'payments', 4::smallint, false, 'eve', '', 7)";
    on_tokio(database.execute(restore));
    assert!(watch.line().starts_with("history was lost"));
    assert!(watch.line().starts_with("payments  disabled"));
    force_open("again");
    assert_eq!(
        watch.line(),
        "payments: disabled -> forced_open, by ada: again"
    );
    assert!(watch.child.wait().unwrap().success());
}

#[derive(Debug)]
struct Exited {
    code: i32,
    out: String,
    err: String,
}

struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("another line").unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes the URL through the environment, since it contains a password.
fn program(database: &Database, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    command
        .env("BULKMAN_DATABASE_URL", &database.url)
        .env("BULKMAN_SCHEMA", database.schema.name());
    command
}

fn run_to_exit(command: &mut Command) -> Exited {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Exited {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn register(database: &Database, circuits: &[&str]) {
    on_tokio(async {
        let circuits: Vec<_> = circuits
            .iter()
            .map(|circuit| BulkheadName::new(circuit).unwrap())
            .collect();
        CircuitStore::open_session(&database.store("default"), &circuits)
            .await
            .unwrap();
    });
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_bulkman-pg");
