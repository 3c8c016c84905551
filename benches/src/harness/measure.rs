//! Interleaved rounds of timed batches.
//!
//! A clock reading costs about as much as the calls under test, so batches are timed. The cases
//! run in turns, in short rounds. A disturbance, such as another process or a change of the
//! processor's frequency, then affects all of them. The ratio of two cases is taken round by round,
//! from figures that are milliseconds apart.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::alloc;

/// A call to measure.
pub(crate) struct Case {
    /// The kind of call. Cases of one group do the same.
    pub(crate) group: &'static str,
    /// The library, and its configuration.
    pub(crate) name: String,
    run: Box<dyn FnMut(u64)>,
}

impl Case {
    /// Creates a case; each invocation of `call` is one call.
    pub(crate) fn new<T>(
        group: &'static str,
        name: impl Into<String>,
        mut call: impl FnMut() -> T + 'static,
    ) -> Self {
        let run = move |calls| {
            for _ in 0..calls {
                black_box(call());
            }
        };
        Self {
            group,
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// The number and length of the measurements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The number of rounds. Every case has one turn in each.
    pub(crate) rounds: usize,
    /// The number of timed batches in a turn.
    pub(crate) batches: usize,
    /// The duration of a batch: long compared to a clock reading, short compared to a time slice.
    pub(crate) batch: Duration,
}

impl Effort {
    /// The effort for calls that take nanoseconds.
    pub(crate) const CALLS: Self = Self {
        rounds: 200,
        batches: 20,
        batch: Duration::from_micros(20),
    };
}

/// The times of a case, in nanoseconds per call.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    /// The times of all batches.
    pub(crate) time: Distribution,
    /// The median of each round.
    pub(crate) rounds: Vec<f64>,
    /// The allocations per call.
    pub(crate) allocations: f64,
}

impl Measured {
    /// Returns the ratio of this case's time to that of `other`, round by round.
    pub(crate) fn over(&self, other: &Self) -> Distribution {
        ratios(&self.rounds, &other.rounds)
    }
}

/// Returns `numerators` over `denominators`, element by element.
pub(crate) fn ratios(numerators: &[f64], denominators: &[f64]) -> Distribution {
    Distribution::of(
        numerators
            .iter()
            .zip(denominators)
            .map(|(n, d)| n / d)
            .collect(),
    )
}

/// Runs the cases in turns, and returns the times of each in the given order.
pub(crate) fn interleaved(cases: &mut [Case], effort: Effort) -> Vec<Measured> {
    let plans: Vec<(u64, f64)> = cases.iter_mut().map(|case| plan(case, effort)).collect();
    let mut batches = vec![Vec::with_capacity(effort.rounds * effort.batches); cases.len()];
    let mut rounds = vec![Vec::with_capacity(effort.rounds); cases.len()];
    for _ in 0..effort.rounds {
        for (index, case) in cases.iter_mut().enumerate() {
            let calls = plans[index].0;
            // Not measured: the caches still contain the data of the previous case.
            (case.run)(calls);
            let turn: Vec<f64> = (0..effort.batches).map(|_| time(case, calls)).collect();
            batches[index].extend_from_slice(&turn);
            rounds[index].push(Distribution::of(turn).median);
        }
    }
    let mut measured = Vec::with_capacity(cases.len());
    for (index, (batches, rounds)) in batches.into_iter().zip(rounds).enumerate() {
        measured.push(Measured {
            group: cases[index].group,
            name: cases[index].name.clone(),
            time: Distribution::of(batches),
            rounds,
            allocations: plans[index].1,
        });
    }
    measured
}

/// Returns the number of calls in a batch, and the number of allocations per call.
fn plan(case: &mut Case, effort: Effort) -> (u64, f64) {
    const COUNTED: u64 = 64;
    (case.run)(16);
    let ((), allocations) = alloc::during(|| (case.run)(COUNTED));
    let mut calls = 1;
    loop {
        let took = time(case, calls) * calls as f64;
        let wanted = effort.batch.as_nanos() as f64;
        if took * 2.0 >= wanted {
            let calls = (calls as f64 * wanted / took).ceil().max(1.0) as u64;
            return (calls, allocations.count as f64 / COUNTED as f64);
        }
        calls *= 2;
    }
}

/// Runs one batch and returns the nanoseconds per call.
fn time(case: &mut Case, calls: u64) -> f64 {
    let start = Instant::now();
    (case.run)(calls);
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// The quantiles of a set of samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distribution {
    pub(crate) p10: f64,
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Distribution {
    /// Computes the quantiles.
    ///
    /// # Panics
    ///
    /// Panics without samples, since there is no meaningful result.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "nothing was measured");
        samples.sort_by(f64::total_cmp);
        let at = |quantile: f64| samples[((samples.len() - 1) as f64 * quantile).round() as usize];
        Self {
            p10: at(0.1),
            median: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}
