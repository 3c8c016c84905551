//! gRPC: classification by status, and rejections as a status.

use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::ServiceError;
use super::body_layer::BodyClassifier;
use super::future::GrpcRejectionFuture;
use crate::call::classifier::Classifier;
use crate::call::outcome::Outcome;
use crate::error::BulkheadError;

/// A classifier that counts gRPC calls by their `grpc-status`.
///
/// Created by [`classify_grpc`](super::BulkheadLayer::classify_grpc). A gRPC server responds with
/// the HTTP status 200 to calls that fail. The status of the call is in the trailers, or in the
/// headers of a response without a body.
///
/// | status | outcome |
/// | --- | --- |
/// | `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS` | failure: errors of the server, as in OpenTelemetry's conventions |
/// | `RESOURCE_EXHAUSTED` | failure: an overloaded server responds with it |
/// | `CANCELLED` | ignored: the client has ended the call |
/// | `OK` and all others | success: the server works, and the request was at fault |
///
/// A value that is not a status counts as `UNKNOWN`. Without `grpc-status`, a response with an HTTP
/// status other than 2xx is a failure. An error of the service is a failure.
///
/// Only [`hold_until_body_end`](super::BulkheadLayer::hold_until_body_end) reads trailers. Without
/// it, a call that fails after its first message counts as a success. A body without `grpc-status`
/// in its trailers counts as its head does.
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::Classifier;
/// use bulkman::tower::GrpcClassifier;
/// use http::Response;
///
/// let response = Response::builder().header("grpc-status", "14").body(()).unwrap();
/// let result: Result<_, std::io::Error> = Ok(response);
/// assert_eq!(GrpcClassifier.classify(&result), Outcome::Failure);
/// ```
#[cfg(feature = "http")] // for the badge in crates that re-export it
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcClassifier;

impl<B, E> Classifier<Response<B>, E> for GrpcClassifier {
    fn classify(&self, result: &Result<Response<B>, E>) -> Outcome {
        match result {
            Ok(response) => classify_status(response.headers()).unwrap_or_else(|| {
                if response.status().is_success() {
                    Outcome::Success
                } else {
                    Outcome::Failure
                }
            }),
            Err(_) => Outcome::Failure,
        }
    }
}

impl<B, E> BodyClassifier<Response<B>, E> for GrpcClassifier {
    fn classify_trailers(trailers: &HeaderMap) -> Outcome {
        classify_status(trailers).unwrap_or(Outcome::Success)
    }
}

/// Classifies `grpc-status`, if it is there.
fn classify_status(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get(GRPC_STATUS)?.to_str().ok();
    let code = status.and_then(|status| status.parse().ok());
    Some(match code.unwrap_or(UNKNOWN) {
        CANCELLED => Outcome::Ignored,
        UNKNOWN | DEADLINE_EXCEEDED | RESOURCE_EXHAUSTED | UNIMPLEMENTED | INTERNAL
        | UNAVAILABLE | DATA_LOSS => Outcome::Failure,
        0..=16 => Outcome::Success,
        _ => Outcome::Failure,
    })
}

/// A layer that turns the rejections of a bulkhead into gRPC responses.
///
/// It belongs outside of the bulkhead in a gRPC server. Without it, a rejection resets the stream,
/// and the client receives `INTERNAL` or `UNKNOWN` without a reason.
///
/// | error | status |
/// | --- | --- |
/// | circuit open, shutdown | `UNAVAILABLE` |
/// | full, timeout in the queue, weight too large | `RESOURCE_EXHAUSTED` |
/// | timeout of the call while it ran | `DEADLINE_EXCEEDED` |
/// | missing capability of the runtime | `INTERNAL` |
///
/// A rejection by a bulkhead within the service is treated alike. Any other error of the inner
/// service stays an error.
///
/// If the time until the next attempt is known, it is in `grpc-retry-pushback-ms`, rounded up. The
/// retries that are built into the clients of gRPC honor it, and it needs no message format.
/// Without it they use their own backoff. A full bulkhead sets none, because the backoff of clients
/// has jitter and a common hint would synchronize them.
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::tower::{BulkheadLayer, GrpcRejectionLayer};
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use http::{Request, Response};
/// use tower::{Service, ServiceBuilder, service_fn};
///
/// let runtime = ManualRuntime::new();
/// let config = BulkheadConfig::new("greeter").max_concurrent_calls(1).max_queue_size(0);
/// let bulkhead = Bulkhead::new(config, runtime.clone())?;
/// // As in tonic: `Server::builder().layer(GrpcRejectionLayer).layer(BulkheadLayer::new(..))`.
/// let mut server = ServiceBuilder::new()
///     .layer(GrpcRejectionLayer)
///     .layer(BulkheadLayer::new(bulkhead.clone()).classify_grpc())
///     .service(service_fn(async |_: Request<()>| {
///         Ok::<_, std::io::Error>(Response::new(String::new()))
///     }));
/// let _busy = bulkhead.try_acquire().unwrap();
/// let response = runtime.block_on(server.call(Request::new(()))).unwrap();
/// assert_eq!(response.headers()["grpc-status"], "8");           // RESOURCE_EXHAUSTED
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[cfg(feature = "http")] // for the badge in crates that re-export it
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcRejectionLayer;

impl<S> Layer<S> for GrpcRejectionLayer {
    type Service = GrpcRejectionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcRejectionService { inner }
    }
}

/// A service that turns the rejections of a bulkhead into gRPC responses.
///
/// Created by [`GrpcRejectionLayer`].
#[cfg(feature = "http")] // for the badge in crates that re-export it
#[derive(Clone, Debug)]
pub struct GrpcRejectionService<S> {
    inner: S,
}

impl<S, R, B> Service<R> for GrpcRejectionService<S>
where
    S: Service<R, Response = Response<B>, Error = ServiceError>,
    B: Default,
{
    type Response = Response<B>;
    type Error = ServiceError;
    type Future = GrpcRejectionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        GrpcRejectionFuture {
            response: self.inner.call(request),
        }
    }
}

/// Returns the response to an error of the bulkhead. `None`: it is an error of the service.
pub(super) fn rejection_response<B: Default>(error: &ServiceError) -> Option<Response<B>> {
    // A rejection by a bulkhead within the service is a rejection as well.
    let code = match error.effective() {
        BulkheadError::Operation(_) if error.is_rejection() => UNAVAILABLE,
        BulkheadError::Operation(_) => return None,
        BulkheadError::Full { .. } | BulkheadError::WeightTooLarge { .. } => RESOURCE_EXHAUSTED,
        BulkheadError::CircuitOpen { .. } | BulkheadError::Shutdown { .. } => UNAVAILABLE,
        BulkheadError::Timeout { .. } if error.is_rejection() => RESOURCE_EXHAUSTED,
        BulkheadError::Timeout { .. } => DEADLINE_EXCEEDED,
        _ => INTERNAL,
    };
    // A response without a body: its headers are its trailers.
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    if let Ok(message) = HeaderValue::try_from(percent_encode(&error.to_string())) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if let Some(retry_after) = error.retry_after() {
        headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(millis(retry_after)));
    }
    Some(response)
}

/// Rounds up to milliseconds, so that no client is early. Clients read a 32-bit number.
fn millis(duration: Duration) -> u32 {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    u32::try_from(millis).map_or(i32::MAX as u32, |millis| millis.min(i32::MAX as u32))
}

/// Encodes a message as the protocol requires: printable ASCII, without `%`.
fn percent_encode(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                encoded.push('%');
                encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
                encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
    encoded
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const DATA_LOSS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("100 % \"ü\"\n"), "100 %25 \"%C3%BC\"%0A");
    }

    #[test]
    fn pushback_is_rounded_up_and_fits() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(1_500), 2),
            (Duration::MAX, i32::MAX as u32),
        ];
        for (duration, expected) in cases {
            assert_eq!(millis(duration), expected, "{duration:?}");
        }
    }
}
