//! What the processes of a fleet share.

use std::time::Duration;

use super::FleetCountPolicy;
use super::settings::MAX_DURATION;
use crate::config_error::ConfigError;

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

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
