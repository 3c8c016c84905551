//! PgBouncer in transaction mode, where each transaction of a client may use another connection.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkman_core::Runtime;
use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{CircuitStore, StoreError};
use bulkman_postgres::sqlx::postgres::{PgConnectOptions, PgConnection};
use bulkman_postgres::sqlx::{self, Connection, Executor, Row};
use bulkman_postgres::{ConnectTarget, PostgresStore};
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{LONG, Processes, TIMEOUT, next, pause, settings, store_at};
use crate::print_elapsed;

pub(crate) async fn transaction_pooler_falls_back_to_polling(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let pooler = PgBouncer::start(&database.url, &runtime).await;
    let through = || {
        store_at(&pooler.url(), &database)
            .simple_protocol(true)
            .settings(settings().poll_interval(Duration::from_millis(200)))
    };
    let fleet = Processes::start(PROCESSES, &runtime, LONG, through).await;
    let mut events: Vec<_> = fleet.iter().map(|process| process.fleet.events()).collect();
    assert!(!fleet[0].fleet.snapshot().polling, "LISTEN is accepted");

    // No notification arrives. The changes are found by reading, until the driver polls.
    let began = runtime.now();
    for (state, act) in [
        (CircuitState::ForcedOpen, "force_open"),
        (CircuitState::Closed, "close"),
        (CircuitState::Disabled, "disable"),
        (CircuitState::Closed, "close"),
    ] {
        database
            .execute(&format!("SELECT \"bulkman\".{act}('fleet', 'payments')"))
            .await;
        fleet.all_reach(state).await;
    }
    for events in &mut events {
        next(events, |event| {
            assert!(!matches!(event, FleetEvent::Degraded { .. }), "{event:?}");
            matches!(event, FleetEvent::FellBackToPolling)
        })
        .await;
    }
    print_elapsed("fell back to polling after", &runtime, began);
    assert!(fleet.iter().all(|process| process.fleet.snapshot().polling));

    // With fewer connections than processes, each statement runs for the right process.
    let began = runtime.now();
    for round in 0..ROUNDS {
        let breaker = |number: usize| {
            fleet[number % PROCESSES]
                .bulkhead
                .circuit_breaker()
                .unwrap()
        };
        breaker(round).open();
        fleet.all_reach(CircuitState::Open).await;
        breaker(round + 1).close();
        fleet.all_reach(CircuitState::Closed).await;
    }
    print_elapsed("rounds of opening and closing", &runtime, began);
    for process in fleet.iter() {
        let snapshot = process.fleet.snapshot();
        assert!(
            snapshot.connected && snapshot.error.is_none(),
            "{snapshot:?}"
        );
    }
    let history = through()
        .build()
        .unwrap()
        .admin()
        .history(Some("payments"), 1_000)
        .await
        .unwrap();
    assert_eq!(history.len(), 2 * ROUNDS + 4, "{history:?}");
    assert!(
        history
            .iter()
            .all(|entry| entry.reason.is_empty() || &*entry.reason == "manual"),
        "{history:?}"
    );
}

/// Fault C01, C12.
///
/// PgBouncer before 1.21 mixes prepared statements. The limits of a session don't reach others.
pub(crate) async fn pooler_without_simple_protocol_is_reported(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let pooler = PgBouncer::start(&database.url, &runtime).await;
    let mut sessions = Vec::new();
    let error = loop {
        let circuits = [BulkheadName::new("payments").unwrap()];
        let store = store_at(&pooler.url(), &database).build().unwrap();
        let opened = CircuitStore::open_session(&store, &circuits).await;
        match opened {
            Ok(session) => sessions.push(session),
            Err(error) => break error,
        }
        assert!(sessions.len() < 10, "no statement was mixed up");
    };
    let message = error.to_string();
    println!("    after {} sessions: {message}", sessions.len());
    assert!(
        matches!(error, StoreError::Incompatible { .. }) && message.contains("simple_protocol"),
        "{message}"
    );
    drop(sessions);
    let pooled = store_at(&pooler.url(), &database).simple_protocol(true);
    let pooled = pooled.build().unwrap();
    let diagnostics = pooled.check().await.unwrap();
    let fixes: Vec<_> = diagnostics.iter().map(|it| it.fix.as_str()).collect();
    let expected = [
        "ALTER ROLE \"bulkman\" SET statement_timeout = '2s'",
        "ALTER ROLE \"bulkman\" SET lock_timeout = '1s'",
    ];
    assert_eq!(fixes, expected, "{diagnostics:?}");
    for _ in 0..4 {
        let options: PgConnectOptions = pooler.url().parse().unwrap();
        let mut client = PgConnection::connect_with(&options.extra_float_digits(None))
            .await
            .unwrap();
        let rows = client
            .fetch_all(sqlx::raw_sql("SHOW statement_timeout"))
            .await
            .unwrap();
        let timeout: String = rows[0].get(0);
        assert_eq!(timeout, "0", "a setting has reached another client");
    }
    // The fixes apply to new connections of the pooler.
    let fixes = fixes.join("; ").replace('"', "");
    database.execute(&fixes).await;
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
              WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .await;
    let deadline = runtime.now() + TIMEOUT;
    loop {
        // The pooler may not have noticed yet that its connections are closed.
        let outcome = pooled.check().await;
        if matches!(&outcome, Ok(problems) if problems.is_empty()) {
            break;
        }
        assert!(runtime.now() < deadline, "{outcome:?}");
        pause(&runtime).await;
    }
}

/// Fault C18.
///
/// The address moves from the pooler to the server.
pub(crate) async fn push_resumes_without_the_pooler(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let pooler = PgBouncer::start(&database.url, &runtime).await;
    let has_moved = Arc::new(AtomicBool::new(false));
    let moving = || {
        let pooled: PgConnectOptions = pooler.url().parse().unwrap();
        let direct: PgConnectOptions = database.url.parse().unwrap();
        let has_moved = Arc::clone(&has_moved);
        let target = ConnectTarget::requested(move || {
            let options = match has_moved.load(Ordering::SeqCst) {
                true => direct.clone(),
                false => pooled.clone(),
            };
            std::future::ready(Ok(options))
        });
        PostgresStore::builder(target)
            .schema(database.schema.name())
            .namespace("fleet")
            .simple_protocol(true)
            .settings(settings().poll_interval(Duration::from_millis(200)))
    };
    let fleet = Processes::start(2, &runtime, LONG, moving).await;
    let mut events = fleet[1].fleet.events();
    let operator = database.store("fleet").admin();
    for number in 0..4 {
        if number % 2 == 0 {
            operator.force_open("payments", "ada", "").await.unwrap();
            fleet.all_reach(CircuitState::ForcedOpen).await;
        } else {
            operator.close("payments", "ada", "").await.unwrap();
            fleet.all_reach(CircuitState::Closed).await;
        }
    }
    next(&mut events, |event| {
        matches!(event, FleetEvent::FellBackToPolling)
    })
    .await;
    has_moved.store(true, Ordering::SeqCst);
    drop(pooler);
    next(&mut events, |event| {
        matches!(event, FleetEvent::Synchronized { after: Some(_) })
    })
    .await;
    fleet[0]
        .until(|process| process.fleet.snapshot().connected)
        .await;
    for number in 0..6 {
        let began = runtime.now();
        if number % 2 == 0 {
            operator.force_open("payments", "ada", "").await.unwrap();
            fleet.all_reach(CircuitState::ForcedOpen).await;
        } else {
            operator.close("payments", "ada", "").await.unwrap();
            fleet.all_reach(CircuitState::Closed).await;
        }
        print_elapsed("adopted after", &runtime, began);
    }
    next(&mut events, |event| {
        matches!(event, FleetEvent::PushResumed)
    })
    .await;
    assert!(!fleet[1].fleet.snapshot().polling);
}

struct PgBouncer {
    /// Kills the pooler when its standard input closes, at the latest with this process.
    watchdog: Child,
    directory: PathBuf,
    port: u16,
}

impl PgBouncer {
    /// Starts a pooler for the server at `url`, with fewer connections than processes.
    async fn start(url: &str, runtime: &impl Runtime) -> Self {
        let (account, address) = url
            .trim_start_matches("postgres://")
            .split_once('@')
            .expect("a URL");
        let (user, password) = account.split_once(':').expect("a password");
        let server: PgConnectOptions = url.parse().expect("a URL");
        assert!(address.starts_with(server.get_host()));
        let port = TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let directory =
            std::env::temp_dir().join(format!("bulkman-pooler-{}-{port}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let configuration = directory.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             postgres = host={} port={} user={user} password={password}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n",
            server.get_host(),
            server.get_port(),
        );
        fs::write(&configuration, text).unwrap();
        // It does not run as root, and reads its settings before it changes its user.
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&configuration)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pooler = Self {
            watchdog,
            directory,
            port,
        };
        let deadline = runtime.now() + TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(runtime.now() < deadline, "PgBouncer did not start in time");
            pause(runtime).await;
        }
        pooler
    }

    fn url(&self) -> String {
        format!(
            "postgres://bulkman@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _status = self.watchdog.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const WATCHDOG: &str = r#"
trap '' INT TERM HUP
as=
[ "$(id -u)" -ne 0 ] || as="--user nobody"
pgbouncer --quiet $as "$1" </dev/null &
read -r _
kill -KILL $!
wait
"#;
const PROCESSES: usize = 6;
const ROUNDS: usize = 10;
