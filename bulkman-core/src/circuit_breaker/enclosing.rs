//! The probes within which the current thread runs.
//!
//! An operation may call the bulkhead or the circuit that guards it. While the circuit is
//! half-open, such a nested call is part of its probe: if it needed another slot, it would be
//! rejected, and the circuit would fail the probe that it admitted. So a nested call uses the
//! admission of the enclosing probe, and its outcome is not recorded.
//!
//! A call is nested if it is polled, or runs, while its probe is polled or runs on the same thread.
//! A call in a task that the operation spawns is not.

use std::cell::RefCell;
use std::marker::PhantomData;

thread_local! {
    /// The probes that are polled on this thread now, the innermost last.
    static ENCLOSING: RefCell<Vec<Enclosing>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Enclosing {
    /// The address of the circuit, which the probe keeps alive.
    circuit: usize,
    generation: u64,
}

/// Marks the code that runs until it is dropped as part of a probe.
#[derive(Debug)]
#[must_use]
pub(crate) struct ProbeScope(PhantomData<*const ()>);

impl ProbeScope {
    pub(super) fn enter<C>(circuit: &C, generation: u64) -> Option<Self> {
        let enclosing = Enclosing::new(circuit, generation);
        // `None` while the thread ends: then nothing is nested.
        ENCLOSING
            .try_with(|probes| probes.borrow_mut().push(enclosing))
            .ok()
            .map(|()| Self(PhantomData))
    }
}

impl ProbeScope {
    /// Ends the innermost scope of a probe of this circuit, which was forgotten.
    pub(super) fn leave<C>(circuit: &C, generation: u64) {
        let enclosing = Enclosing::new(circuit, generation);
        let _ = ENCLOSING.try_with(|probes| {
            let mut probes = probes.borrow_mut();
            if let Some(index) = probes.iter().rposition(|probe| *probe == enclosing) {
                probes.remove(index);
            }
        });
    }
}

impl Drop for ProbeScope {
    fn drop(&mut self) {
        let _ = ENCLOSING.try_with(|probes| probes.borrow_mut().pop());
    }
}

/// Returns `true` if the current code is part of a probe of this circuit.
pub(super) fn is_within_probe<C>(circuit: &C, generation: u64) -> bool {
    let enclosing = Enclosing::new(circuit, generation);
    ENCLOSING
        .try_with(|probes| probes.borrow().contains(&enclosing))
        .unwrap_or(false)
}

impl Enclosing {
    fn new<C>(circuit: &C, generation: u64) -> Self {
        let circuit = std::ptr::from_ref(circuit).addr();
        Self {
            circuit,
            generation,
        }
    }
}
