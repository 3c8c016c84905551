//! The fingerprint, which distinguishes histories of a namespace.

use std::sync::Arc;

use super::{Client, Harness, ISOLATION, TTL, applied, circuit, open, rejected, request};
use crate::name::BulkheadName;
use crate::store::{
    Epoch, Fingerprint, FleetAction, FleetCommand, OperationId, ProbePolicy, ProbeReportResult,
    ProbeResult, ProbeRule, StoreChange, StoreTransition, StoreVote, TransitionResult, VoteResult,
};

pub(super) async fn fingerprint_reflects_every_change(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut expected = client.fingerprint().await;
    let mut last = OperationId(0);

    // Transitions. Rejected and repeated ones change nothing.
    let base = client.view().await.epoch;
    let opening = client.transition(base, open(ISOLATION));
    for repeated in [false, true] {
        applied(client.send(&opening).await);
        if !repeated {
            expected = changed(&mut last, opening.operation, expected);
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "an opening, repeated: {repeated}"
        );
    }
    let stale = StoreTransition {
        operation: client.operation(),
        ..opening
    };
    rejected(client.send(&stale).await);
    assert_eq!(client.fingerprint().await, expected, "a rejection");

    // Probes: only the result that decides is a change.
    harness.advance(ISOLATION).await;
    let probe_policy = ProbePolicy::new(1, ProbeRule::Consecutive { successes: 2 });
    let probing = client.apply(StoreChange::HalfOpen { probe_policy }).await;
    expected = changed(&mut last, probing.operation, expected);
    assert_eq!(client.fingerprint().await, expected, "half-open");
    let own_request = request(probing.epoch, "x");
    let mut lease = client.acquire(&own_request).await.unwrap();
    assert!(
        own_request.ttl == TTL && client.fingerprint().await == expected,
        "a lease"
    );
    for decides in [false, true] {
        let operation = client.operation();
        let result = ProbeResult::new(own_request.clone(), lease, true, ISOLATION, operation);
        match client.session.report_probe(&result).await.unwrap() {
            ProbeReportResult::Counted { lease: renewed, .. } => lease = renewed,
            ProbeReportResult::Decided(_) => expected = changed(&mut last, operation, expected),
            ProbeReportResult::Lost { .. } => panic!("the lease is held"),
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "a result that decides: {decides}"
        );
    }

    // Votes: only the one that reaches the quorum is a change.
    for (voter, opens) in [("x", false), ("y", true)] {
        let base = client.view().await.epoch;
        let opening = client.transition(base, open(ISOLATION));
        let operation = opening.operation;
        let vote = StoreVote::new(opening, Arc::from(voter), 2, ISOLATION);
        let vote_result = client.session.vote(&vote).await.unwrap();
        assert_eq!(matches!(vote_result, VoteResult::Opened(_)), opens);
        if opens {
            expected = changed(&mut last, operation, expected);
        }
        assert_eq!(
            client.fingerprint().await,
            expected,
            "a vote that opens: {opens}"
        );
    }

    // Commands.
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

    // It covers all circuits, even those that a snapshot omits.
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    assert_eq!(client.fingerprint().await, expected, "registering");
    let base = client.session.snapshot(None).await.unwrap().revision;
    let operation = client.operation();
    let opening = StoreTransition::new(other, Epoch(0), open(ISOLATION), operation);
    applied(client.send(&opening).await);
    expected = expected.with_replaced(OperationId(0), operation);
    let changed_since = client.session.snapshot(Some(base)).await.unwrap();
    assert_eq!(
        (changed_since.circuits.len(), changed_since.fingerprint),
        (1, expected)
    );
    let unchanged = client
        .session
        .snapshot(Some(changed_since.revision))
        .await
        .unwrap();
    assert_eq!(
        (unchanged.circuits.len(), unchanged.fingerprint),
        (0, expected)
    );
}

/// Returns the fingerprint after a change of the circuit by `operation`.
fn changed(last: &mut OperationId, operation: OperationId, before: Fingerprint) -> Fingerprint {
    let old = std::mem::replace(last, operation);
    before.with_replaced(old, operation)
}

impl Client {
    pub(super) async fn fingerprint(&mut self) -> Fingerprint {
        self.session
            .snapshot(None)
            .await
            .expect("the store returns a snapshot")
            .fingerprint
    }
}
