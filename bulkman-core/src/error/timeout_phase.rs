//! The phase in which a call timed out.

use std::fmt;

/// The phase in which a call timed out.
///
/// ```
/// use bulkman::error::TimeoutPhase;
///
/// assert_eq!(TimeoutPhase::Queued.to_string(), "queued");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
// As wide as a register, as the other parts of an error: see `PackedRejection`.
#[repr(u64)]
#[non_exhaustive]
pub enum TimeoutPhase {
    /// The operation was never started.
    ///
    /// The call was waiting for a permit, or for a thread for its blocking work.
    Queued,
    /// The operation was running.
    Running,
}

impl fmt::Display for TimeoutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
        })
    }
}
