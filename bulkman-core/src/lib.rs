//! The runtime-independent part of [bulkman](https://docs.rs/bulkman): bulkhead, circuit breaker,
//! manager and fleet.
//!
//! Applications should depend on the crate `bulkman`, which re-exports this crate and adds the
//! runtimes. Depend on this crate directly to write:
//!
//! * a runtime: implement [`Runtime`] for an executor;
//! * a store: implement [`CircuitStore`](store::CircuitStore), through which processes share their
//!   circuits;
//! * a library that contains a bulkhead or a circuit breaker and does not choose the executor. It
//!   can accept an [`Arc<dyn Runtime>`](Runtime) as below, use the clock only
//!   ([`ClockOnly`](runtime::ClockOnly)), or pass the time as an argument
//!   ([`try_acquire_at`](CircuitBreaker::try_acquire_at)).
//!
//! This crate contains no executor and performs no I/O.
//!
//! # Platforms
//!
//! It runs wherever [`std::time::Instant`] has a clock, which includes `wasm32-wasip1` and
//! `wasm32-wasip2`. On `wasm32-unknown-unknown` there is none, and the crate does not compile.
//!
//! ```
//! use bulkman::{Bulkhead, BulkheadConfig, ConfigError, Runtime};
//! use std::sync::Arc;
//!
//! /// A client that runs on the executor of its user.
//! pub struct Client {
//!     bulkhead: Bulkhead,
//! }
//!
//! impl Client {
//!     pub fn new(runtime: Arc<dyn Runtime>) -> Result<Self, ConfigError> {
//!         let config = BulkheadConfig::new("inventory").max_concurrent_calls(20);
//!         Ok(Self {
//!             bulkhead: Bulkhead::new(config, runtime)?,
//!         })
//!     }
//! }
//! # let _ = Client::new(Arc::new(bulkman::runtime::ClockOnly))?;
//! # Ok::<(), ConfigError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// `Instant::now` panics there, and no `Runtime` can create an `Instant` in another way.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
compile_error!(
    "bulkman needs `std::time::Instant`, which has no clock on wasm32-unknown-unknown; \
     wasm32-wasip1 and wasm32-wasip2 are supported"
);

pub mod adaptive;
pub mod bulkhead;
pub mod call;
pub mod circuit_breaker;
mod config_error;
pub mod error;
pub mod fleet;
pub mod future;
#[cfg(feature = "serde")]
mod human_duration;
pub mod manager;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod name;
mod observe;
mod queue;
mod random;
pub mod runtime;
#[cfg(feature = "serde")]
mod seconds;
#[cfg(feature = "serde")]
mod setting;
pub mod snapshot;
pub mod store;
mod sync;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod testing;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;

pub use bulkhead::{Bulkhead, BulkheadConfig};
pub use call::{Outcome, Permit};
pub use circuit_breaker::{CircuitBreaker, CircuitBreakerConfig};
pub use config_error::ConfigError;
pub use error::BulkheadError;
pub use manager::BulkheadManager;
pub use queue::{Priority, QueueOrder};
pub use runtime::Runtime;

/// Tests the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExample;
