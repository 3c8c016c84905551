//! One file for each suite.

pub(crate) mod contention;
pub(crate) mod memory;
pub(crate) mod overhead;
pub(crate) mod scaling;

use crate::harness::Findings;

/// A part of the benchmark that can be run by itself.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Findings,
}

/// In the order in which `all` runs them.
pub(crate) static SUITES: [Suite; 4] = [
    Suite { name: "overhead", run: overhead::run },
    Suite { name: "contention", run: contention::run },
    Suite { name: "memory", run: memory::run },
    Suite { name: "scaling", run: scaling::run },
];
