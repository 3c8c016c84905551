//! Properties that hold for every sequence of windows.

use std::time::Duration;

use bulkman_core::adaptive::{
    AdaptiveLimit, ClosedWindow, Enforcement, LimitAdjustment, LimitChangeCause, LimitRule,
    LimitSettings,
};
use proptest::prelude::*;

use crate::saturated::Saturated;

/// An input of the rule, after `elapsed` seconds.
#[derive(Clone, Debug)]
enum Input {
    Window { window: ClosedWindow, elapsed: f64 },
    DiscardedWindow { elapsed: f64 },
    CircuitClosed,
}

fn settings() -> impl Strategy<Value = LimitSettings> {
    (
        1..50_usize,
        0..500_usize,
        0.0..1.0_f64,
        1.05..10.0_f64,
        prop::option::of(1..5_000_u64),
        any::<bool>(),
    )
        .prop_map(|(min, more, initial, tolerance, max_latency, measured)| {
            let config = AdaptiveLimit::new()
                .min(min)
                .initial(min + (initial * more as f64) as usize)
                .tolerance(tolerance)
                .max_latency(max_latency.map(Duration::from_millis))
                .baseline_interval(measured.then_some(Duration::from_secs(10)));
            assert_eq!(config.validate(min + more), Ok(()));
            LimitSettings::new(&config, min + more)
        })
}

fn input() -> impl Strategy<Value = Input> {
    let latency = prop_oneof![4 => 0.005..0.08_f64, 1 => 1e-9..100.0_f64];
    let overloads = prop_oneof![4 => Just(0_u64), 1 => 0..200_u64];
    let window = (
        0..200_u64,
        latency,
        overloads,
        0.1..5_000.0_f64,
        any::<bool>(),
        0..600_u64,
    )
        .prop_map(
            |(successes, latency, overloads, throughput, reached, peak)| ClosedWindow {
                successes,
                latency,
                overloads,
                throughput,
                reached,
                peak,
            },
        );
    let elapsed = prop_oneof![8 => 0.2..1.0_f64, 1 => 1.0..60.0_f64];
    prop_oneof![
        40 => (window, elapsed.clone()).prop_map(|(window, elapsed)| Input::Window { window, elapsed }),
        2 => elapsed.prop_map(|elapsed| Input::DiscardedWindow { elapsed }),
        1 => Just(Input::CircuitClosed),
    ]
}

fn apply(rule: &mut LimitRule, input: &Input, now: &mut f64) -> Option<LimitAdjustment> {
    match input {
        Input::Window { window, elapsed } => {
            *now += elapsed;
            rule.on_window(window, *now)
        }
        Input::DiscardedWindow { elapsed } => {
            *now += elapsed;
            rule.on_discarded_window()
        }
        Input::CircuitClosed => rule.on_circuit_closed(),
    }
}

/// Twice the number in `PROPTEST_CASES`, by default 512. With 20,000 each property sees millions of
/// windows.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: 2 * config.cases,
        ..config
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Fault A3: the limit never falls below one, and so never admits nothing.
    #[test]
    fn limit_stays_in_its_range(
        settings in settings(),
        observed in any::<bool>(),
        inputs in prop::collection::vec(input(), 1..200),
    ) {
        let mut settings = settings;
        settings.enforcement = if observed { Enforcement::Observe } else { Enforcement::Enforce };
        let mut rule = LimitRule::new(settings);
        let mut twin = rule.clone();
        let (mut now, mut twin_now) = (0.0, 0.0);
        for input in &inputs {
            let before = rule.limit();
            let adjustment = apply(&mut rule, input, &mut now);
            prop_assert!(rule.limit().is_finite());
            prop_assert!(settings.min <= rule.limit() && rule.limit() <= settings.max);
            prop_assert!(rule.permits() >= 1);
            prop_assert!(rule.threshold() >= settings.min);
            prop_assert!(rule.baseline().is_none_or(|baseline| baseline.is_finite() && baseline > 0.0));
            // An adjustment reports exactly the change.
            match adjustment {
                Some(LimitAdjustment { from, to, .. }) => prop_assert_eq!((from, to), (before, rule.limit())),
                None => prop_assert_eq!(before, rule.limit()),
            }
            // Equal inputs give equal states.
            prop_assert_eq!(apply(&mut twin, input, &mut twin_now), adjustment);
            prop_assert_eq!(&twin, &rule);
        }
    }

    #[test]
    fn every_change_has_the_condition_of_its_cause(
        settings in settings(),
        inputs in prop::collection::vec(input(), 1..200),
    ) {
        let mut rule = LimitRule::new(settings);
        let mut now = 0.0;
        for input in &inputs {
            let adjustment = apply(&mut rule, input, &mut now);
            let Some(LimitAdjustment { from, to, cause }) = adjustment else { continue };
            let Input::Window { window, .. } = input else {
                prop_assert!(matches!(cause, LimitChangeCause::Discarded | LimitChangeCause::CircuitClosed));
                continue;
            };
            let baseline = rule.baseline();
            let holds = match cause {
                LimitChangeCause::Growth => to > from && window.reached && window.successes > 0,
                LimitChangeCause::NoGain => window.reached,
                LimitChangeCause::Measured => to > from,
                LimitChangeCause::Overload => to < from && window.overloads >= 2,
                LimitChangeCause::NoReply => to < from && window.successes == 0,
                LimitChangeCause::Queueing => {
                    to < from
                        && window.latency > f64::min(settings.tolerance * baseline.unwrap(), settings.max_latency)
                }
                LimitChangeCause::Unused => to < from && (window.peak as f64) < from / 2.0,
                LimitChangeCause::Measuring | LimitChangeCause::LatencyShift => {
                    to < from && rule.is_measuring()
                }
                _ => false,
            };
            prop_assert!(holds, "{} to {} by {} after {:?}", from, to, cause, window);
            // A single window removes at most half, except for a measurement.
            let measured = matches!(cause, LimitChangeCause::Measuring | LimitChangeCause::LatencyShift);
            let undone = cause == LimitChangeCause::NoGain;
            prop_assert!(measured || undone || to >= from / 2.0);
        }
    }

    /// Fault A12: a measurement costs one window, and two are at least five seconds apart.
    #[test]
    fn measurement_lasts_one_window_and_restores_the_limit(
        settings in settings(),
        inputs in prop::collection::vec(input(), 1..200),
    ) {
        let mut rule = LimitRule::new(settings);
        let mut now = 0.0;
        let mut started_at = f64::NEG_INFINITY;
        let mut restore_to = None;
        let mut before_cut = 0.0;
        for input in &inputs {
            let was_measuring = rule.is_measuring();
            let before = rule.limit();
            let adjustment = apply(&mut rule, input, &mut now);
            if was_measuring {
                prop_assert!(!rule.is_measuring());
                let restores = match input {
                    Input::Window { window, .. } => window.successes > 0,
                    Input::DiscardedWindow { .. } => true,
                    Input::CircuitClosed => false,
                };
                if let Some(restore_to) = restore_to.filter(|_| restores) {
                    prop_assert_eq!(rule.limit(), restore_to);
                }
            } else if rule.is_measuring() {
                prop_assert!(settings.baseline_interval.is_some());
                prop_assert!(now - started_at > 5.0, "{} after {}", now, started_at);
                started_at = now;
                let shift = matches!(
                    adjustment,
                    Some(LimitAdjustment { cause: LimitChangeCause::LatencyShift, .. })
                );
                // At the minimum the limit cannot fall, and the cause is not reported.
                restore_to = adjustment.map(|_| if shift { before_cut } else { before });
            }
            if let Some(LimitAdjustment { from, cause: LimitChangeCause::Queueing, .. }) = adjustment {
                before_cut = from;
            }
        }
    }

    /// Faults A1, A3, A8, A9 and A10: every state leads to the capacity.
    #[test]
    fn saturated_server_attracts_the_limit_from_any_state(
        inputs in prop::collection::vec(input(), 0..60),
        workers in 2..120_u32,
        service_time in 0.002..0.1_f64,
    ) {
        let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 1000));
        let mut now = 0.0;
        for input in &inputs {
            apply(&mut rule, input, &mut now);
        }
        let server = Saturated { workers: f64::from(workers), service_time };
        for _ in 0..300 {
            server.window(&mut rule, &mut now);
        }
        let mean = (0..300).map(|_| server.window(&mut rule, &mut now)).sum::<f64>() / 300.0;
        let workers = f64::from(workers);
        prop_assert!(0.8 * workers <= mean && mean <= 2.5 * workers, "{} of {}", mean, workers);
    }

    #[test]
    fn figures_that_are_not_finite_change_nothing(
        inputs in prop::collection::vec(input(), 0..20),
        figure in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-1.0), Just(0.0)],
        which in 0..3,
    ) {
        let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 1000));
        let mut now = 0.0;
        for input in &inputs {
            apply(&mut rule, input, &mut now);
        }
        let before = rule.clone();
        let mut window =
            ClosedWindow { successes: 64, latency: 0.02, throughput: 300.0, reached: true, ..ClosedWindow::default() };
        match which {
            0 => window.latency = figure,
            1 => window.throughput = figure,
            _ if figure.is_finite() => return Ok(()),
            _ => now = figure,
        }
        prop_assert_eq!(rule.on_window(&window, now), None);
        prop_assert_eq!(rule, before);
    }
}

/// A plain loop reaches states that short random sequences do not.
#[test]
fn limit_stays_in_its_range_for_a_million_windows() {
    let config = AdaptiveLimit::new().min(2).initial(30);
    let mut rule = LimitRule::new(LimitSettings::new(&config, 300));
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut now, mut measurements, mut changes) = (0.0, 0, 0);
    for _ in 0..1_000_000 {
        now += 0.2 + random(100) as f64 / 200.0;
        let window = ClosedWindow {
            successes: if random(20) == 0 { 0 } else { 64 },
            latency: 0.01 * (1.0 + random(100) as f64 / if random(3) == 0 { 20.0 } else { 500.0 }),
            overloads: if random(10) == 0 { random(20) } else { 0 },
            throughput: rule.limit() * (20.0 + random(10) as f64),
            reached: random(3) > 0,
            peak: rule.permits() / (1 + random(3)),
        };
        let was_measuring = rule.is_measuring();
        changes += u64::from(rule.on_window(&window, now).is_some());
        measurements += u64::from(rule.is_measuring());
        assert!(rule.limit().is_finite() && (2.0..=300.0).contains(&rule.limit()));
        assert!(!(was_measuring && rule.is_measuring()));
    }
    assert!(
        measurements > 100 && changes > 100_000,
        "{measurements} measurements, {changes} changes"
    );
}

#[test]
fn reconfiguring_clamps_the_limit_and_drops_a_measurement() {
    let config = AdaptiveLimit::new();
    let mut rule = LimitRule::new(LimitSettings::new(&config, 1000));
    let server = Saturated {
        workers: 100.0,
        service_time: 0.02,
    };
    let mut now = 0.0;
    while !rule.is_measuring() {
        server.window(&mut rule, &mut now);
        assert!(now < 100.0, "the baseline is not measured");
    }
    assert!(rule.limit() < 20.0);
    let (baseline, threshold) = (rule.baseline(), rule.threshold());
    let change = rule.reconfigure(LimitSettings::new(&config, 50)).unwrap();
    assert_eq!(
        (change.to, change.cause),
        (50.0, LimitChangeCause::Reconfigured)
    );
    assert!(!rule.is_measuring());
    assert_eq!((rule.baseline(), rule.threshold()), (baseline, threshold));
    // Settings that do not concern the range leave the limit.
    let tolerant = config.clone().tolerance(2.0);
    assert_eq!(rule.reconfigure(LimitSettings::new(&tolerant, 50)), None);
    assert_eq!(rule.settings().tolerance, 2.0);
    let raised = rule
        .reconfigure(LimitSettings::new(&config.min(60), 80))
        .unwrap();
    assert_eq!((raised.from, raised.to), (50.0, 60.0));
}

#[test]
fn circuit_that_closes_restarts_from_a_small_limit() {
    let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 1000));
    let server = Saturated {
        workers: 40.0,
        service_time: 0.02,
    };
    let mut now = 0.0;
    for _ in 0..40 {
        server.window(&mut rule, &mut now);
    }
    let before = rule.limit();
    assert!(before > 30.0);
    let change = rule.on_circuit_closed().unwrap();
    assert_eq!(
        (change.from, change.to, change.cause),
        (before, 4.0, LimitChangeCause::CircuitClosed)
    );
    assert_eq!(rule.threshold(), before);
    // Exponential growth: 4, 6, 9, 13.5, 20.25, 30.375.
    for _ in 0..5 {
        server.window(&mut rule, &mut now);
    }
    assert_eq!(rule.limit(), 30.375);
}

/// Faults A3 and A6: thirty windows without a success bring the minimum, and the way back is short.
#[test]
fn limit_recovers_after_windows_without_a_success() {
    for (workers, windows) in [(30.0, 30), (1000.0, 300)] {
        let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 2000));
        let server = Saturated {
            workers,
            service_time: 0.02,
        };
        let mut now = 0.0;
        for _ in 0..100 {
            server.window(&mut rule, &mut now);
        }
        assert!(rule.limit() >= 0.8 * workers);
        for _ in 0..30 {
            now += 0.2;
            let _ = rule.on_window(
                &ClosedWindow {
                    overloads: 30,
                    reached: true,
                    ..ClosedWindow::default()
                },
                now,
            );
        }
        assert_eq!(rule.limit(), 1.0);
        let needed = (1..)
            .find(|_| server.window(&mut rule, &mut now) >= 0.8 * workers)
            .unwrap();
        assert!(needed <= windows, "{needed} windows for {workers} workers");
    }
}
