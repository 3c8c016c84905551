//! The events of a circuit, as a stream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::transition::Transition;
use crate::sync::broadcast::{Broadcast, Next, Reader};

/// An event of a circuit breaker.
///
/// ```
/// use bulkman::circuit_breaker::CircuitEvent;
///
/// fn log(event: &CircuitEvent) -> String {
///     match event {
///         CircuitEvent::Transition(it) => {
///             format!("{} is {}: {}", it.circuit, it.to, it.cause)
///         }
///         CircuitEvent::Lagged(n) => format!("{n} transitions were dropped"),
///         _ => String::new(),
///     }
/// }
/// assert_eq!(log(&CircuitEvent::Lagged(3)), "3 transitions were dropped");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CircuitEvent {
    /// The circuit entered another state.
    Transition(Transition),
    /// The receiver lagged too far behind, and this number of transitions was dropped.
    ///
    /// The next event is the oldest transition that is still kept.
    Lagged(u64),
}

/// A stream of the transitions of a circuit, in order.
///
/// Returned by [`CircuitBreaker::events`](super::CircuitBreaker::events). It begins with the first
/// transition after that call.
///
/// The circuit never waits for a receiver. A receiver that is more than 128 transitions behind
/// loses the oldest ones and gets [`CircuitEvent::Lagged`]. The stream does not keep the circuit
/// alive; it ends when the circuit is dropped.
///
/// ```
/// use bulkman::circuit_breaker::{CircuitEvent, CircuitState};
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// let mut events = breaker.events();
/// breaker.open();
/// // Or `while let Some(event) = events.next().await`, in a separate task.
/// match events.try_next() {
///     Some(CircuitEvent::Transition(transition)) => {
///         assert_eq!(transition.to, CircuitState::Open);
///         println!(
///             "{}: {} because of {}",
///             transition.circuit, transition.to, transition.cause
///         );
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
///
/// # Cancel safety
///
/// An event is removed only when it is returned. Dropping a future that waits for the next event
/// loses nothing.
#[must_use = "streams do nothing unless polled"]
pub struct CircuitEvents {
    events: Arc<Broadcast<Transition>>,
    reader: Reader,
}

impl CircuitEvents {
    pub(crate) fn new(events: &Arc<Broadcast<Transition>>) -> Self {
        Self {
            events: Arc::clone(events),
            reader: events.subscribe(),
        }
    }

    /// Waits for the next event; returns `None` once the circuit has been dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no event.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), runtime.clone())?;
    /// let mut events = breaker.events();
    /// breaker.open();
    /// drop(breaker);
    /// # let mut received = 0;
    /// # runtime.block_on(async {
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// #   received += 1;
    /// }
    /// # });
    /// # assert_eq!(received, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn next(&mut self) -> Option<CircuitEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the next event if there is one, without waiting.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
    /// let mut events = breaker.events();
    /// assert_eq!(events.try_next(), None);
    /// breaker.open();
    /// assert!(events.try_next().is_some());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn try_next(&mut self) -> Option<CircuitEvent> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(self).poll_next(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Creates a stream that has ended, for a bulkhead without a circuit breaker.
    pub(crate) fn ended() -> Self {
        let events = Broadcast::new(1, 0);
        events.close();
        Self::new(&Arc::new(events))
    }
}

impl Stream for CircuitEvents {
    type Item = CircuitEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CircuitEvent>> {
        let Self { events, reader } = &mut *self;
        events.poll_next(reader, cx).map(|next| {
            next.map(|next| match next {
                Next::Value(transition) => CircuitEvent::Transition(transition),
                Next::Lagged(missed) => CircuitEvent::Lagged(missed),
            })
        })
    }
}

impl Drop for CircuitEvents {
    fn drop(&mut self) {
        self.events.unsubscribe(&mut self.reader);
    }
}

impl fmt::Debug for CircuitEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitEvents").finish_non_exhaustive()
    }
}
