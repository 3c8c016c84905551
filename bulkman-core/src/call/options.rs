//! The options with which a single call overrides the configuration.

use crate::bulkhead::running::CallTags;
use crate::call::deadlines::Deadlines;
use crate::call::limits::TimeLimits;

/// The options of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    /// `None`: as configured, and the times of the call are not needed.
    limits: Option<TimeLimits>,
    pub(crate) tags: CallTags,
    /// The id of the report that the caller asks for; zero if there is none.
    pub(crate) report_id: u64,
}

impl CallOptions {
    /// The options of a call that overrides nothing.
    pub(crate) const DEFAULT: Self = Self {
        limits: None,
        tags: CallTags::DEFAULT,
        report_id: 0,
    };

    /// Returns the limits to override. The times of the call are tracked from now on.
    pub(crate) fn limits_mut(&mut self) -> &mut TimeLimits {
        self.limits.get_or_insert(TimeLimits::AS_CONFIGURED)
    }

    #[inline]
    pub(crate) const fn deadlines(&self) -> Deadlines {
        match self.limits {
            Some(limits) => Deadlines::Requested(limits),
            None => Deadlines::Untracked,
        }
    }
}
