//! What one call did, beside its result.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::bulkhead::Bulkhead;
use crate::call::classifier::Classifier;
use crate::call::execute::Execute;
use crate::error::BulkheadError;
use crate::name::BulkheadName;

/// A call's result with the time it took: what [`Call::execute_with_report`](crate::call::Call::execute_with_report) returns.
///
/// ```
/// # use bulkman::testing::ManualRuntime;
/// # use bulkman::{Bulkhead, BulkheadConfig};
/// # let runtime = ManualRuntime::new();
/// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
/// let report = runtime.block_on(bulkhead.call().execute_with_report(async { Ok::<_, ()>("found") }));
/// println!("call {} waited {:?} and ran {:?}", report.id, report.queued, report.ran);
/// assert_eq!(report.result, Ok("found"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionReport<T, E> {
    /// What [`Bulkhead::execute`] would have returned.
    pub result: Result<T, BulkheadError<E>>,
    /// How long the call waited for a permit.
    pub queued: Duration,
    /// How long the operation ran; zero when it never began.
    pub ran: Duration,
    /// Unique among all calls of this process; also in the call's span.
    pub id: u64,
    /// The bulkhead that the call went through.
    pub bulkhead: BulkheadName,
}

pin_project! {
    /// The future of [`Call::execute_with_report`](crate::call::Call::execute_with_report).
    ///
    /// # Cancel safety
    ///
    /// As [`Execute`].
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let report = bulkhead.call().execute_with_report(async { Ok::<_, ()>("found") });
    /// assert_eq!(report.await.bulkhead, "search");
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use = "futures do nothing unless polled"]
    pub struct ExecuteWithReport<H: Borrow<Bulkhead>, F, C> {
        id: u64,
        #[pin]
        execute: Execute<H, F, C>,
    }
}

impl<H: Borrow<Bulkhead>, F, C> ExecuteWithReport<H, F, C> {
    pub(crate) const fn new(id: u64, execute: Execute<H, F, C>) -> Self {
        Self { id, execute }
    }
}

impl<H, F, C, T, E> Future for ExecuteWithReport<H, F, C>
where
    H: Borrow<Bulkhead>,
    F: Future<Output = Result<T, E>>,
    C: Classifier<T, E>,
{
    type Output = ExecutionReport<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut execute = this.execute;
        let result = ready!(execute.as_mut().poll(cx));
        let (queued, ran) = execute.spent();
        Poll::Ready(ExecutionReport {
            result,
            queued,
            ran,
            id: *this.id,
            bulkhead: execute.bulkhead(),
        })
    }
}

impl<H: Borrow<Bulkhead>, F, C> fmt::Debug for ExecuteWithReport<H, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteWithReport")
            .field("execute", &self.execute)
            .finish()
    }
}

/// Never zero.
pub(crate) fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
