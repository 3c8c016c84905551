//! What the circuit breaker makes of a call's end.

/// What a finished call says about the dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The dependency did its work.
    Success,
    /// The dependency failed: counted against the circuit.
    Failure,
    /// Says nothing about the dependency (a bad request of ours, say): not recorded, and a probe
    /// slot taken for it is given back.
    Ignored,
}
