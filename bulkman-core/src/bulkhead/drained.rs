//! Waiting for the last call of a bulkhead that is shut down.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::bulkhead::Inner;
use crate::sync::waker_set::WakerKey;

/// The future of [`Bulkhead::drained`](crate::Bulkhead::drained).
///
/// ```
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use futures_lite::future::zip;
///
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("ftp"), runtime.clone())?;
/// let held = bulkhead.try_acquire().unwrap();
/// bulkhead.shutdown();
/// runtime.block_on(zip(bulkhead.drained(), async { held.succeed() }));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "futures do nothing unless polled"]
pub struct Drained<'a> {
    bulkhead: &'a Inner,
    place: Option<WakerKey>,
}

impl<'a> Drained<'a> {
    pub(crate) fn new(bulkhead: &'a Inner) -> Self {
        Self {
            bulkhead,
            place: None,
        }
    }
}

impl Future for Drained<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let bulkhead = self.bulkhead;
        bulkhead.ended.register(&mut self.place, cx.waker());
        if bulkhead.queue.is_drained() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        self.bulkhead.ended.remove(&mut self.place);
    }
}

impl fmt::Debug for Drained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drained")
            .field("bulkhead", &self.bulkhead.name)
            .finish_non_exhaustive()
    }
}
