//! What listeners get.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::transition::Transition;
use crate::sync::broadcast::{Broadcast, Next, Reader};

/// Something that a listener of a circuit should know.
///
/// ```
/// use bulkman::circuit_breaker::CircuitEvent;
///
/// fn log(event: &CircuitEvent) -> String {
///     match event {
///         CircuitEvent::Transition(news) => format!("{} is {}: {}", news.circuit, news.to, news.cause),
///         CircuitEvent::Missed(count) => format!("{count} transitions were missed"),
///         _ => String::new(),
///     }
/// }
/// assert_eq!(log(&CircuitEvent::Missed(3)), "3 transitions were missed");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CircuitEvent {
    /// The circuit changed its state.
    Transition(Transition),
    /// The listener was too slow: so many transitions are gone. The ones that follow are the
    /// newest.
    Missed(u64),
}

/// The transitions of a circuit from now on, in order: made by
/// [`CircuitBreaker::events`](super::CircuitBreaker::events).
///
/// The circuit never waits for a listener; one that falls more than 128 transitions behind is
/// told how many it missed. The stream ends when the circuit is dropped, and does not keep it
/// alive.
///
/// ```
/// use bulkman::{CircuitBreaker, CircuitBreakerConfig};
/// use bulkman::circuit_breaker::{CircuitEvent, CircuitState};
/// use bulkman::runtime::ClockOnly;
///
/// let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), ClockOnly)?;
/// let mut events = breaker.events();
/// breaker.open();
/// // Or `while let Some(event) = events.next().await`, in a task of its own.
/// match events.try_next() {
///     Some(CircuitEvent::Transition(transition)) => {
///         assert_eq!(transition.to, CircuitState::Open);
///         println!("{}: {} because of {}", transition.circuit, transition.to, transition.cause);
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
///
/// # Cancel safety
///
/// An event is taken only when it is returned: dropping a future that waits for the next one
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

    /// Waits for the next event; `None` when the circuit is gone.
    ///
    /// # Cancel safety
    ///
    /// An event is taken only when it is returned.
    ///
    /// ```
    /// # use bulkman::{CircuitBreaker, CircuitBreakerConfig};
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// # let breaker = CircuitBreaker::new("mail", CircuitBreakerConfig::new(), runtime.clone())?;
    /// let mut events = breaker.events();
    /// breaker.open();
    /// drop(breaker);
    /// # let mut seen = 0;
    /// # runtime.block_on(async {
    /// while let Some(event) = events.next().await {
    ///     println!("{event:?}");
    /// #   seen += 1;
    /// }
    /// # });
    /// # assert_eq!(seen, 1);
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub async fn next(&mut self) -> Option<CircuitEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The next event, if there is one already.
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

    /// A stream without events, for who has no circuit.
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
                Next::Lagged(missed) => CircuitEvent::Missed(missed),
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
