//! The key of a call, between which a bulkhead shares its permits.

use std::fmt;

/// The key of a call: a hash with a secret seed of its bulkhead.
///
/// Created by [`Bulkhead::call_key`](crate::Bulkhead::call_key). It has 44 bits, and nothing else
/// is kept of a key. Two keys with equal hashes share their permits: of 1,000 keys, any two do with
/// a probability of 3 in 100 million.
///
/// ```
/// use bulkman::bulkhead::Fairness;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("db").fairness(Fairness::new());
/// let db = Bulkhead::new(config.clone(), ClockOnly)?;
/// assert_eq!(db.call_key("tenant 17"), db.call_key("tenant 17"));
/// assert_ne!(db.call_key("tenant 17"), db.call_key("tenant 18"));
/// // The seed is random, so that no client can choose keys that collide.
/// let other = Bulkhead::new(config, ClockOnly)?;
/// assert_ne!(db.call_key("tenant 17"), other.call_key("tenant 17"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallKey(u64);

impl CallKey {
    /// Returns the key for a hash. The smallest are not the hash of any key.
    pub(crate) const fn from_hash(hash: u64) -> Self {
        let key = hash >> 20;
        Self(if key < 2 { 2 } else { key })
    }

    pub(crate) const fn from_bits(key: u64) -> Self {
        Self(key)
    }

    #[inline]
    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }
}

/// Writes the hash in hexadecimal digits.
impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:011x}", self.0)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for CallKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
