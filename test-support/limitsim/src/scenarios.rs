//! The scenarios of the comparison.

use crate::random::Random;
use crate::scenario::Scenario;

/// Returns the twelve scenarios with one client.
#[must_use]
pub fn all() -> [&'static dyn Scenario; 12] {
    [
        &STEADY,
        &UNDER,
        &Drop,
        &Grow,
        &Slower,
        &Spike,
        &Hang,
        &FastErrors,
        &Mixed,
        &Bursty,
        &Wobble { period: 3.0 },
        &Trickle,
    ]
}

/// One and a half times the capacity.
pub const STEADY: Steady = Steady::new(1.5);
/// Seven tenths of the capacity.
pub const UNDER: Steady = Steady::new(0.7);

/// A constant load on 20 workers.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// The load relative to the capacity of 1,000 calls a second.
    pub load: f64,
    /// How long it lasts, in seconds.
    pub length: f64,
}

impl Steady {
    /// Creates a minute of constant load.
    #[must_use]
    pub const fn new(load: f64) -> Self {
        Self { load, length: 60.0 }
    }
}

impl Scenario for Steady {
    fn name(&self) -> &'static str {
        if self.load < 1.0 { "Under" } else { "Steady" }
    }

    fn length(&self) -> f64 {
        self.length
    }

    fn rate(&self, _now: f64) -> f64 {
        1000.0 * self.load
    }
}

/// 20 workers, 5 of them between 20 s and 40 s.
#[derive(Clone, Copy, Debug)]
pub struct Drop;

impl Scenario for Drop {
    fn name(&self) -> &'static str {
        "Drop"
    }

    fn rate(&self, _now: f64) -> f64 {
        1200.0
    }

    fn workers(&self, now: f64) -> u64 {
        if (20.0..40.0).contains(&now) { 5 } else { 20 }
    }
}

/// 20 workers, and 80 from 20 s.
#[derive(Clone, Copy, Debug)]
pub struct Grow;

impl Scenario for Grow {
    fn name(&self) -> &'static str {
        "Grow"
    }

    fn rate(&self, _now: f64) -> f64 {
        5000.0
    }

    fn workers(&self, now: f64) -> u64 {
        if now >= 20.0 { 80 } else { 20 }
    }
}

/// Service times that are four times longer between 20 s and 40 s.
#[derive(Clone, Copy, Debug)]
pub struct Slower;

impl Scenario for Slower {
    fn name(&self) -> &'static str {
        "Slower"
    }

    fn rate(&self, _now: f64) -> f64 {
        1200.0
    }

    fn slowness(&self, now: f64) -> f64 {
        if (20.0..40.0).contains(&now) {
            4.0
        } else {
            1.0
        }
    }
}

/// A tenth of the capacity, and twice the capacity from 30 s.
#[derive(Clone, Copy, Debug)]
pub struct Spike;

impl Scenario for Spike {
    fn name(&self) -> &'static str {
        "Spike"
    }

    fn rate(&self, now: f64) -> f64 {
        if now < 30.0 { 100.0 } else { 2000.0 }
    }
}

/// Calls that start between 20 s and 30 s never end.
#[derive(Clone, Copy, Debug)]
pub struct Hang;

impl Scenario for Hang {
    fn name(&self) -> &'static str {
        "Hang"
    }

    fn rate(&self, _now: f64) -> f64 {
        900.0
    }

    fn hangs(&self, now: f64) -> bool {
        (20.0..30.0).contains(&now)
    }
}

/// The server rejects calls while 30 are on it.
#[derive(Clone, Copy, Debug)]
pub struct FastErrors;

impl Scenario for FastErrors {
    fn name(&self) -> &'static str {
        "FastErrors"
    }

    fn rejects_from(&self, _now: f64) -> Option<u64> {
        Some(30)
    }
}

/// Nine of ten calls take 10 ms, and one takes 110 ms.
#[derive(Clone, Copy, Debug)]
pub struct Mixed;

impl Scenario for Mixed {
    fn name(&self) -> &'static str {
        "Mixed"
    }

    fn service_time(&self, _now: f64, random: &mut Random) -> f64 {
        let mean = if random.unit() < 0.1 { 0.110 } else { 0.010 };
        mean * random.uniform(0.9, 1.1)
    }
}

/// Twice the capacity and a twentieth of it in turn, for 1 s each.
#[derive(Clone, Copy, Debug)]
pub struct Bursty;

impl Scenario for Bursty {
    fn name(&self) -> &'static str {
        "Bursty"
    }

    fn rate(&self, now: f64) -> f64 {
        if now as u64 % 2 == 0 { 2000.0 } else { 50.0 }
    }
}

/// 20 and 10 workers in turn.
#[derive(Clone, Copy, Debug)]
pub struct Wobble {
    /// How long the number of workers stays, in seconds.
    pub period: f64,
}

impl Scenario for Wobble {
    fn name(&self) -> &'static str {
        "Wobble"
    }

    fn rate(&self, _now: f64) -> f64 {
        1200.0
    }

    fn workers(&self, now: f64) -> u64 {
        if (now / self.period) as u64 % 2 == 0 {
            20
        } else {
            10
        }
    }
}

/// 30 calls a second.
#[derive(Clone, Copy, Debug)]
pub struct Trickle;

impl Scenario for Trickle {
    fn name(&self) -> &'static str {
        "Trickle"
    }

    fn rate(&self, _now: f64) -> f64 {
        30.0
    }
}

/// Service times that become longer for good.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    /// When the service times change.
    pub at: f64,
    /// How much longer they are.
    pub factor: f64,
}

impl Scenario for Shift {
    fn name(&self) -> &'static str {
        "Shift"
    }

    fn length(&self) -> f64 {
        45.0
    }

    fn rate(&self, _now: f64) -> f64 {
        1200.0
    }

    fn slowness(&self, now: f64) -> f64 {
        if now >= self.at { self.factor } else { 1.0 }
    }
}
