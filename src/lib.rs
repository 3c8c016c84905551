// Of two definitions of a link the first one counts: here links lead to this very version, while
// the README's own serve readers elsewhere.
//! [`Bulkhead`]: crate::Bulkhead
//! [`BulkheadConfig`]: crate::BulkheadConfig
//! [`BulkheadError`]: crate::BulkheadError
//! [`BulkheadManager`]: crate::BulkheadManager
//! [`CircuitBreaker`]: crate::CircuitBreaker
//! [`CircuitBreakerConfig`]: crate::CircuitBreakerConfig
//! [`CircuitStore`]: crate::store::CircuitStore
//! [`ClockOnly`]: crate::runtime::ClockOnly
//! [`Fleet`]: crate::fleet::Fleet
//! [`MemoryStore`]: crate::store::MemoryStore
//! [`Permit`]: crate::Permit
//! [`Runtime`]: crate::Runtime
//! [guide]: crate::guide
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

pub use bulkman_core::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, CircuitBreakerConfig,
    ConfigError, Outcome, Permit, Priority, QueueOrder, Runtime,
};
pub use bulkman_core::{
    bulkhead, call, circuit_breaker, error, fleet, future, manager, runtime, snapshot, store,
};

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use bulkman_core::metrics;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use bulkman_core::tower;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use bulkman_core::{store_conformance, testing};

#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use bulkman_postgres as postgres;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use bulkman_smol::SmolRuntime;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use bulkman_tokio::TokioRuntime;
