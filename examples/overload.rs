//! How long callers of an overloaded web service wait, with a bulkhead and without.
//!
//! The backend serves 8 requests at once, 5 ms each, so at most 1,600 a second. 128 clients send
//! more than that. Without a bulkhead, all of them wait in one long queue. With one, the requests
//! that can be served in time are served, and the others are rejected immediately.
//!
//! Run it with `--release` for meaningful figures. `cargo run --release -p bulkman-bench --
//! overload` measures more of them, against targets.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::StatusCode;
use axum::routing::get;
use bulkman::tower::{BulkheadLayer, ServiceError};
use bulkman::{Bulkhead, BulkheadConfig, TokioRuntime};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::ServiceBuilder;

const CLIENTS: usize = 128;
const REQUESTS: usize = 20;
const AT_ONCE: usize = 8;
const TAKES: Duration = Duration::from_millis(5);
/// The pause between a client's requests.
const PAUSE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bare = load(&serve(service()).await?).await?;

    let config = BulkheadConfig::new("backend")
        .max_concurrent_calls(AT_ONCE)
        .max_queue_size(2 * AT_ONCE);
    let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;
    let reject = |error: ServiceError| async move {
        StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    };
    let guard = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(reject))
        .layer(BulkheadLayer::new(bulkhead));
    let guarded = load(&serve(service().layer(guard)).await?).await?;

    println!("{:<26}{:>9}{:>10}{:>10}", "", "requests", "p50", "p99");
    let [unguarded, served, rejected] = [
        ("without a bulkhead", bare.of(StatusCode::OK)),
        ("with one: served", guarded.of(StatusCode::OK)),
        (
            "with one: rejected",
            guarded.of(StatusCode::SERVICE_UNAVAILABLE),
        ),
    ]
    .map(|(what, times)| {
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{what:<26}{:>9}{:>10.1?}{:>10.1?}",
            times.len(),
            at(0.5),
            at(0.99)
        );
        (times.len(), at(0.5))
    });
    assert_eq!(unguarded.0, CLIENTS * REQUESTS);
    assert_eq!(served.0 + rejected.0, CLIENTS * REQUESTS);
    assert!(
        served.1 < unguarded.1,
        "a served request waits in a short queue"
    );
    assert!(rejected.1 < served.1, "a rejected request does not wait");
    Ok(())
}

/// Returns a service whose backend has a fixed capacity.
fn service() -> Router {
    let backend = Arc::new(Semaphore::new(AT_ONCE));
    let handler = move || async move {
        let Ok(_working) = backend.acquire().await else {
            return StatusCode::INTERNAL_SERVER_ERROR;
        };
        tokio::time::sleep(TAKES).await;
        StatusCode::OK
    };
    Router::new().route("/", get(handler))
}

async fn serve(routes: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

/// Statuses and latencies of all requests.
struct Responses(Vec<(StatusCode, Duration)>);

impl Responses {
    /// Returns the latencies of the responses with this status, shortest first.
    fn of(&self, status: StatusCode) -> Vec<Duration> {
        let mut times: Vec<_> = self
            .0
            .iter()
            .filter(|answer| answer.0 == status)
            .map(|answer| answer.1)
            .collect();
        times.sort_unstable();
        times
    }
}

async fn load(url: &str) -> Result<Responses, Box<dyn Error>> {
    let client = reqwest::Client::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, url) = (client.clone(), url.to_owned());
            tokio::spawn(async move {
                let mut answers = Vec::with_capacity(REQUESTS);
                for _ in 0..REQUESTS {
                    let begin = Instant::now();
                    answers.push((client.get(&url).send().await?.status(), begin.elapsed()));
                    tokio::time::sleep(PAUSE).await;
                }
                reqwest::Result::Ok(answers)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await??);
    }
    Ok(Responses(answers))
}
