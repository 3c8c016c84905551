//! The rules that open a circuit, evaluated on its counts.

use super::counts::Tally;
use super::resolved::ResolvedCircuitBreakerConfig;
use super::transition::TransitionCause;

impl ResolvedCircuitBreakerConfig {
    /// Returns the rule that these counts trip.
    ///
    /// `streak` is the number of consecutive failures. The minimum number of calls and the
    /// thresholds are capped at `cap`.
    #[inline]
    pub(super) fn tripped_rule(
        &self,
        tally: Tally,
        streak: u32,
        cap: u32,
    ) -> Option<TransitionCause> {
        let count = |threshold: Option<u32>| threshold.map(|threshold| threshold.min(cap));
        if count(self.failure_threshold).is_some_and(|threshold| streak >= threshold) {
            return Some(TransitionCause::ConsecutiveFailures);
        }
        if count(self.failure_count_threshold).is_some_and(|n| tally.failures >= u64::from(n)) {
            return Some(TransitionCause::FailureCount);
        }
        if tally.calls < u64::from(self.minimum_number_of_calls.min(cap)) {
            return None;
        }
        if self
            .failure_rate_threshold
            .is_some_and(|rate| tally.failures_reach(rate))
        {
            return Some(TransitionCause::FailureRate);
        }
        if self
            .slow_call_rate_threshold
            .is_some_and(|rate| tally.slow_reach(rate))
        {
            return Some(TransitionCause::SlowCallRate);
        }
        None
    }
}
