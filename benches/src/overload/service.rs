//! The service: a backend with a fixed capacity, unguarded or behind a
//! bulkhead.

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

/// What the backend can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Requests that it serves at the same time.
    pub(crate) at_once: usize,
    /// How long it takes for one.
    pub(crate) takes: Duration,
}

/// A service on loopback; it ends with the runtime that it was started on.
pub(crate) struct WebService {
    pub(crate) address: SocketAddr,
    backend: Arc<Backend>,
}

impl WebService {
    /// All requests are admitted and wait inside.
    pub(crate) async fn unguarded(capacity: Capacity) -> Self {
        let backend = Backend::new(capacity);
        let address = serve(service_fn(backend.handler())).await;
        Self { address, backend }
    }

    /// As many as the backend can serve get in, `queue` more wait for them, the rest are refused.
    pub(crate) async fn guarded(capacity: Capacity, queue: usize) -> Self {
        let backend = Backend::new(capacity);
        let config = BulkheadConfig::new("backend")
            .max_concurrent_calls(capacity.at_once)
            .max_queue_size(queue);
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).expect("a valid configuration");
        let guarded = BulkheadLayer::new(bulkhead)
            .classify_status(|answer: &Answer| answer.status().as_u16())
            .layer(service_fn(backend.handler()));
        let address = serve(service_fn(move |request| {
            let answer = guarded.clone().oneshot(request);
            async { Ok(answer.await.unwrap_or_else(|error| refusal(&error))) }
        }))
        .await;
        Self { address, backend }
    }

    /// The most requests that were past the guard at once.
    pub(crate) fn most_inside(&self) -> usize {
        self.backend.most.load(Ordering::SeqCst)
    }
}

type Answer = Response<Empty<Bytes>>;

struct Backend {
    permits: Semaphore,
    takes: Duration,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Backend {
    fn new(capacity: Capacity) -> Arc<Self> {
        let permits = Semaphore::new(capacity.at_once);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self {
            permits,
            takes: capacity.takes,
            inside,
            most,
        })
    }

    fn handler(
        self: &Arc<Self>,
    ) -> impl Fn(Request<Incoming>) -> BoxAnswer + Clone + Send + 'static + use<> {
        let backend = Arc::clone(self);
        move |_| {
            let backend = Arc::clone(&backend);
            Box::pin(async move {
                let inside = backend.inside.fetch_add(1, Ordering::SeqCst) + 1;
                backend.most.fetch_max(inside, Ordering::SeqCst);
                let working = backend.permits.acquire().await.expect("never closed");
                tokio::time::sleep(backend.takes).await;
                drop(working);
                backend.inside.fetch_sub(1, Ordering::SeqCst);
                Ok(Response::new(Empty::new()))
            })
        }
    }
}

type BoxAnswer = std::pin::Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

fn refusal(error: &ServiceError) -> Answer {
    let status = StatusCode::from_u16(error.http_status()).expect("a status");
    let answer = Response::builder()
        .status(status)
        .header(RETRY_AFTER, error.retry_after_seconds());
    answer.body(Empty::new()).expect("a valid answer")
}

async fn serve<S>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port on loopback");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket of TCP");
            let service = TowerToHyperService::new(service.clone());
            // A client that goes away is no concern of the service.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}
