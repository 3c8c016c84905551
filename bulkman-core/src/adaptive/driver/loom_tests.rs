//! Model checks of the window and of its end, on both [`Sides`].
//!
//! `RUSTFLAGS="--cfg bulkman_loom" cargo test -p bulkman-core --lib --release loom_tests`

use std::time::{Duration, Instant};

use loom::sync::Arc;

use super::*;
use crate::sync::sides::{Sides, both_ways};

const MS: Duration = Duration::from_millis(1);

fn opened() -> Sampler {
    let sampler = Sampler::new();
    sampler.open(&sampler::Opening {
        new_generation_at: Some(0),
        quiet_until: 0,
        check_at: 0,
        baseline: Some(1_000),
        cap: 10_000,
        stride: Some(1),
    });
    sampler
}

fn driver(base: Instant, initial: usize) -> LimitDriver {
    let adaptive = AdaptiveLimit::new().initial(initial).window(MS);
    let config = DriverConfig {
        maximum: 100,
        adaptive: Some(&adaptive),
        enforcement: Enforcement::Enforce,
    };
    LimitDriver::new(config, false, &SampleMask::default(), base)
}

#[test]
fn each_sample_is_in_exactly_one_window() {
    both_ways(|sides| {
        let sampler = Arc::new(opened());
        let end = |now| move |sampler: &Arc<Sampler>| sampler.record_sample(0, now);
        let close = |sampler: &Arc<Sampler>| sampler.close();
        let (_, _, first) = sides.run_three(&sampler, end(100), end(200), close);
        let second = sampler.close();
        assert_eq!(first.word.samples() + second.word.samples(), 2);
    });
}

#[test]
fn lack_of_permit_is_in_this_window_or_in_the_next() {
    both_ways(|sides| {
        let sampler = Arc::new(opened());
        let lack = |sampler: &Arc<Sampler>| sampler.record_lack_of_permit();
        let ((), first) = sides.run(&sampler, lack, |sampler| sampler.close());
        let second = sampler.close();
        assert!(first.reached ^ second.reached, "{first:?} {second:?}");
    });
}

/// Fault A19
#[test]
fn two_calls_that_end_at_once_close_one_window() {
    loom::model(|| {
        let base = Instant::now();
        let driver = Arc::new(driver(base, 4));
        driver.record_lack_of_permit();
        let (started, now) = (base + 7 * MS, base + 8 * MS);
        let mark = Mark::sample();
        for _ in 0..10 {
            driver.record(mark, LimitOutcome::Success, Some(started), now);
        }
        let end = move |driver: &Arc<LimitDriver>| decide(driver, started, now);
        let (first, second) = Sides::AsWritten.run(&driver, end, end);
        let decided = first + second;
        assert!(decided <= 1);
        // Whichever call found the lock taken left the decision to the other one.
        let late = decide(&driver, started, now);
        assert_eq!(decided + late, 1);
        assert_eq!(driver.permits_in_force(), 6);
    });
}

/// Decides as the end of a call does, and returns the number of decisions.
fn decide(driver: &LimitDriver, started: Instant, now: Instant) -> usize {
    let Some(decision) = driver.try_decide(Some(started), now, 10, &SampleMask::default()) else {
        return 0;
    };
    driver.reopen(&decision, &SampleMask::default());
    1
}

/// Fault A17
#[test]
fn no_limit_in_force_exceeds_a_reconfigured_maximum() {
    both_ways(|sides| {
        let base = Instant::now();
        let driver = Arc::new(driver(base, 8));
        driver.record_lack_of_permit();
        let (started, now) = (base + 7 * MS, base + 8 * MS);
        let mark = Mark::sample();
        for _ in 0..16 {
            driver.record(mark, LimitOutcome::Success, Some(started), now);
        }
        let end = move |driver: &Arc<LimitDriver>| {
            let decision = driver.try_decide(Some(started), now, 16, &SampleMask::default());
            let _ = driver.permits_in_force();
            if let Some(decision) = decision {
                driver.reopen(&decision, &SampleMask::default());
            }
        };
        let reconfigure = move |driver: &Arc<LimitDriver>| {
            let adaptive = AdaptiveLimit::new().window(MS);
            let config = DriverConfig {
                maximum: 5,
                adaptive: Some(&adaptive),
                enforcement: Enforcement::Enforce,
            };
            driver.reconfigure(config, &SampleMask::default(), now);
            assert!(driver.permits_in_force() <= 5);
        };
        sides.run(&driver, end, reconfigure);
        assert!(driver.permits_in_force() <= 5);
    });
}

#[test]
fn last_call_without_a_permit_is_found_by_a_shutdown() {
    both_ways(|sides| {
        let base = Instant::now();
        let driver = Arc::new(driver(base, 4));
        let closed = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let is_closed = closed.clone();
        let start = move |driver: &Arc<LimitDriver>| {
            driver.start_without_permit(8, true, || is_closed.load(Ordering::Relaxed))
        };
        let close = move |driver: &Arc<LimitDriver>| {
            closed.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            driver.without_permit()
        };
        let (started, running) = sides.run(&driver, start, close);
        // A shutdown that finds no call is not followed by one.
        assert!(running > 0 || !started);
    });
}
