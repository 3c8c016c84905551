//! Seeded random numbers.

/// The generator MT19937, with the distributions that the simulation needs.
///
/// It is the generator of Python and NumPy, with the same seeding and the same methods for each
/// distribution. So figures can be compared with a simulation in those languages, call by call.
#[derive(Clone, Debug)]
pub struct Random {
    state: Box<[u32; N]>,
    index: usize,
}

impl Random {
    /// Creates a generator from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key: &[u32] = if high == 0 { &[low] } else { &[low, high] };
        let mut state = initial_state(19_650_218);
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 1..N {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, index: N }
    }

    /// Returns a number in `0..1`.
    pub fn unit(&mut self) -> f64 {
        let high = f64::from(self.word() >> 5);
        let low = f64::from(self.word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// Returns a number between the two.
    pub fn uniform(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Returns an integer below `bound`.
    ///
    /// # Panics
    ///
    /// If the bound is zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0);
        let shift = bound.leading_zeros();
        loop {
            let number = self.word() >> shift;
            if number < bound {
                return number;
            }
        }
    }

    /// Returns an exponentially distributed number with this rate.
    pub fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.unit()).ln() / rate
    }

    /// Returns a log-normally distributed number: `e` to the power of a normal one.
    pub fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        self.normal(mean, deviation).exp()
    }

    /// Draws by the ratio of uniforms (Kinderman and Monahan, 1977).
    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let magic = 4.0 * (-0.5_f64).exp() / 2.0_f64.sqrt();
        loop {
            let first = self.unit();
            let second = 1.0 - self.unit();
            let z = magic * (first - 0.5) / second;
            if z * z / 4.0 <= -second.ln() {
                return mean + z * deviation;
            }
        }
    }

    fn word(&mut self) -> u32 {
        if self.index == N {
            self.regenerate();
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn regenerate(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.index = 0;
    }
}

fn initial_state(seed: u32) -> Box<[u32; N]> {
    let mut state = Box::new([seed; N]);
    for i in 1..N {
        let previous = state[i - 1] ^ (state[i - 1] >> 30);
        state[i] = previous.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
    }
    state
}

const N: usize = 624;
const M: usize = 397;

#[cfg(test)]
mod tests {
    use super::*;

    /// NumPy and Python return these numbers for the same seeds.
    #[test]
    fn first_numbers_of_a_seed_are_known() {
        let mut random = Random::new(1);
        assert_eq!(
            [random.unit(), random.unit()],
            [0.134_364_244_112_401_22, 0.847_433_736_937_232_7]
        );
        let mut random = Random::new(1 << 40);
        assert_eq!(random.unit(), 0.103_639_456_281_237_5);
    }

    #[test]
    fn distributions_have_their_means() {
        let mut random = Random::new(3);
        let mut mean = |draw: fn(&mut Random) -> f64| {
            (0..50_000).map(|_| draw(&mut random)).sum::<f64>() / 5e4
        };
        let near =
            |mean: f64, expected: f64| assert!((mean / expected - 1.0).abs() < 0.02, "{mean}");
        near(mean(Random::unit), 0.5);
        near(mean(|random| random.uniform(2.0, 4.0)), 3.0);
        near(mean(|random| random.exponential(4.0)), 0.25);
        near(mean(|random| random.log_normal(-0.045, 0.3)), 1.0);
        near(mean(|random| f64::from(random.below(12))), 5.5);
    }
}
