//! The adaptive limit of this project.

use bulkman_core::adaptive::{AdaptiveLimit, Decision, LimitController, LimitRule, LimitSettings};

use crate::limiter::{EndedCall, Limiter, Outcome};
use crate::random::Random;

/// The adaptive limit of this project, with every call sampled.
#[derive(Clone, Debug)]
pub struct Bulkman {
    controller: LimitController,
    decisions: Option<Vec<(f64, Decision, LimitRule)>>,
}

impl Bulkman {
    /// Creates the limiter with a maximum of 1,000.
    #[must_use]
    pub fn new(config: &AdaptiveLimit) -> Self {
        Self {
            controller: LimitController::new(LimitSettings::new(config, MAXIMUM)),
            decisions: None,
        }
    }

    /// Keeps every decision with its time and the rule after it.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.decisions = Some(Vec::new());
        self
    }

    /// Returns the decisions; empty unless they are recorded.
    #[must_use]
    pub fn decisions(&self) -> &[(f64, Decision, LimitRule)] {
        self.decisions.as_deref().unwrap_or_default()
    }

    /// Returns the rule.
    #[must_use]
    pub fn rule(&self) -> &LimitRule {
        self.controller.rule()
    }
}

impl Default for Bulkman {
    fn default() -> Self {
        Self::new(&AdaptiveLimit::new())
    }
}

impl Limiter for Bulkman {
    fn limit(&self, _now: f64) -> u64 {
        self.controller.rule().permits()
    }

    fn start(&mut self, _now: f64, in_flight: u64) {
        self.controller.start(in_flight);
    }

    fn reject(&mut self, _now: f64) {
        self.controller.lack_of_permit();
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        let decision = match call.outcome {
            Outcome::Success => self.controller.succeed(call.started_at, call.now),
            Outcome::Overload => self.controller.overload(call.started_at, call.now),
        };
        if let (Some(decisions), Some(decision)) = (&mut self.decisions, decision) {
            decisions.push((call.now, decision, self.controller.rule().clone()));
        }
    }
}

const MAXIMUM: usize = 1000;
