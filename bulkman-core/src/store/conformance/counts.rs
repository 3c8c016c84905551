//! Fleet-wide counts.

use std::time::Duration;

use super::{Client, Harness, ISOLATION, circuit, open};
use crate::name::BulkheadName;
use crate::store::{BucketedWindow, CountsDelta, Epoch};

pub(super) async fn counts_of_processes_are_summed(harness: &dyn Harness) {
    let mut x = Client::new(harness, 1).await;
    let mut y = Client::new(harness, 2).await;
    assert_eq!(x.add(Epoch(0), 10, 4).await, Some((10, 4)));
    assert_eq!(
        y.add(Epoch(0), 5, 4).await,
        Some((15, 8)),
        "two processes with 4 failures each have 8 failures"
    );
    assert_eq!(
        x.add(Epoch(0), 0, 0).await,
        Some((15, 8)),
        "an empty delta returns the totals"
    );
}

pub(super) async fn counts_leave_the_window(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.add(Epoch(0), 1, 1).await;
    harness.advance(WINDOW.bucket_length() * 5).await;
    assert_eq!(client.add(Epoch(0), 2, 0).await, Some((3, 1)));
    harness.advance(WINDOW.bucket_length() * 6).await;
    assert_eq!(
        client.add(Epoch(0), 0, 1).await,
        Some((2, 1)),
        "only the second call is within the window"
    );
    harness.advance(WINDOW.bucket_length() * 50).await;
    assert_eq!(client.add(Epoch(0), 1, 0).await, Some((1, 0)));
}

pub(super) async fn counts_of_earlier_epochs_are_skipped(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    client.add(Epoch(0), 100, 100).await;
    let epoch = client.apply(open(ISOLATION)).await.epoch;
    assert_eq!(
        client.add(epoch, 1, 0).await,
        Some((1, 0)),
        "a new epoch starts at zero"
    );
    assert_eq!(
        client.add(Epoch(0), 7, 7).await,
        None,
        "an earlier epoch is not counted"
    );
    assert_eq!(client.add(epoch, 1, 0).await, Some((2, 0)));
}

pub(super) async fn circuits_and_windows_count_separately(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let other = BulkheadName::new("b").unwrap();
    client
        .session
        .register(std::slice::from_ref(&other))
        .await
        .unwrap();
    let deltas = [
        CountsDelta::new(other.clone(), Epoch(0), 1, 2),
        CountsDelta::new(circuit(), Epoch(0), 3, 4),
        CountsDelta::new(BulkheadName::new("unknown").unwrap(), Epoch(0), 5, 6),
    ];
    let mut totals = client.session.add_counts(WINDOW, &deltas).await.unwrap();
    totals.sort_by(|a, b| a.circuit.cmp(&b.circuit));
    let totals: Vec<_> = totals
        .iter()
        .map(|t| (t.circuit.as_str(), t.epoch, t.successes, t.failures))
        .collect();
    assert_eq!(totals, [("a", Epoch(0), 3, 4), ("b", Epoch(0), 1, 2)]);

    let shorter = BucketedWindow::new(WINDOW.length / 2, WINDOW.buckets);
    let delta = [CountsDelta::new(circuit(), Epoch(0), 1, 0)];
    let totals = client.session.add_counts(shorter, &delta).await.unwrap();
    assert_eq!(
        (totals[0].successes, totals[0].failures),
        (1, 0),
        "another window has separate counts"
    );
    assert!(
        client
            .session
            .add_counts(WINDOW, &[])
            .await
            .unwrap()
            .is_empty()
    );
}

impl Client {
    async fn add(&mut self, epoch: Epoch, successes: u64, failures: u64) -> Option<(u64, u64)> {
        let delta = [CountsDelta::new(circuit(), epoch, successes, failures)];
        let totals = self
            .session
            .add_counts(WINDOW, &delta)
            .await
            .expect("the store responds");
        totals
            .first()
            .map(|total| (total.successes, total.failures))
    }
}

/// Buckets so long that the statements of a case fall into one or two.
const WINDOW: BucketedWindow = BucketedWindow::new(Duration::from_secs(6_000), 10);
