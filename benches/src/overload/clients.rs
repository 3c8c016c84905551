//! The clients: each request is sent when it is due, whatever became of those before it.
//!
//! Clients that wait for an answer before they ask again (a closed loop) slow down with the service
//! and so hide how long it keeps people waiting. Here arrivals follow a plan, and the time of an
//! answer counts from when its request was due, not from when it got out.

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

/// The result of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Whether it has a `Retry-After`.
    pub(crate) retry_after: bool,
    /// From when the request was due.
    pub(crate) took: Duration,
    /// When the answer was there, from the beginning of the load.
    pub(crate) at: Duration,
}

/// Returns random arrival times with an average of `rate` per second (a Poisson process).
pub(crate) fn arrivals(requests: usize, rate: f64, seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut due = 0.0;
    let next = || {
        // Of (0, 1], so that the logarithm is finite.
        due -= (1.0 - random.f64()).ln() / rate;
        Duration::from_secs_f64(due)
    };
    std::iter::repeat_with(next).take(requests).collect()
}

/// Sends a request at each of the times, and waits for all answers.
///
/// # Panics
///
/// Panics when a request is not answered at all.
pub(crate) fn load(clients: &Handle, address: SocketAddr, arrivals: &[Duration]) -> Vec<Answered> {
    let pool = Arc::new(Pool {
        address,
        idle: Mutex::default(),
    });
    let begin = Instant::now();
    let mut requests = Vec::with_capacity(arrivals.len());
    // On a separate thread: a runtime's timer is a millisecond late.
    for &due in arrivals {
        std::thread::sleep((begin + due).saturating_duration_since(Instant::now()));
        let pool = Arc::clone(&pool);
        requests.push(clients.spawn(async move {
            let (status, retry_after) = pool.request().await;
            let at = begin.elapsed();
            Answered {
                status,
                retry_after,
                took: at.saturating_sub(due),
                at,
            }
        }));
    }
    clients.block_on(async {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(request.await.expect("every request is answered"));
        }
        answers
    })
}

/// Connections that stay open for the next request, as in any client.
struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

impl Pool {
    async fn request(&self) -> (u16, bool) {
        let idle = self.idle.lock().expect("nobody panics").pop();
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
        let answer = connection.send_request(request).await.expect("an answer");
        let report = (
            answer.status().as_u16(),
            answer.headers().contains_key(RETRY_AFTER),
        );
        answer
            .into_body()
            .collect()
            .await
            .expect("the whole answer");
        self.idle.lock().expect("nobody panics").push(connection);
        report
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the service listens");
    stream.set_nodelay(true).expect("a socket of TCP");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}
