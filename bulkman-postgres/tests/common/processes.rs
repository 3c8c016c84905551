//! Processes that share the circuit `payments`, and helpers that wait for their states.

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{DecisionOutcome, Fleet, FleetEvent, FleetEvents};
use bulkman_core::store::StoreSettings;
use bulkman_core::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
use bulkman_postgres::{PostgresStore, PostgresStoreBuilder};

use super::Database;

/// Processes of one fleet, each with a separate session and bulkhead.
pub(crate) struct Processes(Vec<Process>);

pub(crate) struct Process {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) fleet: Fleet,
    pub(crate) bulkhead: Bulkhead,
}

impl std::ops::Deref for Processes {
    type Target = [Process];

    fn deref(&self) -> &[Process] {
        &self.0
    }
}

impl Processes {
    pub(crate) async fn start<R: Runtime + Clone>(
        count: usize,
        runtime: &R,
        isolation: Duration,
        store: impl Fn() -> PostgresStoreBuilder,
    ) -> Self {
        let mut processes = Vec::new();
        for _ in 0..count {
            let fleet = Fleet::new(store().build().unwrap(), runtime.clone()).unwrap();
            let config = BulkheadConfig::new("payments").isolation_duration(isolation);
            let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
            fleet.attach(&bulkhead).unwrap();
            processes.push(Process {
                runtime: Arc::new(runtime.clone()),
                fleet,
                bulkhead,
            });
        }
        for process in &processes {
            assert!(
                process.fleet.wait_ready(TIMEOUT).await,
                "{:?}",
                process.fleet
            );
        }
        Self(processes)
    }

    pub(crate) async fn all_reach(&self, state: CircuitState) {
        for process in self.iter() {
            process.reach(state).await;
        }
    }
}

impl Process {
    pub(crate) async fn call(
        &self,
        outcome: Result<(), &'static str>,
    ) -> Result<(), BulkheadError<&'static str>> {
        self.bulkhead.execute(std::future::ready(outcome)).await
    }

    pub(crate) fn fail(&self) {
        for _ in 0..5 {
            self.bulkhead.try_acquire().unwrap().fail();
        }
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.bulkhead.circuit_breaker().unwrap().state()
    }

    pub(crate) async fn reach(&self, state: CircuitState) {
        self.until(|process| process.state() == state).await;
    }

    /// Polls, since no single event signals all conditions.
    pub(crate) async fn until(&self, reached: impl Fn(&Self) -> bool) {
        let deadline = self.runtime.now() + TIMEOUT;
        while !reached(self) {
            assert!(
                self.runtime.now() < deadline,
                "timed out waiting: {:?} {:?}",
                self.state(),
                self.fleet
            );
            pause(&self.runtime).await;
        }
    }
}

pub(crate) fn store(database: &Database) -> PostgresStoreBuilder {
    store_at(&database.url, database)
}

pub(crate) fn store_with(database: &Database, settings: StoreSettings) -> PostgresStoreBuilder {
    store(database).settings(settings)
}

pub(crate) fn store_at(url: &str, database: &Database) -> PostgresStoreBuilder {
    PostgresStore::builder(url)
        .schema(database.schema.name())
        .namespace("fleet")
        .settings(settings())
}

pub(crate) fn settings() -> StoreSettings {
    StoreSettings::new()
        .operation_timeout(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(2))
        .resync_interval(Duration::from_millis(500))
        .backoff(Duration::from_millis(20), Duration::from_millis(200))
        // A decision is published however long a slow machine takes to recover.
        .outage_after(LONG)
        .lease_ttl(Duration::from_secs(30))
}

/// As [`settings`], where a timeout on a slow machine would change what is tested.
pub(crate) fn patient_settings() -> StoreSettings {
    settings()
        .connect_timeout(Duration::from_secs(20))
        .operation_timeout(Duration::from_secs(10))
}

pub(crate) async fn decision_outcome(events: &mut FleetEvents) -> DecisionOutcome {
    match next(events, |event| {
        matches!(event, FleetEvent::DecisionResolved { .. })
    })
    .await
    {
        FleetEvent::DecisionResolved { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn next(
    events: &mut FleetEvents,
    wanted: impl Fn(&FleetEvent) -> bool,
) -> FleetEvent {
    let mut others = Vec::new();
    let found = async {
        loop {
            let event = events.next().await.expect("the driver is running");
            if wanted(&event) {
                return Some(event);
            }
            others.push(event);
        }
    };
    let timed_out = async {
        smol::Timer::after(TIMEOUT).await;
        None
    };
    smol::future::or(found, timed_out)
        .await
        .unwrap_or_else(|| panic!("timed out waiting; other events: {others:?}"))
}

pub(crate) async fn pause(runtime: &impl Runtime) {
    runtime
        .sleep_until(runtime.now() + Duration::from_millis(5))
        .await;
}

/// Longer than any test runs.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);
pub(crate) const SHORT: Duration = Duration::from_millis(300);
/// The time limit of waits, for a slow machine that runs several copies of all tests at once.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
