//! What a fleet's synchroniser tells those who listen.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::name::BulkheadName;
use crate::store::StoreError;
use crate::sync::broadcast::{Broadcast, Next, Reader};

/// Something that an operator, or a log, should know of a [`Fleet`](super::Fleet).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FleetEvent {
    /// The store is there, and this process's view is its own.
    Synchronized {
        /// How long it was not; `None` for the first time.
        after: Option<Duration>,
    },
    /// The store can't be used; calls go by local rules. Told once for each outage, and again when
    /// the reason becomes one that somebody must mend.
    Degraded {
        /// Why, and what mends it.
        error: StoreError,
    },
    /// This process decided something about a circuit, and can't tell it while the store is away.
    /// It goes by it all the same.
    Pending {
        /// Which circuit.
        circuit: BulkheadName,
    },
    /// What this process decided about a circuit has come to an end.
    DecisionResolved {
        /// Which circuit.
        circuit: BulkheadName,
        /// Which end.
        ending: DecisionOutcome,
    },
    /// Notifications don't arrive: from now on the store is polled.
    FellBackToPolling,
    /// The store has lost history (a backup was restored, say): its word was taken, and openings
    /// that still had time left were told again.
    HistoryLost,
    /// The store's clock stepped. Openings and leases may end early, or last longer by the step.
    ClockStepped {
        /// How far, at least.
        by: Duration,
        /// Or back.
        forward: bool,
    },
    /// The listener was too slow: so many events are gone.
    Missed(u64),
}

/// How a decision of this process ended; there is no other way, and none is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecisionOutcome {
    /// It is the fleet's.
    Published,
    /// It is a vote, and counts; the quorum is not reached.
    VoteResult,
    /// The store has an equal or a newer one, or an operator's.
    Superseded,
    /// This process decided something else before it could be told.
    Replaced,
    /// Its time was over before it could be told.
    Expired,
}

impl DecisionOutcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Published,
        Self::VoteResult,
        Self::Superseded,
        Self::Replaced,
        Self::Expired,
    ];

    /// `published`, `voted`, `superseded`, `replaced`, `expired`: as in logs and metrics.
    ///
    /// ```
    /// # use bulkman::fleet::DecisionOutcome;
    /// assert_eq!(DecisionOutcome::Superseded.as_str(), "superseded");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::VoteResult => "voted",
            Self::Superseded => "superseded",
            Self::Replaced => "replaced",
            Self::Expired => "expired",
        }
    }
}

/// The events of a fleet from now on, in order: made by [`Fleet::events`](super::Fleet::events).
///
/// The synchroniser never waits for a listener; one that falls more than 1,024 events behind is told
/// how many it missed. The stream ends when the synchroniser does.
///
/// # Cancel safety
///
/// An event is taken only when it is returned.
#[must_use = "streams do nothing unless polled"]
pub struct FleetEvents {
    events: Arc<Broadcast<FleetEvent>>,
    reader: Reader,
}

impl FleetEvents {
    pub(super) fn new(events: &Arc<Broadcast<FleetEvent>>) -> Self {
        Self {
            events: Arc::clone(events),
            reader: events.join(),
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
                Next::Missed(missed) => FleetEvent::Missed(missed),
            })
        })
    }
}

impl Drop for FleetEvents {
    fn drop(&mut self) {
        self.events.leave(&mut self.reader);
    }
}

impl fmt::Debug for FleetEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetEvents").finish_non_exhaustive()
    }
}
