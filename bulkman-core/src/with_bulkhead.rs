//! `fetch(url).with_bulkhead(&bulkhead)`.

use std::future::Future;

use crate::bulkhead::Bulkhead;
use crate::classify::ByResult;
use crate::execute::Execute;

/// Puts any fallible future under a bulkhead's protection.
///
/// ```
/// use bulkman_core::testing::ManualRuntime;
/// use bulkman_core::{Bulkhead, BulkheadConfig, WithBulkhead};
///
/// # async fn fetch(_: &str) -> Result<u16, std::io::Error> { Ok(200) }
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("web"), runtime.clone())?;
/// let status = runtime.block_on(fetch("/").with_bulkhead(&bulkhead));
/// assert_eq!(status.unwrap(), 200);
/// # Ok::<(), bulkman_core::ConfigError>(())
/// ```
pub trait WithBulkhead<T, E>: Future<Output = Result<T, E>> + Sized {
    /// As [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman_core::testing::ManualRuntime;
    /// # use bulkman_core::{Bulkhead, BulkheadConfig, WithBulkhead};
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("web"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let status = async { Ok::<_, ()>(200) }.with_bulkhead(&bulkhead).await;
    /// assert_eq!(status, Ok(200));
    /// # });
    /// # Ok::<(), bulkman_core::ConfigError>(())
    /// ```
    fn with_bulkhead(self, bulkhead: &Bulkhead) -> Execute<&Bulkhead, Self, ByResult> {
        bulkhead.execute(self)
    }
}

impl<F, T, E> WithBulkhead<T, E> for F where F: Future<Output = Result<T, E>> {}
