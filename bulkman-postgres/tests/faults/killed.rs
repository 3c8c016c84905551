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
use crate::common::processes::{LONG, PATIENCE, Process, Processes, SHORT, pause, store};
use crate::took;

pub(crate) async fn a_killed_holders_slot_is_free_after_its_term(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let fleet = Processes::start(1, &runtime, LONG, || store(&database).lease_ttl(TERM)).await;
    let survivor = &fleet[0];
    let mut holder = Holder::start(&database);
    survivor.reach(CircuitState::HalfOpen).await;

    // Alive and busy: it keeps its lease beyond the term.
    let begun = lease(&database).await;
    let mut held = begun.clone();
    while held.seconds_since(&begun) < 1.5 * TERM.as_secs_f64() {
        assert!(probe(survivor).is_none(), "one lease in the fleet");
        pause(&runtime).await;
        held = lease(&database).await;
        assert_eq!((held.token, &held.holder), (begun.token, &begun.holder));
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
            waited < TERM + PATIENCE,
            "nobody gets the slot: {:?}",
            survivor.fleet
        );
        pause(&runtime).await;
    };
    took("slot of a killed holder is free after", &runtime, died);
    let now = lease(&database).await;
    assert!(
        now.taken_at >= dead.expires_at,
        "not before its term was over: {now:?} {dead:?}"
    );
    assert_eq!((now.slot, now.epoch), (dead.slot, dead.epoch));
    assert_ne!(now.holder, dead.holder);

    // What the dead one might have sent last, had it been a little slower.
    let payments = BulkheadName::new("payments").unwrap();
    let late = store(&database).build().unwrap();
    let circuits = std::slice::from_ref(&payments);
    let mut session = CircuitStore::open_session(&late, circuits).await.unwrap();
    let request = ProbeRequest::new(
        payments,
        Epoch(dead.epoch),
        dead.holder.as_str().into(),
        TERM,
    );
    let verdict = ProbeResult::new(
        request,
        ProbeLease::new(dead.slot, dead.token),
        false,
        LONG,
        OperationId(99),
    );
    let report = session.report_probe(&verdict).await.unwrap();
    assert!(
        matches!(report, ProbeReportResult::Lost { .. }),
        "{report:?}"
    );
    let status = late.admin().status().await.unwrap();
    assert_eq!(status[0].state, FleetState::HalfOpen, "it reopens nothing");

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

/// The life of the process that is killed: it opens the circuit, waits until it may probe, says so,
/// and never ends its call. It ends with its parent.
pub(crate) async fn hold_a_lease(runtime: impl Runtime + Clone, url: &str, schema: &str) {
    let store = || {
        PostgresStore::builder(url)
            .schema(schema)
            .namespace("fleet")
            .operation_timeout(Duration::from_secs(1))
            .lease_ttl(TERM)
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
    // The link lives on: only the reading has a thread to itself.
    let waiting = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !waiting.is_finished() {
        pause(&runtime).await;
    }
}

/// A permit for a probe, if there is a lease for it.
fn probe(process: &Process) -> Option<Permit> {
    if process.state() != CircuitState::HalfOpen {
        return None;
    }
    process.bulkhead.try_acquire().ok()
}

struct Holder(Child);

impl Holder {
    /// Returns once it holds its lease.
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
        let _ended_already = self.0.kill();
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
    taken_at: f64,
}

impl Lease {
    fn seconds_since(&self, other: &Self) -> f64 {
        self.expires_at - other.expires_at
    }
}

/// The one lease, as the table has it, with its times in seconds.
async fn lease(database: &Database) -> Lease {
    let mut connection = database.connection().await;
    let statement = format!(
        "SELECT slot, epoch, token, holder, extract(epoch FROM expires_at)::float8 AS expires_at, \
                extract(epoch FROM expires_at - ttl)::float8 AS taken_at FROM {}.probe",
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
        taken_at: row.get("taken_at"),
    }
}

const TERM: Duration = Duration::from_secs(2);
