//! Notifications.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use super::{Client, Harness, ISOLATION, open};
use crate::store::{Revision, Snapshot, StoreChange, StoreEvent, StoreTime};

pub(super) async fn changes_are_notified(harness: &dyn Harness) {
    let mut listener = Client::new(harness, 1).await;
    let mut writer = Client::new(harness, 2).await;
    if !harness.store("main").capabilities().push {
        assert!(
            !is_ready(listener.session.changed()).await,
            "a store without push sends no events"
        );
        return;
    }
    for change in [open(ISOLATION), StoreChange::Close] {
        let view = writer.apply(change).await;
        loop {
            // A notification may be late, and follow one of an earlier change.
            let event = listener.session.changed().await.unwrap();
            if event.revision() < view.revision {
                continue;
            }
            if let StoreEvent::Applied(event_content) = event {
                matches_snapshot(*event_content, &mut listener, view.revision).await;
            }
            break;
        }
    }
}

pub(super) async fn changed_is_cancel_safe(harness: &dyn Harness) {
    let mut listener = Client::new(harness, 1).await;
    let mut writer = Client::new(harness, 2).await;
    for round in 0..10 {
        let _dropped = is_ready(listener.session.changed()).await;
        let change = if round % 2 == 0 {
            open(ISOLATION)
        } else {
            StoreChange::Close
        };
        let change = writer.apply(change).await;
        let _dropped = is_ready(listener.session.changed()).await;
        assert_eq!(
            listener.view().await.epoch,
            change.epoch,
            "the session still works"
        );
    }
    if harness.store("main").capabilities().push {
        let revision = writer.apply(open(ISOLATION)).await.revision;
        while listener.session.changed().await.unwrap().revision() < revision {}
    }
}

/// Compares an event with a snapshot, except for the time that has passed since.
async fn matches_snapshot(mut event_content: Snapshot, listener: &mut Client, revision: Revision) {
    let mut snapshot = listener
        .session
        .snapshot(Some(Revision(revision.0 - 1)))
        .await
        .unwrap();
    assert!(event_content.now <= snapshot.now);
    for snapshot in [&mut event_content, &mut snapshot] {
        snapshot.now = StoreTime::default();
        for view in &mut snapshot.circuits {
            (view.age, view.remaining) = (
                Duration::ZERO,
                Duration::from_secs(u64::from(!view.remaining.is_zero())),
            );
        }
    }
    assert_eq!(event_content, snapshot);
}

/// Polls a future once, and drops it.
async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
