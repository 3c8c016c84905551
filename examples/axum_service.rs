//! A web service with two backends, each behind its own bulkhead.
//!
//! When one backend hangs or fails, its bulkhead rejects excess requests immediately, with status
//! 503 and `Retry-After`. Requests for the other backend are served as before. `/health` reports
//! both bulkheads.
//!
//! The program starts the backends and the service on loopback, sends requests, checks the
//! responses, and exits.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bulkman::bulkhead::BulkheadState;
use bulkman::snapshot::ManagerSnapshot;
use bulkman::tower::{BulkheadLayer, ServiceError};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadManager, TokioRuntime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (search, stock) = (Backend::start().await?, Backend::start().await?);
    let manager = BulkheadManager::new(TokioRuntime::new());
    let address = serve(service(&manager, &search, &stock)?).await?;
    let client = Client::new(address);

    println!("both backends are healthy:");
    assert_eq!(client.get("/search").await?.status, 200);
    assert_eq!(client.get("/stock").await?.status, 200);

    println!("search hangs, and 40 requests for it arrive:");
    search.set_behavior(Behavior::Hanging);
    let searches: Vec<_> = (0..40)
        .map(|_| tokio::spawn(client.get("/search")))
        .collect();
    // Rejections are returned while the admitted requests still hang.
    let bulkhead = manager.get_bulkhead("search").expect("created above");
    while bulkhead.stats().rejected.full < 32 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    assert_eq!(client.get("/stock").await?.status, 200);
    println!("  stock still answers, in {:.1?}", begin.elapsed());
    search.set_behavior(Behavior::Well);
    let mut answers = [0, 0];
    for search in searches {
        let answer = search.await??;
        match answer.status {
            200 => answers[0] += 1,
            503 => {
                assert_eq!(answer.retry_after.as_deref(), Some("1"));
                answers[1] += 1;
            }
            other => panic!("unexpected status {other}"),
        }
    }
    println!(
        "  {} served, {} rejected; at most {} reached the backend at once",
        answers[0],
        answers[1],
        search.most()
    );
    assert_eq!(answers, [8, 32], "4 running, 4 waiting, the rest rejected");
    assert_eq!(search.most(), 4);

    println!("stock fails:");
    stock.set_behavior(Behavior::Failing);
    for _ in 0..5 {
        assert_eq!(client.get("/stock").await?.status, 502);
    }
    let before = stock.requests();
    let rejected = client.get("/stock").await?;
    println!("  {}", rejected.body);
    assert_eq!(rejected.status, 503);
    assert_eq!(rejected.retry_after.as_deref(), Some("30"));
    assert_eq!(
        stock.requests(),
        before,
        "an open circuit sends nothing to the backend"
    );

    let health = client.get("/health").await?;
    assert_eq!(health.status, 503);
    let report: serde_json::Value = serde_json::from_str(&health.body)?;
    for (place, name, state) in [(0, "search", "healthy"), (1, "stock", "isolated")] {
        let bulkhead = &report["bulkheads"][place];
        assert_eq!(
            (&bulkhead["name"], &bulkhead["state"]),
            (&name.into(), &state.into())
        );
    }
    println!("the health report, as a table:\n{}", manager.snapshot());
    Ok(())
}

/// Returns the service: a route and a bulkhead for each backend, and a health route.
fn service(
    manager: &BulkheadManager,
    search: &Backend,
    stock: &Backend,
) -> Result<Router, Box<dyn Error>> {
    let config = |name: &str| {
        BulkheadConfig::new(name)
            .max_concurrent_calls(4)
            .max_queue_size(4)
            .timeout(Duration::from_secs(5)) // a service that hangs counts as failing
    };
    let search = guarded(forward(search), manager.create_bulkhead(config("search"))?);
    let stock = guarded(forward(stock), manager.create_bulkhead(config("stock"))?);
    let health = Router::new()
        .route("/health", get(health))
        .with_state(manager.clone());
    Ok(health.nest("/search", search).nest("/stock", stock))
}

/// Sends all requests for these routes through the bulkhead. A 5xx counts as a failure.
fn guarded(routes: Router, bulkhead: Bulkhead) -> Router {
    let layer =
        BulkheadLayer::new(bulkhead).classify_status(|answer: &Response| answer.status().as_u16());
    routes.layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(reject))
            .layer(layer),
    )
}

/// Converts an error to a response.
async fn reject(error: ServiceError) -> Response {
    let status =
        StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = error
        .is_rejection()
        .then(|| [(header::RETRY_AFTER, error.retry_after_seconds().to_string())]);
    (status, retry_after, error.to_string()).into_response()
}

/// Forwards requests to a backend.
fn forward(backend: &Backend) -> Router {
    let (client, url) = (reqwest::Client::new(), backend.url.clone());
    let handler = || async move {
        match client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
        {
            Ok(answer) => answer
                .text()
                .await
                .map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string())),
            Err(error) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
        }
    };
    Router::new().route("/", get(handler))
}

/// Returns the snapshot, with status 200 while every bulkhead admits calls and 503 otherwise.
async fn health(State(manager): State<BulkheadManager>) -> (StatusCode, Json<ManagerSnapshot>) {
    let report = manager.snapshot();
    let is_well = |state| matches!(state, BulkheadState::Healthy | BulkheadState::Degraded);
    let well = report
        .bulkheads
        .iter()
        .all(|bulkhead| is_well(bulkhead.state));
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

/// Serves on loopback until the program exits.
async fn serve(routes: Router) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// A server whose behavior the client controls.
struct Backend {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    behavior: watch::Sender<Behavior>,
    requests: AtomicU64,
    now: AtomicU64,
    most: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behavior {
    Well,
    Hanging,
    Failing,
}

impl Backend {
    async fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            behavior: watch::Sender::new(Behavior::Well),
            requests: AtomicU64::new(0),
            now: AtomicU64::new(0),
            most: AtomicU64::new(0),
        });
        let routes = Router::new()
            .route("/", get(answer))
            .with_state(Arc::clone(&shared));
        Ok(Self {
            url: format!("http://{}/", serve(routes).await?),
            shared,
        })
    }

    fn set_behavior(&self, behavior: Behavior) {
        self.shared.behavior.send_replace(behavior);
    }

    fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Returns the highest number of requests in flight.
    fn most(&self) -> u64 {
        self.shared.most.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> Result<&'static str, StatusCode> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most.fetch_max(now, Ordering::SeqCst);
    let mut behavior = shared.behavior.subscribe();
    let behavior = behavior
        .wait_for(|behavior| *behavior != Behavior::Hanging)
        .await
        .map(|behavior| *behavior);
    shared.now.fetch_sub(1, Ordering::SeqCst);
    if matches!(behavior, Ok(Behavior::Well)) {
        Ok("a response")
    } else {
        Err(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The service's client.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: String,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self {
            http: reqwest::Client::new(),
            address,
        }
    }

    fn get(
        &self,
        path: &'static str,
    ) -> impl Future<Output = reqwest::Result<Answer>> + Send + 'static {
        let request = self
            .http
            .get(format!("http://{}{path}", self.address))
            .send();
        async move {
            let response = request.await?;
            let status = response.status().as_u16();
            let retry_after = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok());
            let retry_after = retry_after.map(String::from);
            Ok(Answer {
                status,
                retry_after,
                body: response.text().await?,
            })
        }
    }
}
