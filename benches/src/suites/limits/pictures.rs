//! The pictures of the comparison.

use bulkman_limitsim::compare::{Contender, oracle};
use bulkman_limitsim::scenarios::{Drop, STEADY, Slower};
use bulkman_limitsim::{Run, Scenario};

use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::timeline::{Column, Points, Row, Timeline};

use super::virtual_time::{self, CLIENTS, Rule, median};

const SEED: u64 = 1;
/// The peers in the picture: those with the best worst scenarios.
const PEERS: [&str; 4] = [
    "Vector ARC",
    "Envoy gradient",
    "Netflix Gradient2",
    "tower-resilience AIMD",
];
/// The period of a point, in tenths of a second.
const PERIOD: usize = 5;

/// Draws limit, latency and responses in time, over time.
pub(super) fn over_time() -> Timeline {
    let rules = virtual_time::rules();
    let rule = |name: &str| {
        let rule = rules.iter().find(|rule| rule.name == name);
        *rule.expect("a rule")
    };
    let shown: Vec<Contender> = [virtual_time::BULKMAN]
        .into_iter()
        .chain(PEERS)
        .map(rule)
        .collect();
    let column = |title, scenario: &'static dyn Scenario, clients: usize| {
        let others = shown.iter().map(|rule| rule.run(scenario, clients, SEED));
        let runs: Vec<Run> = [oracle(scenario, SEED)].into_iter().chain(others).collect();
        let limits = (runs.iter().enumerate()).map(|(index, run)| {
            // The oracle is one client for all.
            let share = if index == 0 { clients as f64 } else { 1.0 };
            means(&run.limits, share)
        });
        let latencies = runs.iter().map(|run| {
            let points = run.mean_latencies(PERIOD).into_iter();
            points
                .map(|(time, latency)| (time, latency * 1e3))
                .collect()
        });
        Column {
            title,
            panels: vec![
                limits.collect(),
                latencies.collect(),
                runs.iter().map(|run| run.goodput(PERIOD)).collect(),
            ],
        }
    };
    Timeline {
        file: "limits",
        title: "Adaptive limits in front of a server of 20 workers",
        caption: "simulated in virtual time; the oracle knows the number of workers at every moment; \
                  means of half a second; larger values are cut",
        lines: ["oracle"]
            .into_iter()
            .chain(shown.iter().map(|rule| rule.name))
            .collect(),
        rows: vec![
            Row {
                title: "limit of one client",
                end: 60.0,
            },
            Row {
                title: "mean latency, ms",
                end: 240.0,
            },
            Row {
                title: "responses within 100 ms, a second",
                end: 1200.0,
            },
        ],
        columns: vec![
            column("5 workers from 20 s to 40 s", &Drop, 1),
            column("4 times slower from 20 s to 40 s", &Slower, 1),
            column("12 clients, 1.5 times the capacity", &STEADY, 12),
        ],
        length: 60.0,
    }
}

/// Returns the means of the limits in each period, divided by `share`.
fn means(limits: &[(f64, u64)], share: f64) -> Points {
    (limits.chunks(PERIOD))
        .map(|limits| {
            let count = limits.len() as f64;
            let times = limits.iter().map(|(time, _)| time);
            let sum: u64 = limits.iter().map(|(_, limit)| limit).sum();
            (times.sum::<f64>() / count, sum as f64 / count / share)
        })
        .collect()
}

/// Draws the responses in time that each rule loses.
pub(super) fn lost(rules: &[Rule]) -> Chart {
    let percent = |in_time: f64| 100.0 * (1.0 - in_time).max(0.0);
    let block = |title: String, in_time: &dyn Fn(&Rule) -> f64| Block {
        title,
        bars: (rules.iter())
            .map(|rule| Bar {
                label: rule.name.to_owned(),
                value: percent(in_time(rule)),
            })
            .collect(),
    };
    let mut blocks = vec![block(
        "one client, worst of twelve scenarios".to_owned(),
        &Rule::worst,
    )];
    for (index, clients) in CLIENTS.iter().enumerate() {
        blocks.push(block(
            format!("{clients} clients at 1.5 times the capacity of 20 workers"),
            &|rule| median(&rule.clients[index].in_time),
        ));
    }
    Chart {
        file: "limits-lost".to_owned(),
        title: "Responses within 100 ms that an adaptive limit loses".to_owned(),
        unit: "percent of those of an oracle",
        blocks,
    }
}
