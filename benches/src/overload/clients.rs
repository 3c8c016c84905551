//! The clients: they send each request when it is due, whatever happened to those before it.
//!
//! Clients that wait for a response before the next request (a closed loop) slow down with the
//! service, which hides the real latency. Here the arrival times are fixed in advance. The latency
//! of a response is measured from when its request was due, not from when it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, RETRY_AFTER};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// The response to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Whether it has the header `Retry-After`.
    pub(crate) retry_after: bool,
    /// The time since the request was due.
    pub(crate) took: Duration,
    /// The time since the start of the load.
    pub(crate) at: Duration,
}

/// Returns random arrival times with an average of `rate` per second (a Poisson process).
pub(crate) fn arrivals(requests: usize, rate: f64, seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut due = 0.0;
    let next = || {
        // In (0, 1], so that the logarithm is finite.
        due -= (1.0 - random.f64()).ln() / rate;
        Duration::from_secs_f64(due)
    };
    std::iter::repeat_with(next).take(requests).collect()
}

/// Sends a request at each of the given times, and waits for all responses.
///
/// # Panics
///
/// Panics if a request has no response.
pub(crate) fn load(clients: &Handle, address: SocketAddr, arrivals: &[Duration]) -> Vec<Response> {
    let pool = Arc::new(Pool {
        address,
        idle: Mutex::default(),
    });
    let start = Instant::now();
    let mut requests = Vec::with_capacity(arrivals.len());
    // On this thread, since a runtime's timer is a millisecond late.
    for &due in arrivals {
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        let pool = Arc::clone(&pool);
        requests.push(clients.spawn(async move {
            let (status, retry_after) = pool.request().await;
            let at = start.elapsed();
            Response {
                status,
                retry_after,
                took: at.saturating_sub(due),
                at,
            }
        }));
    }
    clients.block_on(async {
        let mut responses = Vec::with_capacity(requests.len());
        for request in requests {
            responses.push(request.await.expect("every request has a response"));
        }
        responses
    })
}

/// A pool of connections that stay open for further requests.
struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Pool {
    async fn request(&self) -> (u16, bool) {
        let idle = self.idle.lock().expect("no thread panics").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(self.address).await,
        };
        let request = Request::get("/")
            .header(HOST, "localhost")
            .body(Empty::new())
            .expect("a request");
        connection
            .ready()
            .await
            .expect("the service keeps connections open");
        let response = connection.send_request(request).await.expect("a response");
        let result = (
            response.status().as_u16(),
            response.headers().contains_key(RETRY_AFTER),
        );
        response
            .into_body()
            .collect()
            .await
            .expect("a complete response");
        self.idle.lock().expect("no thread panics").push(connection);
        result
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the service listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}
