//! The timer behind `automatic_half_open`: a task that sleeps until a transition is due.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::runtime::Runtime;
use crate::sync::unwind::catch;

/// Acts when a timer fires.
pub(super) trait OnTimer: Send + Sync + 'static {
    /// Performs what is due and returns when to fire next; `None` ends the timer's task.
    fn timer_fired(&self, id: u64) -> Option<Instant>;

    /// Called when the task has ended or was dropped, so that another can be started.
    fn timer_dropped(&self, id: u64);
}

/// Spawns the task of `timer`.
///
/// The task holds its target weakly. When it wakes it does what any query does: it performs the
/// transitions that are due, whatever has happened since the timer was set.
pub(super) fn start<T: OnTimer>(timer: Timer, target: Weak<T>, runtime: &Arc<dyn Runtime>) {
    let clock = Arc::clone(runtime);
    let registered = Registered {
        target,
        id: timer.id,
    };
    let task = Box::pin(async move {
        let mut at = timer.at;
        loop {
            clock.sleep_until(at).await;
            let Some(target) = registered.target.upgrade() else {
                return;
            };
            match target.timer_fired(registered.id) {
                Some(next) => at = next,
                None => return,
            }
        }
    });
    // A runtime that can't spawn, for instance after its shutdown, must not fail the call that
    // records an outcome. The circuit then leaves the open state on the next access, as it does
    // without a timer.
    // The same holds if the runtime returns the task: dropping it clears the timer.
    catch(|| drop(runtime.spawn(task)));
}

/// One task and the time at which it fires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    id: u64,
    at: Instant,
}

/// The timer in effect, if any.
///
/// An earlier deadline starts a second task; the task of the replaced timer ends when it fires.
#[derive(Debug, Default)]
pub(super) struct TimerState {
    current: Option<Timer>,
    /// The number of timers so far.
    started: u64,
}

impl TimerState {
    /// Returns a timer to start if `due` is before the timer that is set.
    pub(super) fn set(&mut self, due: Instant) -> Option<Timer> {
        if self.current.is_some_and(|timer| timer.at <= due) {
            return None;
        }
        self.started += 1;
        self.current = Some(Timer {
            id: self.started,
            at: due,
        });
        self.current
    }

    /// Returns `true` if this timer has not been replaced.
    pub(super) fn is_current(&self, id: u64) -> bool {
        self.current.is_some_and(|timer| timer.id == id)
    }

    /// Sets the current timer, which has fired, to fire again.
    pub(super) fn reset(&mut self, id: u64, next: Option<Instant>) {
        self.current = next.map(|at| Timer { id, at });
    }

    /// Clears the timer if its task is gone.
    pub(super) fn dropped(&mut self, id: u64) {
        if self.is_current(id) {
            self.current = None;
        }
    }
}

/// Reports to the target that the task is gone.
struct Registered<T: OnTimer> {
    target: Weak<T>,
    id: u64,
}

impl<T: OnTimer> Drop for Registered<T> {
    fn drop(&mut self) {
        if let Some(target) = self.target.upgrade() {
            target.timer_dropped(self.id);
        }
    }
}
