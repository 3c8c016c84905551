//! What a bulkhead does, on every runtime.
//!
//! Each behaviour is written once, against a [`Stage`](stage::Stage), and instantiated by
//! [`on_every_runtime!`](on_every_runtime) for Tokio's two schedulers and for smol. The clock is
//! virtual throughout; nothing sleeps, and a test that hangs fails.

#[path = "behaviour/stage.rs"]
#[macro_use]
mod stage;
#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "behaviour/work.rs"]
mod work;

#[path = "behaviour/admission.rs"]
mod admission;
#[path = "behaviour/blocking.rs"]
mod blocking;
#[path = "behaviour/cancellation.rs"]
mod cancellation;
#[path = "behaviour/circuit.rs"]
mod circuit;
#[path = "behaviour/health_check.rs"]
mod health_check;
#[path = "behaviour/manager.rs"]
mod manager;
#[path = "behaviour/probes.rs"]
mod probes;
#[path = "behaviour/queue.rs"]
mod queue;
#[path = "behaviour/resize.rs"]
mod resize;
#[path = "behaviour/shutdown.rs"]
mod shutdown;
#[path = "behaviour/statistics.rs"]
mod statistics;
#[path = "behaviour/timeout.rs"]
mod timeout;
#[path = "behaviour/waiting.rs"]
mod waiting;
