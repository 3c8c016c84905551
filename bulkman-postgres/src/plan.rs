//! How the table keeps a [`ProbePolicy`].

use bulkman_core::store::{ProbePolicy, ProbeRule, StoreChange};

/// The columns `probe_*` that say how many may probe, and what decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlanColumns {
    pub(crate) limit: i16,
    /// Successes in a row that close.
    pub(crate) need: i16,
    /// The size of the sample; zero where it is a streak.
    pub(crate) calls: i16,
    pub(crate) max_failed: Option<i16>,
    pub(crate) max_slow: Option<i16>,
}

impl PlanColumns {
    pub(crate) fn of(change: StoreChange) -> Self {
        let small = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
        let mut columns = Self {
            limit: 1,
            need: 1,
            calls: 0,
            max_failed: None,
            max_slow: None,
        };
        if let StoreChange::HalfOpen { plan } = change {
            columns.limit = small(plan.limit).max(1);
            match plan.decision {
                ProbeRule::Consecutive { successes } => columns.need = small(successes).max(1),
                ProbeRule::SampleSize {
                    calls,
                    failures,
                    slow,
                } => {
                    columns.calls = small(calls).max(1);
                    columns.max_failed = failures.map(small);
                    columns.max_slow = slow.map(small);
                }
                _ => {}
            }
        }
        columns
    }

    pub(crate) fn plan(self) -> ProbePolicy {
        let decision = if self.calls == 0 {
            ProbeRule::Consecutive {
                successes: self.need.unsigned_abs(),
            }
        } else {
            ProbeRule::SampleSize {
                calls: self.calls.unsigned_abs(),
                failures: self.max_failed.map(i16::unsigned_abs),
                slow: self.max_slow.map(i16::unsigned_abs),
            }
        };
        ProbePolicy::new(self.limit.unsigned_abs(), decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_table() {
        let sample = ProbeRule::SampleSize {
            calls: 10,
            failures: Some(5),
            slow: None,
        };
        for decision in [ProbeRule::Consecutive { successes: 3 }, sample] {
            let plan = ProbePolicy::new(4, decision);
            assert_eq!(PlanColumns::of(StoreChange::HalfOpen { plan }).plan(), plan);
        }
    }
}
