//! Scenarios of kind `bulkhead`.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bulkman::error::TimeoutPhase;
use bulkman::future::Acquire;
use bulkman::testing::ManualRuntime;
use bulkman::{Bulkhead, BulkheadConfig, BulkheadError, Permit, QueueOrder};

use crate::Runner;
use crate::breaker::same;
use crate::parse::{Expected, Step, millis, number};

/// Runs one scenario.
pub(crate) struct BulkheadRunner {
    runtime: ManualRuntime,
    config: BulkheadConfig,
    wait: Option<Duration>,
    bulkhead: Bulkhead,
    held: HashMap<String, Permit>,
    waiting: Vec<Waiter>,
    /// Numbers the wake-ups, so that waiters are polled in the order in which they were woken.
    clock: Arc<AtomicU64>,
    result: Option<&'static str>,
    granted: Vec<String>,
    timed_out: Vec<String>,
    cancelled: Vec<String>,
}

struct Waiter {
    name: String,
    future: Pin<Box<Acquire>>,
    woken: Arc<Woken>,
    deadline: Option<Duration>,
}

/// The number of the last wake-up; 0 if there was none since the last poll.
struct Woken {
    at: AtomicU64,
    clock: Arc<AtomicU64>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.at.store(
            self.clock.fetch_add(1, Ordering::Relaxed) + 1,
            Ordering::Relaxed,
        );
    }
}

impl BulkheadRunner {
    pub(crate) fn new(cfg: &[(String, String)]) -> Result<Self, String> {
        let mut config = BulkheadConfig::new("scenario")
            .circuit_breaker_enabled(false)
            .max_queue_size(UNBOUNDED)
            .max_wait(Duration::ZERO);
        let mut wait = Some(Duration::ZERO);
        for (key, value) in cfg {
            if key == "wait" {
                wait = waiting_time(value)?;
            }
            config = setting(config, key, value)?;
        }
        let runtime = ManualRuntime::new();
        let bulkhead = Bulkhead::new(config.clone(), runtime.clone()).map_err(|e| e.to_string())?;
        Ok(Self {
            runtime,
            config,
            wait,
            bulkhead,
            held: HashMap::new(),
            waiting: Vec::new(),
            clock: Arc::default(),
            result: None,
            granted: Vec::new(),
            timed_out: Vec::new(),
            cancelled: Vec::new(),
        })
    }

    fn act(&mut self, op: &str, args: &[&str]) -> Result<(), String> {
        match (op, args) {
            ("acquire", [name, rest @ ..]) => self.acquire(name, rest)?,
            ("release", [name]) => {
                self.held
                    .remove(*name)
                    .ok_or_else(|| format!("{name} holds no permit"))?
                    .succeed();
            }
            ("cancel", [name]) => {
                let waiter = self.waiting.iter().position(|waiter| waiter.name == *name);
                match (waiter, self.held.remove(*name)) {
                    (Some(index), None) => drop(self.waiting.remove(index)),
                    (None, Some(permit)) => drop(permit),
                    _ => return Err(format!("{name} is neither queued nor running")),
                }
                self.cancelled.push((*name).to_owned());
            }
            ("set", [first, rest @ ..]) => {
                for arg in [first].into_iter().chain(rest) {
                    let (key, value) = arg
                        .split_once('=')
                        .ok_or_else(|| format!("unknown {arg:?}"))?;
                    match key {
                        "wait" => self.wait = waiting_time(value)?,
                        "max" | "queue" => {}
                        _ => return Err(format!("unknown setting {arg:?}")),
                    }
                    self.config = setting(self.config.clone(), key, value)?;
                }
                self.bulkhead
                    .reconfigure(self.config.clone())
                    .map_err(|e| e.to_string())?;
            }
            ("get", []) => {}
            _ => return Err(format!("unknown operation {op} {args:?}")),
        }
        Ok(())
    }

    fn acquire(&mut self, name: &str, args: &[&str]) -> Result<(), String> {
        if self.held.contains_key(name) || self.waiting.iter().any(|waiter| waiter.name == name) {
            return Err(format!("{name} exists already"));
        }
        let (mut call, mut wait, mut cancelled) = (self.bulkhead.call(), self.wait, false);
        for arg in args {
            match arg.split_once('=') {
                Some(("wait", value)) => {
                    wait = waiting_time(value)?;
                    call = call.max_wait(wait);
                }
                Some(("pre", "cancelled")) => cancelled = true,
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        let future = Box::pin(call.acquire());
        if cancelled {
            drop(future);
            self.result = Some("cancelled");
            self.cancelled.push(name.to_owned());
            return Ok(());
        }
        let woken = Arc::new(Woken {
            at: AtomicU64::new(0),
            clock: Arc::clone(&self.clock),
        });
        let deadline = wait.and_then(|wait| self.runtime.elapsed().checked_add(wait));
        let mut waiter = Waiter {
            name: name.to_owned(),
            future,
            woken,
            deadline,
        };
        self.result = Some(match waiter.poll() {
            Poll::Ready(Ok(permit)) => {
                self.held.insert(waiter.name, permit);
                "ok"
            }
            Poll::Ready(Err(BulkheadError::Full { .. })) => "reject:full",
            Poll::Ready(Err(error)) => return Err(error.to_string()),
            Poll::Pending => {
                self.waiting.push(waiter);
                "queued"
            }
        });
        Ok(())
    }

    /// Advances the clock, and stops at each deadline of a waiter.
    fn advance(&mut self, to: Duration) -> Result<(), String> {
        while let Some(next) = self
            .waiting
            .iter()
            .filter_map(|waiter| waiter.deadline)
            .min()
        {
            if next > to {
                break;
            }
            self.runtime.advance_to(next);
            let before = self.waiting.len();
            self.poll_woken()?;
            if self.waiting.len() == before {
                return Err(format!("no waiter timed out at {next:?}"));
            }
        }
        self.runtime.advance_to(to);
        self.poll_woken()
    }

    /// Polls only waiters that were woken, so that a lost wake-up is detected.
    fn poll_woken(&mut self) -> Result<(), String> {
        loop {
            let woken = |waiter: &Waiter| waiter.woken.at.load(Ordering::Relaxed);
            let first = (0..self.waiting.len())
                .filter(|index| woken(&self.waiting[*index]) > 0)
                .min_by_key(|index| woken(&self.waiting[*index]));
            let Some(index) = first else { return Ok(()) };
            match self.waiting[index].poll() {
                Poll::Pending => {}
                Poll::Ready(Ok(permit)) => {
                    let name = self.waiting.remove(index).name;
                    self.granted.push(name.clone());
                    self.held.insert(name, permit);
                }
                Poll::Ready(Err(BulkheadError::Timeout {
                    phase: TimeoutPhase::Queued,
                    ..
                })) => {
                    self.timed_out.push(self.waiting.remove(index).name);
                }
                Poll::Ready(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    fn check(&self, expected: &Expected) -> Result<(), String> {
        let Expected { key, value } = expected;
        let Some(value) = value else {
            return match key.as_str() {
                "ok" | "queued" | "reject:full" | "cancelled" if self.result == Some(key) => Ok(()),
                "ok" | "queued" | "reject:full" | "cancelled" => Err(format!(
                    "expected {key}, got {}",
                    self.result.unwrap_or("no result")
                )),
                _ => Err(format!("unknown expectation {key:?}")),
            };
        };
        let stats = self.bulkhead.stats();
        let available = stats
            .max_concurrent_calls
            .saturating_sub(stats.permits_in_use);
        let names = |names: &[String]| {
            if names.is_empty() {
                "none".into()
            } else {
                names.join(",")
            }
        };
        match key.as_str() {
            "used" => same(key, value, number(value)?, stats.permits_in_use),
            "avail" => same(key, value, number(value)?, available),
            "queued" => same(key, value, number(value)?, stats.waiting),
            "max" => same(key, value, number(value)?, stats.max_concurrent_calls),
            "rejected" => same(key, value, number(value)?, stats.rejected.full),
            "grant" => same(key, value, value.clone(), names(&self.granted)),
            "timeout" => same(key, value, value.clone(), names(&self.timed_out)),
            "cancelled" => same(key, value, value.clone(), names(&self.cancelled)),
            _ => Err(format!("unknown expectation {key:?}")),
        }
    }
}

impl Runner for BulkheadRunner {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.granted.clear();
        self.timed_out.clear();
        self.cancelled.clear();
        self.result = None;
        self.advance(step.at)?;
        let args: Vec<_> = step.args.iter().map(String::as_str).collect();
        self.act(&step.op, &args)?;
        self.poll_woken()?;
        // Every permit that the bulkhead counts is held by a call.
        same(
            "used",
            "as held",
            self.held.len(),
            self.bulkhead.stats().permits_in_use,
        )?;
        same(
            "queued",
            "as waiting",
            self.waiting.len(),
            self.bulkhead.stats().waiting,
        )?;
        step.expected
            .iter()
            .try_for_each(|expected| self.check(expected))
    }
}

impl Waiter {
    fn poll(&mut self) -> Poll<<Acquire as Future>::Output> {
        self.woken.at.store(0, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

fn setting(config: BulkheadConfig, key: &str, value: &str) -> Result<BulkheadConfig, String> {
    Ok(match (key, value) {
        ("max", n) => config.max_concurrent_calls(number(n)?),
        ("queue", "inf") => config.max_queue_size(UNBOUNDED),
        ("queue", n) => config.max_queue_size(number(n)?),
        ("wait", time) => config.max_wait(waiting_time(time)?),
        ("order", "fifo") => config.queue_order(QueueOrder::Fifo),
        ("order", "lifo") => config.queue_order(QueueOrder::Lifo),
        _ => return Err(format!("unknown key {key}={value}")),
    })
}

/// Parses a wait; `None` if it is unlimited.
fn waiting_time(value: &str) -> Result<Option<Duration>, String> {
    if value == "inf" {
        Ok(None)
    } else {
        millis(value).map(Some)
    }
}

/// The largest queue that can be configured.
const UNBOUNDED: usize = 2_147_483_647;
