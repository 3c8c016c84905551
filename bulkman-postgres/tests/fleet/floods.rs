//! Notifications that roles without a privilege send in large numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::FleetEvent;
use bulkman_postgres::sqlx::{self, AssertSqlSafe};
use bulkman_test_support::Postgres;

use crate::common::Database;
use crate::common::processes::{
    LONG, Processes, TIMEOUT, next, patient_settings, pause, store_with,
};

/// Fault C02.
pub(crate) async fn flood_of_notifications_suspends_push(runtime: impl Runtime + Clone) {
    let server = Postgres::start(&[]);
    let database = Database::on(&server);
    database.store("fleet").migrate().await.unwrap();
    // No statement is in flight when the flood begins: its poll would read all that arrives. A
    // session that timed out would lose what is left of the flood.
    let patient = || store_with(&database, patient_settings().resync_interval(LONG));
    let fleet = Processes::start(2, &runtime, LONG, patient).await;
    let mut events = fleet[0].fleet.events();
    let channel = {
        let channel = format!("SELECT {}.channel('fleet')", database.schema.name());
        let mut connection = database.connection().await;
        sqlx::query_scalar::<_, String>(AssertSqlSafe(channel))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    };
    let lateness = Lateness::start(&runtime);
    // 140 MB with a false authentication code.
    database
        .execute(&format!(
            "SELECT pg_notify('{channel}', '1|' || 9000000 + i || '|' || repeat('a', 64) || '|' \
                              || repeat('x', 7000) || i) FROM generate_series(1, 20000) i"
        ))
        .await;
    next(&mut events, |event| {
        matches!(event, FleetEvent::FellBackToPolling)
    })
    .await;
    for process in fleet.iter() {
        let polls = |process: &crate::common::processes::Process| {
            let snapshot = process.fleet.snapshot();
            snapshot.connected && snapshot.polling
        };
        process.until(polls).await;
    }
    let began = runtime.now();
    fleet[1].fail();
    fleet.all_reach(CircuitState::Open).await;
    let elapsed = runtime.now().saturating_duration_since(began);
    assert!(
        elapsed < Duration::from_secs(1) + SLACK,
        "an opening takes {elapsed:?} with polling"
    );
    // Notifications that are not received cost nothing.
    for _ in 0..3 {
        database
            .execute(&format!(
                "SELECT pg_notify('{channel}', 'noise' || i) FROM generate_series(1, 5000) i"
            ))
            .await;
    }
    fleet[1].bulkhead.circuit_breaker().unwrap().close();
    fleet.all_reach(CircuitState::Closed).await;
    let suspended = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event, FleetEvent::FellBackToPolling))
        .count();
    assert_eq!(suspended, 0, "one event for the flood");
    let worst = lateness.stop(&runtime).await;
    println!("    flood: late by at most {worst:?}");
    assert!(worst < MAX_LATENESS, "a task was late by {worst:?}");
}

/// How late a task runs because its thread does other work.
///
/// Time in which other programs use the processor does not count.
struct Lateness {
    stopped: Arc<AtomicBool>,
    worst: Arc<std::sync::Mutex<Option<Duration>>>,
}

impl Lateness {
    fn start(runtime: &(impl Runtime + Clone)) -> Self {
        let (stopped, worst) = (Arc::<AtomicBool>::default(), Arc::default());
        let task = {
            let (stopped, worst) = (Arc::clone(&stopped), Arc::clone(&worst));
            let runtime = runtime.clone();
            async move {
                let mut most = Duration::ZERO;
                while !stopped.load(Ordering::SeqCst) {
                    let before = busy_time();
                    let due: Instant = runtime.now() + Duration::from_millis(2);
                    runtime.sleep_until(due).await;
                    let late = runtime.now().saturating_duration_since(due);
                    let busy = match (before, busy_time()) {
                        (Some((thread, before)), Some((same, after))) if thread == same => {
                            after.saturating_sub(before)
                        }
                        // Another thread was free.
                        (Some(_), Some(_)) => Duration::ZERO,
                        _ => late,
                    };
                    most = most.max(late.min(busy));
                }
                *std::sync::Mutex::lock(&worst).unwrap() = Some(most);
            }
        };
        assert!(runtime.spawn(Box::pin(task)).is_ok());
        Self { stopped, worst }
    }

    async fn stop(self, runtime: &impl Runtime) -> Duration {
        self.stopped.store(true, Ordering::SeqCst);
        let deadline = runtime.now() + TIMEOUT;
        loop {
            if let Some(worst) = *self.worst.lock().unwrap() {
                return worst;
            }
            assert!(runtime.now() < deadline, "the task does not run");
            pause(runtime).await;
        }
    }
}

/// Returns this thread and how long it has run on a processor; `None` if the system does not count.
fn busy_time() -> Option<(ThreadId, Duration)> {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = counted.split_whitespace().next()?.parse().ok()?;
    Some((std::thread::current().id(), Duration::from_nanos(nanos)))
}

/// Several times what one slice of the driver's work takes without optimizations.
const MAX_LATENESS: Duration = Duration::from_millis(250);

/// For a slow machine that runs all tests at once.
const SLACK: Duration = Duration::from_secs(1);
