//! Measures calls through the library, built with or without the hooks for listeners.
//!
//! One program contains the library only once, so several programs are compared.
//! `bulkman-bench listeners` builds this one with each feature, starts all of them, and requests
//! rounds from each in turn. It writes the names of its cases, and then a line of figures for each
//! line that it reads: nanoseconds per call.
//!
//! With the argument `info` it installs a subscriber for events at INFO and above.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock"
)]

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("info") {
        subscriber::install()?;
    }
    let mut cases = [cases::<0>(), cases::<1>(), cases::<2>(), cases::<3>()].map(Vec::from);
    for copy in &mut cases {
        copy.iter_mut().for_each(Case::plan);
    }
    let mut out = std::io::stdout().lock();
    let names: Vec<_> = cases[0].iter().map(|case| case.name).collect();
    writeln!(out, "{}", names.join("\t"))?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let figures: Vec<_> = (0..names.len())
            .map(|case| {
                // The mean over the copies, since each has another place in memory.
                let sum: f64 = cases.iter_mut().map(|copy| copy[case].turn()).sum();
                (sum / cases.len() as f64).to_string()
            })
            .collect();
        writeln!(out, "{}", figures.join("\t"))?;
        out.flush()?;
    }
    Ok(())
}

/// Returns the cases, compiled separately for each `COPY`.
///
/// The operation's type depends on `COPY`, and so does all code that is inlined around it.
fn cases<const COPY: u64>() -> [Case; 6] {
    let semaphore = async_lock::Semaphore::new(PERMITS);
    let config = || BulkheadConfig::new("bench").max_concurrent_calls(PERMITS);
    let closed = bulkhead(config());
    let open = bulkhead(config());
    open.circuit_breaker()
        .expect("it is enabled")
        .open_for(ONE_HOUR);
    let full = bulkhead(config().max_concurrent_calls(1).max_queue_size(0));
    let held = ready(full.acquire()).expect("a free permit");
    let [breaker, opened] = [(), ()].map(|()| {
        CircuitBreaker::new("bench", CircuitBreakerConfig::new(), ClockOnly)
            .expect("a valid configuration")
    });
    opened.open_for(ONE_HOUR);
    [
        Case::new("async-lock (S)", move || {
            drop(ready(semaphore.acquire()));
            black_box(COPY)
        }),
        Case::new("closed", move || {
            ready(closed.execute(operation::<COPY>())).is_ok()
        }),
        Case::new("rejected, open", move || {
            ready(open.execute(operation::<COPY>())).is_err()
        }),
        Case::new("rejected, full", move || {
            let _ = &held;
            ready(full.execute(operation::<COPY>())).is_err()
        }),
        Case::new("breaker alone, closed", move || {
            ready(breaker.execute(operation::<COPY>())).is_ok()
        }),
        Case::new("breaker alone, open", move || {
            ready(opened.execute(operation::<COPY>())).is_err()
        }),
    ]
}

const PERMITS: usize = 10;
/// An isolation that does not elapse while calls are measured.
const ONE_HOUR: Duration = Duration::from_secs(3600);

fn bulkhead(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, ClockOnly).expect("a valid configuration")
}

async fn operation<const COPY: u64>() -> Result<u64, ()> {
    black_box(Ok(COPY))
}

/// Polls a future that is ready at its first poll.
///
/// Inlined, as an `.await` would be.
#[inline(always)]
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the call had to wait"),
    }
}

struct Case {
    name: &'static str,
    run: Box<dyn FnMut(u32)>,
    /// The number of calls in a batch.
    calls: u32,
}

/// The duration of a batch: long compared to a clock reading, short compared to a time slice.
const BATCH: Duration = Duration::from_micros(20);
/// The number of batches in a turn.
const BATCHES: usize = 15;

impl Case {
    fn new<T>(name: &'static str, mut call: impl FnMut() -> T + 'static) -> Self {
        let run = move |calls| {
            for _ in 0..calls {
                black_box(call());
            }
        };
        Self {
            name,
            run: Box::new(run),
            calls: 1,
        }
    }

    /// Determines the number of calls in a batch.
    fn plan(&mut self) {
        while self.batch() * f64::from(self.calls) < BATCH.as_nanos() as f64 {
            self.calls *= 2;
        }
    }

    /// Runs some batches and returns the median, in nanoseconds per call.
    fn turn(&mut self) -> f64 {
        // Not measured: the caches still contain the data of the previous case.
        self.batch();
        let mut batches: [f64; BATCHES] = std::array::from_fn(|_| self.batch());
        batches.sort_by(f64::total_cmp);
        batches[BATCHES / 2]
    }

    fn batch(&mut self) -> f64 {
        let start = Instant::now();
        (self.run)(self.calls);
        start.elapsed().as_nanos() as f64 / f64::from(self.calls)
    }
}

#[cfg(feature = "tracing")]
mod subscriber {
    //! A subscriber that receives events at INFO and above, as in production.

    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::{SetGlobalDefaultError, Subscriber, set_global_default};
    use tracing::{Event, Level, Metadata, level_filters::LevelFilter};

    struct Info;

    pub(super) fn install() -> Result<(), SetGlobalDefaultError> {
        set_global_default(Info)
    }

    impl Subscriber for Info {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::INFO
        }

        fn max_level_hint(&self) -> Option<LevelFilter> {
            Some(LevelFilter::INFO)
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
}

#[cfg(not(feature = "tracing"))]
mod subscriber {
    pub(super) fn install() -> Result<(), &'static str> {
        Err("built without tracing")
    }
}
