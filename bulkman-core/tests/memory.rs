//! The memory of futures, bulkheads and waiting calls has upper bounds.
//!
//! The bench suite `memory` measures the same in the same way, beside other libraries. These sizes
//! depend on neither the machine nor the profile, so a test notices when they grow. A change that
//! needs more raises the bound, and states the reason.
//!
//! The features `tracing` and `metrics` are enabled, as in all tests of this package. Without them,
//! as in the suite, a future takes 16 bytes less, and a bulkhead 416.
//!
//! The global allocator of this binary, `allocation-counter`, counts the allocations of each
//! thread.

// Elsewhere, the locks of the standard library have other sizes.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::convert::Infallible;
use std::future::{Future, pending};
use std::hint::black_box;
use std::mem::size_of_val;
use std::pin::Pin;
use std::task::{Context, Waker};

use allocation_counter::measure;
use bulkman::TokioRuntime;
use bulkman_core::circuit_breaker::SlidingWindow;
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreakerConfig};

/// What the future of `execute` adds to its operation: 119 bytes, and the next size is 127.
const EXECUTE: usize = 120;

/// A bulkhead and its circuit breaker with default settings, with its handle: 2,397 bytes, and the
/// next size is 2,405.
const DEFAULT_BULKHEAD: usize = 2_400;

/// The same with a rule for the failure rate of 100 calls: 2,629 bytes, and the next size is 2,637.
const BULKHEAD_WITH_WINDOW: usize = 2_632;

/// The memory of the queue for a waiting call: 19.01 bytes, mostly its waker. A chunk has slots for
/// 64 calls, so one byte more for a call is one more here.
const WAITING_CALL: f64 = 19.5;

fn bulkhead(config: BulkheadConfig) -> Bulkhead {
    Bulkhead::new(config, TokioRuntime::new()).unwrap()
}

fn config() -> BulkheadConfig {
    BulkheadConfig::new("bench")
}

#[test]
fn future_of_execute_is_no_larger_than_its_bound() {
    let bulkhead = bulkhead(config());
    let operation = || async { black_box(Ok::<u64, Infallible>(7)) };
    let size = size_of_val(&bulkhead.execute(operation())) - size_of_val(&operation());
    assert!(size <= EXECUTE, "{size} bytes");
}

#[test]
fn bulkhead_is_no_larger_than_its_bound() {
    let window = CircuitBreakerConfig::new()
        .failure_rate_threshold(0.5)
        .sliding_window(SlidingWindow::Count(100));
    for (config, bound) in [
        (config(), DEFAULT_BULKHEAD),
        (config().circuit_breaker(window), BULKHEAD_WITH_WINDOW),
    ] {
        // The first one may allocate what all of them share.
        drop(bulkhead(config.clone()));
        let mut created = None;
        let heap = measure(|| created = Some(bulkhead(config.clone()))).bytes_current;
        let size = heap as usize + size_of::<Bulkhead>();
        assert!(size <= bound, "{size} bytes, expected at most {bound}");
    }
}

#[test]
fn waiting_call_allocates_no_more_than_its_bound() {
    const WAITING: usize = 100_000;

    fn poll(call: &mut Pin<Box<impl Future>>) {
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }

    let bulkhead = bulkhead(config().max_concurrent_calls(1).max_queue_size(WAITING));
    let call = || Box::pin(bulkhead.execute(pending::<Result<(), Infallible>>()));
    let mut running = call();
    poll(&mut running);
    let mut waiting: Vec<_> = (0..WAITING).map(|_| call()).collect();
    let heap = measure(|| waiting.iter_mut().for_each(poll)).bytes_current;
    assert_eq!(bulkhead.stats().waiting, WAITING);
    let each = heap as f64 / WAITING as f64;
    assert!(each <= WAITING_CALL, "{each} bytes");
}
