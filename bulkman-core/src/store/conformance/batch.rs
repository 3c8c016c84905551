//! Batches of transitions.

use super::{Client, Harness, ISOLATION, TTL, applied, open, rejected};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, OperationId, ProbeLease, ProbePolicy, ProbeRequest, ProbeRule,
    RejectReason, Revision, StoreChange, StoreTransition, TransitionResult,
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

impl Client {
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
