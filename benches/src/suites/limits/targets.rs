//! What the adaptive limit must achieve, relative to an oracle and to peers in the same run.

use crate::harness::target::Target;
use crate::limits::crates::{BULKMAN, ORACLE};

use super::real_time::{self, Compared};
use super::virtual_time::{CLIENTS, Cell, Rule, median, smallest};

/// The scenarios that change faster than a limit can follow, or have few calls.
const DIFFICULT: [&str; 3] = ["Bursty", "Wobble", "Trickle"];

pub(super) fn virtual_time(rules: &[Rule], observed: f64) -> Vec<Target> {
    let (own, others) = rules.split_first().expect("there is this project");
    let medians = |difficult: bool| {
        smallest(
            (own.scenarios.iter())
                .filter(|cell| DIFFICULT.contains(&cell.scenario) == difficult)
                .map(|cell| median(&cell.in_time)),
        )
    };
    let largest = |figure: fn(&Cell) -> f64| own.scenarios.iter().map(figure).fold(0.0, f64::max);
    let last = |figures: &[f64]| figures[figures.len() - 1];
    let hang = own.scenarios.iter().find(|cell| cell.scenario == "Hang");
    let recovery = hang.map_or(f64::NAN, |cell| last(&cell.recovery));
    let mut targets = vec![
        Target::at_least(
            "one client, in time, worst of nine scenarios",
            medians(false),
            0.98,
            " x oracle",
        ),
        Target::at_least(
            "one client, in time, worst of Bursty, Wobble, Trickle",
            medians(true),
            0.95,
            " x oracle",
        ),
        Target::at_least(
            "one client, in time, worst seed of any scenario",
            smallest(own.scenarios.iter().map(|cell| cell.in_time[0])),
            0.92,
            " x oracle",
        ),
        Target::at_most(
            "one client, p50, worst scenario",
            largest(|cell| median(&cell.p50)),
            1.4,
            " x oracle",
        ),
        Target::at_most(
            "one client, p99, worst scenario",
            largest(|cell| median(&cell.p99)),
            1.5,
            " x oracle",
        ),
        Target::at_most(
            "largest limit, except for 2 s after a loss of capacity",
            largest(|cell| cell.largest[cell.largest.len() - 1]),
            4.0,
            " x workers",
        ),
        Target::at_most(
            "0.9 of the throughput after a hang, worst seed",
            recovery,
            7.0,
            " s",
        ),
    ];
    for (clients, cell) in CLIENTS.iter().zip(&own.clients).take(2) {
        let name = |what| format!("{clients} clients, {what}");
        targets.extend([
            Target::at_least(name("in time"), median(&cell.in_time), 1.0, " x oracle"),
            Target::at_most(name("p99"), median(&cell.p99), 2.5, " x oracle"),
            Target::at_least(
                name("smallest over largest client"),
                median(&cell.fairness),
                0.3,
                "",
            ),
        ]);
    }
    let best = |worst: fn(&Rule) -> f64| others.iter().map(worst).fold(0.0, f64::max);
    targets.extend([
        Target::at_least(
            "worst scenario of one client, over that of the best other rule",
            own.worst() / best(Rule::worst),
            1.08,
            "x",
        ),
        Target::at_least(
            "worst of those, 4 and 12 clients, over that of the best other rule",
            own.worst_of_all() / best(Rule::worst_of_all),
            1.4,
            "x",
        ),
        Target::at_most(
            "observe mode at 0.7 of the capacity: share rejected, less that of enforcing",
            observed,
            0.01,
            "",
        ),
    ]);
    targets
}

/// `microseconds`: the cost of the end of a window.
pub(super) fn closing(microseconds: f64) -> Target {
    Target::at_most("the end of a window", microseconds, 2.0, " us")
}

pub(super) fn real_time(scenarios: &[Compared]) -> Vec<Target> {
    let worst = |name: &str| smallest(scenarios.iter().map(|it| it.in_time(name)));
    let others = real_time::names().into_iter();
    let best = others
        .filter(|name| ![ORACLE, BULKMAN].contains(name))
        .map(worst)
        .fold(0.0, f64::max);
    vec![
        Target::at_least(
            "real time, in time, worst of three scenarios",
            worst(BULKMAN),
            0.9,
            " x oracle",
        ),
        Target::at_least(
            "real time, worst scenario, over that of the best crate",
            worst(BULKMAN) / best,
            1.0,
            "x",
        ),
    ]
}
