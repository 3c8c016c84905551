//! Probe leases and results.

use std::sync::Arc;

use super::{Client, Harness, ISOLATION, SLACK, TTL, circuit, open, request};
use crate::store::{
    CircuitView, Epoch, FleetState, ProbeLease, ProbePolicy, ProbeReportResult, ProbeRequest,
    ProbeResult, ProbeRule, StoreChange,
};

pub(super) async fn leases_never_exceed_the_limit(harness: &dyn Harness) {
    for limit in [1, 3, 5] {
        let mut client = Client::on(&*harness.store(&format!("limit {limit}")), 1).await;
        let epoch = client
            .enter_half_open(harness, ISOLATION, consecutive(limit, 9))
            .await;
        let mut slots = Vec::new();
        for contender in 0..8 {
            slots.extend(
                client
                    .acquire(&request(epoch, &contender.to_string()))
                    .await
                    .map(|l| l.slot),
            );
        }
        assert_eq!(
            slots.len(),
            usize::from(limit),
            "exactly the limit: {slots:?}"
        );
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(
            slots.len(),
            usize::from(limit),
            "each lease has its own slot"
        );
    }
}

pub(super) async fn holder_has_one_lease(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(3, 3)).await;
    let first = client.acquire(&request(epoch, "x")).await.unwrap();
    let again = client.acquire(&request(epoch, "x")).await.unwrap();
    assert_eq!(first.slot, again.slot);
    let current = lost(client.report(&request(epoch, "x"), first, true).await);
    assert_eq!(current.probes_succeeded, 0, "the first lease is fenced");
    counted(client.report(&request(epoch, "x"), again, true).await);
}

pub(super) async fn expired_lease_is_available(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 3)).await;
    client.acquire(&request(epoch, "crashed")).await.unwrap();
    harness.advance(TTL - SLACK).await;
    assert_eq!(client.acquire(&request(epoch, "x")).await, None);
    harness.advance(SLACK).await;
    assert!(client.acquire(&request(epoch, "x")).await.is_some());
}

pub(super) async fn renewed_lease_stays_valid(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 3)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    for _ in 0..3 {
        harness.advance(TTL - SLACK).await;
        assert_eq!(
            client
                .session
                .renew_probe(&own_request, lease)
                .await
                .unwrap(),
            Some(lease)
        );
        assert_eq!(client.acquire(&request(epoch, "other")).await, None);
    }
    harness.advance(TTL).await;
    assert_eq!(
        client
            .session
            .renew_probe(&own_request, lease)
            .await
            .unwrap(),
        None,
        "expired"
    );
    client.acquire(&request(epoch, "other")).await.unwrap();
    assert_eq!(
        client
            .session
            .renew_probe(&own_request, lease)
            .await
            .unwrap(),
        None,
        "the lease has another holder"
    );
}

pub(super) async fn released_lease_is_available_and_fenced(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 3)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    client
        .session
        .release_probe(&own_request, lease)
        .await
        .unwrap();
    assert!(matches!(
        client.report(&own_request, lease, false).await,
        ProbeReportResult::Lost { .. }
    ));

    let other_request = request(epoch, "y");
    client.acquire(&other_request).await.unwrap();
    client
        .session
        .release_probe(&own_request, lease)
        .await
        .unwrap();
    assert_eq!(
        client.acquire(&own_request).await,
        None,
        "an old lease can't release the lease of another holder"
    );
}

pub(super) async fn lease_requires_half_open_at_that_epoch(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    assert_eq!(
        client.acquire(&request(Epoch(0), "x")).await,
        None,
        "closed"
    );
    let opened = client.apply(open(ISOLATION)).await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "open"
    );
    harness.advance(ISOLATION).await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "elapsed isolation is not half-open"
    );
    let half_open = client
        .apply(StoreChange::HalfOpen {
            probe_policy: consecutive(1, 1),
        })
        .await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "another epoch"
    );
    assert!(
        client
            .acquire(&request(half_open.epoch, "x"))
            .await
            .is_some()
    );
}

pub(super) async fn enough_successes_close(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(2, 3)).await;
    let (x, y) = (request(epoch, "x"), request(epoch, "y"));
    let lease_x = client.acquire(&x).await.unwrap();
    let lease_y = client.acquire(&y).await.unwrap();
    let (lease_x, current) = counted(client.report(&x, lease_x, true).await);
    assert_eq!(
        (current.state, current.probes_succeeded),
        (FleetState::HalfOpen, 1)
    );
    counted(client.report(&y, lease_y, true).await);
    let view = decided(client.report(&x, lease_x, true).await);
    assert_eq!((view.state, view.open_count), (FleetState::Closed, 0));
    assert_eq!(view.epoch, Epoch(epoch.0 + 1));
    assert_eq!(client.view().await.state, FleetState::Closed);
}

pub(super) async fn one_failure_reopens_consecutive_rule(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 3)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    let (lease, _) = counted(client.report(&own_request, lease, true).await);
    let mut result = client.result(&own_request, lease, false);
    result.open_for = ISOLATION * 2;
    result.author = Arc::from("process one");
    result.reason = Arc::from("a probe failed");
    let view = decided(client.session.report_probe(&result).await.unwrap());
    assert_eq!(
        (view.state, view.open_count, view.open_for),
        (FleetState::Open, 2, ISOLATION * 2)
    );
    assert!(view.remaining > ISOLATION * 2 - SLACK, "{view:?}");
    assert_eq!(
        (&*view.author, &*view.reason),
        ("process one", "a probe failed")
    );
}

pub(super) async fn sample_decides_when_complete(harness: &dyn Harness) {
    for (outcomes, expected) in [
        ([false, true, true, true], FleetState::Closed),
        ([false, false, true, true], FleetState::Open),
    ] {
        let store = harness.store(&format!("sample {expected}"));
        let mut client = Client::on(&*store, 1).await;
        let rule = ProbeRule::SampleSize {
            calls: 4,
            failures: Some(2),
            slow: None,
        };
        let epoch = client
            .enter_half_open(harness, ISOLATION, ProbePolicy::new(1, rule))
            .await;
        let own_request = request(epoch, "x");
        let mut lease = client.acquire(&own_request).await.unwrap();
        for (done, success) in outcomes[..3].iter().enumerate() {
            let (renewed, current) = counted(client.report(&own_request, lease, *success).await);
            assert_eq!(
                current.probes_succeeded + current.probes_failed,
                done as u32 + 1
            );
            lease = renewed;
        }
        assert_eq!(
            decided(client.report(&own_request, lease, outcomes[3]).await).state,
            expected
        );
    }
}

pub(super) async fn sample_reopens_on_slow_calls(harness: &dyn Harness) {
    let rule = ProbeRule::SampleSize {
        calls: 2,
        failures: None,
        slow: Some(2),
    };
    let (mut client, epoch) = probing(harness, ProbePolicy::new(1, rule)).await;
    let own_request = request(epoch, "x");
    let mut lease = client.acquire(&own_request).await.unwrap();
    for last in [false, true] {
        let mut result = client.result(&own_request, lease, true);
        result.slow = true;
        let report = client.session.report_probe(&result).await.unwrap();
        if last {
            assert_eq!(decided(report).state, FleetState::Open);
        } else {
            lease = counted(report).0;
        }
    }
}

pub(super) async fn repeated_result_counts_once(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 3)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    let result = client.result(&own_request, lease, true);
    let (renewed, _) = counted(client.session.report_probe(&result).await.unwrap());
    let (again, current) = counted(client.session.report_probe(&result).await.unwrap());
    assert_eq!(again, renewed, "the repeated result returns the same lease");
    assert_eq!(current.probes_succeeded, 1);
    let (_, current) = counted(client.report(&own_request, renewed, true).await);
    assert_eq!(current.probes_succeeded, 2);
}

pub(super) async fn result_renews_the_lease(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 9)).await;
    let own_request = request(epoch, "x");
    let mut lease = client.acquire(&own_request).await.unwrap();
    for _ in 0..3 {
        harness.advance(TTL - SLACK).await;
        lease = counted(client.report(&own_request, lease, true).await).0;
        assert_eq!(client.acquire(&request(epoch, "other")).await, None);
    }
}

pub(super) async fn late_result_is_fenced(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 1)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    harness.advance(TTL).await;
    let current = lost(client.report(&own_request, lease, true).await);
    assert_eq!(
        (current.state, current.probes_succeeded),
        (FleetState::HalfOpen, 0),
        "expired"
    );

    client.acquire(&request(epoch, "y")).await.unwrap();
    let current = lost(client.report(&own_request, lease, false).await);
    assert_eq!(
        (current.state, current.probes_failed),
        (FleetState::HalfOpen, 0),
        "another holder"
    );
}

pub(super) async fn repeated_deciding_result_is_recognized(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, consecutive(1, 1)).await;
    let own_request = request(epoch, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    let result = client.result(&own_request, lease, false);
    let first = decided(client.session.report_probe(&result).await.unwrap());
    let again = decided(client.session.report_probe(&result).await.unwrap());
    assert_eq!(
        (first.epoch, first.open_count),
        (again.epoch, again.open_count)
    );
}

pub(super) async fn leases_of_earlier_periods_are_fenced(harness: &dyn Harness) {
    let (mut client, first) = probing(harness, consecutive(1, 1)).await;
    let own_request = request(first, "x");
    let lease = client.acquire(&own_request).await.unwrap();
    client.apply(open(ISOLATION)).await;
    harness.advance(ISOLATION - SLACK).await;
    let current = lost(client.report(&own_request, lease, true).await);
    assert_eq!(current.state, FleetState::Open);
    harness.advance(SLACK).await;
    let half_open = client
        .apply(StoreChange::HalfOpen {
            probe_policy: consecutive(1, 1),
        })
        .await;
    assert!(lost(client.report(&own_request, lease, true).await).probes_succeeded == 0);
    assert_eq!(
        client
            .session
            .renew_probe(&own_request, lease)
            .await
            .unwrap(),
        None
    );
    assert!(
        client
            .acquire(&request(half_open.epoch, "y"))
            .await
            .is_some(),
        "an earlier lease blocks no slot"
    );
}

impl Client {
    fn result(&mut self, request: &ProbeRequest, lease: ProbeLease, success: bool) -> ProbeResult {
        ProbeResult::new(request.clone(), lease, success, ISOLATION, self.operation())
    }

    async fn report(
        &mut self,
        request: &ProbeRequest,
        lease: ProbeLease,
        success: bool,
    ) -> ProbeReportResult {
        let result = self.result(request, lease, success);
        self.session
            .report_probe(&result)
            .await
            .expect("the store responds")
    }
}

async fn probing(harness: &dyn Harness, probe_policy: ProbePolicy) -> (Client, Epoch) {
    let mut client = Client::new(harness, 1).await;
    let epoch = client
        .enter_half_open(harness, ISOLATION, probe_policy)
        .await;
    (client, epoch)
}

const fn consecutive(limit: u16, successes: u16) -> ProbePolicy {
    ProbePolicy::new(limit, ProbeRule::Consecutive { successes })
}

#[track_caller]
fn counted(report: ProbeReportResult) -> (ProbeLease, CircuitView) {
    match report {
        ProbeReportResult::Counted { lease, current } => {
            assert_eq!(current.circuit, circuit());
            (lease, current)
        }
        other => panic!("should be counted, is {other:?}"),
    }
}

#[track_caller]
fn decided(report: ProbeReportResult) -> CircuitView {
    match report {
        ProbeReportResult::Decided(view) => view,
        other => panic!("should be decided, is {other:?}"),
    }
}

#[track_caller]
fn lost(report: ProbeReportResult) -> CircuitView {
    match report {
        ProbeReportResult::Lost {
            current: Some(current),
        } => current,
        other => panic!("should be lost, is {other:?}"),
    }
}
