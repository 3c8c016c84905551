//! The extension method `future.with_bulkhead(&bulkhead)`.

use std::future::Future;

use crate::bulkhead::Bulkhead;
use crate::call::classifier::DefaultClassifier;
use crate::call::execute::Execute;

/// An extension trait that runs any fallible future through a bulkhead.
///
/// ```
/// use bulkman::call::WithBulkhead;
/// use bulkman::testing::ManualRuntime;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// # async fn fetch(_: &str) -> Result<u16, std::io::Error> { Ok(200) }
/// let runtime = ManualRuntime::new();
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("web"), runtime.clone())?;
/// let status = runtime.block_on(fetch("/").with_bulkhead(&bulkhead));
/// assert_eq!(status.unwrap(), 200);
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
pub trait WithBulkhead<T, E>: Future<Output = Result<T, E>> + Sized {
    /// Runs this future through `bulkhead`. See [`Bulkhead::execute`].
    ///
    /// ```
    /// # use bulkman::testing::ManualRuntime;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::call::WithBulkhead;
    /// # let runtime = ManualRuntime::new();
    /// # let bulkhead = Bulkhead::new(BulkheadConfig::new("web"), runtime.clone())?;
    /// # runtime.block_on(async {
    /// let status = async { Ok::<_, ()>(200) }.with_bulkhead(&bulkhead).await;
    /// assert_eq!(status, Ok(200));
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    fn with_bulkhead(self, bulkhead: &Bulkhead) -> Execute<'_, Self, DefaultClassifier> {
        bulkhead.execute(self)
    }
}

impl<F, T, E> WithBulkhead<T, E> for F where F: Future<Output = Result<T, E>> {}
