//! A circuit breaker: stops calling a dependency that fails, and finds out when it is back. What it
//! does is told by [`CircuitBreaker`]; this is how it is built.
//!
//! `state.rs` is the machine, pure and single-threaded, with the time as an argument; `shell.rs`
//! shares it between threads. The rest are the parts of the two.
//!
//! Every state entered begins a new *generation*. An admission remembers its own, and an outcome
//! of an older one is dropped: what a call says that began before the circuit opened is no news
//! about whether the dependency is back.

mod admission;
mod alarm;
mod call;
mod circuit_state;
mod config;
mod controls;
mod count_window;
mod counts;
mod events;
mod looks;
#[cfg(all(test, bulkman_loom))]
mod loom_tests;
mod probes;
mod refusals;
#[cfg(feature = "serde")]
mod repr;
mod rules;
mod settings;
mod shared;
mod shell;
mod snapshot;
mod state;
#[cfg(all(test, not(bulkman_loom)))]
mod tests;
mod time_window;
mod transition;
mod validate;
mod window;
mod word;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::admission::Admission;
pub(crate) use self::admission::Ticket;
pub use self::call::CircuitError;
pub use self::circuit_state::CircuitState;
pub use self::config::{
    CircuitBreakerConfig, HalfOpenTimeoutAction, IsolationBackoff, SlidingWindow,
};
pub use self::counts::CircuitCounts;
pub use self::events::{CircuitEvent, CircuitEvents};
pub use self::refusals::CircuitRejections;
pub use self::settings::{HalfOpenPolicy, IsolationDuration, ResolvedCircuitBreakerConfig};
pub(crate) use self::shared::{Adopted, Gate, Observation, SharedCircuit, Verdict};
pub use self::snapshot::CircuitSnapshot;
pub use self::transition::{Transition, TransitionCause};

use self::shell::{Hook, Shell};
use self::state::StateTarget;
use crate::call::outcome::Outcome;
use crate::config_error::ConfigError;
use crate::error::{CircuitOpen, PackedRejection, RejectionReason};
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// Stops calling a dependency that fails, and finds out when it is back; alone, or as part of a
/// [`Bulkhead`](crate::Bulkhead). Cheap to clone: all clones are one circuit.
///
/// Calls to a dependency that is down cost their callers a timeout each, and the dependency the
/// chance to recover. A circuit breaker watches the outcomes; when they are bad enough it
/// *opens* and refuses calls at once. After an isolation a few *probes* pass, and their outcomes
/// decide whether it closes again.
///
/// ```text
///            a rule is broken                    isolation over
///  +--------+               +------+  (seen by a call, a look or a timer) +-----------+
///  | Closed | ------------> | Open | -----------------------------------> | Half-open |
///  +--------+               +------+ <----------------------------------- +-----------+
///       ^                        a probe failed or was lost; or too many did    |
///       |                                                                       |
///       +-----------------------------------------------------------------------+
///                               enough probes succeeded
///
///  by hand, from anywhere:  Forced open (refuses all)   Disabled (passes all, counts nothing)
///                           Metrics-only (passes all, counts, never opens)
/// ```
///
/// An outcome that comes when the circuit has changed its state since the call was admitted is
/// dropped: it is no news about whether the dependency is back.
///
/// # When not to use it
///
/// When the dependency is a resource of this process (a lock, a pool): it does not recover by
/// being left alone, and a bulkhead alone is what bounds it. When a failure says nothing about the
/// next call (invalid input): record it as [`Ignored`](Outcome::Ignored). When one name stands for
/// many independent parts (shards, tenants): use a breaker for each, or one bad part isolates all.
///
/// # Its methods
///
/// * Ask and tell: [`try_acquire`](Self::try_acquire), then the [`Admission`]'s methods; or
///   [`call`](Self::call) and [`execute`](Self::execute), which do both. The variants that end in
///   `_at` take the time as an argument and read no clock.
/// * Look: [`state`](Self::state), [`snapshot`](Self::snapshot), [`events`](Self::events).
/// * By hand: [`open`](Self::open), [`close`](Self::close), [`force_open`](Self::force_open) and
///   so on. Each starts a new generation, also into the state that the circuit is in already:
///   that starts the state again (its isolation, its probes), without an event.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::CircuitState;
/// use bulkman::runtime::ClockOnly;
///
/// let config = CircuitBreakerConfig::new().failure_threshold(2);
/// let breaker = CircuitBreaker::new("payments", config, ClockOnly)?;
///
/// for _ in 0..2 {
///     breaker.try_acquire().unwrap().fail();
/// }
/// assert_eq!(breaker.state(), CircuitState::Open);
/// let refused = breaker.try_acquire().unwrap_err();
/// println!("{refused}"); // circuit is open, retry in 30s
/// assert!(refused.retry_after.is_some());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shell>);

impl CircuitBreaker {
    /// A circuit of its own.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the field when the name or the configuration can't be used, or needs
    /// what the runtime does not have.
    ///
    /// ```
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(0.5);
    /// let breaker = CircuitBreaker::new("payments", config, ClockOnly)?;
    /// assert!(breaker.is_closed());
    ///
    /// let config = CircuitBreakerConfig::new().failure_rate_threshold(50.0);
    /// let error = CircuitBreaker::new("payments", config, ClockOnly).unwrap_err();
    /// assert_eq!(error.to_string(), "`failure_rate_threshold` is 50, must be a fraction within (0, 1]");
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
        // Std's hasher is seeded from the system's entropy, which is all that jitter asks for.
        let seed = RandomState::new().hash_one(name.as_str());
        let shell = Shell::new(name, config.resolve(), seed, runtime);
        #[cfg(feature = "tracing")]
        shell.add_hook(Arc::new(crate::observe::transition));
        Ok(Self(shell))
    }

    /// Asks for the right to make one call.
    ///
    /// # Errors
    ///
    /// [`CircuitOpen`] with the reason, and when to come back, if that is known.
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
    ///     Err(refused) => println!("{refused}"),      // circuit is open, retry in 30s
    /// }
    /// assert!(breaker.is_closed());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[inline]
    pub fn try_acquire(&self) -> Result<Admission<'_>, CircuitOpen> {
        match self.0.admit(None) {
            Ok(ticket) => Ok(Admission::new(&self.0, ticket, None)),
            Err(denied) => Err(self.told(denied)),
        }
    }

    /// As [`try_acquire`](Self::try_acquire), at `now`: no clock is read.
    ///
    /// All times given to one circuit must be of one clock, which is also that of its runtime if
    /// methods without the time are used too. One that goes back changes nothing.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// ```
    /// use bulkman::{CircuitBreaker, CircuitBreakerConfig, Outcome, Runtime};
    /// use bulkman::runtime::ClockOnly;
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
        match self.0.admit(Some(now)) {
            Ok(ticket) => Ok(Admission::new(&self.0, ticket, Some(now))),
            Err(denied) => Err(self.told(denied)),
        }
    }

    /// Changes the rules in place. The state stays, and a running isolation, and the window: its
    /// newest part when it shrinks, nothing when it changes its kind. `initial_state` has no
    /// effect any more.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], as the constructor; then the old rules stay in force.
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
        let settings = config.resolve();
        self.0
            .change(|machine, now| machine.reconfigure(settings, now));
        Ok(())
    }

    /// Tells listeners of a refusal. A bulkhead tells of its own, with its name and its span.
    #[inline]
    fn told(&self, denied: PackedRejection) -> CircuitOpen {
        #[cfg(feature = "tracing")]
        crate::observe::rejected_by_circuit(self.name(), denied);
        denied.into()
    }

    /// Everything for which [`reconfigure`](Self::reconfigure) would refuse.
    pub(crate) fn check_config(&self, config: &CircuitBreakerConfig) -> Result<(), ConfigError> {
        check_config(config, &**self.0.runtime())
    }

    /// Whether a call would be refused now. Takes nothing, and counts a refusal: for who then
    /// waits for something else before it asks for an admission.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), PackedRejection> {
        self.0.check()
    }

    /// Admits a call if all calls pass: one load. `None`: ask [`admit`](Self::admit).
    #[inline]
    pub(crate) fn admit_if_all_pass(&self) -> Option<Ticket> {
        self.0.admit_if_all_pass()
    }

    /// [`try_acquire`](Self::try_acquire) for who has a guard of their own.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Ticket, PackedRejection> {
        self.0.admit(None)
    }

    /// Whether an outcome would change anything: see [`settle`](Self::settle).
    #[inline]
    pub(crate) fn hears(&self, ticket: Ticket, outcome: Outcome, ran: Option<Duration>) -> bool {
        self.0.hears(ticket, outcome, ran)
    }

    /// Takes the outcome of an admitted call; an ignored one gives its probe slot back.
    #[inline]
    pub(crate) fn settle(&self, ticket: Ticket, outcome: Outcome, ran: Option<Duration>) {
        self.0.settle(ticket, outcome, ran, None);
    }

    /// Ends an admission about which nothing can be said.
    #[inline]
    pub(crate) fn abandon(&self, ticket: Ticket) {
        self.0.settle(ticket, Outcome::Ignored, None, None);
    }

    /// The state as it is, to be compared later: see [`refuses_since`](Self::refuses_since).
    #[inline]
    pub(crate) fn seen(&self) -> u64 {
        self.0.seen()
    }

    /// Whether the circuit has begun to refuse all calls since it was `seen`. A load; an isolation
    /// that was running then, and may well be over, does not count.
    #[inline]
    pub(crate) fn refuses_since(&self, seen: u64) -> bool {
        self.0.seen() != seen && self.0.refuses()
    }

    /// Counts and describes the refusal of a call that waited when the circuit opened.
    pub(crate) fn refuse_waiter(&self) -> PackedRejection {
        // It may have closed again meanwhile; that call is refused all the same.
        self.0.check().err().unwrap_or_else(|| {
            self.0
                .refuse(PackedRejection::retry_in(RejectionReason::Open, 0))
        })
    }

    /// Calls `hook` after each transition: in order, one at a time, outside every lock, on the
    /// thread of some caller. Its panics end there. It must hold the circuit weakly, if at all.
    pub(crate) fn on_transition(&self, hook: Hook) {
        self.0.add_hook(hook);
    }

    /// Begins half-open before the isolation is over, since a health check succeeded; nothing
    /// unless the circuit is open. Says whether it was.
    pub(crate) fn half_open_early(&self) -> bool {
        self.0.change(|machine, now| machine.half_open_early(now))
    }

    /// Whether a look after the dependency would be news: while open, and while only a lease of
    /// the fleet's lets anybody find out.
    pub(crate) fn wants_health_check(&self) -> bool {
        match self.0.state(None) {
            CircuitState::Open => true,
            CircuitState::HalfOpen => self.0.change(|machine, _| machine.awaits_fleet()),
            _ => false,
        }
    }

    fn go(&self, target: StateTarget) {
        self.0.change(|machine, now| machine.go(target, now));
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn check_config(config: &CircuitBreakerConfig, runtime: &dyn Runtime) -> Result<(), ConfigError> {
    config.validate()?;
    let able = runtime.capabilities();
    if config.automatic_half_open && !(able.timers && able.tasks) {
        return Err(ConfigError::Unsupported {
            setting: "automatic_half_open",
            needs: "timers and tasks",
        });
    }
    Ok(())
}
