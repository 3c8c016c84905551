//! The status of processes.

use std::time::Duration;

use super::{Client, Harness, SLACK};
use crate::store::ProcessStatus;

pub(super) async fn live_processes_are_counted(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let status = |id| ProcessStatus::new("shop".into(), id, VALID_FOR);
    let first = client.session.resync(None, &status(1)).await.unwrap();
    assert_eq!(first.circuits.len(), 1, "it reads as a snapshot does");
    if client.session.live_processes().is_none() {
        // The store does not count processes.
        return;
    }
    assert_eq!(client.session.live_processes(), Some(1));
    // Processes of other namespaces are not counted.
    let mut other = Client::on(&*harness.store("other"), 1).await;
    other.session.resync(None, &status(9)).await.unwrap();
    assert_eq!(other.session.live_processes(), Some(1));

    let mut second = Client::new(harness, 2).await;
    let mut changed = status(2);
    changed.instance = "shop \u{6f22}".into();
    changed.application_version = Some("1.4".into());
    changed.pending = 3;
    changed.degraded_for = Some(Duration::from_secs(7));
    for _ in 0..2 {
        let read = second.session.resync(Some(first.revision), &changed).await;
        assert_eq!(read.unwrap().circuits, [], "nothing changed");
        assert_eq!(second.session.live_processes(), Some(2));
    }
    // The first one has not reported for too long.
    harness.advance(VALID_FOR - SLACK).await;
    second.session.resync(None, &changed).await.unwrap();
    assert_eq!(second.session.live_processes(), Some(2));
    harness.advance(SLACK).await;
    second.session.resync(None, &changed).await.unwrap();
    assert_eq!(second.session.live_processes(), Some(1));
    client.session.resync(None, &status(1)).await.unwrap();
    assert_eq!(client.session.live_processes(), Some(2));
    // One that ends is not counted any more.
    second.session.withdraw(&changed).await.unwrap();
    second.session.withdraw(&changed).await.unwrap();
    client.session.resync(None, &status(1)).await.unwrap();
    assert_eq!(client.session.live_processes(), Some(1));
}

const VALID_FOR: Duration = Duration::from_secs(300);
