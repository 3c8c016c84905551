//! Telling one history of a namespace from another.

use std::sync::Arc;

use super::{Client, Harness, TTL, WAIT, applied, circuit, open, refused, request};
use crate::name::BulkheadName;
use crate::store::{
    Epoch, Fingerprint, FleetAction, FleetCommand, OperationId, ProbePolicy, ProbeReportResult,
    ProbeResult, ProbeRule, StoreChange, StoreTransition, StoreVote, TransitionResult, VoteResult,
};

pub(super) async fn it_follows_every_change_and_nothing_else(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut expected = client.fingerprint().await;
    let mut last = OperationId(0);

    // Transitions, by rule; those that are refused or repeated are no changes.
    let base = client.view().await.epoch;
    let opening = client.transition(base, open(WAIT));
    for try_again in [false, true] {
        applied(client.send(&opening).await);
        if !try_again {
            expected = changed(&mut last, opening.operation, expected);
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "an opening, repeated: {try_again}"
        );
    }
    let stale = StoreTransition {
        operation: client.operation(),
        ..opening
    };
    refused(client.send(&stale).await);
    assert_eq!(client.fingerprint().await, expected, "a refusal");

    // Probes: the verdict that decides.
    harness.advance(WAIT).await;
    let plan = ProbePolicy::new(1, ProbeRule::Consecutive { successes: 2 });
    let probing = client.make(StoreChange::HalfOpen { plan }).await;
    expected = changed(&mut last, probing.operation, expected);
    assert_eq!(client.fingerprint().await, expected, "half-open");
    let mine = request(probing.epoch, "x");
    let mut lease = client.acquire(&mine).await.unwrap();
    assert!(
        mine.ttl == TTL && client.fingerprint().await == expected,
        "a lease"
    );
    for decides in [false, true] {
        let operation = client.operation();
        let verdict = ProbeResult::new(mine.clone(), lease, true, WAIT, operation);
        match client.session.report_probe(&verdict).await.unwrap() {
            ProbeReportResult::Counted { lease: renewed, .. } => lease = renewed,
            ProbeReportResult::Decided(_) => expected = changed(&mut last, operation, expected),
            ProbeReportResult::Lost { .. } => panic!("the lease is held"),
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "a verdict that decides: {decides}"
        );
    }

    // Votes: the one that makes the quorum.
    for (voter, opens) in [("x", false), ("y", true)] {
        let base = client.view().await.epoch;
        let opening = client.transition(base, open(WAIT));
        let operation = opening.operation;
        let vote = StoreVote::new(opening, Arc::from(voter), 2, WAIT);
        let voted = client.session.vote(&vote).await.unwrap();
        assert_eq!(matches!(voted, VoteResult::Opened(_)), opens);
        if opens {
            expected = changed(&mut last, operation, expected);
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "a vote that opens: {opens}"
        );
    }

    // Operators.
    for action in [
        FleetAction::ForceOpen,
        FleetAction::Disable,
        FleetAction::Close,
        FleetAction::Reset,
    ] {
        let command = FleetCommand::new(circuit(), action, client.operation(), "", "");
        assert!(matches!(
            client.session.command(&command).await.unwrap(),
            TransitionResult::Applied(_)
        ));
        expected = changed(&mut last, command.operation, expected);
        assert_eq!(client.fingerprint().await, expected, "{action:?}");
    }

    // It is of all circuits, whichever a snapshot tells of.
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    assert_eq!(client.fingerprint().await, expected, "registering");
    let base = client.session.snapshot(None).await.unwrap().revision;
    let operation = client.operation();
    let opening = StoreTransition::new(other, Epoch(0), open(WAIT), operation);
    applied(client.send(&opening).await);
    expected = expected.with_replaced(OperationId(0), operation);
    let told = client.session.snapshot(Some(base)).await.unwrap();
    assert_eq!((told.circuits.len(), told.fingerprint), (1, expected));
    let nothing = client.session.snapshot(Some(told.revision)).await.unwrap();
    assert_eq!((nothing.circuits.len(), nothing.fingerprint), (0, expected));
}

/// After a change of the circuit by `operation`.
fn changed(last: &mut OperationId, operation: OperationId, before: Fingerprint) -> Fingerprint {
    let was = std::mem::replace(last, operation);
    before.with_replaced(was, operation)
}

impl Client {
    pub(super) async fn fingerprint(&mut self) -> Fingerprint {
        self.session
            .snapshot(None)
            .await
            .expect("snapshot")
            .fingerprint
    }
}
