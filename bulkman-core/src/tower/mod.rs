//! Middleware that adds a bulkhead to any [`tower_service::Service`].
//!
//! [`BulkheadLayer`] creates [`BulkheadService`]s.
//!
//! ```
//! use std::convert::Infallible;
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//!
//! use bulkman::testing::ManualRuntime;
//! use bulkman::tower::BulkheadLayer;
//! use bulkman::{Bulkhead, BulkheadConfig};
//! use tower_layer::Layer;
//! use tower_service::Service;
//!
//! #[derive(Clone)]
//! struct Greeter;
//!
//! impl Service<&'static str> for Greeter {
//!     type Response = String;
//!     type Error = Infallible;
//!     type Future = Ready<Result<String, Infallible>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, name: &'static str) -> Self::Future {
//!         ready(Ok(format!("hello, {name}")))
//!     }
//! }
//!
//! let runtime = ManualRuntime::new();
//! let config = BulkheadConfig::new("greeter").max_queue_size(0);
//! let bulkhead = Bulkhead::new(config, runtime.clone())?;
//! let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Greeter);
//! assert_eq!(
//!     runtime.block_on(service.call("world")).unwrap(),
//!     "hello, world"
//! );
//!
//! bulkhead.shutdown();
//! let rejected = runtime.block_on(service.call("world")).unwrap_err();
//! assert!(rejected.is_rejection());
//! assert_eq!(rejected.http_status(), 503);
//! # Ok::<(), bulkman::ConfigError>(())
//! ```
//!
//! # No permit is acquired in `poll_ready`
//!
//! `poll_ready` always returns ready and acquires nothing. The future that `call` returns waits for
//! a permit first, and then for the inner service to become ready. A permit that is acquired in
//! `poll_ready` is held even if the caller never calls, or polls several services to call one of
//! them. Such permits can deadlock a system. In return, the bulkhead exerts no *back-pressure*
//! through `poll_ready`: a caller learns from the response that the bulkhead is full, and a load
//! balancer in front of it can't detect that it is.
//!
//! The time until the inner service is ready is part of the run, under its deadline. A service
//! that fails to become ready counts as a failure. The inner service is cloned for each call.
//!
//! # When a call ends
//!
//! A call ends when the future of the inner service completes. For HTTP, this is when the head of
//! the response is available. Its permit is released while the body may still be in transit, and a
//! body that breaks off is not a failure. If the bodies are the expensive part, use
//! `BulkheadLayer::hold_until_body_end` of the feature `http`: the call then lasts until the body
//! has ended or is dropped.
//!
//! # Errors
//!
//! [`ServiceError`] is one type that converts to the boxed errors of other crates:
//!
//! * axum's `HandleErrorLayer` passes it to a function that creates a response. Its methods provide
//!   the status and `Retry-After`.
//! * hyper closes the connection with it.
//! * A client of tonic receives it as the `source` of a `Status` whose code is `Unknown`:
//!   `status.source()?.downcast_ref::<ServiceError>()`.
//! * A server of tonic resets the stream with it. `GrpcRejectionLayer` of the feature `http` responds
//!   with `UNAVAILABLE` or `RESOURCE_EXHAUSTED` instead.
//!
//! # Failures
//!
//! By default an error is a failure and a response is a success. For HTTP, this means that a server
//! that always responds with 500 is considered healthy.
//! [`classify_status`](BulkheadLayer::classify_status) counts 5xx as failures;
//! [`classify`](BulkheadLayer::classify) decides by any property of the result. For gRPC,
//! `BulkheadLayer::classify_grpc` of the feature `http` reads `grpc-status`.

#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod body_layer;
mod classifier;
pub mod future;
#[cfg(feature = "http")]
mod grpc;
mod layer;
mod oneshot;
mod service;
mod settings;
mod status;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::body::GuardedBody;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::body_layer::{BodyClassifier, BodyLayer, BodyService};
pub use self::classifier::RejectionAware;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::grpc::{GrpcClassifier, GrpcRejectionLayer, GrpcRejectionService};
pub use self::layer::BulkheadLayer;
pub use self::service::BulkheadService;
pub use self::settings::{CallSettings, NoSettings, WithKey, WithKeyShare, WithWeight};
pub use self::status::StatusClassifier;
pub use crate::error::BoxError;

/// The error of [`BulkheadService`]: a rejection by the bulkhead, or an error of the inner service.
pub type ServiceError = crate::error::BoxedError;
