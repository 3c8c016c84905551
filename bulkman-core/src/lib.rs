//! The runtime-agnostic heart of bulkman.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod broadcast;
mod circuit_breaker;
mod error;
mod name;
mod outcome;
mod runtime;
pub mod store;
mod sync;
#[cfg(feature = "test-util")]
pub mod testing;
mod wake;

pub use circuit_breaker::{
    Admission, CircuitBreaker, CircuitBreakerConfig, CircuitBreakerSettings, CircuitCounts, CircuitError,
    CircuitEvent, CircuitEvents, CircuitSnapshot, CircuitState, HalfOpenExpiry, Isolation, IsolationBackoff,
    Refusals, SlidingWindow, Transition, TransitionCause, Trial,
};
pub use error::{BulkheadError, CircuitOpen, ConfigError, OpenReason, Phase};
pub use name::Name;
pub use outcome::Outcome;
pub use runtime::{BoxFuture, Capabilities, ClockOnly, Runtime, Sleep};
pub use store::{CircuitStore, MemoryStore, StoreError, StoreSession, StoreSettings};
