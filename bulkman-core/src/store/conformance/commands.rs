//! Commands of operators, and the history.

use std::sync::Arc;

use super::{Client, Harness, ISOLATION, SLACK, applied, circuit, open, rejected};
use crate::name::BulkheadName;
use crate::store::{
    CircuitView, Epoch, FleetAction, FleetCommand, FleetState, ProbePolicy, RejectReason,
    StoreChange, StoreTransition, StoreVote, TransitionResult, VoteResult,
};

pub(super) async fn command_overrides_every_state(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let half_open = StoreChange::HalfOpen {
        probe_policy: ProbePolicy::default(),
    };
    for (action, state) in ACTIONS {
        for prepare in [StoreChange::Close, open(ISOLATION), half_open] {
            client.command(FleetAction::Reset).await;
            let base = client.view().await.epoch;
            let manual = StoreTransition {
                manual: true,
                ..client.transition(base, prepare)
            };
            let before = applied(client.send(&manual).await);
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
    let unknown = BulkheadName::new("unknown").unwrap();
    let command = FleetCommand::new(unknown, FleetAction::Close, client.operation(), "", "");
    assert_eq!(
        client.session.command(&command).await.unwrap(),
        TransitionResult::UnknownCircuit
    );
}

pub(super) async fn only_commands_leave_a_forced_state(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for action in [FleetAction::ForceOpen, FleetAction::Disable] {
        let forced = client.command(action).await;
        let probe_policy = ProbePolicy::default();
        for change in [
            open(ISOLATION),
            StoreChange::HalfOpen { probe_policy },
            StoreChange::Close,
        ] {
            for manual in [false, true] {
                let attempt = StoreTransition {
                    manual,
                    ..client.transition(forced.epoch, change)
                };
                let (reason, current) = rejected(client.send(&attempt).await);
                assert_eq!(
                    (reason, current.state),
                    (RejectReason::ForcedByOperator, forced.state),
                    "{change:?}"
                );
            }
        }
        let opening = client.transition(forced.epoch, open(ISOLATION));
        let vote = StoreVote::new(opening, Arc::from("x"), 1, SLACK);
        let vote_result = client.session.vote(&vote).await.unwrap();
        assert!(
            matches!(
                vote_result,
                VoteResult::Rejected {
                    reason: RejectReason::ForcedByOperator,
                    ..
                }
            ),
            "{vote_result:?}"
        );
        harness.advance(ISOLATION * 10).await;
        assert_eq!(
            client.view().await.state,
            forced.state,
            "no time limit ends it"
        );
    }
}

pub(super) async fn repeated_command_applies_once(harness: &dyn Harness) {
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

pub(super) async fn history_has_author_and_reason(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    let mut opening = client.transition(Epoch(0), open(ISOLATION));
    opening.author = Arc::from("process one");
    opening.reason = Arc::from("5 failures in a row");
    applied(client.send(&opening).await);
    harness.advance(ISOLATION).await;
    let operation = client.operation();
    let command = FleetCommand::new(
        circuit(),
        FleetAction::ForceOpen,
        operation,
        "ada",
        "maintenance",
    );
    applied(client.session.command(&command).await.unwrap());
    let other_opening =
        StoreTransition::new(other.clone(), Epoch(0), open(ISOLATION), client.operation());
    applied(client.send(&other_opening).await);

    let circuit_history = client.session.history(Some(&circuit()), 10).await.unwrap();
    let [forced, opened] = &circuit_history[..] else {
        panic!("two changes, newest first: {circuit_history:?}")
    };
    assert_eq!(
        (forced.from, forced.to),
        (FleetState::Open, FleetState::ForcedOpen)
    );
    assert_eq!((&*forced.author, &*forced.reason), ("ada", "maintenance"));
    assert_eq!(
        (opened.from, opened.to, opened.open_for),
        (FleetState::Closed, FleetState::Open, ISOLATION)
    );
    assert_eq!(
        (&*opened.author, &*opened.reason),
        ("process one", "5 failures in a row")
    );
    assert_eq!((opened.epoch, forced.epoch), (Epoch(1), Epoch(2)));
    assert!(
        forced.age < SLACK && opened.age >= ISOLATION && opened.age < ISOLATION + SLACK,
        "{circuit_history:?}"
    );

    let all = client.session.history(None, 2).await.unwrap();
    let circuits: Vec<_> = all.iter().map(|entry| entry.circuit.as_str()).collect();
    assert_eq!(
        circuits,
        ["b", "a"],
        "the whole namespace, newest first, up to the limit"
    );
}

pub(super) async fn history_is_bounded(harness: &dyn Harness) {
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
    assert_eq!(epochs, newest, "the newest entries are kept, in order");
}

impl Client {
    async fn command(&mut self, action: FleetAction) -> CircuitView {
        let command = FleetCommand::new(circuit(), action, self.operation(), "ada", "a reason");
        applied(
            self.session
                .command(&command)
                .await
                .expect("the store responds"),
        )
    }
}

const ACTIONS: [(FleetAction, FleetState); 4] = [
    (FleetAction::ForceOpen, FleetState::ForcedOpen),
    (FleetAction::Disable, FleetState::Disabled),
    (FleetAction::Close, FleetState::Closed),
    (FleetAction::Reset, FleetState::Closed),
];
