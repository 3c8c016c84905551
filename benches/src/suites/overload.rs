//! The latencies of an overloaded web service, with and without a bulkhead.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::harness::Findings;
use crate::harness::measure::Distribution;
use crate::harness::plot::{Bar, Block, Chart};
use crate::harness::table::Table;
use crate::harness::target::Target;
use crate::overload::clients::{Response, arrivals, load};
use crate::overload::service::{Capacity, WebService};

/// The capacity of the backend: 400 requests per second.
const CAPACITY: Capacity = Capacity {
    at_once: 8,
    duration: Duration::from_millis(20),
};
/// The capacity of the queue: 20 ms of waiting, the duration of one request.
const QUEUE: usize = 8;
/// Requests per second: twice the capacity.
const RATE: f64 = 800.0;
/// The requests of a round. Half of them exceed the capacity: unguarded, 400 wait at the end.
const REQUESTS: usize = 800;
const ROUNDS: usize = 4;
/// The latency up to which a response is in time.
const TIME_LIMIT: Duration = Duration::from_millis(100);

pub(crate) fn run() -> Findings {
    let (mut unguarded, mut guarded) = (Load::default(), Load::default());
    for round in 0..ROUNDS {
        // The same for both services.
        let arrivals = arrivals(REQUESTS, RATE, round as u64);
        for mut with in [false, true] {
            // The order of the two alternates.
            with ^= round % 2 == 1;
            let service = runtime();
            let web = service.block_on(async {
                if with {
                    WebService::guarded(CAPACITY, QUEUE).await
                } else {
                    WebService::unguarded(CAPACITY).await
                }
            });
            let responses = load(runtime().handle(), web.address, &arrivals);
            let load = if with { &mut guarded } else { &mut unguarded };
            load.add(&responses, web.peak_inside());
        }
    }
    findings(&unguarded, &guarded)
}

/// Returns a runtime with one thread.
fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a Tokio runtime")
}

/// The results of one service, from all rounds.
#[derive(Default)]
struct Load {
    /// Latencies in milliseconds: of responses 200, and of responses 503 with `Retry-After`.
    served: Vec<f64>,
    rejected: Vec<f64>,
    /// The number of other responses.
    other: usize,
    /// The time from the start to the last response, summed over all rounds.
    elapsed: Duration,
    peak_inside: usize,
}

impl Load {
    fn add(&mut self, responses: &[Response], peak_inside: usize) {
        for response in responses {
            let took = response.took.as_secs_f64() * 1e3;
            match (response.status, response.retry_after) {
                (200, _) => self.served.push(took),
                (503, true) => self.rejected.push(took),
                _ => self.other += 1,
            }
        }
        self.elapsed += responses
            .iter()
            .map(|response| response.at)
            .max()
            .unwrap_or_default();
        self.peak_inside = self.peak_inside.max(peak_inside);
    }

    fn per_second(&self, responses: usize) -> f64 {
        responses as f64 / self.elapsed.as_secs_f64()
    }

    fn in_time(&self) -> usize {
        let limit = TIME_LIMIT.as_secs_f64() * 1e3;
        self.served.iter().filter(|&&took| took <= limit).count()
    }
}

fn findings(unguarded: &Load, guarded: &Load) -> Findings {
    let mut findings = Findings::default();
    let mut table = Table::new(
        format!(
            "{RATE} requests per second, capacity {}; latency in milliseconds",
            CAPACITY.at_once as f64 / CAPACITY.duration.as_secs_f64()
        ),
        [
            "responses",
            "number",
            "p50",
            "p99",
            "max",
            "per second",
            "in time, per second",
            "inside, maximum",
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
                load.per_second(took.len()),
                of_served(load.per_second(in_time)),
                of_served(load.peak_inside as f64),
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
        title: "Responses of a web service with twice the requests that it can serve".to_owned(),
        unit: "latency in milliseconds, 99th percentile",
        blocks: vec![Block {
            title: "since the request was due".to_owned(),
            bars,
        }],
    });
    let [unguarded_p99, served_p99, rejected_p99] = p99[..] else {
        unreachable!("three rows")
    };
    let duration = CAPACITY.duration.as_secs_f64() * 1e3;
    findings.targets = vec![
        Target::at_most(
            "inside at once, guarded",
            guarded.peak_inside as f64,
            CAPACITY.at_once as f64,
            "",
        ),
        Target::at_most(
            "rejected, p99, within the time of one request",
            rejected_p99,
            duration,
            " ms",
        ),
        Target::at_most(
            "rejected, p99 over that of unguarded responses",
            rejected_p99 / unguarded_p99,
            0.02,
            " x",
        ),
        Target::at_most(
            "served, p99, within the time of three requests",
            served_p99,
            3.0 * duration,
            " ms",
        ),
        Target::at_least(
            "served per second, guarded over unguarded",
            guarded.per_second(guarded.served.len()) / unguarded.per_second(unguarded.served.len()),
            0.9,
            " x",
        ),
        Target::at_most(
            "other responses",
            (unguarded.other + guarded.other) as f64,
            0.0,
            "",
        ),
    ];
    findings
}
