//! The guide page for operators: every command and statement works as printed.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use bulkman_postgres::sqlx::{self, Connection, PgConnection};
use bulkman_test_support::Postgres;

use super::{PROGRAM, Watch};
use crate::common::on_tokio;

#[test]
fn guide_for_operators_works_as_printed() {
    let server = Postgres::start(&[]);
    let reader = Reader::new(&server);
    let (mut commands, mut statements) = (0, 0);
    for block in blocks(include_str!("../../../src/guide/operating_a_fleet.md")) {
        match block.language {
            // Examples in Rust run with the library's tests.
            "" => {}
            "console" => {
                let mut user = "the owner";
                for line in block.text.lines() {
                    if let Some(name) = line.strip_prefix("# As ") {
                        user = name.trim_end_matches(':');
                        continue;
                    }
                    commands += 1;
                    reader.run_command(user, line);
                }
            }
            "sql" => {
                let first = block.text.lines().next().unwrap();
                let user = first
                    .strip_prefix("-- As ")
                    .map(|it| it.trim_end_matches(':'));
                statements += block.text.matches(";\n").count();
                reader.run_sql(user.unwrap_or("the owner"), &block.text);
            }
            other => panic!("a block in {other:?} is not run"),
        }
    }
    assert!(
        commands >= 20 && statements >= 25,
        "{commands} commands, {statements} statements"
    );
}

/// A reader of the page, with passwords in the environment.
struct Reader<'a> {
    server: &'a Postgres,
    directory: PathBuf,
}

impl<'a> Reader<'a> {
    fn new(server: &'a Postgres) -> Self {
        let name = format!("guide-{}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self { server, directory }
    }

    fn url(&self, user: &str, database: &str) -> String {
        let url = self.server.url();
        let (owner, address) = url.split_once('@').unwrap();
        let address = address.replace("/postgres?", &format!("/{database}?"));
        let password = match user {
            "the owner" => return format!("{owner}@{address}"),
            "shop_service" => "of the service",
            "ada" => "of ada",
            "grafana" => "of grafana",
            other => panic!("the page has no role {other:?}"),
        };
        format!(
            "postgres://{user}:{}@{address}",
            password.replace(' ', "%20")
        )
    }

    /// Runs a line of the page in a shell.
    fn run_command(&self, user: &str, line: &str) {
        if line == "bulkman-pg watch" {
            // It runs until it is interrupted.
            let mut watch = Command::new(PROGRAM);
            self.set_environment(&mut watch, user);
            let mut watch = Watch::start(watch.arg("watch"));
            assert!(watch.line().starts_with("payments"));
            return;
        }
        let mut command = Command::new("/bin/sh");
        self.set_environment(&mut command, user);
        let output = command.args(["-ec", line]).output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{line}: {out}{err}");
        self.check_output(user, line, &out);
    }

    /// Checks what the page promises of a command.
    fn check_output(&self, user: &str, line: &str, out: &str) {
        let expected: &[&str] = match line {
            "bulkman-pg check" | "bulkman-pg check payments" => {
                let role = match user {
                    "shop_service" => "no problems as app",
                    "ada" => "no problems as operator",
                    _ => "no problems as readonly",
                };
                // The set-up leaves nothing to fix, but one role does not see the others' sessions.
                let warnings = out.matches("warning: ").count();
                let hidden = out.matches("can't inspect the sessions").count();
                assert_eq!(warnings, hidden, "{out}");
                &[role]
            }
            "bulkman-pg status" => &[
                "payments  forced_open",
                "via bulkman-pg@",
                "provider migrates",
            ],
            "bulkman-pg processes" => &["no processes"],
            "bulkman-pg namespaces" => &["shop: 1 circuit, "],
            line if line.contains("status() WHERE") => &["payments | ada"],
            _ => &[],
        };
        for part in expected {
            assert!(out.contains(part), "{line}: {out}");
        }
    }

    /// Runs a block of statements, without a transaction around them.
    fn run_sql(&self, user: &str, sql: &str) {
        let mut command = Command::new(self.server.psql().get_program());
        self.set_environment(&mut command, user);
        let database = if sql.contains("CREATE DATABASE") {
            "postgres"
        } else {
            "shop"
        };
        let file = self.directory.join("block.sql");
        std::fs::write(&file, sql).unwrap();
        command
            .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file"])
            .arg(file);
        command.arg("--dbname").arg(self.url(user, database));
        let output = command.output().unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{sql}: {out}{err}");
        if sql.contains("REVOKE CONNECT") {
            self.check_roles();
        }
        if sql.contains("bulkman.close(") {
            // For the backup.
            self.run_sql(
                "ada",
                "SELECT bulkman.force_open('shop', 'payments', author => 'ada')",
            );
        }
    }

    /// Checks that only the granted roles can connect, with the timeouts of the page.
    fn check_roles(&self) {
        on_tokio(async {
            let owner = self.url("the owner", "shop");
            let mut owner = PgConnection::connect(&owner).await.unwrap();
            sqlx::raw_sql("CREATE ROLE outsider LOGIN PASSWORD 'of ada'")
                .execute(&mut owner)
                .await
                .unwrap();
            let outsider = self.url("ada", "shop").replace("//ada:", "//outsider:");
            let error = PgConnection::connect(&outsider).await.unwrap_err();
            assert!(
                error.to_string().contains("permission denied for database"),
                "{error}"
            );
            let service = self.url("shop_service", "shop");
            let mut service = PgConnection::connect(&service).await.unwrap();
            for (setting, value) in [
                ("statement_timeout", "2s"),
                ("lock_timeout", "1s"),
                ("idle_in_transaction_session_timeout", "5s"),
            ] {
                let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                    .bind(setting)
                    .fetch_one(&mut service)
                    .await
                    .unwrap();
                assert_eq!(found, value, "{setting}");
            }
        });
    }

    fn set_environment(&self, command: &mut Command, user: &str) {
        let url = self.url(user, "shop");
        let (credentials, address) = url
            .trim_start_matches("postgres://")
            .split_once('@')
            .unwrap();
        let (name, password) = credentials.split_once(':').unwrap();
        let (address, _) = address.split_once('/').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        // The programs of the page are found as if they were installed.
        let psql = self.server.psql();
        let mut path: Vec<PathBuf> = [PROGRAM.as_ref(), psql.get_program()]
            .iter()
            .filter_map(|program| PathBuf::from(program).parent().map(PathBuf::from))
            .collect();
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        command
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("BULKMAN_DATABASE_URL", &url)
            .env("BULKMAN_NAMESPACE", "shop")
            .env_remove("BULKMAN_SCHEMA")
            .envs([
                ("PGHOST", host),
                ("PGPORT", port),
                ("PGUSER", name),
                ("PGDATABASE", "shop"),
            ])
            .env("PGPASSWORD", password.replace("%20", " "));
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A fenced block of the page.
struct Block<'a> {
    language: &'a str,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| !line.starts_with("```"));
            let text = text.map(|line| format!("{line}\n")).collect();
            blocks.push(Block { language, text });
        }
    }
    blocks
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
