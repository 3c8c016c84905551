//! The same server in real time, before limits of crates.

use bulkman_limitsim::Scenario;
use bulkman_limitsim::scenarios::{Drop, Hang, Slower};

use crate::harness::table::Table;
use crate::limits::crates::{ORACLE, contenders};
use crate::limits::load::{self, Served};

const SCENARIOS: [&dyn Scenario; 3] = [&Drop, &Slower, &Hang];
const SEED: u64 = 1;

/// The results of all contenders in one scenario.
pub(super) struct Compared {
    results: Vec<(&'static str, Served)>,
}

pub(super) fn run() -> Vec<Compared> {
    let contenders = contenders();
    SCENARIOS
        .map(|scenario| {
            let results = load::run(scenario, &contenders, SEED);
            let names = contenders.iter().map(|contender| contender.name);
            Compared {
                results: names.zip(results).collect(),
            }
        })
        .into()
}

pub(super) fn names() -> Vec<&'static str> {
    contenders().iter().map(|it| it.name).collect()
}

impl Compared {
    fn of(&self, name: &str) -> &Served {
        let result = self.results.iter().find(|(known, _)| *known == name);
        &result.expect("a contender").1
    }

    /// Returns the responses in time, relative to the oracle.
    pub(super) fn in_time(&self, name: &str) -> f64 {
        self.of(name).in_time() as f64 / self.of(ORACLE).in_time() as f64
    }
}

pub(super) fn table(scenarios: &[Compared]) -> Table {
    let mut table = Table::new(
        "in real time, beside crates: responses in time relative to the oracle, p99 in ms",
        [
            "limit", "Drop", "p99", "Slower", "p99 ", "Hang", "p99  ", "worst",
        ],
    );
    for name in names() {
        let [drop, slower, hang] = scenarios else {
            unreachable!("three scenarios")
        };
        let in_time = [drop, slower, hang].map(|it| it.in_time(name));
        let p99 = [drop, slower, hang].map(|it| it.of(name).percentile(0.99));
        let worst = in_time.iter().copied().fold(f64::INFINITY, f64::min);
        table.row(
            name,
            [
                in_time[0], p99[0], in_time[1], p99[1], in_time[2], p99[2], worst,
            ],
        );
    }
    table
}
