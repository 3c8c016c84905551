//! A process that is killed while it holds a lease.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::store::{
    CircuitStore, Epoch, FleetState, OperationId, ProbeLease, ProbeReportResult, ProbeRequest,
    ProbeResult,
};
use bulkman_core::{Permit, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_postgres::sqlx::{self, AssertSqlSafe, Row};
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{
    LONG, Process, Processes, SHORT, TIMEOUT, pause, settings, store, store_with,
};
use crate::print_elapsed;

pub(crate) async fn lease_of_a_killed_holder_expires(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let short_lease = || store_with(&database, settings().lease_ttl(TTL));
    let fleet = Processes::start(1, &runtime, LONG, short_lease).await;
    let survivor = &fleet[0];
    let mut holder = Holder::start(&database);
    survivor.reach(CircuitState::HalfOpen).await;

    // A running holder renews its lease beyond the TTL.
    let initial = lease(&database).await;
    let mut held = initial.clone();
    while held.seconds_since(&initial) < 1.5 * TTL.as_secs_f64() {
        assert!(probe(survivor).is_none(), "the fleet has one lease");
        pause(&runtime).await;
        held = lease(&database).await;
        assert_eq!((held.token, &held.holder), (initial.token, &initial.holder));
    }

    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    let died = runtime.now();
    let dead = lease(&database).await;
    let permit = loop {
        if let Some(permit) = probe(survivor) {
            break permit;
        }
        let waited = runtime.now().saturating_duration_since(died);
        assert!(
            waited < TTL + TIMEOUT,
            "no process acquires the slot: {:?}",
            survivor.fleet
        );
        pause(&runtime).await;
    };
    print_elapsed("slot of a killed holder is available after", &runtime, died);
    let now = lease(&database).await;
    assert!(
        now.acquired_at >= dead.expires_at,
        "the lease was acquired before it expired: {now:?} {dead:?}"
    );
    assert_eq!((now.slot, now.epoch), (dead.slot, dead.epoch));
    assert_ne!(now.holder, dead.holder);

    // A late result of the killed process is fenced.
    let payments = BulkheadName::new("payments").unwrap();
    let late = store(&database).build().unwrap();
    let circuits = std::slice::from_ref(&payments);
    let mut session = CircuitStore::open_session(&late, circuits).await.unwrap();
    let request = ProbeRequest::new(
        payments,
        Epoch(dead.epoch),
        dead.holder.as_str().into(),
        TTL,
    );
    let result = ProbeResult::new(
        request,
        ProbeLease::new(dead.slot, dead.token),
        false,
        LONG,
        OperationId(99),
    );
    let report = session.report_probe(&result).await.unwrap();
    assert!(
        matches!(report, ProbeReportResult::Lost { .. }),
        "{report:?}"
    );
    let status = late.admin().status().await.unwrap();
    assert_eq!(
        status[0].state,
        FleetState::HalfOpen,
        "the late result does not reopen the circuit"
    );

    permit.succeed();
    survivor
        .until(|process| {
            if let Some(permit) = probe(process) {
                permit.succeed();
            }
            process.state() == CircuitState::Closed
        })
        .await;
}

/// The process that is killed: it opens the circuit, acquires a lease, prints a line, and keeps its
/// probe running. It exits when its parent does.
pub(crate) async fn hold_a_lease(runtime: impl Runtime + Clone, url: &str, schema: &str) {
    let store = || {
        PostgresStore::builder(url)
            .schema(schema)
            .namespace("fleet")
            .settings(settings().lease_ttl(TTL))
    };
    let fleet = Processes::start(1, &runtime, SHORT, store).await;
    fleet[0].fail();
    fleet[0].reach(CircuitState::HalfOpen).await;
    let _permit = loop {
        match probe(&fleet[0]) {
            Some(permit) => break permit,
            None => pause(&runtime).await,
        }
    };
    println!("holding");
    // The session stays active: only reading standard input uses a separate thread.
    let waiting = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !waiting.is_finished() {
        pause(&runtime).await;
    }
}

/// Returns a permit for a probe, if the process has a lease.
fn probe(process: &Process) -> Option<Permit> {
    if process.state() != CircuitState::HalfOpen {
        return None;
    }
    process.bulkhead.try_acquire().ok()
}

struct Holder(Child);

impl Holder {
    /// Starts the process, and waits until it holds the lease.
    fn start(database: &Database) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["hold-a-lease", &database.url, database.schema.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let holder = Self(child);
        assert_eq!(line, "holding\n");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _already_exited = self.0.kill();
        let _status = self.0.wait();
    }
}

#[derive(Clone, Debug)]
struct Lease {
    slot: u16,
    epoch: u64,
    token: u64,
    holder: String,
    expires_at: f64,
    acquired_at: f64,
}

impl Lease {
    fn seconds_since(&self, other: &Self) -> f64 {
        self.expires_at - other.expires_at
    }
}

/// Returns the only lease of the table, with times in seconds.
async fn lease(database: &Database) -> Lease {
    let mut connection = database.connection().await;
    let statement = format!(
        "SELECT slot, epoch, token, holder, extract(epoch FROM expires_at)::float8 AS expires_at, \
                extract(epoch FROM expires_at - ttl)::float8 AS acquired_at FROM {}.probe",
        database.schema.name()
    );
    let row = sqlx::query(AssertSqlSafe(statement))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    Lease {
        slot: row.get::<i16, _>("slot").unsigned_abs(),
        epoch: row.get::<i64, _>("epoch").unsigned_abs(),
        token: row.get::<i64, _>("token").unsigned_abs(),
        holder: row.get::<Option<String>, _>("holder").unwrap_or_default(),
        expires_at: row.get("expires_at"),
        acquired_at: row.get("acquired_at"),
    }
}

const TTL: Duration = Duration::from_secs(2);
