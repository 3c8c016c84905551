//! What snapshots show of keys.

use std::collections::HashMap;

use super::key_hash::BuildKeyHasher;
use super::{WaitQueue, lock};

/// What a key holds and how many of its calls wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyReading {
    pub(crate) key: u64,
    pub(crate) held: u32,
    pub(crate) waiting: u32,
    pub(crate) at_maximum: bool,
}

impl KeyReading {
    const fn of(key: u64) -> Self {
        Self {
            key,
            held: 0,
            waiting: 0,
            at_maximum: false,
        }
    }
}

impl WaitQueue {
    /// Returns the number of suspended waiters.
    pub(crate) fn waiting_at_key_maximum(&self) -> usize {
        if self.running_keys.get().is_none() {
            return 0;
        }
        lock(&self.waiters).suspended() as usize
    }

    /// Returns the keys that hold permits or have waiters, in no order.
    pub(crate) fn keys(&self) -> Vec<KeyReading> {
        let Some(running) = self.running_keys.get() else {
            return Vec::new();
        };
        let waiting = lock(&self.waiters).keys();
        let mut keys = HashMap::<_, KeyReading, BuildKeyHasher>::default();
        for (key, waiters, at_maximum) in waiting {
            let reading = keys.entry(key).or_insert_with(|| KeyReading::of(key));
            reading.waiting += waiters;
            reading.at_maximum |= at_maximum;
        }
        for (key, held) in running.all() {
            keys.entry(key).or_insert_with(|| KeyReading::of(key)).held += held;
        }
        keys.into_values().collect()
    }
}
