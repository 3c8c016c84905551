//! What the commands print, as text and as JSON.

use serde_json::Value;

use super::{Watch, program, register, run_to_exit};
use crate::common::{Database, on_tokio};

#[test]
fn json_output_has_the_documented_fields() {
    let database = Database::without_schema();
    let json = |arguments: &[&str]| -> Value {
        let mut command = program(&database, arguments);
        let output = run_to_exit(command.arg("--json"));
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
        serde_json::from_str(&output.out).unwrap()
    };
    assert_eq!(fields(&json(&["migrate"])), documented("`migrate`"));
    register(&database, &["mail", "payments"]);
    let reason = "\u{1b}\"\\ \u{6f22}";
    let changed = json(&[
        "force-open",
        "payments",
        "--author",
        "ada",
        "--reason",
        reason,
    ]);
    assert_eq!(fields(&changed), documented("circuit"));
    assert_eq!(changed["reason"], reason);
    on_tokio(database.execute(
        "UPDATE \"bulkman\".circuit SET state = 2, epoch = 1 WHERE name = 'mail'; \
         INSERT INTO \"bulkman\".probe (namespace, name, slot, epoch, holder, expires_at) VALUES \
           ('default', 'mail', 0, 1, 'shop@node-7:12 00000000000000ff 1', \"bulkman\".clock() + '1 h')",
    ));

    let status = json(&["status"]);
    assert_eq!(fields(&status[0]), documented("circuit"));
    assert_eq!(
        (&status[0]["circuit"], &status[0]["state"]),
        (&"mail".into(), &"half_open".into())
    );
    assert!(status[0]["author"].is_null() && status[0]["remaining_seconds"].is_null());
    assert!(status[1]["age_seconds"].as_f64().unwrap() < 3_600.0);
    let history = json(&["history"]);
    assert_eq!(fields(&history[0]), documented("change"));
    assert_eq!(history[0]["to"], "forced_open");
    let leases = json(&["leases"]);
    assert_eq!(fields(&leases[0]), documented("lease"));
    assert_eq!(leases[0]["instance"], "shop@node-7:12");
    let namespaces = json(&["namespaces"]);
    assert_eq!(fields(&namespaces[0]), documented("namespace"));
    assert_eq!(
        (&namespaces[0]["circuits"], &namespaces[0]["forced"]),
        (&2.into(), &1.into())
    );
    let check = json(&["check"]);
    assert_eq!(fields(&check), documented("`check`"));
    assert_eq!(
        (&check["role"], &check["problems"]),
        (&"app".into(), &Value::Array(vec![]))
    );
    assert_eq!(fields(&check["warnings"][0]), ["fix", "problem"]);
    assert_eq!(json(&["prune", "--older-than", "0"])["deleted"], 1);
    assert_eq!(json(&["history"]), Value::Array(vec![]));
    assert_eq!(json(&["forget", "mail"])["forgotten"], "mail");
    for command in ["sql", "roles"] {
        let sql = json(&[command]);
        assert!(
            sql["sql"]
                .as_str()
                .unwrap()
                .contains(database.schema.name())
        );
    }

    let mut watch = Watch::start(&mut program(
        &database,
        &["watch", "--json", "--count", "1"],
    ));
    let first: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(fields(&first["circuits"][0]), documented("circuit"));
    json(&["close", "payments"]);
    let change: Value = serde_json::from_str(&watch.line()).unwrap();
    assert_eq!(change["change"]["to"], "closed");

    let failed = run_to_exit(&mut program(&database, &["close", "absent", "--json"]));
    let error: Value = serde_json::from_str(&failed.err).unwrap();
    assert_eq!(fields(&error["error"]), documented("error"));
    assert_eq!(error["error"]["kind"], "invalid_argument");
    assert_eq!((failed.code, failed.out.as_str()), (2, ""));
}

#[test]
fn processes_lists_connected_processes() {
    let database = Database::without_schema();
    run_to_exit(&mut program(&database, &["migrate"]));
    let namespace = database.schema.name();
    let settings = crate::common::settings().instance("shop@node-7:12");
    let store = database.builder().namespace(namespace).settings(settings);
    let store = store.build().unwrap();
    on_tokio(async {
        let circuit = bulkman_core::bulkhead::BulkheadName::new("payments").unwrap();
        let circuits = [circuit];
        let session = bulkman_core::store::CircuitStore::open_session(&store, &circuits);
        let _session = session.await.unwrap();
        let list = |arguments: &[&str]| {
            let mut command = program(&database, arguments);
            run_to_exit(command.args(["--namespace", namespace])).out
        };
        let text = list(&["processes"]);
        assert!(
            text.starts_with("shop@node-7:12 at 127.0.0.1: 1 connection for "),
            "{text}"
        );
        assert!(
            text.ends_with(", 0 leases, no report\n") && text.lines().count() == 1,
            "{text}"
        );
        let json: Value = serde_json::from_str(&list(&["processes", "--json"])).unwrap();
        assert_eq!(fields(&json[0]), documented("process"));
        let text = list(&["namespaces"]);
        assert_eq!(
            text,
            format!("{namespace}: 1 circuit, 0 open, 0 forced, never changed\n")
        );
    });
}

#[test]
fn author_names_user_program_and_host() {
    let database = Database::without_schema();
    run_to_exit(&mut program(&database, &["migrate"]));
    register(&database, &["payments"]);
    let author_of = |user: Option<&str>| {
        let mut command = program(&database, &["force-open", "payments", "--json"]);
        command
            .env_remove("LOGNAME")
            .env_remove("USER")
            .env("HOSTNAME", "laptop");
        if let Some(user) = user {
            command.env("USER", user);
        }
        let output = run_to_exit(&mut command);
        let changed: Value = serde_json::from_str(&output.out).unwrap();
        changed["author"].as_str().unwrap().to_owned()
    };
    let author = author_of(Some("ada"));
    assert!(author.starts_with("ada via bulkman-pg@laptop:"), "{author}");
    // A container has no user: then it is the role.
    let author = author_of(None);
    assert!(
        author.starts_with("bulkman via bulkman-pg@laptop:"),
        "{author}"
    );
}

#[test]
fn circuit_is_forced_before_it_is_shared() {
    let database = Database::without_schema();
    let run = |arguments: &[&str]| run_to_exit(&mut program(&database, arguments));
    run(&["migrate"]);
    let output = run(&["force-open", "payments"]);
    assert_eq!(output.code, 2, "{output:?}");
    let output = run(&["force-open", "payments", "--create", "--author", "ada"]);
    assert_eq!(
        output.out, "payments is forced_open, epoch 1\n",
        "{output:?}"
    );
    let output = run(&["forget", "payments"]);
    assert_eq!(output.out, "payments is forgotten\n", "{output:?}");
    assert_eq!(run(&["status"]).out, "no circuits\n");
    let output = run(&["forget", "payments"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.err.contains(r#"no circuit "payments""#),
        "{output:?}"
    );
}

/// Returns the names of the fields of an object, sorted.
fn fields(value: &Value) -> Vec<String> {
    let names = value.as_object().unwrap().keys().cloned();
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Returns the names of the fields in the table of the README, sorted.
fn documented(of: &str) -> Vec<String> {
    let row = format!("| {of} | ");
    let row = include_str!("../../README.md")
        .lines()
        .find_map(|line| line.strip_prefix(&row));
    // A row may explain its fields after a semicolon or a comma without a name.
    let row = row.unwrap().split(';').next().unwrap();
    let names = row.split(", ").filter_map(|it| it.strip_prefix('`'));
    let mut names: Vec<_> = names
        .map(|it| it.trim_end_matches(|c| " |`".contains(c)).to_owned())
        .collect();
    names.sort();
    names
}
