//! A simulated server that compares rules for adaptive concurrency limits.
//!
//! Time is virtual and random numbers are seeded, so a run is exactly repeatable on a busy machine.
//!
//! * The server has workers and an unbounded first-in-first-out queue. It continues to work on
//!   calls that the client has timed out, as servers do.
//! * Arrivals are an open-loop Poisson process. A call above the limit is rejected at once. There
//!   is no queue in the client, so only the rules are compared.
//! * The client's timeout is one second. A timeout is an overload, and so is a rejection by the
//!   server.
//!
//! The yardstick is the number of responses within 100 ms, relative to an [oracle](Oracle) that
//! reads the number of workers at every moment. The oracle has the lowest latency, not the highest
//! throughput, because a short queue keeps workers busy. So values above one are possible.
//!
//! The rules of other systems in [`peers`] are implementations of their published descriptions,
//! with their default constants.
//!
//! ```
//! use bulkman_limitsim::{Bulkman, Simulation, scenarios::STEADY};
//!
//! let run = Simulation::new(&STEADY, 7).run(vec![Box::new(Bulkman::default())]);
//! assert!(run.in_time_per_second > 900.0);
//! ```
#![forbid(unsafe_code)]

mod bulkman;
pub mod compare;
mod fixed;
mod limiter;
mod observed;
mod oracle;
pub mod peers;
mod random;
mod run;
mod scenario;
pub mod scenarios;
mod simulation;
pub mod trace;

pub use bulkman::Bulkman;
pub use fixed::Fixed;
pub use limiter::{EndedCall, Limiter, Outcome};
pub use observed::Observed;
pub use oracle::Oracle;
pub use random::Random;
pub use run::Run;
pub use scenario::Scenario;
pub use simulation::Simulation;

/// The mean service time, in seconds.
pub const SERVICE_TIME: f64 = 0.020;
/// The client's timeout for a running call, in seconds.
pub const TIMEOUT: f64 = 1.0;
/// The latency up to which a response is in time, in seconds.
pub const IN_TIME: f64 = 0.100;
