//! Known faults of other limiters, shown on the rule and its windows alone.

use bulkman_core::adaptive::{
    AdaptiveLimit, ClosedWindow, LimitChangeCause, LimitController, LimitRule, LimitSettings,
};

use crate::saturated::Saturated;

fn settings(maximum: usize) -> LimitSettings {
    LimitSettings::new(&AdaptiveLimit::new(), maximum)
}

/// Returns a rule that has adapted to a server, and the time.
fn adapted(maximum: usize, server: &Saturated) -> (LimitRule, f64) {
    let mut rule = LimitRule::new(settings(maximum));
    let mut now = 0.0;
    for _ in 0..30 {
        server.window(&mut rule, &mut now);
    }
    (rule, now)
}

/// Ends calls of 20 ms, one each millisecond, until a window has closed.
fn steady_window(controller: &mut LimitController, now: &mut f64) {
    loop {
        *now += 0.001;
        controller.start(controller.rule().permits());
        if controller.succeed(*now - 0.02, *now).is_some() {
            return;
        }
    }
}

/// Fault A2
#[test]
fn one_lucky_sample_moves_the_baseline_by_at_most_a_tenth() {
    // A limit of one has the smallest windows, of ten calls.
    let mut controller = LimitController::new(settings(1));
    let mut now = 0.0;
    for _ in 0..20 {
        steady_window(&mut controller, &mut now);
    }
    let (limit, baseline) = (
        controller.rule().limit(),
        controller.rule().baseline().unwrap(),
    );
    controller.start(1);
    let _ = controller.succeed(now - 0.0002, now);
    for _ in 0..20 {
        steady_window(&mut controller, &mut now);
        assert_eq!(controller.rule().limit(), limit);
        let after = controller.rule().baseline().unwrap();
        assert!(after >= 0.9 * baseline, "{baseline} became {after}");
    }
}

/// Fault A6
#[test]
fn windows_without_a_success_halve_the_limit() {
    let server = Saturated {
        workers: 32.0,
        service_time: 0.02,
    };
    let (mut rule, mut now) = adapted(1000, &server);
    let mut limit = rule.limit();
    while limit > 1.0 {
        now += 0.2;
        let window = ClosedWindow {
            overloads: 10,
            reached: true,
            ..ClosedWindow::default()
        };
        let change = rule.on_window(&window, now).unwrap();
        assert_eq!((change.from, change.to), (limit, (limit / 2.0).max(1.0)));
        assert_eq!(change.cause, LimitChangeCause::NoReply);
        limit = rule.limit();
    }
}

/// Fault A3
#[test]
fn growth_after_a_hang_is_exponential() {
    let server = Saturated {
        workers: 100.0,
        service_time: 0.02,
    };
    let (mut rule, mut now) = adapted(1000, &server);
    let before = rule.limit();
    for _ in 0..12 {
        now += 0.2;
        let _ = rule.on_window(
            &ClosedWindow {
                overloads: 30,
                ..ClosedWindow::default()
            },
            now,
        );
    }
    assert_eq!((rule.limit(), rule.threshold()), (1.0, before / 2.0));
    // The last calls that hang time out among the first that succeed.
    now += 0.2;
    let mixed = ClosedWindow {
        successes: 10,
        latency: 0.02,
        overloads: 10,
        throughput: 50.0,
        ..ClosedWindow::default()
    };
    let _ = rule.on_window(&mixed, now);
    assert_eq!(rule.threshold(), before / 2.0);
    let windows = (1..)
        .find(|_| server.window(&mut rule, &mut now) >= 90.0)
        .unwrap();
    assert!(windows <= 25, "{windows} windows");
}

/// Fault A8
#[test]
fn hold_ends_when_latency_falls_at_the_same_limit() {
    let mut rule = LimitRule::new(settings(1000));
    let mut now = 0.0;
    let mut close = |rule: &mut LimitRule, latency: f64, throughput: f64| {
        now += 0.2;
        let window = ClosedWindow {
            successes: 64,
            latency,
            overloads: 0,
            throughput,
            reached: true,
            peak: rule.permits(),
        };
        rule.on_window(&window, now).map(|change| change.cause)
    };
    assert_eq!(
        close(&mut rule, 0.020, 200.0),
        Some(LimitChangeCause::Growth)
    );
    assert_eq!(
        close(&mut rule, 0.024, 300.0),
        Some(LimitChangeCause::Growth)
    );
    assert_eq!(
        close(&mut rule, 0.028, 300.0),
        Some(LimitChangeCause::NoGain)
    );
    let held = rule.limit();
    assert_eq!(close(&mut rule, 0.024, 300.0), None);
    assert_eq!(rule.hold(), 9);
    // The latency falls by more than a tenth, although the limit is the same.
    assert_eq!(
        close(&mut rule, 0.021, 350.0),
        Some(LimitChangeCause::Growth)
    );
    assert!(rule.limit() > held);
}

/// Fault A5
#[test]
fn growth_near_the_last_overload_is_one_permit() {
    let server = Saturated {
        workers: 1000.0,
        service_time: 0.02,
    };
    let (mut rule, mut now) = adapted(100, &server);
    now += 0.2;
    let window = ClosedWindow {
        successes: 60,
        latency: 0.02,
        overloads: 20,
        throughput: 3000.0,
        reached: true,
        peak: 100,
    };
    let _ = rule.on_window(&window, now);
    assert_eq!(rule.limit(), 70.0);
    let mut limits = Vec::new();
    while rule.limit() < 88.0 {
        let before = rule.limit();
        server.window(&mut rule, &mut now);
        if rule.limit() != before {
            limits.push(rule.limit());
        }
    }
    assert_eq!(limits, [70.0 + 70.0_f64.sqrt(), 85.0, 86.0, 87.0, 88.0]);
}

/// Fault A11
#[test]
fn burst_of_overloads_reduces_the_limit_once() {
    let config = AdaptiveLimit::new().initial(100);
    let mut controller = LimitController::new(LimitSettings::new(&config, 200));
    let mut now = 0.0;
    steady_window(&mut controller, &mut now);
    let before = controller.rule().limit();
    // Sixty calls end within 60 ms, 50 of them by an overload, and then 40 more of the same burst.
    let started_at = now;
    let mut reductions = Vec::new();
    now += 0.2;
    for call in 0..100 {
        now += 0.001;
        let decision = match call {
            0..10 => controller.succeed(started_at, now),
            _ => controller.overload(started_at, now),
        };
        reductions.extend(decision.and_then(|decision| decision.adjustment));
    }
    assert_eq!(reductions.len(), 1, "{reductions:?}");
    assert_eq!(reductions[0].cause, LimitChangeCause::Overload);
    assert_eq!(
        (reductions[0].from, reductions[0].to),
        (before, before * 0.7)
    );
}

/// Fault A13
#[test]
fn one_call_in_twenty_seconds_changes_nothing() {
    let mut controller = LimitController::new(settings(100));
    let mut now = 0.0;
    for _ in 0..20 {
        steady_window(&mut controller, &mut now);
    }
    let before = controller.rule().clone();
    for call in 1..=30 {
        now += 20.0;
        controller.start(1);
        // Health checks are faster than other calls.
        let decision = controller.succeed(now - 0.001, now);
        assert!(
            decision.is_none_or(|decision| decision.discarded),
            "call {call}"
        );
    }
    assert_eq!(controller.rule(), &before);
}

/// Fault A16
#[test]
fn rejections_at_the_maximum_do_not_change_the_limit() {
    let server = Saturated {
        workers: 100.0,
        service_time: 0.02,
    };
    let (mut rule, mut now) = adapted(20, &server);
    assert_eq!(rule.limit(), 20.0);
    // A reached limit is measured every 60 s, and is left alone between.
    while now < 59.0 {
        let before = rule.clone();
        server.window(&mut rule, &mut now);
        assert_eq!(rule.limit(), 20.0);
        assert!(!rule.is_measuring());
        assert_eq!(rule.threshold(), before.threshold());
    }
}

/// Fault A25
#[test]
fn every_change_is_reported_with_its_cause() {
    let mut rule = LimitRule::new(settings(1000));
    let mut now = 0.0;
    let mut reported = rule.limit();
    for window in 0..2_000_u64 {
        now += 0.2;
        let healthy = window % 50 < 40;
        let window = ClosedWindow {
            successes: 64,
            latency: if healthy { 0.02 } else { 0.05 },
            overloads: if window % 70 == 0 { 30 } else { 0 },
            throughput: 100.0 + (window % 7) as f64 * 50.0,
            reached: window % 3 > 0,
            peak: window % 40,
        };
        if let Some(change) = rule.on_window(&window, now) {
            assert_eq!(change.from, reported);
            assert!(!change.cause.as_str().is_empty());
            reported = change.to;
        }
        assert_eq!(rule.limit(), reported);
    }
}
