//! Two threads that share one object. There are permits for both, so neither waits.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use asyncband_0_6::admission::FairShare;
use bulkman_core::bulkhead::Fairness;

use super::breakers::{consecutive, recloser};
use super::bulkman::{config, on_tokio, rate_over_calls};
use super::{PERMITS, ready, succeeds};

/// A shared object, and the call that each thread runs on it.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: Box<dyn Fn(u64) -> f64>,
}

impl Contender {
    fn new<T>(name: &'static str, mut call: impl FnMut() -> T + Clone + Send + 'static) -> Self {
        Self::for_each_thread(name, move |_| call())
    }

    /// Creates a contender that passes the number of the thread, 0 or 1, to the call.
    fn for_each_thread<T>(
        name: &'static str,
        call: impl FnMut(usize) -> T + Clone + Send + 'static,
    ) -> Self {
        let run = move |calls| {
            let barrier = Arc::new(Barrier::new(2));
            let threads = [0, 1].map(|thread| {
                let (mut call, barrier) = (call.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..calls {
                        black_box(call(thread));
                    }
                    start.elapsed().as_nanos() as f64 / calls as f64
                })
            });
            let times = threads.map(|thread| thread.join().expect("no call panics"));
            times.iter().sum::<f64>() / 2.0
        };
        Self {
            name,
            run: Box::new(run),
        }
    }

    /// Returns the nanoseconds per call and thread.
    fn run(&self, calls: u64) -> f64 {
        (self.run)(calls)
    }
}

/// Runs contenders in turns, and returns the nanoseconds per call and thread of each round.
pub(crate) fn run_in_turns(contenders: &[Contender], rounds: usize, calls: u64) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push(contender.run(calls));
        }
    }
    times
}

/// Returns the contenders: first the semaphore to which the target refers, then bulkman.
pub(crate) fn contenders() -> Vec<Contender> {
    let mut contenders = Vec::new();
    let semaphore = Arc::new(async_lock::Semaphore::new(PERMITS));
    contenders.push(Contender::new("async-lock Semaphore", move || {
        drop(ready(semaphore.acquire()))
    }));
    let bulkhead = on_tokio(config());
    contenders.push(Contender::new("bulkman", move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    let bulkhead = on_tokio(config().circuit_breaker(rate_over_calls(100)));
    contenders.push(Contender::new("bulkman: count window", move || {
        ready(bulkhead.execute(succeeds!())).is_ok()
    }));
    let semaphore = Arc::new(tokio::sync::Semaphore::new(PERMITS));
    contenders.push(Contender::new("tokio Semaphore", move || {
        drop(ready(semaphore.acquire()).expect("never closed"));
    }));
    let semaphore = Arc::new(asyncband::semaphore::Semaphore::new(PERMITS));
    contenders.push(Contender::new("asyncband Semaphore", move || {
        drop(ready(semaphore.acquire(1)))
    }));
    let breaker = recloser();
    contenders.push(Contender::new("recloser", move || {
        ready(breaker.call(succeeds!())).is_ok()
    }));
    let breaker = consecutive();
    contenders.push(Contender::new("failsafe: consecutive", move || {
        ready(failsafe::futures::CircuitBreaker::call(
            &breaker,
            succeeds!(),
        ))
    }));
    let (breaker, semaphore) = (recloser(), Arc::new(tokio::sync::Semaphore::new(PERMITS)));
    contenders.push(Contender::new("recloser over tokio Semaphore", move || {
        ready(breaker.call(async {
            let _permit = semaphore.acquire().await.expect("never closed");
            succeeds!().await
        }))
        .is_ok()
    }));
    contenders
}

/// Returns contenders that share permits fairly between keys: first bulkman.
///
/// Both hash the key at each call.
pub(crate) fn with_keys() -> Vec<Contender> {
    const TENANTS: [&str; 2] = ["tenant-1234", "tenant-5678"];
    let bulkhead = on_tokio(config().fairness(Fairness::new()));
    let ours = Contender::for_each_thread("bulkman, key", move |thread| {
        let call = bulkhead.call().key(TENANTS[thread]);
        ready(call.execute(succeeds!())).is_ok()
    });
    let admission = Arc::new(FairShare::new(PERMITS));
    let theirs = Contender::for_each_thread("asyncband, FairShare", move |thread| {
        drop(ready(admission.acquire(TENANTS[thread])))
    });
    vec![ours, theirs]
}
