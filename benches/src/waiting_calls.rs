//! Many calls that wait for one permit, polled manually.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use crate::contenders::{Gate, Work};

/// One call that holds the permit and never ends, and others behind it.
///
/// The calls live in boxes that stay where they are, so that cancelling one costs what the
/// gate's cleanup costs.
pub(crate) struct WaitingCalls<F> {
    holder: Pin<Box<Option<F>>>,
    waiting: Vec<Pin<Box<Option<F>>>>,
}

/// Creates `n` calls behind one; none of them has been polled.
pub(crate) fn gather<F: Future<Output = ()>>(
    waiting: usize,
    call: impl Fn() -> F,
) -> WaitingCalls<F> {
    let mut waiting_calls = WaitingCalls {
        holder: Box::pin(Some(call())),
        waiting: (0..waiting).map(|_| Box::pin(Some(call()))).collect(),
    };
    poll(&mut waiting_calls.holder);
    waiting_calls
}

/// A call that keeps its permit once it has it.
pub(crate) async fn call<G: Gate>(mut gate: G) {
    gate.pass(Work::forever()).await;
}

impl<F: Future<Output = ()>> WaitingCalls<F> {
    /// Polls every call once: all of them queue.
    pub(crate) fn queue(&mut self) {
        self.waiting.iter_mut().for_each(poll);
    }

    /// Cancels the call at `index`.
    pub(crate) fn cancel(&mut self, index: usize) {
        self.waiting[index].set(None);
    }

    /// Cancels the holder; the next in line, which must be the call at `index`, gets the permit
    /// and holds it from now on.
    pub(crate) fn hand_off(&mut self, index: usize) {
        self.holder.set(None);
        poll(&mut self.waiting[index]);
        std::mem::swap(&mut self.holder, &mut self.waiting[index]);
    }

    /// Replaces a cancelled call by another one, and queues it.
    pub(crate) fn refill(&mut self, index: usize, call: F) {
        self.waiting[index].set(Some(call));
        poll(&mut self.waiting[index]);
    }
}

fn poll<F: Future<Output = ()>>(call: &mut Pin<Box<Option<F>>>) {
    let call = call.as_mut().as_pin_mut().expect("it has not gone");
    let polled = call.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the work never ends");
}
