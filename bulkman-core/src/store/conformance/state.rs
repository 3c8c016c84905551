//! Registering, transitions, snapshots.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Harness, SLACK, WAIT, applied, circuit, open, refused};
use crate::name::BulkheadName;
use crate::store::{
    Epoch, FleetState, ProbePolicy, ProbeRule, RejectReason, StoreChange, StoreTransition,
    TransitionResult,
};

pub(super) async fn a_registered_circuit_is_closed_at_epoch_zero(harness: &dyn Harness) {
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

pub(super) async fn registering_again_changes_nothing(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let opened = first.make(open(WAIT)).await;
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

pub(super) async fn an_opening_is_seen_by_others(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let mut second = Client::new(harness, 2).await;
    let mut transition = first.transition(Epoch(0), open(WAIT));
    transition.by = Arc::from("process one");
    transition.reason = Arc::from("5 failures in a row");
    let mine = applied(first.send(&transition).await);
    let theirs = second.view().await;
    for view in [mine, theirs] {
        assert_eq!(view.circuit, circuit());
        assert_eq!(
            (view.state, view.epoch, view.open_count),
            (FleetState::Open, Epoch(1), 1)
        );
        assert_eq!(view.wait, WAIT);
        assert!(
            view.remaining <= WAIT && view.remaining > WAIT - SLACK,
            "{view:?}"
        );
        assert!(view.age < SLACK, "{view:?}");
        assert_eq!(view.operation, transition.operation);
        assert_eq!(
            (&*view.changed_by, &*view.reason),
            ("process one", "5 failures in a row")
        );
    }
}

/// Hazard P14.
pub(super) async fn an_opening_ages_on_the_stores_clock(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.make(open(WAIT)).await;
    let before = client.session.snapshot(None).await.unwrap().now;
    harness.advance(WAIT / 2).await;
    let snapshot = client.session.snapshot(None).await.unwrap();
    assert!(
        snapshot.now >= before.after(WAIT / 2),
        "the store's clock went on"
    );
    let half = client.view().await;
    assert!(
        half.remaining <= WAIT / 2 && half.remaining > WAIT / 2 - SLACK,
        "{half:?}"
    );
    assert!(
        half.age >= WAIT / 2 && half.age < WAIT / 2 + SLACK,
        "{half:?}"
    );
    assert!(!half.isolation_elapsed());
    harness.advance(WAIT / 2).await;
    let over = client.view().await;
    assert_eq!(
        (over.state, over.remaining),
        (FleetState::Open, Duration::ZERO)
    );
    assert!(over.isolation_elapsed());
}

pub(super) async fn a_stale_base_is_refused_and_told_the_truth(harness: &dyn Harness) {
    let mut first = Client::new(harness, 1).await;
    let mut second = Client::new(harness, 2).await;
    let base = second.view().await.epoch;
    first.make(open(WAIT)).await;
    let opened_again = second.transition(base, open(WAIT));
    let closed = second.transition(base, StoreChange::Close);
    let mut by_hand = second.transition(base, open(WAIT));
    by_hand.by_hand = true;
    for transition in [opened_again, closed, by_hand] {
        let (why, current) = refused(second.send(&transition).await);
        assert_eq!(why, RejectReason::Stale);
        assert_eq!((current.state, current.epoch), (FleetState::Open, Epoch(1)));
        assert_eq!(current.open_count, 1, "a refused opening counts nothing");
    }
}

pub(super) async fn a_repeated_operation_applies_once(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut transition = client.transition(Epoch(0), open(WAIT));
    transition.not_after = Some(
        client
            .session
            .snapshot(None)
            .await
            .unwrap()
            .now
            .after(SLACK),
    );
    let first = applied(client.send(&transition).await);
    harness.advance(SLACK * 2).await;
    // Over another session and after its time: it is recognised all the same.
    let again = applied(Client::new(harness, 2).await.send(&transition).await);
    assert_eq!(
        (first.epoch, first.open_count),
        (again.epoch, again.open_count)
    );
    assert_eq!(first.revision, again.revision);
    assert_eq!(client.session.history(None, 10).await.unwrap().len(), 1);
}

pub(super) async fn a_transition_is_not_applied_after_its_time(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let now = client.session.snapshot(None).await.unwrap().now;
    let mut late = client.transition(Epoch(0), open(WAIT));
    late.not_after = Some(now.after(WAIT));
    harness.advance(WAIT).await;
    let (why, current) = refused(client.send(&late).await);
    assert_eq!(
        (why, current.state),
        (RejectReason::Expired, FleetState::Closed)
    );
    late.not_after = Some(now.after(WAIT + SLACK));
    applied(client.send(&late).await);
}

pub(super) async fn half_open_needs_an_opening_that_is_over(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let plan = ProbePolicy::new(3, ProbeRule::Consecutive { successes: 2 });
    let half_open = StoreChange::HalfOpen { plan };

    let early = client.transition(Epoch(0), half_open);
    assert_eq!(
        refused(client.send(&early).await).0,
        RejectReason::NotDue,
        "closed circuits have no probes"
    );
    let opened = client.make(open(WAIT)).await;
    harness.advance(WAIT / 2).await;
    let early = client.transition(opened.epoch, half_open);
    assert_eq!(refused(client.send(&early).await).0, RejectReason::NotDue);
    harness.advance(WAIT / 2).await;
    let due = client.transition(opened.epoch, half_open);
    let view = applied(client.send(&due).await);
    assert_eq!((view.state, view.plan), (FleetState::HalfOpen, plan));
    assert_eq!(view.open_count, 1, "kept until it closes");
    assert_eq!(
        (view.remaining, view.probes_succeeded, view.probes_failed),
        (Duration::ZERO, 0, 0)
    );
}

pub(super) async fn half_open_by_hand_needs_none(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for prepare in [None, Some(open(WAIT))] {
        if let Some(change) = prepare {
            client.make(StoreChange::Close).await;
            client.make(change).await;
        }
        let base = client.view().await.epoch;
        let half_open = StoreChange::HalfOpen {
            plan: ProbePolicy::default(),
        };
        let early = StoreTransition {
            by_hand: true,
            ..client.transition(base, half_open)
        };
        assert_eq!(
            applied(client.send(&early).await).state,
            FleetState::HalfOpen,
            "from {prepare:?}"
        );
    }
}

pub(super) async fn the_same_state_is_entered_again_by_hand_only(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let opened = client.make(open(WAIT)).await;
    harness.advance(WAIT / 2).await;
    let again = client.transition(opened.epoch, open(WAIT));
    let (why, current) = refused(client.send(&again).await);
    assert_eq!(
        (why, current.epoch),
        (RejectReason::AlreadyInState, opened.epoch)
    );
    let again = StoreTransition {
        by_hand: true,
        ..client.transition(opened.epoch, open(WAIT * 2))
    };
    let view = applied(client.send(&again).await);
    assert_eq!(view.epoch, Epoch(opened.epoch.0 + 1));
    assert!(view.remaining > WAIT * 2 - SLACK, "{view:?}");
}

pub(super) async fn closing_forgets_how_often_it_opened(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.make(open(WAIT)).await;
    harness.advance(WAIT).await;
    client
        .make(StoreChange::HalfOpen {
            plan: ProbePolicy::default(),
        })
        .await;
    assert_eq!(client.make(open(WAIT)).await.open_count, 2);
    assert_eq!(client.make(StoreChange::Close).await.open_count, 0);
    assert_eq!(client.make(open(WAIT)).await.open_count, 1);
}

pub(super) async fn an_unknown_circuit_is_said_to_be_unknown(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let stranger = BulkheadName::new("stranger").unwrap();
    let transition =
        StoreTransition::new(stranger.clone(), Epoch(0), open(WAIT), client.operation());
    assert_eq!(
        client.send(&transition).await,
        TransitionResult::UnknownCircuit
    );
    let snapshot = client.session.snapshot(None).await.unwrap();
    assert!(
        snapshot
            .circuits
            .iter()
            .all(|view| view.circuit != stranger),
        "nothing was made up"
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

    let opened = client.make(open(WAIT)).await;
    let transition = StoreTransition::new(other.clone(), Epoch(0), open(WAIT), client.operation());
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

pub(super) async fn namespaces_are_apart(harness: &dyn Harness) {
    let mut here = Client::on(&*harness.store("here"), 1).await;
    let mut there = Client::on(&*harness.store("there"), 2).await;
    here.make(open(WAIT)).await;
    let view = there.view().await;
    assert_eq!((view.state, view.epoch), (FleetState::Closed, Epoch(0)));
    assert!(there.session.history(None, 10).await.unwrap().is_empty());
    // And a restarted process of the same namespace finds what was stored.
    let found = Client::on(&*harness.store("here"), 3).await.view().await;
    assert_eq!(found.state, FleetState::Open);
}
