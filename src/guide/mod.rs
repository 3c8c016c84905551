//! How to use it well: choosing limits and thresholds, what to do about retries, what goes around
//! what, how to test it, and what each error means.
//!
//! Pages to read, not an interface. Their code is run with the library's tests.
//!
//! * [`limits`]: how many calls may run, and how many may wait;
//! * [`thresholds`]: when a circuit should open, and for how long;
//! * [`retries`]: trying again without making it worse;
//! * [`ordering`]: bulkheads among timeouts, rate limits, caches and fallbacks;
//! * [`testing`]: your settings under a virtual clock;
//! * [`errors`]: what each error tells the caller.

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("thresholds.md")]
pub mod thresholds {}

#[doc = include_str!("retries.md")]
pub mod retries {}

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("errors.md")]
pub mod errors {}
