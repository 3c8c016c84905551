//! Databases that were restored from a backup.

use bulkman_core::Runtime;
use bulkman_core::circuit_breaker::CircuitState;
use bulkman_core::fleet::{FleetEvent, FleetEvents};
use bulkman_core::store::FleetState;

use crate::common::Database;
use crate::common::processes::{LONG, Processes, next, store};

pub(crate) async fn lost_history_is_detected(runtime: impl Runtime + Clone) {
    let database = Database::new().await;
    let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
    fleet[0].fail();
    fleet.all_reach(CircuitState::Open).await;
    let events = [0, 1].map(|index| fleet[index].fleet.events());
    // The effect of restoring a backup from before the opening.
    database
        .execute(
            "UPDATE \"bulkman\".namespace SET rev = 0; \
             UPDATE \"bulkman\".circuit SET state = 0, epoch = 0, rev = 0, open_count = 0, op_id = 0",
        )
        .await;
    opening_is_republished(&fleet, events).await;
}

/// The tables are restored on a running server and changed before the next read, so that the
/// revision is the same or higher.
pub(crate) async fn lost_history_is_detected_after_other_changes(runtime: impl Runtime + Clone) {
    for others in [1, 5] {
        let database = Database::new().await;
        let fleet = Processes::start(2, &runtime, LONG, || store(&database)).await;
        database
            .execute(
                "INSERT INTO \"bulkman\".circuit (namespace, name) VALUES ('fleet', 'search'); \
                 CREATE TABLE \"bulkman\".saved_namespace AS TABLE \"bulkman\".namespace; \
                 CREATE TABLE \"bulkman\".saved_circuit AS TABLE \"bulkman\".circuit",
            )
            .await;
        fleet[0].fail();
        fleet.all_reach(CircuitState::Open).await;
        let events = [0, 1].map(|index| fleet[index].fleet.events());
        database
            .execute(&format!(
                "BEGIN; \
                 DELETE FROM \"bulkman\".namespace; \
                 INSERT INTO \"bulkman\".namespace TABLE \"bulkman\".saved_namespace; \
                 INSERT INTO \"bulkman\".circuit TABLE \"bulkman\".saved_circuit; \
                 SELECT \"bulkman\".reset('fleet', 'search', 'change ' || n) \
                   FROM generate_series(1, {others}) AS n; \
                 COMMIT",
            ))
            .await;
        opening_is_republished(&fleet, events).await;
        let status = database.store("fleet").admin().status().await.unwrap();
        assert_eq!(
            status[0].state,
            FleetState::Open,
            "after {others} other changes"
        );
        drop(fleet);
    }
}

/// Waits until one of the processes has found the loss, and both the opening that has not expired.
///
/// Only the process that reads first detects it, since it republishes the opening.
async fn opening_is_republished(fleet: &Processes, [mut here, mut there]: [FleetEvents; 2]) {
    let lost = |event: &FleetEvent| matches!(event, FleetEvent::HistoryLost);
    smol::future::or(next(&mut here, lost), next(&mut there, lost)).await;
    for process in fleet.iter() {
        process
            .until(|process| {
                let snapshot = process.fleet.snapshot();
                let mut circuits = snapshot.circuits.iter();
                let payments = circuits.find(|it| it.name.as_str() == "payments");
                snapshot.pending == 0
                    && payments.is_some_and(|it| it.state == Some(FleetState::Open))
            })
            .await;
        assert_eq!(
            process.state(),
            CircuitState::Open,
            "the unexpired opening was republished"
        );
    }
}
