//! The rule with its windows, for one thread.

use super::adjustment::LimitAdjustment;
use super::collector::{WindowCollector, WindowEnd};
use super::policy::WindowPolicy;
use super::rule::LimitRule;
use super::settings::LimitSettings;
use super::window::ClosedWindow;

/// An adaptive limit for one thread: collects windows and decides at the end of each.
///
/// Times are in seconds since the controller was created. Simulations and tests use it, and so can
/// an executor that runs on one thread.
///
/// ```
/// use bulkman::adaptive::{AdaptiveLimit, LimitController, LimitSettings};
///
/// let mut controller =
///     LimitController::new(LimitSettings::new(&AdaptiveLimit::new(), 100));
/// let mut now = 0.0;
/// while now < 0.25 {
///     // Four calls at a time, of 10 ms each: as many as the initial limit admits.
///     (1..=4).for_each(|in_flight| controller.start(in_flight));
///     (1..=4).for_each(|_| drop(controller.succeed(now, now + 0.01)));
///     now += 0.01;
/// }
/// assert_eq!(controller.rule().permits(), 6);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LimitController {
    rule: LimitRule,
    collector: WindowCollector,
}

/// A closed or discarded window, and the change of the limit that it caused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The counts of the window.
    pub window: ClosedWindow,
    /// Whether the window was discarded, because too few calls ended in it.
    pub discarded: bool,
    /// The limit before the decision.
    pub limit_before: f64,
    /// The change of the limit.
    pub adjustment: Option<LimitAdjustment>,
}

impl LimitController {
    /// Creates a controller at the initial limit, with an open window.
    #[must_use]
    pub fn new(settings: LimitSettings) -> Self {
        Self::with_rule(LimitRule::new(settings))
    }

    /// Creates a controller for a rule in any state.
    #[must_use]
    pub fn with_rule(rule: LimitRule) -> Self {
        let collector = WindowCollector::new(WindowPolicy::new(rule.settings()), 0.0);
        Self { rule, collector }
    }

    /// Records an admitted call; `in_flight` includes it.
    pub fn start(&mut self, in_flight: u64) {
        self.collector.record_start(in_flight, self.rule.permits());
    }

    /// Records a call that waited or was rejected for lack of a permit.
    pub fn lack_of_permit(&mut self) {
        self.collector.record_lack_of_permit();
    }

    /// Records a successful call, and decides if it completes a window.
    pub fn succeed(&mut self, started_at: f64, now: f64) -> Option<Decision> {
        let end = self.collector.record_success(started_at, now, &self.rule)?;
        Some(self.decide(end, now))
    }

    /// Records a call that ended by an overload, and decides if it completes a window.
    pub fn overload(&mut self, started_at: f64, now: f64) -> Option<Decision> {
        let end = self
            .collector
            .record_overload(started_at, now, &self.rule)?;
        Some(self.decide(end, now))
    }

    /// Restarts from a small limit, because the circuit closed.
    pub fn circuit_closed(&mut self, now: f64) -> Option<LimitAdjustment> {
        let adjustment = self.rule.on_circuit_closed();
        self.collector.reopen(now, adjustment.as_ref(), 0.0);
        adjustment
    }

    /// Replaces the settings in place.
    pub fn reconfigure(&mut self, settings: LimitSettings) -> Option<LimitAdjustment> {
        self.collector.set_policy(WindowPolicy::new(&settings));
        self.rule.reconfigure(settings)
    }

    /// Returns the rule.
    #[must_use]
    pub const fn rule(&self) -> &LimitRule {
        &self.rule
    }

    fn decide(&mut self, end: WindowEnd, now: f64) -> Decision {
        let limit_before = self.rule.limit();
        let (window, adjustment) = match end {
            WindowEnd::Closed(window) => (window, self.rule.on_window(&window, now)),
            WindowEnd::Discarded(window) => (window, self.rule.on_discarded_window()),
        };
        self.collector
            .reopen(now, adjustment.as_ref(), window.latency);
        let discarded = matches!(end, WindowEnd::Discarded(_));
        Decision {
            window,
            discarded,
            limit_before,
            adjustment,
        }
    }
}
