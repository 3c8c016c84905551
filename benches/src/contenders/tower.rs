//! tower's own concurrency limit.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::{Service, ServiceExt};

use super::group::{BULKHEAD, FULL};
use super::{Failed, Gate, PERMITS, Work, ready, succeeds};
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

    // One clone keeps the only permit reserved.
    let limited = ConcurrencyLimit::new(tower::service_fn(|()| succeeds!()), 1);
    let mut service = LoadShed::new(limited.clone());
    let mut holder = limited;
    ready(holder.ready()).expect("a free permit");
    cases.push(Case::new(
        FULL,
        "tower: LoadShed over ConcurrencyLimit",
        move || {
            // Moved in, so that the permit stays taken.
            let _ = &holder;
            ready(call(&mut service)).is_err()
        },
    ));
    cases
}

/// One request, with the readiness that tower asks for.
pub(crate) async fn call<S: Service<()>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(()).await
}

/// The service that the gates guard: it does the work it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Worker;

/// [`Work`] as a service's future.
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

impl Gate for Limit {
    const NAME: &'static str = "tower ConcurrencyLimit";

    fn new(permits: usize) -> Self {
        Self(ConcurrencyLimit::new(Worker, permits))
    }

    async fn pass(&mut self, work: Work) {
        let service = self.0.ready().await.expect("never closed");
        service.call(work).await.expect("the work can't fail");
    }
}
