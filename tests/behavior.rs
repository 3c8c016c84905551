//! What a bulkhead does, on every runtime.
//!
//! Each behavior is written once, against a [`Harness`](harness::Harness), and instantiated by
//! [`on_every_runtime!`](on_every_runtime) for Tokio's two schedulers and for smol. The clock is
//! virtual throughout; nothing sleeps, and a test that hangs fails.

#[path = "behavior/harness.rs"]
#[macro_use]
mod harness;
#[path = "behavior/operations.rs"]
mod operations;
#[path = "support/watchdog.rs"]
mod watchdog;

#[path = "behavior/admission.rs"]
mod admission;
#[path = "behavior/blocking.rs"]
mod blocking;
#[path = "behavior/cancellation.rs"]
mod cancellation;
#[path = "behavior/circuit.rs"]
mod circuit;
#[path = "behavior/health_check.rs"]
mod health_check;
#[path = "behavior/manager.rs"]
mod manager;
#[path = "behavior/probes.rs"]
mod probes;
#[path = "behavior/queue.rs"]
mod queue;
#[path = "behavior/resize.rs"]
mod resize;
#[path = "behavior/shutdown.rs"]
mod shutdown;
#[path = "behavior/statistics.rs"]
mod statistics;
#[path = "behavior/timeout.rs"]
mod timeout;
#[path = "behavior/waiting.rs"]
mod waiting;
