//! Events of a fleet.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;

use crate::name::BulkheadName;
use crate::store::StoreError;
use crate::sync::broadcast::{Broadcast, Next, Reader};

/// An event of a [`Fleet`](super::Fleet), for operators and logs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FleetEvent {
    /// The store is connected, and its state has been adopted.
    Synchronized {
        /// How long the store was unavailable; `None` for the first connection.
        after: Option<Duration>,
    },
    /// The store is unavailable; circuits use their local rules. Emitted once per outage, and
    /// again if the error becomes permanent. The same error is reported once a minute.
    Degraded {
        /// The error, with its fix if one is known.
        error: StoreError,
    },
    /// The store rejects an operation; the other circuits stay shared.
    ///
    /// The operation is repeated: within 4 s if it concerns all circuits, every minute if it
    /// concerns one. The same error is reported once a minute.
    OperationRejected {
        /// The only circuit that is concerned. It uses its local rules.
        circuit: Option<BulkheadName>,
        /// The error, with its fix if one is known.
        error: StoreError,
    },
    /// The store can only be read: its state is adopted, and decisions stay pending.
    ///
    /// A half-open circuit follows its local rules, as in an outage.
    ReadOnly {
        /// Why the store rejects changes, with the fix if one is known.
        error: StoreError,
    },
    /// The store accepts changes again, and pending decisions are published.
    WritesResumed,
    /// A decision of this process waits for the store. It is already in effect in this process.
    Pending {
        /// The circuit's name.
        circuit: BulkheadName,
    },
    /// A decision of this process was published or dropped.
    DecisionResolved {
        /// The circuit's name.
        circuit: BulkheadName,
        /// The outcome.
        outcome: DecisionOutcome,
    },
    /// Notifications don't arrive, or too many arrive; the store is polled instead.
    FellBackToPolling,
    /// Notifications arrive again, and are used again.
    PushResumed,
    /// The store has lost history, for example because a backup was restored. The store's state
    /// was adopted; unexpired openings were republished.
    HistoryLost,
    /// The store's clock stepped. Openings and leases may end early or late by the step.
    ClockStepped {
        /// A lower bound of the size of the step.
        by: Duration,
        /// Whether the step was forward.
        forward: bool,
    },
    /// The receiver lagged; this number of events was dropped.
    Lagged(u64),
}

/// The outcome of a local decision. Exactly one is emitted per decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecisionOutcome {
    /// The decision applies to the whole fleet.
    Published,
    /// The decision was counted as a vote; the quorum is not reached.
    Voted,
    /// The store has an equal or a newer decision, or an operator's.
    Superseded,
    /// This process made another decision before this one was published.
    Replaced,
    /// The isolation elapsed before the decision was published.
    Expired,
}

impl DecisionOutcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Published,
        Self::Voted,
        Self::Superseded,
        Self::Replaced,
        Self::Expired,
    ];

    /// Returns the name used in logs and metrics: `published`, `voted`, `superseded`, `replaced`
    /// or `expired`.
    ///
    /// ```
    /// # use bulkman::fleet::DecisionOutcome;
    /// assert_eq!(DecisionOutcome::Superseded.as_str(), "superseded");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Voted => "voted",
            Self::Superseded => "superseded",
            Self::Replaced => "replaced",
            Self::Expired => "expired",
        }
    }
}

/// A stream of a fleet's events, returned by [`Fleet::events`](super::Fleet::events).
///
/// Yields, in order, every event since it was created. The driver never waits for a receiver: one
/// that falls more than 1,024 events behind receives [`FleetEvent::Lagged`]. The stream ends when
/// the driver stops.
///
/// ```
/// use bulkman::fleet::{Fleet, FleetEvent};
/// use bulkman::store::MemoryStore;
/// use bulkman::testing::ManualRuntime;
///
/// let runtime = ManualRuntime::new();
/// let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
/// let mut events = fleet.events();
/// drop(fleet);
/// runtime.block_on(async {
///     while let Some(event) = events.next().await {
///         println!("{event:?}");
///     }
/// });
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
///
/// # Cancel safety
///
/// An event is taken only when it is returned: dropping a future that waits for the next one
/// loses nothing.
#[must_use = "streams do nothing unless polled"]
pub struct FleetEvents {
    events: Arc<Broadcast<FleetEvent>>,
    reader: Reader,
}

impl FleetEvents {
    pub(super) fn new(events: &Arc<Broadcast<FleetEvent>>) -> Self {
        Self {
            events: Arc::clone(events),
            reader: events.subscribe(),
        }
    }

    /// Waits for the next event; `None` when the driver has stopped.
    ///
    /// # Cancel safety
    ///
    /// An event is taken only when it is returned.
    ///
    /// ```
    /// # use bulkman::fleet::{Fleet, FleetEvent};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// let mut events = fleet.events();
    /// # runtime.block_on(async {
    /// let first = events.next().await;
    /// assert!(matches!(
    ///     first,
    ///     Some(FleetEvent::Synchronized { after: None })
    /// ));
    /// fleet.shutdown().await;
    /// assert!(events.next().await.is_none());
    /// # });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn next(&mut self) -> Option<FleetEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the next event if one is available.
    ///
    /// ```
    /// # use bulkman::fleet::{Fleet, FleetEvent};
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime.clone())?;
    /// let mut events = fleet.events();
    /// assert!(events.try_next().is_none());
    /// runtime.run_until_stalled();
    /// assert!(matches!(
    ///     events.try_next(),
    ///     Some(FleetEvent::Synchronized { .. })
    /// ));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_next(&mut self) -> Option<FleetEvent> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(self).poll_next(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }
}

impl Stream for FleetEvents {
    type Item = FleetEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FleetEvent>> {
        let Self { events, reader } = &mut *self;
        events.poll_next(reader, cx).map(|next| {
            next.map(|next| match next {
                Next::Value(event) => event,
                Next::Lagged(missed) => FleetEvent::Lagged(missed),
            })
        })
    }
}

impl Drop for FleetEvents {
    fn drop(&mut self) {
        self.events.unsubscribe(&mut self.reader);
    }
}

impl fmt::Debug for FleetEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetEvents").finish_non_exhaustive()
    }
}
