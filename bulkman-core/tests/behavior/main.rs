//! What a bulkhead does, on every runtime.
//!
//! Each behavior is written once, against a [`Harness`](harness::Harness), and instantiated by
//! [`on_every_runtime!`](on_every_runtime) for Tokio's two schedulers and for smol. The clock is
//! virtual throughout; nothing sleeps, and a test that hangs fails.

#[macro_use]
mod harness;
mod operations;
#[path = "../support/watchdog.rs"]
mod watchdog;

mod admission;
mod blocking;
mod cancellation;
mod circuit;
mod health_check;
mod inner_rejections;
mod key_names;
mod keys;
mod manager;
mod probes;
mod queue;
mod resize;
mod shutdown;
mod statistics;
mod timeout;
mod waiting;
mod weights;
