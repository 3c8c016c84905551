//! Blocking work: synchronous functions on the blocking pool, with a limit that always holds.
//!
//! A thread cannot be interrupted. When the caller of a blocking function times out, the function
//! continues to use the dependency. Its permit is released when the function has ended.

use std::convert::Infallible;
use std::error::Error;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bulkman::error::TimeoutPhase;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, TokioRuntime};
use futures_lite::future::poll_once;
use futures_util::future::try_join_all;

/// The operations of this example do not fail.
type Answer<T> = Result<T, Infallible>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = BulkheadConfig::new("calculator").max_concurrent_calls(2);
    let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;

    eight_jobs_two_threads(&bulkhead).await?;
    a_caller_times_out(&bulkhead).await?;
    a_closure_panics(&bulkhead).await;
    on_this_thread(&bulkhead)?;

    bulkhead.shutdown();
    bulkhead.drained().await;
    let stats = bulkhead.stats();
    println!(
        "at the end: {} started, {} successful, {} failed",
        stats.started, stats.successful, stats.failed
    );
    assert_eq!((stats.started, stats.successful, stats.failed), (13, 11, 2));
    Ok(())
}

async fn eight_jobs_two_threads(bulkhead: &Bulkhead) -> Result<(), BulkheadError<Infallible>> {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let jobs = (1..=8).map(|job| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        bulkhead.execute_blocking(move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let primes = count_primes(job * 10_000);
            running.fetch_sub(1, Ordering::SeqCst);
            Answer::Ok(primes)
        })
    });
    let primes = try_join_all(jobs).await?;
    let most = most.load(Ordering::SeqCst);
    println!("8 jobs counted primes, at most {most} at once: {primes:?}");
    assert!(most <= 2);
    assert_eq!(primes, [1229, 2262, 3245, 4203, 5133, 6057, 6935, 7837]);
    Ok(())
}

async fn a_caller_times_out(bulkhead: &Bulkhead) -> Result<(), BulkheadError<Infallible>> {
    // Holds one of the two permits throughout, so that the next job needs the other one.
    let other = bulkhead.acquire().await?;

    let (finish, finished) = mpsc::channel::<()>();
    let stuck = bulkhead
        .call()
        .timeout(Duration::from_millis(50))
        .execute_blocking(move || {
            // Blocks until the sender sends or is dropped.
            let _ = finished.recv();
            Answer::Ok(0)
        });
    let error = stuck.await.expect_err("it was not released");
    println!("the caller times out: {error}");
    assert!(matches!(
        error,
        BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        }
    ));

    let mut next = bulkhead.execute_blocking(|| Answer::Ok(count_primes(100)));
    let waits = poll_once(&mut next).await.is_none();
    let stats = bulkhead.stats();
    println!(
        "its function still runs: {} permits in use, {} waiting",
        stats.permits_in_use, stats.waiting
    );
    assert!(waits);
    assert_eq!((stats.permits_in_use, stats.waiting), (2, 1));

    drop(finish);
    let primes = next.await?;
    println!("it ended, and its permit went to the next call: {primes} primes");
    assert_eq!(primes, 25);
    other.succeed();
    Ok(())
}

async fn a_closure_panics(bulkhead: &Bulkhead) {
    // The default hook would print the panic, which is expected here.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = bulkhead
        .execute_blocking(|| -> Answer<u32> { panic!("division by zero") })
        .await;
    panic::set_hook(hook);
    let error = result.expect_err("it panics");
    println!("a panic is returned as an error: {error}");
    assert!(matches!(error, BulkheadError::Panicked { .. }));
    assert_eq!(bulkhead.stats().panicked, 1);
}

/// Waits and runs on the calling thread, without an executor.
fn on_this_thread(bulkhead: &Bulkhead) -> Result<(), BulkheadError<Infallible>> {
    let primes = bulkhead.execute_sync(|| Answer::Ok(count_primes(1000)))?;
    println!("on this thread: {primes} primes");
    assert_eq!(primes, 168);
    Ok(())
}

fn count_primes(below: u32) -> usize {
    (2..below)
        .filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0))
        .count()
}
