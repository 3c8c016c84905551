//! A crate that embeds `bulkman-core` without an executor and passes the time as an argument.
//!
//! [`Balancer`] is an example of such a crate, one that implements a protocol without I/O. It picks
//! a replica whose circuit admits a call, and records the outcome of the call. Its user owns the
//! clock and the sockets.

use std::error::Error;
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{Admission, CircuitState};
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{CircuitBreaker, CircuitBreakerConfig, ConfigError, Outcome, Runtime};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut balancer = Balancer::new(["replica-a", "replica-b"])?;
    // The only source of time.
    let start = ClockOnly.now();
    let at = |seconds: u32| start + SECOND * seconds;

    println!("both replicas take turns, until one fails three times");
    let mut failed = 0;
    for second in 0..6 {
        let lease = balancer.pick(at(second))?;
        let outcome = if lease.replica == "replica-a" {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        println!("  {second:>3}s  {}: {outcome:?}", lease.replica);
        failed += u32::from(outcome == Outcome::Failure);
        lease.finish(outcome, SECOND / 10, at(second));
    }
    assert_eq!(failed, 3);
    assert_eq!(
        balancer.states(at(6)),
        [CircuitState::Open, CircuitState::Closed]
    );

    println!("the other one takes all calls");
    for second in 6..10 {
        let lease = balancer.pick(at(second))?;
        println!("  {second:>3}s  {}", lease.replica);
        assert_eq!(lease.replica, "replica-b");
        lease.finish(Outcome::Success, SECOND / 10, at(second));
    }

    println!(
        "it fails as well: no replica is left, and the error contains the time until the next attempt"
    );
    for second in 10..13 {
        balancer
            .pick(at(second))?
            .finish(Outcome::Failure, SECOND / 10, at(second));
    }
    let none = balancer.pick(at(13)).expect_err("both are open");
    println!("   13s  {none}");
    // replica-a has been open since the fourth second.
    assert_eq!(none.retry_after, Some(21 * SECOND));

    println!("half a minute after it failed, the first one passes a probe and takes calls again");
    for second in 34..36 {
        let lease = balancer.pick(at(second))?;
        println!("  {second:>3}s  {}", lease.replica);
        assert_eq!(lease.replica, "replica-a");
        lease.finish(Outcome::Success, SECOND / 10, at(second));
    }
    assert_eq!(
        balancer.states(at(36)),
        [CircuitState::Closed, CircuitState::Open]
    );
    Ok(())
}

/// Distributes calls over replicas and skips those that fail.
struct Balancer {
    replicas: Vec<CircuitBreaker>,
    next: usize,
}

/// The right to make one call to one replica. Dropping it records no outcome.
#[derive(Debug)]
struct Lease<'a> {
    replica: &'a str,
    admission: Admission<'a>,
}

#[derive(Debug)]
struct NoReplica {
    retry_after: Option<Duration>,
}

impl Balancer {
    fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let config = CircuitBreakerConfig::new()
            .failure_threshold(3)
            .success_threshold(1)
            .isolation_duration(30 * SECOND);
        let replicas = names
            .into_iter()
            // No method that reads the clock is called, so any clock will do.
            .map(|name| CircuitBreaker::new(name, config.clone(), ClockOnly))
            .collect::<Result<_, _>>()?;
        Ok(Self { replicas, next: 0 })
    }

    /// Returns the next replica that admits a call at `now`.
    fn pick(&mut self, now: Instant) -> Result<Lease<'_>, NoReplica> {
        let mut retry_after: Option<Duration> = None;
        for turn in 0..self.replicas.len() {
            let index = (self.next + turn) % self.replicas.len();
            let replica = &self.replicas[index];
            match replica.try_acquire_at(now) {
                Ok(admission) => {
                    self.next = index + 1;
                    return Ok(Lease {
                        replica: replica.name().as_str(),
                        admission,
                    });
                }
                Err(rejection) => retry_after = soonest(retry_after, rejection.retry_after),
            }
        }
        Err(NoReplica { retry_after })
    }

    fn states(&self, now: Instant) -> Vec<CircuitState> {
        self.replicas
            .iter()
            .map(|replica| replica.state_at(now))
            .collect()
    }
}

impl Lease<'_> {
    fn finish(self, outcome: Outcome, took: Duration, now: Instant) {
        self.admission.record_at(outcome, took, now);
    }
}

fn soonest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

impl std::fmt::Display for NoReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.retry_after {
            Some(after) => write!(f, "no replica admits calls; retry in {after:?}"),
            None => f.write_str("no replica admits calls"),
        }
    }
}

impl Error for NoReplica {}
