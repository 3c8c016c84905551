//! A rate limiter in front of a bulkhead, with the crate `governor`.
//!
//! A bulkhead limits how many calls run at once, a rate limiter how many start per second. A
//! dependency may require both. The limiter comes first: a call that waits for it holds no permit.
//! Calls that an open circuit would reject do not use up the quota.
//!
//! The clock is virtual; limiter and bulkhead share it.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime};
use futures_util::future::join_all;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

const CALLS: usize = 12;
const PER_SECOND: u32 = 5;
const AT_ONCE: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = ManualRuntime::new();
    let quota = Quota::per_second(PER_SECOND.try_into()?).allow_burst(NonZeroU32::MIN);
    let config = BulkheadConfig::new("maps").max_concurrent_calls(AT_ONCE);
    let maps = RateLimited::new(config, quota, Arc::new(runtime.clone()))?;
    println!(
        "{CALLS} calls arrive at once; {PER_SECOND} may start per second, {AT_ONCE} may run at once"
    );

    println!("each takes 0.1 s, so the rate limits them:");
    let (started, most) = rush(&maps, &runtime, Duration::from_millis(100));
    assert_eq!((per_second(&started), most), (vec![5, 5, 2], 1));

    println!("each takes 1 s, so the permits limit them:");
    let (started, most) = rush(&maps, &runtime, Duration::from_secs(1));
    assert_eq!((per_second(&started), most), (vec![2; 6], AT_ONCE));

    println!("while the circuit is open, calls are rejected before they use up the quota:");
    maps.bulkhead
        .circuit_breaker()
        .expect("it is on by default")
        .open();
    let rejected = runtime
        .block_on(maps.execute(async { Ok::<_, &str>(()) }))
        .expect_err("it is open");
    println!("  {rejected}");
    assert!(matches!(rejected, BulkheadError::CircuitOpen { .. }));
    assert!(maps.limiter.check().is_ok());
    Ok(())
}

/// Returns when each call started, and the highest number of running calls.
fn rush(maps: &RateLimited, runtime: &ManualRuntime, takes: Duration) -> (Vec<Duration>, usize) {
    runtime.advance(Duration::from_secs(1));
    let start = runtime.now();
    let started = Mutex::new(Vec::new());
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let calls = (0..CALLS).map(|_| {
        maps.execute(async {
            started
                .lock()
                .expect("no panic")
                .push(runtime.now() - start);
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            runtime.sleep_until(runtime.now() + takes).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, &str>(())
        })
    });
    let answers = runtime.block_on(join_all(calls));
    assert!(answers.iter().all(Result::is_ok));

    let (started, most) = (started.into_inner().expect("no panic"), most.into_inner());
    for (second, count) in per_second(&started).into_iter().enumerate() {
        println!("  second {second}: {count} started  {}", "#".repeat(count));
    }
    println!("  never more than {most} at once");
    (started, most)
}

/// Returns how many calls started in each second.
fn per_second(started: &[Duration]) -> Vec<usize> {
    let last = started.last().map_or(0, Duration::as_secs);
    (0..=last)
        .map(|second| started.iter().filter(|at| at.as_secs() == second).count())
        .collect()
}

/// A bulkhead behind a rate limiter.
struct RateLimited {
    bulkhead: Bulkhead,
    runtime: Arc<dyn Runtime>,
    limiter: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Instant>>,
}

impl RateLimited {
    fn new(
        config: BulkheadConfig,
        quota: Quota,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, bulkman::ConfigError> {
        let limiter = RateLimiter::direct_with_clock(quota, RuntimeClock(Arc::clone(&runtime)));
        Ok(Self {
            bulkhead: Bulkhead::new(config, Arc::clone(&runtime))?,
            runtime,
            limiter,
        })
    }

    async fn execute<T, E>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BulkheadError<E>> {
        if self.bulkhead.is_healthy() {
            while let Err(rejected) = self.limiter.check() {
                let now = self.runtime.now();
                self.runtime
                    .sleep_until(now + rejected.wait_time_from(now))
                    .await;
            }
        }
        self.bulkhead.execute(operation).await
    }
}

/// The bulkhead's clock, for the limiter.
#[derive(Debug, Clone)]
struct RuntimeClock(Arc<dyn Runtime>);

impl Clock for RuntimeClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now()
    }
}
