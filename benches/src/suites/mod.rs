//! One file for each suite.

pub(crate) mod contention;
pub(crate) mod fairness;
pub(crate) mod fleet;
pub(crate) mod fleet_growth;
pub(crate) mod fleet_load;
pub(crate) mod limits;
pub(crate) mod listeners;
pub(crate) mod memory;
pub(crate) mod overhead;
pub(crate) mod overload;
pub(crate) mod scaling;
pub(crate) mod snapshot;

use crate::harness::Findings;
use crate::options::Options;

/// A part of the benchmark that can be run separately.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Options) -> Findings,
}

/// The suites that `all` runs, in this order.
pub(crate) static SUITES: [Suite; 7] = [
    Suite {
        name: "overhead",
        run: |_| overhead::run(),
    },
    Suite {
        name: "contention",
        run: |_| contention::run(),
    },
    Suite {
        name: "memory",
        run: |_| memory::run(),
    },
    Suite {
        name: "scaling",
        run: |_| scaling::run(),
    },
    Suite {
        name: "snapshot",
        run: |_| snapshot::run(),
    },
    Suite {
        name: "overload",
        run: |_| overload::run(),
    },
    Suite {
        name: "fairness",
        run: |_| fairness::run(),
    },
];

/// The suites that `all` leaves out.
///
/// They build programs, or take minutes and need a PostgreSQL server.
pub(crate) static SEPARATE_SUITES: [Suite; 5] = [
    Suite {
        name: "limits",
        run: |_| limits::run(),
    },
    Suite {
        name: "listeners",
        run: |_| listeners::run(),
    },
    Suite {
        name: "fleet",
        run: |_| fleet::run(),
    },
    Suite {
        name: "fleet-growth",
        run: |_| fleet_growth::run(),
    },
    Suite {
        name: "fleet-load",
        run: |options| fleet_load::run(options.load),
    },
];
