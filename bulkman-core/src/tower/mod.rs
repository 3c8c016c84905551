//! A bulkhead as middleware: [`BulkheadLayer`] and [`BulkheadService`] for any
//! [`tower_service::Service`].
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
//! let bulkhead = Bulkhead::new(BulkheadConfig::new("greeter").max_queue_size(0), runtime.clone())?;
//! let mut service = BulkheadLayer::new(bulkhead.clone()).layer(Greeter);
//! assert_eq!(runtime.block_on(service.call("world")).unwrap(), "hello, world");
//!
//! bulkhead.shutdown();
//! let refused = runtime.block_on(service.call("world")).unwrap_err();
//! assert!(refused.is_rejection());
//! assert_eq!(refused.http_status(), 503);
//! # Ok::<(), bulkman::ConfigError>(())
//! ```
//!
//! # Nothing is taken before `call`
//!
//! `poll_ready` always says yes and takes nothing; the future that `call` returns waits for a
//! permit first, and then for the inner service to be ready. A permit taken in `poll_ready` would
//! be held by whoever polled and went away, or polled several services to use one of them, and
//! such permits have locked up whole systems. In return the bulkhead exerts no *back-pressure*
//! through `poll_ready`: a caller learns from the answer that the bulkhead is full, and a
//! balancer outside of it can't see that it is.
//!
//! The time until the inner service is ready belongs to the run, under its deadline, and a service
//! that fails to become ready counts as a failure. The inner service is cloned for each call, as
//! services that are shared between requests are anyway.
//!
//! # What a call is
//!
//! A call ends when the inner service's future does. For HTTP that is when the response's head is
//! there: its permit is given back while the body may still be on its way, and a body that breaks
//! off is no failure. Where bodies are what costs, collect them inside of the bulkhead.
//!
//! # What becomes of its errors
//!
//! [`ServiceError`] is one type that goes into the boxes that others want: axum's `HandleErrorLayer`
//! hands it to a function that answers (503 and `Retry-After`, by its methods), hyper ends the
//! connection with it, and a client of tonic's finds it as the `source` of a `Status` whose code
//! is `Unknown`: `status.source()?.downcast_ref::<ServiceError>()`.
//!
//! # Which answers are failures
//!
//! By default an error is a failure and a response a success, which for HTTP means that a server
//! that only says 500 is doing fine. [`classify_status`](BulkheadLayer::classify_status)
//! makes 5xx failures; [`classify`](BulkheadLayer::classify) decides by anything.

mod error;
mod layer;
mod oneshot;
mod response_future;
mod service;
mod status;

pub use self::error::{BoxError, ServiceError};
pub use self::layer::BulkheadLayer;
pub use self::response_future::ResponseFuture;
pub use self::service::BulkheadService;
pub use self::status::StatusClassifier;
