//! Settings with which a process uses a store.

use std::sync::Arc;
use std::time::Duration;

use super::instance::default_instance;
use super::{SharingMode, StoreCapabilities};
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
    /// Default: program, host and process id, as in `checkout@node-7:4121`.
    pub instance: Option<Arc<str>>,
    /// The version of the application, for the list of processes.
    ///
    /// 1 to 200 bytes without control characters. Default: none.
    pub application_version: Option<Arc<str>>,
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
            application_version: None,
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

    /// Sets [`application_version`](Self#structfield.application_version).
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// let settings = StoreSettings::new().application_version("1.4.2");
    /// assert_eq!(settings.application_version.as_deref(), Some("1.4.2"));
    /// ```
    #[must_use]
    pub fn application_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.application_version = Some(version.into());
        self
    }

    /// Returns the name of this process: [`instance`](Self#structfield.instance), or its default.
    ///
    /// The host is that of the environment variable `HOSTNAME` or of the system.
    ///
    /// ```
    /// # use bulkman::store::StoreSettings;
    /// let process_id = std::process::id().to_string();
    /// assert!(StoreSettings::new().instance_name().ends_with(&process_id));
    /// let named = StoreSettings::new().instance("shop-7f9c");
    /// assert_eq!(&*named.instance_name(), "shop-7f9c");
    /// ```
    #[must_use]
    pub fn instance_name(&self) -> Arc<str> {
        self.instance.clone().unwrap_or_else(default_instance)
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
        let texts = [
            ("instance", &self.instance),
            ("application_version", &self.application_version),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                name::check(field, text, 200, "1 to 200 bytes")?;
            }
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
pub(super) const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FleetCountPolicy;

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
            (
                StoreSettings::new().application_version(""),
                "application_version",
            ),
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
}
