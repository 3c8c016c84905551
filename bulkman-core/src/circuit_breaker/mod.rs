//! The circuit breaker: stops calls to a dependency that fails, and probes until it has recovered.
//!
//! [`CircuitBreaker`] documents the behavior. This is how it is implemented:
//!
//! `machine.rs` is a pure, single-threaded state machine that takes the time as an argument.
//! `shared.rs` shares it between threads. The other files are parts of the two.
//!
//! Every state entered begins a new *generation*. An admission carries the generation that it
//! belongs to, and an outcome of an older generation is dropped. A call that began before the
//! circuit opened does not show whether the dependency has recovered.

mod admission;
mod circuit_state;
mod config;
mod controls;
mod count_window;
mod counts;
mod enclosing;
mod events;
mod execute;
mod hooks;
mod in_flight;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
mod machine;
mod packed_state;
mod probes;
mod queries;
mod rejections;
#[cfg(feature = "serde")]
mod repr;
mod resolved;
mod rules;
mod shared;
mod snapshot;
#[cfg(all(test, not(bulkman_loom)))]
mod tests;
mod time_window;
mod timer;
mod transition;
mod validate;
mod weak;
mod window;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::admission::Admission;
pub use self::circuit_state::CircuitState;
pub use self::config::{
    CircuitBreakerConfig, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
pub use self::counts::CircuitCounts;
pub(crate) use self::enclosing::ProbeScope;
pub use self::events::{CircuitEvent, CircuitEvents};
pub use self::execute::CircuitError;
pub(crate) use self::machine::{FleetTarget, Gate, Observation, ProbeOutcome};
pub(crate) use self::packed_state::Ticket;
pub use self::rejections::CircuitRejections;
#[cfg(feature = "serde")]
pub(crate) use self::repr::CircuitBreakerRepr;
pub use self::resolved::{HalfOpenPolicy, IsolationDuration, ResolvedCircuitBreakerConfig};
pub use self::snapshot::CircuitSnapshot;
pub use self::transition::{Transition, TransitionCause};
pub(crate) use self::weak::WeakCircuit;

use self::hooks::TransitionHook;
use self::machine::{Machine, ManualTarget};
use self::shared::Shared;
use crate::call::outcome::Outcome;
use crate::config_error::ConfigError;
use crate::error::{CircuitOpen, PackedRejection, RejectionReason};
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// A circuit breaker: stops calls to a dependency that fails, and probes until it has recovered.
///
/// Use it alone, or as part of a [`Bulkhead`](crate::Bulkhead). Clones are cheap and share one
/// circuit.
///
/// A call to a dependency that is down costs its caller a timeout, and may keep the dependency from
/// recovering. A circuit breaker counts the outcomes of calls. When a rule trips, it *opens* and
/// rejects calls immediately. The *isolation* is the time that a circuit stays open. Once it has
/// elapsed, a limited number of *probes* is admitted, and their outcomes decide whether the circuit
/// closes again.
///
/// ```text
///              a rule trips                      isolation elapsed
///  +--------+               +------+  (detected by a call, query or timer) +-----------+
///  | Closed | ------------> | Open | ------------------------------------> | Half-open |
///  +--------+               +------+ <------------------------------------ +-----------+
///       ^                   a probe failed or timed out; or too many failed     |
///       |                                                                       |
///       +-----------------------------------------------------------------------+
///                               enough probes succeeded
///
///  manually, from any state: Forced open (rejects all), Disabled (admits all, counts none),
///                           Metrics-only (admits all, counts, never opens)
/// ```
///
/// An outcome is dropped if the circuit has entered another state since the call was admitted: it
/// does not show whether the dependency has recovered.
///
/// # When not to use it
///
/// * The dependency is a resource of this process, such as a lock or a pool. It does not recover
///   when calls stop, and a bulkhead is enough to bound it.
/// * A failure does not predict the next one, as with invalid input. Record such outcomes as
///   [`Ignored`](Outcome::Ignored), and requests for less load as
///   [`Overloaded`](Outcome::Overloaded): both count for no rule.
/// * One name stands for many independent parts, such as shards or tenants. Use one circuit breaker
///   for each; otherwise one failing part isolates all of them.
///
/// # Methods
///
/// *Run a call*, when it is one closure or one future that returns a `Result`:
/// [`execute_sync`](Self::execute_sync), [`execute`](Self::execute).
///
/// *Admit, then record*, when the call is not one function, or an outcome needs a decision:
/// [`try_acquire`](Self::try_acquire), then a method of the [`Admission`].
///
/// *Pass the time*, when the caller has read the clock already, or simulates time:
/// [`try_acquire_at`](Self::try_acquire_at), [`Admission::record_at`],
/// [`state_at`](Self::state_at), [`snapshot_at`](Self::snapshot_at).
///
/// *Query*, for health checks, dashboards and alerts: [`state`](Self::state),
/// [`is_closed`](Self::is_closed), [`is_open`](Self::is_open),
/// [`is_half_open`](Self::is_half_open), [`retry_after`](Self::retry_after),
/// [`rejections`](Self::rejections), [`snapshot`](Self::snapshot), [`events`](Self::events),
/// [`name`](Self::name), [`resolved_config`](Self::resolved_config).
///
/// *Change the state manually*, for operators and external signals: [`open`](Self::open),
/// [`open_for`](Self::open_for), [`half_open`](Self::half_open), [`close`](Self::close),
/// [`force_open`](Self::force_open), [`disable`](Self::disable),
/// [`metrics_only`](Self::metrics_only). Each begins a new generation, even if the circuit is in
/// that state already. The state then restarts with a new isolation or new probes, without an
/// event.
///
/// *Configure*: [`new`](Self::new), [`reconfigure`](Self::reconfigure).
///
/// # Terms of other libraries
///
/// The isolation is resilience4j's wait duration in the open state and Polly's break duration. The
/// state that Polly calls isolated is [forced open](CircuitState::ForcedOpen) here.
///
/// # Example
///
/// ```
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
///
/// let config = CircuitBreakerConfig::new().failure_threshold(2);
/// let breaker = CircuitBreaker::new("payments", config, ClockOnly)?;
///
/// for _ in 0..2 {
///     breaker.try_acquire().unwrap().fail();
/// }
/// assert_eq!(breaker.state(), CircuitState::Open);
/// let rejected = breaker.try_acquire().unwrap_err();
/// println!("{rejected}"); // circuit is open, retry in 30s
/// assert!(rejected.retry_after.is_some());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

impl CircuitBreaker {
    /// Creates a circuit breaker.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the field if the name or the configuration is invalid, or if the
    /// configuration needs a capability that the runtime lacks.
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    ///
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.5);
    /// let breaker = CircuitBreaker::new("payments", config, ClockOnly)?;
    /// assert!(breaker.is_closed());
    ///
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(50.0);
    /// let error = CircuitBreaker::new("payments", config, ClockOnly).unwrap_err();
    /// let message = "`failure_rate_threshold` is 50, must be a fraction within (0, 1]";
    /// assert_eq!(error.to_string(), message);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(
        name: impl AsRef<str>,
        config: CircuitBreakerConfig,
        runtime: impl Runtime,
    ) -> Result<Self, ConfigError> {
        Self::from_parts(BulkheadName::new(name)?, &config, Arc::new(runtime))
    }

    pub(crate) fn from_parts(
        name: BulkheadName,
        config: &CircuitBreakerConfig,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConfigError> {
        check_config(config, &*runtime)?;
        // Std seeds its hasher from the system's entropy, which is enough for jitter.
        let seed = RandomState::new().hash_one(name.as_str());
        let shared = Shared::new(name, config.resolve(), seed, runtime);
        #[cfg(feature = "tracing")]
        shared.add_hook(Arc::new(crate::observe::transition));
        Ok(Self(shared))
    }

    /// Admits one call, unless the circuit rejects it.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] with the reason, and with the time until the next attempt if it is known.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// # fn send(_: &str) -> Result<(), ()> { Ok(()) }
    /// match breaker.try_acquire() {
    ///     Ok(admission) => match send("hello") {
    ///         Ok(()) => admission.succeed(),
    ///         Err(()) => admission.fail(),
    ///     },
    ///     Err(rejected) => println!("{rejected}"),    // circuit is open, retry in 30s
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self) -> Result<Admission<'_>, CircuitOpen> {
        match self.0.admit(None) {
            Ok(ticket) => Ok(Admission::new(&self.0, ticket, None)),
            Err(denied) => Err(self.rejected(denied)),
        }
    }

    /// Admits one call at `now`, without reading the clock.
    ///
    /// All times passed to one circuit must come from one clock. It must be the runtime's clock if
    /// methods without a time are used too. A time before an earlier one changes nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`try_acquire`](Self::try_acquire).
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
    /// use std::time::Duration;
    ///
    /// let breaker = CircuitBreaker::new("shard-7", CircuitBreakerConfig::new(), ClockOnly)?;
    /// let begin = ClockOnly.now();
    /// let admission = breaker.try_acquire_at(begin).unwrap();
    /// let ran = Duration::from_millis(12);
    /// admission.record_at(Outcome::Success, ran, begin + ran);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_acquire_at(&self, now: Instant) -> Result<Admission<'_>, CircuitOpen> {
        match self.0.admit_at(now) {
            Ok(ticket) => Ok(Admission::new(&self.0, ticket, Some(now))),
            Err(denied) => Err(self.rejected(denied)),
        }
    }

    /// Replaces the rules in place.
    ///
    /// The state and a running isolation are kept. The window keeps its newest part if it shrinks,
    /// and is emptied if its kind changes. `initial_state` is ignored, since the circuit already
    /// has a state.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] in the same cases as [`new`](Self::new). The old rules then stay in force.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::circuit_breaker::CircuitState;
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("docs", CircuitBreakerConfig::new(), ClockOnly)?;
    /// breaker.try_acquire().unwrap().fail();
    /// breaker.reconfigure(&CircuitBreakerConfig::new().failure_threshold(2))?;
    /// breaker.try_acquire().unwrap().fail();      // the first one still counts
    /// assert_eq!(breaker.state(), CircuitState::Open);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn reconfigure(&self, config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
        self.check_config(config)?;
        let config = config.resolve();
        self.0.reconfigure(config);
        Ok(())
    }

    /// Reports a rejection to `tracing`. A bulkhead reports its own, with its name and span.
    #[inline]
    fn rejected(&self, denied: PackedRejection) -> CircuitOpen {
        #[cfg(feature = "tracing")]
        crate::observe::rejected_by_circuit(self.name(), denied);
        denied.into()
    }

    /// Returns the error that [`reconfigure`](Self::reconfigure) would return.
    pub(crate) fn check_config(&self, config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
        check_config(config, &**self.0.runtime())
    }

    /// Checks whether a call would be rejected now, and counts the rejection.
    ///
    /// Takes no probe slot: for callers that must wait for something else before they are admitted.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), PackedRejection> {
        self.0.check()
    }

    /// Admits a call if the state admits every call: one load.
    ///
    /// If it returns `None`, call [`admit`](Self::admit).
    #[inline]
    pub(crate) fn try_admit_fast(&self) -> Option<Ticket> {
        self.0.try_admit_fast()
    }

    /// Admits a call like [`try_acquire`](Self::try_acquire), for callers with their own guard.
    #[inline]
    pub(crate) fn admit(&self, now: Option<Instant>) -> Result<Ticket, PackedRejection> {
        self.0.admit(now)
    }

    /// Returns `true` if calls are counted while they are in flight.
    ///
    /// If so, call [`evaluate_in_flight`](Self::evaluate_in_flight) for each new call, also for one
    /// that is not admitted, and [`begin_in_flight`](Self::begin_in_flight) after an admission.
    #[inline]
    pub(crate) fn counts_in_flight(&self) -> bool {
        self.0.counts_in_flight()
    }

    /// Returns the number of calls that hang; `None` if they are not counted.
    #[cfg(feature = "metrics")]
    pub(crate) fn hanging_calls(&self) -> Option<u32> {
        self.0.hanging_calls()
    }

    /// Evaluates the rules that count calls in flight. Returns `false` if that was not due.
    pub(crate) fn evaluate_in_flight(&self, now: Instant) -> bool {
        self.0.evaluate_in_flight(now)
    }

    /// Counts an admitted call, which starts to run at `now`, until its outcome is recorded.
    pub(crate) fn begin_in_flight(&self, ticket: Ticket, now: Instant) -> Ticket {
        Ticket {
            id: self.0.begin_in_flight(ticket, now),
            ..ticket
        }
    }

    /// Counts a call of [`begin_in_flight`](Self::begin_in_flight) no longer, before its outcome
    /// is recorded.
    #[cfg(feature = "http")]
    pub(crate) fn end_in_flight(&self, ticket: Ticket) -> Ticket {
        Ticket {
            id: self.0.end_in_flight(ticket),
            ..ticket
        }
    }

    /// Returns `true` if [recording](Self::record) an outcome would change the circuit.
    #[inline]
    pub(crate) fn affects_state(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        ran: Option<Duration>,
    ) -> bool {
        self.0.affects_state(ticket, outcome, ran)
    }

    /// Records the outcome of an admitted call. One that does not
    /// count releases its probe slot.
    #[inline]
    pub(crate) fn record(&self, ticket: Ticket, outcome: Outcome, ran: Option<Duration>) {
        self.0.record(ticket, outcome, ran, None);
    }

    /// Marks the code that runs until the scope is dropped as part of the probe of this ticket.
    #[cold]
    pub(crate) fn enter_probe(&self, ticket: Ticket) -> Option<ProbeScope> {
        self.0.enter_probe(ticket)
    }

    /// Ends the scope that [`enter_probe`](Self::enter_probe) began, if it is forgotten.
    #[cold]
    pub(crate) fn leave_probe(&self, ticket: Ticket) {
        self.0.leave_probe(ticket);
    }

    /// Ends an admission without an outcome.
    #[inline]
    pub(crate) fn cancel(&self, ticket: Ticket) {
        self.0.cancel(ticket);
    }

    /// Returns `true` if the state admits every call, without applying a due transition.
    pub(crate) fn admits_all(&self) -> bool {
        self.0.admits_all()
    }

    /// Returns a number to pass to [`opened_since`](Self::opened_since) later.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.0.version()
    }

    /// Returns `true` if the circuit has begun to reject all calls since `version` was read.
    ///
    /// An isolation that was running then does not count, because it may have elapsed.
    #[inline]
    pub(crate) fn opened_since(&self, version: u64) -> bool {
        self.0.version() != version && self.0.rejects_all()
    }

    /// Counts and returns the rejection of a call that was queued when the circuit opened.
    pub(crate) fn reject_waiter(&self) -> PackedRejection {
        // The circuit may have closed again since, but the call is rejected all the same.
        self.0.check().err().unwrap_or_else(|| {
            self.0
                .reject(PackedRejection::retry_in(RejectionReason::Open, 0))
        })
    }

    /// Adds a hook to call after each transition.
    ///
    /// Hooks run in order, one at a time, outside of every lock, on the thread of a caller. A panic
    /// of a hook is caught. A hook may hold the circuit only weakly.
    pub(crate) fn on_transition(&self, hook: TransitionHook) {
        self.0.add_hook(hook);
    }

    /// Begins half-open early, because a health check succeeded.
    ///
    /// Returns `true` if the circuit was open; otherwise its state does not change.
    pub(crate) fn half_open_early(&self) -> bool {
        self.0.change(|machine, now| machine.half_open_early(now))
    }

    /// Returns `true` if a health check could change something.
    ///
    /// That is the case while open, and while only a probe lease of the fleet admits calls.
    pub(crate) fn wants_health_check(&self) -> bool {
        match self.0.state(None) {
            CircuitState::Open => true,
            CircuitState::HalfOpen => self.0.change(|machine, _| machine.is_decided_by_fleet()),
            _ => false,
        }
    }

    fn transition_to(&self, target: ManualTarget) {
        self.0
            .change(|machine, now| machine.transition_to(target, now));
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn check_config(config: &CircuitBreakerConfig, runtime: &dyn Runtime) -> Result<(), ConfigError> {
    config.validate()?;
    let supported = runtime.capabilities();
    if config.automatic_half_open && !(supported.timers && supported.tasks) {
        return Err(ConfigError::Unsupported {
            setting: "automatic_half_open",
            needs: "timers and tasks",
        });
    }
    Ok(())
}
