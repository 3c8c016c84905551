//! A bound on how long the database may take, where no synchroniser sets one.

use std::future::Future;
use std::time::Duration;

use bulkman_core::store::StoreError;

/// Gives up `operation` after `limit`.
///
/// On the runtime that sqlx itself would use: Tokio where one is current, else smol.
pub(crate) async fn bounded<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    #[cfg(feature = "tokio")]
    if tokio::runtime::Handle::try_current().is_ok() {
        return match tokio::time::timeout(limit, operation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(too_slow(limit)),
        };
    }
    #[cfg(feature = "smol")]
    return smol_bounded(limit, operation).await;
    #[cfg(not(feature = "smol"))]
    {
        drop(operation);
        let _ = too_slow(limit);
        Err(StoreError::unavailable(
            "no async runtime: call it within Tokio with the feature `tokio`, or enable the feature `smol`",
        ))
    }
}

#[cfg(feature = "smol")]
async fn smol_bounded<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut operation = std::pin::pin!(operation);
    let mut timer = std::pin::pin!(async_io::Timer::after(limit));
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(outcome) = operation.as_mut().poll(context) {
            return std::task::Poll::Ready(outcome);
        }
        timer.as_mut().poll(context).map(|_| Err(too_slow(limit)))
    })
    .await
}

fn too_slow(limit: Duration) -> StoreError {
    StoreError::unavailable(format!("the database did not answer within {limit:?}"))
}
