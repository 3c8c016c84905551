// Of two definitions of a link the first one counts: here links lead to this very version, while
// the README's own serve readers elsewhere.
//! [`Bulkhead`]: crate::Bulkhead
//! [`BulkheadConfig`]: crate::BulkheadConfig
//! [`BulkheadError`]: crate::BulkheadError
//! [`BulkheadManager`]: crate::BulkheadManager
//! [`CircuitBreaker`]: crate::CircuitBreaker
//! [`CircuitBreakerConfig`]: crate::CircuitBreakerConfig
//! [`CircuitStore`]: crate::CircuitStore
//! [`ClockOnly`]: crate::ClockOnly
//! [`Fleet`]: crate::Fleet
//! [`MemoryStore`]: crate::MemoryStore
//! [`Permit`]: crate::Permit
//! [`Runtime`]: crate::Runtime
//! [guide]: crate::guide
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

pub use bulkman_core::*;

#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use bulkman_postgres as postgres;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use bulkman_smol::SmolRuntime;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use bulkman_tokio::TokioRuntime;
