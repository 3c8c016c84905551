//! Faulty user code and extreme values: each has a defined result, and nothing hangs.

#[path = "../support/faulty_clock.rs"]
mod faulty_clock;
mod limits;
mod names;
mod panics;
mod wakers;
#[path = "../support/watchdog.rs"]
mod watchdog;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
