//! How a finished call counts.

/// How a call counts toward the circuit breaker.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("users"), ClockOnly)?;
/// let lookup = bulkhead
///     .call()
///     .classify(|result: &Result<(), u16>| match result {
///         Ok(()) | Err(404) => Outcome::Success,
///         Err(400) => Outcome::Ignored,
///         Err(_) => Outcome::Failure,
///     });
/// let _ = lookup.execute_sync(|| Err(400));
/// assert_eq!((bulkhead.stats().failed, bulkhead.stats().ignored), (0, 1));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The dependency worked.
    Success,
    /// The dependency failed. It counts against the circuit.
    Failure,
    /// The dependency works and requests less load, such as by the HTTP status 429.
    ///
    /// An [adaptive limit](crate::BulkheadConfig::adaptive_limit) counts it as an overload. The
    /// statistics count it as failed and as overloaded. For the circuit it is as
    /// [`Ignored`](Self::Ignored): the dependency needs fewer calls, not an isolation.
    Overloaded,
    /// The result does not depend on the health of the dependency, such as an invalid request.
    ///
    /// The circuit does not record it, and a probe slot is released without a decision.
    Ignored,
}

impl Outcome {
    /// Returns `true` if a circuit records the outcome. Otherwise only a probe slot is released.
    pub(crate) const fn counts_for_circuit(self) -> bool {
        match self {
            Self::Success | Self::Failure => true,
            Self::Overloaded | Self::Ignored => false,
        }
    }
}
