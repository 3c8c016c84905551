//! The tower layer: alone, under virtual time, and in a server on a real socket.

#[path = "support/nothing.rs"]
mod nothing;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Pending, Ready, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bulkman::bulkhead::Fairness;
use bulkman::error::TimeoutPhase;
use bulkman::runtime::ClockOnly;
use bulkman::testing::ManualRuntime;
use bulkman::tower::{BoxError, BulkheadLayer, BulkheadService, ServiceError};
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Outcome, Runtime, TokioRuntime};
use futures_lite::future::poll_once;
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceBuilder, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> BulkheadConfig {
    BulkheadConfig::new("api")
        .max_concurrent_calls(1)
        .max_queue_size(1)
}

#[test]
fn poll_ready_acquires_no_permit() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config(), runtime.clone()).unwrap();
    let layer = BulkheadLayer::new(bulkhead.clone());
    // More services are ready than there are permits and queue capacity.
    let mut services: Vec<_> = (0..5).map(|_| layer.layer(service_fn(echo))).collect();
    for service in &mut services {
        for _ in 0..3 {
            assert!(poll_ready(service).is_ready());
        }
    }
    assert_eq!(
        (bulkhead.stats().permits_in_use, bulkhead.stats().waiting),
        (0, 0)
    );
    assert_eq!(
        runtime
            .block_on(layer.layer(service_fn(echo)).call(7))
            .unwrap(),
        7
    );
    // A future that is never polled holds nothing, and the service is still ready.
    let unpolled = services[0].call(1);
    assert_eq!(runtime.block_on(services[0].call(2)).unwrap(), 2);
    drop(unpolled);
    assert_eq!(bulkhead.stats().started, 2);
}

#[test]
fn inner_service_is_polled_only_with_a_permit() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config(), runtime.clone()).unwrap();
    let polls = Arc::new(AtomicU64::new(0));
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Counting {
        polls: polls.clone(),
    });
    runtime.block_on(async {
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiting = Box::pin(service.call(()));
        assert!(poll_once(&mut waiting).await.is_none());
        let rejected = service.call(()).await.unwrap_err();
        assert!(matches!(rejected.as_error(), BulkheadError::Full { .. }));
        assert_eq!(polls.load(Ordering::SeqCst), 0);
        permit.succeed();
        waiting.await.unwrap();
        assert_eq!(polls.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn service_that_never_becomes_ready_times_out() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().run_timeout(SECOND), runtime.clone()).unwrap();
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(NeverReady);
    let error = runtime.block_on(service.call(())).unwrap_err();
    assert!(
        matches!(
            error.as_error(),
            BulkheadError::Timeout {
                phase: TimeoutPhase::Running,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.http_status(), 504);
    assert_eq!(
        (bulkhead.stats().failed, bulkhead.stats().permits_in_use),
        (1, 0)
    );
}

#[test]
fn failing_readiness_counts_as_failure() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().failure_threshold(1), runtime.clone()).unwrap();
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Broken);
    let error = runtime.block_on(service.call(())).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "out of service");
    assert_eq!(error.http_status(), 502);
    let rejected = runtime.block_on(service.call(())).unwrap_err();
    assert!(
        matches!(rejected.as_error(), BulkheadError::CircuitOpen { .. }),
        "{rejected}"
    );
    assert_eq!(rejected.retry_after_seconds(), 30);
}

#[test]
fn responses_and_errors_are_classified() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().failure_threshold(100), runtime.clone()).unwrap();
    let response = |status: Result<u16, std::fmt::Error>| ready(status);
    let mut by_status = BulkheadLayer::new(bulkhead.clone())
        .classify_status(|status: &u16| *status)
        .layer(service_fn(response));
    for (status, failed) in [
        (Ok(200), 0),
        (Ok(404), 0),
        (Ok(499), 0),
        (Ok(500), 1),
        (Ok(599), 2),
        (Err(std::fmt::Error), 3),
    ] {
        let result = runtime.block_on(by_status.call(status));
        assert_eq!(
            result.is_ok(),
            status.is_ok(),
            "a response that counts as a failure is still returned"
        );
        assert_eq!(bulkhead.stats().failed, failed, "{status:?}");
    }
    let mut by_result = BulkheadLayer::new(bulkhead.clone())
        .classify(|result: &Result<u16, std::fmt::Error>| match result {
            Ok(429) => Outcome::Failure,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Ignored,
        })
        .layer(service_fn(response));
    let _ = runtime.block_on(by_result.call(Ok(429)));
    let _ = runtime.block_on(by_result.call(Err(std::fmt::Error)));
    assert_eq!((bulkhead.stats().failed, bulkhead.stats().ignored), (4, 1));
}

#[test]
fn service_error_can_be_downcast_from_a_box() {
    let runtime = ManualRuntime::new();
    let outer = Bulkhead::new(BulkheadConfig::new("outer"), runtime.clone()).unwrap();
    let inner = Bulkhead::new(BulkheadConfig::new("inner"), runtime.clone()).unwrap();
    // Two nested bulkheads around a service whose errors are boxes already.
    let mut service = ServiceBuilder::new()
        .layer(BulkheadLayer::new(outer.clone()))
        .map_err(BoxError::from)
        .layer(BulkheadLayer::new(inner.clone()))
        .service(service_fn(|(): ()| {
            ready(Err::<(), BoxError>("down".into()))
        }));
    let error: BoxError = runtime.block_on(service.call(())).unwrap_err().into();
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    assert_eq!(texts, ["operation failed", "operation failed", "down"]);
    assert!(
        error
            .downcast_ref::<ServiceError>()
            .is_some_and(|error| !error.is_rejection())
    );

    inner.circuit_breaker().unwrap().force_open();
    let rejected = runtime.block_on(service.call(())).unwrap_err();
    // The inner rejection is an error of the outer one's operation.
    let BulkheadError::Operation(rejection) = rejected.into_inner() else {
        panic!("not an error of the inner bulkhead")
    };
    let rejection = rejection.downcast::<ServiceError>().unwrap();
    assert!(
        rejection.is_rejection() && rejection.to_string().contains("inner"),
        "{rejection}"
    );
    assert_eq!(
        (rejection.retry_after(), rejection.retry_after_seconds()),
        (None, 1)
    );
}

#[test]
fn errors_have_http_status_and_retry_after() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(
        config().isolation_duration(Duration::from_millis(1500)),
        runtime.clone(),
    )
    .unwrap();
    let status = |error: BulkheadError<()>| (error.http_status(), error.retry_after_seconds());
    let work = || ready(Ok::<_, ()>(()));
    runtime.block_on(async {
        let permit = bulkhead.try_acquire().unwrap();
        let queued = bulkhead
            .call()
            .max_wait(SECOND)
            .execute(work())
            .await
            .unwrap_err();
        assert_eq!(status(queued), (503, 1));
        let full = bulkhead
            .call()
            .max_wait(Duration::ZERO)
            .execute(work())
            .await
            .unwrap_err();
        assert_eq!(status(full), (503, 1));
        drop(permit);
        let running = bulkhead
            .call()
            .timeout(SECOND)
            .execute(pending::<Result<(), ()>>())
            .await
            .unwrap_err();
        assert_eq!(status(running), (504, 1));
        assert_eq!(
            status(bulkhead.execute(ready(Err::<(), _>(()))).await.unwrap_err()),
            (502, 1)
        );
        let panics =
            bulkhead.execute_blocking(|| -> Result<(), ()> { panic!("expected by the test") });
        assert_eq!(status(panics.await.unwrap_err()), (500, 1));
        bulkhead.circuit_breaker().unwrap().open();
        assert_eq!(
            status(bulkhead.execute(work()).await.unwrap_err()),
            (503, 2),
            "rounded up"
        );
        runtime.advance(Duration::from_millis(500));
        assert_eq!(
            status(bulkhead.execute(work()).await.unwrap_err()),
            (503, 1)
        );
        bulkhead.circuit_breaker().unwrap().close();
        bulkhead.shutdown();
        assert_eq!(
            status(bulkhead.execute(work()).await.unwrap_err()),
            (503, 1)
        );
    });
    let embedded = Bulkhead::new(config(), ClockOnly).unwrap();
    let unsupported = poll_now(embedded.call().timeout(SECOND).execute(work())).unwrap_err();
    assert_eq!(status(unsupported), (500, 1));
}

#[test]
fn service_and_future_are_send() {
    fn assert_send<T: Send>(_: &T) {}
    fn assert_service<S: Service<u32, Error = ServiceError> + Clone + Send + Sync + 'static>(
        _: &S,
    ) {
    }
    let bulkhead = Bulkhead::new(config(), ClockOnly).unwrap();
    let mut service = BulkheadLayer::new(bulkhead).layer(service_fn(echo));
    assert_service(&service);
    assert_send(&service.call(1));
}

#[tokio::test]
async fn rejections_are_immediate_and_the_limit_holds_under_load() {
    let server = TestServer::start(
        BulkheadConfig::new("load")
            .max_concurrent_calls(4)
            .max_queue_size(3),
    )
    .await;
    let client = reqwest::Client::new();
    let requests: Vec<_> = (0..64)
        .map(|_| tokio::spawn(client.get(&server.url).send()))
        .collect();

    // All rejections arrive while the admitted calls hold their permits.
    let (mut rejected, mut admitted) = (Vec::new(), Vec::new());
    while server.bulkhead.stats().rejected.full < 57 || server.active() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!((server.active(), server.bulkhead.stats().waiting), (4, 3));
    // The responses arrive in any order.
    let mut requests = futures_util::stream::FuturesUnordered::from_iter(requests);
    while rejected.len() < 57 {
        let response = futures_util::StreamExt::next(&mut requests)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        rejected.push(response);
    }
    assert_eq!(server.active(), 4, "no admitted call has ended");

    server.responses.add_permits(64);
    while let Some(response) = futures_util::StreamExt::next(&mut requests).await {
        let response = response.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        admitted.push(response);
    }
    assert_eq!((admitted.len(), server.max_active()), (7, 4));
    let stats = server.bulkhead.stats();
    assert_eq!(
        (
            stats.successful,
            stats.rejected.total(),
            stats.permits_in_use
        ),
        (7, 57, 0)
    );
}

#[tokio::test]
async fn disconnected_client_releases_its_permit() {
    let server = TestServer::start(BulkheadConfig::new("disconnect").max_concurrent_calls(1)).await;
    let request = tokio::spawn(reqwest::Client::new().get(&server.url).send());
    while server.active() == 0 {
        tokio::task::yield_now().await;
    }
    request.abort();
    let permit = server.bulkhead.acquire().await.unwrap();
    assert_eq!(
        server.bulkhead.stats().cancelled,
        1,
        "a cancelled call does not count toward the circuit"
    );
    permit.succeed();
}

#[tokio::test]
async fn server_with_only_500_responses_is_isolated_and_recovers() {
    let isolation = Duration::from_millis(100);
    let config = BulkheadConfig::new("failing")
        .failure_threshold(3)
        .success_threshold(1)
        .isolation_duration(isolation);
    let server = TestServer::start(config).await;
    server.responses.add_permits(100);
    server.status.store(500, Ordering::SeqCst);
    let client = reqwest::Client::new();
    let request_status = || async {
        client
            .get(&server.url)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for _ in 0..3 {
        assert_eq!(request_status().await, 500, "the response is passed on");
    }
    let begin = ClockOnly.now();
    assert_eq!(request_status().await, 503);
    assert_eq!(server.bulkhead.stats().started, 3);
    server.status.store(200, Ordering::SeqCst);
    // The isolation is measured in real time here.
    while request_status().await == 503 {
        assert!(ClockOnly.now() - begin < 100 * isolation);
    }
    assert_eq!(request_status().await, 200);
    assert!(server.bulkhead.is_healthy());
}

/// A web server with a bulkhead, whose handler responds when the test permits it.
struct TestServer {
    url: String,
    bulkhead: Bulkhead,
    responses: Arc<Semaphore>,
    status: Arc<AtomicU64>,
    counts: Arc<(AtomicU64, AtomicU64)>,
}

impl TestServer {
    async fn start(config: BulkheadConfig) -> Self {
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        let (responses, status) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(200)));
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let handler = {
            let (responses, status, counts) = (responses.clone(), status.clone(), counts.clone());
            move || async move {
                let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
                counts.1.fetch_max(now, Ordering::SeqCst);
                responses.acquire().await.unwrap().forget();
                counts.0.fetch_sub(1, Ordering::SeqCst);
                StatusCode::from_u16(status.load(Ordering::SeqCst) as u16).unwrap()
            }
        };
        let guard = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(into_response))
            .layer(
                BulkheadLayer::new(bulkhead.clone())
                    .classify_status(|response: &Response| response.status().as_u16()),
            );
        let routes = axum::Router::new().route("/", get(handler)).layer(guard);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            url,
            bulkhead,
            responses,
            status,
            counts,
        }
    }

    fn active(&self) -> u64 {
        self.counts.0.load(Ordering::SeqCst)
    }

    fn max_active(&self) -> u64 {
        self.counts.1.load(Ordering::SeqCst)
    }
}

async fn into_response(error: ServiceError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap();
    (
        status,
        [(header::RETRY_AFTER, error.retry_after_seconds().to_string())],
    )
        .into_response()
}

fn echo(request: u32) -> Ready<Result<u32, Infallible>> {
    ready(Ok(request))
}

fn poll_ready<S: Service<u32>, C>(service: &mut BulkheadService<S, C>) -> Poll<()>
where
    BulkheadService<S, C>: Service<u32>,
{
    service
        .poll_ready(&mut Context::from_waker(Waker::noop()))
        .map(|_| ())
}

fn poll_now<F: Future>(future: F) -> F::Output {
    futures_lite::future::block_on(poll_once(future)).expect("completes at its first poll")
}

/// Counts the calls of `poll_ready`.
#[derive(Clone)]
struct Counting {
    polls: Arc<AtomicU64>,
}

impl Service<()> for Counting {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[derive(Clone)]
struct NeverReady;

impl Service<()> for NeverReady {
    type Response = ();
    type Error = Infallible;
    type Future = Pending<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        panic!("called before it was ready")
    }
}

#[derive(Clone)]
struct Broken;

impl Service<()> for Broken {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("out of service".into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        panic!("called before it was ready")
    }
}

mod grpc {
    //! A tonic client with a channel behind a bulkhead.

    use std::error::Error;
    use std::future::{Ready, ready};

    use bulkman::testing::ManualRuntime;
    use bulkman::tower::{BulkheadLayer, ServiceError};
    use bulkman::{Bulkhead, BulkheadConfig};
    use tonic::body::Body;
    use tonic::client::Grpc;
    use tonic::codegen::http::{Request, Response, uri::PathAndQuery};
    use tonic::{Code, Status};
    use tower::{Layer, service_fn};

    use crate::nothing::Nothing;

    #[test]
    fn tonic_status_contains_the_service_error() {
        let runtime = ManualRuntime::new();
        let config = BulkheadConfig::new("greeter").failure_threshold(1);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        let channel = BulkheadLayer::new(bulkhead.clone()).layer(service_fn(unreachable));
        // As in a client that is generated by tonic.
        let mut client = Grpc::new(channel);
        let mut greet = || {
            runtime.block_on(async {
                client.ready().await.unwrap();
                let path = PathAndQuery::from_static("/greeter/greet");
                client
                    .unary(tonic::Request::new(()), path, Nothing)
                    .await
                    .unwrap_err()
            })
        };
        let error = |status: &Status| {
            assert_eq!(
                status.code(),
                Code::Unknown,
                "tonic maps foreign errors to Unknown"
            );
            let source = status
                .source()
                .and_then(|source| source.downcast_ref::<ServiceError>());
            source.map(|error| {
                (
                    error.is_rejection(),
                    error.to_string(),
                    error.retry_after_seconds(),
                )
            })
        };
        assert_eq!(error(&greet()), Some((false, "operation failed".into(), 1)));
        let message = "bulkhead \"greeter\" rejected the call: circuit is open, retry in 30s";
        assert_eq!(error(&greet()), Some((true, message.into(), 30)));
        assert_eq!(bulkhead.stats().started, 1);
    }

    fn unreachable(_: Request<Body>) -> Ready<Result<Response<Body>, std::io::Error>> {
        ready(Err(std::io::Error::other("unreachable")))
    }
}

/// Fault F03.
#[test]
fn inner_rejection_is_a_rejection_and_no_outcome_of_the_outer_bulkhead() {
    let runtime = ManualRuntime::new();
    let outer = BulkheadConfig::new("outer").failure_threshold(1);
    let outer = Bulkhead::new(outer, runtime.clone()).unwrap();
    let inner = BulkheadConfig::new("inner").failure_threshold(1);
    let inner = Bulkhead::new(inner, runtime.clone()).unwrap();
    let down = || service_fn(|(): ()| ready(Err::<(), BoxError>("down".into())));
    let mut direct = ServiceBuilder::new()
        .layer(BulkheadLayer::new(outer.clone()))
        .layer(BulkheadLayer::new(inner.clone()))
        .service(down());
    let mut boxed = ServiceBuilder::new()
        .layer(BulkheadLayer::new(outer.clone()))
        .map_err(|error: ServiceError| -> BoxError { std::io::Error::other(error).into() })
        .layer(BulkheadLayer::new(inner.clone()))
        .service(down());

    inner.circuit_breaker().unwrap().open();
    runtime.advance(Duration::from_secs(10));
    let check = |error: ServiceError| {
        assert!(error.is_rejection(), "{error:?}");
        assert_eq!(
            (error.http_status(), error.retry_after_seconds()),
            (503, 20)
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
        assert!(outer.is_healthy() && outer.retry_after().is_none());
    };
    for _ in 0..3 {
        check(runtime.block_on(direct.call(())).unwrap_err());
        check(runtime.block_on(boxed.call(())).unwrap_err());
    }
    assert_eq!((outer.stats().ignored, outer.stats().failed), (6, 0));

    // A failure of the dependency itself still counts for both.
    inner.circuit_breaker().unwrap().close();
    let failed = runtime.block_on(direct.call(())).unwrap_err();
    assert!(!failed.is_rejection());
    assert_eq!((failed.http_status(), outer.stats().failed), (502, 1));
    assert!(outer.retry_after().is_some());
}

struct Query {
    tenant: &'static str,
    rows: u32,
}

#[test]
fn weight_and_key_come_from_the_request() {
    let runtime = ManualRuntime::new();
    let config = BulkheadConfig::new("api")
        .max_concurrent_calls(4)
        .fairness(Fairness::new().max_per_key(3));
    let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
    let inside = bulkhead.clone();
    let query = move |query: Query| {
        let (keys, stats) = (inside.snapshot().keys, inside.stats());
        async move { Ok::<_, Infallible>((query.tenant, keys[0].key, stats.permits_in_use)) }
    };
    let mut service = BulkheadLayer::new(bulkhead.clone())
        .key(|query: &Query| query.tenant)
        .key_share(|query: &Query| if query.tenant == "gold" { 4 } else { 1 })
        .weight(|query: &Query| query.rows.div_ceil(1_000))
        .layer(service_fn(query));
    let call = |tenant, rows| Query { tenant, rows };
    let answer = runtime.block_on(service.call(call("gold", 2_500))).unwrap();
    assert_eq!(answer, ("gold", Some(bulkhead.call_key("gold")), 3));
    let error = runtime
        .block_on(service.call(call("gold", 3_500)))
        .unwrap_err();
    assert_eq!(error.http_status(), 413);
    assert_eq!(bulkhead.stats().permits_in_use, 0);
}
