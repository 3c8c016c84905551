//! The columns of a [`ProbePolicy`].

use bulkman_core::store::{ProbePolicy, ProbeRule, StoreChange};

/// The columns of a [`ProbePolicy`] in the table `circuit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProbePolicyColumns {
    pub(crate) limit: i16,
    /// The consecutive successes that close.
    pub(crate) success_threshold: i16,
    /// The size of the sample; zero for consecutive successes.
    pub(crate) sample_size: i16,
    pub(crate) failure_threshold: Option<i16>,
    pub(crate) slow_threshold: Option<i16>,
}

impl ProbePolicyColumns {
    pub(crate) fn of(change: StoreChange) -> Self {
        let small = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
        let mut columns = Self {
            limit: 1,
            success_threshold: 1,
            sample_size: 0,
            failure_threshold: None,
            slow_threshold: None,
        };
        if let StoreChange::HalfOpen { probe_policy } = change {
            columns.limit = small(probe_policy.limit).max(1);
            match probe_policy.rule {
                ProbeRule::Consecutive { successes } => {
                    columns.success_threshold = small(successes).max(1)
                }
                ProbeRule::SampleSize {
                    calls,
                    failures,
                    slow,
                } => {
                    columns.sample_size = small(calls).max(1);
                    columns.failure_threshold = failures.map(small);
                    columns.slow_threshold = slow.map(small);
                }
                _ => {}
            }
        }
        columns
    }

    pub(crate) fn to_policy(self) -> ProbePolicy {
        let rule = if self.sample_size == 0 {
            ProbeRule::Consecutive {
                successes: self.success_threshold.unsigned_abs(),
            }
        } else {
            ProbeRule::SampleSize {
                calls: self.sample_size.unsigned_abs(),
                failures: self.failure_threshold.map(i16::unsigned_abs),
                slow: self.slow_threshold.map(i16::unsigned_abs),
            }
        };
        ProbePolicy::new(self.limit.unsigned_abs(), rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_policy_round_trips_through_columns() {
        let sample = ProbeRule::SampleSize {
            calls: 10,
            failures: Some(5),
            slow: None,
        };
        for rule in [ProbeRule::Consecutive { successes: 3 }, sample] {
            let probe_policy = ProbePolicy::new(4, rule);
            assert_eq!(
                ProbePolicyColumns::of(StoreChange::HalfOpen { probe_policy }).to_policy(),
                probe_policy
            );
        }
    }
}
