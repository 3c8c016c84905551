//! The keys of the calls of a bulkhead.

use std::cmp::Reverse;
use std::hash::{Hash, RandomState};
use std::sync::Arc;

use super::Bulkhead;
use super::key_names::KeyNames;
use crate::call::{CallKey, hash_key};
use crate::queue::Claim;
use crate::snapshot::KeyStatus;
use crate::sync::{Mutex, lock};

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
        CallKey::from_hash(hash_key(seed, key))
    }

    /// Gives a key a name for snapshots, and returns the key.
    ///
    /// Operators see the name in [`KeyStatus::name`]. Pass the value that your calls pass to
    /// [`Call::key`](crate::call::Call::key), and not a [`CallKey`], which would be hashed again.
    /// The returned key is that of [`call_key`](Self::call_key).
    ///
    /// A bulkhead and its clones keep the 1,024 names that were given last, until the last clone is
    /// dropped. A further name drops the oldest one: snapshots show that key without a name, and
    /// nothing else changes. Naming a key again replaces its name, which is then the newest one.
    /// An empty name is a name. Names may be of any length.
    ///
    /// Naming takes a lock that no call takes: name a key when you first meet it, not in each call.
    /// Names are never labels of metrics. Without [fairness](crate::BulkheadConfig::fairness)
    /// snapshots list no keys. Names are kept nevertheless, and appear once fairness is set.
    ///
    /// ```
    /// use bulkman::bulkhead::Fairness;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    ///
    /// let config = BulkheadConfig::new("db").fairness(Fairness::new());
    /// let db = Bulkhead::new(config, ClockOnly)?;
    /// let tenant = db.name_key(&17, "Acme Inc.");
    /// let _by_value = db.call().key(&17).try_acquire().unwrap();
    /// let _by_key = db.call().with_key(tenant).try_acquire().unwrap();
    /// let keys = db.snapshot().keys;
    /// assert_eq!((keys[0].name.as_deref(), keys[0].held), (Some("Acme Inc."), 2));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn name_key<K: Hash + ?Sized>(&self, key: &K, name: impl Into<Arc<str>>) -> CallKey {
        // Both run code of the caller, which may panic or use the bulkhead.
        let key = self.call_key(key);
        let name = name.into();
        let names = || Box::new(Mutex::new(KeyNames::default()));
        let names = self.inner.optional_parts().key_names.get_or_init(names);
        lock(names).set(key, name);
        key
    }

    /// Returns what a snapshot shows of the keys.
    pub(super) fn key_status(&self) -> Vec<KeyStatus> {
        let mut keys = self.inner.queue.keys();
        keys.sort_unstable_by_key(|it| (Reverse((it.waiting, it.held)), it.key));
        keys.truncate(KEYS_SHOWN);
        let key = |key| (key != Claim::SHARED_KEY).then(|| CallKey::from_bits(key));
        let parts = self.inner.optional.get();
        let names = parts
            .and_then(|parts| parts.key_names.get())
            .map(|it| lock(it));
        let name = |key| names.as_ref()?.get(key?);
        keys.into_iter()
            .map(|reading| KeyStatus {
                key: key(reading.key),
                name: name(key(reading.key)),
                held: reading.held,
                waiting: reading.waiting,
                at_maximum: reading.at_maximum,
            })
            .collect()
    }
}
