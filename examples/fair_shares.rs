//! A web service with tenants, one of which sends far more requests than all others.
//!
//! The tenant is in a header. All tenants share one bulkhead, with four permits. In the order of
//! arrival, a request of a quiet tenant waits for all requests of the busy one. With fair shares,
//! it waits for one request to end.
//!
//! The program starts the service on loopback, sends requests, checks how many other requests ended
//! while one waited, and exits.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use bulkman::bulkhead::Fairness;
use bulkman::tower::{BulkheadLayer, ServiceError};
use bulkman::{Bulkhead, BulkheadConfig, TokioRuntime};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::ServiceBuilder;

/// A real service takes the tenant from what it has authenticated: clients can set any header.
const TENANT: &str = "x-tenant";
const PERMITS: usize = 4;
const QUERY: Duration = Duration::from_millis(10);
const REQUESTS_OF_HOG: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{PERMITS} permits, a query takes {QUERY:?}");

    let shared = Service::start(Some(Fairness::new())).await?;
    let alone = shared.requests_of_others().await?;
    alone.print("without the busy tenant");
    assert_eq!(alone.most_ended, 0, "no other key uses the permits");

    let by_arrival = Service::start(None).await?;
    let hog = by_arrival.hog().await?;
    let behind_hog = by_arrival.requests_of_others().await?;
    behind_hog.print("in the order of arrival");
    assert!(behind_hog.most_ended > 50, "behind the whole queue");
    hog.await?;

    let hog = shared.hog().await?;
    let fair = shared.requests_of_others().await?;
    fair.print("with fair shares");
    // One ends before it starts, and some while it runs. More do only if the machine is busy.
    assert!(fair.most_ended < 25, "next in the queue");

    let bulkhead = &shared.bulkhead;
    let busiest = &bulkhead.snapshot().keys[0];
    println!(
        "{} has {} permits, and {} requests wait",
        busiest.name.as_deref().unwrap_or("a key"),
        busiest.held,
        busiest.waiting
    );
    assert_eq!(busiest.key, Some(bulkhead.call_key(&Some("hog"))));
    let served = hog.await?;
    println!("all {served} requests of the busy tenant were served");
    assert_eq!(served, REQUESTS_OF_HOG);
    assert_eq!(bulkhead.snapshot().keys, [], "nothing is kept of idle keys");
    Ok(())
}

struct Service {
    bulkhead: Bulkhead,
    http: reqwest::Client,
    url: String,
    ended: Arc<AtomicU64>,
}

/// What the requests of the quiet tenants met.
struct Latency {
    /// The time that a request took on average.
    mean: Duration,
    /// The most queries of others that ended while a request was under way.
    most_ended: u64,
}

impl Latency {
    fn print(&self, when: &str) {
        println!(
            "{when}: a request takes {:.1?}, and up to {} others end meanwhile",
            self.mean, self.most_ended
        );
    }
}

impl Service {
    async fn start(fairness: Option<Fairness>) -> Result<Self, Box<dyn Error>> {
        let config = BulkheadConfig::new("db")
            .max_concurrent_calls(PERMITS)
            .max_queue_size(2 * REQUESTS_OF_HOG)
            .fairness(fairness);
        let bulkhead = Bulkhead::new(config, TokioRuntime::new())?;
        // A real service names its tenants when it loads them. Operators see the name.
        bulkhead.name_key(&Some("hog"), "The Hog Company");
        let ended = Arc::<AtomicU64>::default();
        let layer = BulkheadLayer::new(bulkhead.clone()).key(tenant);
        let routes = Router::new()
            .route("/", get(query))
            .with_state(Arc::clone(&ended))
            .layer(
                ServiceBuilder::new()
                    .layer(HandleErrorLayer::new(reject))
                    .layer(layer),
            );
        Ok(Self {
            bulkhead,
            http: reqwest::Client::new(),
            url: format!("http://{}/", serve(routes).await?),
            ended,
        })
    }

    /// Sends all requests of the busy tenant at once. Returns once they are queued.
    ///
    /// The returned task returns how many were served.
    async fn hog(&self) -> Result<tokio::task::JoinHandle<usize>, Box<dyn Error>> {
        let requests: Vec<_> = (0..REQUESTS_OF_HOG)
            .map(|_| tokio::spawn(self.request("hog")))
            .collect();
        while self.bulkhead.stats().waiting < REQUESTS_OF_HOG / 2 {
            tokio::task::yield_now().await;
        }
        Ok(tokio::spawn(async {
            let mut served = 0;
            for request in requests {
                served += usize::from(matches!(request.await, Ok(Ok(200))));
            }
            served
        }))
    }

    /// Sends a few requests of quiet tenants, one after the other.
    async fn requests_of_others(&self) -> Result<Latency, Box<dyn Error>> {
        let tenants = ["a", "b", "c"];
        let (begin, mut most_ended) = (Instant::now(), 0);
        for tenant in tenants {
            let before = self.ended.load(Ordering::SeqCst);
            assert_eq!(self.request(tenant).await?, 200);
            let own = 1;
            let ended = self.ended.load(Ordering::SeqCst) - before - own;
            most_ended = most_ended.max(ended);
        }
        Ok(Latency {
            mean: begin.elapsed() / tenants.len() as u32,
            most_ended,
        })
    }

    /// Returns the status of the response.
    fn request(&self, tenant: &str) -> impl Future<Output = reqwest::Result<u16>> + 'static {
        let request = self.http.get(&self.url).header(TENANT, tenant).send();
        async { Ok(request.await?.status().as_u16()) }
    }
}

/// The key of a request. Requests without the header share one key.
fn tenant(request: &Request) -> Option<String> {
    let header = request.headers().get(TENANT)?;
    header.to_str().ok().map(str::to_owned)
}

async fn query(State(ended): State<Arc<AtomicU64>>) -> &'static str {
    tokio::time::sleep(QUERY).await;
    ended.fetch_add(1, Ordering::SeqCst);
    "rows"
}

/// Converts an error to a response.
async fn reject(error: ServiceError) -> (StatusCode, String) {
    let status =
        StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, error.to_string())
}

/// Serves on loopback until the program exits.
async fn serve(routes: Router) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}
