//! Known faults of other limiters, shown on a simulated server.

use bulkman_core::adaptive::{ClosedWindow, LimitChangeCause};
use bulkman_limitsim::scenarios::{FastErrors, Grow, Hang, Shift, Steady, Trickle, UNDER};
use bulkman_limitsim::{Bulkman, Observed, Run, SERVICE_TIME, Scenario, Simulation};

const WORKERS: f64 = 20.0;

fn simulate(scenario: &dyn Scenario, seed: u64) -> (Run, Bulkman) {
    let mut bulkman = Bulkman::default().recording();
    let run = Simulation::new(scenario, seed).run(vec![Box::new(&mut bulkman)]);
    assert!(
        bulkman.decisions().len() > 1,
        "the simulation has no windows"
    );
    (run, bulkman)
}

/// Returns the largest limit after any window.
fn largest_limit(bulkman: &Bulkman) -> f64 {
    bulkman
        .decisions()
        .iter()
        .map(|(_, _, rule)| rule.limit())
        .fold(0.0, f64::max)
}

/// Fault A1
#[test]
fn baseline_does_not_rise_under_lasting_load() {
    let (_, bulkman) = simulate(
        &Steady {
            load: 1.5,
            length: 600.0,
        },
        1,
    );
    for (now, _, rule) in bulkman.decisions() {
        let baseline = rule.baseline().unwrap();
        assert!(baseline <= 1.4 * SERVICE_TIME, "{baseline} at {now}");
        assert!(rule.limit() <= 2.5 * WORKERS, "{} at {now}", rule.limit());
    }
}

/// Fault A3
#[test]
fn limit_returns_to_the_workers_after_calls_became_slower() {
    for moment in 0..12 {
        let scenario = Shift {
            at: 20.0 + 0.7 * f64::from(moment),
            factor: 4.0,
        };
        let (run, bulkman) = simulate(&scenario, 7);
        let limit = run.mean_limit(scenario.at + 15.0, 45.0);
        assert!(
            (0.9 * WORKERS..=1.6 * WORKERS).contains(&limit),
            "{limit} after {}",
            scenario.at
        );
        let baseline = bulkman.rule().baseline().unwrap();
        assert!(
            (3.2 * SERVICE_TIME..=5.0 * SERVICE_TIME).contains(&baseline),
            "{baseline}"
        );
    }
}

/// Fault A3
#[test]
fn throughput_returns_within_seven_seconds_of_a_hang() {
    for seed in 1..=5 {
        let (run, _) = simulate(&Hang, seed);
        assert!(
            run.mean_limit(29.0, 30.0) < 10.0,
            "the hang did not reduce the limit"
        );
        let healthy = run.throughput(10.0, 20.0);
        let after = run.throughput(37.0, 39.0);
        assert!(
            after >= 0.9 * healthy,
            "{after} of {healthy} with seed {seed}"
        );
    }
}

/// A server on which no call ends.
#[derive(Debug)]
struct Dead;

impl Scenario for Dead {
    fn name(&self) -> &'static str {
        "Dead"
    }

    fn hangs(&self, _now: f64) -> bool {
        true
    }
}

/// Fault A4
#[test]
fn constant_timeouts_never_raise_the_limit() {
    let (_, bulkman) = simulate(&Dead, 1);
    for (now, decision, rule) in bulkman.decisions() {
        assert!(rule.limit() <= decision.limit_before, "grows at {now}");
        assert!(decision.window.overloads > 0);
    }
    assert_eq!(bulkman.rule().limit(), 1.0);
}

/// A server that rejects every call.
#[derive(Debug)]
struct Rejecting;

impl Scenario for Rejecting {
    fn name(&self) -> &'static str {
        "Rejecting"
    }

    fn rejects_from(&self, _now: f64) -> Option<u64> {
        Some(0)
    }
}

/// Fault A5
#[test]
fn fast_rejections_are_no_samples_and_no_growth() {
    let (_, bulkman) = simulate(&Rejecting, 1);
    assert_eq!(bulkman.rule().baseline(), None);
    for (now, decision, rule) in bulkman.decisions() {
        assert!(rule.limit() <= decision.limit_before, "grows at {now}");
    }
}

/// Fault A5
#[test]
fn server_that_rejects_is_probed_rarely() {
    let mut overloads: Vec<f64> = (1..=5)
        .map(|seed| {
            let (run, _) = simulate(&FastErrors, seed);
            assert!(run.throughput(10.0, 60.0) > 900.0);
            run.overloads_per_second
        })
        .collect();
    overloads.sort_by(f64::total_cmp);
    assert!(overloads[2] <= 5.0, "{overloads:?} a second");
    assert!(overloads[4] <= 10.0, "{overloads:?} a second");
}

/// Full load for 20 s, and then two calls in flight on average.
#[derive(Debug)]
struct Idle {
    busy_for: f64,
}

impl Scenario for Idle {
    fn name(&self) -> &'static str {
        "Idle"
    }

    fn length(&self) -> f64 {
        600.0
    }

    fn rate(&self, now: f64) -> f64 {
        if now < self.busy_for { 1500.0 } else { 100.0 }
    }
}

/// Fault A7
#[test]
fn limit_does_not_grow_without_demand() {
    let (_, bulkman) = simulate(&Idle { busy_for: 0.0 }, 1);
    let mut peak = 0;
    for (now, decision, rule) in bulkman.decisions() {
        peak = peak.max(decision.window.peak);
        let largest = f64::max(4.0, 2.0 * peak as f64);
        assert!(
            rule.limit() <= largest,
            "{} with a peak of {peak} at {now}",
            rule.limit()
        );
    }
}

/// Fault A7
#[test]
fn unused_limit_decays() {
    let (run, bulkman) = simulate(&Idle { busy_for: 20.0 }, 1);
    assert!(run.mean_limit(10.0, 20.0) > 18.0);
    let idle = bulkman.decisions().iter().filter(|(now, ..)| *now > 300.0);
    let peak = idle
        .map(|(_, decision, _)| decision.window.peak)
        .max()
        .unwrap();
    assert!(
        bulkman.rule().limit() <= 2.0 * peak as f64,
        "{} with {peak}",
        bulkman.rule().limit()
    );
    assert!(peak < 15);
}

/// 80 workers from the start.
#[derive(Debug)]
struct Large;

impl Scenario for Large {
    fn name(&self) -> &'static str {
        "Large"
    }

    fn length(&self) -> f64 {
        10.0
    }

    fn rate(&self, _now: f64) -> f64 {
        5000.0
    }

    fn workers(&self, _now: f64) -> u64 {
        80
    }
}

/// Fault A8
#[test]
fn capacity_is_found_within_seconds() {
    let capacity = 80.0 / SERVICE_TIME;
    for seed in 1..=3 {
        let (run, _) = simulate(&Large, seed);
        assert!(
            run.throughput(2.0, 3.0) >= 0.9 * capacity,
            "{}",
            run.throughput(2.0, 3.0)
        );
        let (run, _) = simulate(&Grow, seed);
        assert!(
            run.throughput(22.5, 23.5) >= 0.9 * capacity,
            "{}",
            run.throughput(22.5, 23.5)
        );
    }
}

/// Fault A9
#[test]
fn mild_overload_does_not_raise_the_limit_slowly() {
    let (_, bulkman) = simulate(
        &Steady {
            load: 1.1,
            length: 200.0,
        },
        1,
    );
    assert!(
        largest_limit(&bulkman) <= 2.5 * WORKERS,
        "{}",
        largest_limit(&bulkman)
    );
}

/// Fault A10
#[test]
fn growth_by_square_roots_does_not_compound() {
    let (_, bulkman) = simulate(
        &Steady {
            load: 1.5,
            length: 300.0,
        },
        2,
    );
    assert!(
        largest_limit(&bulkman) <= 2.5 * WORKERS,
        "{}",
        largest_limit(&bulkman)
    );
}

/// Fault A12
#[test]
fn measurements_reject_at_most_one_percent_of_healthy_calls() {
    for seed in 1..=3 {
        let (under, _) = simulate(&UNDER, seed);
        assert!(under.rejected <= 0.01, "{}", under.rejected);
        let (trickle, bulkman) = simulate(&Trickle, seed);
        assert!(trickle.rejected <= 0.01, "{}", trickle.rejected);
        let causes = bulkman
            .decisions()
            .iter()
            .filter_map(|(_, decision, _)| decision.adjustment);
        assert!(
            causes
                .filter(|change| change.cause == LimitChangeCause::Measuring)
                .count()
                <= 3
        );
    }
}

/// Fault A24
#[test]
fn estimate_without_enforcement_would_reject_as_little() {
    for seed in 1..=3 {
        let (enforced, _) = simulate(&UNDER, seed);
        let mut observed = Observed::new(40);
        let run = Simulation::new(&UNDER, seed).run(vec![Box::new(&mut observed)]);
        let share = run.rejected + (1.0 - run.rejected) * observed.would_reject();
        assert!(
            share <= enforced.rejected + 0.01,
            "{share} instead of {}",
            enforced.rejected
        );
        assert!(
            share > 0.0,
            "the estimate never differs from the fixed limit"
        );
    }
}

/// Fault A25
#[test]
fn changes_in_a_simulation_form_a_chain() {
    let (_, bulkman) = simulate(&Hang, 3);
    let mut limit = 4.0;
    let mut largest = ClosedWindow::default();
    for (_, decision, rule) in bulkman.decisions() {
        assert_eq!(decision.limit_before, limit);
        limit = decision.adjustment.map_or(limit, |change| change.to);
        assert_eq!(rule.limit(), limit);
        largest.successes = largest.successes.max(decision.window.successes);
    }
    assert!(largest.successes > 100);
}
