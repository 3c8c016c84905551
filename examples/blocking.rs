//! Blocking work: synchronous functions off the executor, with a limit that never lies.
//!
//! A thread can't be interrupted. When the caller of a blocking function gives up, the function
//! goes on, and so does its use of the dependency; its permit is free when it has really ended.

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

/// Nothing here fails by itself.
type Answer<T> = Result<T, Infallible>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = BulkheadConfig::new("calculator").max_concurrent_calls(2);
    let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;

    eight_jobs_two_threads(&bulkhead).await?;
    a_caller_gives_up(&bulkhead).await?;
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
    println!("8 jobs have counted primes, {most} at once at most: {primes:?}");
    assert!(most <= 2);
    assert_eq!(primes, [1229, 2262, 3245, 4203, 5133, 6057, 6935, 7837]);
    Ok(())
}

async fn a_caller_gives_up(bulkhead: &Bulkhead) -> Result<(), BulkheadError<Infallible>> {
    // Holds one of the two permits throughout, so that the next job needs the other one.
    let other = bulkhead.acquire().await?;

    let (finish, finished) = mpsc::channel::<()>();
    let stuck = bulkhead
        .call()
        .timeout(Duration::from_millis(50))
        .execute_blocking(move || {
            // Until somebody says so, or is gone.
            let _ = finished.recv();
            Answer::Ok(0)
        });
    let error = stuck.await.expect_err("nobody let it finish");
    println!("the caller gives up: {error}");
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
    println!("it has ended, and its permit went to the next call: {primes} primes");
    assert_eq!(primes, 25);
    other.succeed();
    Ok(())
}

async fn a_closure_panics(bulkhead: &Bulkhead) {
    // The hook would write the panic to stderr; here it is part of the show.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = bulkhead
        .execute_blocking(|| -> Answer<u32> { panic!("division by zero") })
        .await;
    panic::set_hook(hook);
    let error = result.expect_err("it panics");
    println!("a panic comes back as an error: {error}");
    assert!(matches!(error, BulkheadError::Panicked { .. }));
    assert_eq!(bulkhead.stats().panicked, 1);
}

/// Without an executor: waits and runs on the calling thread.
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
