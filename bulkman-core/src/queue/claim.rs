//! What a call asks for, and then holds, in one word.

use super::limits::MAX_PERMITS;

/// The permits of a call: those that it asks for, and from its admission on those that it holds.
/// With fair shares, also its key.
///
/// ```text
///  63 ...... 20      19 .... 0
/// |  key or zero  |  permits  |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim(u64);

impl Claim {
    /// One permit, as most calls.
    pub(crate) const ONE: Self = Self(1);

    const PERMITS: u64 = (1 << Self::PERMIT_BITS) - 1;
    const PERMIT_BITS: u32 = 20;

    /// The key of all calls without a key.
    pub(crate) const SHARED_KEY: u64 = 1;

    /// Returns a claim for this number of permits. One that is too large for every bulkhead stays
    /// too large.
    pub(crate) const fn new(permits: u32) -> Self {
        if permits as u64 > Self::PERMITS {
            Self(Self::PERMITS)
        } else {
            Self(permits as u64)
        }
    }

    /// Returns `true` if the call is as most calls.
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 == Self::ONE.0
    }

    #[inline]
    pub(crate) const fn permits(self) -> u32 {
        (self.0 & Self::PERMITS) as u32
    }

    /// Returns the key, in 44 bits; zero for none.
    #[inline]
    pub(crate) const fn key(self) -> u64 {
        self.0 >> Self::PERMIT_BITS
    }

    /// Adds the permits of the call to a key.
    #[inline]
    pub(crate) const fn with_key(self, key: u64) -> Self {
        Self(self.0 & Self::PERMITS | key << Self::PERMIT_BITS)
    }

    /// Adds the permits of a call without a key to that of all calls without one.
    #[inline]
    pub(crate) const fn or_shared_key(self) -> Self {
        if self.key() == 0 {
            self.with_key(Self::SHARED_KEY)
        } else {
            self
        }
    }

    pub(crate) const fn with_permits(self, permits: u32) -> Self {
        Self(self.0 & !Self::PERMITS | permits as u64 & Self::PERMITS)
    }
}

// A weight above every limit must not become one that fits.
const _: () = assert!(MAX_PERMITS < Claim::PERMITS as usize);
