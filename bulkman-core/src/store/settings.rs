//! How a process uses a store.

use std::sync::Arc;
use std::time::Duration;

use super::StoreCapabilities;
use super::counts::BucketedWindow;
use crate::config_error::ConfigError;
use crate::name;

/// How a process uses a store; every setting has a default that suits a fleet of some hundreds.
///
/// Durations are at least a millisecond, where nothing else is said.
///
/// ```
/// use std::time::Duration;
/// use bulkman::store::{SharingMode, StoreSettings};
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
    /// How long one operation may take before the link is given up. Default: 2 s.
    pub operation_timeout: Duration,
    /// How long connecting may take. Default: 3 s.
    pub connect_timeout: Duration,
    /// Whether to rely on what the store pushes. Default: [`Push::Auto`].
    pub push: Push,
    /// With push: how often to look whether something was missed, which also notices a dead
    /// link; up to a tenth earlier, so that a fleet does not move in step. Default: 5 s.
    pub resync_interval: Duration,
    /// Without push: how often to look; up to a tenth earlier. Default: 1 s.
    pub poll_interval: Duration,
    /// After a failure: the first wait before connecting again is at most this, from zero to
    /// `backoff_max`. Default: 100 ms.
    pub backoff_min: Duration,
    /// And it doubles up to this. Each wait is drawn at random between zero and its bound, so
    /// that a fleet does not return in step. Default: 2 s.
    pub backoff_max: Duration,
    /// How long a probe lease outlives its holder: from 1.5 times `operation_timeout` to a day.
    /// Default: 30 s.
    pub lease_ttl: Duration,
    /// Probes out at the same time in the whole fleet: 1 to 1000. Default: 1.
    pub probe_limit: u16,
    /// A process waits up to this, at random, before it asks for a lease, so that the whole
    /// fleet does not ask at once; may be zero. Default: 250 ms.
    pub probe_jitter: Duration,
    /// What is shared. Default: [`SharingMode::STATE`].
    pub share: SharingMode,
    /// With [`SharingMode::Counts`]: how often counts are sent. Default: 1 s.
    pub flush_interval: Duration,
    /// What half-open means while the store can't be reached. Default: [`OnOutage::ProbeLocally`] with one probe.
    pub on_outage: OnOutage,
    /// How long a shutdown may wait to publish what is pending; may be zero. Default: 500 ms.
    pub shutdown_flush: Duration,
    /// What the history calls this process: 1 to 200 bytes without control characters. Default: `pid` and the
    /// process's id.
    pub instance: Option<Arc<str>>,
}

/// Setters that only assign.
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
    /// The defaults.
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// # use std::time::Duration;
    /// assert_eq!(StoreSettings::new().operation_timeout, Duration::from_secs(2));
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
            lease_ttl: Duration::from_secs(30),
            probe_limit: 1,
            probe_jitter: Duration::from_millis(250),
            share: SharingMode::STATE,
            flush_interval: Duration::from_secs(1),
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
    /// let settings = StoreSettings::new().backoff(Duration::from_millis(50), Duration::from_secs(5));
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

    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for the first that can't.
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
        // A lease is renewed at a third of its term, and a renewal may take an operation's time.
        if self.lease_ttl / 3 < self.operation_timeout / 2 || self.lease_ttl > MAX_TERM {
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

    /// Whether a store can do what these settings ask for.
    pub(crate) fn supported_by(&self, able: StoreCapabilities) -> Result<(), ConfigError> {
        match self.share {
            SharingMode::State { quorum, .. } if quorum > 1 && !able.votes => {
                Err(ConfigError::Requires {
                    setting: "share: quorum",
                    needs: "a store that counts votes",
                })
            }
            SharingMode::Counts(_) if !able.counts => Err(ConfigError::Requires {
                setting: "share: counts",
                needs: "a store that counts",
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

/// Whether to rely on what the store pushes.
///
/// ```
/// use bulkman::store::{Push, StoreSettings};
///
/// // Behind a connection pooler that loses notifications.
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
    /// Where the store can, until it turns out not to deliver: then poll.
    #[default]
    Auto,
    /// Never: poll.
    Off,
}

/// What the processes of a fleet share.
///
/// ```
/// use bulkman::store::{SharingMode, StoreSettings};
/// use std::time::Duration;
///
/// assert_eq!(StoreSettings::new().share, SharingMode::STATE);
/// let two_of_them = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(10)));
/// # assert!(two_of_them.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SharingMode {
    /// The state: when so many processes have opened within the window, all open.
    State {
        /// Processes that make an opening: 1 to 1000. One bad node can open a circuit for all
        /// only when it is 1.
        quorum: u16,
        /// How long a process's own opening counts as its vote.
        window: Duration,
    },
    /// The state, with a quorum of one, and the counts: when all together have failed so often,
    /// all open, even where none would have alone.
    Counts(FleetCountPolicy),
}

impl SharingMode {
    /// The state: the first to open, opens for all.
    pub const STATE: Self = Self::State {
        quorum: 1,
        window: Duration::from_secs(10),
    };

    /// The state, with a quorum.
    ///
    /// ```
    /// # use bulkman::store::{SharingMode, StoreSettings};
    /// # use std::time::Duration;
    /// let share = SharingMode::quorum(3, Duration::from_secs(10));
    /// assert!(StoreSettings::new().share(share).validate().is_ok());
    /// assert!(StoreSettings::new().share(SharingMode::quorum(0, Duration::from_secs(10))).validate().is_err());
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
                if *quorum > 1 && (window.is_zero() || *window > MAX_TERM) {
                    return Err(ConfigError::out_of_range(
                        "quorum's window",
                        format_args!("{window:?}"),
                        "more than zero, at most a day",
                    ));
                }
                Ok(())
            }
            Self::Counts(rule) => rule.validate(),
        }
    }
}

/// When the counts of a whole fleet open a circuit.
///
/// ```
/// use std::time::Duration;
/// use bulkman::store::{FleetCountPolicy, SharingMode};
///
/// // Half of at least 200 calls of the fleet within ten seconds, or 500 failures.
/// let share = SharingMode::Counts(
///     FleetCountPolicy::new(Duration::from_secs(10), 10)
///         .failure_rate_threshold(0.5, 200)
///         .failure_count_threshold(500),
/// );
/// # let _ = share;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FleetCountPolicy {
    /// Over how long.
    pub window: BucketedWindow,
    /// This many failures open.
    pub failure_count: Option<u64>,
    /// This share of failures opens, 0 to 1 ..
    pub failure_rate: Option<f64>,
    /// .. once there were this many calls.
    pub minimum_calls: u64,
}

impl FleetCountPolicy {
    /// A rule over the last `length`, counted in `buckets`; it needs at least one threshold.
    ///
    /// ```
    /// # use bulkman::store::{FleetCountPolicy, SharingMode, StoreSettings};
    /// # use std::time::Duration;
    /// let rule = FleetCountPolicy::new(Duration::from_secs(10), 10);
    /// let validate = |rule| StoreSettings::new().share(SharingMode::Counts(rule)).validate();
    /// assert!(validate(rule).is_err());                   // no threshold yet
    /// assert!(validate(rule.failure_count_threshold(500)).is_ok());
    /// ```
    #[must_use]
    pub fn new(length: Duration, buckets: u16) -> Self {
        Self {
            window: BucketedWindow::new(length / u32::from(buckets.max(1)), buckets),
            failure_count: None,
            failure_rate: None,
            minimum_calls: 1,
        }
    }

    /// Opens at this many failures.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let rule = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(500);
    /// assert!(!rule.opens(1_000_000, 499) && rule.opens(1_000_000, 500));
    /// ```
    #[must_use]
    pub const fn failure_count_threshold(mut self, failures: u64) -> Self {
        self.failure_count = Some(failures);
        self
    }

    /// Opens when this share of at least `minimum_calls` calls failed.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let rule = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_rate_threshold(0.5, 200);
    /// assert!(!rule.opens(0, 199) && rule.opens(100, 100));
    /// ```
    #[must_use]
    pub const fn failure_rate_threshold(mut self, rate: f64, minimum_calls: u64) -> Self {
        self.failure_rate = Some(rate);
        self.minimum_calls = minimum_calls;
        self
    }

    /// Whether totals like these open.
    ///
    /// ```
    /// # use bulkman::store::FleetCountPolicy;
    /// # use std::time::Duration;
    /// let rule = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
    /// assert!(rule.opens(97, 3));
    /// ```
    #[must_use]
    pub fn opens(&self, successes: u64, failures: u64) -> bool {
        let calls = successes.saturating_add(failures);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a rate of more than 2^52 calls may be off by one"
        )]
        let rate_reached = self.failure_rate.is_some_and(|rate| {
            failures > 0 && calls >= self.minimum_calls && failures as f64 >= rate * calls as f64
        });
        rate_reached || self.failure_count.is_some_and(|count| failures >= count)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1000).contains(&self.window.buckets) {
            return Err(ConfigError::out_of_range(
                "counts' buckets",
                self.window.buckets,
                "1 to 1000",
            ));
        }
        if self.window.bucket < Duration::from_millis(1) || self.window.bucket > MAX_TERM {
            return Err(ConfigError::out_of_range(
                "counts' bucket",
                format_args!("{:?}", self.window.bucket),
                "1 ms to a day",
            ));
        }
        match (self.failure_count, self.failure_rate) {
            (None, None) => Err(ConfigError::out_of_range(
                "counts' thresholds",
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

/// What a half-open circuit does while the store can't be reached.
///
/// ```
/// use bulkman::store::{OnOutage, StoreSettings};
///
/// assert_eq!(StoreSettings::new().on_outage, OnOutage::ProbeLocally { probes: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// Each process probes for itself, this many calls at once at most.
    ProbeLocally {
        /// At least 1.
        probes: u16,
    },
    /// Nobody probes: what is open stays open until the store is back.
    HoldOpen,
}

/// No term of a lease, vote or bucket is longer: a day.
const MAX_TERM: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_limit_is_named() {
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
    fn what_a_store_is_not_able_to_do_is_said_of_the_store() {
        let quorum = StoreSettings::new().share(SharingMode::quorum(2, Duration::from_secs(1)));
        let told =
            |settings: &StoreSettings, able| settings.supported_by(able).unwrap_err().to_string();
        assert_eq!(
            told(&quorum, StoreCapabilities::STATE),
            "`share: quorum` needs a store that counts votes"
        );
        let counts = StoreSettings::new().share(SharingMode::Counts(FleetCountPolicy::new(
            Duration::from_secs(10),
            10,
        )));
        assert_eq!(
            told(&counts, StoreCapabilities::STATE),
            "`share: counts` needs a store that counts"
        );
        quorum.supported_by(StoreCapabilities::ALL).unwrap();
        counts.supported_by(StoreCapabilities::ALL).unwrap();
    }

    #[test]
    fn counts_open_at_the_threshold_and_not_below() {
        let rule =
            FleetCountPolicy::new(Duration::from_secs(10), 10).failure_rate_threshold(0.5, 10);
        assert!(!rule.opens(4, 5), "nine calls are too few");
        assert!(rule.opens(5, 5));
        assert!(!rule.opens(6, 5));
        let rule = FleetCountPolicy::new(Duration::from_secs(10), 10).failure_count_threshold(3);
        assert!(rule.opens(1_000, 3) && !rule.opens(0, 2));
    }
}
