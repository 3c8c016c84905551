//! Votes and the quorum.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Harness, ISOLATION, SLACK, open};
use crate::store::{
    CircuitView, Epoch, FleetState, RejectReason, StoreChange, StoreVote, VoteResult,
};

pub(super) async fn quorum_opens(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    assert_eq!(
        client.vote(Epoch(0), "x", 3).await,
        VoteResult::Counted { votes: 1 }
    );
    assert_eq!(
        client.vote(Epoch(0), "y", 3).await,
        VoteResult::Counted { votes: 2 }
    );
    let view = client.view().await;
    assert_eq!(
        (view.state, view.epoch),
        (FleetState::Closed, Epoch(0)),
        "two of three votes don't open"
    );
    let view = opened(client.vote(Epoch(0), "z", 3).await);
    assert_eq!(
        (view.state, view.epoch, view.open_for),
        (FleetState::Open, Epoch(1), ISOLATION)
    );
    assert_eq!(client.session.history(None, 10).await.unwrap().len(), 1);
}

pub(super) async fn process_has_one_vote(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for _ in 0..3 {
        assert_eq!(
            client.vote(Epoch(0), "x", 2).await,
            VoteResult::Counted { votes: 1 }
        );
    }
}

pub(super) async fn vote_expires(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.vote(Epoch(0), "x", 2).await;
    harness.advance(WINDOW).await;
    assert_eq!(
        client.vote(Epoch(0), "y", 2).await,
        VoteResult::Counted { votes: 1 }
    );
    harness.advance(WINDOW - SLACK).await;
    opened(client.vote(Epoch(0), "x", 2).await);
}

pub(super) async fn state_change_clears_votes(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.vote(Epoch(0), "x", 2).await;
    client.apply(open(ISOLATION)).await;
    let closed = client.apply(StoreChange::Close).await;
    assert_eq!(
        client.vote(closed.epoch, "y", 2).await,
        VoteResult::Counted { votes: 1 }
    );
}

pub(super) async fn vote_is_rejected_like_a_transition(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let view = client.apply(open(ISOLATION)).await;
    assert!(matches!(
        client.vote(Epoch(0), "x", 1).await,
        VoteResult::Rejected { reason: RejectReason::Stale, current } if current.epoch == view.epoch
    ));
    assert!(matches!(
        client.vote(view.epoch, "x", 1).await,
        VoteResult::Rejected {
            reason: RejectReason::AlreadyInState,
            ..
        }
    ));
    // A repeated vote that opened the circuit is recognized.
    let closed = client.apply(StoreChange::Close).await;
    let vote = client.new_vote(closed.epoch, "x", 1);
    let first = opened(client.session.vote(&vote).await.unwrap());
    let again = opened(client.session.vote(&vote).await.unwrap());
    assert_eq!(first.epoch, again.epoch);
}

impl Client {
    fn new_vote(&mut self, base: Epoch, voter: &str, quorum: u16) -> StoreVote {
        StoreVote::new(
            self.transition(base, open(ISOLATION)),
            Arc::from(voter),
            quorum,
            WINDOW,
        )
    }

    async fn vote(&mut self, base: Epoch, voter: &str, quorum: u16) -> VoteResult {
        let vote = self.new_vote(base, voter, quorum);
        self.session.vote(&vote).await.expect("the store responds")
    }
}

#[track_caller]
fn opened(result: VoteResult) -> CircuitView {
    match result {
        VoteResult::Opened(view) => view,
        other => panic!("should open, is {other:?}"),
    }
}

const WINDOW: Duration = Duration::from_secs(400);
