//! A change of the permits, and the stream of changes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::adjustment::LimitChangeCause;
#[cfg(feature = "serde")]
use crate::seconds;
use crate::sync::broadcast::{Broadcast, Next, Reader};

/// A change of the adaptive limit by whole permits, with its cause.
///
/// ```
/// use bulkman::adaptive::{AdaptiveLimit, LimitChangeCause};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("search")
///     .max_concurrent_calls(50)
///     .adaptive_limit(AdaptiveLimit::new().initial(40));
/// let bulkhead = Bulkhead::new(config, ClockOnly)?;
/// // A smaller maximum clamps the limit at once.
/// let smaller = AdaptiveLimit::new();
/// bulkhead.reconfigure(
///     bulkhead
///         .config()
///         .max_concurrent_calls(30)
///         .adaptive_limit(smaller),
/// )?;
/// let change = bulkhead.snapshot().limit.unwrap().recent[0].clone();
/// assert_eq!(
///     (change.from, change.to, change.cause),
///     (40, 30, LimitChangeCause::Reconfigured)
/// );
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LimitChange {
    /// The limit before the change.
    pub from: usize,
    /// The limit after the change.
    pub to: usize,
    /// The cause.
    pub cause: LimitChangeCause,
    /// When it happened. Not serialized.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub at: Instant,
    /// The time since the change, in a snapshot; zero in an event.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "age_seconds", serialize_with = "seconds::serialize")
    )]
    pub age: Duration,
    /// The mean latency of the window that caused it; `None` without a success in it.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "latency_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub latency: Option<Duration>,
    /// The successful calls a second in that window; zero if no window caused it.
    pub throughput: f64,
    /// The latency without a queue, as known after the change.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "baseline_seconds",
            serialize_with = "seconds::serialize_option"
        )
    )]
    pub baseline: Option<Duration>,
}

impl LimitChange {
    pub(super) fn with_age(self, now: Instant) -> Self {
        Self {
            age: now.saturating_duration_since(self.at),
            ..self
        }
    }
}

/// An event of an adaptive limit.
///
/// ```
/// use bulkman::adaptive::LimitEvent;
///
/// fn log(event: &LimitEvent) -> String {
///     match event {
///         LimitEvent::Changed(it) => format!("{} -> {}: {}", it.from, it.to, it.cause),
///         LimitEvent::Missed(n) => format!("{n} changes were dropped"),
///         _ => String::new(),
///     }
/// }
/// assert_eq!(log(&LimitEvent::Missed(3)), "3 changes were dropped");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LimitEvent {
    /// The limit changed by at least one permit.
    Changed(LimitChange),
    /// The receiver lagged too far behind, and this number of changes was dropped.
    ///
    /// The next event is the oldest change that is still kept.
    Missed(u64),
}

/// A stream of the changes of an adaptive limit, in order.
///
/// Returned by [`Bulkhead::limit_changes`](crate::Bulkhead::limit_changes). It begins with the
/// first change after that call.
///
/// No call waits for a receiver. A receiver that is more than 128 changes behind loses the oldest
/// ones and gets [`LimitEvent::Missed`]. The stream does not keep the bulkhead alive; it ends when
/// the bulkhead is dropped.
///
/// # Cancel safety
///
/// An event is removed only when it is returned. Dropping a future that waits for the next event
/// loses nothing.
///
/// ```
/// use bulkman::adaptive::{AdaptiveLimit, LimitEvent};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("search").adaptive_limit(AdaptiveLimit::new());
/// let bulkhead = Bulkhead::new(config, ClockOnly)?;
/// let mut changes = bulkhead.limit_changes();
/// assert_eq!(changes.try_next(), None);
/// bulkhead.reconfigure(bulkhead.config().max_concurrent_calls(2))?;
/// // Or `while let Some(event) = changes.next().await`, in a separate task.
/// match changes.try_next() {
///     Some(LimitEvent::Changed(change)) => assert_eq!((change.from, change.to), (4, 2)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct LimitChanges {
    changes: Arc<Broadcast<LimitChange>>,
    reader: Reader,
}

impl LimitChanges {
    pub(super) fn new(changes: &Arc<Broadcast<LimitChange>>) -> Self {
        Self {
            changes: Arc::clone(changes),
            reader: changes.subscribe(),
        }
    }

    /// Waits for the next event; returns `None` once the bulkhead has been dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::AdaptiveLimit;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let config = BulkheadConfig::new("search").adaptive_limit(AdaptiveLimit::new());
    /// # let bulkhead = Bulkhead::new(config, runtime.clone())?;
    /// let mut changes = bulkhead.limit_changes();
    /// drop(bulkhead);
    /// # runtime.block_on(async {
    /// while let Some(event) = changes.next().await {
    ///     println!("{event:?}");
    /// }
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn next(&mut self) -> Option<LimitEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the next event if there is one, without waiting.
    ///
    /// ```
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::adaptive::AdaptiveLimit;
    /// # use bulkman::runtime::ClockOnly;
    /// # let config = BulkheadConfig::new("search").adaptive_limit(AdaptiveLimit::new());
    /// # let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// assert_eq!(bulkhead.limit_changes().try_next(), None);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_next(&mut self) -> Option<LimitEvent> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(self).poll_next(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }
}

impl LimitChanges {
    /// Creates a stream that has ended, for a bulkhead whose limit never changes.
    pub(crate) fn ended() -> Self {
        let changes = Broadcast::new(1, 0);
        changes.close();
        Self::new(&Arc::new(changes))
    }
}

impl Stream for LimitChanges {
    type Item = LimitEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LimitEvent>> {
        let Self { changes, reader } = &mut *self;
        changes.poll_next(reader, cx).map(|next| {
            next.map(|next| match next {
                Next::Value(change) => LimitEvent::Changed(change),
                Next::Lagged(missed) => LimitEvent::Missed(missed),
            })
        })
    }
}

impl Drop for LimitChanges {
    fn drop(&mut self) {
        self.changes.unsubscribe(&mut self.reader);
    }
}

impl fmt::Debug for LimitChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitChanges").finish_non_exhaustive()
    }
}
