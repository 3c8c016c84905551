//! Clients of the server in real time, all with the same arrivals.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkman_limitsim::{IN_TIME, Random, Scenario, TIMEOUT};
use tokio::runtime::Builder;

use super::crates::{Contender, Limit, Overloaded, Work};
use super::server::Server;

/// The results of one contender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// Ascending, in seconds.
    pub(crate) latencies: Vec<f64>,
    pub(crate) rejected: u64,
    pub(crate) overloads: u64,
}

impl Served {
    pub(crate) fn in_time(&self) -> usize {
        self.latencies
            .partition_point(|&latency| latency <= IN_TIME)
    }

    /// Returns the latency below which this share of the responses is, in milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (share * last as f64) as usize;
        self.latencies.get(index).map_or(f64::NAN, |it| it * 1e3)
    }
}

/// Runs a scenario with each contender side by side, each with its own server.
pub(crate) fn run(
    scenario: &'static dyn Scenario,
    contenders: &[Contender],
    seed: u64,
) -> Vec<Served> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a Tokio runtime");
    runtime.block_on(async {
        let began = Instant::now();
        let loads: Vec<_> = contenders
            .iter()
            .map(|contender| {
                let server = Server::new(scenario, seed, began);
                let limit = (contender.create)(&server);
                tokio::spawn(load(server, limit, seed, began))
            })
            .collect();
        let mut results = Vec::new();
        for load in loads {
            results.push(load.await.expect("the load completes"));
        }
        results
    })
}

async fn load(server: Arc<Server>, limit: Arc<dyn Limit>, seed: u64, began: Instant) -> Served {
    let served = Arc::new(Mutex::new(Served::default()));
    let mut arrivals = Random::new(seed + 1);
    let mut next = 0.0;
    loop {
        next += arrivals.exponential(server.scenario().rate(next));
        if next > server.scenario().length() {
            break;
        }
        tokio::time::sleep_until((began + Duration::from_secs_f64(next)).into()).await;
        let (limit, work, served) = (
            Arc::clone(&limit),
            work(Arc::clone(&server)),
            Arc::clone(&served),
        );
        tokio::spawn(async move {
            let started = Instant::now();
            let result = limit.call(work).await;
            let mut served = served.lock().expect("no holder panics");
            match result {
                Some(Ok(())) => served.latencies.push(started.elapsed().as_secs_f64()),
                Some(Err(Overloaded)) => served.overloads += 1,
                None => served.rejected += 1,
            }
        });
    }
    let mut served = served.lock().expect("no holder panics").clone();
    served.latencies.sort_by(f64::total_cmp);
    served
}

/// Returns a request with a timeout.
fn work(server: Arc<Server>) -> Work {
    Work::new(async move {
        let timeout = Duration::from_secs_f64(TIMEOUT);
        let response = tokio::time::timeout(timeout, server.respond()).await;
        response.map_err(|_| Overloaded)
    })
}
