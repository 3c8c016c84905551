//! Timeouts for operations that run outside of a fleet's driver.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bulkman_core::store::StoreError;

/// Drops `operation` after `timeout`, and reports that as an error.
pub(crate) async fn with_timeout<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    within(timeout, operation).await?.unwrap_or_else(|| {
        Err(StoreError::unavailable(format!(
            "the database did not answer within {timeout:?}"
        )))
    })
}

/// Drops `operation` after `timeout`, and returns `None`.
///
/// It uses the same runtime as sqlx: Tokio if a Tokio context is current, otherwise smol.
pub(crate) async fn within<T>(
    timeout: Duration,
    operation: impl Future<Output = T>,
) -> Result<Option<T>, StoreError> {
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return Ok(tokio::time::timeout(timeout, operation).await.ok());
    }
    #[cfg(feature = "smol")]
    return Ok(within_on_smol(timeout, operation).await);
    #[cfg(not(feature = "smol"))]
    {
        let _ = (timeout, operation);
        Err(StoreError::unavailable(
            "no async runtime: call it within Tokio with the feature `tokio`, or enable the feature `smol`",
        ))
    }
}

#[cfg(feature = "smol")]
async fn within_on_smol<T>(timeout: Duration, operation: impl Future<Output = T>) -> Option<T> {
    let mut operation = std::pin::pin!(operation);
    let mut timer = std::pin::pin!(async_io::Timer::after(timeout));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(outcome) = operation.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(outcome));
        }
        timer.as_mut().poll(context).map(|_| None)
    })
    .await
}

/// Waits, on the same runtime as sqlx. Without one, it does not wait.
pub(crate) fn sleep(duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return Box::pin(tokio::time::sleep(duration));
    }
    #[cfg(feature = "smol")]
    return Box::pin(async move {
        async_io::Timer::after(duration).await;
    });
    #[cfg(not(feature = "smol"))]
    {
        let _ = duration;
        Box::pin(std::future::ready(()))
    }
}
