//! Calls that last until the body of the response has ended: alone, and over real sockets.

#[path = "support/until.rs"]
mod until;

use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::error_handling::HandleErrorLayer;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::routing::get;
use bulkman::adaptive::{AdaptiveLimit, Enforcement, LimitChangeCause};
use bulkman::bulkhead::Fairness;
use bulkman::call::Classifier;
use bulkman::testing::ManualRuntime;
use bulkman::tower::{BodyClassifier, BulkheadLayer, GuardedBody, ServiceError};
use bulkman::{Bulkhead, BulkheadConfig, CircuitBreakerConfig, Outcome, Runtime, TokioRuntime};
use futures_lite::future::poll_once;
use futures_util::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use until::{until, within};

const SECOND: Duration = Duration::from_secs(1);

/// Fault GAP01.
#[tokio::test]
async fn limit_holds_for_bodies_in_transit() {
    let config = BulkheadConfig::new("stream")
        .max_concurrent_calls(1)
        .max_queue_size(4);
    let server = StreamServer::start(config, Script::Complete).await;
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let url = server.url.clone();
            tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() })
        })
        .collect();
    server.reach(1, 4).await;
    server.gate.add_permits(5);
    for client in clients {
        let text = within("a body ends", client).await.unwrap();
        assert_eq!(text, "head, tail");
    }
    server.idle().await;
    assert_eq!(server.most_bodies.load(Ordering::SeqCst), 1);
    assert_eq!(server.bulkhead.stats().successful, 5);
}

/// The time in which a body is in transit depends on its reader, not on the service.
/// Fault A22, GAP01.
#[test]
fn adaptive_limit_learns_from_the_head_of_a_response() {
    for enforcement in [Enforcement::Enforce, Enforcement::Observe] {
        let runtime = ManualRuntime::new();
        let config = BulkheadConfig::new("stream")
            .adaptive_limit(AdaptiveLimit::new())
            .enforcement(enforcement);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        let clock = runtime.clone();
        let mut service = BulkheadLayer::new(bulkhead.clone())
            .hold_until_body_end()
            .layer(service_fn(move |(): ()| {
                clock.advance(Duration::from_millis(50));
                ready(Ok::<_, Infallible>(Response::new(Full::new(
                    Bytes::from_static(b"body"),
                ))))
            }));
        for _ in 0..10 {
            let response = runtime.block_on(service.call(())).unwrap();
            assert_eq!(bulkhead.stats().active, 1, "the body is in transit");
            runtime.advance(SECOND);
            runtime.block_on(response.into_body().collect()).unwrap();
        }
        let snapshot = bulkhead.snapshot();
        let baseline = snapshot.limit.unwrap().baseline.unwrap();
        assert!(baseline < Duration::from_millis(51), "{baseline:?}");
        assert_eq!((snapshot.stats.active, snapshot.stats.successful), (0, 10));
        assert_eq!(snapshot.stats.permits_in_use, 0);
    }
}

/// Fault GAP01.
#[tokio::test]
async fn body_that_breaks_off_in_a_server_is_a_failure() {
    let config = BulkheadConfig::new("stream").max_concurrent_calls(1);
    let server = StreamServer::start(config, Script::BreakOff).await;
    let mut response = server.get().await;
    assert_eq!(response.status(), 200);
    assert_eq!(next_chunk(&mut response).await.unwrap(), "head, ");
    server.gate.add_permits(1);
    assert!(next_chunk(&mut response).await.is_err());
    server.idle().await;
    assert_eq!(server.bulkhead.stats().failed, 1);
}

/// Fault GAP01.
#[tokio::test]
async fn client_that_disconnects_from_a_body_releases_its_permit() {
    let config = BulkheadConfig::new("stream").max_concurrent_calls(1);
    let server = StreamServer::start(config, Script::Complete).await;
    let mut response = server.get().await;
    assert_eq!(next_chunk(&mut response).await.unwrap(), "head, ");
    assert_eq!(server.bulkhead.stats().active, 1);
    drop(response);
    server.idle().await;
    assert_eq!(server.bulkhead.stats().cancelled, 1);
}

/// Fault GAP01.
#[tokio::test]
async fn body_that_breaks_off_in_a_client_is_a_failure() {
    // The server closes the connection after half of the body.
    for (sent, expected) in [("12345", (0, 1)), ("1234567890", (1, 0))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{sent}");
            socket.write_all(response.as_bytes()).await.unwrap();
        });
        let config = BulkheadConfig::new("client").max_concurrent_calls(1);
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        let client = service_fn(move |request: Request<Empty<Bytes>>| async move {
            let socket = TcpStream::connect(address).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await
        });
        let mut client = BulkheadLayer::new(bulkhead.clone())
            .hold_until_body_end()
            .layer(client);
        let call = client.call(Request::new(Empty::new()));
        let response = within("the head", call).await.unwrap();
        assert_eq!(bulkhead.stats().active, 1, "the body is in transit");
        let body = within("the body", response.into_body().collect()).await;
        assert_eq!(body.is_ok(), sent.len() == 10);
        let stats = bulkhead.stats();
        assert_eq!((stats.successful, stats.failed), expected);
        assert_eq!((stats.active, stats.permits_in_use), (0, 0));
        server.await.unwrap();
    }
}

/// Fault GAP01, W1.
#[test]
fn each_end_of_a_body_has_its_outcome() {
    use Step::{Data, Error, Last, Trailers};
    type Case = (&'static str, u16, &'static [Step], bool, Outcome);
    const CASES: &[Case] = &[
        ("end", 200, &[Data, Data], true, Outcome::Success),
        ("end of a failed head", 500, &[Data], true, Outcome::Failure),
        ("known end", 200, &[Data, Last], false, Outcome::Success),
        ("error", 200, &[Data, Error], true, Outcome::Failure),
        (
            "error of an ignored head",
            404,
            &[Error],
            true,
            Outcome::Failure,
        ),
        (
            "trailers",
            200,
            &[Data, Trailers("ok")],
            false,
            Outcome::Success,
        ),
        (
            "failed trailers",
            200,
            &[Trailers("bad")],
            false,
            Outcome::Failure,
        ),
        (
            "ignored trailers",
            200,
            &[Trailers("skip")],
            false,
            Outcome::Ignored,
        ),
        (
            "trailers of a failed head",
            500,
            &[Trailers("ok")],
            false,
            Outcome::Failure,
        ),
    ];
    for &(name, status, steps, to_the_end, expected) in CASES {
        let runtime = ManualRuntime::new();
        let bulkhead = tracked(&runtime);
        runtime.block_on(async {
            let mut body = request(&bulkhead, status, steps).await;
            for _ in steps {
                assert_eq!(bulkhead.stats().active, 1, "{name}");
                assert_eq!(bulkhead.snapshot().oldest.len(), 1, "{name}");
                let _ = body.frame().await.unwrap();
            }
            if to_the_end && !steps.contains(&Error) {
                assert!(body.frame().await.is_none());
            }
            let stats = bulkhead.stats();
            let observed = (
                stats.successful,
                stats.failed,
                stats.ignored,
                stats.cancelled,
            );
            let expected = match expected {
                Outcome::Success => (1, 0, 0, 0),
                Outcome::Failure => (0, 1, 0, 0),
                _ => (0, 0, 1, 0),
            };
            assert_eq!(observed, expected, "{name}");
            assert_eq!((stats.active, stats.permits_in_use), (0, 0), "{name}");
            assert_eq!(bulkhead.snapshot().oldest, [], "{name}");
            drop(body);
            assert_eq!(bulkhead.stats().cancelled, 0, "{name}: counted once");
        });
    }
}

/// Fault GAP01, W1.
#[test]
fn dropped_body_is_cancelled_unless_its_head_has_an_outcome() {
    for (status, expected) in [(200, (0, 0, 1)), (500, (1, 0, 0)), (404, (0, 1, 0))] {
        let runtime = ManualRuntime::new();
        let bulkhead = tracked(&runtime);
        runtime.block_on(async {
            let body = request(&bulkhead, status, &[Step::Data]).await;
            drop(body);
            let stats = bulkhead.stats();
            assert_eq!((stats.failed, stats.ignored, stats.cancelled), expected);
            assert_eq!(stats.permits_in_use, 0);
            assert_eq!(bulkhead.snapshot().oldest, []);
        });
    }
}

/// Fault GAP01.
#[test]
fn empty_body_ends_with_its_head() {
    let runtime = ManualRuntime::new();
    let bulkhead = tracked(&runtime);
    runtime.block_on(async {
        let body = request(&bulkhead, 200, &[]).await;
        assert!(body.is_end_stream());
        assert_eq!(bulkhead.stats().successful, 1);
        drop(body);
    });
    assert_eq!(bulkhead.stats().cancelled, 0);
}

/// Fault GAP01, W1.
#[test]
fn body_that_panics_is_a_failure() {
    let runtime = ManualRuntime::new();
    let bulkhead = tracked(&runtime);
    let panics = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { request(&bulkhead, 200, &[Step::Panic]).await.frame().await })
    }));
    assert!(panics.is_err());
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.failed, stats.panicked, stats.permits_in_use),
        (1, 1, 0)
    );
    assert_eq!(bulkhead.snapshot().oldest, []);
}

/// Fault GAP01.
#[test]
fn limits_apply_until_the_head_and_a_stream_is_no_slow_call() {
    let runtime = ManualRuntime::new();
    let rules = CircuitBreakerConfig::new()
        .slow_call_rate_threshold(0.5)
        .slow_call_duration_threshold(SECOND)
        .minimum_number_of_calls(1);
    let config = BulkheadConfig::new("body")
        .run_timeout(5 * SECOND)
        .circuit_breaker(rules);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    runtime.block_on(async {
        let mut body = request(&bulkhead, 200, &[Step::Data]).await;
        runtime.sleep_until(runtime.now() + 60 * SECOND).await;
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.is_none());
        assert_eq!(bulkhead.stats().successful, 1);
        assert!(bulkhead.is_healthy());
        // A head that takes too long has timed out.
        let mut never = BulkheadLayer::new(bulkhead.clone())
            .hold_until_body_end()
            .layer(service_fn(|()| {
                pending::<Result<Response<Full<Bytes>>, Infallible>>()
            }));
        assert_eq!(never.call(()).await.unwrap_err().http_status(), 504);
    });
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

/// Fault A22.
#[test]
fn dropped_body_is_no_overload_of_an_adaptive_limit() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("body")
        .max_concurrent_calls(10)
        .adaptive_limit(AdaptiveLimit::new());
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let clock = runtime.clone();
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .hold_until_body_end()
        .layer(service_fn(move |()| {
            clock.advance(SECOND / 100);
            ready(Ok::<_, Infallible>(Response::new(Full::new(
                Bytes::from_static(b"body"),
            ))))
        }));
    // A body that is dropped after a long time is no timeout of its caller.
    for call in 0..40 {
        let response = runtime.block_on(service.call(())).unwrap();
        runtime.advance(SECOND / 5);
        if call % 2 == 0 {
            let body = runtime.block_on(response.into_body().collect());
            assert_eq!(body.unwrap().to_bytes(), "body");
        }
    }
    let status = bulkhead.snapshot().limit.unwrap();
    let latency = status.latency.unwrap();
    assert!(
        latency.abs_diff(SECOND / 100) < SECOND / 10_000,
        "{latency:?}"
    );
    assert_eq!((status.limit, status.recent), (4, vec![]));
    let stats = bulkhead.stats();
    assert_eq!(
        (stats.successful, stats.cancelled, stats.permits_in_use),
        (20, 20, 0)
    );
}

/// The rate is so high that most calls are no samples. Their bodies do not concern the limit
/// either.
/// Fault A22.
#[test]
fn failed_body_is_no_overload_even_of_a_call_without_a_sample() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("body")
        .circuit_breaker_enabled(false)
        .adaptive_limit(AdaptiveLimit::new().shrink_on_failure(true));
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let calls = |status: u16, steps: &'static [Step]| {
        let clock = runtime.clone();
        let mut service = BulkheadLayer::new(bulkhead.clone())
            .classify_by(ByTrailer)
            .hold_until_body_end()
            .layer(service_fn(move |()| {
                clock.advance(SECOND / 10_000);
                let response = Response::builder().status(status).body(Scripted {
                    steps,
                    end_is_known: false,
                });
                ready(Ok::<_, Infallible>(response.unwrap()))
            }));
        for _ in 0..20_000 {
            let response = runtime.block_on(service.call(())).unwrap();
            let _ = runtime.block_on(response.into_body().collect());
        }
        let snapshot = bulkhead.snapshot();
        assert_eq!(
            (snapshot.stats.active, snapshot.stats.permits_in_use),
            (0, 0)
        );
        snapshot.limit.unwrap().recent
    };
    assert_eq!(calls(200, &[Step::Data]), []);
    assert_eq!(calls(200, &[Step::Data, Step::Error]), []);
    assert_eq!(bulkhead.stats().failed, 20_000);
    // A head that fails does.
    let causes: Vec<_> = (calls(500, &[Step::Data]).iter())
        .map(|change| change.cause)
        .collect();
    assert_eq!(causes[0], LimitChangeCause::NoReply, "{causes:?}");
}

/// Fault GAP01.
#[test]
fn body_in_transit_holds_the_weight_and_the_key_of_its_request() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("body")
        .max_concurrent_calls(4)
        .fairness(Fairness::new().max_per_key(3))
        .track_running_calls(true);
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .key(|(tenant, _): &(&'static str, u32)| *tenant)
        .weight(|(_, weight): &(&'static str, u32)| *weight)
        .hold_until_body_end()
        .layer(service_fn(|_: (&'static str, u32)| {
            let body = Full::new(Bytes::from_static(b"body"));
            ready(Ok::<_, Infallible>(Response::new(body)))
        }));
    let in_use = || {
        (
            bulkhead.stats().permits_in_use,
            bulkhead.snapshot().oldest.len(),
        )
    };
    for ends in [true, false] {
        let response = runtime.block_on(service.call(("a", 3))).unwrap();
        assert_eq!(in_use(), (3, 1));
        assert_eq!(bulkhead.snapshot().keys[0].held, 3);
        // Its key is at the maximum, and another key is not.
        assert!(bulkhead.call().key("a").try_acquire().is_err());
        assert!(bulkhead.call().key("b").try_acquire().is_ok());
        if ends {
            runtime.block_on(response.into_body().collect()).unwrap();
        } else {
            drop(response);
        }
        assert_eq!(in_use(), (0, 0));
        assert_eq!(bulkhead.snapshot().keys, []);
    }
    let too_heavy = runtime.block_on(service.call(("a", 4))).unwrap_err();
    assert_eq!(too_heavy.http_status(), 413);
}

/// Fault GAP01, O6.
#[test]
fn body_in_transit_is_listed_and_is_no_call_that_hangs() {
    for tracked in [false, true] {
        let runtime = ManualRuntime::new();
        let rules = CircuitBreakerConfig::new()
            .slow_call_duration_threshold(SECOND)
            .hanging_call_threshold(1)
            .success_threshold(1);
        let config = BulkheadConfig::new("body")
            .track_running_calls(tracked)
            .circuit_breaker(rules);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        let circuit = bulkhead.circuit_breaker().unwrap();
        let hanging = || circuit.snapshot().counts.hanging_calls;
        runtime.block_on(async {
            // A body after which the circuit is closed, and one that is a probe.
            for _ in 0..2 {
                let mut body = request(&bulkhead, 200, &[Step::Last]).await;
                runtime.advance(10 * SECOND);
                assert_eq!(hanging(), 0);
                let ages: Vec<_> = bulkhead.snapshot().oldest.iter().map(|it| it.age).collect();
                assert_eq!(ages, vec![10 * SECOND; usize::from(tracked)]);
                assert!(body.frame().await.unwrap().is_ok());
                assert_eq!(bulkhead.snapshot().oldest, []);
                assert!(circuit.is_closed());
                circuit.half_open();
            }
            circuit.close();
            // A head that does not arrive hangs.
            let mut never = BulkheadLayer::new(bulkhead.clone())
                .hold_until_body_end()
                .layer(service_fn(|()| {
                    pending::<Result<Response<Full<Bytes>>, Infallible>>()
                }));
            let mut call = Box::pin(never.call(()));
            assert!(poll_once(&mut call).await.is_none());
            runtime.advance(2 * SECOND);
            assert_eq!(hanging(), 1);
            assert!(circuit.is_open());
        });
        assert_eq!(bulkhead.snapshot().oldest, []);
        assert_eq!(bulkhead.stats().successful, 2);
    }
}

/// Fault GAP01.
#[test]
fn body_is_dropped_before_its_permit_is_released() {
    struct Observes(Bulkhead, Arc<AtomicUsize>);
    impl Drop for Observes {
        fn drop(&mut self) {
            self.1
                .store(self.0.stats().permits_in_use, Ordering::SeqCst);
        }
    }
    let runtime = ManualRuntime::new();
    let bulkhead = tracked(&runtime);
    let seen = Arc::new(AtomicUsize::new(0));
    let (observed, gate) = (seen.clone(), bulkhead.clone());
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .hold_until_body_end()
        .layer(service_fn(move |()| {
            let held = Observes(gate.clone(), observed.clone());
            let chunks = stream::unfold(held, |held| async move {
                Some((Ok::<_, Infallible>(Bytes::new()), held))
            });
            ready(Ok::<_, Infallible>(Response::new(Body::from_stream(
                chunks,
            ))))
        }));
    let response = runtime.block_on(service.call(())).unwrap();
    drop(response);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}

/// Fault GAP01.
#[test]
fn error_of_the_service_ends_the_call() {
    let runtime = ManualRuntime::new();
    let bulkhead = tracked(&runtime);
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .hold_until_body_end()
        .layer(service_fn(|()| {
            ready(Err::<Response<Full<Bytes>>, _>(io::Error::other("down")))
        }));
    runtime.block_on(async {
        assert_eq!(service.call(()).await.unwrap_err().http_status(), 502);
        let mut waits = Box::pin(service.call(()));
        assert!(poll_once(&mut waits).await.unwrap().is_err());
    });
    let stats = bulkhead.stats();
    assert_eq!((stats.failed, stats.permits_in_use), (2, 0));
}

/// Fault F03, GAP01.
#[test]
fn inner_rejection_is_no_outcome_of_an_outer_layer_with_bodies() {
    let runtime = ManualRuntime::new();
    let outer = BulkheadConfig::new("outer").failure_threshold(1);
    let outer = Bulkhead::new(outer, runtime.clone()).unwrap();
    let inner = Bulkhead::new(BulkheadConfig::new("inner"), runtime.clone()).unwrap();
    let mut nested = ServiceBuilder::new()
        .layer(BulkheadLayer::new(outer.clone()).hold_until_body_end())
        .layer(BulkheadLayer::new(inner.clone()).hold_until_body_end())
        .service(service_fn(|()| {
            ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))))
        }));
    inner.circuit_breaker().unwrap().open();
    let error = runtime.block_on(nested.call(())).unwrap_err();
    assert!(error.is_rejection());
    assert_eq!(
        (error.http_status(), error.retry_after_seconds()),
        (503, 30)
    );
    let stats = outer.stats();
    assert_eq!(
        (stats.ignored, stats.failed, stats.permits_in_use),
        (1, 0, 0)
    );
    assert!(outer.is_healthy());
}

/// Classifies the head by its status and the trailer `outcome`.
#[derive(Clone)]
struct ByTrailer;

impl<B, E> Classifier<Response<B>, E> for ByTrailer {
    fn classify(&self, result: &Result<Response<B>, E>) -> Outcome {
        match result.as_ref().map(|response| response.status().as_u16()) {
            Ok(404) => Outcome::Ignored,
            Ok(status) if status < 500 => Outcome::Success,
            _ => Outcome::Failure,
        }
    }
}

impl<B, E> BodyClassifier<Response<B>, E> for ByTrailer {
    fn classify_trailers(trailers: &HeaderMap) -> Outcome {
        match trailers["outcome"].to_str().unwrap() {
            "ok" => Outcome::Success,
            "skip" => Outcome::Ignored,
            _ => Outcome::Failure,
        }
    }
}

/// A bulkhead that lists its running calls.
fn tracked(runtime: &ManualRuntime) -> Bulkhead {
    let config = BulkheadConfig::new("body").track_running_calls(true);
    Bulkhead::new(config, runtime.clone()).unwrap()
}

/// Requests a scripted body through the bulkhead.
async fn request(
    bulkhead: &Bulkhead,
    status: u16,
    steps: &'static [Step],
) -> GuardedBody<Scripted> {
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .classify_by(ByTrailer)
        .hold_until_body_end()
        .layer(service_fn(move |()| {
            let response = Response::builder().status(status).body(Scripted {
                steps,
                end_is_known: steps.is_empty(),
            });
            ready(Ok::<_, Infallible>(response.unwrap()))
        }));
    service.call(()).await.unwrap().into_body()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Data,
    /// Data, after which the end of the body is known.
    Last,
    Trailers(&'static str),
    Error,
    Panic,
}

struct Scripted {
    steps: &'static [Step],
    end_is_known: bool,
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let Some((step, rest)) = self.steps.split_first() else {
            return Poll::Ready(None);
        };
        self.steps = rest;
        self.end_is_known = *step == Step::Last;
        Poll::Ready(Some(match step {
            Step::Data | Step::Last => Ok(Frame::data(Bytes::from_static(b"data"))),
            Step::Trailers(outcome) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("outcome", outcome.parse().unwrap());
                Ok(Frame::trailers(trailers))
            }
            Step::Error => Err("broken"),
            Step::Panic => panic!("expected by the test"),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.end_is_known
    }
}

/// How the streams of a server continue after their first chunk.
#[derive(Clone, Copy)]
enum Script {
    Complete,
    BreakOff,
}

/// An axum server whose bodies wait for the test between two chunks.
struct StreamServer {
    url: String,
    bulkhead: Bulkhead,
    gate: Arc<Semaphore>,
    bodies: Arc<AtomicUsize>,
    most_bodies: Arc<AtomicUsize>,
}

struct LiveBody(Arc<AtomicUsize>);

impl Drop for LiveBody {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl StreamServer {
    async fn start(config: BulkheadConfig, script: Script) -> Self {
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let (bodies, most_bodies) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let handler = {
            let (gate, bodies, most) = (gate.clone(), bodies.clone(), most_bodies.clone());
            move || async move {
                let now = bodies.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                let state = (0, LiveBody(bodies), gate);
                Body::from_stream(stream::unfold(
                    state,
                    move |(step, live, gate)| async move {
                        let chunk = match step {
                            0 => Ok("head, "),
                            1 => {
                                gate.acquire().await.unwrap().forget();
                                match script {
                                    Script::Complete => Ok("tail"),
                                    Script::BreakOff => Err(io::Error::other("lost the upstream")),
                                }
                            }
                            _ => return None,
                        };
                        Some((chunk, (step + 1, live, gate)))
                    },
                ))
            }
        };
        let guard = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|error: ServiceError| async move {
                StatusCode::from_u16(error.http_status()).unwrap()
            }))
            .layer(BulkheadLayer::new(bulkhead.clone()).hold_until_body_end());
        let routes = axum::Router::new().route("/", get(handler)).layer(guard);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            url,
            bulkhead,
            gate,
            bodies,
            most_bodies,
        }
    }

    /// Requests a body, whose head has arrived.
    async fn get(&self) -> reqwest::Response {
        within("the head", reqwest::get(&self.url)).await.unwrap()
    }

    /// Waits until as many bodies are in transit, and as many calls wait.
    async fn reach(&self, bodies: usize, waiting: usize) {
        until("bodies in transit and calls that wait", || {
            let reached = self.bodies.load(Ordering::SeqCst);
            (reached, self.bulkhead.stats().waiting) == (bodies, waiting)
        })
        .await;
    }

    /// Waits until no call is active.
    async fn idle(&self) {
        until("no call is active", || self.bulkhead.stats().active == 0).await;
        assert_eq!(self.bulkhead.stats().permits_in_use, 0);
    }
}

/// Reads a chunk, before the end of the body.
async fn next_chunk(response: &mut reqwest::Response) -> reqwest::Result<Bytes> {
    let chunk = within("a chunk", response.chunk()).await;
    chunk.map(|chunk| chunk.expect("the body has not ended"))
}
