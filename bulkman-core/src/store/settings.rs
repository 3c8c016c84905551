//! Settings with which a process uses a store.

use std::sync::Arc;
use std::time::Duration;

use super::StoreCapabilities;
use super::counts::BucketedWindow;
use crate::config_error::ConfigError;
use crate::name;

/// The settings with which a process uses a store.
///
/// The defaults suit a fleet of several hundred processes. Durations are at least 1 ms, unless
/// stated otherwise.
///
/// ```
/// use bulkman::store::{SharingMode, StoreSettings};
/// use std::time::Duration;
///
/// let settings = StoreSettings::new()
///     .operation_timeout(Duration::from_millis(500))
///     .share(SharingMode::quorum(3, Duration::from_secs(10)));
/// settings.validate()?;
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StoreSettings {
    /// The time limit of one operation, after which the session is dropped. Default: 2 s.
    pub operation_timeout: Duration,
    /// The time limit for connecting. Default: 3 s.
    ///
    /// A session is open at most this and twice `operation_timeout` later, or the attempt is
    /// abandoned.
    pub connect_timeout: Duration,
    /// Whether to use the notifications of the store. Default: [`Push::Auto`].
    pub push: Push,
    /// With push: the interval of reads that find missed changes and dead connections.
    ///
    /// Each interval is shortened at random by up to a tenth, so that the processes of a fleet
    /// don't read in step. Default: 5 s.
    pub resync_interval: Duration,
    /// Without push: the interval of reads, shortened at random by up to a tenth. Default: 1 s.
    pub poll_interval: Duration,
    /// The upper bound of the first reconnect delay: from zero to `backoff_max`. Default: 100 ms.
    pub backoff_min: Duration,
    /// The bound up to which the reconnect delay doubles.
    ///
    /// Each delay is drawn at random between zero and its bound, so that the processes of a fleet
    /// don't reconnect in step. Default: 2 s.
    pub backoff_max: Duration,
    /// The time until a probe lease expires that its holder no longer renews.
    ///
    /// From 1.5 times `operation_timeout` to a day. Default: 6 s.
    pub lease_ttl: Duration,
    /// The maximum number of concurrent probes in the whole fleet: 1 to 1000. Default: 1.
    pub probe_limit: u16,
    /// The maximum random delay before a process requests a lease; may be zero. Default: 250 ms.
    ///
    /// It keeps the processes of a fleet from requesting leases all at once.
    pub probe_jitter: Duration,
    /// What the fleet shares. Default: [`SharingMode::STATE`].
    pub share: SharingMode,
    /// With [`SharingMode::Counts`]: the interval at which counts are sent. Default: 1 s.
    pub flush_interval: Duration,
    /// How long a lost session is no outage: half-open circuits wait for the fleet's leases.
    ///
    /// A lease that was held remains usable until it expires. Afterwards [`on_outage`] applies,
    /// in each process after a further random delay of up to five times this duration, so that
    /// the processes of a fleet don't probe all at once.
    ///
    /// An opening that waited longer for the store may concern only this process, for example
    /// because its network failed. It is published as a vote, and the circuit opens for the fleet
    /// when a second process votes, even with a quorum of one.
    ///
    /// May be zero. Default: 4 s.
    ///
    /// [`on_outage`]: Self#structfield.on_outage
    pub outage_after: Duration,
    /// What a half-open circuit does while the store is unavailable.
    ///
    /// Default: [`OnOutage::ProbeLocally`] with one probe.
    pub on_outage: OnOutage,
    /// The time limit for publishing pending decisions at shutdown; may be zero. Default: 500 ms.
    pub shutdown_flush: Duration,
    /// The name of this process in the history: 1 to 200 bytes without control characters.
    ///
    /// Default: `pid` and the process id.
    pub instance: Option<Arc<str>>,
}

/// Generates setters that only assign.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
        )*
    };
}

impl StoreSettings {
    /// Creates settings with the defaults.
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// # use std::time::Duration;
    /// assert_eq!(
    ///     StoreSettings::new().operation_timeout,
    ///     Duration::from_secs(2)
    /// );
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            operation_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            push: Push::Auto,
            resync_interval: Duration::from_secs(5),
            poll_interval: Duration::from_secs(1),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            lease_ttl: Duration::from_secs(6),
            probe_limit: 1,
            probe_jitter: Duration::from_millis(250),
            share: SharingMode::STATE,
            flush_interval: Duration::from_secs(1),
            outage_after: Duration::from_secs(4),
            on_outage: OnOutage::ProbeLocally { probes: 1 },
            shutdown_flush: Duration::from_millis(500),
            instance: None,
        }
    }

    setters! {
        /// Sets [`operation_timeout`](Self#structfield.operation_timeout).
        operation_timeout: Duration;
        /// Sets [`connect_timeout`](Self#structfield.connect_timeout).
        connect_timeout: Duration;
        /// Sets [`push`](Self#structfield.push).
        push: Push;
        /// Sets [`resync_interval`](Self#structfield.resync_interval).
        resync_interval: Duration;
        /// Sets [`poll_interval`](Self#structfield.poll_interval).
        poll_interval: Duration;
        /// Sets [`lease_ttl`](Self#structfield.lease_ttl).
        lease_ttl: Duration;
        /// Sets [`probe_limit`](Self#structfield.probe_limit).
        probe_limit: u16;
        /// Sets [`probe_jitter`](Self#structfield.probe_jitter).
        probe_jitter: Duration;
        /// Sets [`share`](Self#structfield.share).
        share: SharingMode;
        /// Sets [`flush_interval`](Self#structfield.flush_interval).
        flush_interval: Duration;
        /// Sets [`outage_after`](Self#structfield.outage_after).
        outage_after: Duration;
        /// Sets [`on_outage`](Self#structfield.on_outage).
        on_outage: OnOutage;
        /// Sets [`shutdown_flush`](Self#structfield.shutdown_flush).
        shutdown_flush: Duration;
    }

    /// Sets [`backoff_min`](Self#structfield.backoff_min) and
    /// [`backoff_max`](Self#structfield.backoff_max).
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// # use std::time::Duration;
    /// let settings =
    ///     StoreSettings::new().backoff(Duration::from_millis(50), Duration::from_secs(5));
    /// assert!(settings.validate().is_ok());
    /// ```
    #[must_use]
    pub const fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    /// Sets [`instance`](Self#structfield.instance).
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// let settings = StoreSettings::new().instance("shop-7f9c");
    /// assert_eq!(settings.instance.as_deref(), Some("shop-7f9c"));
    /// ```
    #[must_use]
    pub fn instance(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Checks that these settings are valid.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for the first invalid setting.
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// let error = StoreSettings::new().probe_limit(0).validate().unwrap_err();
    /// assert_eq!(error.to_string(), "`probe_limit` is 0, must be 1 to 1000");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("operation_timeout", self.operation_timeout),
            ("connect_timeout", self.connect_timeout),
            ("resync_interval", self.resync_interval),
            ("poll_interval", self.poll_interval),
            ("backoff_max", self.backoff_max),
            ("flush_interval", self.flush_interval),
        ];
        for (field, value) in positive {
            if value < Duration::from_millis(1) {
                return Err(ConfigError::out_of_range(
                    field,
                    format_args!("{value:?}"),
                    "1 ms or more",
                ));
            }
        }
        if self.backoff_min > self.backoff_max {
            return Err(ConfigError::out_of_range(
                "backoff_min",
                format_args!("{:?}", self.backoff_min),
                "at most backoff_max",
            ));
        }
        // A lease is renewed after a third of its TTL, and renewal may take an operation's timeout.
        if self.lease_ttl / 3 < self.operation_timeout / 2 || self.lease_ttl > MAX_DURATION {
            return Err(ConfigError::out_of_range(
                "lease_ttl",
                format_args!("{:?}", self.lease_ttl),
                "1.5 times operation_timeout to a day",
            ));
        }
        if !(1..=1000).contains(&self.probe_limit) {
            return Err(ConfigError::out_of_range(
                "probe_limit",
                self.probe_limit,
                "1 to 1000",
            ));
        }
        if let Some(instance) = &self.instance {
            name::check("instance", instance, 200, "1 to 200 bytes")?;
        }
        self.share.validate()
    }

    /// Checks that a store has the capabilities that these settings need.
    pub(crate) fn supported_by(&self, capabilities: StoreCapabilities) -> Result<(), ConfigError> {
        match self.share {
            SharingMode::State { quorum, .. } if quorum > 1 && !capabilities.votes => {
                Err(ConfigError::Requires {
                    setting: "share: quorum",
                    needs: "a store that counts votes",
                })
            }
            SharingMode::Counts(_) if !capabilities.counts => Err(ConfigError::Requires {
                setting: "share: counts",
                needs: "a store with fleet-wide counts",
            }),
            _ => Ok(()),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether to use the notifications of a store.
///
/// ```
/// use bulkman::store::{Push, StoreSettings};
///
/// // Behind a connection pooler that drops notifications.
/// let settings = StoreSettings::new().push(Push::Off);
/// # assert!(settings.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Push {
    /// Uses push if the store supports it, and polls once notifications fail to arrive.
    #[default]
    Auto,
    /// Always polls.
    Off,
}

/// What the processes of a fleet share through a store.
///
/// ```
/// use bulkman::store::{SharingMode, StoreSettings};
/// use std::time::Duration;
///
/// assert_eq!(StoreSettings::new().share, SharingMode::STATE);
/// let quorum =
///     StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(10)));
/// # assert!(quorum.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SharingMode {
    /// Shares the state: a circuit opens for all once a quorum of processes opened it.
    State {
        /// The number of processes that must open the circuit: 1 to 1000.
        ///
        /// With 1, a single faulty process can open a circuit for the whole fleet.
        quorum: u16,
        /// The time for which a process's opening counts as its vote.
        window: Duration,
    },
    /// Shares the state with a quorum of one, and the counts of calls.
    ///
    /// The circuit opens for all when the fleet's counts reach a threshold, even if no process
    /// reaches it alone.
    Counts(FleetCountPolicy),
}

impl SharingMode {
    /// Shares the state: the first process that opens a circuit opens it for all.
    pub const STATE: Self = Self::State {
        quorum: 1,
        window: Duration::from_secs(10),
    };

    /// Shares the state with a quorum: see [`State`](Self::State).
    ///
    /// ```
    /// # use bulkman::store::{SharingMode, StoreSettings};
    /// # use std::time::Duration;
    /// let share = SharingMode::quorum(3, Duration::from_secs(10));
    /// assert!(StoreSettings::new().share(share).validate().is_ok());
    /// assert!(
    ///     StoreSettings::new()
    ///         .share(SharingMode::quorum(0, Duration::from_secs(10)))
    ///         .validate()
    ///         .is_err()
    /// );
    /// ```
    #[must_use]
    pub const fn quorum(quorum: u16, window: Duration) -> Self {
        Self::State { quorum, window }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::State { quorum, window } => {
                if !(1..=1000).contains(quorum) {
                    return Err(ConfigError::out_of_range("quorum", quorum, "1 to 1000"));
                }
                if *quorum > 1 && (window.is_zero() || *window > MAX_DURATION) {
                    return Err(ConfigError::out_of_range(
                        "share: window",
                        format_args!("{window:?}"),
                        "more than zero, at most a day",
                    ));
                }
                Ok(())
            }
            Self::Counts(policy) => policy.validate(),
        }
    }
}

/// The thresholds at which the counts of a whole fleet open a circuit.
///
/// ```
/// use std::time::Duration;
/// use bulkman::store::{FleetCountPolicy, SharingMode};
///
/// // Within ten seconds: half of at least 200 calls of the fleet fail, or 500 calls fail.
/// let share = SharingMode::Counts(
///     FleetCountPolicy::new(Duration::from_secs(10), 10)
///         .failure_rate_threshold(0.5)
///         .minimum_number_of_calls(200)
///         .failure_count_threshold(500),
/// );
/// # let _ = share;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FleetCountPolicy {
    /// The window over which calls are counted.
    pub sliding_window: BucketedWindow,
    /// The number of failures that opens the circuit; `None` for no such threshold.
    pub failure_count_threshold: Option<u64>,
    /// The rate of failures that opens the circuit, above 0 and up to 1; `None` for no such
    /// threshold.
    pub failure_rate_threshold: Option<f64>,
    /// The number of calls below which the rate is not evaluated. Default: 10.
    pub minimum_number_of_calls: u64,
}

impl FleetCountPolicy {
    /// Creates a policy over a sliding window of `length`, divided into `buckets`.
    ///
    /// It needs at least one threshold.
    ///
    /// ```
    /// # use bulkman::store::{FleetCountPolicy, SharingMode, StoreSettings};
    /// # use std::time::Duration;
    /// let policy = FleetCountPolicy::new(Duration::from_secs(10), 10);
    /// let validate = |policy| {
    ///     StoreSettings::new()
    ///         .share(SharingMode::Counts(policy))
    ///         .validate()
    /// };
    /// assert!(validate(policy).is_err()); // no threshold yet
    /// assert!(validate(policy.failure_count_threshold(500)).is_ok());
    /// ```
    #[must_use]
    pub const fn new(length: Duration, buckets: u16) -> Self {
        Self {
            sliding_window: BucketedWindow::new(length, buckets),
            failure_count_threshold: None,
            failure_rate_threshold: None,
            minimum_number_of_calls: DEFAULT_MINIMUM_NUMBER_OF_CALLS,
        }
    }

    /// Sets the number of failures that opens the circuit: 1 or more. Default: off.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(500);
    /// assert!(!policy.opens(1_000_000, 499) && policy.opens(1_000_000, 500));
    /// ```
    #[must_use]
    pub const fn failure_count_threshold(mut self, failures: u64) -> Self {
        self.failure_count_threshold = Some(failures);
        self
    }

    /// Sets the rate of failures that opens the circuit: above 0, up to 1. Default: off.
    ///
    /// The rate is evaluated once the window has
    /// [`minimum_number_of_calls`](Self::minimum_number_of_calls).
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy = FleetCountPolicy::new(Duration::from_secs(10), 10)
    ///     .failure_rate_threshold(0.5)
    ///     .minimum_number_of_calls(200);
    /// assert!(!policy.opens(0, 199) && policy.opens(100, 100));
    /// ```
    #[must_use]
    pub const fn failure_rate_threshold(mut self, rate: f64) -> Self {
        self.failure_rate_threshold = Some(rate);
        self
    }

    /// Sets the number of calls of the fleet below which the rate is not evaluated. Default: 10.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_rate_threshold(0.5);
    /// assert!(!policy.opens(0, 9) && policy.opens(0, 10));
    /// assert!(policy.minimum_number_of_calls(1).opens(0, 1));
    /// ```
    #[must_use]
    pub const fn minimum_number_of_calls(mut self, calls: u64) -> Self {
        self.minimum_number_of_calls = calls;
        self
    }

    /// Returns `true` if these totals open the circuit.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let policy =
    ///     FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
    /// assert!(policy.opens(97, 3));
    /// ```
    #[must_use]
    pub fn opens(&self, successes: u64, failures: u64) -> bool {
        let calls = successes.saturating_add(failures);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a rate over more than 2^52 calls may be off by one"
        )]
        let rate_reached = self.failure_rate_threshold.is_some_and(|rate| {
            failures > 0
                && calls >= self.minimum_number_of_calls
                && failures as f64 >= rate * calls as f64
        });
        rate_reached
            || self
                .failure_count_threshold
                .is_some_and(|count| failures >= count)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let buckets = self.sliding_window.buckets;
        let bucket = self.sliding_window.bucket_length();
        if !(1..=1000).contains(&buckets) {
            return Err(ConfigError::out_of_range(
                "counts: sliding_window: buckets",
                buckets,
                "1 to 1000",
            ));
        }
        if bucket < Duration::from_millis(1) || bucket > MAX_DURATION {
            return Err(ConfigError::out_of_range(
                "counts: sliding_window: length",
                format_args!("{:?}", self.sliding_window.length),
                "1 ms to a day per bucket",
            ));
        }
        match (self.failure_count_threshold, self.failure_rate_threshold) {
            (None, None) => Err(ConfigError::out_of_range(
                "counts: thresholds",
                "none",
                "at least one",
            )),
            (Some(0), _) => Err(ConfigError::out_of_range(
                "failure_count_threshold",
                0,
                "1 or more",
            )),
            (_, Some(rate)) if !(rate > 0.0 && rate <= 1.0) => Err(ConfigError::out_of_range(
                "failure_rate_threshold",
                rate,
                "more than 0, at most 1",
            )),
            _ => Ok(()),
        }
    }
}

/// What a half-open circuit does while the store is unavailable.
///
/// ```
/// use bulkman::store::{OnOutage, StoreSettings};
///
/// assert_eq!(
///     StoreSettings::new().on_outage,
///     OnOutage::ProbeLocally { probes: 1 }
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// Each process probes within its own limit.
    ProbeLocally {
        /// The maximum number of concurrent probes of one process: 1 or more.
        probes: u16,
    },
    /// Open circuits stay open until the store is available again.
    HoldOpen,
}

/// The upper bound of a lease, vote or bucket: a day.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// The default of the circuit breaker, too.
pub(super) const DEFAULT_MINIMUM_NUMBER_OF_CALLS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_errors_name_the_setting() {
        StoreSettings::new().validate().unwrap();
        StoreSettings::new()
            .instance("blue-7 / 日本")
            .validate()
            .unwrap();
        let bad = [
            (
                StoreSettings::new().operation_timeout(Duration::ZERO),
                "operation_timeout",
            ),
            (
                StoreSettings::new().poll_interval(Duration::ZERO),
                "poll_interval",
            ),
            (
                StoreSettings::new().backoff(Duration::from_secs(3), Duration::from_secs(2)),
                "backoff_min",
            ),
            (
                StoreSettings::new().lease_ttl(Duration::from_secs(2)),
                "lease_ttl",
            ),
            (StoreSettings::new().probe_limit(0), "probe_limit"),
            (StoreSettings::new().instance(""), "instance"),
            (StoreSettings::new().instance("a\0b"), "instance"),
            (StoreSettings::new().instance("i".repeat(201)), "instance"),
            (
                StoreSettings::new().share(SharingMode::quorum(0, Duration::from_secs(1))),
                "quorum",
            ),
            (
                StoreSettings::new().share(SharingMode::quorum(2, Duration::ZERO)),
                "window",
            ),
            (
                StoreSettings::new().share(SharingMode::Counts(FleetCountPolicy::new(
                    Duration::from_secs(1),
                    2,
                ))),
                "thresholds",
            ),
        ];
        for (settings, field) in bad {
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error} should name {field}");
        }
    }

    #[test]
    fn unsupported_capability_error_names_the_store() {
        let quorum = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(1)));
        let message = |settings: &StoreSettings, capabilities| {
            settings.supported_by(capabilities).unwrap_err().to_string()
        };
        assert_eq!(
            message(&quorum, StoreCapabilities::STATE),
            "`share: quorum` needs a store that counts votes"
        );
        let counts = StoreSettings::new().share(SharingMode::Counts(FleetCountPolicy::new(
            Duration::from_secs(10),
            10,
        )));
        assert_eq!(
            message(&counts, StoreCapabilities::STATE),
            "`share: counts` needs a store with fleet-wide counts"
        );
        quorum.supported_by(StoreCapabilities::ALL).unwrap();
        counts.supported_by(StoreCapabilities::ALL).unwrap();
    }

    #[test]
    fn fleet_counts_open_at_the_threshold() {
        let policy = FleetCountPolicy::new(Duration::from_secs(10), 10)
            .failure_rate_threshold(0.5)
            .minimum_number_of_calls(10);
        assert!(!policy.opens(4, 5), "nine calls are too few");
        assert!(policy.opens(5, 5));
        assert!(!policy.opens(6, 5));
        let policy = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
        assert!(policy.opens(1_000, 3) && !policy.opens(0, 2));
    }
}
