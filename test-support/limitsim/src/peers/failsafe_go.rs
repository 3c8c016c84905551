//! The adaptive limiter of failsafe-go.

use std::collections::VecDeque;

use super::log10;
use crate::limiter::{EndedCall, Limiter, Outcome};
use crate::random::Random;

/// failsafe-go, adaptive limiter: a queue estimate, and correlations of load and throughput.
#[derive(Clone, Debug)]
pub struct FailsafeGo {
    limit: f64,
    latencies: Vec<f64>,
    in_flight: u64,
    next: f64,
    quantiles: VecDeque<f64>,
    smoothed: MovingAverage,
    baseline: MovingAverage,
    history: VecDeque<[f64; 3]>,
    full: bool,
}

/// An average of the first ten values that then moves with this age.
#[derive(Clone, Copy, Debug)]
struct MovingAverage {
    value: f64,
    values: u32,
    age: f64,
}

impl Default for FailsafeGo {
    fn default() -> Self {
        let average = |age| MovingAverage {
            value: 0.0,
            values: 0,
            age,
        };
        Self {
            limit: 20.0,
            latencies: Vec::new(),
            in_flight: 0,
            next: 0.0,
            quantiles: VecDeque::new(),
            smoothed: average(5.0),
            baseline: average(10.0),
            history: VecDeque::new(),
            full: false,
        }
    }
}

impl FailsafeGo {
    fn update(&mut self, now: f64) {
        let first = self.latencies[0];
        let mut sorted = std::mem::take(&mut self.latencies);
        sorted.sort_by(f64::total_cmp);
        push_bounded(
            &mut self.quantiles,
            sorted[(0.9 * sorted.len() as f64) as usize],
            5,
        );
        let mut recent: Vec<f64> = self.quantiles.iter().copied().collect();
        recent.sort_by(f64::total_cmp);
        let latency = self.smoothed.add(recent[recent.len() / 2]);
        let baseline = self.baseline.add(latency);

        let in_flight = std::mem::take(&mut self.in_flight) as f64;
        let queue = (self.limit * (1.0 - baseline / latency)).ceil();
        let step = log10(self.limit.trunc());
        push_bounded(
            &mut self.history,
            [in_flight, in_flight / latency, latency],
            50,
        );
        let mut limit = self.limit;
        if queue > 6.0 * step || (self.full && self.load_does_not_help()) {
            limit -= step;
        } else if queue < 3.0 * step {
            limit += step;
        }
        let cap = in_flight * 5.0;
        if limit > cap {
            limit = if self.limit > cap {
                self.limit - step
            } else {
                cap
            };
        }
        self.limit = limit.clamp(1.0, 200.0);
        self.next = now + (2.0 * first).clamp(1.0, 30.0);
    }

    fn load_does_not_help(&self) -> bool {
        if self.history.len() < 10 {
            return false;
        }
        let throughputs: Vec<f64> = self.history.iter().map(|point| point[1]).collect();
        let count = throughputs.len() as f64;
        let mean = throughputs.iter().sum::<f64>() / count;
        let variance = throughputs
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count;
        let variation = variance.sqrt() / mean;
        let throughput = self.correlation_with_load(1);
        let latency = self.correlation_with_load(2);
        throughput < 0.0 || (latency > 0.5 && (throughput < 0.3 || variation < 0.2))
    }

    fn correlation_with_load(&self, column: usize) -> f64 {
        let count = self.history.len() as f64;
        let mean =
            |column: usize| self.history.iter().map(|point| point[column]).sum::<f64>() / count;
        let (x, y) = (mean(0), mean(column));
        let sum = |term: &dyn Fn(f64, f64) -> f64| {
            self.history
                .iter()
                .map(|point| term(point[0] - x, point[column] - y))
                .sum::<f64>()
        };
        let (variance_x, variance_y) = (sum(&|x, _| x * x), sum(&|_, y| y * y));
        if variance_x == 0.0 || variance_y == 0.0 {
            return 0.0;
        }
        sum(&|x, y| x * y) / (variance_x * variance_y).sqrt()
    }
}

impl MovingAverage {
    fn add(&mut self, value: f64) -> f64 {
        self.values += 1;
        self.value += if self.values <= 10 {
            (value - self.value) / f64::from(self.values)
        } else {
            (value - self.value) * 2.0 / (self.age + 1.0)
        };
        self.value
    }
}

impl Limiter for FailsafeGo {
    fn limit(&self, _now: f64) -> u64 {
        self.limit as u64
    }

    fn start(&mut self, _now: f64, in_flight: u64) {
        self.full = in_flight >= self.limit as u64;
    }

    fn end(&mut self, call: &EndedCall, _random: &mut Random) {
        if call.outcome == Outcome::Success {
            self.latencies.push(call.latency());
            self.in_flight = self.in_flight.max(call.in_flight);
        }
        if call.now > self.next && self.latencies.len() >= 50 {
            self.update(call.now);
        }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, value: T, capacity: usize) {
    if queue.len() == capacity {
        queue.pop_front();
    }
    queue.push_back(value);
}
