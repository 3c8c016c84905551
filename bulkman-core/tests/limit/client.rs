//! A bulkhead as a client of the simulated server.

use std::collections::HashMap;
use std::time::Duration;

use bulkman_core::adaptive::{AdaptiveLimit, LimitStatus};
use bulkman_core::testing::ManualRuntime;
use bulkman_core::{Bulkhead, BulkheadConfig, Outcome, Permit};
use bulkman_limitsim::{EndedCall, Limiter, Random};

/// A bulkhead with permits as calls.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) bulkhead: Bulkhead,
    runtime: ManualRuntime,
    now: f64,
    /// By the bits of the start and the number of the calls that started then.
    running: HashMap<u64, Vec<Permit>>,
    pub(crate) windows: Vec<(f64, LimitStatus)>,
}

const MAXIMUM: usize = 1_000;

/// Returns a configuration without a circuit, which the timeouts of a simulation would open.
pub(crate) fn config(adaptive: AdaptiveLimit) -> BulkheadConfig {
    BulkheadConfig::new("server")
        .max_concurrent_calls(MAXIMUM)
        .max_queue_size(0)
        .circuit_breaker_enabled(false)
        .adaptive_limit(adaptive)
}

impl Client {
    pub(crate) fn new(config: BulkheadConfig) -> Self {
        let runtime = ManualRuntime::new();
        Self {
            bulkhead: Bulkhead::new(config, runtime.clone()).unwrap(),
            runtime,
            now: 0.0,
            running: HashMap::new(),
            windows: Vec::new(),
        }
    }

    fn advance_to(&mut self, now: f64) {
        let elapsed = Duration::from_secs_f64(now).saturating_sub(self.runtime.elapsed());
        self.runtime.advance(elapsed);
        self.now = now;
    }
}

impl Limiter for Client {
    fn limit(&self, _now: f64) -> u64 {
        let limit = self.bulkhead.limit();
        assert!(limit <= MAXIMUM, "{limit}");
        limit as u64
    }

    fn start(&mut self, now: f64, in_flight: u64) {
        self.advance_to(now);
        let permit = self.bulkhead.try_acquire().unwrap();
        assert_eq!(self.bulkhead.stats().active, in_flight);
        self.running.entry(now.to_bits()).or_default().push(permit);
    }

    fn reject(&mut self, now: f64) {
        self.advance_to(now);
        assert!(self.bulkhead.try_acquire().is_err());
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        self.advance_to(call.now);
        let permits = self.running.get_mut(&call.started_at.to_bits()).unwrap();
        let permit = permits.pop().unwrap();
        permit.record(if call.is_overload() {
            Outcome::Overloaded
        } else {
            Outcome::Success
        });
        let status = self.bulkhead.snapshot().limit.unwrap();
        if status.age.is_zero() {
            self.windows.push((call.now, status));
        }
    }
}
