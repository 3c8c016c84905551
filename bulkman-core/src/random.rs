//! A small seeded generator of pseudorandom numbers, for jitter.

/// A SplitMix64 generator.
///
/// The algorithm is from Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
/// (2014). It spreads retries and probes in time; nothing depends on its being unpredictable.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number that is uniform in [0, 1).
    pub(crate) fn next_f64(&mut self) -> f64 {
        // An `f64` holds 53 bits exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number that is uniform over the whole range.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_uniform_in_range_and_repeatable() {
        let (mut random, mut same_seed) = (Random::new(7), Random::new(7));
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let fraction = random.next_f64();
            assert!((0.0..1.0).contains(&fraction));
            assert_eq!(fraction, same_seed.next_f64());
            tenths[(fraction * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (900..1100).contains(n)), "{tenths:?}");
    }
}
