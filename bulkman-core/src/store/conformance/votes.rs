//! Quorum.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Harness, SLACK, WAIT, open};
use crate::store::{
    CircuitView, Epoch, FleetState, RejectReason, StoreChange, StoreVote, VoteResult,
};

pub(super) async fn a_quorum_opens(harness: &dyn Harness) {
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
        "two of three are not enough"
    );
    let view = opened(client.vote(Epoch(0), "z", 3).await);
    assert_eq!(
        (view.state, view.epoch, view.wait),
        (FleetState::Open, Epoch(1), WAIT)
    );
    assert_eq!(client.session.history(None, 10).await.unwrap().len(), 1);
}

pub(super) async fn a_process_has_one_vote(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    for _ in 0..3 {
        assert_eq!(
            client.vote(Epoch(0), "x", 2).await,
            VoteResult::Counted { votes: 1 }
        );
    }
}

pub(super) async fn a_vote_expires(harness: &dyn Harness) {
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

pub(super) async fn votes_end_with_the_state_they_were_for(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.vote(Epoch(0), "x", 2).await;
    client.make(open(WAIT)).await;
    let closed = client.make(StoreChange::Close).await;
    assert_eq!(
        client.vote(closed.epoch, "y", 2).await,
        VoteResult::Counted { votes: 1 }
    );
}

pub(super) async fn a_vote_is_refused_as_a_transition_is(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let view = client.make(open(WAIT)).await;
    assert!(matches!(
        client.vote(Epoch(0), "x", 1).await,
        VoteResult::Refused { why: RejectReason::Stale, current } if current.epoch == view.epoch
    ));
    assert!(matches!(
        client.vote(view.epoch, "x", 1).await,
        VoteResult::Refused {
            why: RejectReason::AlreadyInState,
            ..
        }
    ));
    // An opening vote that is repeated is recognised.
    let closed = client.make(StoreChange::Close).await;
    let vote = client.new_vote(closed.epoch, "x", 1);
    let first = opened(client.session.vote(&vote).await.unwrap());
    let again = opened(client.session.vote(&vote).await.unwrap());
    assert_eq!(first.epoch, again.epoch);
}

impl Client {
    fn new_vote(&mut self, base: Epoch, voter: &str, quorum: u16) -> StoreVote {
        StoreVote::new(
            self.transition(base, open(WAIT)),
            Arc::from(voter),
            quorum,
            WINDOW,
        )
    }

    async fn vote(&mut self, base: Epoch, voter: &str, quorum: u16) -> VoteResult {
        let vote = self.new_vote(base, voter, quorum);
        self.session.vote(&vote).await.expect("an answer")
    }
}

#[track_caller]
fn opened(voted: VoteResult) -> CircuitView {
    match voted {
        VoteResult::Opened(view) => view,
        other => panic!("should open, is {other:?}"),
    }
}

const WINDOW: Duration = Duration::from_secs(400);
