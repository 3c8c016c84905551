//! What the circuit breaker makes of a call's end.

/// What a finished call says about the dependency.
///
/// ```
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
/// use bulkman::runtime::ClockOnly;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
/// let lookup = bulkhead.call().classify(|result: &Result<(), u16>| match result {
///     Ok(()) => Outcome::Success,
///     Err(400..=499) => Outcome::Ignored,
///     Err(_) => Outcome::Failure,
/// });
/// let _ = lookup.execute_sync(|| Err(404));
/// assert_eq!((bulkhead.stats().failed, bulkhead.stats().ignored), (0, 1));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
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
