//! The cost of the end of a sampling window.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_core::runtime::{BoxFuture, ClockOnly, Sleep};
use bulkman_core::{Bulkhead, Runtime};

use crate::contenders::ready;
use crate::limits::client::config;

const ROUNDS: usize = 31;
const CALLS: u32 = 20_000;
/// The number of calls that fill a window at the initial limit.
const CALLS_OF_A_WINDOW: f64 = 10.0;

/// Returns how long the end of a window takes, in microseconds.
///
/// Every tenth call closes a window, or none does. The difference is the cost.
pub(super) fn closing() -> f64 {
    let (closing, open) = (
        bulkhead(Duration::from_millis(200)),
        bulkhead(Duration::from_secs(60)),
    );
    let mut differences: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let [with, without] = [&closing, &open].map(microseconds);
            (with - without) * CALLS_OF_A_WINDOW
        })
        .collect();
    let windows = closing.snapshot().limit.map(|status| status.age);
    let age = windows.expect("an adaptive limit");
    assert!(age < Duration::from_secs(1), "windows close: {age:?}");
    differences.sort_by(f64::total_cmp);
    differences[ROUNDS / 2]
}

fn bulkhead(window: Duration) -> Bulkhead {
    let limit = AdaptiveLimit::new().window(window);
    let clock = Ticking(ClockOnly.now(), AtomicU64::new(0));
    Bulkhead::new(config(100, limit), clock).expect("a valid configuration")
}

/// Returns the time of a call in microseconds.
fn microseconds(bulkhead: &Bulkhead) -> f64 {
    let began = Instant::now();
    for _ in 0..CALLS {
        let result = ready(bulkhead.execute(async { Ok::<u64, ()>(black_box(7)) }));
        assert!(result.is_ok());
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
}

/// A clock that advances by 25 ms at each reading, of which each sample needs two.
#[derive(Debug)]
struct Ticking(Instant, AtomicU64);

impl Runtime for Ticking {
    fn now(&self) -> Instant {
        self.0 + Duration::from_millis(25 * self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        ClockOnly.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        ClockOnly.spawn(task)
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        ClockOnly.spawn_blocking(job);
    }
}
