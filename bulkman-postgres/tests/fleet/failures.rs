//! Failures in the middle of operations: lost responses, a dropped driver, lost counts, clock
//! steps, a changed schema, forged notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::Fleet;
use bulkman_core::fleet::{DecisionOutcome, FleetEvent};
use bulkman_core::runtime::{BoxFuture, Sleep};
use bulkman_core::store::StoreError;
use bulkman_core::store::{FaultStore, FleetCountPolicy, FleetState, SharingMode};
use bulkman_core::{Bulkhead, BulkheadConfig, Runtime};
use bulkman_postgres::sqlx;
use bulkman_test_support::{Postgres, StopMode};

use crate::common::Database;
use crate::common::processes::{
    LONG, Processes, TIMEOUT, decision_outcome, next, pause, settings, store, store_with,
};

/// The server takes longer than the client's timeout, and then applies the change, or is killed:
/// the client doesn't know the result.
pub(crate) async fn unknown_result_is_resolved_by_operation_id(runtime: impl Runtime + Clone) {
    for killed in [false, true] {
        let database = Database::new().await;
        let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
        let mut events = fleet[0].fleet.events();
        // The delay is after the decision and before the commit.
        database
            .execute(
                "CREATE SEQUENCE \"bulkman\".attempts; \
                 CREATE FUNCTION \"bulkman\".delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   IF nextval('\"bulkman\".attempts') = 1 THEN PERFORM pg_sleep(3); END IF; \
                   RETURN NULL; \
                 END $$; \
                 CREATE TRIGGER delay AFTER UPDATE ON \"bulkman\".circuit \
                   FOR EACH ROW EXECUTE FUNCTION \"bulkman\".delay()",
            )
            .await;
        fleet[0].fail();
        next(&mut events, |event| {
            matches!(event, FleetEvent::Degraded { .. })
        })
        .await;
        if killed {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%\"bulkman\"%'";
            database.execute(kill).await;
        }
        assert_eq!(
            decision_outcome(&mut events).await,
            DecisionOutcome::Published
        );
        fleet.all_reach(CircuitState::Open).await;
        let admin = database.store("fleet").admin();
        let payments = admin.status().await.unwrap().remove(0);
        let context = format!("killed: {killed}, {payments:?}");
        assert_eq!(
            (payments.state, payments.open_count),
            (FleetState::Open, 1),
            "{context}"
        );
        assert_eq!(
            admin.history(None, 10).await.unwrap().len(),
            1,
            "applied once: {context}"
        );
    }
}

/// At whatever point the driver is dropped, its connection closes, and no transaction stays open.
pub(crate) async fn dropped_driver_leaves_no_open_transaction(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    // Dropped while it connects, where most polls hash the password, and later.
    let connecting = (0..1_000).step_by(83).map(|polls| (polls, false));
    let connected = (0..60).map(|polls| (polls, true));
    for (polls, connected) in connecting.chain(connected) {
        let dropping = DroppingRuntime::new(runtime.clone(), polls, !connected);
        let built = store(&database).build().unwrap();
        // Dropped before the first poll, the task is reported by the constructor.
        let Ok(fleet) = Fleet::new(built, dropping.clone()) else {
            assert_eq!(polls, 0);
            continue;
        };
        let config = BulkheadConfig::new("payments").isolation_duration(Duration::from_millis(1));
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        fleet.attach(&bulkhead).unwrap();
        let circuit = bulkhead.circuit_breaker().unwrap();
        if connected {
            assert!(fleet.wait_ready(TIMEOUT).await);
            dropping.counts.store(true, Ordering::Relaxed);
        }
        // The driver is always busy with openings, probes and results.
        while !dropping.dropped.load(Ordering::Relaxed) {
            match bulkhead.try_acquire() {
                Ok(permit) if polls % 2 == 0 => permit.fail(),
                Ok(permit) => permit.succeed(),
                Err(_) => {}
            }
            circuit.open_for(Duration::from_millis(1));
            pause(&runtime).await;
        }
        // Calls continue.
        circuit.close();
        assert!(bulkhead.try_acquire().is_ok());
    }
    let mut connection = database.connection().await;
    let left = "SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%'), count(*) \
                FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%' || $1 || '%'";
    let deadline = runtime.now() + TIMEOUT;
    loop {
        let (open, all): (i64, i64) = sqlx::query_as(left)
            .bind(database.schema.name())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(open, 0, "a transaction was left open");
        // The server detects closed connections with a delay.
        if all == 0 {
            break;
        }
        assert!(runtime.now() < deadline, "{all} connections were left");
        pause(&runtime).await;
    }
    // No lock is held.
    let admin = database.store("fleet").admin();
    assert_eq!(
        admin.reset("payments", "ada", "").await.unwrap().state,
        FleetState::Closed
    );
}

/// A crash empties only the table of counts, which is unlogged.
pub(crate) async fn crash_clears_counts_but_keeps_state(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    let policy = FleetCountPolicy::new(Duration::from_secs(60), 10).failure_count_threshold(8);
    let counting = || {
        let settings = settings()
            .share(SharingMode::Counts(policy))
            .flush_interval(Duration::from_millis(50));
        store_with(&database, settings)
    };
    let fleet = Processes::start(2, &runtime, LONG, counting).await;
    // Never five consecutive failures: 4 are counted before the crash, and 4 after it.
    let four = |process: usize| {
        for _ in 0..4 {
            fleet[process].bulkhead.try_acquire().unwrap().fail();
        }
        fleet[process].bulkhead.try_acquire().unwrap().succeed();
    };
    four(0);
    until_counted(&database, &runtime, 4).await;
    database
        .execute(
            "INSERT INTO \"bulkman\".circuit (namespace, name, state, epoch) VALUES ('fleet', 'held', 3, 7)",
        )
        .await;
    server.stop(StopMode::Immediate);
    server.restart();
    for process in fleet.iter() {
        process
            .until(|process| process.fleet.snapshot().connected)
            .await;
    }
    four(1);
    until_counted(&database, &runtime, 4).await;
    let status = database.store("fleet").admin().status().await.unwrap();
    let states: Vec<_> = status
        .iter()
        .map(|it| (it.circuit.as_str(), it.state, it.epoch.0))
        .collect();
    assert_eq!(
        states,
        [
            ("held", FleetState::ForcedOpen, 7),
            ("payments", FleetState::Closed, 0)
        ]
    );
    four(0);
    fleet.all_reach(CircuitState::Open).await;
}

pub(crate) async fn clock_step_is_reported(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    fleet[0]
        .bulkhead
        .circuit_breaker()
        .unwrap()
        .open_for(Duration::from_secs(1_000));
    fleet.all_reach(CircuitState::Open).await;
    for (by, forward) in [(-600, false), (600, true)] {
        let mut events: Vec<_> = fleet.iter().map(|process| process.fleet.events()).collect();
        database.shift_clock(by * 1_000_000).await;
        for events in &mut events {
            let stepped = next(events, |event| {
                matches!(event, FleetEvent::ClockStepped { .. })
            })
            .await;
            let FleetEvent::ClockStepped {
                by: step,
                forward: went,
            } = stepped
            else {
                unreachable!()
            };
            assert_eq!(went, forward);
            assert!(
                step.abs_diff(Duration::from_secs(600)) < Duration::from_secs(10),
                "{step:?}"
            );
        }
        // Known deadlines use the local clock, which has not stepped.
        for process in fleet.iter() {
            let left = process
                .call(Ok(()))
                .await
                .unwrap_err()
                .retry_after()
                .unwrap();
            assert!(
                left > Duration::from_secs(900) && left <= Duration::from_secs(1_000),
                "{left:?}"
            );
        }
    }
    // A later decision is published: its time limit uses the new clock.
    fleet[1].bulkhead.circuit_breaker().unwrap().close();
    fleet.all_reach(CircuitState::Closed).await;
}

/// The schema is migrated to a version that this library does not support.
pub(crate) async fn too_new_schema_is_reported(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(1, &runtime, LONG, || store(&database)).await;
    let mut events = fleet[0].fleet.events();
    database
        .execute(
            "UPDATE \"bulkman\".meta SET version = 9, oldest_client = 9; \
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND query LIKE '%\"bulkman\"%'",
        )
        .await;
    let degraded = next(&mut events, |event| {
        matches!(
            event,
            FleetEvent::Degraded {
                error: StoreError::Incompatible { .. }
            }
        )
    });
    let degraded = format!("{:?}", degraded.await);
    assert!(
        degraded.contains("newer version of this library"),
        "{degraded}"
    );
    fleet[0].fail();
    assert_eq!(
        fleet[0].state(),
        CircuitState::Open,
        "the local circuit breaker decides"
    );
    let error = fleet[0].fleet.snapshot().error.unwrap();
    assert!(error.contains("newer version of this library"), "{error}");
    database
        .execute("UPDATE \"bulkman\".meta SET version = 1, oldest_client = 1")
        .await;
    assert_eq!(
        decision_outcome(&mut events).await,
        DecisionOutcome::Published
    );
}

/// Every role that can connect can send notifications.
pub(crate) async fn forged_notifications_change_nothing(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let counting = FaultStore::new(store(&database).build().unwrap(), runtime.clone());
    let fleet = Fleet::new(counting.clone(), runtime.clone()).unwrap();
    let bulkhead = Bulkhead::new(BulkheadConfig::new("payments"), runtime.clone()).unwrap();
    fleet.attach(&bulkhead).unwrap();
    assert!(fleet.wait_ready(TIMEOUT).await);
    let forge = "SELECT pg_notify(\"bulkman\".channel('fleet'), payload || n) \
                 FROM generate_series(1000, 1200) AS n, \
                      unnest('{1|, 1|0, 2|, 1|open|payments|, x, \"1|1|1|3|payments;\"}'::text[]) AS payload";
    let (before, began) = (counting.operations(), runtime.now());
    for _ in 0..20 {
        database.execute(forge).await;
    }
    // An authentic notification follows the forged ones.
    let view = database
        .store("fleet")
        .admin()
        .force_open("payments", "ada", "")
        .await
        .unwrap();
    let circuit = bulkhead.circuit_breaker().unwrap();
    let deadline = began + TIMEOUT;
    while circuit.state() != CircuitState::ForcedOpen {
        assert!(
            runtime.now() < deadline,
            "the authentic notification is not received: {fleet:?}"
        );
        pause(&runtime).await;
    }
    let seconds = runtime.now().saturating_duration_since(began).as_secs_f64();
    let reads = (counting.operations() - before) as f64;
    assert!(
        reads <= 12.0 * seconds + 5.0,
        "24,000 forged notifications caused {reads} reads in {seconds} s"
    );
    let snapshot = fleet.snapshot();
    // Push may be suspended.
    assert_eq!((snapshot.circuits[0].epoch, view.epoch.0), (view.epoch, 1));
}

async fn until_counted(database: &Database, runtime: &impl Runtime, wanted: i64) {
    let mut connection = database.connection().await;
    let count = format!(
        "SELECT coalesce(sum(failures), 0)::bigint FROM {}.count_bucket",
        database.schema.name()
    );
    loop {
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(found <= wanted, "{found} were counted");
        if found == wanted {
            return;
        }
        pause(runtime).await;
    }
}

/// A runtime that drops a task after a number of polls.
#[derive(Clone, Debug)]
struct DroppingRuntime {
    inner: Arc<dyn Runtime>,
    polls: usize,
    /// Whether polls are counted.
    counts: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

impl DroppingRuntime {
    fn new(inner: impl Runtime, polls: usize, counts: bool) -> Self {
        Self {
            inner: Arc::new(inner),
            polls,
            counts: Arc::new(counts.into()),
            dropped: Arc::default(),
        }
    }
}

impl Runtime for DroppingRuntime {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.inner.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let (mut task, mut left) = (Some(task), self.polls);
        let (counts, dropped) = (Arc::clone(&self.counts), Arc::clone(&self.dropped));
        self.inner
            .spawn(Box::pin(std::future::poll_fn(move |context| {
                if let Some(running) = task
                    .as_mut()
                    .filter(|_| left > 0 || !counts.load(Ordering::Relaxed))
                {
                    if counts.load(Ordering::Relaxed) {
                        left -= 1;
                    }
                    if running.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                task = None;
                dropped.store(true, Ordering::Relaxed);
                Poll::Ready(())
            })))
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.inner.spawn_blocking(job);
    }
}
