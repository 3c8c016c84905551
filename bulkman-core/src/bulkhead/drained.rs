//! Shutdown of a bulkhead, and waiting for its last call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Bulkhead, Inner};
use crate::sync::waker_set::WakerKey;

impl Bulkhead {
    /// Rejects new and queued calls; running calls continue.
    ///
    /// Rejected calls return [`BulkheadError::Shutdown`](crate::BulkheadError::Shutdown). A
    /// shutdown can't be undone, and a second one has no effect. To wait for the running calls,
    /// use [`drained`](Self::drained).
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig, BulkheadError};
    /// # use bulkman::runtime::ClockOnly;
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let running = bulkhead.try_acquire().unwrap();
    /// bulkhead.shutdown();
    /// let rejected = bulkhead.execute_sync(|| Ok::<_, ()>("found")).unwrap_err();
    /// assert!(matches!(rejected, BulkheadError::Shutdown { .. }));
    /// running.succeed(); // running calls still end normally
    /// assert_eq!(bulkhead.stats().successful, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[doc(alias = "close")]
    pub fn shutdown(&self) {
        let inner = &self.inner;
        if inner.queue.close() {
            inner.queue.release_overdue(|| inner.runtime.now());
            inner.ended.wake_all();
        }
    }

    /// Waits until the bulkhead is shut down and its last call has ended.
    ///
    /// Blocking work counts until its closure has returned. The future does not call
    /// [`shutdown`](Self::shutdown) itself. Any number of tasks may wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the future can be dropped at any time, and the method called again.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::bulkhead::BulkheadState;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), runtime.clone()).unwrap();
    /// # runtime.block_on(async {
    /// bulkhead.shutdown();
    /// bulkhead.drained().await;
    /// # });
    /// assert_eq!(bulkhead.state(), BulkheadState::ShutDown);
    /// assert_eq!(bulkhead.stats().active, 0);
    /// ```
    pub fn drained(&self) -> Drained<'_> {
        Drained {
            bulkhead: &self.inner,
            key: None,
        }
    }
}

/// The future returned by [`Bulkhead::drained`].
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use futures_lite::future::zip;
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone())?;
/// let permit = bulkhead.try_acquire().unwrap();
/// bulkhead.shutdown();
/// runtime.block_on(zip(bulkhead.drained(), async { permit.succeed() }));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Drained<'a> {
    bulkhead: &'a Inner,
    key: Option<WakerKey>,
}

impl Future for Drained<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bulkhead = self.bulkhead;
        bulkhead.ended.register(&mut self.key, cx.waker());
        if bulkhead.is_drained() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        self.bulkhead.ended.remove(&mut self.key);
    }
}

impl fmt::Debug for Drained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained")
            .field("bulkhead", &self.bulkhead.name)
            .finish_non_exhaustive()
    }
}
