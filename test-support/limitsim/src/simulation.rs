//! The event loop.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use crate::limiter::{EndedCall, Limiter, Outcome};
use crate::random::Random;
use crate::run::Run;
use crate::scenario::Scenario;
use crate::{IN_TIME, TIMEOUT};

/// A server, its load and the clients that share it.
#[derive(Debug)]
pub struct Simulation<'a> {
    scenario: &'a dyn Scenario,
    limiters: Vec<Box<dyn Limiter + 'a>>,
    arrivals: Random,
    services: Random,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    busy: u64,
    queue: VecDeque<usize>,
    /// Calls that are in service or queued on the server.
    on_server: u64,
    /// Every admitted call; `None` once it ended for its client.
    calls: Vec<Option<Call>>,
    in_flight: Vec<u64>,
    offered: u64,
    rejected: u64,
    overloads: u64,
    in_time: u64,
    run: Run,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    client: usize,
    started_at: f64,
    in_flight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    at: f64,
    sequence: u64,
    kind: EventKind,
}

#[derive(Clone, Copy, Debug)]
enum EventKind {
    Arrival,
    Served(usize),
    Timeout(usize),
    ServerRejection(usize),
}

impl<'a> Simulation<'a> {
    /// Creates a simulation; equal seeds give equal runs.
    #[must_use]
    pub fn new(scenario: &'a dyn Scenario, seed: u64) -> Self {
        let tenths = (scenario.length() * 10.0).ceil() as usize;
        Self {
            scenario,
            limiters: Vec::new(),
            arrivals: Random::new(seed + 1),
            services: Random::new(seed),
            events: BinaryHeap::new(),
            sequence: 0,
            busy: 0,
            queue: VecDeque::new(),
            on_server: 0,
            calls: Vec::new(),
            in_flight: Vec::new(),
            offered: 0,
            rejected: 0,
            overloads: 0,
            in_time: 0,
            run: Run {
                in_time_per_second: 0.0,
                completed: Vec::new(),
                rejected: 0.0,
                overloads_per_second: 0.0,
                latencies: Vec::new(),
                limits: Vec::new(),
                responses: vec![0; tenths],
                in_time: vec![0; tenths],
                latency_sums: vec![0.0; tenths],
            },
        }
    }

    /// Simulates one client for each limiter; each arrival goes to one of them at random.
    ///
    /// # Panics
    ///
    /// If there is no limiter.
    #[must_use]
    pub fn run(mut self, limiters: Vec<Box<dyn Limiter + 'a>>) -> Run {
        assert!(!limiters.is_empty(), "a simulation needs a client");
        self.in_flight = vec![0; limiters.len()];
        self.run.completed = vec![0; limiters.len()];
        self.limiters = limiters;
        let first = if self.limiters.len() > 1 {
            0.0
        } else {
            self.interarrival(0.0)
        };
        self.schedule(first, EventKind::Arrival);
        while let Some(Reverse(event)) = self.events.pop() {
            if event.at > self.scenario.length() {
                break;
            }
            self.handle(event);
        }
        self.finish()
    }

    fn handle(&mut self, Event { at: now, kind, .. }: Event) {
        match kind {
            EventKind::Arrival => self.arrive(now),
            EventKind::Served(call) => {
                self.busy -= 1;
                self.on_server -= 1;
                while self.busy < self.scenario.workers(now) {
                    let Some(next) = self.queue.pop_front() else {
                        break;
                    };
                    self.begin_service(now, next);
                }
                self.end(now, call, Outcome::Success);
            }
            EventKind::Timeout(call) | EventKind::ServerRejection(call) => {
                self.end(now, call, Outcome::Overload)
            }
        }
    }

    fn arrive(&mut self, now: f64) {
        let next = now + self.interarrival(now);
        self.schedule(next, EventKind::Arrival);
        self.offered += 1;
        let client = match self.limiters.len() {
            1 => 0,
            clients => self.arrivals.below(clients as u32) as usize,
        };
        let first = self.limiters[0].limit(now);
        if now - self.run.limits.last().map_or(0.0, |(time, _)| *time) >= 0.1 {
            self.run.limits.push((now, first));
        }
        let limiter = &mut self.limiters[client];
        if self.in_flight[client] >= limiter.limit(now) {
            self.rejected += 1;
            limiter.reject(now);
            return;
        }
        self.in_flight[client] += 1;
        let in_flight = self.in_flight[client];
        limiter.start(now, in_flight);
        let call = self.calls.len();
        self.calls.push(Some(Call {
            client,
            started_at: now,
            in_flight,
        }));
        if self
            .scenario
            .rejects_from(now)
            .is_some_and(|limit| self.on_server >= limit)
        {
            self.schedule(now + SERVER_REJECTION, EventKind::ServerRejection(call));
            return;
        }
        self.schedule(now + TIMEOUT, EventKind::Timeout(call));
        if self.scenario.hangs(now) {
            return;
        }
        self.on_server += 1;
        if self.busy < self.scenario.workers(now) {
            self.begin_service(now, call);
        } else {
            self.queue.push_back(call);
        }
    }

    fn begin_service(&mut self, now: f64, call: usize) {
        self.busy += 1;
        let service_time = self.scenario.service_time(now, &mut self.services);
        self.schedule(now + service_time, EventKind::Served(call));
    }

    /// Ends a call for its client, unless it has ended by its timeout.
    fn end(&mut self, now: f64, call: usize, outcome: Outcome) {
        let Some(Call {
            client,
            started_at,
            in_flight,
        }) = self.calls[call].take()
        else {
            return;
        };
        self.in_flight[client] -= 1;
        self.limiters[client].end(
            &EndedCall {
                started_at,
                now,
                in_flight,
                outcome,
            },
            &mut self.services,
        );
        if outcome == Outcome::Overload {
            self.overloads += 1;
            return;
        }
        let latency = now - started_at;
        self.run.completed[client] += 1;
        self.run.latencies.push(latency);
        let in_time = u64::from(latency <= IN_TIME);
        self.in_time += in_time;
        let tenth = (now * 10.0) as usize;
        if tenth < self.run.responses.len() {
            self.run.responses[tenth] += 1;
            self.run.in_time[tenth] += in_time;
            self.run.latency_sums[tenth] += latency;
        }
    }

    fn finish(mut self) -> Run {
        let length = self.scenario.length();
        self.run.latencies.sort_by(f64::total_cmp);
        self.run.in_time_per_second = self.in_time as f64 / length;
        self.run.overloads_per_second = self.overloads as f64 / length;
        self.run.rejected = self.rejected as f64 / self.offered.max(1) as f64;
        self.run
    }

    fn interarrival(&mut self, now: f64) -> f64 {
        self.arrivals.exponential(self.scenario.rate(now))
    }

    fn schedule(&mut self, at: f64, kind: EventKind) {
        self.sequence += 1;
        self.events.push(Reverse(Event {
            at,
            sequence: self.sequence,
            kind,
        }));
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at
            .total_cmp(&other.at)
            .then(self.sequence.cmp(&other.sequence))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

/// How long a rejection by the server takes.
const SERVER_REJECTION: f64 = 0.001;
