//! The adaptive rule of Sui.

use std::collections::VecDeque;

use crate::limiter::{EndedCall, Limiter};
use crate::random::Random;

/// Sui, adaptive: trials of a larger and a smaller limit, judged by throughput.
#[derive(Clone, Debug)]
pub struct Sui {
    limit: u64,
    successes: u64,
    peak: u64,
    opened_at: f64,
    interval: f64,
    average: Option<f64>,
    trial: Trial,
    windows: u32,
    errors: VecDeque<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Trial {
    None,
    Larger { before: u64, throughput: f64 },
    Smaller { before: u64, throughput: f64 },
}

impl Default for Sui {
    fn default() -> Self {
        Self {
            limit: 1,
            successes: 0,
            peak: 0,
            opened_at: 0.0,
            interval: 1.0,
            average: None,
            trial: Trial::None,
            windows: 0,
            errors: VecDeque::new(),
        }
    }
}

impl Sui {
    fn record_error(&mut self, error: bool) {
        if self.errors.len() == 100 {
            self.errors.pop_front();
        }
        self.errors.push_back(error);
        let errors = self.errors.iter().filter(|error| **error).count();
        if errors as f64 / self.errors.len() as f64 > 0.05 {
            self.limit = scaled(self.limit, 0.5).max(1);
            self.trial = Trial::None;
            self.windows = 0;
            self.errors.clear();
        }
    }

    fn update(&mut self, throughput: f64) {
        let previous = self.average;
        let average = previous.map_or(throughput, |previous| 0.3 * throughput + 0.7 * previous);
        self.average = Some(average);
        let unused = self.peak * 2 < self.limit;
        match self.trial {
            Trial::None => {
                if unused {
                    self.limit = scaled(self.limit, 0.95);
                } else if previous.is_none_or(|previous| average >= previous * 1.1) {
                    self.limit += ((self.limit as f64).sqrt() as u64).max(1);
                }
                self.windows += 1;
                if !unused && self.windows >= 10 {
                    self.trial = Trial::Larger {
                        before: self.limit,
                        throughput: average,
                    };
                    self.limit = scaled(self.limit, 1.25);
                }
            }
            Trial::Larger {
                throughput: before, ..
            } if throughput >= before * 1.1 => self.end_trial(),
            Trial::Larger { before, throughput } => {
                self.limit = scaled(before, 0.75);
                self.trial = Trial::Smaller { before, throughput };
            }
            Trial::Smaller {
                before,
                throughput: target,
            } => {
                if throughput < target * 0.9 {
                    self.limit = before;
                }
                self.end_trial();
            }
        }
    }

    fn end_trial(&mut self) {
        self.trial = Trial::None;
        self.windows = 0;
    }
}

impl Limiter for Sui {
    fn limit(&self, _now: f64) -> u64 {
        self.limit
    }

    fn start(&mut self, _now: f64, in_flight: u64) {
        self.peak = self.peak.max(in_flight);
    }

    fn end(&mut self, call: &EndedCall, random: &mut Random) {
        self.successes += u64::from(!call.is_overload());
        self.record_error(call.is_overload());
        let elapsed = call.now - self.opened_at;
        if elapsed < self.interval || self.successes == 0 {
            return;
        }
        self.update(self.successes as f64 / elapsed);
        self.successes = 0;
        self.peak = 0;
        self.opened_at = call.now;
        self.interval = random.uniform(0.9, 1.1);
    }
}

fn scaled(limit: u64, factor: f64) -> u64 {
    (limit as f64 * factor).ceil() as u64
}
