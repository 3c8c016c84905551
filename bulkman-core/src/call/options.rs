//! The options with which a single call overrides the configuration.

use crate::call::deadlines::{Deadlines, TimeLimits};
use crate::queue::{Claim, Priority};

/// What the admission of a call needs to know, in one word.
///
/// ```text
///  63 ..... 32   12 ..... 3       2         1 ... 0
/// |  weight  |  key share  |  unsampled  |  priority  |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallClass(u64);

impl CallClass {
    const PRIORITY: u64 = 0b11;
    const UNSAMPLED: u64 = 1 << 2;
    const SHARE: u32 = 3;
    const SHARE_BITS: u64 = (1 << 10) - 1;
    const WEIGHT: u32 = 32;

    /// The class of a call that overrides nothing.
    pub(crate) const DEFAULT: Self =
        Self(Priority::Normal as u64 | 1 << Self::SHARE | 1 << Self::WEIGHT);

    pub(crate) const fn with_priority(self, priority: Priority) -> Self {
        Self(self.0 & !Self::PRIORITY | priority as u64)
    }

    pub(crate) const fn with_samples(self, samples: bool) -> Self {
        let unsampled = if samples { 0 } else { Self::UNSAMPLED };
        Self(self.0 & !Self::UNSAMPLED | unsampled)
    }

    /// Clamps to the range of 1 to 1,000.
    pub(crate) const fn with_key_share(self, share: u32) -> Self {
        let share = match share {
            0 => 1,
            1..=1000 => share as u64,
            _ => 1000,
        };
        Self(self.0 & !(Self::SHARE_BITS << Self::SHARE) | share << Self::SHARE)
    }

    pub(crate) const fn key_share(self) -> u32 {
        (self.0 >> Self::SHARE & Self::SHARE_BITS) as u32
    }

    /// Zero means one.
    pub(crate) const fn with_weight(self, weight: u32) -> Self {
        let weight = if weight == 0 { 1 } else { weight as u64 };
        Self(self.0 & u32::MAX as u64 | weight << Self::WEIGHT)
    }

    pub(crate) const fn priority(self) -> Priority {
        match self.0 & Self::PRIORITY {
            code if code == Priority::High as u64 => Priority::High,
            code if code == Priority::Low as u64 => Priority::Low,
            _ => Priority::Normal,
        }
    }

    /// Returns `true` if an adaptive limit may learn from the call.
    pub(crate) const fn is_sampled(self) -> bool {
        self.0 & Self::UNSAMPLED == 0
    }

    /// Returns the permits that the caller asks for, as given.
    pub(crate) const fn weight(self) -> u32 {
        (self.0 >> Self::WEIGHT) as u32
    }
}

/// The options of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallOptions {
    /// `None`: as configured, and the times of the call are not needed.
    limits: Option<TimeLimits>,
    pub(crate) class: CallClass,
    /// The key; zero for none.
    pub(crate) key: u64,
    /// The id of the report that the caller asks for; zero if there is none.
    pub(crate) report_id: u64,
}

impl CallOptions {
    /// The options of a call that overrides nothing.
    pub(crate) const DEFAULT: Self = Self {
        limits: None,
        class: CallClass::DEFAULT,
        key: 0,
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
            None if self.claim().is_plain() => Deadlines::Untracked,
            None => Deadlines::CLAIMS,
        }
    }

    /// Returns what the call asks for.
    #[inline]
    pub(crate) const fn claim(&self) -> Claim {
        Claim::new(self.class.weight()).with_key(self.key)
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    #[test]
    fn class_keeps_its_parts() {
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            for samples in [true, false] {
                for weight in [1, 7, u32::MAX] {
                    let class = CallClass::DEFAULT
                        .with_weight(3)
                        .with_samples(samples)
                        .with_priority(Priority::Low)
                        .with_weight(weight)
                        .with_priority(priority);
                    assert_eq!((class.priority(), class.is_sampled()), (priority, samples));
                    let shared = class.with_key_share(5_000).with_key_share(7);
                    assert_eq!((shared.weight(), shared.key_share()), (weight, 7));
                    assert_eq!(shared.with_key_share(0), class);
                    assert_eq!(
                        class.with_samples(true).with_weight(0),
                        CallClass::DEFAULT.with_priority(priority)
                    );
                }
            }
        }
    }
}
