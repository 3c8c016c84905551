//! A circuit breaker without a bulkhead: rules over a window, growing isolation, events, and manual
//! control.
//!
//! The clock is virtual, so minutes pass immediately. Tests can use the same clock. A program
//! passes `TokioRuntime::new()`, `SmolRuntime::new()` or `ClockOnly` instead.

use std::time::Duration;

use bulkman::circuit_breaker::{
    CircuitError, CircuitEvent, CircuitState, IsolationBackoff, SlidingWindow, Transition,
    TransitionCause,
};
use bulkman::error::RejectionReason;
use bulkman::testing::ManualRuntime;
use bulkman::{CircuitBreaker, CircuitBreakerConfig, Runtime};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .slow_call_rate_threshold(0.8)
        .slow_call_duration_threshold(2 * SECOND)
        .minimum_number_of_calls(10)
        .sliding_window(SlidingWindow::Count(20))
        .success_threshold(2)
        .isolation_duration(30 * SECOND)
        .isolation_backoff(IsolationBackoff::new(2.0, 300 * SECOND));
    let clock = ManualRuntime::new();
    let began = clock.now();
    let breaker = CircuitBreaker::new("payments", config, clock.clone())?;
    let mut events = breaker.events();

    clock.block_on(async {
        println!("one call in three fails: below the threshold");
        for call in 1..=30 {
            let _ = pay(&breaker, &clock, SECOND, call % 3 != 0).await;
        }
        report(&breaker);
        assert_eq!(breaker.state(), CircuitState::Closed);

        println!("all calls fail until the circuit opens");
        let mut calls = 0;
        while pay(&breaker, &clock, SECOND, false).await == Err(CircuitError::Operation("declined"))
        {
            calls += 1;
        }
        report(&breaker);
        println!("  it took {calls} more failures");
        let rejected = breaker.try_acquire().expect_err("it is open");
        println!("  {rejected}");
        assert_eq!(rejected.retry_after, Some(30 * SECOND));

        println!("three probes fail, one after each isolation; each isolation is twice as long");
        for isolation in [30, 60, 120] {
            clock.sleep_until(clock.now() + isolation * SECOND).await;
            let probe = pay(&breaker, &clock, SECOND, false).await;
            assert_eq!(probe, Err(CircuitError::Operation("declined")));
            let rejected = breaker.try_acquire().expect_err("it is open again");
            println!("  {rejected}");
            assert_eq!(rejected.retry_after, Some(2 * isolation * SECOND));
        }

        println!("it is fixed: two successful probes close the circuit");
        clock.sleep_until(clock.now() + 240 * SECOND).await;
        for _ in 0..2 {
            pay(&breaker, &clock, SECOND, true)
                .await
                .expect("it is fixed");
            println!("  a probe succeeds: {}", breaker.state());
        }
        assert_eq!(breaker.state(), CircuitState::Closed);

        println!("it answers slowly");
        while pay(&breaker, &clock, 5 * SECOND, true).await.is_ok() {}
        report(&breaker);

        println!("manually: forced open for maintenance, then closed");
        breaker.force_open();
        let rejected = breaker.try_acquire().expect_err("it is forced open");
        println!("  {rejected}");
        assert_eq!(
            (rejected.reason, rejected.retry_after),
            (RejectionReason::ForcedOpen, None)
        );
        breaker.close();
        assert!(breaker.try_acquire().is_ok());

        println!("all transitions:");
        let mut causes = Vec::new();
        while let Some(CircuitEvent::Transition(transition)) = events.try_next() {
            println!(
                "  {:>5}s  {}",
                (transition.at - began).as_secs(),
                describe(&transition)
            );
            causes.push(transition.cause);
        }
        let mut expected = vec![TransitionCause::FailureRate];
        for _ in 0..3 {
            expected.extend([
                TransitionCause::IsolationElapsed,
                TransitionCause::ProbeFailed,
            ]);
        }
        expected.extend([
            TransitionCause::IsolationElapsed,
            TransitionCause::ProbesSucceeded,
        ]);
        expected.extend([
            TransitionCause::SlowCallRate,
            TransitionCause::Manual,
            TransitionCause::Manual,
        ]);
        assert_eq!(causes, expected);
    });
    println!("{} minutes of virtual time", clock.elapsed().as_secs() / 60);
    Ok(())
}

/// Calls the dependency.
async fn pay(
    breaker: &CircuitBreaker,
    clock: &ManualRuntime,
    takes: Duration,
    succeeds: bool,
) -> Result<(), CircuitError<&'static str>> {
    breaker
        .execute(async {
            clock.sleep_until(clock.now() + takes).await;
            if succeeds { Ok(()) } else { Err("declined") }
        })
        .await
}

fn report(breaker: &CircuitBreaker) {
    let snapshot = breaker.snapshot();
    let counts = snapshot.counts;
    print!(
        "  {}, {} of the last {} calls failed",
        snapshot.state, counts.failures, counts.calls
    );
    // Too few calls have no rates.
    if let (Some(failed), Some(slow)) = (counts.failure_rate, counts.slow_call_rate) {
        print!(
            " ({:.0} %), {:.0} % were slow",
            failed * 100.0,
            slow * 100.0
        );
    }
    println!();
}

fn describe(transition: &Transition) -> String {
    let isolation = transition.isolation.map_or_else(String::new, |isolation| {
        format!(", isolated for {isolation:?}")
    });
    format!(
        "{:>9} -> {:<11}  {}{isolation}",
        transition.from, transition.to, transition.cause
    )
}
