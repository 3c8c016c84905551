//! Batches of transitions, leases and results.

use super::{Client, Harness, ISOLATION, TTL, applied, open, rejected};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, FleetState, OperationId, ProbeLease, ProbePolicy, ProbeReportResult,
    ProbeRequest, ProbeResult, ProbeRule, RejectReason, Revision, StoreChange, StoreTransition,
    TransitionResult,
};

pub(super) async fn batch_applies_each_transition_independently(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client
        .session
        .register(&["b", "c", "d"].map(name))
        .await
        .unwrap();
    // `b` is one epoch ahead, and half-open with another policy.
    let probe_policy = ProbePolicy::new(
        3,
        ProbeRule::SampleSize {
            calls: 10,
            failures: Some(5),
            slow: None,
        },
    );
    let half_open = StoreTransition {
        manual: true,
        ..client.of("b", 0, StoreChange::HalfOpen { probe_policy })
    };
    let half_open = applied(client.send(&half_open).await);
    assert!(client.session.transitions(&[]).await.unwrap().is_empty());

    let consecutive = ProbePolicy::new(2, ProbeRule::Consecutive { successes: 4 });
    let batch = [
        client.of("d", 0, open(ISOLATION)),
        client.of("unregistered", 0, open(ISOLATION)),
        client.of("b", 0, open(ISOLATION)),
        client.of("c", 0, StoreChange::Close),
        StoreTransition {
            manual: true,
            ..client.of(
                "a",
                0,
                StoreChange::HalfOpen {
                    probe_policy: consecutive,
                },
            )
        },
    ];
    let before = client.fingerprint().await;
    let results: [TransitionResult; 5] = client
        .session
        .transitions(&batch)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let [d, unregistered, b, c, a] = results;
    assert_eq!(unregistered, TransitionResult::UnknownCircuit);
    let (reason, current) = rejected(b);
    assert_eq!(
        (
            reason,
            CircuitView {
                age: half_open.age,
                ..current
            }
        ),
        (RejectReason::Stale, half_open)
    );
    assert_eq!(rejected(c).0, RejectReason::AlreadyInState);
    let (d, a) = (applied(d), applied(a));
    assert_eq!(
        (d.circuit.as_str(), d.open_for, d.open_count, d.operation),
        ("d", ISOLATION, 1, batch[0].operation)
    );
    assert_eq!(
        (a.circuit.as_str(), a.probe_policy, a.operation),
        ("a", consecutive, batch[4].operation)
    );

    // Each has its own revision, and the fingerprint includes both.
    let mut revisions = [d.revision, a.revision];
    revisions.sort_unstable();
    assert_eq!(revisions, [Revision(2), Revision(3)]);
    let after = before
        .with_replaced(OperationId(0), d.operation)
        .with_replaced(OperationId(0), a.operation);
    assert_eq!(client.fingerprint().await, after);
    for change in [d, a] {
        let found = view(&mut client, change.circuit.as_str()).await;
        let (remaining, age) = (change.remaining, change.age);
        assert_eq!(
            CircuitView {
                remaining,
                age,
                ..found
            },
            change
        );
    }
    let history = client.session.history(None, 10).await.unwrap();
    let mut changed: Vec<_> = history
        .iter()
        .map(|entry| (entry.circuit.as_str(), entry.epoch))
        .collect();
    changed.sort_unstable();
    assert_eq!(changed, [("a", Epoch(1)), ("b", Epoch(1)), ("d", Epoch(1))]);
}

pub(super) async fn repeated_batch_applies_once(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.session.register(&[name("b")]).await.unwrap();
    let batch = ["a", "b"].map(|circuit| client.of(circuit, 0, open(ISOLATION)));
    for _ in 0..2 {
        for result in client.session.transitions(&batch).await.unwrap() {
            assert_eq!(applied(result).epoch, Epoch(1));
        }
    }
    // One circuit changes; the other returns the same result again.
    let close = client.of("b", 1, StoreChange::Close);
    applied(client.send(&close).await);
    let results: [TransitionResult; 2] = client
        .session
        .transitions(&batch)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let [a, b] = results;
    assert_eq!(
        (applied(a).epoch, rejected(b).0),
        (Epoch(1), RejectReason::Stale)
    );
    assert_eq!(
        client.session.snapshot(None).await.unwrap().revision,
        Revision(3)
    );
}

pub(super) async fn leases_of_a_batch_are_independent(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client
        .session
        .register(&["b", "c"].map(name))
        .await
        .unwrap();
    let probe_policy = ProbePolicy::new(1, ProbeRule::Consecutive { successes: 9 });
    for circuit in ["a", "b"] {
        let half_open = StoreTransition {
            manual: true,
            ..client.of(circuit, 0, StoreChange::HalfOpen { probe_policy })
        };
        applied(client.send(&half_open).await);
    }
    let request = |circuit: &str, epoch, holder: &str| {
        ProbeRequest::new(name(circuit), Epoch(epoch), holder.into(), TTL)
    };
    assert!(client.session.acquire_probes(&[]).await.unwrap().is_empty());
    // Closed, available, unknown, of another epoch.
    let wanted = ["c", "b", "unregistered", "a"];
    let requests: Vec<_> = wanted
        .iter()
        .map(|circuit| request(circuit, 1 + u64::from(*circuit == "a"), "x"))
        .collect();
    let leases = client.session.acquire_probes(&requests).await.unwrap();
    let granted: Vec<_> = leases.iter().map(Option::is_some).collect();
    assert_eq!(granted, [false, true, false, false], "{leases:?}");
    let both = |holder| [request("b", 1, holder), request("a", 1, holder)];
    let leases = client.session.acquire_probes(&both("y")).await.unwrap();
    assert!(leases[0].is_none() && leases[1].is_some(), "{leases:?}");
    let leases = client.session.acquire_probes(&both("x")).await.unwrap();
    assert!(leases[0].is_some() && leases[1].is_none(), "{leases:?}");

    let held = |holder, leases: [Option<ProbeLease>; 2]| -> Vec<_> {
        let held = both(holder).into_iter().zip(leases);
        held.filter_map(|(request, lease)| Some((request, lease?)))
            .collect()
    };
    let of_x = [leases[0], leases[0]];
    let renewed = client.session.renew_probes(&held("x", of_x)).await.unwrap();
    assert_eq!(renewed, [leases[0], None], "the other one is held by `y`");
    client.session.release_probes(&[]).await.unwrap();
    client
        .session
        .release_probes(&held("x", of_x))
        .await
        .unwrap();
    let leases = client.session.acquire_probes(&both("z")).await.unwrap();
    assert!(leases[0].is_some() && leases[1].is_none(), "{leases:?}");
    let renewed = client.session.renew_probes(&held("x", of_x)).await.unwrap();
    assert_eq!(renewed, [None, None], "released");
}

pub(super) async fn results_of_a_batch_are_independent(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let circuits = ["b", "c", "d", "e", "f", "g"].map(name);
    client.session.register(&circuits).await.unwrap();
    let all = ["a", "b", "c", "d", "e", "f"];
    let successes = |circuit| if matches!(circuit, "c" | "f") { 1 } else { 2 };
    let mut held = Vec::new();
    for circuit in all {
        let lease = client.probing(circuit, successes(circuit)).await;
        held.push((circuit, lease));
    }
    assert!(client.session.report_probes(&[]).await.unwrap().is_empty());
    // `b` has a lease of another holder, and `e` has left that half-open period.
    let of_b = client.result_of("b", held[1].1, true);
    let request = of_b.request.clone();
    client
        .session
        .release_probe(&request, held[1].1)
        .await
        .unwrap();
    let other = ProbeRequest::new(name("b"), Epoch(1), "y".into(), TTL);
    client.session.acquire_probe(&other).await.unwrap().unwrap();
    let reopened = client.of("e", 1, open(ISOLATION));
    applied(client.send(&reopened).await);
    let before = client.fingerprint().await;
    let batch = [
        client.result_of("f", held[5].1, true),
        client.result_of("d", held[3].1, false),
        client.result_of("unregistered", held[0].1, true),
        of_b,
        client.result_of("g", held[0].1, true),
        client.result_of("a", held[0].1, true),
        client.result_of("e", held[4].1, true),
        client.result_of("c", held[2].1, true),
    ];
    // The second time, each is recognized.
    for _ in 0..2 {
        let reports = client.session.report_probes(&batch).await.unwrap();
        let reports: [ProbeReportResult; 8] = reports.try_into().unwrap();
        let [f, d, unregistered, b, g, a, e, c] = reports;
        assert_eq!(unregistered, ProbeReportResult::Lost { current: None });
        let counts = |view: &CircuitView| (view.probes_succeeded, view.probes_failed);
        for (report, circuit, state, epoch) in [
            (b, "b", FleetState::HalfOpen, 1),
            (g, "g", FleetState::Closed, 0),
            (e, "e", FleetState::Open, 2),
        ] {
            let ProbeReportResult::Lost {
                current: Some(view),
            } = report
            else {
                panic!("{circuit}: {report:?}")
            };
            assert_eq!(
                (view.circuit.as_str(), view.state, view.epoch, counts(&view)),
                (circuit, state, Epoch(epoch), (0, 0))
            );
        }
        let ProbeReportResult::Counted { lease, current } = a else {
            panic!("{a:?}")
        };
        let renewed = ProbeLease::new(held[0].1.slot, held[0].1.token + 1);
        assert_eq!((lease, counts(&current)), (renewed, (1, 0)));
        let mut revisions = Vec::new();
        for (report, result, state) in [
            (c, &batch[7], FleetState::Closed),
            (d, &batch[1], FleetState::Open),
            (f, &batch[0], FleetState::Closed),
        ] {
            let ProbeReportResult::Decided(view) = report else {
                panic!("{report:?}")
            };
            let circuit = &result.request.circuit;
            assert_eq!((&view.circuit, view.state), (circuit, state));
            assert_eq!((view.epoch, view.operation), (Epoch(2), result.operation));
            let opened = state == FleetState::Open;
            let (open_for, open_count) = (view.open_for, view.open_count);
            assert_eq!(opened, (open_for, open_count) == (ISOLATION, 1), "{view:?}");
            let found = self::view(&mut client, circuit.as_str()).await;
            let (remaining, age) = (view.remaining, view.age);
            assert_eq!(
                CircuitView {
                    remaining,
                    age,
                    ..found
                },
                view
            );
            revisions.push(view.revision);
        }
        // Each change has its own revision. Seven changes came first.
        revisions.sort_unstable();
        assert_eq!(revisions, [8, 9, 10].map(Revision));
        // The operations of the changes replace those that made the circuits half-open.
        let mut after = before;
        for index in [0, 1, 7] {
            let half_open = half_open_operation(batch[index].request.circuit.as_str());
            after = after.with_replaced(half_open, batch[index].operation);
        }
        assert_eq!(client.fingerprint().await, after);
    }
    // The lease of `a` remains usable, and the next success decides.
    let lease = ProbeLease::new(held[0].1.slot, held[0].1.token + 1);
    let next = client.result_of("a", lease, true);
    let reports = client.session.report_probes(&[next]).await.unwrap();
    let [ProbeReportResult::Decided(view)] = &*reports else {
        panic!("{reports:?}")
    };
    assert_eq!(view.state, FleetState::Closed);
    let history = client.session.history(None, 20).await.unwrap();
    let mut changed: Vec<_> = history
        .iter()
        .map(|entry| (entry.circuit.as_str(), entry.epoch.0))
        .filter(|(_, epoch)| *epoch > 1)
        .collect();
    changed.sort_unstable();
    assert_eq!(changed, [("a", 2), ("c", 2), ("d", 2), ("e", 2), ("f", 2)]);
}

/// The operation with which [`Client::probing`] makes a circuit half-open.
fn half_open_operation(circuit: &str) -> OperationId {
    OperationId((2 << 40) + u64::from(circuit.as_bytes()[0]))
}

impl Client {
    /// Makes a circuit half-open, at epoch 1, and acquires its lease.
    async fn probing(&mut self, circuit: &str, successes: u16) -> ProbeLease {
        let probe_policy = ProbePolicy::new(1, ProbeRule::Consecutive { successes });
        let half_open = StoreTransition {
            manual: true,
            operation: half_open_operation(circuit),
            ..self.of(circuit, 0, StoreChange::HalfOpen { probe_policy })
        };
        applied(self.send(&half_open).await);
        let request = ProbeRequest::new(name(circuit), Epoch(1), "x".into(), TTL);
        self.acquire(&request).await.expect("an available lease")
    }

    fn result_of(&mut self, circuit: &str, lease: ProbeLease, success: bool) -> ProbeResult {
        let request = ProbeRequest::new(name(circuit), Epoch(1), "x".into(), TTL);
        ProbeResult::new(request, lease, success, ISOLATION, self.operation())
    }

    fn of(&mut self, circuit: &str, base: u64, change: StoreChange) -> StoreTransition {
        StoreTransition::new(name(circuit), Epoch(base), change, self.operation())
    }
}

async fn view(client: &mut Client, circuit: &str) -> CircuitView {
    let snapshot = client.session.snapshot(None).await.unwrap();
    snapshot
        .circuits
        .into_iter()
        .find(|view| view.circuit.as_str() == circuit)
        .unwrap()
}

fn name(circuit: &str) -> BulkheadName {
    BulkheadName::new(circuit).unwrap()
}
