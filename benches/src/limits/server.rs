//! The simulated server in real time: its work is sleeping.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bulkman_limitsim::{Random, Scenario};
use tokio::sync::oneshot;

/// A server with workers and an unbounded queue, as that in virtual time.
pub(crate) struct Server {
    scenario: &'static dyn Scenario,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    busy: u64,
    queue: VecDeque<oneshot::Sender<()>>,
    services: Random,
}

impl Server {
    pub(crate) fn new(scenario: &'static dyn Scenario, seed: u64, began: Instant) -> Arc<Self> {
        Arc::new(Self {
            scenario,
            began,
            state: Mutex::new(State {
                busy: 0,
                queue: VecDeque::new(),
                services: Random::new(seed),
            }),
        })
    }

    /// Returns the time since the start, in seconds.
    pub(crate) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn scenario(&self) -> &'static dyn Scenario {
        self.scenario
    }

    /// Waits for a response. The server continues its work if the caller gives up.
    pub(crate) async fn respond(self: Arc<Self>) {
        if self.scenario.hangs(self.now()) {
            return std::future::pending().await;
        }
        let responded = self.queue();
        let _ = responded.await;
    }

    fn queue(self: &Arc<Self>) -> oneshot::Receiver<()> {
        let (response, responded) = oneshot::channel();
        let mut state = self.lock();
        state.queue.push_back(response);
        self.begin_services(state);
        responded
    }

    /// Gives queued requests to idle workers.
    fn begin_services(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let now = self.now();
        while state.busy < self.scenario.workers(now) {
            let Some(response) = state.queue.pop_front() else {
                return;
            };
            state.busy += 1;
            let service_time = self.scenario.service_time(now, &mut state.services);
            let server = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(service_time)).await;
                server.end_service();
                let _ = response.send(());
            });
        }
    }

    fn end_service(self: &Arc<Self>) {
        let mut state = self.lock();
        state.busy -= 1;
        self.begin_services(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}
