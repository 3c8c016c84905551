//! Hashing of the keys of calls, with a secret seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The secret seed of a bulkhead's keys.
#[derive(Debug)]
pub(super) struct KeySeed(u64, u64);

impl KeySeed {
    /// Creates a random seed.
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0_u64), random.hash_one(1_u64))
    }
}

impl BuildHasher for KeySeed {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        let Self(first, second) = *self;
        KeyHasher {
            state: [
                first ^ 0x736f_6d65_7073_6575,
                second ^ 0x646f_7261_6e64_6f6d,
                first ^ 0x6c79_6765_6e65_7261,
                second ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            length: 0,
        }
    }
}

/// SipHash-1-3, the function of the standard library's maps. Without the seed, no client can choose
/// keys that collide.
///
/// The standard library's hasher takes twice as many instructions for a short string.
#[derive(Debug)]
pub(super) struct KeyHasher {
    state: [u64; 4],
    /// The bytes after the last full word.
    tail: u64,
    /// The number of bytes so far.
    length: u64,
}

impl KeyHasher {
    /// Appends the lowest `size` bytes of a word, 1 to 8. The others are zero.
    #[inline]
    fn append(&mut self, word: u64, size: u64) {
        let in_tail = self.length % 8;
        self.length += size;
        self.tail |= word << (8 * in_tail);
        if in_tail + size >= 8 {
            self.compress(self.tail);
            // A shift by 64 bits is none.
            self.tail = word.checked_shr((64 - 8 * in_tail) as u32).unwrap_or(0);
        }
    }

    #[inline]
    fn compress(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.state[0] ^= word;
    }

    #[inline]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.state;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.state = [a, b, c, d];
    }
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            if let Some(word) = word.first_chunk() {
                self.append(u64::from_le_bytes(*word), 8);
            }
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            self.append(short_word(rest), rest.len() as u64);
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.append(value.into(), 1);
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.append(value.into(), 2);
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.append(value.into(), 4);
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.append(value, 8);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.append(value as u64, 8);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.compress(self.length << 56 | self.tail);
        last.state[2] ^= 0xff;
        for _ in 0..3 {
            last.round();
        }
        last.state.into_iter().fold(0, |hash, part| hash ^ part)
    }
}

/// Returns 1 to 7 bytes as the lowest of a word.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    let end = bytes.len() - 1;
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // They overlap, unless there are 8 bytes.
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << (8 * (end - 3));
    }
    let at = |index: usize| u64::from(bytes[index]) << (8 * index);
    at(0) | at(end / 2) | at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of SipHash: the bytes from 0, with a key of the bytes 0 to 15.
    fn seed() -> KeySeed {
        KeySeed(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)
    }

    fn hash(bytes: &[&[u8]]) -> u64 {
        let mut hasher = seed().build_hasher();
        bytes.iter().for_each(|part| hasher.write(part));
        hasher.finish()
    }

    #[test]
    fn hashes_are_those_of_the_function() {
        let bytes: Vec<u8> = (0..64).collect();
        let expected = [
            (0, 0xabac_0158_050f_c4dc),
            (1, 0xc9f4_9bf3_7d57_ca93),
            (7, 0xd392_7d98_9bb1_1140),
            (8, 0x3690_9511_8d29_9a8e),
            (15, 0xd320_d86d_2a51_9956),
            (63, 0x9d19_9062_b7bb_b3a8),
        ];
        for (length, hash_of_bytes) in expected {
            assert_eq!(hash(&[&bytes[..length]]), hash_of_bytes, "{length}");
        }
    }

    #[test]
    fn bytes_count_however_they_are_written() {
        let bytes: Vec<u8> = (0..40).map(|byte| byte * 6).collect();
        for length in 0..bytes.len() {
            let whole = hash(&[&bytes[..length]]);
            for first in 0..=length {
                let second = first + (length - first) / 2;
                let parts = [
                    &bytes[..first],
                    &bytes[first..second],
                    &bytes[second..length],
                ];
                assert_eq!(hash(&parts), whole, "{length}, {first}");
            }
        }
        let mut words = seed().build_hasher();
        words.write_u8(1);
        words.write_u16(0x0302);
        words.write_u32(0x0706_0504);
        words.write_u64(0x0f0e_0d0c_0b0a_0908);
        words.write_usize(0x1716_1514_1312_1110);
        let bytes: Vec<u8> = (1..0x18).collect();
        assert_eq!(words.finish(), hash(&[&bytes]));
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(KeySeed::new().hash_one(1), KeySeed::new().hash_one(1));
    }
}
