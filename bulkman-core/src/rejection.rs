//! Why a call does not get to run, before anybody asks for words.

use crate::error::CircuitOpen;

/// Why a call does not get to run.
#[derive(Debug)]
pub(crate) enum Rejection {
    Circuit(CircuitOpen),
    Full,
    TimedOut,
    Shutdown,
    Unsupported { setting: &'static str, needs: &'static str },
}

impl Rejection {
    /// The name in lower case, as in spans, events and metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Circuit(refusal) => refusal.reason.as_str(),
            Self::Full => "full",
            Self::TimedOut => "timed_out_waiting",
            Self::Shutdown => "shutdown",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}
