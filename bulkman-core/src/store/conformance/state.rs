//! Registration, transitions and snapshots.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Harness, ISOLATION, SLACK, applied, circuit, open, rejected};
use crate::name::BulkheadName;
use crate::store::{
    Epoch, FleetState, ProbePolicy, ProbeRule, RejectReason, StoreChange, StoreTransition,
    TransitionResult,
};

pub(super) async fn registered_circuit_is_closed_at_epoch_zero(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let view = client.view().await;
    assert_eq!(
        (view.state, view.epoch, view.open_count),
        (FleetState::Closed, Epoch(0), 0)
    );
    assert_eq!(view.remaining, Duration::ZERO);

    let later = BulkheadName::new("later").unwrap();
    client
        .session
        .register(std::slice::from_ref(&later))
        .await
        .unwrap();
    let snapshot = client.session.snapshot(None).await.unwrap();
    assert!(
        snapshot.circuits.iter().any(|view| view.circuit == later),
        "{snapshot:?}"
    );
}

pub(super) async fn registering_again_keeps_the_state(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let opened = first.apply(open(ISOLATION)).await;
    let before = first.session.snapshot(None).await.unwrap().revision;

    let mut second = Client::new(harness, 2).await;
    second
        .session
        .register(&[circuit(), circuit()])
        .await
        .unwrap();
    let view = second.view().await;
    assert_eq!((view.state, view.epoch), (FleetState::Open, opened.epoch));
    assert_eq!(
        second.session.snapshot(None).await.unwrap().revision,
        before
    );
}

pub(super) async fn opening_is_visible_to_other_sessions(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let mut second = Client::new(harness, 2).await;
    let mut transition = first.transition(Epoch(0), open(ISOLATION));
    transition.author = Arc::from("process one");
    transition.reason = Arc::from("5 failures in a row");
    let first_view = applied(first.send(&transition).await);
    let second_view = second.view().await;
    for view in [first_view, second_view] {
        assert_eq!(view.circuit, circuit());
        assert_eq!(
            (view.state, view.epoch, view.open_count),
            (FleetState::Open, Epoch(1), 1)
        );
        assert_eq!(view.open_for, ISOLATION);
        assert!(
            view.remaining <= ISOLATION && view.remaining > ISOLATION - SLACK,
            "{view:?}"
        );
        assert!(view.age < SLACK, "{view:?}");
        assert_eq!(view.operation, transition.operation);
        assert_eq!(
            (&*view.author, &*view.reason),
            ("process one", "5 failures in a row")
        );
    }
}

/// Hazard P14.
pub(super) async fn isolation_elapses_by_the_stores_clock(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.apply(open(ISOLATION)).await;
    let before = client.session.snapshot(None).await.unwrap().now;
    harness.advance(ISOLATION / 2).await;
    let snapshot = client.session.snapshot(None).await.unwrap();
    assert!(
        snapshot.now >= before.saturating_add(ISOLATION / 2),
        "the store's clock has advanced"
    );
    let half = client.view().await;
    assert!(
        half.remaining <= ISOLATION / 2 && half.remaining > ISOLATION / 2 - SLACK,
        "{half:?}"
    );
    assert!(
        half.age >= ISOLATION / 2 && half.age < ISOLATION / 2 + SLACK,
        "{half:?}"
    );
    assert!(!half.isolation_elapsed());
    harness.advance(ISOLATION / 2).await;
    let elapsed = client.view().await;
    assert_eq!(
        (elapsed.state, elapsed.remaining),
        (FleetState::Open, Duration::ZERO)
    );
    assert!(elapsed.isolation_elapsed());
}

pub(super) async fn stale_transition_is_rejected_with_current_state(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let mut second = Client::new(harness, 2).await;
    let base = second.view().await.epoch;
    first.apply(open(ISOLATION)).await;
    let opened_again = second.transition(base, open(ISOLATION));
    let closed = second.transition(base, StoreChange::Close);
    let mut manual = second.transition(base, open(ISOLATION));
    manual.manual = true;
    for transition in [opened_again, closed, manual] {
        let (reason, current) = rejected(second.send(&transition).await);
        assert_eq!(reason, RejectReason::Stale);
        assert_eq!((current.state, current.epoch), (FleetState::Open, Epoch(1)));
        assert_eq!(current.open_count, 1, "a rejected opening is not counted");
    }
}

pub(super) async fn repeated_transition_applies_once(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut transition = client.transition(Epoch(0), open(ISOLATION));
    transition.not_after = Some(
        client
            .session
            .snapshot(None)
            .await
            .unwrap()
            .now
            .saturating_add(SLACK),
    );
    let first = applied(client.send(&transition).await);
    harness.advance(SLACK * 2).await;
    // The operation is recognized elapsed another session, and after its time limit.
    let again = applied(Client::new(harness, 2).await.send(&transition).await);
    assert_eq!(
        (first.epoch, first.open_count),
        (again.epoch, again.open_count)
    );
    assert_eq!(first.revision, again.revision);
    assert_eq!(client.session.history(None, 10).await.unwrap().len(), 1);
}

pub(super) async fn expired_transition_is_rejected(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let now = client.session.snapshot(None).await.unwrap().now;
    let mut late = client.transition(Epoch(0), open(ISOLATION));
    late.not_after = Some(now.saturating_add(ISOLATION));
    harness.advance(ISOLATION).await;
    let (reason, current) = rejected(client.send(&late).await);
    assert_eq!(
        (reason, current.state),
        (RejectReason::Expired, FleetState::Closed)
    );
    late.not_after = Some(now.saturating_add(ISOLATION + SLACK));
    applied(client.send(&late).await);
}

pub(super) async fn half_open_requires_elapsed_isolation(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let probe_policy = ProbePolicy::new(3, ProbeRule::Consecutive { successes: 2 });
    let half_open = StoreChange::HalfOpen { probe_policy };

    let early = client.transition(Epoch(0), half_open);
    assert_eq!(
        rejected(client.send(&early).await).0,
        RejectReason::NotDue,
        "a closed circuit can't become half-open"
    );
    let opened = client.apply(open(ISOLATION)).await;
    harness.advance(ISOLATION / 2).await;
    let early = client.transition(opened.epoch, half_open);
    assert_eq!(rejected(client.send(&early).await).0, RejectReason::NotDue);
    harness.advance(ISOLATION / 2).await;
    let due = client.transition(opened.epoch, half_open);
    let view = applied(client.send(&due).await);
    assert_eq!(
        (view.state, view.probe_policy),
        (FleetState::HalfOpen, probe_policy)
    );
    assert_eq!(
        view.open_count, 1,
        "the count is kept until the circuit closes"
    );
    assert_eq!(
        (view.remaining, view.probes_succeeded, view.probes_failed),
        (Duration::ZERO, 0, 0)
    );
}

pub(super) async fn manual_half_open_ignores_isolation(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for prepare in [None, Some(open(ISOLATION))] {
        if let Some(change) = prepare {
            client.apply(StoreChange::Close).await;
            client.apply(change).await;
        }
        let base = client.view().await.epoch;
        let half_open = StoreChange::HalfOpen {
            probe_policy: ProbePolicy::default(),
        };
        let early = StoreTransition {
            manual: true,
            ..client.transition(base, half_open)
        };
        assert_eq!(
            applied(client.send(&early).await).state,
            FleetState::HalfOpen,
            "from {prepare:?}"
        );
    }
}

pub(super) async fn only_manual_transition_reenters_a_state(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let opened = client.apply(open(ISOLATION)).await;
    harness.advance(ISOLATION / 2).await;
    let again = client.transition(opened.epoch, open(ISOLATION));
    let (reason, current) = rejected(client.send(&again).await);
    assert_eq!(
        (reason, current.epoch),
        (RejectReason::AlreadyInState, opened.epoch)
    );
    let again = StoreTransition {
        manual: true,
        ..client.transition(opened.epoch, open(ISOLATION * 2))
    };
    let view = applied(client.send(&again).await);
    assert_eq!(view.epoch, Epoch(opened.epoch.0 + 1));
    assert!(view.remaining > ISOLATION * 2 - SLACK, "{view:?}");
}

pub(super) async fn closing_resets_the_open_count(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.apply(open(ISOLATION)).await;
    harness.advance(ISOLATION).await;
    client
        .apply(StoreChange::HalfOpen {
            probe_policy: ProbePolicy::default(),
        })
        .await;
    assert_eq!(client.apply(open(ISOLATION)).await.open_count, 2);
    assert_eq!(client.apply(StoreChange::Close).await.open_count, 0);
    assert_eq!(client.apply(open(ISOLATION)).await.open_count, 1);
}

pub(super) async fn unknown_circuit_is_reported(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let unknown = BulkheadName::new("unknown").unwrap();
    let transition = StoreTransition::new(
        unknown.clone(),
        Epoch(0),
        open(ISOLATION),
        client.operation(),
    );
    assert_eq!(
        client.send(&transition).await,
        TransitionResult::UnknownCircuit
    );
    let snapshot = client.session.snapshot(None).await.unwrap();
    assert!(
        snapshot.circuits.iter().all(|view| view.circuit != unknown),
        "no circuit was created"
    );
}

pub(super) async fn revisions_order_all_changes(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    let start = client.session.snapshot(None).await.unwrap();

    let opened = client.apply(open(ISOLATION)).await;
    let transition =
        StoreTransition::new(other.clone(), Epoch(0), open(ISOLATION), client.operation());
    let opened_other = applied(client.send(&transition).await);
    assert!(start.revision < opened.revision && opened.revision < opened_other.revision);

    let both = client.session.snapshot(Some(start.revision)).await.unwrap();
    assert_eq!(both.circuits.len(), 2);
    assert_eq!(
        (both.revision, both.incarnation),
        (opened_other.revision, start.incarnation)
    );
    let last = client
        .session
        .snapshot(Some(opened.revision))
        .await
        .unwrap();
    assert_eq!(
        last.circuits
            .iter()
            .map(|view| &view.circuit)
            .collect::<Vec<_>>(),
        [&other]
    );
    let none = client
        .session
        .snapshot(Some(opened_other.revision))
        .await
        .unwrap();
    assert_eq!(
        (none.circuits.len(), none.revision),
        (0, opened_other.revision)
    );
}

pub(super) async fn namespaces_are_independent(harness: &dyn Harness) {
    let mut here = Client::on(&*harness.store("here"), 1).await;
    let mut there = Client::on(&*harness.store("there"), 2).await;
    here.apply(open(ISOLATION)).await;
    let view = there.view().await;
    assert_eq!((view.state, view.epoch), (FleetState::Closed, Epoch(0)));
    assert!(there.session.history(None, 10).await.unwrap().is_empty());
    // A new session of the same namespace has the stored state.
    let found = Client::on(&*harness.store("here"), 3).await.view().await;
    assert_eq!(found.state, FleetState::Open);
}
