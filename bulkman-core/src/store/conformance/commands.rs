//! Operators.

use std::sync::Arc;

use super::{Client, Harness, SLACK, WAIT, applied, circuit, open, refused};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, FleetAction, FleetCommand, FleetState, ProbePolicy, RejectReason,
    StoreChange, StoreTransition, StoreVote, TransitionResult, VoteResult,
};

pub(super) async fn an_operator_wins_over_every_state(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let half_open = StoreChange::HalfOpen {
        plan: ProbePolicy::default(),
    };
    for (action, state) in ACTIONS {
        for prepare in [StoreChange::Close, open(WAIT), half_open] {
            client.command(FleetAction::Reset).await;
            let base = client.view().await.epoch;
            let by_hand = StoreTransition {
                by_hand: true,
                ..client.transition(base, prepare)
            };
            let before = applied(client.send(&by_hand).await);
            let view = client.command(action).await;
            assert_eq!(view.state, state, "{action:?} after {prepare:?}");
            assert_eq!(view.epoch, Epoch(before.epoch.0 + 1));
            assert_eq!(view.open_count, 0);
        }
        for (other, other_state) in ACTIONS {
            client.command(action).await;
            assert_eq!(
                client.command(other).await.state,
                other_state,
                "{other:?} after {action:?}"
            );
        }
    }
    let stranger = BulkheadName::new("stranger").unwrap();
    let command = FleetCommand::new(stranger, FleetAction::Close, client.operation(), "", "");
    assert_eq!(
        client.session.command(&command).await.unwrap(),
        TransitionResult::UnknownCircuit
    );
}

pub(super) async fn nothing_leaves_a_forced_state_but_a_command(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for action in [FleetAction::ForceOpen, FleetAction::Disable] {
        let forced = client.command(action).await;
        let plan = ProbePolicy::default();
        for change in [
            open(WAIT),
            StoreChange::HalfOpen { plan },
            StoreChange::Close,
        ] {
            for by_hand in [false, true] {
                let attempt = StoreTransition {
                    by_hand,
                    ..client.transition(forced.epoch, change)
                };
                let (why, current) = refused(client.send(&attempt).await);
                assert_eq!(
                    (why, current.state),
                    (RejectReason::ForcedByOperator, forced.state),
                    "{change:?}"
                );
            }
        }
        let opening = client.transition(forced.epoch, open(WAIT));
        let vote = StoreVote::new(opening, Arc::from("x"), 1, SLACK);
        let voted = client.session.vote(&vote).await.unwrap();
        assert!(
            matches!(
                voted,
                VoteResult::Refused {
                    why: RejectReason::ForcedByOperator,
                    ..
                }
            ),
            "{voted:?}"
        );
        harness.advance(WAIT * 10).await;
        assert_eq!(
            client.view().await.state,
            forced.state,
            "time changes nothing"
        );
    }
}

pub(super) async fn a_repeated_command_applies_once(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let command = FleetCommand::new(
        circuit(),
        FleetAction::ForceOpen,
        client.operation(),
        "ada",
        "drill",
    );
    let first = applied(client.session.command(&command).await.unwrap());
    let again = applied(client.session.command(&command).await.unwrap());
    assert_eq!(first.epoch, again.epoch);
}

pub(super) async fn the_history_says_who_and_why(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    let mut opening = client.transition(Epoch(0), open(WAIT));
    opening.by = Arc::from("process one");
    opening.reason = Arc::from("5 failures in a row");
    applied(client.send(&opening).await);
    harness.advance(WAIT).await;
    let operation = client.operation();
    let command = FleetCommand::new(
        circuit(),
        FleetAction::ForceOpen,
        operation,
        "ada",
        "maintenance",
    );
    applied(client.session.command(&command).await.unwrap());
    let elsewhere = StoreTransition::new(other.clone(), Epoch(0), open(WAIT), client.operation());
    applied(client.send(&elsewhere).await);

    let mine = client.session.history(Some(&circuit()), 10).await.unwrap();
    let [forced, opened] = &mine[..] else {
        panic!("two changes, newest first: {mine:?}")
    };
    assert_eq!(
        (forced.from, forced.to),
        (FleetState::Open, FleetState::ForcedOpen)
    );
    assert_eq!((&*forced.by, &*forced.reason), ("ada", "maintenance"));
    assert_eq!(
        (opened.from, opened.to, opened.wait),
        (FleetState::Closed, FleetState::Open, WAIT)
    );
    assert_eq!(
        (&*opened.by, &*opened.reason),
        ("process one", "5 failures in a row")
    );
    assert_eq!((opened.epoch, forced.epoch), (Epoch(1), Epoch(2)));
    assert!(
        forced.age < SLACK && opened.age >= WAIT && opened.age < WAIT + SLACK,
        "{mine:?}"
    );

    let all = client.session.history(None, 2).await.unwrap();
    let circuits: Vec<_> = all.iter().map(|entry| entry.circuit.as_str()).collect();
    assert_eq!(
        circuits,
        ["b", "a"],
        "of the whole namespace, newest first, as many as asked for"
    );
}

pub(super) async fn the_history_is_bounded(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut epoch = 0;
    for round in 0..300 {
        let action = if round % 2 == 0 {
            FleetAction::ForceOpen
        } else {
            FleetAction::Close
        };
        epoch = client.command(action).await.epoch.0;
    }
    let history = client.session.history(None, 1_000).await.unwrap();
    assert!(
        (10..300).contains(&history.len()),
        "kept {} of 300",
        history.len()
    );
    let epochs: Vec<_> = history.iter().map(|entry| entry.epoch.0).collect();
    let newest: Vec<_> = (0..=epoch).rev().take(history.len()).collect();
    assert_eq!(epochs, newest, "the newest are kept, in order");
}

impl Client {
    async fn command(&mut self, action: FleetAction) -> CircuitView {
        let command = FleetCommand::new(circuit(), action, self.operation(), "ada", "because");
        applied(self.session.command(&command).await.expect("an answer"))
    }
}

const ACTIONS: [(FleetAction, FleetState); 4] = [
    (FleetAction::ForceOpen, FleetState::ForcedOpen),
    (FleetAction::Disable, FleetState::Disabled),
    (FleetAction::Close, FleetState::Closed),
    (FleetAction::Reset, FleetState::Closed),
];
