//! Timeouts for operations that run outside of a fleet's driver.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bulkman_core::store::StoreError;

/// Drops `operation` after `timeout`.
///
/// It uses the same runtime as sqlx: Tokio if a Tokio context is current, otherwise smol.
pub(crate) async fn with_timeout<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return match tokio::time::timeout(timeout, operation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(timeout)),
        };
    }
    #[cfg(feature = "smol")]
    return with_smol_timeout(timeout, operation).await;
    #[cfg(not(feature = "smol"))]
    {
        drop(operation);
        let _ = timed_out(timeout);
        Err(StoreError::unavailable(
            "no async runtime: call it within Tokio with the feature `tokio`, or enable the feature `smol`",
        ))
    }
}

#[cfg(feature = "smol")]
async fn with_smol_timeout<T>(
    timeout: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut operation = std::pin::pin!(operation);
    let mut timer = std::pin::pin!(async_io::Timer::after(timeout));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(outcome) = operation.as_mut().poll(context) {
            return std::task::Poll::Ready(outcome);
        }
        timer
            .as_mut()
            .poll(context)
            .map(|_| Err(timed_out(timeout)))
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

fn timed_out(timeout: Duration) -> StoreError {
    StoreError::unavailable(format!("the database did not answer within {timeout:?}"))
}
