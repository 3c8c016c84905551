//! A concurrency limit that adapts to the capacity of a dependency.
//!
//! A fixed limit fits one capacity only. It rejects calls that a larger dependency could serve, and
//! it queues calls inside a smaller one. The adaptive limit stays between a minimum and the fixed
//! maximum, and follows the capacity.
//!
//! Latency alone cannot distinguish a slower dependency from a queue in front of it. So the rule
//! uses three signals, in this order:
//!
//! 1. Explicit overload: timeouts, and responses that request less load.
//! 2. Latency against a *baseline*, the latency while the dependency has no queue. The rule
//!    measures the baseline at a tenth of the limit when no window has confirmed it for a while.
//! 3. Throughput. Every change of the limit is an experiment that the next window evaluates.
//!
//! The parts are pure: time is an argument, and nothing locks, waits or draws random numbers.
//!
//! ```text
//!  start, end of calls        closed window            adjustment
//! ─────────────────────▶ WindowCollector ─────▶ LimitRule ─────▶ new limit
//!                              ▲                    │
//!                              └── sample cap, limit, quiet time
//! ```
//!
//! [`LimitController`] joins the two for one thread. A bulkhead with
//! [`adaptive_limit`](crate::BulkheadConfig::adaptive_limit) keeps the counters of a window in
//! atomics, asks [`WindowPolicy`] when the window is complete, and passes it to [`LimitRule`] under
//! a lock.
//!
//! # When not to use it
//!
//! * The dependency shows no queue by its latency and never reports overload.
//! * Fewer than about six calls a second end. Windows then take longer than the capacity stays the
//!   same.
//! * Very different kinds of calls share one limit. Use one bulkhead for each kind.

mod adjustment;
mod change;
mod collector;
mod config;
mod controller;
mod driver;
mod enforcement;
mod policy;
#[cfg(feature = "serde")]
mod repr;
mod rule;
mod settings;
mod status;
mod validate;
mod window;

pub use adjustment::{LimitAdjustment, LimitChangeCause};
pub use change::{LimitChange, LimitChanges, LimitEvent};
pub use collector::WindowCollector;
pub use config::AdaptiveLimit;
pub use controller::{Decision, LimitController};
pub(crate) use driver::{
    DriverConfig, LimitDecision, LimitDriver, LimitOutcome, Mark, Marks, SampleMask,
};
pub use enforcement::Enforcement;
pub use policy::WindowPolicy;
#[cfg(feature = "serde")]
pub(crate) use repr::AdaptiveLimitRepr;
pub use rule::LimitRule;
pub use settings::LimitSettings;
pub use status::LimitStatus;
pub use window::ClosedWindow;
