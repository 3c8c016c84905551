//! A tonic client and a tonic server over a socket, each behind a bulkhead.

#[path = "support/nothing.rs"]
mod nothing;
#[path = "support/until.rs"]
mod until;

use std::convert::Infallible;
use std::time::Duration;

use bulkman::call::Classifier;
use bulkman::tower::{BulkheadLayer, GrpcClassifier, GrpcRejectionLayer};
use bulkman::{Bulkhead, BulkheadConfig, Outcome, TokioRuntime};
use futures_util::stream::{self, BoxStream};
use nothing::Nothing;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{self, Request};
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use until::{until, within};

const PUSHBACK: &str = "grpc-retry-pushback-ms";

fn bulkhead(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, TokioRuntime::new()).unwrap()
}

/// Fault GAP02.
#[tokio::test]
async fn rejections_of_a_server_have_a_grpc_status() {
    let config = BulkheadConfig::new("greeter")
        .max_concurrent_calls(1)
        .max_queue_size(0)
        .isolation_duration(Duration::from_secs(30));
    let server = bulkhead(config);
    let channel = serve(Some(server.clone())).await;
    assert!(call(channel.clone(), UNARY, Code::Ok).await.is_ok());

    let permit = server.try_acquire().unwrap();
    let full = call(channel.clone(), UNARY, Code::Ok).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("\"greeter\""), "{full}");
    assert!(!full.metadata().contains_key(PUSHBACK), "clients back off");
    permit.succeed();

    server.circuit_breaker().unwrap().open();
    let open = call(channel.clone(), STREAM, Code::Ok).await.unwrap_err();
    assert_eq!(open.code(), Code::Unavailable);
    let pushback = open.metadata().get(PUSHBACK).unwrap().to_str().unwrap();
    let pushback: u64 = pushback.parse().unwrap();
    assert!((1..=30_000).contains(&pushback), "{pushback}");
    server.circuit_breaker().unwrap().close();

    assert!(call(channel.clone(), STREAM, Code::Ok).await.is_ok());
    server.shutdown();
    let shutdown = call(channel.clone(), UNARY, Code::Ok).await.unwrap_err();
    assert_eq!(shutdown.code(), Code::Unavailable);
    assert!(!shutdown.metadata().contains_key(PUSHBACK));
}

/// Fault GAP02.
#[tokio::test]
async fn timeouts_of_a_server_have_a_grpc_status() {
    let config = BulkheadConfig::new("greeter")
        .max_concurrent_calls(1)
        .max_wait(Duration::from_millis(1))
        .run_timeout(Duration::from_millis(1));
    let server = bulkhead(config);
    let channel = serve(Some(server.clone())).await;
    let late = call(channel.clone(), HANG, Code::Ok).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let _busy = server.try_acquire().unwrap();
    let queued = call(channel.clone(), UNARY, Code::Ok).await.unwrap_err();
    assert_eq!(queued.code(), Code::ResourceExhausted);
}

/// Fault F03, GAP02.
#[tokio::test]
async fn rejection_by_an_inner_bulkhead_has_a_grpc_status() {
    let outer = bulkhead(BulkheadConfig::new("outer").failure_threshold(1));
    let inner = bulkhead(
        BulkheadConfig::new("inner")
            .max_queue_size(0)
            .max_concurrent_calls(1),
    );
    let busy = inner.try_acquire().unwrap();
    let mut service = ServiceBuilder::new()
        .layer(GrpcRejectionLayer)
        .layer(BulkheadLayer::new(outer.clone()).classify_grpc())
        .layer(BulkheadLayer::new(inner.clone()))
        .service(service_fn(|()| {
            std::future::ready(Err::<http::Response<String>, _>("down"))
        }));
    let full = within("a rejection", service.call(())).await.unwrap();
    assert_eq!(full.headers()["grpc-status"], "8");
    assert_eq!((outer.stats().ignored, outer.stats().failed), (1, 0));
    busy.succeed();
    // An error of the service itself is left to the server.
    assert!(within("an error", service.call(())).await.is_err());
    assert_eq!((outer.stats().ignored, outer.stats().failed), (1, 1));
}

/// Fault F03, GAP02.
#[tokio::test]
async fn converted_inner_rejection_has_a_grpc_status() {
    let outer = bulkhead(BulkheadConfig::new("outer").failure_threshold(1));
    let inner = bulkhead(BulkheadConfig::new("inner"));
    inner.shutdown();
    let mut service = ServiceBuilder::new()
        .layer(GrpcRejectionLayer)
        .layer(BulkheadLayer::new(outer.clone()).classify_grpc())
        .service(service_fn(move |()| {
            let call = inner
                .clone()
                .execute_owned(std::future::ready(Ok::<_, std::fmt::Error>(
                    http::Response::new(String::new()),
                )));
            async { call.await.map_err(std::io::Error::other) }
        }));
    let rejected = within("a rejection", service.call(())).await.unwrap();
    assert_eq!(rejected.headers()["grpc-status"], "14");
    assert_eq!((outer.stats().ignored, outer.stats().failed), (1, 0));
}

/// Fault GAP03.
#[tokio::test]
async fn each_grpc_status_has_its_outcome_in_a_client() {
    let channel = serve(None).await;
    let failures = [
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
    ];
    for code in (0..=16).map(Code::from_i32) {
        // A unary call that fails has its status in the headers, a stream in its trailers.
        for path in [UNARY, STREAM] {
            let client = bulkhead(BulkheadConfig::new("client"));
            let service = BulkheadLayer::new(client.clone())
                .classify_grpc()
                .hold_until_body_end()
                .layer(channel.clone());
            let result = call(service, path, code).await;
            assert_eq!(
                result
                    .map_err(|status| status.code())
                    .err()
                    .unwrap_or(Code::Ok),
                code
            );
            let stats = client.stats();
            let expected = match code {
                Code::Cancelled => (0, 0, 1),
                code if failures.contains(&code) => (0, 1, 0),
                _ => (1, 0, 0),
            };
            let observed = (stats.successful, stats.failed, stats.ignored);
            assert_eq!(observed, expected, "{code:?} of {path}");
            assert_eq!((stats.active, stats.permits_in_use), (0, 0));
        }
    }
}

/// Fault GAP03.
#[tokio::test]
async fn grpc_status_in_headers_needs_no_body() {
    let channel = serve(None).await;
    let client = bulkhead(BulkheadConfig::new("client").failure_threshold(1));
    let service = BulkheadLayer::new(client.clone())
        .classify_grpc()
        .layer(channel.clone());
    // Without `hold_until_body_end`, the trailers of a stream are not read.
    let status = call(service.clone(), STREAM, Code::Unavailable)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(client.stats().successful, 1);
    let status = call(service.clone(), UNARY, Code::Unavailable)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(client.stats().failed, 1);
    assert!(!client.is_healthy());
}

/// Fault GAP03.
#[tokio::test]
async fn grpc_status_of_handlers_counts_in_a_server() {
    let server = bulkhead(BulkheadConfig::new("greeter").failure_threshold(100));
    let channel = serve(Some(server.clone())).await;
    for (path, code, failed) in [
        (UNARY, Code::NotFound, 0),
        (UNARY, Code::Internal, 1),
        (STREAM, Code::NotFound, 1),
        (STREAM, Code::Internal, 2),
    ] {
        assert_eq!(
            call(channel.clone(), path, code).await.unwrap_err().code(),
            code
        );
        // The body is dropped after the client has received its trailers.
        until("no call is active", || server.stats().active == 0).await;
        assert_eq!(server.stats().failed, failed, "{path} {code:?}");
    }
    assert_eq!(server.stats().successful, 2);
}

/// Fault GAP03.
#[test]
fn responses_without_a_grpc_status_count_by_http_status() {
    let classify = |status: u16, grpc: Option<&str>| {
        let mut response = http::Response::builder().status(status);
        if let Some(grpc) = grpc {
            response = response.header("grpc-status", grpc);
        }
        GrpcClassifier.classify(&Ok::<_, Infallible>(response.body(()).unwrap()))
    };
    assert_eq!(classify(200, None), Outcome::Success);
    // A proxy responds for a server that is down.
    assert_eq!(classify(503, None), Outcome::Failure);
    assert_eq!(classify(404, None), Outcome::Failure);
    for unknown in ["", "x", "17", "-1", "99999999999"] {
        assert_eq!(
            classify(200, Some(unknown)),
            Outcome::Failure,
            "{unknown:?}"
        );
    }
    let error = GrpcClassifier.classify(&Err::<http::Response<()>, _>("no connection"));
    assert_eq!(error, Outcome::Failure);
}

const UNARY: &str = "/greeter/unary";
const STREAM: &str = "/greeter/stream";
const HANG: &str = "/greeter/hang";

/// Calls a method that ends with `code`, and reads its responses to the end.
async fn call<S>(service: S, path: &'static str, code: Code) -> Result<(), Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError>,
{
    within(path, call_unbounded(service, path, code)).await
}

async fn call_unbounded<S>(service: S, path: &'static str, code: Code) -> Result<(), Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError>,
{
    let mut client = Grpc::new(service);
    assert!(client.ready().await.is_ok());
    let mut request = tonic::Request::new(());
    request.metadata_mut().insert("code", (code as i32).into());
    let path = PathAndQuery::from_static(path);
    if path == STREAM {
        let response = client.server_streaming(request, path, Nothing).await?;
        let mut messages = response.into_inner();
        while messages.message().await?.is_some() {}
    } else {
        client.unary(request, path, Nothing).await?;
    }
    Ok(())
}

/// A tonic server whose methods end with the status that the client requests.
async fn serve(bulkhead: Option<Bulkhead>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let incoming = TcpIncoming::from(listener);
    match bulkhead {
        None => tokio::spawn(
            Server::builder()
                .add_service(Greeter)
                .serve_with_incoming(incoming),
        ),
        Some(bulkhead) => {
            let layer = BulkheadLayer::new(bulkhead)
                .classify_grpc()
                .hold_until_body_end();
            let mut server = Server::builder().layer(GrpcRejectionLayer).layer(layer);
            tokio::spawn(server.add_service(Greeter).serve_with_incoming(incoming))
        }
    };
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

#[derive(Clone)]
struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "greeter";
}

impl Service<Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Nothing);
            Ok(match request.uri().path() {
                UNARY => grpc.unary(service_fn(unary), request).await,
                STREAM => grpc.server_streaming(service_fn(streaming), request).await,
                _ => std::future::pending().await,
            })
        })
    }
}

fn requested(request: &tonic::Request<()>) -> Result<(), Status> {
    let code = request.metadata().get("code").unwrap().to_str().unwrap();
    match Code::from_i32(code.parse().unwrap()) {
        Code::Ok => Ok(()),
        code => Err(Status::new(code, "as requested")),
    }
}

async fn unary(request: tonic::Request<()>) -> Result<tonic::Response<()>, Status> {
    requested(&request).map(tonic::Response::new)
}

/// Streams one message before it ends.
async fn streaming(
    request: tonic::Request<()>,
) -> Result<tonic::Response<BoxStream<'static, Result<(), Status>>>, Status> {
    let end = requested(&request).err().map(Err);
    let messages = stream::iter(std::iter::once(Ok(())).chain(end));
    Ok(tonic::Response::new(Box::pin(messages)))
}
