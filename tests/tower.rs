//! The layer for tower's services: alone, under virtual time, and in a server on a real socket.

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
fn polling_for_readiness_takes_no_permit() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config(), runtime.clone()).unwrap();
    let layer = BulkheadLayer::new(bulkhead.clone());
    // More services that are ready and never called than there are permits and places.
    let mut ready_ones: Vec<_> = (0..5).map(|_| layer.layer(service_fn(echo))).collect();
    for service in &mut ready_ones {
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
    // A future that nobody polls holds nothing either, and the service is still ready.
    let unpolled = ready_ones[0].call(1);
    assert_eq!(runtime.block_on(ready_ones[0].call(2)).unwrap(), 2);
    drop(unpolled);
    assert_eq!(bulkhead.stats().started, 2);
}

#[test]
fn the_inner_service_is_asked_only_with_a_permit_in_hand() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config(), runtime.clone()).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Counting {
        asked: asked.clone(),
    });
    runtime.block_on(async {
        let permit = bulkhead.try_acquire().unwrap();
        let mut waiting = Box::pin(service.call(()));
        assert!(poll_once(&mut waiting).await.is_none());
        let refused = service.call(()).await.unwrap_err();
        assert!(matches!(refused.get(), BulkheadError::Full { .. }));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        permit.succeed();
        waiting.await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_service_that_never_becomes_ready_runs_into_the_deadline() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().run_timeout(SECOND), runtime.clone()).unwrap();
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(NeverReady);
    let error = runtime.block_on(service.call(())).unwrap_err();
    assert!(
        matches!(
            error.get(),
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
fn a_service_that_fails_to_become_ready_is_a_failure() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().failure_threshold(1), runtime.clone()).unwrap();
    let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Broken);
    let error = runtime.block_on(service.call(())).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "not today");
    assert_eq!(error.http_status(), 502);
    let refused = runtime.block_on(service.call(())).unwrap_err();
    assert!(
        matches!(refused.get(), BulkheadError::CircuitOpen { .. }),
        "{refused}"
    );
    assert_eq!(refused.retry_after_seconds(), 30);
}

#[test]
fn responses_and_errors_are_classified() {
    let runtime = ManualRuntime::new();
    let bulkhead = Bulkhead::new(config().failure_threshold(100), runtime.clone()).unwrap();
    let answer = |status: Result<u16, std::fmt::Error>| ready(status);
    let mut by_status = BulkheadLayer::new(bulkhead.clone())
        .classify_status(|status: &u16| *status)
        .layer(service_fn(answer));
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
            "a response stays a response"
        );
        assert_eq!(bulkhead.stats().failed, failed, "{status:?}");
    }
    let mut by_hand = BulkheadLayer::new(bulkhead.clone())
        .classify(|result: &Result<u16, std::fmt::Error>| match result {
            Ok(429) => Outcome::Failure,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Ignored,
        })
        .layer(service_fn(answer));
    let _ = runtime.block_on(by_hand.call(Ok(429)));
    let _ = runtime.block_on(by_hand.call(Err(std::fmt::Error)));
    assert_eq!((bulkhead.stats().failed, bulkhead.stats().ignored), (4, 1));
}

#[test]
fn the_error_is_one_type_that_goes_into_a_box_and_is_found_there() {
    let runtime = ManualRuntime::new();
    let outer = Bulkhead::new(BulkheadConfig::new("outer"), runtime.clone()).unwrap();
    let inner = Bulkhead::new(BulkheadConfig::new("inner"), runtime.clone()).unwrap();
    // Two bulkheads, one inside of the other, around a service whose errors are boxes already.
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
    let refused = runtime.block_on(service.call(())).unwrap_err();
    // The inner refusal is an error of the outer one's operation.
    let BulkheadError::Operation(refusal) = refused.into_inner() else {
        panic!("not the inner one's")
    };
    let refusal = refusal.downcast::<ServiceError>().unwrap();
    assert!(
        refusal.is_rejection() && refusal.to_string().contains("inner"),
        "{refusal}"
    );
    assert_eq!(
        (refusal.retry_after(), refusal.retry_after_seconds()),
        (None, 1)
    );
}

#[test]
fn statuses_and_seconds_of_every_error() {
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
fn the_service_and_its_future_can_be_sent_to_other_threads() {
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
async fn under_load_the_limit_holds_and_refusals_wait_for_nothing() {
    let house = House::open(
        BulkheadConfig::new("load")
            .max_concurrent_calls(4)
            .max_queue_size(3),
    )
    .await;
    let client = reqwest::Client::new();
    let requests: Vec<_> = (0..64)
        .map(|_| tokio::spawn(client.get(&house.url).send()))
        .collect();

    // All refusals arrive while those that were let in still hold their permits.
    let (mut refused, mut held) = (Vec::new(), Vec::new());
    while house.bulkhead.stats().rejected.full < 57 || house.inside() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!((house.inside(), house.bulkhead.stats().waiting), (4, 3));
    // Answered in any order, so each is given the time to come in.
    let mut requests = futures_util::stream::FuturesUnordered::from_iter(requests);
    while refused.len() < 57 {
        let answer = futures_util::StreamExt::next(&mut requests)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        refused.push(answer);
    }
    assert_eq!(house.inside(), 4, "nobody has left meanwhile");

    house.doors.add_permits(64);
    while let Some(answer) = futures_util::StreamExt::next(&mut requests).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        held.push(answer);
    }
    assert_eq!((held.len(), house.most()), (7, 4));
    let stats = house.bulkhead.stats();
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
async fn a_client_that_hangs_up_frees_its_permit() {
    let house = House::open(BulkheadConfig::new("hang up").max_concurrent_calls(1)).await;
    let request = tokio::spawn(reqwest::Client::new().get(&house.url).send());
    while house.inside() == 0 {
        tokio::task::yield_now().await;
    }
    request.abort();
    let permit = house.bulkhead.acquire().await.unwrap();
    assert_eq!(
        house.bulkhead.stats().cancelled,
        1,
        "which says nothing about the backend"
    );
    permit.succeed();
}

#[tokio::test]
async fn a_server_that_only_says_500_is_isolated_and_comes_back() {
    let isolation = Duration::from_millis(100);
    let config = BulkheadConfig::new("moody")
        .failure_threshold(3)
        .success_threshold(1)
        .isolation_duration(isolation);
    let house = House::open(config).await;
    house.doors.add_permits(100);
    house.status.store(500, Ordering::SeqCst);
    let client = reqwest::Client::new();
    let ask = || async {
        client
            .get(&house.url)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for _ in 0..3 {
        assert_eq!(ask().await, 500, "the answer itself passes");
    }
    let begin = ClockOnly.now();
    assert_eq!(ask().await, 503);
    assert_eq!(house.bulkhead.stats().started, 3);
    house.status.store(200, Ordering::SeqCst);
    // The isolation is real time here: the server's own clock.
    while ask().await == 503 {
        assert!(ClockOnly.now() - begin < 100 * isolation);
    }
    assert_eq!(ask().await, 200);
    assert!(house.bulkhead.is_healthy());
}

/// A web server with a bulkhead and a handler that opens its doors when it is told to.
struct House {
    url: String,
    bulkhead: Bulkhead,
    doors: Arc<Semaphore>,
    status: Arc<AtomicU64>,
    counts: Arc<(AtomicU64, AtomicU64)>,
}

impl House {
    async fn open(config: BulkheadConfig) -> Self {
        let bulkhead = Bulkhead::new(config, TokioRuntime::new()).unwrap();
        let (doors, status) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(200)));
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let handler = {
            let (doors, status, counts) = (doors.clone(), status.clone(), counts.clone());
            move || async move {
                let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
                counts.1.fetch_max(now, Ordering::SeqCst);
                doors.acquire().await.unwrap().forget();
                counts.0.fetch_sub(1, Ordering::SeqCst);
                StatusCode::from_u16(status.load(Ordering::SeqCst) as u16).unwrap()
            }
        };
        let guard = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(refuse))
            .layer(
                BulkheadLayer::new(bulkhead.clone())
                    .classify_status(|answer: &Response| answer.status().as_u16()),
            );
        let routes = axum::Router::new().route("/", get(handler)).layer(guard);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            url,
            bulkhead,
            doors,
            status,
            counts,
        }
    }

    fn inside(&self) -> u64 {
        self.counts.0.load(Ordering::SeqCst)
    }

    fn most(&self) -> u64 {
        self.counts.1.load(Ordering::SeqCst)
    }
}

async fn refuse(error: ServiceError) -> Response {
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
    futures_lite::future::block_on(poll_once(future)).expect("ready at once")
}

/// Counts how often it is asked whether it is ready.
#[derive(Clone)]
struct Counting {
    asked: Arc<AtomicU64>,
}

impl Service<()> for Counting {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
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
        panic!("called without being ready")
    }
}

#[derive(Clone)]
struct Broken;

impl Service<()> for Broken {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("not today".into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        panic!("called without being ready")
    }
}

mod grpc {
    //! A client of tonic's whose channel is behind a bulkhead.

    use std::error::Error;
    use std::future::{Ready, ready};

    use bulkman::testing::ManualRuntime;
    use bulkman::tower::{BulkheadLayer, ServiceError};
    use bulkman::{Bulkhead, BulkheadConfig};
    use tonic::body::Body;
    use tonic::client::Grpc;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
    use tonic::codegen::http::{Request, Response, uri::PathAndQuery};
    use tonic::{Code, Status};
    use tower::{Layer, service_fn};

    #[test]
    fn what_a_guarded_channel_refuses_is_found_in_the_status() {
        let runtime = ManualRuntime::new();
        let config = BulkheadConfig::new("greeter").failure_threshold(1);
        let bulkhead = Bulkhead::new(config, runtime.clone()).unwrap();
        let channel = BulkheadLayer::new(bulkhead.clone()).layer(service_fn(unreachable));
        // As in a client that tonic has generated.
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
                "tonic's word for an error of others"
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
        let told = "bulkhead \"greeter\" refused the call: circuit is open, retry in 30s";
        assert_eq!(error(&greet()), Some((true, told.into(), 30)));
        assert_eq!(bulkhead.stats().started, 1);
    }

    fn unreachable(_: Request<Body>) -> Ready<Result<Response<Body>, std::io::Error>> {
        ready(Err(std::io::Error::other("unreachable")))
    }

    /// Messages without content.
    struct Nothing;

    impl Codec for Nothing {
        type Encode = ();
        type Decode = ();
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            Self
        }

        fn decoder(&mut self) -> Self {
            Self
        }
    }

    impl Encoder for Nothing {
        type Item = ();
        type Error = Status;

        fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
            Ok(())
        }
    }

    impl Decoder for Nothing {
        type Item = ();
        type Error = Status;

        fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
            Ok(Some(()))
        }
    }
}
