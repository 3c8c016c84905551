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
    /// The permits that the call asks for, 1 or more.
    pub(crate) weight: u32,
    /// The share of the key, 1 to 1,000.
    pub(crate) key_share: u32,
    /// The key; zero for none.
    pub(crate) key: u64,
    /// The id of the report that the caller asks for; zero if there is none.
    pub(crate) report_id: u64,
}

impl CallOptions {
    /// The options of a call that overrides nothing.
    pub(crate) const DEFAULT: Self = Self {
        limits: None,
        tags: CallTags::DEFAULT,
        weight: 1,
        key_share: 1,
        key: 0,
        report_id: 0,
    };

    /// Returns `true` if the call asks for one permit and has no key.
    #[inline]
    pub(crate) const fn is_ordinary(&self) -> bool {
        self.weight == 1 && self.key == 0 && self.key_share == 1
    }

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
