//! The names of keys, for snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use crate::call::CallKey;

/// The number of names that a bulkhead keeps.
const MAX_NAMES: usize = 1024;

/// The names that were given last.
#[derive(Debug, Default)]
pub(super) struct KeyNames {
    by_key: HashMap<CallKey, KeyName>,
    /// How many names were given.
    given: u64,
}

#[derive(Debug)]
struct KeyName {
    name: Arc<str>,
    /// Which of all names it was.
    number: u64,
}

impl KeyNames {
    /// Gives a key a name. If there are too many, the oldest one is dropped.
    pub(super) fn set(&mut self, key: CallKey, name: Arc<str>) {
        let number = self.given;
        self.given += 1;
        self.by_key.insert(key, KeyName { name, number });
        if self.by_key.len() > MAX_NAMES {
            // The scan is short, and no call waits for it.
            let oldest = self.by_key.iter().min_by_key(|(_, it)| it.number);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.by_key.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, key: CallKey) -> Option<Arc<str>> {
        self.by_key.get(&key).map(|it| Arc::clone(&it.name))
    }
}
