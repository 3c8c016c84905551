//! One file for each suite.

pub(crate) mod contention;
pub(crate) mod overhead;

use crate::harness::Findings;

/// A part of the benchmark that can be run by itself.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Findings,
}

/// In the order in which `all` runs them.
pub(crate) static SUITES: [Suite; 2] =
    [Suite { name: "overhead", run: overhead::run }, Suite { name: "contention", run: contention::run }];
