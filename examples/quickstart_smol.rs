//! The calls of a guarded client on smol, in one file: `cargo run --example quickstart_smol`.
//!
//! The same as `quickstart`, which runs on Tokio: only the runtime and the timers differ.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkman::bulkhead::BulkheadState;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, SmolRuntime};
use futures_util::future::join_all;
use smol::Timer;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    // Create one bulkhead per dependency and keep it as long as the dependency is used.
    let config = BulkheadConfig::new("inventory")
        .max_concurrent_calls(3)
        .max_queue_size(2)
        .run_timeout(Duration::from_millis(100)) // a call that hangs is a failure
        .failure_threshold(3) // this many consecutive failures open the circuit,
        .isolation_duration(Duration::from_millis(300)) // for this long
        .success_threshold(1); // then this many successful probes close it
    let bulkhead = Bulkhead::new(config, SmolRuntime::new())?;
    let inventory = Inventory::default();

    println!("1. A call through the bulkhead");
    let stock = bulkhead.execute(inventory.stock("apples")).await?;
    println!("   {stock} apples");

    println!("2. Seven calls at once: 3 run, 2 wait, 2 are rejected");
    let results = join_all((0..7).map(|_| bulkhead.execute(inventory.stock("pears")))).await;
    let served = results.iter().filter(|result| result.is_ok()).count();
    let full = results
        .iter()
        .filter(|result| matches!(result, Err(BulkheadError::Full { .. })))
        .count();
    println!("   {served} served, {full} rejected");
    assert_eq!((served, full), (5, 2));

    println!("3. The inventory hangs: timeouts are failures, and the third one opens the circuit");
    inventory.hangs.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        match bulkhead.execute(inventory.stock("plums")).await {
            Err(error @ BulkheadError::Timeout { .. }) => println!("   {error}"),
            other => panic!("expected a timeout, not {other:?}"),
        }
    }
    assert_eq!(bulkhead.state(), BulkheadState::Isolated);

    println!("4. While it is open, calls are rejected without waiting");
    let rejection = bulkhead
        .execute(inventory.stock("plums"))
        .await
        .unwrap_err();
    println!("   {rejection}");
    assert!(rejection.is_rejection());
    let retry_after = rejection
        .retry_after()
        .ok_or("the circuit reopens at a known time")?;

    println!("5. The inventory recovers: one successful probe closes the circuit");
    inventory.hangs.store(false, Ordering::Relaxed);
    Timer::after(retry_after).await;
    let stock = bulkhead.execute(inventory.stock("plums")).await?;
    println!("   {stock} plums");
    assert_eq!(bulkhead.state(), BulkheadState::Healthy);

    let stats = bulkhead.stats();
    println!(
        "started {}, successful {}, failed {}, rejected {}",
        stats.started,
        stats.successful,
        stats.failed,
        stats.rejected.total()
    );
    assert_eq!((stats.started, stats.successful, stats.failed), (10, 7, 3));
    Ok(())
}

/// The dependency: a remote inventory.
#[derive(Default)]
struct Inventory {
    hangs: Arc<AtomicBool>,
}

impl Inventory {
    async fn stock(&self, item: &str) -> Result<usize, std::io::Error> {
        if self.hangs.load(Ordering::Relaxed) {
            Timer::after(Duration::from_secs(3600)).await;
        }
        Timer::after(Duration::from_millis(10)).await;
        Ok(item.len() * 7)
    }
}
