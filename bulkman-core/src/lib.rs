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
//! use bulkman_core::{Bulkhead, BulkheadConfig, ConfigError, Runtime};
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
//!         Ok(Self { bulkhead: Bulkhead::with_runtime(config, runtime)? })
//!     }
//! }
//! # let _ = Client::new(Arc::new(bulkman_core::ClockOnly))?;
//! # Ok::<(), ConfigError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod adaptive;
mod blocking;
mod broadcast;
mod bulkhead;
mod bulkhead_state;
mod call;
mod circuit_breaker;
mod classified;
mod classify;
mod config;
mod deadlines;
mod drained;
mod error;
mod execute;
mod execute_sync;
pub mod fleet;
mod guard;
mod health_check;
mod manager;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod name;
mod observe;
mod outcome;
mod permit;
mod queue;
mod rejection;
mod report;
mod runtime;
mod snapshot;
mod span;
mod stats;
pub mod store;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "serde")]
mod text;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod unwind;
mod wake;
mod with_bulkhead;

pub use blocking::ExecuteBlocking;
pub use bulkhead::Bulkhead;
pub use bulkhead_state::BulkheadState;
pub use call::Call;
pub use circuit_breaker::{
    Admission, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerSettings, CircuitCounts, CircuitError,
    CircuitEvent, CircuitEvents, CircuitSnapshot, CircuitState, HalfOpenExpiry, Isolation, IsolationBackoff,
    Refusals, SlidingWindow, Transition, TransitionCause, Trial,
};
pub use classified::Classified;
pub use classify::{ByResult, Classifier};
pub use config::BulkheadConfig;
pub use drained::Drained;
pub use error::{BulkheadError, CircuitOpen, ConfigError, OpenReason, Phase};
pub use execute::Execute;
pub use fleet::Fleet;
pub use manager::{AppliedConfig, BulkheadManager, ExecuteInBulkhead, ManagerConfig, ManagerError};
pub use name::Name;
pub use outcome::Outcome;
pub use permit::{Acquire, Permit};
pub use queue::{Priority, QueueOrder};
pub use report::{ExecutionReport, Report};
pub use runtime::{BoxFuture, Capabilities, ClockOnly, Runtime, Sleep};
pub use snapshot::{BulkheadSnapshot, CircuitStatus, ManagerSnapshot, PastTransition};
pub use stats::{BulkheadStats, Rejections};
pub use store::{CircuitStore, MemoryStore, StoreError, StoreSession, StoreSettings};
pub use with_bulkhead::WithBulkhead;
