//! The options with which a single call overrides the configuration.

use crate::call::deadlines::{Deadlines, TimeLimits};
use crate::queue::Priority;

/// What the admission of a call needs to know, in one byte, since every future contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallClass(u8);

impl CallClass {
    const UNSAMPLED: u8 = 1 << 2;

    /// The class of a call that overrides nothing.
    pub(crate) const DEFAULT: Self = Self(Priority::Normal as u8);

    pub(crate) const fn with_priority(self, priority: Priority) -> Self {
        Self(self.0 & Self::UNSAMPLED | priority as u8)
    }

    pub(crate) const fn with_samples(self, samples: bool) -> Self {
        let priority = self.0 & !Self::UNSAMPLED;
        Self(if samples {
            priority
        } else {
            priority | Self::UNSAMPLED
        })
    }

    pub(crate) const fn priority(self) -> Priority {
        match self.0 & !Self::UNSAMPLED {
            code if code == Priority::High as u8 => Priority::High,
            code if code == Priority::Low as u8 => Priority::Low,
            _ => Priority::Normal,
        }
    }

    /// Returns `true` if an adaptive limit may learn from the call.
    pub(crate) const fn is_sampled(self) -> bool {
        self.0 & Self::UNSAMPLED == 0
    }
}

/// The options of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    /// `None`: as configured, and the times of the call are not needed.
    limits: Option<TimeLimits>,
    pub(crate) class: CallClass,
    /// The id of the report that the caller asks for; zero if there is none.
    pub(crate) report_id: u64,
}

impl CallOptions {
    /// The options of a call that overrides nothing.
    pub(crate) const DEFAULT: Self = Self {
        limits: None,
        class: CallClass::DEFAULT,
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

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    #[test]
    fn class_keeps_priority_and_sampling() {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            for samples in [true, false] {
                let class = CallClass::DEFAULT
                    .with_samples(samples)
                    .with_priority(Priority::Low)
                    .with_priority(priority);
                assert_eq!((class.priority(), class.is_sampled()), (priority, samples));
                assert_eq!(
                    class.with_samples(true),
                    CallClass::DEFAULT.with_priority(priority)
                );
            }
        }
    }
}
