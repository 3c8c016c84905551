//! A server and its load over time.

use std::fmt::Debug;

use crate::SERVICE_TIME;
use crate::random::Random;

/// A server and its load over time. Times are in seconds from the start.
pub trait Scenario: Debug + Sync {
    /// Returns the name of the scenario.
    fn name(&self) -> &'static str;

    /// Returns how long the scenario lasts.
    fn length(&self) -> f64 {
        60.0
    }

    /// Returns the arrivals a second, of all clients together.
    fn rate(&self, now: f64) -> f64 {
        let _ = now;
        1500.0
    }

    /// Returns the number of workers.
    fn workers(&self, now: f64) -> u64 {
        let _ = now;
        20
    }

    /// Returns the factor on the service time of calls that begin service now.
    fn slowness(&self, now: f64) -> f64 {
        let _ = now;
        1.0
    }

    /// Returns `true` if calls that start now never end.
    fn hangs(&self, now: f64) -> bool {
        let _ = now;
        false
    }

    /// Returns the number of calls on the server from which it rejects calls, within 1 ms.
    fn rejects_from(&self, now: f64) -> Option<u64> {
        let _ = now;
        None
    }

    /// Draws a service time.
    fn service_time(&self, now: f64, random: &mut Random) -> f64 {
        self.slowness(now) * random.log_normal(SERVICE_TIME.ln() - 0.045, 0.3)
    }
}
