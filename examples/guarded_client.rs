//! An HTTP client behind a bulkhead: `reqwest` with [`BulkheadLayer`].
//!
//! `reqwest::Client` is a tower service, so the layer wraps it directly. The program starts a
//! server on loopback that fails for a while, and checks the results.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use bulkman::circuit_breaker::CircuitState;
use bulkman::error::TimeoutPhase;
use bulkman::tower::{BulkheadLayer, BulkheadService, ServiceError, StatusClassifier};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, TokioRuntime};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

type Guarded = BulkheadService<reqwest::Client, StatusClassifier<fn(&reqwest::Response) -> u16>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start().await?;
    let config = BulkheadConfig::new("weather")
        .max_concurrent_calls(8)
        .run_timeout(Duration::from_millis(500))
        .failure_threshold(3)
        .success_threshold(1)
        .isolation_duration(Duration::from_millis(50));
    let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;
    let status: fn(&reqwest::Response) -> u16 = |response| response.status().as_u16();
    let client = BulkheadLayer::new(bulkhead.clone())
        .classify_status(status)
        .layer(reqwest::Client::new());

    println!("healthy:   {}", fetch(&client, server.url("/now")).await?);

    // A 5xx is a response, and a failure of the server.
    server.fails.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        println!("failing:   {}", fetch(&client, server.url("/now")).await?);
    }
    assert_eq!(
        bulkhead.circuit_breaker().map(|circuit| circuit.state()),
        Some(CircuitState::Open)
    );

    let requests = server.requests.load(Ordering::SeqCst);
    let rejected = fetch(&client, server.url("/now"))
        .await
        .expect_err("the circuit is open");
    println!("open:      {rejected}");
    assert!(rejected.is_rejection());
    assert_eq!(
        server.requests.load(Ordering::SeqCst),
        requests,
        "no request reaches the server"
    );

    server.fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(
        rejected
            .retry_after()
            .expect("an open circuit has a retry time"),
    )
    .await;
    println!("recovered: {}", fetch(&client, server.url("/now")).await?);
    assert_eq!(
        bulkhead.circuit_breaker().map(|circuit| circuit.state()),
        Some(CircuitState::Closed)
    );

    // A server that does not answer.
    let late = fetch(&client, server.url("/never"))
        .await
        .expect_err("no response");
    println!("timed out: {late}");
    assert!(matches!(
        late.as_error(),
        BulkheadError::Timeout {
            phase: TimeoutPhase::Running,
            ..
        }
    ));
    Ok(())
}

/// Sends one request. The caller reads the response; the bulkhead classifies its status.
async fn fetch(client: &Guarded, url: String) -> Result<StatusCode, ServiceError> {
    let request = reqwest::Request::new(reqwest::Method::GET, url.parse().expect("a URL"));
    Ok(client.clone().oneshot(request).await?.status())
}

struct Server {
    address: String,
    fails: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
}

impl Server {
    async fn start() -> std::io::Result<Self> {
        let (fails, requests) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let now = {
            let (fails, requests) = (Arc::clone(&fails), Arc::clone(&requests));
            move || async move {
                requests.fetch_add(1, Ordering::SeqCst);
                if fails.load(Ordering::SeqCst) {
                    StatusCode::INTERNAL_SERVER_ERROR
                } else {
                    StatusCode::OK
                }
            }
        };
        let never = || std::future::pending::<StatusCode>();
        let routes = Router::new()
            .route("/now", get(now))
            .route("/never", get(never));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self {
            address,
            fails,
            requests,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }
}
