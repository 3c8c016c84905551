//! Many calls that wait for one permit, polled manually.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use crate::contenders::{ConcurrencyLimiter, Work};

/// A call that holds the only permit and never ends, and the calls that wait behind it.
///
/// The calls are boxed and never move. Cancelling one then costs only the limiter's cleanup.
pub(crate) struct WaitingCalls<F> {
    holder: Pin<Box<Option<F>>>,
    waiting: Vec<Pin<Box<Option<F>>>>,
}

/// A call that keeps its permit once it has it.
pub(crate) async fn call<L: ConcurrencyLimiter>(mut limiter: L) {
    limiter.run(Work::forever()).await;
}

impl<F: Future<Output = ()>> WaitingCalls<F> {
    /// Creates the holder and `waiting` more calls, which have not been polled yet.
    pub(crate) fn new(waiting: usize, call: impl Fn() -> F) -> Self {
        let mut calls = Self {
            holder: Box::pin(Some(call())),
            waiting: (0..waiting).map(|_| Box::pin(Some(call()))).collect(),
        };
        poll(&mut calls.holder);
        calls
    }

    /// Polls every call once, so that all of them queue.
    pub(crate) fn queue(&mut self) {
        self.waiting.iter_mut().for_each(poll);
    }

    /// Cancels the call at `index`.
    pub(crate) fn cancel(&mut self, index: usize) {
        self.waiting[index].set(None);
    }

    /// Cancels the holder, so that its permit is granted to the first waiter: the call at `index`.
    ///
    /// That call is the holder from then on.
    pub(crate) fn grant_next(&mut self, index: usize) {
        self.holder.set(None);
        poll(&mut self.waiting[index]);
        std::mem::swap(&mut self.holder, &mut self.waiting[index]);
    }

    /// Puts a new call in the place of a cancelled one, and queues it.
    pub(crate) fn refill(&mut self, index: usize, call: F) {
        self.waiting[index].set(Some(call));
        poll(&mut self.waiting[index]);
    }
}

fn poll<F: Future<Output = ()>>(call: &mut Pin<Box<Option<F>>>) {
    let call = call.as_mut().as_pin_mut().expect("it was not cancelled");
    let polled = call.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the work never ends");
}
