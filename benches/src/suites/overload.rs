//! How long the callers of an overloaded web service wait: with a bulkhead, and without.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::overload::clients::{Answered, arrivals, load};
use crate::overload::service::{Capacity, WebService};

/// 400 requests a second.
const CAPACITY: Capacity = Capacity {
    at_once: 8,
    takes: Duration::from_millis(20),
};
/// The capacity of the queue: 20 ms of waiting, as long as a request takes.
const QUEUE: usize = 8;
/// Requests a second: twice what can be served.
const RATE: f64 = 800.0;
/// Requests of a round. Half of them are too many, so without a guard 400 wait at the end.
const REQUESTS: usize = 800;
const ROUNDS: usize = 4;
/// A later response is useless.
const PATIENCE: Duration = Duration::from_millis(100);

pub(crate) fn run() -> Findings {
    let (mut unguarded, mut guarded) = (Load::default(), Load::default());
    for round in 0..ROUNDS {
        // The same for both.
        let arrivals = arrivals(REQUESTS, RATE, round as u64);
        for mut with in [false, true] {
            // The order alternates.
            with ^= round % 2 == 1;
            let service = thread();
            let web = service.block_on(async {
                if with {
                    WebService::guarded(CAPACITY, QUEUE).await
                } else {
                    WebService::unguarded(CAPACITY).await
                }
            });
            let answers = load(thread().handle(), web.address, &arrivals);
            let load = if with { &mut guarded } else { &mut unguarded };
            load.take(&answers, web.most_inside());
        }
    }
    findings(&unguarded, &guarded)
}

/// A runtime that serves on one thread.
fn thread() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a Tokio runtime")
}

/// The results of one service.
#[derive(Default)]
struct Load {
    /// Milliseconds until a 200, and until a 503 with `Retry-After`.
    served: Vec<f64>,
    rejected: Vec<f64>,
    /// Neither of the two.
    other: usize,
    /// From the beginning to the last answer, all rounds together.
    lasted: Duration,
    most_inside: usize,
}

impl Load {
    fn take(&mut self, answers: &[Answered], most_inside: usize) {
        for answer in answers {
            let took = answer.took.as_secs_f64() * 1e3;
            match (answer.status, answer.retry_after) {
                (200, _) => self.served.push(took),
                (503, true) => self.rejected.push(took),
                _ => self.other += 1,
            }
        }
        self.lasted += answers
            .iter()
            .map(|answer| answer.at)
            .max()
            .unwrap_or_default();
        self.most_inside = self.most_inside.max(most_inside);
    }

    fn a_second(&self, answers: usize) -> f64 {
        answers as f64 / self.lasted.as_secs_f64()
    }

    fn in_time(&self) -> usize {
        let patience = PATIENCE.as_secs_f64() * 1e3;
        self.served.iter().filter(|&&took| took <= patience).count()
    }
}

fn findings(unguarded: &Load, guarded: &Load) -> Findings {
    let mut findings = Findings::default();
    let mut table = Table::new(
        format!(
            "{RATE} requests a second, where {} can be served; milliseconds to the answer",
            CAPACITY.at_once as f64 / CAPACITY.takes.as_secs_f64()
        ),
        [
            "answers",
            "number",
            "p50",
            "p99",
            "max",
            "a second",
            "in time, a second",
            "inside, the most",
        ],
    );
    let mut bars = Vec::new();
    let mut p99 = Vec::new();
    for (name, load, took, in_time) in [
        (
            "unguarded: served",
            unguarded,
            &unguarded.served,
            unguarded.in_time(),
        ),
        (
            "bulkman: served",
            guarded,
            &guarded.served,
            guarded.in_time(),
        ),
        ("bulkman: rejected", guarded, &guarded.rejected, 0),
    ] {
        let time = Distribution::of(took.clone());
        let served = !name.ends_with("rejected");
        let of_served = |figure: f64| if served { figure } else { f64::NAN };
        table.row(
            name,
            [
                took.len() as f64,
                time.median,
                time.p99,
                time.max,
                load.a_second(took.len()),
                of_served(load.a_second(in_time)),
                of_served(load.most_inside as f64),
            ],
        );
        bars.push(Bar {
            label: name.to_owned(),
            value: time.p99,
        });
        p99.push(time.p99);
    }
    findings.tables.push(table);
    findings.charts.push(Chart {
        file: "overload".to_owned(),
        title: "Answers of a web service with twice the requests that it can serve".to_owned(),
        unit: "milliseconds to the answer, 99th percentile",
        blocks: vec![Block {
            title: "from when the request was due".to_owned(),
            bars,
        }],
    });
    let [unguarded_p99, served_p99, refused_p99] = p99[..] else {
        unreachable!("three rows")
    };
    let takes = CAPACITY.takes.as_secs_f64() * 1e3;
    findings.targets = vec![
        Target::at_most(
            "inside at once, guarded",
            guarded.most_inside as f64,
            CAPACITY.at_once as f64,
            "",
        ),
        Target::at_most(
            "rejected, p99, within the time of one request",
            refused_p99,
            takes,
            " ms",
        ),
        Target::at_most(
            "rejected, p99 over the unguarded",
            refused_p99 / unguarded_p99,
            0.02,
            " x",
        ),
        Target::at_most(
            "served, p99, within the time of three requests",
            served_p99,
            3.0 * takes,
            " ms",
        ),
        Target::at_least(
            "served a second, guarded over unguarded",
            guarded.a_second(guarded.served.len()) / unguarded.a_second(unguarded.served.len()),
            0.9,
            " x",
        ),
        Target::at_most(
            "answers of another kind",
            (unguarded.other + guarded.other) as f64,
            0.0,
            "",
        ),
    ];
    findings
}
