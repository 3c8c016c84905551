//! The service: a backend with a fixed capacity, unguarded or behind a bulkhead.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkman_core::tower::{BulkheadLayer, ServiceError};
use bulkman_core::{Bulkhead, BulkheadConfig};
use bulkman_tokio::TokioRuntime;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, service_fn};

/// The capacity of the backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// The number of requests that it serves at once.
    pub(crate) at_once: usize,
    /// The duration of one request.
    pub(crate) duration: Duration,
}

/// A service on loopback. It ends with the runtime on which it was started.
pub(crate) struct WebService {
    pub(crate) address: SocketAddr,
    backend: Arc<Backend>,
}

impl WebService {
    /// Starts a service that admits all requests, which then wait inside.
    pub(crate) async fn unguarded(capacity: Capacity) -> Self {
        let backend = Backend::new(capacity);
        let address = serve(service_fn(backend.handler())).await;
        Self { address, backend }
    }

    /// Starts a service behind a bulkhead.
    ///
    /// It admits as many requests as the backend serves at once. `queue` more wait, and all others
    /// are rejected.
    pub(crate) async fn guarded(capacity: Capacity, queue: usize) -> Self {
        let backend = Backend::new(capacity);
        let config = BulkheadConfig::new("backend")
            .max_concurrent_calls(capacity.at_once)
            .max_queue_size(queue);
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).expect("a valid configuration");
        let guarded = BulkheadLayer::new(bulkhead)
            .classify_status(|response: &HttpResponse| response.status().as_u16())
            .layer(service_fn(backend.handler()));
        let address = serve(service_fn(move |request| {
            let response = guarded.clone().oneshot(request);
            async { Ok(response.await.unwrap_or_else(|error| rejection(&error))) }
        }))
        .await;
        Self { address, backend }
    }

    /// Returns the highest number of requests that were inside at once.
    pub(crate) fn peak_inside(&self) -> usize {
        self.backend.peak_inside.load(Ordering::SeqCst)
    }
}

type HttpResponse = Response<Empty<Bytes>>;

struct Backend {
    permits: Semaphore,
    duration: Duration,
    inside: AtomicUsize,
    peak_inside: AtomicUsize,
}

impl Backend {
    fn new(capacity: Capacity) -> Arc<Self> {
        let permits = Semaphore::new(capacity.at_once);
        let (inside, peak_inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self {
            permits,
            duration: capacity.duration,
            inside,
            peak_inside,
        })
    }

    fn handler(
        self: &Arc<Self>,
    ) -> impl Fn(Request<Incoming>) -> BoxResponse + Clone + Send + 'static + use<> {
        let backend = Arc::clone(self);
        move |_| {
            let backend = Arc::clone(&backend);
            Box::pin(async move {
                let inside = backend.inside.fetch_add(1, Ordering::SeqCst) + 1;
                backend.peak_inside.fetch_max(inside, Ordering::SeqCst);
                let working = backend.permits.acquire().await.expect("never closed");
                tokio::time::sleep(backend.duration).await;
                drop(working);
                backend.inside.fetch_sub(1, Ordering::SeqCst);
                Ok(Response::new(Empty::new()))
            })
        }
    }
}

type BoxResponse = std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, Infallible>> + Send>>;

fn rejection(error: &ServiceError) -> HttpResponse {
    let status = StatusCode::from_u16(error.http_status()).expect("a status");
    let response = Response::builder()
        .status(status)
        .header(RETRY_AFTER, error.retry_after_seconds());
    response.body(Empty::new()).expect("a valid response")
}

async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = HttpResponse, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port on loopback");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP socket");
            let service = TowerToHyperService::new(service.clone());
            // Errors are ignored: the client closed the connection.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}
