#![doc = include_str!("../README.md")]
#![doc = "\n\n# The guide\n\n"]
#![doc = "[Limits](guide::limits) · [adaptive limits](guide::adaptive_limits) · [fair shares](guide::fair_shares) · [thresholds](guide::thresholds) · [configuration](guide::configuration) · [retries](guide::retries) · [order of layers](guide::ordering) · [testing](guide::testing) · [monitoring](guide::monitoring) · [fleets](guide::fleet) · [operating a fleet](guide::operating_a_fleet) · [streams](guide::streams) · [executors](guide::executors) · [errors](guide::errors)"]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

pub use bulkman_core::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, CircuitBreakerConfig,
    ConfigError, Outcome, Permit, Priority, QueueOrder, Runtime,
};
pub use bulkman_core::{
    adaptive, bulkhead, call, circuit_breaker, error, fleet, future, manager, runtime, snapshot,
    store,
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
