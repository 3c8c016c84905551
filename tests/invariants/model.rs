//! A bulkhead in plain terms: a list of those who wait, and counters.

use bulkman::bulkhead::BulkheadStats;
use bulkman::{Outcome, Priority};

/// What a call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted,
    Waits,
    Open,
    Full,
    TimedOut,
    Shutdown,
}

pub(crate) struct Model {
    permits: usize,
    places: usize,
    lifo: bool,
    /// Permits that are held, also by who was granted one and does not know yet.
    in_use: usize,
    most_in_use: usize,
    /// Of those that run: the circuit's generation when they began.
    running: Vec<u32>,
    /// Oldest first.
    waiters: Vec<Waiter>,
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
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Waits,
    Granted,
    Refused(Answer),
    /// Passed over when its turn came.
    Expired,
}

/// Open until it is closed by hand. What began in an older generation is not counted.
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
    pub(crate) fn new(permits: usize, places: usize, lifo: bool, failure_threshold: u32) -> Self {
        Self {
            permits,
            places,
            lifo,
            in_use: 0,
            most_in_use: permits,
            running: Vec::new(),
            waiters: Vec::new(),
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
    ) -> Answer {
        let at_once = self.at_the_door();
        if at_once != Answer::Waits {
            return self.count(at_once);
        }
        if max_wait == Some(0) {
            return self.count(Answer::Full);
        }
        let after = |limit: Option<u64>| limit.map(|limit| self.now + limit);
        let (max_wait, timeout) = (after(max_wait), after(timeout));
        if timeout == Some(self.now) {
            return self.count(Answer::TimedOut);
        }
        self.waiters.push(Waiter {
            id,
            priority,
            max_wait,
            timeout,
            fate: Fate::Waits,
        });
        Answer::Waits
    }

    pub(crate) fn try_acquire(&mut self) -> Answer {
        let at_once = self.at_the_door();
        self.count(if at_once == Answer::Waits {
            Answer::Full
        } else {
            at_once
        })
    }

    pub(crate) fn poll(&mut self, id: usize) -> Answer {
        let index = self.index(id);
        let now = self.now;
        let waiter = &self.waiters[index];
        let answer = match waiter.fate {
            Fate::Waits if waiter.deadline().is_some_and(|deadline| deadline <= now) => {
                Answer::TimedOut
            }
            Fate::Waits => return Answer::Waits,
            Fate::Refused(answer) => answer,
            Fate::Expired => Answer::TimedOut,
            // Granted in time, looked at too late.
            Fate::Granted if waiter.timeout.is_some_and(|timeout| timeout <= now) => {
                Answer::TimedOut
            }
            Fate::Granted if self.circuit.open => Answer::Open,
            Fate::Granted => Answer::Granted,
        };
        let granted = self.waiters.remove(index).fate == Fate::Granted;
        if granted && answer != Answer::Granted {
            self.release();
        } else if granted {
            // Counted as in use since the grant.
            self.in_use -= 1;
        }
        self.count(answer)
    }

    pub(crate) fn cancel(&mut self, id: usize) {
        let index = self.index(id);
        self.counts.cancelled_in_queue += 1;
        if self.waiters.remove(index).fate == Fate::Granted {
            self.release();
        }
    }

    /// One of those that run ends; the last one takes its place.
    pub(crate) fn end(&mut self, which: usize, outcome: Option<Outcome>) {
        let news = self.running.swap_remove(which) == self.circuit.generation;
        match outcome {
            Some(Outcome::Success) => {
                self.counts.successful += 1;
                if news {
                    self.circuit.failures = 0;
                }
            }
            Some(Outcome::Failure) => {
                self.counts.failed += 1;
                self.circuit.failures += u32::from(news);
            }
            Some(_) => self.counts.ignored += 1,
            None => self.counts.cancelled += 1,
        }
        if !self.circuit.open && self.circuit.failures >= self.failure_threshold {
            self.open();
        }
        self.release();
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        self.now += millis;
    }

    pub(crate) fn resize(&mut self, permits: usize, places: usize, lifo: bool) {
        (self.permits, self.places, self.lifo) = (permits, places, lifo);
        self.most_in_use = self.most_in_use.max(permits);
        self.serve();
    }

    pub(crate) fn open(&mut self) {
        self.circuit.open = true;
        self.circuit.generation += 1;
        self.refuse(Answer::Open);
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
        self.refuse(Answer::Shutdown);
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

    pub(crate) fn most_in_use(&self) -> usize {
        self.most_in_use
    }

    /// Those in the queue: neither granted nor refused.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters
            .iter()
            .filter(|waiter| waiter.fate == Fate::Waits)
            .count()
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    pub(crate) fn is_decided(&self, id: usize) -> bool {
        let waiter = &self.waiters[self.index(id)];
        waiter.fate != Fate::Waits
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

    fn at_the_door(&self) -> Answer {
        if self.circuit.open {
            Answer::Open
        } else if self.shut_down {
            Answer::Shutdown
        } else if self.waiting() == 0 && self.in_use < self.permits {
            Answer::Granted
        } else if self.waiting() >= self.places {
            Answer::Full
        } else {
            Answer::Waits
        }
    }

    fn count(&mut self, answer: Answer) -> Answer {
        match answer {
            Answer::Granted => {
                self.counts.started += 1;
                self.in_use += 1;
                self.running.push(self.circuit.generation);
            }
            Answer::Waits => {}
            Answer::Open => self.counts.open += 1,
            Answer::Full => self.counts.full += 1,
            Answer::TimedOut => self.counts.timed_out += 1,
            Answer::Shutdown => self.counts.shutdown += 1,
        }
        answer
    }

    fn release(&mut self) {
        self.in_use -= 1;
        self.serve();
    }

    /// A permit goes to the most urgent, and among those to the oldest, or newest.
    fn serve(&mut self) {
        while self.in_use < self.permits && !self.shut_down {
            let lifo = self.lifo;
            let next = self
                .waiters
                .iter_mut()
                .enumerate()
                .filter(|(_, waiter)| waiter.fate == Fate::Waits)
                .max_by_key(|(index, waiter)| {
                    let age = isize::try_from(*index).unwrap();
                    (waiter.priority, if lifo { age } else { -age })
                });
            let Some((_, waiter)) = next else { return };
            if waiter
                .deadline()
                .is_some_and(|deadline| deadline <= self.now)
            {
                waiter.fate = Fate::Expired;
            } else {
                waiter.fate = Fate::Granted;
                self.in_use += 1;
            }
        }
    }

    fn refuse(&mut self, why: Answer) {
        for waiter in self
            .waiters
            .iter_mut()
            .filter(|waiter| waiter.fate == Fate::Waits)
        {
            waiter.fate = Fate::Refused(why);
        }
    }

    fn index(&self, id: usize) -> usize {
        self.waiters
            .iter()
            .position(|waiter| waiter.id == id)
            .expect("it waits")
    }
}
