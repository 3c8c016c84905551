//! The dependency: an HTTP server with a behavior that the story sets.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkman::Runtime;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};

use super::sockets::Sockets;

/// A server on loopback. It runs until the program ends.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// How the server answers.
#[derive(Clone, Copy)]
pub(crate) enum Behavior {
    Healthy,
    Slow(Duration),
    Failing,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    behavior: Mutex<Behavior>,
    requests: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl Server {
    /// Starts a server on a free port.
    pub(crate) fn start<S: Sockets>(runtime: Arc<dyn Runtime>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            runtime: Arc::clone(&runtime),
            behavior: Mutex::new(Behavior::Healthy),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            most_in_flight: AtomicU64::new(0),
        });
        let task = Box::pin(serve::<S>(S::listener(listener)?, Arc::clone(&shared)));
        drop(runtime.spawn(task));
        Ok(Self { address, shared })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set_behavior(&self, behavior: Behavior) {
        *self
            .shared
            .behavior
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = behavior;
    }

    /// Requests that reached the server.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The highest number of requests in flight.
    pub(crate) fn most_in_flight(&self) -> u64 {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }
}

async fn serve<S: Sockets>(listener: S::Listener, shared: Arc<Shared>) {
    while let Ok(stream) = S::accept(&listener).await {
        let state = Arc::clone(&shared);
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(
            stream,
            service_fn(move |_request| answer(Arc::clone(&state))),
        );
        drop(shared.runtime.spawn(Box::pin(async {
            // Ignored: the client closed the connection.
            let _ = connection.await;
        })));
    }
}

async fn answer(shared: Arc<Shared>) -> Result<Response<String>, Infallible> {
    let _counted = InFlight::new(&shared);
    let behavior = *shared
        .behavior
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match behavior {
        Behavior::Healthy => (StatusCode::OK, "hello"),
        Behavior::Slow(delay) => {
            shared
                .runtime
                .sleep_until(shared.runtime.now() + delay)
                .await;
            (StatusCode::OK, "hello, slowly")
        }
        Behavior::Failing => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut response = Response::new(String::from(body));
    *response.status_mut() = status;
    Ok(response)
}

/// Counts a request until it is answered.
struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}
