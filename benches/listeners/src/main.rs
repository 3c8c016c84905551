//! Times calls through the library as it was built: with hooks for listeners, or without.
//!
//! A program holds the library once, so what the hooks cost takes several programs:
//! `bulkman-bench listeners` builds this one with each feature, starts all of them, and asks one
//! after the other for a round. It writes the names of its cases, and then a line of figures for
//! each line that it reads: nanoseconds a call.
//!
//! With the word `info` as its argument it has a subscriber that wants nothing below INFO.
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
                // The mean over the copies: each lies elsewhere in memory, as it happens.
                let sum: f64 = cases.iter_mut().map(|copy| copy[case].turn()).sum();
                (sum / cases.len() as f64).to_string()
            })
            .collect();
        writeln!(out, "{}", figures.join("\t"))?;
        out.flush()?;
    }
    Ok(())
}

/// The cases, in a separate copy for each `COPY`: the operation's type depends on it, so all
/// that is inlined around the operation is compiled again.
fn cases<const COPY: u64>() -> [Case; 6] {
    let semaphore = async_lock::Semaphore::new(PERMITS);
    let config = || BulkheadConfig::new("bench").max_concurrent_calls(PERMITS);
    let closed = bulkhead(config());
    let open = bulkhead(config());
    open.circuit_breaker().expect("there is one").open_for(FAR);
    let full = bulkhead(config().max_concurrent_calls(1).max_queue_size(0));
    let held = ready(full.acquire()).expect("a free permit");
    let [breaker, opened] = [(), ()].map(|()| {
        CircuitBreaker::new("bench", CircuitBreakerConfig::new(), ClockOnly)
            .expect("a valid configuration")
    });
    opened.open_for(FAR);
    [
        Case::new("async-lock (S)", move || {
            drop(ready(semaphore.acquire()));
            black_box(COPY)
        }),
        Case::new("closed", move || {
            ready(closed.execute(operation::<COPY>())).is_ok()
        }),
        Case::new("refused, open", move || {
            ready(open.execute(operation::<COPY>())).is_err()
        }),
        Case::new("refused, full", move || {
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
/// No circuit closes while it is measured.
const FAR: Duration = Duration::from_secs(3600);

fn bulkhead(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, ClockOnly).expect("a valid configuration")
}

async fn operation<const COPY: u64>() -> Result<u64, ()> {
    black_box(Ok(COPY))
}

/// Polls a future that is ready at its first poll; inlined, as by an `.await`.
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
    /// In a batch.
    calls: u32,
}

/// Long against a clock reading, short against a time slice.
const BATCH: Duration = Duration::from_micros(20);
/// In a turn.
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

    /// Finds out how many calls make a batch.
    fn plan(&mut self) {
        while self.batch() * f64::from(self.calls) < BATCH.as_nanos() as f64 {
            self.calls *= 2;
        }
    }

    /// Nanoseconds a call: the median of some batches.
    fn turn(&mut self) -> f64 {
        // The first batch finds the caches full of the previous case.
        self.batch();
        let mut batches: [f64; BATCHES] = std::array::from_fn(|_| self.batch());
        batches.sort_by(f64::total_cmp);
        batches[BATCHES / 2]
    }

    fn batch(&mut self) -> f64 {
        let begin = Instant::now();
        (self.run)(self.calls);
        begin.elapsed().as_nanos() as f64 / f64::from(self.calls)
    }
}

#[cfg(feature = "tracing")]
mod subscriber {
    //! A subscriber as in production: it receives events at INFO and above.

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
