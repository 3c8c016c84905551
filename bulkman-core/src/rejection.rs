//! Why a call does not get to run, before anybody asks for words.

use crate::error::Denied;

/// Why a call does not get to run.
///
/// Small, for it is handed from step to step before it becomes an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rejection {
    Circuit(Denied),
    Full,
    TimedOut,
    Shutdown,
    /// The runtime has no timers, which this limit of the call's needs.
    NeedsTimers(&'static &'static str),
}

impl Rejection {
    /// The name in lower case, as in spans, events and metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Circuit(refusal) => refusal.reason.as_str(),
            Self::Full => "full",
            Self::TimedOut => "timed_out_waiting",
            Self::Shutdown => "shutdown",
            Self::NeedsTimers(_) => "unsupported",
        }
    }
}
