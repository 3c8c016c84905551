//! The limits of a call's time: its own and the configured ones.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::adaptive::Marks;
use crate::bulkhead::config::BulkheadConfig;
use crate::call::rejection::MissingCapability;

/// A time limit in nanoseconds, or none. A duration of more than 584 years is no limit.
///
/// Every future of a call contains three of these, so a limit takes eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(super) u64);

impl Limit {
    /// No limit.
    pub(crate) const NONE: Self = Self(u64::MAX);
    /// The configured limit, for a call that sets none.
    const AS_CONFIGURED: Self = Self(u64::MAX - 1);

    pub(crate) fn new(limit: Option<Duration>) -> Self {
        limit
            .and_then(|limit| u64::try_from(limit.as_nanos()).ok())
            .map_or(Self::NONE, |nanos| {
                if nanos >= Self::AS_CONFIGURED.0 {
                    Self::NONE
                } else {
                    Self(nanos)
                }
            })
    }

    pub(super) fn get(self) -> Option<Duration> {
        (self != Self::NONE).then(|| Duration::from_nanos(self.0))
    }

    fn or(self, configured: &AtomicU64) -> Self {
        if self == Self::AS_CONFIGURED {
            Self(configured.load(Ordering::Relaxed))
        } else {
            self
        }
    }
}

/// The three time limits of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    /// Limits the whole call: the wait and the run.
    pub(crate) timeout: Limit,
    /// Limits the wait for a permit.
    pub(crate) max_wait: Limit,
    /// Limits the run of the operation.
    pub(crate) run_timeout: Limit,
}

impl TimeLimits {
    pub(super) const NONE: Self = Self {
        timeout: Limit::NONE,
        max_wait: Limit::NONE,
        run_timeout: Limit::NONE,
    };

    /// The limits of a call that sets none.
    pub(crate) const AS_CONFIGURED: Self = Self {
        timeout: Limit::AS_CONFIGURED,
        max_wait: Limit::AS_CONFIGURED,
        run_timeout: Limit::AS_CONFIGURED,
    };

    pub(crate) fn of(config: &BulkheadConfig) -> Self {
        let (timeout, max_wait, run_timeout) = config.times();
        Self {
            timeout: Limit::new(timeout),
            max_wait: Limit::new(max_wait),
            run_timeout: Limit::new(run_timeout),
        }
    }

    /// Returns the first limit that needs a timer.
    pub(crate) fn first_timer(&self) -> Option<&'static MissingCapability> {
        // A call that never waits needs no timer for the wait.
        let max_wait = if self.max_wait == Limit(0) {
            Limit::NONE
        } else {
            self.max_wait
        };
        let limits = [
            (&MissingCapability::TIMEOUT, self.timeout),
            (&MissingCapability::MAX_WAIT, max_wait),
            (&MissingCapability::RUN_TIMEOUT, self.run_timeout),
        ];
        limits
            .into_iter()
            .find_map(|(missing, limit)| (limit != Limit::NONE).then_some(missing))
    }
}

/// The configured limits. They can be read while another thread changes them.
#[derive(Debug)]
pub(crate) struct ConfiguredLimits {
    /// A [`Setup`]. Usually zero: a single load and comparison then cover all of it.
    setup: AtomicU8,
    timeout: AtomicU64,
    max_wait: AtomicU64,
    run_timeout: AtomicU64,
}

/// How permits are shared between keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeySharing {
    None,
    Unbounded,
    /// The permits of a key are bounded, from above or from below.
    Bounded,
}

/// What a call must do before its admission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup(u8);

impl Setup {
    /// A limit is set, or the times of calls are needed.
    const TIMED: u8 = 1;
    /// The calls cooperate with the executor's scheduler.
    const COOPERATES: u8 = 1 << 1;
    /// The limit adapts or is observed, so that calls may carry marks.
    const MARKS: u8 = 1 << 2;
    /// Every call carries a mark.
    const MARKS_ALL: u8 = 1 << 3;
    /// Permits are shared between keys, so that every call has one.
    const KEYS: u8 = 1 << 4;
    /// The permits of a key are bounded.
    const KEY_BOUNDS: u8 = 1 << 5;

    /// Returns `true` if a call has nothing to do.
    #[inline]
    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns `true` if any limit is set, or the times of calls are needed.
    #[inline]
    pub(crate) const fn has_times(self) -> bool {
        self.0 & Self::TIMED != 0
    }

    /// Returns `true` if a call whose permit is at hand may need more than its number.
    #[inline]
    pub(crate) const fn has_more_than_marks(self) -> bool {
        self.0 & (Self::TIMED | Self::COOPERATES | Self::KEYS) != 0
    }

    /// Returns `true` if a call that asks for a claim has more to do before its admission, or under
    /// bounds.
    #[inline]
    pub(crate) const fn has_more_than_keys(self) -> bool {
        self.0 & !Self::KEYS != 0
    }

    /// Returns `true` if only the bounds of its key concern a call that asks for a claim.
    #[inline]
    pub(crate) const fn has_only_key_bounds(self) -> bool {
        self.0 & !Self::KEYS == Self::KEY_BOUNDS
    }

    /// Returns `true` if a call has more to do before its admission than a mark and a claim.
    #[inline]
    pub(crate) const fn has_more_than_marks_and_keys(self) -> bool {
        self.0 & (Self::TIMED | Self::COOPERATES) != 0
    }

    /// Returns `true` if calls may carry marks for a limit that adapts or is observed.
    #[inline]
    pub(crate) const fn has_marks(self) -> bool {
        self.0 & Self::MARKS != 0
    }

    /// Returns `true` if every call carries a mark.
    #[inline]
    pub(crate) const fn marks_all(self) -> bool {
        self.0 & Self::MARKS_ALL != 0
    }

    /// Returns `true` if permits are shared between keys.
    #[inline]
    pub(crate) const fn has_keys(self) -> bool {
        self.0 & Self::KEYS != 0
    }

    /// Returns `true` if [`has_marks`](Self::has_marks) or [`has_keys`](Self::has_keys) does.
    #[inline]
    pub(crate) const fn has_marks_or_keys(self) -> bool {
        self.0 & (Self::MARKS | Self::KEYS) != 0
    }

    /// Returns `true` if [`has_times`](Self::has_times) or [`has_keys`](Self::has_keys) does.
    #[inline]
    pub(crate) const fn has_times_or_keys(self) -> bool {
        self.0 & (Self::TIMED | Self::KEYS) != 0
    }

    /// Returns `true` if [`has_times`](Self::has_times) or [`has_marks`](Self::has_marks) does.
    #[inline]
    pub(crate) const fn has_times_or_marks(self) -> bool {
        self.0 & (Self::TIMED | Self::MARKS) != 0
    }

    /// Returns `true` if a call has more to do before its admission than to cooperate.
    #[inline]
    pub(crate) const fn has_more_than_cooperation(self) -> bool {
        self.0 & (Self::TIMED | Self::MARKS | Self::KEYS) != 0
    }
}

impl ConfiguredLimits {
    pub(crate) fn new(
        limits: TimeLimits,
        times_needed: bool,
        marks: Marks,
        keys: KeySharing,
        cooperates: bool,
    ) -> Self {
        let none = || AtomicU64::new(Limit::NONE.0);
        let configured = Self {
            setup: AtomicU8::new(if cooperates { Setup::COOPERATES } else { 0 }),
            timeout: none(),
            max_wait: none(),
            run_timeout: none(),
        };
        configured.set(limits, times_needed, marks, keys);
        configured
    }

    /// `times_needed`: the times of calls are needed even if there are no limits.
    pub(crate) fn set(
        &self,
        limits: TimeLimits,
        times_needed: bool,
        marks: Marks,
        keys: KeySharing,
    ) {
        self.timeout.store(limits.timeout.0, Ordering::Relaxed);
        self.max_wait.store(limits.max_wait.0, Ordering::Relaxed);
        self.run_timeout
            .store(limits.run_timeout.0, Ordering::Relaxed);
        let timed = times_needed || limits != TimeLimits::NONE;
        let bits = [
            (timed, Setup::TIMED),
            (marks != Marks::None, Setup::MARKS),
            (marks == Marks::All, Setup::MARKS_ALL),
            (keys != KeySharing::None, Setup::KEYS),
            (keys == KeySharing::Bounded, Setup::KEY_BOUNDS),
        ];
        for (is_set, bit) in bits {
            if is_set {
                self.setup.fetch_or(bit, Ordering::Relaxed);
            } else {
                self.setup.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// Returns what a call must do before its admission.
    #[inline]
    pub(crate) fn setup(&self) -> Setup {
        Setup(self.setup.load(Ordering::Relaxed))
    }

    /// Returns the limits of one call: `own`, completed by the configured limits.
    pub(crate) fn resolve(&self, own: TimeLimits) -> TimeLimits {
        TimeLimits {
            timeout: own.timeout.or(&self.timeout),
            max_wait: own.max_wait.or(&self.max_wait),
            run_timeout: own.run_timeout.or(&self.run_timeout),
        }
    }
}
