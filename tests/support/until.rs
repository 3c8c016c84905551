//! Waits that fail with a message instead of hanging.

use std::future::Future;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

/// Far above what a test needs on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, while other tasks run.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            yield_now().await;
        }
    })
    .await;
}

/// Waits for `future`.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(BOUND, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {BOUND:?}: {what}"),
    }
}
