//! The hash of a key, in less time than the standard library's hasher takes.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Hashes a key with SipHash and a secret seed. The uppermost bits are as random as all others.
pub(crate) fn hash_key<K: Hash + ?Sized>(seed: &RandomState, key: &K) -> u64 {
    let mut hasher = LastByteHasher {
        others: seed.build_hasher(),
        last: 0,
    };
    key.hash(&mut hasher);
    hasher.finish()
}

/// Hashes all bytes but the last one if that is written alone, and adds it to the result.
///
/// A string ends with a byte that is written alone. SipHash takes nearly as long for it as for the
/// whole of a short string.
///
/// Keys that differ in other bytes have results that no one can choose without knowledge of the
/// seed, as before. Keys that differ in the last byte alone, or in whether there is one, always
/// have different results. How far these are apart does not depend on the seed.
struct LastByteHasher<H> {
    others: H,
    /// The byte that was written last, if it was written alone, and a bit above it.
    last: u64,
}

impl<H> LastByteHasher<H> {
    const PRESENT: u64 = 1 << 8;
    /// 2⁶⁴ divided by the golden ratio. Its multiples by small numbers are far from each other, so
    /// those of two bytes differ in the uppermost bits.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl<H: Hasher> LastByteHasher<H> {
    #[inline]
    fn write_last(&mut self) {
        if self.last != 0 {
            self.others.write_u8(self.last as u8);
        }
    }
}

impl<H: Hasher> Hasher for LastByteHasher<H> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.write_last();
        self.last = 0;
        self.others.write(bytes);
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.write_last();
        self.last = Self::PRESENT | u64::from(byte);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.others.finish() ^ self.last.wrapping_mul(Self::SPREAD)
    }
}

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The key of a call has the 44 uppermost bits.
    fn keys<K: Hash>(keys: impl IntoIterator<Item = K>) -> HashSet<u64> {
        let seed = RandomState::new();
        let hashes = keys.into_iter().map(|key| hash_key(&seed, &key));
        hashes.map(|hash| hash >> 20).collect()
    }

    #[test]
    fn different_keys_have_different_hashes() {
        // One byte, also beside others, and at the end.
        assert_eq!(keys(0..=u8::MAX).len(), 256);
        assert_eq!(keys((0..=u8::MAX).map(|byte| (byte, 7_u64))).len(), 256);
        assert_eq!(keys((0..=u8::MAX).map(|byte| (7_u64, byte))).len(), 256);
        let pairs = (0..=u8::MAX).flat_map(|first| (0..4_u8).map(move |second| (first, second)));
        assert_eq!(keys(pairs).len(), 1024);
        assert_eq!(keys([false, true]).len(), 2);
        assert_eq!(keys([Some(0_u8), None, Some(1)]).len(), 3);
        // The end of a string, and where one ends.
        let ends = (0..100).map(|end| format!("tenant {end}"));
        assert_eq!(keys(ends).len(), 100);
        assert_eq!(
            keys([("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")]).len(),
            4
        );
        assert_eq!(
            keys([vec![1_u8], vec![1, 0], vec![], vec![0], vec![0, 1]]).len(),
            5
        );
    }

    /// What does not end with a single byte has the hash of the standard library.
    #[test]
    fn hash_is_that_of_siphash() {
        let seed = RandomState::new();
        assert_eq!(hash_key(&seed, &17_u64), seed.hash_one(17_u64));
        assert_eq!(hash_key(&seed, &("eu", 17)), seed.hash_one(("eu", 17)));
        assert_eq!(
            hash_key(&seed, &(1_u8, 2_u8, 3)),
            seed.hash_one((1_u8, 2_u8, 3))
        );
        let (mut others, mut whole) = (seed.build_hasher(), seed.build_hasher());
        others.write(b"tenant");
        whole.write(b"tenant");
        whole.write_u8(0xff);
        assert_eq!(seed.hash_one("tenant"), whole.finish());
        let end = 0x1ff_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert_eq!(hash_key(&seed, "tenant"), others.finish() ^ end);
    }

    /// The buckets of running keys are selected by the lowest bits of a key.
    #[test]
    fn keys_of_one_byte_are_spread() {
        for buckets in [64, 4096] {
            let keys = keys(0..=u8::MAX);
            let used: HashSet<_> = keys.iter().map(|key| key % buckets).collect();
            assert!(used.len() > 48, "{} of {buckets}", used.len());
        }
    }
}
