//! Retries around a bulkhead, with the crate `backon`.
//!
//! * The retry is outside, the bulkhead inside: each attempt is a separate call with its own
//!   permit. The other way round, a sleeping call would hold a permit.
//! * Rejections are not retried blindly. An open circuit has a `retry_after`. More calls do not
//!   help a full bulkhead, so that rejection is returned immediately.
//!
//! Tokio's clock is paused and advances by itself: a minute passes immediately.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Runtime, TokioRuntime};
use tokio::time::Instant;

const ISOLATION: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(TokioRuntime::new());
    let config = BulkheadConfig::new("payments")
        .max_concurrent_calls(1)
        .max_queue_size(0)
        .failure_threshold(3)
        .success_threshold(1)
        .isolation_duration(ISOLATION);
    let bulkhead = Bulkhead::new(config, runtime.clone())?;

    println!("a gateway that is down for 45 s:");
    let gateway = Gateway::down_for(Duration::from_secs(45));
    let paid = retrying(&bulkhead, &runtime, || gateway.pay()).await?;
    println!("           {paid}");
    // Three failures open the circuit, one probe fails, the next succeeds; rejections send nothing.
    assert_eq!(paid, "paid");
    assert_eq!(gateway.calls(), 5);
    assert!(gateway.age() >= 2 * ISOLATION);

    println!("a bulkhead that is full:");
    let permit = bulkhead.acquire().await?;
    let gateway = Gateway::down_for(Duration::ZERO);
    let rejected = retrying(&bulkhead, &runtime, || gateway.pay())
        .await
        .expect_err("it is full");
    println!("  {:>5.1} s  {rejected}", gateway.age().as_secs_f64());
    assert!(matches!(rejected, BulkheadError::Full { .. }));
    assert_eq!((gateway.calls(), gateway.age()), (0, Duration::ZERO));
    permit.ignore();

    println!("an error that a retry cannot fix:");
    let declined = retrying(&bulkhead, &runtime, || async {
        Err::<(), _>(GatewayError::Declined)
    })
    .await;
    let declined = declined.expect_err("it is permanent");
    println!("    0.0 s  {declined}{}", cause(&declined));
    assert_eq!(declined, BulkheadError::Operation(GatewayError::Declined));

    let stats = bulkhead.stats();
    println!(
        "{} calls started, {} rejected",
        stats.started,
        stats.rejected.total()
    );
    assert_eq!(
        (
            stats.started,
            stats.rejected.circuit.open,
            stats.rejected.full
        ),
        (7, 2, 1)
    );
    Ok(())
}

/// Calls `operation` through the bulkhead, up to 8 times.
async fn retrying<T, Fut>(
    bulkhead: &Bulkhead,
    runtime: &Arc<TokioRuntime>,
    operation: impl Fn() -> Fut,
) -> Result<T, BulkheadError<GatewayError>>
where
    Fut: Future<Output = Result<T, GatewayError>>,
{
    let attempts = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(7)
        .with_jitter();
    let clock = Arc::clone(runtime);
    (|| bulkhead.execute(operation()))
        .retry(attempts)
        // The runtime's timers: one clock for retry and bulkhead.
        .sleep(move |pause| clock.sleep_until(clock.now() + pause))
        .when(is_worth_retrying)
        // `None`: no attempts are left.
        .adjust(|error, pause| {
            pause.map(|pause| pause.max(error.retry_after().unwrap_or_default()))
        })
        .notify(|error, pause| println!("           {error}{}; retry in {pause:.1?}", cause(error)))
        .await
}

fn is_worth_retrying(error: &BulkheadError<GatewayError>) -> bool {
    match error {
        BulkheadError::Operation(error) => matches!(error, GatewayError::Unavailable),
        // The only rejection with a time for the next attempt.
        rejected => rejected.retry_after().is_some(),
    }
}

fn cause(error: &BulkheadError<GatewayError>) -> String {
    error
        .source()
        .map_or_else(String::new, |source| format!(": {source}"))
}

/// A dependency that is down for a while.
struct Gateway {
    made: Instant,
    down_for: Duration,
    calls: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatewayError {
    Unavailable,
    Declined,
}

impl Gateway {
    fn down_for(down_for: Duration) -> Self {
        Self {
            made: Instant::now(),
            down_for,
            calls: AtomicU32::new(0),
        }
    }

    async fn pay(&self) -> Result<&'static str, GatewayError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        println!(
            "  {:>5.1} s  call {call} reaches the gateway",
            self.age().as_secs_f64()
        );
        if self.age() < self.down_for {
            Err(GatewayError::Unavailable)
        } else {
            Ok("paid")
        }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn age(&self) -> Duration {
        self.made.elapsed()
    }
}

impl std::fmt::Display for GatewayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the gateway is unavailable",
            Self::Declined => "the payment was declined",
        })
    }
}

impl Error for GatewayError {}
