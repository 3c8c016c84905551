//! Converts the rules of a circuit to the policy that a store applies to probes.

use crate::circuit_breaker::{HalfOpenPolicy, ResolvedCircuitBreakerConfig};
use crate::store::{ProbePolicy, ProbeRule};

/// Returns the policy by which a fleet decides what the rules of the circuit would decide.
///
/// At most `limit` probes run at a time. The probes of a sample run in several processes, so their
/// failures have no order. `failure_threshold` failures of the sample therefore reopen the circuit,
/// consecutive or not.
pub(super) fn probe_policy(config: &ResolvedCircuitBreakerConfig, limit: u16) -> ProbePolicy {
    let rule = match config.half_open_policy {
        HalfOpenPolicy::Consecutive { successes } => ProbeRule::Consecutive {
            successes: saturate(successes),
        },
        HalfOpenPolicy::Sample { calls } => {
            // The smallest count that reaches the rate.
            let reaching =
                |rate: f64| (1..=calls).find(|n| f64::from(*n) / f64::from(calls) >= rate);
            let failures = [
                config.failure_threshold.map(|n| n.min(calls)),
                config.failure_count_threshold.map(|n| n.min(calls)),
                config.failure_rate_threshold.and_then(reaching),
            ];
            ProbeRule::SampleSize {
                calls: saturate(calls),
                failures: failures.into_iter().flatten().min().map(saturate),
                slow: config
                    .slow_call_rate_threshold
                    .and_then(reaching)
                    .map(saturate),
            }
        }
    };
    ProbePolicy::new(limit, rule)
}

fn saturate(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
