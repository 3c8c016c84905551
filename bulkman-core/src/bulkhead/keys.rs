//! The keys of the calls of a bulkhead.

use std::cmp::Reverse;
use std::hash::{BuildHasher, Hash, RandomState};

use super::Bulkhead;
use crate::call::CallKey;
use crate::queue::Claim;
use crate::snapshot::KeyStatus;

/// The number of keys in a snapshot.
const KEYS_SHOWN: usize = 32;

impl Bulkhead {
    /// Computes a key for [`Call::with_key`](crate::call::Call::with_key).
    ///
    /// It is valid for this bulkhead and its clones. Keep it where a tenant makes many calls: each
    /// then saves the hash.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let config = BulkheadConfig::new("db").fairness(Fairness::new());
    /// # let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let tenant = bulkhead.call_key(&("eu", 17));
    /// let rows = bulkhead.call().with_key(tenant).execute_sync(|| Ok::<_, ()>(3));
    /// assert_eq!(rows, Ok(3));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn call_key<K: Hash + ?Sized>(&self, key: &K) -> CallKey {
        let parts = self.inner.optional_parts();
        let seed = parts.key_seed.get_or_init(RandomState::new);
        CallKey::from_hash(seed.hash_one(key))
    }

    /// Returns what a snapshot shows of the keys.
    pub(super) fn key_status(&self) -> Vec<KeyStatus> {
        let mut keys = self.inner.queue.keys();
        keys.sort_unstable_by_key(|it| (Reverse((it.waiting, it.held)), it.key));
        keys.truncate(KEYS_SHOWN);
        let key = |key| (key != Claim::SHARED_KEY).then(|| CallKey::from_bits(key));
        keys.into_iter()
            .map(|reading| KeyStatus {
                key: key(reading.key),
                held: reading.held,
                waiting: reading.waiting,
                at_maximum: reading.at_maximum,
            })
            .collect()
    }
}
