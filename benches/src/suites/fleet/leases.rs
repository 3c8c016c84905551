//! Probe leases of a half-open circuit: exactly as many as configured, under contention.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitStore, Epoch, OperationId, ProbePolicy, ProbeRequest, ProbeRule, StoreChange,
    StoreSession, StoreTransition, TransitionResult,
};
use tokio::task::JoinSet;

use crate::fleet::server::Server;
use crate::harness::Findings;
use crate::harness::table::Table;
use crate::harness::target::Target;

pub(super) fn measure(server: &Server, findings: &mut Findings) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a Tokio runtime");
    let title =
        format!("{CONTENDERS} contenders for a half-open circuit's leases, {ROUNDS} rounds");
    let mut table = Table::new(
        title,
        [
            "leases",
            "rounds with too many",
            "rounds with too few",
            "ms per round",
            "rounds with retries",
        ],
    );
    let (mut over, mut under) = (0, 0);
    for limit in [1, 3, 5] {
        let started = Instant::now();
        let rounds = runtime.block_on(contend(server, limit));
        let took = started.elapsed().as_secs_f64() * 1e3 / ROUNDS as f64;
        over += rounds.over;
        under += rounds.under;
        let figures = [rounds.over, rounds.under].map(|rounds| rounds as f64);
        table.row(
            limit.to_string(),
            [figures[0], figures[1], took, rounds.retries as f64],
        );
    }
    findings.tables.push(table);
    findings.targets.push(Target::at_most(
        "rounds with too many leases",
        over as f64,
        0.0,
        "",
    ));
    findings.targets.push(Target::at_most(
        "rounds with too few leases",
        under as f64,
        0.0,
        "",
    ));
}

#[derive(Default)]
struct Rounds {
    over: usize,
    under: usize,
    /// Rounds in which contenders found a row locked, skipped it and had to request again.
    retries: usize,
}

async fn contend(server: &Server, limit: u16) -> Rounds {
    let store = server
        .builder(&format!("leases {limit}"))
        .build()
        .expect("valid settings");
    let circuit = BulkheadName::new("a").expect("a short name");
    let connect = async || {
        let session = CircuitStore::open_session(&store, std::slice::from_ref(&circuit)).await;
        session.expect("the server answers")
    };
    let mut opener = connect().await;
    let mut contenders: Vec<(usize, Box<dyn StoreSession>)> = Vec::new();
    for index in 0..CONTENDERS {
        contenders.push((index, connect().await));
    }
    let mut rounds = Rounds::default();
    let mut epoch = Epoch(0);
    for round in 0..ROUNDS {
        let plan = ProbePolicy::new(limit, ProbeRule::Consecutive { successes: 100 });
        let operation = OperationId(round as u64 + 1);
        let mut half_open = StoreTransition::new(
            circuit.clone(),
            epoch,
            StoreChange::HalfOpen { probe_policy: plan },
            operation,
        );
        half_open.manual = true;
        let applied = opener
            .transition(&half_open)
            .await
            .expect("the server answers");
        let TransitionResult::Applied(view) = applied else {
            panic!("no other process changes it: {applied:?}")
        };
        epoch = view.epoch;
        let mut requests = JoinSet::new();
        for (index, mut contender) in contenders.drain(..) {
            let request = request(&circuit, epoch, index);
            requests.spawn(async move {
                let lease = contender
                    .acquire_probe(&request)
                    .await
                    .expect("the server answers");
                (index, contender, lease)
            });
        }
        let mut slots = Vec::new();
        let mut rejected = Vec::new();
        for (index, contender, lease) in requests.join_all().await {
            match lease {
                Some(lease) => slots.push(lease.slot),
                None => rejected.push(contenders.len()),
            }
            contenders.push((index, contender));
        }
        if slots.len() < usize::from(limit) {
            rounds.retries += 1;
        }
        // Contenders that found the row locked request again. There is one more request than
        // leases, so that an excess lease would be noticed.
        for position in rejected.into_iter().take(1 + usize::from(limit)) {
            let (index, contender) = &mut contenders[position];
            let request = request(&circuit, epoch, *index);
            slots.extend(
                contender
                    .acquire_probe(&request)
                    .await
                    .expect("the server answers")
                    .map(|lease| lease.slot),
            );
        }
        let granted = slots.len();
        slots.sort_unstable();
        slots.dedup();
        rounds.over += usize::from(granted > usize::from(limit) || slots.len() < granted);
        rounds.under += usize::from(granted < usize::from(limit));
    }
    rounds
}

fn request(circuit: &BulkheadName, epoch: Epoch, contender: usize) -> ProbeRequest {
    let holder = Arc::from(format!("contender {contender}"));
    ProbeRequest::new(circuit.clone(), epoch, holder, Duration::from_secs(60))
}

const CONTENDERS: usize = 50;
const ROUNDS: usize = 1000;
