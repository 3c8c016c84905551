//! The demand for a probe lease, and how the driver of the fleet gets to know it.

/// Whether calls need a probe lease, and whether the driver takes care of it.
///
/// Waking the driver costs more than a call. Rejected calls therefore notify it once, and not at
/// all while it polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LeaseDemand {
    /// No call needs a lease.
    #[default]
    None,
    /// A call needs a lease. The next one that does notifies the driver again.
    Wanted,
    /// A call needs a lease, and the driver has been notified or polls.
    Signalled,
    /// The driver acts on a demand that it has read, or polls for one.
    DriverPolls,
    /// The driver will poll once the current isolation has elapsed.
    DriverPollsAfterIsolation,
}

impl LeaseDemand {
    /// A call was rejected for lack of a lease. Returns `true` if the driver is to be notified.
    pub(super) fn want(&mut self) -> bool {
        let covered = matches!(self, Self::Signalled | Self::DriverPolls);
        *self = Self::Signalled;
        !covered
    }

    /// The driver reads the demand. Returns `true` if there is one.
    pub(super) fn take(&mut self) -> bool {
        match self {
            Self::Wanted => *self = Self::None,
            Self::Signalled => *self = Self::DriverPolls,
            Self::None | Self::DriverPolls | Self::DriverPollsAfterIsolation => return false,
        }
        true
    }

    /// The driver no longer polls. Returns `true` if it is to be notified of a demand.
    pub(super) fn stop_polling(&mut self) -> bool {
        let wanted = matches!(self, Self::Wanted | Self::Signalled);
        *self = if wanted { Self::Signalled } else { Self::None };
        wanted
    }

    /// The lease was used: from now on a demand is a new one.
    pub(super) fn lease_used(&mut self) {
        *self = match self {
            Self::Wanted | Self::Signalled => Self::Wanted,
            Self::None | Self::DriverPolls => Self::None,
            Self::DriverPollsAfterIsolation => Self::DriverPollsAfterIsolation,
        };
    }

    /// A state was entered, `isolation_elapsed` or for another reason.
    pub(super) fn state_entered(&mut self, isolation_elapsed: bool) {
        *self = match self {
            Self::DriverPollsAfterIsolation if isolation_elapsed => Self::DriverPolls,
            _ => Self::None,
        };
    }
}
