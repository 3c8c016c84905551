//! Several transitions in one operation.

use super::{Client, Harness, WAIT, applied, open, refused};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, OperationId, ProbePolicy, ProbeRule, RejectReason, Revision, StoreChange,
    StoreTransition, TransitionResult,
};

pub(super) async fn several_are_changed_at_once_and_each_by_itself(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client
        .session
        .register(&["b", "c", "d"].map(name))
        .await
        .unwrap();
    // `b` is a step ahead, and half-open by another plan than the rest will be.
    let plan = ProbePolicy::new(
        3,
        ProbeRule::SampleSize {
            calls: 10,
            failures: Some(5),
            slow: None,
        },
    );
    let ahead = StoreTransition {
        by_hand: true,
        ..client.of("b", 0, StoreChange::HalfOpen { plan })
    };
    let ahead = applied(client.send(&ahead).await);
    assert!(client.session.transitions(&[]).await.unwrap().is_empty());

    let streak = ProbePolicy::new(2, ProbeRule::Consecutive { successes: 4 });
    let batch = [
        client.of("d", 0, open(WAIT)),
        client.of("nobody", 0, open(WAIT)),
        client.of("b", 0, open(WAIT)),
        client.of("c", 0, StoreChange::Close),
        StoreTransition {
            by_hand: true,
            ..client.of("a", 0, StoreChange::HalfOpen { plan: streak })
        },
    ];
    let before = client.fingerprint().await;
    let answers: [TransitionResult; 5] = client
        .session
        .transitions(&batch)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let [d, nobody, b, c, a] = answers;
    assert_eq!(nobody, TransitionResult::UnknownCircuit);
    let (why, current) = refused(b);
    assert_eq!(
        (
            why,
            CircuitView {
                age: ahead.age,
                ..current
            }
        ),
        (RejectReason::Stale, ahead)
    );
    assert_eq!(refused(c).0, RejectReason::AlreadyInState);
    let (d, a) = (applied(d), applied(a));
    assert_eq!(
        (d.circuit.as_str(), d.wait, d.open_count, d.operation),
        ("d", WAIT, 1, batch[0].operation)
    );
    assert_eq!(
        (a.circuit.as_str(), a.plan, a.operation),
        ("a", streak, batch[4].operation)
    );

    // Each has a revision of its own, and the fingerprint knows of both.
    let mut revisions = [d.revision, a.revision];
    revisions.sort_unstable();
    assert_eq!(revisions, [Revision(2), Revision(3)]);
    let after = before
        .with_replaced(OperationId(0), d.operation)
        .with_replaced(OperationId(0), a.operation);
    assert_eq!(client.fingerprint().await, after);
    for made in [d, a] {
        let found = view(&mut client, made.circuit.as_str()).await;
        let (remaining, age) = (made.remaining, made.age);
        assert_eq!(
            CircuitView {
                remaining,
                age,
                ..found
            },
            made
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

pub(super) async fn a_batch_that_is_sent_again_applies_once(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.session.register(&[name("b")]).await.unwrap();
    let batch = ["a", "b"].map(|circuit| client.of(circuit, 0, open(WAIT)));
    for _ in 0..2 {
        for answer in client.session.transitions(&batch).await.unwrap() {
            assert_eq!(applied(answer).epoch, Epoch(1));
        }
    }
    // One of them has gone on; the other is told again what was made of it.
    let close = client.of("b", 1, StoreChange::Close);
    applied(client.send(&close).await);
    let answers: [TransitionResult; 2] = client
        .session
        .transitions(&batch)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let [a, b] = answers;
    assert_eq!(
        (applied(a).epoch, refused(b).0),
        (Epoch(1), RejectReason::Stale)
    );
    assert_eq!(
        client.session.snapshot(None).await.unwrap().revision,
        Revision(3)
    );
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
