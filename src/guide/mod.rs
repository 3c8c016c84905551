//! A guide to choosing limits and thresholds, to retries, layering, testing and errors.
//!
//! These modules are pages to read and contain no items. Their code runs with the library's tests.
//!
//! * [`limits`]: how many calls may run, and how many may wait;
//! * [`adaptive_limits`]: a limit that follows the capacity of the dependency;
//! * [`fair_shares`]: sharing permits between tenants;
//! * [`thresholds`]: when a circuit should open, and for how long;
//! * [`configuration`]: settings in code and in files;
//! * [`retries`]: retrying without making an outage worse;
//! * [`ordering`]: bulkheads among timeouts, rate limits, caches and fallbacks;
//! * [`testing`]: testing your settings with a virtual clock;
//! * [`monitoring`]: what operators can see, and how;
//! * [`fleet`]: sharing circuits between processes;
//! * [`operating_a_fleet`]: its database: roles, commands, alerts;
//! * [`streams`]: calls that last until a stream has ended;
//! * [`executors`]: the runtime for each executor, and the platforms;
//! * [`errors`]: what each error means to the caller.

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("adaptive_limits.md")]
pub mod adaptive_limits {}

#[doc = include_str!("fair_shares.md")]
pub mod fair_shares {}

#[doc = include_str!("thresholds.md")]
pub mod thresholds {}

#[doc = include_str!("retries.md")]
pub mod retries {}

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("monitoring.md")]
pub mod monitoring {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("operating_a_fleet.md")]
pub mod operating_a_fleet {}

#[doc = include_str!("streams.md")]
pub mod streams {}

#[doc = include_str!("executors.md")]
pub mod executors {}

#[doc = include_str!("errors.md")]
pub mod errors {}
