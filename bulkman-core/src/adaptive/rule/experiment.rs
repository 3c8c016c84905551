//! The evaluation of the last change of the limit.

/// A change of the limit that the next window evaluates, with the figures before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Experiment {
    pub(super) kind: ExperimentKind,
    pub(super) limit: f64,
    pub(super) throughput: f64,
    pub(super) latency: f64,
}

/// The direction of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExperimentKind {
    Growth,
    Cut,
}

/// The evaluation of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evaluation {
    /// The change had its effect.
    Confirmed,
    /// A growth raised the throughput by less than 30 % of its share.
    NoGain,
    /// A reduction lowered the throughput and not the latency, so there was no queue.
    LatencyShift,
}

impl Experiment {
    /// Compares the figures before the change with those after it.
    pub(super) fn evaluate(&self, limit: f64, throughput: f64, latency: f64) -> Evaluation {
        let ratio = limit / self.limit;
        match self.kind {
            ExperimentKind::Cut
                if throughput < self.throughput * (ratio + (1.0 - ratio) * 0.4)
                    && latency > 0.9 * self.latency =>
            {
                Evaluation::LatencyShift
            }
            ExperimentKind::Growth
                if throughput < self.throughput * (1.0 + (ratio - 1.0) * 0.3) =>
            {
                Evaluation::NoGain
            }
            ExperimentKind::Growth | ExperimentKind::Cut => Evaluation::Confirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(kind: ExperimentKind, limit: f64, throughput: f64, latency: f64) -> Evaluation {
        Experiment {
            kind,
            limit: 100.0,
            throughput: 1000.0,
            latency: 0.1,
        }
        .evaluate(limit, throughput, latency)
    }

    #[test]
    fn growth_needs_thirty_percent_of_its_share() {
        assert_eq!(
            evaluate(ExperimentKind::Growth, 150.0, 1149.0, 0.1),
            Evaluation::NoGain
        );
        assert_eq!(
            evaluate(ExperimentKind::Growth, 150.0, 1151.0, 0.1),
            Evaluation::Confirmed
        );
    }

    #[test]
    fn cut_without_effect_on_latency_is_a_shift() {
        // Seventy percent of the limit: the throughput of a dependency without a queue falls to 70
        // %.
        assert_eq!(
            evaluate(ExperimentKind::Cut, 70.0, 700.0, 0.1),
            Evaluation::LatencyShift
        );
        assert_eq!(
            evaluate(ExperimentKind::Cut, 70.0, 700.0, 0.08),
            Evaluation::Confirmed
        );
        assert_eq!(
            evaluate(ExperimentKind::Cut, 70.0, 900.0, 0.1),
            Evaluation::Confirmed
        );
    }
}
