//! tower's own concurrency limit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::{Service, ServiceExt};

use super::group::{BULKHEAD, FULL};
use super::{ConcurrencyLimiter, Failed, PERMITS, Work, ready, succeeds};
use crate::harness::measure::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut service = ConcurrencyLimit::new(tower::service_fn(|()| succeeds!()), PERMITS);
    cases.push(Case::new(BULKHEAD, "tower: ConcurrencyLimit", move || {
        ready(call(&mut service)).is_ok()
    }));
    let mut service = LoadShed::new(ConcurrencyLimit::new(
        tower::service_fn(|()| succeeds!()),
        PERMITS,
    ));
    cases.push(Case::new(
        BULKHEAD,
        "tower: LoadShed over ConcurrencyLimit",
        move || ready(call(&mut service)).is_ok(),
    ));

    // One clone holds the only permit.
    let limited = ConcurrencyLimit::new(tower::service_fn(|()| succeeds!()), 1);
    let mut service = LoadShed::new(limited.clone());
    let mut holder = limited;
    ready(holder.ready()).expect("a free permit");
    cases.push(Case::new(
        FULL,
        "tower: LoadShed over ConcurrencyLimit",
        move || {
            // Moved into the closure, so that the permit stays held.
            let _ = &holder;
            ready(call(&mut service)).is_err()
        },
    ));
    cases
}

/// Sends one request after waiting for readiness, as tower requires.
pub(crate) async fn call<S: Service<()>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(()).await
}

/// The guarded service, which runs the work that is sent to it.
#[derive(Clone, Copy)]
pub(crate) struct Worker;

/// The future of [`Worker`]: runs [`Work`].
pub(crate) struct Working(Work);

impl Future for Working {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(Ok)
    }
}

impl Service<Work> for Worker {
    type Response = ();
    type Error = Failed;
    type Future = Working;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, work: Work) -> Working {
        Working(work)
    }
}

#[derive(Clone)]
pub(crate) struct Limit(ConcurrencyLimit<Worker>);

impl ConcurrencyLimiter for Limit {
    const NAME: &'static str = "tower ConcurrencyLimit";

    fn new(permits: usize) -> Self {
        Self(ConcurrencyLimit::new(Worker, permits))
    }

    async fn run(&mut self, work: Work) {
        let service = self.0.ready().await.expect("never closed");
        service.call(work).await.expect("the work can't fail");
    }
}
