//! Leases and verdicts.

use std::sync::Arc;

use super::{Client, Harness, SLACK, TTL, WAIT, circuit, open, request};
use crate::store::{
    CircuitView, Epoch, FleetState, ProbeLease, ProbePolicy, ProbeReportResult, ProbeRequest,
    ProbeResult, ProbeRule, StoreChange,
};

pub(super) async fn never_more_leases_than_the_limit(harness: &dyn Harness) {
    for limit in [1, 3, 5] {
        let mut client = Client::on(&*harness.store(&format!("limit {limit}")), 1).await;
        let epoch = client.probe_after(harness, WAIT, streak(limit, 9)).await;
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
            "neither more nor fewer: {slots:?}"
        );
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), usize::from(limit), "each has its own");
    }
}

pub(super) async fn a_holder_has_one_lease(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(3, 3)).await;
    let first = client.acquire(&request(epoch, "x")).await.unwrap();
    let again = client.acquire(&request(epoch, "x")).await.unwrap();
    assert_eq!(first.slot, again.slot);
    let current = lost(client.report(&request(epoch, "x"), first, true).await);
    assert_eq!(current.probes_succeeded, 0, "the first is fenced");
    counted(client.report(&request(epoch, "x"), again, true).await);
}

pub(super) async fn a_lease_is_free_after_its_term(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 3)).await;
    client.acquire(&request(epoch, "dead")).await.unwrap();
    harness.advance(TTL - SLACK).await;
    assert_eq!(client.acquire(&request(epoch, "x")).await, None);
    harness.advance(SLACK).await;
    assert!(client.acquire(&request(epoch, "x")).await.is_some());
}

pub(super) async fn a_renewed_lease_lasts(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 3)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    for _ in 0..3 {
        harness.advance(TTL - SLACK).await;
        assert_eq!(
            client.session.renew_probe(&mine, lease).await.unwrap(),
            Some(lease)
        );
        assert_eq!(client.acquire(&request(epoch, "other")).await, None);
    }
    harness.advance(TTL).await;
    assert_eq!(
        client.session.renew_probe(&mine, lease).await.unwrap(),
        None,
        "too late"
    );
    client.acquire(&request(epoch, "other")).await.unwrap();
    assert_eq!(
        client.session.renew_probe(&mine, lease).await.unwrap(),
        None,
        "another's by now"
    );
}

pub(super) async fn a_released_lease_is_free_and_its_holder_without_a_say(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 3)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    client.session.release_probe(&mine, lease).await.unwrap();
    assert!(matches!(
        client.report(&mine, lease, false).await,
        ProbeReportResult::Lost { .. }
    ));

    let theirs = request(epoch, "y");
    client.acquire(&theirs).await.unwrap();
    client.session.release_probe(&mine, lease).await.unwrap();
    assert_eq!(
        client.acquire(&mine).await,
        None,
        "an old lease can't free another's"
    );
}

pub(super) async fn no_lease_unless_half_open_at_that_epoch(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    assert_eq!(
        client.acquire(&request(Epoch(0), "x")).await,
        None,
        "closed"
    );
    let opened = client.make(open(WAIT)).await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "open"
    );
    harness.advance(WAIT).await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "due is not half-open"
    );
    let half_open = client
        .make(StoreChange::HalfOpen { plan: streak(1, 1) })
        .await;
    assert_eq!(
        client.acquire(&request(opened.epoch, "x")).await,
        None,
        "of another epoch"
    );
    assert!(
        client
            .acquire(&request(half_open.epoch, "x"))
            .await
            .is_some()
    );
}

pub(super) async fn enough_successes_close(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(2, 3)).await;
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

pub(super) async fn one_failure_reopens_a_streak(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 3)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    let (lease, _) = counted(client.report(&mine, lease, true).await);
    let mut verdict = client.verdict(&mine, lease, false);
    verdict.wait = WAIT * 2;
    verdict.by = Arc::from("process one");
    verdict.reason = Arc::from("a probe failed");
    let view = decided(client.session.report_probe(&verdict).await.unwrap());
    assert_eq!(
        (view.state, view.open_count, view.wait),
        (FleetState::Open, 2, WAIT * 2)
    );
    assert!(view.remaining > WAIT * 2 - SLACK, "{view:?}");
    assert_eq!(
        (&*view.changed_by, &*view.reason),
        ("process one", "a probe failed")
    );
}

pub(super) async fn a_sample_decides_when_it_is_complete(harness: &dyn Harness) {
    for (outcomes, expected) in [
        ([false, true, true, true], FleetState::Closed),
        ([false, false, true, true], FleetState::Open),
    ] {
        let store = harness.store(&format!("sample {expected}"));
        let mut client = Client::on(&*store, 1).await;
        let decision = ProbeRule::SampleSize {
            calls: 4,
            failures: Some(2),
            slow: None,
        };
        let epoch = client
            .probe_after(harness, WAIT, ProbePolicy::new(1, decision))
            .await;
        let mine = request(epoch, "x");
        let mut lease = client.acquire(&mine).await.unwrap();
        for (done, success) in outcomes[..3].iter().enumerate() {
            let (renewed, current) = counted(client.report(&mine, lease, *success).await);
            assert_eq!(
                current.probes_succeeded + current.probes_failed,
                done as u32 + 1
            );
            lease = renewed;
        }
        assert_eq!(
            decided(client.report(&mine, lease, outcomes[3]).await).state,
            expected
        );
    }
}

pub(super) async fn a_sample_reopens_on_slow_calls(harness: &dyn Harness) {
    let decision = ProbeRule::SampleSize {
        calls: 2,
        failures: None,
        slow: Some(2),
    };
    let (mut client, epoch) = probing(harness, ProbePolicy::new(1, decision)).await;
    let mine = request(epoch, "x");
    let mut lease = client.acquire(&mine).await.unwrap();
    for last in [false, true] {
        let mut verdict = client.verdict(&mine, lease, true);
        verdict.slow = true;
        let report = client.session.report_probe(&verdict).await.unwrap();
        if last {
            assert_eq!(decided(report).state, FleetState::Open);
        } else {
            lease = counted(report).0;
        }
    }
}

pub(super) async fn a_verdict_counts_once(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 3)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    let verdict = client.verdict(&mine, lease, true);
    let (renewed, _) = counted(client.session.report_probe(&verdict).await.unwrap());
    let (again, current) = counted(client.session.report_probe(&verdict).await.unwrap());
    assert_eq!(
        again, renewed,
        "the repeated verdict is told the same lease"
    );
    assert_eq!(current.probes_succeeded, 1);
    let (_, current) = counted(client.report(&mine, renewed, true).await);
    assert_eq!(current.probes_succeeded, 2);
}

pub(super) async fn a_verdict_renews_the_lease(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 9)).await;
    let mine = request(epoch, "x");
    let mut lease = client.acquire(&mine).await.unwrap();
    for _ in 0..3 {
        harness.advance(TTL - SLACK).await;
        lease = counted(client.report(&mine, lease, true).await).0;
        assert_eq!(client.acquire(&request(epoch, "other")).await, None);
    }
}

pub(super) async fn a_late_verdict_is_fenced(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 1)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    harness.advance(TTL).await;
    let current = lost(client.report(&mine, lease, true).await);
    assert_eq!(
        (current.state, current.probes_succeeded),
        (FleetState::HalfOpen, 0),
        "expired"
    );

    client.acquire(&request(epoch, "y")).await.unwrap();
    let current = lost(client.report(&mine, lease, false).await);
    assert_eq!(
        (current.state, current.probes_failed),
        (FleetState::HalfOpen, 0),
        "another's"
    );
}

pub(super) async fn a_deciding_verdict_is_recognised_when_repeated(harness: &dyn Harness) {
    let (mut client, epoch) = probing(harness, streak(1, 1)).await;
    let mine = request(epoch, "x");
    let lease = client.acquire(&mine).await.unwrap();
    let verdict = client.verdict(&mine, lease, false);
    let first = decided(client.session.report_probe(&verdict).await.unwrap());
    let again = decided(client.session.report_probe(&verdict).await.unwrap());
    assert_eq!(
        (first.epoch, first.open_count),
        (again.epoch, again.open_count)
    );
}

pub(super) async fn leases_of_an_earlier_stay_have_no_say(harness: &dyn Harness) {
    let (mut client, first) = probing(harness, streak(1, 1)).await;
    let mine = request(first, "x");
    let lease = client.acquire(&mine).await.unwrap();
    client.make(open(WAIT)).await;
    harness.advance(WAIT - SLACK).await;
    let current = lost(client.report(&mine, lease, true).await);
    assert_eq!(current.state, FleetState::Open);
    harness.advance(SLACK).await;
    let half_open = client
        .make(StoreChange::HalfOpen { plan: streak(1, 1) })
        .await;
    assert!(lost(client.report(&mine, lease, true).await).probes_succeeded == 0);
    assert_eq!(
        client.session.renew_probe(&mine, lease).await.unwrap(),
        None
    );
    assert!(
        client
            .acquire(&request(half_open.epoch, "y"))
            .await
            .is_some(),
        "and bars nobody"
    );
}

impl Client {
    fn verdict(&mut self, request: &ProbeRequest, lease: ProbeLease, success: bool) -> ProbeResult {
        ProbeResult::new(request.clone(), lease, success, WAIT, self.operation())
    }

    async fn report(
        &mut self,
        request: &ProbeRequest,
        lease: ProbeLease,
        success: bool,
    ) -> ProbeReportResult {
        let verdict = self.verdict(request, lease, success);
        self.session
            .report_probe(&verdict)
            .await
            .expect("an answer")
    }
}

async fn probing(harness: &dyn Harness, plan: ProbePolicy) -> (Client, Epoch) {
    let mut client = Client::new(harness, 1).await;
    let epoch = client.probe_after(harness, WAIT, plan).await;
    (client, epoch)
}

const fn streak(limit: u16, successes: u16) -> ProbePolicy {
    ProbePolicy::new(limit, ProbeRule::Consecutive { successes })
}

#[track_caller]
fn counted(report: ProbeReportResult) -> (ProbeLease, CircuitView) {
    match report {
        ProbeReportResult::Counted { lease, current } => {
            assert_eq!(current.circuit, circuit());
            (lease, current)
        }
        other => panic!("should count, is {other:?}"),
    }
}

#[track_caller]
fn decided(report: ProbeReportResult) -> CircuitView {
    match report {
        ProbeReportResult::Decided(view) => view,
        other => panic!("should decide, is {other:?}"),
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
