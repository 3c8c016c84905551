//! The runtime-agnostic heart of [bulkman](https://docs.rs/bulkman): bulkhead, circuit breaker,
//! manager, and the sharing of circuits, without a runtime and without I/O.
//!
//! Applications depend on `bulkman`, whose front page shows it all. This crate is for those who
//! write a runtime or a store, and for libraries that embed a bulkhead or a circuit breaker and
//! leave the executor to their users: they take an [`Arc<dyn Runtime>`](Runtime), do without one
//! ([`ClockOnly`]), or pass the time themselves
//! ([`try_acquire_at`](CircuitBreaker::try_acquire_at)).
//!
//! ```
//! use bulkman::{Bulkhead, BulkheadConfig, ConfigError, Runtime};
//! use std::sync::Arc;
//!
//! /// A client that runs wherever its user's other code runs.
//! pub struct Client {
//!     bulkhead: Bulkhead,
//! }
//!
//! impl Client {
//!     pub fn new(runtime: Arc<dyn Runtime>) -> Result<Self, ConfigError> {
//!         let config = BulkheadConfig::new("inventory").max_concurrent_calls(20);
//!         Ok(Self { bulkhead: Bulkhead::new(config, runtime)? })
//!     }
//! }
//! # let _ = Client::new(Arc::new(bulkman::runtime::ClockOnly))?;
//! # Ok::<(), ConfigError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
