//! The dependency: an HTTP server whose mood the story decides.

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
pub(crate) enum Mood {
    Healthy,
    Slow(Duration),
    Failing,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    mood: Mutex<Mood>,
    requests: AtomicU64,
    in_flight: AtomicU64,
    most_in_flight: AtomicU64,
}

impl Server {
    /// Starts it on a free port.
    pub(crate) fn start<S: Sockets>(runtime: Arc<dyn Runtime>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            runtime: Arc::clone(&runtime),
            mood: Mutex::new(Mood::Healthy),
            requests: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            most_in_flight: AtomicU64::new(0),
        });
        runtime.spawn(Box::pin(serve::<S>(
            S::listener(listener)?,
            Arc::clone(&shared),
        )));
        Ok(Self { address, shared })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn becomes(&self, mood: Mood) {
        *self
            .shared
            .mood
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// Requests that reached the server.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The most requests that the server had at once.
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
        shared.runtime.spawn(Box::pin(async {
            // A client that hangs up is none of the server's business.
            let _ = connection.await;
        }));
    }
}

async fn answer(shared: Arc<Shared>) -> Result<Response<String>, Infallible> {
    let _counted = InFlight::new(&shared);
    let mood = *shared.mood.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match mood {
        Mood::Healthy => (StatusCode::OK, "hello"),
        Mood::Slow(delay) => {
            shared
                .runtime
                .sleep_until(shared.runtime.now() + delay)
                .await;
            (StatusCode::OK, "hello, at last")
        }
        Mood::Failing => (StatusCode::SERVICE_UNAVAILABLE, "out of order"),
    };
    let mut response = Response::new(String::from(body));
    *response.status_mut() = status;
    Ok(response)
}

/// Counts a request for as long as it is being answered.
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
