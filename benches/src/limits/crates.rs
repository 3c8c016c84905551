//! Adaptive limits of crates, with their default settings. They read the real clock.
//!
//! The gradient of congestion-limiter 0.1 is not among them: its moving average panics when a
//! latency is below the average.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bulkman_core::adaptive::AdaptiveLimit;
use bulkman_core::{Bulkhead, BulkheadError, Outcome};
use bulkman_tokio::TokioRuntime;
use congestion_limiter::limiter::{DefaultLimiter, Limiter as _, Outcome as CongestionOutcome};
use congestion_limiter::limits as congestion;
use throttle_net::{AdaptiveLimiter, AdaptiveStrategy};
use tower::{Layer, Service};
use tower_resilience_adaptive::{self as resilience, AdaptiveLimiterLayer};

use super::client::config;
use super::server::Server;

/// A request that timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overloaded;

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request timed out")
    }
}

impl std::error::Error for Overloaded {}

/// A request. A named type, since services of a boxed future are not `Send` for the compiler.
pub(crate) struct Work(Pin<Box<dyn Future<Output = Result<(), Overloaded>> + Send>>);

impl Work {
    pub(crate) fn new(
        request: impl Future<Output = Result<(), Overloaded>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(request))
    }
}

impl Future for Work {
    type Output = Result<(), Overloaded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// A request within the limit; `None` if it was rejected.
type Limited = Pin<Box<dyn Future<Output = Option<Result<(), Overloaded>>> + Send>>;

/// A limit that rejects at once.
pub(crate) trait Limit: Send + Sync {
    fn call(&self, work: Work) -> Limited;
}

/// A limit in the comparison.
#[derive(Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) create: fn(&Arc<Server>) -> Arc<dyn Limit>,
}

/// The name of the yardstick.
pub(crate) const ORACLE: &str = "oracle";
/// The name of this project.
pub(crate) const BULKMAN: &str = "bulkman";

pub(crate) fn contenders() -> Vec<Contender> {
    let contender = |name, create| Contender { name, create };
    vec![
        contender(ORACLE, |server| Arc::new(Oracle::new(server))),
        contender(BULKMAN, |_| Arc::new(Bulkman::new())),
        contender("tower-resilience AIMD", |_| {
            Arc::new(Resilience::new(resilience::Aimd::builder().build()))
        }),
        contender("tower-resilience Vegas", |_| {
            Arc::new(Resilience::new(resilience::Vegas::builder().build()))
        }),
        contender("tower-resilience Gradient2", |_| {
            Arc::new(Resilience::new(resilience::Gradient2::builder().build()))
        }),
        contender("tower-acc AIMD", |_| {
            Arc::new(Acc::new(tower_acc::Aimd::default()))
        }),
        contender("tower-acc Gradient2", |_| {
            Arc::new(Acc::new(tower_acc::Gradient2::default()))
        }),
        contender("tower-acc Vegas", |_| {
            Arc::new(Acc::new(tower_acc::Vegas::default()))
        }),
        contender("congestion-limiter AIMD", |_| {
            let limit = congestion::Aimd::new_with_initial_limit(INITIAL);
            Arc::new(Congestion(Arc::new(DefaultLimiter::new(limit))))
        }),
        contender("congestion-limiter Vegas", |_| {
            let limit = congestion::Vegas::new_with_initial_limit(INITIAL);
            Arc::new(Congestion(Arc::new(DefaultLimiter::new(limit))))
        }),
        contender("throttle-net AIMD", |_| {
            let limit = AdaptiveLimiter::builder().build(throttle_net::Aimd::default());
            Arc::new(Throttle(Arc::new(limit)))
        }),
        contender("throttle-net Vegas", |_| {
            let limit = AdaptiveLimiter::builder().build(throttle_net::Vegas::default());
            Arc::new(Throttle(Arc::new(limit)))
        }),
    ]
}

/// The initial limit of congestion-limiter, which has no default.
const INITIAL: usize = 10;

/// A limit that equals the number of workers at every moment.
struct Oracle {
    server: Arc<Server>,
    in_flight: Arc<AtomicU64>,
}

impl Oracle {
    fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            in_flight: Arc::default(),
        }
    }
}

impl Limit for Oracle {
    fn call(&self, work: Work) -> Limited {
        let workers = self.server.scenario().workers(self.server.now());
        let in_flight = Arc::clone(&self.in_flight);
        Box::pin(async move {
            if in_flight.fetch_add(1, Ordering::Relaxed) >= workers {
                in_flight.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            let result = work.await;
            in_flight.fetch_sub(1, Ordering::Relaxed);
            Some(result)
        })
    }
}

struct Bulkman(Bulkhead);

impl Bulkman {
    fn new() -> Self {
        let config = config(1_000, AdaptiveLimit::new());
        Self(Bulkhead::new(config, TokioRuntime::new()).expect("a valid configuration"))
    }
}

impl Limit for Bulkman {
    fn call(&self, work: Work) -> Limited {
        let classified = self.0.classified(|result: &Result<(), Overloaded>| {
            if result.is_ok() {
                Outcome::Success
            } else {
                Outcome::Overloaded
            }
        });
        Box::pin(async move {
            match classified.execute(work).await {
                Ok(()) => Some(Ok(())),
                Err(BulkheadError::Operation(overloaded)) => Some(Err(overloaded)),
                Err(_) => None,
            }
        })
    }
}

/// A service that runs its requests.
#[derive(Clone, Copy)]
struct Run;

impl Service<Work> for Run {
    type Response = ();
    type Error = Overloaded;
    type Future = Work;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Overloaded>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, work: Work) -> Work {
        work
    }
}

/// A service whose readiness is a permit.
async fn call_service<S: Service<Work, Response = ()>>(
    mut service: S,
    work: Work,
) -> Option<Result<(), Overloaded>> {
    match poll_fn(|cx| Poll::Ready(service.poll_ready(cx))).await {
        Poll::Ready(Ok(())) => Some(service.call(work).await.map_err(|_| Overloaded)),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

struct Resilience<A: resilience::ConcurrencyAlgorithm + 'static>(
    Mutex<resilience::AdaptiveService<Run, A>>,
);

impl<A: resilience::ConcurrencyAlgorithm + 'static> Resilience<A> {
    fn new<E: fmt::Debug>(algorithm: Result<A, E>) -> Self {
        let algorithm = algorithm.expect("the defaults are valid");
        Self(Mutex::new(AdaptiveLimiterLayer::new(algorithm).layer(Run)))
    }
}

impl<A: resilience::ConcurrencyAlgorithm + 'static> Limit for Resilience<A> {
    fn call(&self, work: Work) -> Limited {
        let service = self.0.lock().expect("no holder panics").clone();
        Box::pin(call_service(service, work))
    }
}

struct Acc<A>(Mutex<tower_acc::ConcurrencyLimit<Run, A>>);

impl<A: tower_acc::Algorithm> Acc<A> {
    fn new(algorithm: A) -> Self {
        Self(Mutex::new(tower_acc::ConcurrencyLimit::new(Run, algorithm)))
    }
}

impl<A: tower_acc::Algorithm + Send + 'static> Limit for Acc<A> {
    fn call(&self, work: Work) -> Limited {
        let service = self.0.lock().expect("no holder panics").clone();
        Box::pin(call_service(service, work))
    }
}

struct Congestion<A>(Arc<DefaultLimiter<A>>);

impl<A: congestion::LimitAlgorithm + Send + Sync + fmt::Debug + 'static> Limit for Congestion<A> {
    fn call(&self, work: Work) -> Limited {
        let limiter = Arc::clone(&self.0);
        Box::pin(async move {
            let token = limiter.try_acquire().await?;
            let result = work.await;
            let outcome = if result.is_ok() {
                CongestionOutcome::Success
            } else {
                CongestionOutcome::Overload
            };
            limiter.release(token, Some(outcome)).await;
            Some(result)
        })
    }
}

struct Throttle<S: AdaptiveStrategy>(Arc<AdaptiveLimiter<S>>);

impl<S: AdaptiveStrategy + 'static> Limit for Throttle<S> {
    fn call(&self, work: Work) -> Limited {
        let limiter = Arc::clone(&self.0);
        Box::pin(async move {
            let permit = limiter.try_acquire_owned()?;
            let result = work.await;
            if result.is_ok() {
                permit.success();
            } else {
                permit.failure();
            }
            Some(result)
        })
    }
}
