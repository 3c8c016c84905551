//! Calls that report their times beside their result.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::call::classifier::Classifier;
use crate::call::execute::Execute;
use crate::error::BulkheadError;
use crate::name::BulkheadName;

/// The result of a call and its times.
///
/// Returned by [`Call::execute_with_report`](crate::call::Call::execute_with_report).
///
/// ```
/// # use bulkman::testing::ManualRuntime;
/// # use bulkman::{Bulkhead, BulkheadConfig};
/// # let runtime = ManualRuntime::new();
/// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone())?;
/// let query = async { Ok::<_, ()>("found") };
/// let report = runtime.block_on(bulkhead.call().execute_with_report(query));
/// println!("call {} waited {:?} and ran {:?}", report.id, report.queued, report.ran);
/// assert_eq!(report.result, Ok("found"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionReport<T, E> {
    /// The result, as [`Bulkhead::execute`](crate::Bulkhead::execute) returns it.
    pub result: Result<T, BulkheadError<E>>,
    /// How long the call waited for a permit.
    pub queued: Duration,
    /// How long the operation ran; zero if it was never started.
    pub ran: Duration,
    /// The number of permits that the call held: its weight, or all permits of a smaller limit.
    ///
    /// 0 if it was never started, or ran without a permit in observe mode.
    pub permits: u32,
    /// An id that is unique among all calls of this process. The span of the call contains it.
    pub id: u64,
    /// The bulkhead of the call.
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
    pub struct ExecuteWithReport<'a, F, C> {
        id: u64,
        #[pin]
        execute: Execute<'a, F, C>,
    }
}

impl<'a, F, C> ExecuteWithReport<'a, F, C> {
    pub(crate) const fn new(id: u64, execute: Execute<'a, F, C>) -> Self {
        Self { id, execute }
    }
}

impl<F, C, T, E> Future for ExecuteWithReport<'_, F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classifier<T, E>,
{
    type Output = ExecutionReport<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut execute = this.execute;
        let result = ready!(execute.as_mut().poll(cx));
        let (queued, ran) = execute.elapsed();
        let rejected = result.as_ref().is_err_and(BulkheadError::is_rejection);
        Poll::Ready(ExecutionReport {
            result,
            queued,
            ran,
            permits: if rejected { 0 } else { execute.permits() },
            id: *this.id,
            bulkhead: execute.bulkhead(),
        })
    }
}

impl<F, C> fmt::Debug for ExecuteWithReport<'_, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteWithReport")
            .field("execute", &self.execute)
            .finish()
    }
}
