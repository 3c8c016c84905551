//! Hashing of keys that are hashes already.

use std::hash::{BuildHasherDefault, Hasher};

/// The hasher of maps from keys. A key is a hash with a secret seed, so it is used as it is.
pub(super) type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        // The map selects by the uppermost bits, too. A key has 44 bits, and below them a priority.
        self.0 = key.rotate_left(44) ^ key;
    }
}
