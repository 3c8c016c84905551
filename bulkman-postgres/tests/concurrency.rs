//! Concurrent sessions: no limit is exceeded, no change is lost, and nothing deadlocks.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitStore, Epoch, Fingerprint, FleetAction, FleetCommand, FleetState, OperationId,
    ProbePolicy, ProbeReportResult, ProbeRequest, ProbeResult, ProbeRule, RejectReason,
    StoreChange, StoreSession, StoreTransition, StoreVote, TransitionResult, VoteResult,
};
use bulkman_postgres::sqlx::{self, Connection, Executor, Row};
use tokio::task::JoinSet;

use common::{Database, on_tokio};

#[test]
fn concurrent_migrations_succeed() {
    on_tokio(async {
        let database = Arc::new(Database::without_schema());
        for _ in 0..10 {
            let mut processes = JoinSet::new();
            for _ in 0..50 {
                let store = database.store("x");
                processes.spawn(async move { store.migrate().await });
            }
            for outcome in processes.join_all().await {
                outcome.unwrap();
            }
        }
        assert_eq!(database.store("x").check().await.unwrap(), []);
    });
}

#[test]
fn concurrent_requests_get_exactly_the_limit_of_leases() {
    on_tokio(async {
        let database = Database::new().await;
        for limit in [1, 3, 5] {
            let namespace = format!("limit {limit}");
            let store = Arc::new(database.store(&namespace));
            let mut admin = store_session(&store).await;
            let mut contenders = Vec::new();
            for _ in 0..20 {
                contenders.push(store_session(&store).await);
            }
            let mut epoch = Epoch(0);
            for round in 0..25_u64 {
                let probe_policy =
                    ProbePolicy::new(limit, ProbeRule::Consecutive { successes: 100 });
                let mut half_open =
                    transition(epoch, StoreChange::HalfOpen { probe_policy }, round + 1);
                half_open.manual = true;
                let TransitionResult::Applied(view) = admin.transition(&half_open).await.unwrap()
                else {
                    panic!("manual half-open is applied")
                };
                epoch = view.epoch;
                let mut requests = JoinSet::new();
                for (index, mut contender) in contenders.drain(..).enumerate() {
                    requests.spawn(async move {
                        let request = request(epoch, &format!("contender {index}"));
                        let lease = contender.acquire_probe(&request).await.unwrap();
                        (contender, lease)
                    });
                }
                let mut slots = Vec::new();
                for (contender, lease) in requests.join_all().await {
                    contenders.push(contender);
                    slots.extend(lease.map(|lease| lease.slot));
                }
                // A request that skipped a locked row is repeated, as the driver does.
                for contender in &mut contenders {
                    let request = request(epoch, "late");
                    if slots.len() < usize::from(limit) {
                        slots.extend(
                            contender
                                .acquire_probe(&request)
                                .await
                                .unwrap()
                                .map(|l| l.slot),
                        );
                    }
                }
                slots.sort_unstable();
                assert_eq!(
                    slots,
                    (0..limit).collect::<Vec<_>>(),
                    "each slot is leased once"
                );
            }
        }
    });
}

#[test]
fn concurrent_results_cause_one_transition() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("results"));
        let mut reporters = Vec::new();
        for _ in 0..5 {
            reporters.push(store_session(&store).await);
        }
        let mut epoch = Epoch(0);
        for round in 1..=500_u64 {
            let probe_policy = ProbePolicy::new(5, ProbeRule::Consecutive { successes: 5 });
            let mut half_open =
                transition(epoch, StoreChange::HalfOpen { probe_policy }, round << 16);
            half_open.manual = true;
            let TransitionResult::Applied(view) =
                reporters[0].transition(&half_open).await.unwrap()
            else {
                panic!("manual half-open is applied")
            };
            epoch = view.epoch;
            let mut leases = Vec::new();
            for (index, reporter) in reporters.iter_mut().enumerate() {
                let request = request(epoch, &index.to_string());
                leases.push(reporter.acquire_probe(&request).await.unwrap().unwrap());
            }
            let success = round % 2 == 0;
            let mut reporting = JoinSet::new();
            for (index, (mut reporter, lease)) in reporters.drain(..).zip(leases).enumerate() {
                reporting.spawn(async move {
                    let operation = OperationId((round << 16) + 1 + index as u64);
                    let request = request(epoch, &index.to_string());
                    let result = ProbeResult::new(request, lease, success, OPEN_FOR, operation);
                    let report = reporter.report_probe(&result).await.unwrap();
                    (reporter, report)
                });
            }
            let mut decided = 0;
            for (reporter, report) in reporting.join_all().await {
                reporters.push(reporter);
                match report {
                    ProbeReportResult::Decided(_) => decided += 1,
                    ProbeReportResult::Counted { .. } => assert!(success, "a failure decides"),
                    ProbeReportResult::Lost { current } => {
                        let current = current.unwrap();
                        assert!(!success, "no success is fenced");
                        assert_eq!(
                            (current.state, current.epoch.0),
                            (FleetState::Open, epoch.0 + 1)
                        );
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(decided, 1, "round {round}");
            epoch = Epoch(epoch.0 + 1);
        }
        check_fingerprint(&store).await;
    });
}

/// Four processes report outcomes of the same circuits, two of them in the opposite order. The last
/// two send the same batch, as after a lost response.
#[test]
fn concurrent_batches_of_results_count_once_without_deadlock() {
    on_tokio(async {
        const CIRCUITS: u16 = 40;
        let database = Database::new().await;
        let store = Arc::new(database.store("batches"));
        let names: Vec<_> = (0..CIRCUITS)
            .map(|i| BulkheadName::new(format!("c{i:02}")).unwrap())
            .collect();
        let mut blocker = database.connection().await;
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(CircuitStore::open_session(&*store, &names).await.unwrap());
        }
        for round in 0..6_u64 {
            // Three results close, of which each process has one.
            let probe_policy = ProbePolicy::new(3, ProbeRule::Consecutive { successes: 3 });
            let epoch = Epoch(2 * round + 1);
            let operation = |process: u64, circuit: usize| {
                OperationId((round << 32) + (process << 16) + 1 + circuit as u64)
            };
            let half_open = |(circuit, name): (usize, &BulkheadName)| {
                let change = StoreChange::HalfOpen { probe_policy };
                let (base, operation) = (Epoch(2 * round), operation(9, circuit));
                let mut half_open = StoreTransition::new(name.clone(), base, change, operation);
                half_open.manual = true;
                half_open
            };
            let half_open: Vec<_> = names.iter().enumerate().map(half_open).collect();
            for result in sessions[0].transitions(&half_open).await.unwrap() {
                assert!(matches!(result, TransitionResult::Applied(_)), "{result:?}");
            }
            let mut batches = Vec::new();
            for (process, session) in (0..3_u64).zip(&mut sessions) {
                let request = |name: &BulkheadName| {
                    ProbeRequest::new(name.clone(), epoch, process.to_string().into(), OPEN_FOR)
                };
                let requests: Vec<_> = names.iter().map(request).collect();
                let leases = session.acquire_probes(&requests).await.unwrap();
                let result = |(circuit, (request, lease)): (usize, (_, Option<_>))| {
                    let operation = operation(process, circuit);
                    ProbeResult::new(request, lease.unwrap(), true, OPEN_FOR, operation)
                };
                let results = requests.into_iter().zip(leases).enumerate().map(result);
                batches.push(results.collect::<Vec<_>>());
            }
            batches.push(batches[2].clone());
            batches[1].reverse();
            batches[3].reverse();
            // All wait for the rows of one circuit, and have locked those before it.
            let table = ["probe", "circuit"][(round % 2) as usize];
            let lock = format!(
                "BEGIN; SELECT FROM {}.{table} WHERE name = 'c20' FOR UPDATE",
                database.schema.name()
            );
            run(&mut blocker, lock).await;
            let mut reporting = JoinSet::new();
            for (mut session, batch) in sessions.drain(..).zip(batches) {
                reporting.spawn(async move {
                    let reports = session.report_probes(&batch).await.unwrap();
                    assert_eq!(reports.len(), batch.len());
                    for (report, result) in reports.iter().zip(&batch) {
                        let view = match report {
                            ProbeReportResult::Counted { current, .. }
                            | ProbeReportResult::Decided(current)
                            | ProbeReportResult::Lost {
                                current: Some(current),
                            } => current,
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(view.circuit, result.request.circuit);
                    }
                    session
                });
            }
            while blocked_by(&mut blocker).await < 4 {}
            run(&mut blocker, "COMMIT".to_owned()).await;
            sessions.extend(reporting.join_all().await);
            let snapshot = sessions[0].snapshot(None).await.unwrap();
            let expected = (FleetState::Closed, Epoch(epoch.0 + 1));
            let states = snapshot
                .circuits
                .iter()
                .map(|view| (view.state, view.epoch));
            let different = states.filter(|state| *state != expected).count();
            // Circuit `a` is not among them: it was never registered here.
            assert_eq!((snapshot.circuits.len(), different), (names.len(), 0));
            assert_eq!(
                snapshot.revision.0,
                epoch.0.div_ceil(2) * 2 * u64::from(CIRCUITS)
            );
        }
        check_fingerprint(&store).await;
    });
}

/// Two sessions of one process renew, and then release, the same leases in opposite orders.
#[test]
fn concurrent_batches_of_leases_do_not_deadlock() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("leases"));
        let names: Vec<_> = (0..40)
            .map(|i| BulkheadName::new(format!("c{i:02}")).unwrap())
            .collect();
        let mut blocker = database.connection().await;
        let lock = format!(
            "BEGIN; SELECT FROM {}.probe WHERE name = 'c20' FOR UPDATE",
            database.schema.name()
        );
        let mut sessions = Vec::new();
        for _ in 0..2 {
            sessions.push(CircuitStore::open_session(&*store, &names).await.unwrap());
        }
        let half_open = |name: &BulkheadName| {
            let probe_policy = ProbePolicy::default();
            let change = StoreChange::HalfOpen { probe_policy };
            let mut half_open =
                StoreTransition::new(name.clone(), Epoch(0), change, OperationId(1));
            half_open.manual = true;
            half_open
        };
        let half_open: Vec<_> = names.iter().map(half_open).collect();
        sessions[0].transitions(&half_open).await.unwrap();
        let request =
            |name: &BulkheadName| ProbeRequest::new(name.clone(), Epoch(1), "x".into(), OPEN_FOR);
        let requests: Vec<_> = names.iter().map(request).collect();
        let leases = sessions[0].acquire_probes(&requests).await.unwrap();
        let held: Vec<_> = requests
            .into_iter()
            .zip(leases.into_iter().flatten())
            .collect();
        assert_eq!(held.len(), names.len());
        for releases in [false, true] {
            run(&mut blocker, lock.clone()).await;
            let mut running = JoinSet::new();
            for (index, mut session) in sessions.drain(..).enumerate() {
                let mut held = held.clone();
                if index == 1 {
                    held.reverse();
                }
                running.spawn(async move {
                    if releases {
                        session.release_probes(&held).await.unwrap();
                    } else {
                        let renewed = session.renew_probes(&held).await.unwrap();
                        assert!(renewed.iter().all(Option::is_some), "{renewed:?}");
                    }
                    session
                });
            }
            while blocked_by(&mut blocker).await < 2 {}
            run(&mut blocker, "COMMIT".to_owned()).await;
            sessions.extend(running.join_all().await);
        }
        let renewed = sessions[0].renew_probes(&held).await.unwrap();
        assert!(renewed.iter().all(Option::is_none), "{renewed:?}");
    });
}

#[test]
fn concurrent_votes_reach_the_quorum_once() {
    on_tokio(async {
        let database = Database::new().await;
        for round in 0..30 {
            let store = Arc::new(database.store(&format!("votes {round}")));
            let mut voting = JoinSet::new();
            let mut sessions = Vec::new();
            for _ in 0..3 {
                sessions.push(store_session(&store).await);
            }
            for (index, mut session) in sessions.into_iter().enumerate() {
                voting.spawn(async move {
                    let opening = transition(Epoch(0), open(), 1 + index as u64);
                    let voter = Arc::from(index.to_string());
                    session
                        .vote(&StoreVote::new(opening, voter, 3, OPEN_FOR))
                        .await
                        .unwrap()
                });
            }
            let results = voting.join_all().await;
            let opened = results
                .iter()
                .filter(|result| matches!(result, VoteResult::Opened(_)))
                .count();
            assert_eq!(
                opened, 1,
                "three votes reach a quorum of three: {results:?}"
            );
            check_fingerprint(&store).await;
        }
    });
}

#[test]
fn concurrent_openings_have_one_winner_per_circuit() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("opening"));
        let circuits: Arc<[BulkheadName]> = (0..200)
            .map(|i| BulkheadName::new(format!("c{i}")).unwrap())
            .collect();
        let mut opening = JoinSet::new();
        for process in 0..20_u64 {
            let (store, circuits) = (Arc::clone(&store), Arc::clone(&circuits));
            opening.spawn(async move {
                let mut session = CircuitStore::open_session(&*store, &circuits)
                    .await
                    .unwrap();
                let mut won = 0;
                for (index, circuit) in circuits.iter().enumerate() {
                    let operation = OperationId((process << 16) + 1 + index as u64);
                    let opening =
                        StoreTransition::new(circuit.clone(), Epoch(0), open(), operation);
                    match session.transition(&opening).await.unwrap() {
                        TransitionResult::Applied(_) => won += 1,
                        TransitionResult::Rejected {
                            reason: RejectReason::Stale,
                            current,
                        } => {
                            assert_eq!(
                                current.state,
                                FleetState::Open,
                                "the current state is returned"
                            );
                        }
                        other => panic!("{other:?}"),
                    }
                }
                won
            });
        }
        assert_eq!(
            opening.join_all().await.into_iter().sum::<usize>(),
            200,
            "one winner per circuit"
        );
        check_fingerprint(&store).await;
    });
}

#[test]
fn reader_by_revision_misses_no_change() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("revisions"));
        let circuits: Vec<BulkheadName> = (0..8)
            .map(|i| BulkheadName::new(format!("c{i}")).unwrap())
            .collect();
        // Opened before the writers start, so that every change is an increment.
        let mut reader = CircuitStore::open_session(&*store, &circuits)
            .await
            .unwrap();
        let mut since = reader.snapshot(None).await.unwrap().revision;
        let mut writers = JoinSet::new();
        for circuit in &circuits {
            let (store, circuit) = (Arc::clone(&store), circuit.clone());
            writers.spawn(async move {
                let mut session =
                    CircuitStore::open_session(&*store, std::slice::from_ref(&circuit))
                        .await
                        .unwrap();
                for round in 0..50 {
                    let action = [FleetAction::ForceOpen, FleetAction::Close][round % 2];
                    let operation = OperationId(1 + round as u64);
                    let command = FleetCommand::new(circuit.clone(), action, operation, "", "");
                    session.command(&command).await.unwrap();
                }
            });
        }
        let mut epochs = vec![Epoch(0); circuits.len()];
        let mut done = false;
        loop {
            let snapshot = reader.snapshot(Some(since)).await.unwrap();
            assert!(snapshot.revision >= since, "revisions never decrease");
            since = snapshot.revision;
            for view in snapshot.circuits {
                assert!(
                    view.revision <= since,
                    "no change is newer than the snapshot: {view:?}"
                );
                let index = circuits
                    .iter()
                    .position(|circuit| *circuit == view.circuit)
                    .unwrap();
                epochs[index] = view.epoch;
            }
            if done {
                break;
            }
            done = writers.is_empty();
            while writers.try_join_next().is_some() {}
        }
        assert_eq!(
            epochs,
            vec![Epoch(50); circuits.len()],
            "the increments are complete"
        );
    });
}

#[test]
fn concurrent_counts_are_complete_without_deadlock() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("counts"));
        let circuits: Arc<[BulkheadName]> = (0..20)
            .map(|i| BulkheadName::new(format!("c{i}")).unwrap())
            .collect();
        let window = bulkman_core::store::BucketedWindow::new(Duration::from_secs(36_000), 10);
        let mut counting = JoinSet::new();
        for process in 0..8 {
            let (store, circuits) = (Arc::clone(&store), Arc::clone(&circuits));
            counting.spawn(async move {
                let mut session = CircuitStore::open_session(&*store, &circuits)
                    .await
                    .unwrap();
                let mut deltas: Vec<_> = circuits
                    .iter()
                    .map(|c| bulkman_core::store::CountsDelta::new(c.clone(), Epoch(0), 2, 1))
                    .collect();
                // Each process in a different order.
                deltas.rotate_left(process);
                for _ in 0..25 {
                    session.add_counts(window, &deltas).await.unwrap();
                }
            });
        }
        counting.join_all().await;
        let mut session = store_session(&store).await;
        let empty = bulkman_core::store::CountsDelta::new(circuits[7].clone(), Epoch(0), 0, 0);
        let totals = session.add_counts(window, &[empty]).await.unwrap();
        assert_eq!(
            (totals[0].successes, totals[0].failures),
            (8 * 25 * 2, 8 * 25)
        );
    });
}

/// At whatever point an operation is dropped, no transaction stays open, and the session reports
/// that it can't be used.
#[test]
fn dropped_operations_leave_no_open_transaction() {
    on_tokio(async {
        let database = Database::new().await;
        let store = Arc::new(database.store("dropped"));
        let mut dropped = 0;
        // The progress after a number of polls depends on the server's response time; most
        // operations are dropped after the first poll.
        for (attempt, polls) in (0..).zip([0, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5]) {
            for operation in 0..5 {
                let mut session = store_session(&store).await;
                let round = 1 + attempt * 100 + operation;
                let opening = transition(Epoch(0), open(), round);
                let vote = StoreVote::new(opening.clone(), Arc::from("x"), 1, OPEN_FOR);
                let request = request(Epoch(0), "x");
                let command =
                    FleetCommand::new(circuit(), FleetAction::Reset, OperationId(round), "", "");
                let finished = match operation {
                    0 => polled(polls, session.transition(&opening)).await,
                    1 => polled(polls, session.vote(&vote)).await,
                    2 => polled(polls, session.acquire_probe(&request)).await,
                    3 => polled(polls, session.command(&command)).await,
                    _ => polled(polls, session.snapshot(None)).await,
                };
                if !finished && polls > 0 {
                    dropped += 1;
                    let error = session.snapshot(None).await.unwrap_err();
                    assert!(
                        error.is_transient()
                            && error.to_string().contains("dropped before it completed"),
                        "{error}"
                    );
                }
            }
        }
        assert!(dropped > 5, "{dropped} operations were dropped");
        let mut connection = database.connection().await;
        let open = "SELECT count(*) AS n FROM pg_stat_activity \
                    WHERE state LIKE 'idle in transaction%' AND query LIKE '%' || $1 || '%'";
        let row = sqlx::query(open)
            .bind(database.schema.name())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<i64, _>("n"), 0);
        connection.close().await.unwrap();
        let mut session = store_session(&store).await;
        session.snapshot(None).await.unwrap();
    });
}

async fn run(connection: &mut sqlx::PgConnection, sql: String) {
    let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    connection.execute(sql).await.unwrap();
}

/// Returns the number of backends that wait, directly or not, for a transaction of `connection`.
async fn blocked_by(connection: &mut sqlx::PgConnection) -> i64 {
    let waiting = "WITH RECURSIVE blocked AS (
                     SELECT pg_backend_pid() AS pid
                     UNION SELECT a.pid FROM blocked
                       JOIN pg_stat_activity a ON blocked.pid = ANY (pg_blocking_pids(a.pid))
                      WHERE a.wait_event_type = 'Lock'
                   ) SELECT count(*) - 1 AS n FROM blocked";
    let row = sqlx::query(waiting).fetch_one(connection).await.unwrap();
    row.get("n")
}

/// Polls a future the given number of times, then drops it. Returns `true` if it completed.
async fn polled<T>(times: u64, future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    let mut left = times;
    std::future::poll_fn(|context| {
        if left == 0 {
            return std::task::Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
            std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(false),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}

/// Checks that the fingerprint combines the last operations of all circuits.
async fn check_fingerprint(store: &bulkman_postgres::PostgresStore) {
    let snapshot = store_session(store).await.snapshot(None).await.unwrap();
    let operations = snapshot.circuits.iter().map(|view| view.operation);
    let all = operations.fold(Fingerprint::default(), |all, one| {
        all.with_replaced(OperationId(0), one)
    });
    assert_ne!(all, Fingerprint::default());
    assert_eq!(snapshot.fingerprint, all);
}

async fn store_session(store: &bulkman_postgres::PostgresStore) -> Box<dyn StoreSession> {
    CircuitStore::open_session(store, &[circuit()])
        .await
        .unwrap()
}

fn circuit() -> BulkheadName {
    BulkheadName::new("a").unwrap()
}

const fn open() -> StoreChange {
    StoreChange::Open { open_for: OPEN_FOR }
}

fn transition(base: Epoch, change: StoreChange, operation: u64) -> StoreTransition {
    StoreTransition::new(circuit(), base, change, OperationId(operation))
}

fn request(epoch: Epoch, holder: &str) -> ProbeRequest {
    ProbeRequest::new(circuit(), epoch, Arc::from(holder), Duration::from_secs(60))
}

const OPEN_FOR: Duration = Duration::from_secs(60);
