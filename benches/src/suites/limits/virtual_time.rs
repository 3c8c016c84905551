//! The simulation in virtual time, which is the same on every machine.

use std::thread;

use bulkman_core::adaptive::{AdaptiveLimit, Enforcement};
use bulkman_limitsim::compare::{Contender, contenders, oracle};
use bulkman_limitsim::scenarios::{self, STEADY, UNDER};
use bulkman_limitsim::{Run, Scenario, Simulation};

use crate::harness::table::Table;
use crate::limits::client::Client;

const SEEDS: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
/// The numbers of clients that share a server of 20 workers, in the scenario [`STEADY`].
pub(super) const CLIENTS: [usize; 3] = [4, 12, 30];
/// The maximum of the bulkhead.
const MAXIMUM: usize = 1_000;
/// The fixed limit that is enforced in observe mode.
const OBSERVED_MAXIMUM: usize = 40;
/// The time after a loss of capacity in which the limit may be too large, in seconds.
const REACTION: f64 = 2.0;

/// This project's name in a comparison.
pub(super) const BULKMAN: &str = "bulkman";

/// The results of a rule.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// With one client.
    pub(super) scenarios: Vec<Cell>,
    /// With each number of [`CLIENTS`].
    pub(super) clients: Vec<Cell>,
}

/// The results of a rule in one scenario, ascending over the seeds.
pub(super) struct Cell {
    pub(super) scenario: &'static str,
    /// The responses in time, and the latencies, relative to the oracle.
    pub(super) in_time: Vec<f64>,
    pub(super) p50: Vec<f64>,
    pub(super) p99: Vec<f64>,
    /// In milliseconds.
    pub(super) p99_ms: Vec<f64>,
    /// The responses of the smallest client relative to those of the largest.
    pub(super) fairness: Vec<f64>,
    /// The largest limit of the first client relative to the workers, except after a loss.
    pub(super) largest: Vec<f64>,
    /// The seconds after a hang until the throughput is back.
    pub(super) recovery: Vec<f64>,
    /// The shares of calls that the limit rejected.
    pub(super) rejected: Vec<f64>,
    /// The timeouts and rejections by the server, a second.
    pub(super) overloads: Vec<f64>,
}

/// The library, as a client of the simulation.
pub(super) fn library() -> Contender {
    Contender {
        name: BULKMAN,
        create: |_| Box::new(Client::new(MAXIMUM, AdaptiveLimit::new())),
    }
}

/// Returns the library, and then the rules of other systems.
pub(super) fn rules() -> Vec<Contender> {
    let others = contenders().into_iter().filter(|it| it.name != BULKMAN);
    [library()].into_iter().chain(others).collect()
}

/// Simulates every rule in every scenario.
pub(super) fn compare() -> Vec<Rule> {
    let oracles: Vec<Vec<Run>> = (scenarios::all().into_iter())
        .map(|scenario| SEEDS.map(|seed| oracle(scenario, seed)).into())
        .collect();
    let steady = &oracles[0];
    thread::scope(|threads| {
        let running: Vec<_> = (rules().into_iter())
            .map(|rule| {
                let oracles = &oracles;
                threads.spawn(move || Rule {
                    name: rule.name,
                    scenarios: (scenarios::all().into_iter().zip(oracles))
                        .map(|(scenario, oracles)| Cell::measure(&rule, scenario, 1, oracles))
                        .collect(),
                    clients: CLIENTS
                        .map(|clients| Cell::measure(&rule, &STEADY, clients, steady))
                        .into(),
                })
            })
            .collect();
        (running.into_iter())
            .map(|rule| rule.join().expect("a simulation completes"))
            .collect()
    })
}

/// Returns the share of calls that an estimated limit would reject at 0.7 times the capacity, less
/// that of an enforced one.
pub(super) fn observe() -> f64 {
    let adaptive = AdaptiveLimit::new().enforcement(Enforcement::Observe);
    let mut client = Client::new(OBSERVED_MAXIMUM, adaptive);
    let observed = Simulation::new(&UNDER, SEEDS[0]).run(vec![Box::new(&mut client)]);
    let offered = UNDER.rate(0.0) * UNDER.length();
    let enforced = library().run(&UNDER, 1, SEEDS[0]);
    observed.rejected + client.would_reject() as f64 / offered - enforced.rejected
}

impl Cell {
    fn measure(
        rule: &Contender,
        scenario: &'static dyn Scenario,
        clients: usize,
        oracles: &[Run],
    ) -> Self {
        let mut cell = Self {
            scenario: scenario.name(),
            in_time: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
            p99_ms: Vec::new(),
            fairness: Vec::new(),
            largest: Vec::new(),
            recovery: Vec::new(),
            rejected: Vec::new(),
            overloads: Vec::new(),
        };
        for (&seed, oracle) in SEEDS.iter().zip(oracles) {
            let run = rule.run(scenario, clients, seed);
            let over = |share| run.percentile(share) / oracle.percentile(share);
            cell.in_time
                .push(run.in_time_per_second / oracle.in_time_per_second);
            cell.p50.push(over(0.5));
            cell.p99.push(over(0.99));
            cell.p99_ms.push(run.percentile(0.99) * 1e3);
            cell.fairness.push(run.fairness());
            cell.largest.push(largest(&run, scenario));
            cell.recovery.push(recovery(&run, scenario));
            cell.rejected.push(run.rejected);
            cell.overloads.push(run.overloads_per_second);
        }
        for figures in [
            &mut cell.in_time,
            &mut cell.p50,
            &mut cell.p99,
            &mut cell.p99_ms,
            &mut cell.fairness,
            &mut cell.largest,
            &mut cell.recovery,
            &mut cell.rejected,
            &mut cell.overloads,
        ] {
            figures.sort_by(f64::total_cmp);
        }
        cell
    }
}

/// Returns the largest limit relative to the workers, except shortly after some were lost.
fn largest(run: &Run, scenario: &dyn Scenario) -> f64 {
    (run.limits.iter())
        .filter(|(time, _)| scenario.workers(*time) >= scenario.workers((time - REACTION).max(0.0)))
        .map(|(time, limit)| *limit as f64 / scenario.workers(*time) as f64)
        .fold(0.0, f64::max)
}

/// Returns the time from the end of a hang until nine tenths of the throughput before it.
///
/// Not a number if the server never hangs.
fn recovery(run: &Run, scenario: &dyn Scenario) -> f64 {
    let tenths = (scenario.length() * 10.0) as u32;
    let seconds = |tenth: u32| f64::from(tenth) / 10.0;
    let hanging: Vec<u32> = (0..tenths)
        .filter(|&tenth| scenario.hangs(seconds(tenth)))
        .collect();
    let (Some(&first), Some(&last)) = (hanging.first(), hanging.last()) else {
        return f64::NAN;
    };
    let before = run.throughput(seconds(first) - 10.0, seconds(first));
    (last + 1..tenths - 10)
        .find(|&tenth| run.throughput(seconds(tenth), seconds(tenth + 10)) >= 0.9 * before)
        .map_or(f64::INFINITY, |tenth| seconds(tenth - last - 1))
}

/// Returns the middle one of ascending figures.
pub(super) fn median(figures: &[f64]) -> f64 {
    figures[figures.len() / 2]
}

impl Rule {
    /// Returns the smallest median with one client.
    pub(super) fn worst(&self) -> f64 {
        smallest(self.scenarios.iter().map(|cell| median(&cell.in_time)))
    }

    /// Returns the smallest median with one client, and with at most twelve.
    pub(super) fn worst_of_all(&self) -> f64 {
        let several = self.clients[..2].iter().map(|cell| median(&cell.in_time));
        smallest(several.chain([self.worst()]))
    }
}

pub(super) fn smallest(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(f64::INFINITY, f64::min)
}

pub(super) fn tables(rules: &[Rule]) -> Vec<Table> {
    let names = scenarios::all().map(|scenario| scenario.name());
    let columns: [&str; 14] = std::array::from_fn(|index| match index {
        0 => "one client",
        13 => "worst",
        _ => names[index - 1],
    });
    let mut one = Table::new(
        "responses in time relative to the oracle, median of ten seeds",
        columns,
    );
    let mut several = Table::new(
        "several clients on 20 workers, median of ten seeds",
        [
            "rule",
            "4: in time",
            "p99, ms",
            "smallest / largest client",
            "12: in time",
            "p99, ms ",
            "smallest / largest client ",
            "30: in time",
            "smallest seed",
            "p99, ms  ",
        ],
    );
    for rule in rules {
        one.row::<13>(
            rule.name,
            std::array::from_fn(|index| {
                (rule.scenarios.get(index)).map_or_else(|| rule.worst(), |it| median(&it.in_time))
            }),
        );
        let [four, twelve, thirty] = &rule.clients[..] else {
            unreachable!("three numbers of clients")
        };
        several.row(
            rule.name,
            [
                median(&four.in_time),
                median(&four.p99_ms),
                median(&four.fairness),
                median(&twelve.in_time),
                median(&twelve.p99_ms),
                median(&twelve.fairness),
                median(&thirty.in_time),
                thirty.in_time[0],
                median(&thirty.p99_ms),
            ],
        );
    }
    vec![one, several, own_table(&rules[0])]
}

fn own_table(bulkman: &Rule) -> Table {
    let mut own = Table::new(
        "bulkman, one client, ten seeds",
        [
            "scenario",
            "in time",
            "smallest",
            "largest",
            "p50 / oracle",
            "p99 / oracle",
            "p99, ms",
            "limit / workers, largest",
            "rejected",
            "overloads a second",
        ],
    );
    for cell in &bulkman.scenarios {
        own.row(
            cell.scenario,
            [
                median(&cell.in_time),
                cell.in_time[0],
                cell.in_time[cell.in_time.len() - 1],
                median(&cell.p50),
                median(&cell.p99),
                median(&cell.p99_ms),
                cell.largest[cell.largest.len() - 1],
                median(&cell.rejected),
                median(&cell.overloads),
            ],
        );
    }
    own
}
