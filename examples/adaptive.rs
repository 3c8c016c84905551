//! An adaptive limit follows a server whose capacity drops and recovers.
//!
//! A real HTTP server on loopback has 20 workers, then 5, then 20 again. More clients than workers
//! call it all the time. Run it with `cargo run --example adaptive`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bulkman::adaptive::{AdaptiveLimit, LimitEvent, LimitStatus};
use bulkman::{Bulkhead, BulkheadConfig, TokioRuntime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

const WORKERS: u32 = 20;
const LOST: u32 = 15;
const CLIENTS: usize = 60;
const MAXIMUM: usize = 60;
const SERVICE_TIME: Duration = Duration::from_millis(40);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workers = Arc::new(Semaphore::new(WORKERS as usize));
    let url = serve(Arc::clone(&workers)).await?;
    let config = BulkheadConfig::new("server")
        .max_concurrent_calls(MAXIMUM)
        .adaptive_limit(AdaptiveLimit::new().baseline_interval(Duration::from_secs(3)));
    let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;
    let mut changes = bulkhead.limit_changes();
    let checked = tokio::spawn(async move {
        let mut limit = 4;
        while let Some(event) = changes.next().await {
            let LimitEvent::Changed(change) = event else {
                panic!("the task missed a change: {event:?}");
            };
            assert!(
                (1..=MAXIMUM).contains(&change.to),
                "never above the maximum"
            );
            assert_eq!(change.from, limit, "every change is in the stream");
            limit = change.to;
        }
        limit
    });

    let stopped = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(call(bulkhead.clone(), url.clone(), Arc::clone(&stopped)));
    }

    println!("  time  workers  limit                                      latency  last cause");
    let mut clock = 0.0;
    let healthy = watch(&bulkhead, &mut clock, WORKERS, |_| true).await;

    let lost = workers.acquire_many(LOST).await?;
    let is_lower = |limit| limit < 0.75 * healthy;
    let degraded = watch(&bulkhead, &mut clock, WORKERS - LOST, is_lower).await;

    drop(lost);
    let is_higher = |limit| limit > 1.25 * degraded;
    let recovered = watch(&bulkhead, &mut clock, WORKERS, is_higher).await;

    stopped.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client?;
    }

    println!(
        "\nmean limit: {healthy:.0} with 20 workers, {degraded:.0} with 5, {recovered:.0} after"
    );
    assert!(is_lower(degraded), "the limit follows a loss of capacity");
    assert!(is_higher(recovered), "and its return");
    assert_eq!(bulkhead.stats().failed, 0, "less load, and no failure");
    let last = bulkhead.limit();
    drop(bulkhead);
    assert_eq!(checked.await?, last, "the stream ends with the bulkhead");
    Ok(())
}

/// Calls the server until it is stopped.
async fn call(bulkhead: Bulkhead, url: String, stopped: Arc<AtomicBool>) {
    let http = reqwest::Client::new();
    while !stopped.load(Ordering::Relaxed) {
        let response = bulkhead.execute(http.get(&url).send()).await;
        // The body has to be read before the connection can be used again.
        if let Ok(response) = response {
            let _ = response.text().await;
        }
    }
}

/// Prints the limit for eight seconds, and returns its mean over the second half.
///
/// If that is not as expected, it does so again, up to five times: on a busy machine, requests also
/// wait for a processor.
async fn watch(
    bulkhead: &Bulkhead,
    clock: &mut f64,
    workers: u32,
    is_expected: impl Fn(f64) -> bool,
) -> f64 {
    let mut mean = 0.0;
    for _ in 0..5 {
        mean = watch_once(bulkhead, clock, workers).await;
        if is_expected(mean) {
            break;
        }
    }
    mean
}

async fn watch_once(bulkhead: &Bulkhead, clock: &mut f64, workers: u32) -> f64 {
    const STEP: Duration = Duration::from_millis(200);
    let steps = 40;
    let mut sum = 0;
    for step in 0..steps {
        sleep(STEP).await;
        *clock += STEP.as_secs_f64();
        let limit = bulkhead.limit();
        if step >= steps / 2 {
            sum += limit;
        }
        if step % 2 == 1 {
            if let Some(status) = bulkhead.snapshot().limit {
                print_line(*clock, workers, &status);
            }
        }
    }
    sum as f64 / f64::from(steps / 2)
}

fn print_line(clock: f64, workers: u32, status: &LimitStatus) {
    let bar = "#".repeat(status.limit.min(MAXIMUM) * 40 / MAXIMUM);
    let latency = status.latency.unwrap_or_default().as_millis();
    let cause = status.recent.last().map_or("-", |last| last.cause.as_str());
    let limit = status.limit;
    println!("{clock:5.1} s {workers:7}  {limit:3} {bar:<40} {latency:4} ms  {cause}");
}

/// Starts the server: a request needs a worker for a while.
async fn serve(workers: Arc<Semaphore>) -> std::io::Result<String> {
    async fn work(State(workers): State<Arc<Semaphore>>) -> &'static str {
        let _worker = workers.acquire().await;
        sleep(SERVICE_TIME).await;
        "done"
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let app = Router::new().route("/", get(work)).with_state(workers);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}
