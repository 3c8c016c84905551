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
    Unsupported(&'static Lack),
}

/// What a runtime can't do, and which setting or method of the call's needs it.
#[derive(Debug)]
pub(crate) struct Lack {
    pub(crate) setting: &'static str,
    pub(crate) needs: &'static str,
}

impl Lack {
    pub(crate) const TIMEOUT: Self = Self {
        setting: "timeout",
        needs: "timers",
    };
    pub(crate) const MAX_WAIT: Self = Self {
        setting: "max_wait",
        needs: "timers",
    };
    pub(crate) const RUN_TIMEOUT: Self = Self {
        setting: "run_timeout",
        needs: "timers",
    };
    pub(crate) const BLOCKING: Self = Self {
        setting: "execute_blocking",
        needs: "threads for blocking work",
    };
}

impl Rejection {
    /// The name in lower case, as in spans, events and metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Circuit(refusal) => refusal.reason.as_str(),
            Self::Full => "full",
            Self::TimedOut => "timed_out_in_queue",
            Self::Shutdown => "shutdown",
            Self::Unsupported(_) => "unsupported",
        }
    }
}
