//! A crate that embeds `bulkman-core` alone: no executor, no clock, the time as an argument.
//!
//! [`Balancer`] stands for such a crate, one that speaks a protocol without doing I/O: it picks a
//! replica whose circuit admits a call, and is told how the call went. Who embeds it owns time and
//! sockets.

use std::error::Error;
use std::time::{Duration, Instant};

use bulkman_core::circuit_breaker::{Admission, CircuitState};
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{CircuitBreaker, CircuitBreakerConfig, ConfigError, Outcome, Runtime};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut balancer = Balancer::new(["replica-a", "replica-b"])?;
    // From here on, time is what this function says.
    let start = ClockOnly.now();
    let at = |seconds: u32| start + SECOND * seconds;

    println!("both replicas take their turns, until one fails three times");
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

    println!("it fails as well: nobody is left, and the caller learns when to come back");
    for second in 10..13 {
        balancer
            .pick(at(second))?
            .finish(Outcome::Failure, SECOND / 10, at(second));
    }
    let nobody = balancer.pick(at(13)).expect_err("both are open");
    println!("   13s  {nobody}");
    // replica-a has been open since the fourth second.
    assert_eq!(nobody.retry_after, Some(21 * SECOND));

    println!("half a minute after it failed, the first one gets a probe, passes it, and is back");
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

/// Spreads calls over replicas and leaves out those that fail.
struct Balancer {
    replicas: Vec<CircuitBreaker>,
    next: usize,
}

/// The right to make one call to one replica. Dropped, it says nothing about the replica.
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
            // No method that reads the clock is ever called, so this one stands still for all it matters.
            .map(|name| CircuitBreaker::new(name, config.clone(), ClockOnly))
            .collect::<Result<_, _>>()?;
        Ok(Self { replicas, next: 0 })
    }

    /// The next replica that admits a call at `now`.
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
                Err(refused) => retry_after = soonest(retry_after, refused.retry_after),
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
            Some(after) => write!(f, "no replica takes calls; come back in {after:?}"),
            None => f.write_str("no replica takes calls"),
        }
    }
}

impl Error for NoReplica {}
