//! A model of a bulkhead: a list of waiters, and counters.

use bulkman::bulkhead::BulkheadStats;
use bulkman::{Outcome, Priority};

/// The response to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Granted,
    Waits,
    Open,
    Full,
    TimedOut,
    Shutdown,
}

pub(crate) struct Model {
    permits: usize,
    queue_capacity: usize,
    lifo: bool,
    /// Permits in use, including those of granted waiters that were not polled yet.
    in_use: usize,
    max_in_use: usize,
    /// For each running call, the circuit's generation when it started.
    running: Vec<u32>,
    /// Oldest first.
    waiters: Vec<Waiter>,
    /// Granted waiters whose deadline has passed: another call may take their permits.
    overdue: Vec<usize>,
    now: u64,
    circuit: Circuit,
    failure_threshold: u32,
    shut_down: bool,
    counts: Counts,
}

struct Waiter {
    id: usize,
    priority: Priority,
    max_wait: Option<u64>,
    timeout: Option<u64>,
    state: WaiterState,
}

#[derive(Clone, Copy, PartialEq)]
enum WaiterState {
    Waiting,
    Granted,
    Rejected(Response),
    /// Its deadline had passed when a permit became available.
    Expired,
}

/// Open until it is closed manually. Outcomes of older generations are not counted.
struct Circuit {
    open: bool,
    failures: u32,
    generation: u32,
}

#[derive(Default)]
struct Counts {
    started: u64,
    successful: u64,
    failed: u64,
    ignored: u64,
    cancelled: u64,
    cancelled_in_queue: u64,
    open: u64,
    full: u64,
    timed_out: u64,
    shutdown: u64,
}

impl Waiter {
    fn deadline(&self) -> Option<u64> {
        match (self.max_wait, self.timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl Model {
    pub(crate) fn new(
        permits: usize,
        queue_capacity: usize,
        lifo: bool,
        failure_threshold: u32,
    ) -> Self {
        Self {
            permits,
            queue_capacity,
            lifo,
            in_use: 0,
            max_in_use: permits,
            running: Vec::new(),
            waiters: Vec::new(),
            overdue: Vec::new(),
            now: 0,
            circuit: Circuit {
                open: false,
                failures: 0,
                generation: 0,
            },
            failure_threshold,
            shut_down: false,
            counts: Counts::default(),
        }
    }

    pub(crate) fn acquire(
        &mut self,
        id: usize,
        priority: Priority,
        max_wait: Option<u64>,
        timeout: Option<u64>,
    ) -> Response {
        let response = self.respond_at_once();
        if response != Response::Waits {
            return self.count(response);
        }
        if max_wait == Some(0) {
            return self.count(Response::Full);
        }
        let after = |limit: Option<u64>| limit.map(|limit| self.now + limit);
        let (max_wait, timeout) = (after(max_wait), after(timeout));
        if timeout == Some(self.now) {
            return self.count(Response::TimedOut);
        }
        self.waiters.push(Waiter {
            id,
            priority,
            max_wait,
            timeout,
            state: WaiterState::Waiting,
        });
        Response::Waits
    }

    pub(crate) fn try_acquire(&mut self) -> Response {
        let response = self.respond_at_once();
        self.count(if response == Response::Waits {
            Response::Full
        } else {
            response
        })
    }

    pub(crate) fn poll(&mut self, id: usize) -> Response {
        let index = self.index(id);
        let now = self.now;
        let waiter = &self.waiters[index];
        let response = match waiter.state {
            WaiterState::Waiting if waiter.deadline().is_some_and(|deadline| deadline <= now) => {
                Response::TimedOut
            }
            WaiterState::Waiting => return Response::Waits,
            WaiterState::Rejected(response) => response,
            WaiterState::Expired => Response::TimedOut,
            // Granted in time, polled too late.
            WaiterState::Granted if waiter.timeout.is_some_and(|timeout| timeout <= now) => {
                Response::TimedOut
            }
            WaiterState::Granted if self.circuit.open => Response::Open,
            WaiterState::Granted => Response::Granted,
        };
        let granted = self.remove(index) == WaiterState::Granted;
        if granted && response != Response::Granted {
            self.release();
        } else if granted {
            // `count` adds it again: it has been in use since the grant.
            self.in_use -= 1;
        }
        self.count(response)
    }

    pub(crate) fn cancel(&mut self, id: usize) {
        let index = self.index(id);
        self.counts.cancelled_in_queue += 1;
        if self.remove(index) == WaiterState::Granted {
            self.release();
        }
    }

    /// Ends a running call; the last one takes its index.
    pub(crate) fn end(&mut self, index: usize, outcome: Option<Outcome>) {
        let is_current = self.running.swap_remove(index) == self.circuit.generation;
        match outcome {
            Some(Outcome::Success) => {
                self.counts.successful += 1;
                if is_current {
                    self.circuit.failures = 0;
                }
            }
            Some(Outcome::Failure) => {
                self.counts.failed += 1;
                self.circuit.failures += u32::from(is_current);
            }
            Some(_) => self.counts.ignored += 1,
            None => self.counts.cancelled += 1,
        }
        if !self.circuit.open && self.circuit.failures >= self.failure_threshold {
            self.open();
        }
        self.release();
    }

    /// Stops at each deadline: a permit that is not collected by then is passed on.
    pub(crate) fn advance(&mut self, millis: u64) {
        let end = self.now + millis;
        let mut deadlines: Vec<_> = self
            .waiters
            .iter()
            .filter_map(|waiter| Some((waiter.deadline()?, waiter.id)))
            .filter(|(deadline, _)| (self.now + 1..=end).contains(deadline))
            .collect();
        deadlines.sort_unstable();
        for (deadline, id) in deadlines {
            self.now = deadline;
            let needed = self.waiting() > 0 || self.in_use > self.permits || self.shut_down;
            let index = self.index(id);
            if self.waiters[index].state == WaiterState::Granted {
                if needed {
                    self.waiters[index].state = WaiterState::Expired;
                    self.release();
                } else {
                    self.overdue.push(id);
                }
            }
        }
        self.now = end;
    }

    /// Takes back the permit of a waiter that is overdue.
    fn revoke_overdue(&mut self) -> bool {
        let Some(id) = self.overdue.pop() else {
            return false;
        };
        let index = self.index(id);
        self.waiters[index].state = WaiterState::Expired;
        self.in_use -= 1;
        true
    }

    fn remove(&mut self, index: usize) -> WaiterState {
        let waiter = self.waiters.remove(index);
        self.overdue.retain(|id| *id != waiter.id);
        waiter.state
    }

    pub(crate) fn resize(&mut self, permits: usize, queue_capacity: usize, lifo: bool) {
        (self.permits, self.queue_capacity, self.lifo) = (permits, queue_capacity, lifo);
        self.max_in_use = self.max_in_use.max(permits);
        self.assign_permits();
        while self.in_use > self.permits && self.revoke_overdue() {}
    }

    pub(crate) fn open(&mut self) {
        self.circuit.open = true;
        self.circuit.generation += 1;
        self.reject(Response::Open);
    }

    pub(crate) fn close(&mut self) {
        self.circuit = Circuit {
            open: false,
            failures: 0,
            generation: self.circuit.generation + 1,
        };
    }

    pub(crate) fn shutdown(&mut self) {
        self.shut_down = true;
        self.reject(Response::Shutdown);
        while self.revoke_overdue() {}
    }

    pub(crate) fn reset_stats(&mut self) {
        let counts = &self.counts;
        let active =
            counts.started - counts.successful - counts.failed - counts.ignored - counts.cancelled;
        self.counts = Counts {
            started: active,
            ..Counts::default()
        };
    }

    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    pub(crate) fn max_in_use(&self) -> usize {
        self.max_in_use
    }

    /// Returns the number of calls in the queue, neither granted nor rejected.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Waiting)
            .count()
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    pub(crate) fn is_decided(&self, id: usize) -> bool {
        let waiter = &self.waiters[self.index(id)];
        waiter.state != WaiterState::Waiting
            || waiter
                .deadline()
                .is_some_and(|deadline| deadline <= self.now)
    }

    pub(crate) fn check_counts(&self, stats: &BulkheadStats) {
        let counts = &self.counts;
        let seen = (
            stats.started,
            stats.successful,
            stats.failed,
            stats.ignored,
            stats.cancelled,
        );
        let expected = (
            counts.started,
            counts.successful,
            counts.failed,
            counts.ignored,
            counts.cancelled,
        );
        assert_eq!(seen, expected);
        let rejected = &stats.rejected;
        let seen = (
            rejected.circuit.open + rejected.circuit.forced_open,
            rejected.full,
            rejected.timed_out_in_queue,
        );
        assert_eq!(seen, (counts.open, counts.full, counts.timed_out));
        assert_eq!(rejected.shutdown, counts.shutdown);
        assert_eq!(stats.cancelled_in_queue, counts.cancelled_in_queue);
    }

    fn respond_at_once(&mut self) -> Response {
        if self.circuit.open {
            Response::Open
        } else if self.shut_down {
            Response::Shutdown
        } else if self.waiting() == 0
            && (self.in_use < self.permits || self.in_use == self.permits && self.revoke_overdue())
        {
            Response::Granted
        } else if self.waiting() >= self.queue_capacity {
            Response::Full
        } else {
            Response::Waits
        }
    }

    fn count(&mut self, response: Response) -> Response {
        match response {
            Response::Granted => {
                self.counts.started += 1;
                self.in_use += 1;
                self.running.push(self.circuit.generation);
            }
            Response::Waits => {}
            Response::Open => self.counts.open += 1,
            Response::Full => self.counts.full += 1,
            Response::TimedOut => self.counts.timed_out += 1,
            Response::Shutdown => self.counts.shutdown += 1,
        }
        response
    }

    fn release(&mut self) {
        self.in_use -= 1;
        self.assign_permits();
    }

    /// Grants available permits by priority, and within a priority to the oldest or newest waiter.
    fn assign_permits(&mut self) {
        while self.in_use < self.permits && !self.shut_down {
            let lifo = self.lifo;
            let next = self
                .waiters
                .iter_mut()
                .enumerate()
                .filter(|(_, waiter)| waiter.state == WaiterState::Waiting)
                .max_by_key(|(index, waiter)| {
                    let age = isize::try_from(*index).unwrap();
                    (waiter.priority, if lifo { age } else { -age })
                });
            let Some((_, waiter)) = next else { return };
            if waiter
                .deadline()
                .is_some_and(|deadline| deadline <= self.now)
            {
                waiter.state = WaiterState::Expired;
            } else {
                waiter.state = WaiterState::Granted;
                self.in_use += 1;
            }
        }
    }

    fn reject(&mut self, response: Response) {
        for waiter in self
            .waiters
            .iter_mut()
            .filter(|waiter| waiter.state == WaiterState::Waiting)
        {
            waiter.state = WaiterState::Rejected(response);
        }
    }

    fn index(&self, id: usize) -> usize {
        self.waiters
            .iter()
            .position(|waiter| waiter.id == id)
            .expect("the call waits")
    }
}
