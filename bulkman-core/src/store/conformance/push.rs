//! Announcements.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use super::{Client, Harness, WAIT, open};
use crate::store::{Revision, Snapshot, StoreChange, StoreEvent, StoreTime};

pub(super) async fn changes_are_announced(harness: &dyn Harness) {
    let mut ear = Client::new(harness, 1).await;
    let mut mouth = Client::new(harness, 2).await;
    if !harness.store("main").capabilities().push {
        assert!(
            !is_ready(ear.session.changed()).await,
            "a store that can't push stays silent"
        );
        return;
    }
    for change in [open(WAIT), StoreChange::Close] {
        let view = mouth.make(change).await;
        loop {
            // An announcement may come late, and that of an earlier change come first.
            let event = ear.session.changed().await.unwrap();
            if event.revision() < view.revision {
                continue;
            }
            if let StoreEvent::Applied(told) = event {
                is_what_a_look_tells(*told, &mut ear, view.revision).await;
            }
            break;
        }
    }
}

pub(super) async fn waiting_for_changes_can_be_given_up(harness: &dyn Harness) {
    let mut ear = Client::new(harness, 1).await;
    let mut mouth = Client::new(harness, 2).await;
    for round in 0..10 {
        let _given_up = is_ready(ear.session.changed()).await;
        let change = if round % 2 == 0 {
            open(WAIT)
        } else {
            StoreChange::Close
        };
        let made = mouth.make(change).await;
        let _given_up = is_ready(ear.session.changed()).await;
        assert_eq!(
            ear.view().await.epoch,
            made.epoch,
            "the session still works"
        );
    }
    if harness.store("main").capabilities().push {
        let revision = mouth.make(open(WAIT)).await.revision;
        while ear.session.changed().await.unwrap().revision() < revision {}
    }
}

/// But for the time that has passed since.
async fn is_what_a_look_tells(mut told: Snapshot, ear: &mut Client, revision: Revision) {
    let mut found = ear
        .session
        .snapshot(Some(Revision(revision.0 - 1)))
        .await
        .unwrap();
    assert!(told.now <= found.now);
    for snapshot in [&mut told, &mut found] {
        snapshot.now = StoreTime::default();
        for view in &mut snapshot.circuits {
            (view.age, view.remaining) = (
                Duration::ZERO,
                Duration::from_secs(u64::from(!view.remaining.is_zero())),
            );
        }
    }
    assert_eq!(told, found);
}

/// Polls once, and drops the future.
async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
