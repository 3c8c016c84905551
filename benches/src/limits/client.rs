//! A bulkhead as a client of the server that is simulated in virtual time.

use std::collections::HashMap;
use std::time::Duration;

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, Outcome, Permit};
use bulkman_limitsim::{EndedCall, Limiter, Random};

/// A bulkhead with an adaptive limit on a virtual clock. Its calls are permits.
#[derive(Debug)]
pub(crate) struct Client {
    bulkhead: Bulkhead,
    runtime: ManualRuntime,
    /// By the bits of the time at which they started.
    running: HashMap<u64, Vec<Permit>>,
}

impl Client {
    pub(crate) fn new(maximum: usize, adaptive: AdaptiveLimit) -> Self {
        let runtime = ManualRuntime::new();
        let config = config(maximum, adaptive);
        Self {
            bulkhead: Bulkhead::new(config, runtime.clone()).expect("a valid configuration"),
            runtime,
            running: HashMap::new(),
        }
    }

    /// Returns the number of calls that an estimated limit would have rejected.
    pub(crate) fn would_reject(&self) -> u64 {
        let status = self.bulkhead.snapshot().limit;
        status.map_or(0, |status| status.would_wait + status.would_reject)
    }

    fn advance_to(&self, now: f64) {
        self.runtime.advance_to(Duration::from_secs_f64(now));
    }
}

/// Returns the configuration of a client that never waits for a permit.
///
/// It has no circuit breaker, which the timeouts of some scenarios would open.
pub(crate) fn config(maximum: usize, adaptive: AdaptiveLimit) -> BulkheadConfig {
    BulkheadConfig::new("server")
        .max_concurrent_calls(maximum)
        .max_queue_size(0)
        .circuit_breaker_enabled(false)
        .adaptive_limit(adaptive)
}

impl Limiter for Client {
    fn limit(&self, _now: f64) -> u64 {
        self.bulkhead.limit() as u64
    }

    fn start(&mut self, now: f64, _in_flight: u64) {
        self.advance_to(now);
        let permit = self.bulkhead.try_acquire().expect("a free permit");
        self.running.entry(now.to_bits()).or_default().push(permit);
    }

    fn reject(&mut self, now: f64) {
        self.advance_to(now);
        assert!(self.bulkhead.try_acquire().is_err(), "the limit is reached");
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        self.advance_to(call.now);
        let key = call.started_at.to_bits();
        let permits = self.running.get_mut(&key).expect("a running call");
        let permit = permits.pop().expect("a running call");
        if permits.is_empty() {
            self.running.remove(&key);
        }
        permit.record(if call.is_overload() {
            Outcome::Overloaded
        } else {
            Outcome::Success
        });
    }
}
