//! The rule that adapts the limit.

mod enforced;
mod experiment;
mod observed;

use self::experiment::{Experiment, ExperimentKind};
use super::adjustment::{LimitAdjustment, LimitChangeCause};
use super::enforcement::Enforcement;
use super::settings::LimitSettings;
use super::window::ClosedWindow;

/// The state machine that derives a limit from sampling windows.
///
/// Inputs: [`on_window`](Self::on_window) for each closed window,
/// [`on_discarded_window`](Self::on_discarded_window) for a window with too few calls,
/// [`on_circuit_closed`](Self::on_circuit_closed) and [`reconfigure`](Self::reconfigure). Each
/// returns the change of the limit, if there is one. `now` is in seconds since the rule was
/// created.
///
/// The same inputs always give the same limits. The order of the floating-point operations is part
/// of the contract, because recorded traces are reproduced exactly.
///
/// ```
/// use bulkman_core::adaptive::{
///     AdaptiveLimit, ClosedWindow, LimitChangeCause, LimitRule, LimitSettings,
/// };
///
/// let mut rule = LimitRule::new(LimitSettings::new(&AdaptiveLimit::new(), 100));
/// let window = ClosedWindow {
///     successes: 40,
///     latency: 0.02,
///     throughput: 200.0,
///     reached: true,
///     peak: 4,
///     ..ClosedWindow::default()
/// };
/// let growth = rule.on_window(&window, 0.2).unwrap();
/// assert_eq!(
///     (growth.from, growth.to, growth.cause),
///     (4.0, 6.0, LimitChangeCause::Growth)
/// );
/// assert_eq!(rule.permits(), 6);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRule {
    settings: LimitSettings,
    limit: f64,
    baseline: Option<f64>,
    /// When a window last confirmed the baseline; minus infinity if a measurement is due.
    confirmed_at: f64,
    /// When the last measurement started; minus infinity before the first.
    measured_at: f64,
    /// The limit after the measurement, while one runs.
    restore_to: Option<f64>,
    /// Growth is exponential below it, `ssthresh` in TCP.
    threshold: f64,
    /// The last change, which the next window evaluates.
    experiment: Option<Experiment>,
    /// Windows without growth that remain.
    hold: u32,
    /// The latency at the limit that a growth without gain returned to, while growth is on hold.
    held_latency: Option<f64>,
    /// Whether a window without a success was followed by no window without overload.
    failing: bool,
    /// The limit at the last overload; zero before the first.
    ceiling: f64,
    /// Consecutive windows with queueing.
    queueing: u32,
    /// Consecutive windows in which less than half of the limit was in use.
    unused: u32,
    /// Observe mode: the smallest latency of unreached windows since the last confirmation.
    unloaded: Option<f64>,
}

impl LimitRule {
    /// Creates a rule at the initial limit.
    #[must_use]
    pub const fn new(settings: LimitSettings) -> Self {
        Self {
            settings,
            limit: settings.initial,
            baseline: None,
            confirmed_at: 0.0,
            measured_at: f64::NEG_INFINITY,
            restore_to: None,
            threshold: f64::INFINITY,
            experiment: None,
            hold: 0,
            held_latency: None,
            failing: false,
            ceiling: 0.0,
            queueing: 0,
            unused: 0,
            unloaded: None,
        }
    }

    /// Evaluates a closed window.
    ///
    /// A window with figures that are not finite and positive is ignored, as is a `now` that is not
    /// finite. Set `reached` to `false` if another limit, such as a fleet share, was smaller during
    /// the window.
    pub fn on_window(&mut self, window: &ClosedWindow, now: f64) -> Option<LimitAdjustment> {
        if !window.is_valid() || !now.is_finite() {
            return None;
        }
        match self.settings.enforcement {
            Enforcement::Enforce => self.on_enforced_window(window, now),
            Enforcement::Observe => self.on_observed_window(window, now),
        }
    }

    /// Ends a measurement without a result, because too few calls ended in its window.
    pub fn on_discarded_window(&mut self) -> Option<LimitAdjustment> {
        let restore = self.restore_to.take()?;
        self.set(restore, LimitChangeCause::Discarded)
    }

    /// Restarts from at most the initial limit, with exponential growth up to the old limit.
    ///
    /// Call it when the circuit admits all calls again, so that the dependency does not get all its
    /// load at once.
    pub fn on_circuit_closed(&mut self) -> Option<LimitAdjustment> {
        let before = self.restore_to.take().unwrap_or(self.limit);
        self.experiment = None;
        self.threshold = before;
        self.hold = 0;
        self.held_latency = None;
        self.failing = false;
        self.queueing = 0;
        self.unused = 0;
        self.set(
            f64::min(self.settings.initial, before / 2.0),
            LimitChangeCause::CircuitClosed,
        )
    }

    /// Replaces the settings in place.
    ///
    /// Baseline and threshold stay, and the limit is clamped. A measurement or an experiment that
    /// runs is dropped if the range or the enforcement changes.
    pub fn reconfigure(&mut self, settings: LimitSettings) -> Option<LimitAdjustment> {
        let was = std::mem::replace(&mut self.settings, settings);
        let same_range = was.min == settings.min && was.max == settings.max;
        if same_range && was.enforcement == settings.enforcement {
            return None;
        }
        self.experiment = None;
        self.unloaded = None;
        let limit = self.restore_to.take().unwrap_or(self.limit);
        self.set(limit, LimitChangeCause::Reconfigured)
    }

    /// Returns the settings in force.
    #[must_use]
    pub const fn settings(&self) -> &LimitSettings {
        &self.settings
    }

    /// Returns the fractional limit.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        self.limit
    }

    /// Returns the limit in whole permits.
    #[must_use]
    pub const fn permits(&self) -> u64 {
        self.limit as u64
    }

    /// Returns the latency without a queue in seconds, if a window gave one.
    #[must_use]
    pub const fn baseline(&self) -> Option<f64> {
        self.baseline
    }

    /// Returns `true` while the limit is reduced to measure the baseline.
    #[must_use]
    pub const fn is_measuring(&self) -> bool {
        self.restore_to.is_some()
    }

    /// Returns the limit below which growth is exponential; infinity before the first reduction.
    #[must_use]
    pub const fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Returns the number of windows that remain without growth.
    #[must_use]
    pub const fn hold(&self) -> u32 {
        self.hold
    }

    fn begin(&mut self, kind: ExperimentKind, throughput: f64, latency: f64) {
        self.experiment = Some(Experiment {
            kind,
            limit: self.limit,
            throughput,
            latency,
        });
    }

    fn lower_threshold(&mut self, to: f64) {
        self.threshold = self.threshold.min(self.settings.min.max(to));
    }

    /// Counts a window without queueing, and reduces a limit that was unused for ten of them.
    ///
    /// The outer `Option` is `None` if the limit is in use.
    fn check_unused(&mut self, peak: u64) -> Option<Option<LimitAdjustment>> {
        let used = peak as f64 * 2.0;
        self.unused = if used < self.limit {
            self.unused + 1
        } else {
            0
        };
        if self.unused < UNUSED_WINDOWS {
            return None;
        }
        self.unused = 0;
        let keep = self.settings.initial.max(used).max(self.limit * 0.9);
        Some(self.set(self.limit.min(keep), LimitChangeCause::Unused))
    }

    /// Sets the limit within its range; `None` without a change.
    fn set(&mut self, to: f64, cause: LimitChangeCause) -> Option<LimitAdjustment> {
        let to = self.settings.clamp(to);
        let from = std::mem::replace(&mut self.limit, to);
        (from != to).then_some(LimitAdjustment { from, to, cause })
    }
}

/// The largest reduction in one window.
const CUT: f64 = 0.7;
/// The windows after which a limit that is not in use decays, as in RFC 7661.
const UNUSED_WINDOWS: u32 = 10;
/// The factor of exponential growth.
const SLOW_START: f64 = 1.5;
/// A window whose latency is within this factor confirms the baseline.
const CONFIRMED: f64 = 1.1;

/// Returns the age at which a baseline is measured again.
///
/// Slow calls fill windows slowly, so the age is at least 100 baselines.
fn baseline_age(interval: f64, baseline: f64) -> f64 {
    interval.max(100.0 * baseline)
}
