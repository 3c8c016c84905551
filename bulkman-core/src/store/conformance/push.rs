//! Announcements.

use std::future::{Future, poll_fn};
use std::task::Poll;

use super::{Client, Harness, WAIT, open};
use crate::store::{StoreChange, StoreEvent};

pub(super) async fn changes_are_announced(harness: &dyn Harness) {
    let mut ear = Client::new(harness, 1).await;
    let mut mouth = Client::new(harness, 2).await;
    if !harness.store("main").capabilities().push {
        assert!(!is_ready(ear.session.changed()).await, "a store that can't push stays silent");
        return;
    }
    for change in [open(WAIT), StoreChange::Close] {
        let revision = mouth.make(change).await.revision;
        loop {
            // An announcement may come late, and that of an earlier change come first.
            let StoreEvent::Changed { revision: heard } = ear.session.changed().await.unwrap();
            if heard >= revision {
                break;
            }
        }
    }
}

pub(super) async fn waiting_for_changes_can_be_given_up(harness: &dyn Harness) {
    let mut ear = Client::new(harness, 1).await;
    let mut mouth = Client::new(harness, 2).await;
    for round in 0..10 {
        let _given_up = is_ready(ear.session.changed()).await;
        let change = if round % 2 == 0 { open(WAIT) } else { StoreChange::Close };
        let made = mouth.make(change).await;
        let _given_up = is_ready(ear.session.changed()).await;
        assert_eq!(ear.view().await.epoch, made.epoch, "the session still works");
    }
    if harness.store("main").capabilities().push {
        let revision = mouth.make(open(WAIT)).await.revision;
        while !matches!(
            ear.session.changed().await.unwrap(),
            StoreEvent::Changed { revision: heard } if heard >= revision
        ) {}
    }
}

/// Polls once, and drops the future.
async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
