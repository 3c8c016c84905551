//! Several threads at once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bulkman_core::circuit_breaker::{CircuitEvent, CircuitState, SlidingWindow};

use super::{config, manual, try_next};

/// Hazard H06, H25, H27.
#[test]
fn threads_see_only_valid_transitions_and_limited_probes() {
    let time = SlidingWindow::Time {
        length: Duration::from_millis(10),
        buckets: 5,
    };
    for config in [
        config().failure_threshold(3).success_threshold(2),
        config()
            .failure_rate_threshold(0.3)
            .minimum_number_of_calls(5)
            .permitted_calls_in_half_open(2),
        config()
            .failure_count_threshold(5)
            .sliding_window(time)
            .success_threshold(2),
    ] {
        let (breaker, runtime) = manual(config.isolation_duration(Duration::from_millis(5)));
        let mut events = breaker.events();
        let probes: Mutex<HashMap<u64, u32>> = Mutex::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (breaker, runtime, probes) = (&breaker, &runtime, &probes);
                scope.spawn(move || {
                    for i in 0..3_000_u32 {
                        if i % 7 == 0 {
                            runtime.advance(Duration::from_millis(1));
                        }
                        let before = breaker.snapshot();
                        let Ok(admission) = breaker.try_acquire() else {
                            continue;
                        };
                        let after = breaker.snapshot();
                        // If both snapshots show one half-open state, the admission is its probe.
                        let half_open = (before.generation == after.generation
                            && after.state == CircuitState::HalfOpen)
                            .then_some(after.generation);
                        if let Some(generation) = half_open {
                            let mut probes = probes.lock().unwrap();
                            let in_flight = probes.entry(generation).or_default();
                            *in_flight += 1;
                            assert!(*in_flight <= 2, "{in_flight} probes in flight");
                        }
                        std::thread::yield_now();
                        if let Some(generation) = half_open {
                            *probes.lock().unwrap().get_mut(&generation).unwrap() -= 1;
                        }
                        match (i + thread) % 5 {
                            0 | 1 => admission.fail(),
                            2 | 3 => admission.succeed(),
                            _ => drop(admission),
                        }
                    }
                });
            }
        });
        assert!(probes.into_inner().unwrap().len() > 10, "too few probes");
        let (mut state, mut generation, mut count) = (None, 0, 0);
        while let Some(event) = try_next(&mut events) {
            let CircuitEvent::Transition(transition) = event else {
                continue;
            };
            count += 1;
            assert!(transition.generation > generation);
            if generation + 1 == transition.generation {
                assert_eq!(state, Some(transition.from));
            }
            assert!(
                matches!(
                    (transition.from, transition.to),
                    (CircuitState::Closed, CircuitState::Open)
                        | (CircuitState::Open, CircuitState::HalfOpen)
                        | (
                            CircuitState::HalfOpen,
                            CircuitState::Open | CircuitState::Closed
                        )
                ),
                "{transition:?}"
            );
            (state, generation) = (Some(transition.to), transition.generation);
        }
        assert!(count > 10, "{count} transitions");
    }
}

#[test]
fn rejections_are_counted_once_each() {
    let (breaker, _) = manual(config());
    breaker.open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1_000).for_each(|_| assert!(breaker.try_acquire().is_err())));
        }
    });
    assert_eq!(breaker.rejections().open, 4_000);
    assert_eq!(breaker.snapshot().rejected_calls, 4_000);
    breaker.force_open();
    assert_eq!(
        (
            breaker.rejections().total(),
            breaker.snapshot().rejected_calls
        ),
        (4_000, 0)
    );
}
