//! Callbacks that run after each transition.

use std::collections::VecDeque;
use std::sync::Arc;

use super::transition::Transition;

/// A callback for transitions; it runs outside of every lock.
pub(crate) type TransitionHook = Arc<dyn Fn(&Transition) + Send + Sync>;

/// The hooks of a circuit, and the transitions that they have not seen yet.
///
/// Lives under the circuit's lock; the hooks themselves run outside of it. One thread at a time
/// runs them, which keeps the transitions in order. A transition that happens meanwhile, caused by
/// a hook or by another thread, is left to that thread.
#[derive(Default)]
pub(super) struct Hooks {
    hooks: Vec<TransitionHook>,
    /// Allocated for the first transition.
    #[allow(
        clippy::box_collection,
        reason = "most circuits never need the size of it"
    )]
    pending_transitions: Option<Box<VecDeque<Transition>>>,
    running: bool,
}

impl Hooks {
    pub(super) fn add(&mut self, hook: TransitionHook) {
        // A bulkhead adds one, and there is rarely another.
        self.hooks.reserve_exact(1);
        self.hooks.push(hook);
    }

    /// Appends a transition for the hooks, if there are any.
    pub(super) fn push(&mut self, transition: &Transition) {
        if !self.hooks.is_empty() {
            let pending = self.pending_transitions.get_or_insert_default();
            pending.push_back(transition.clone());
        }
    }

    /// Returns the next transition with the hooks to run; [`finish`](Self::finish) must follow.
    ///
    /// `None` if there is none, or if another thread is running the hooks.
    pub(super) fn start(&mut self) -> Option<(Transition, Vec<TransitionHook>)> {
        if self.running {
            return None;
        }
        let transition = self.pending_transitions.as_mut()?.pop_front()?;
        self.running = true;
        Some((transition, self.hooks.clone()))
    }

    /// Ends the run that [`start`](Self::start) began.
    pub(super) fn finish(&mut self) {
        self.running = false;
    }
}
