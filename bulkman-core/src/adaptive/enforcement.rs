//! Whether a limit is enforced.

/// Whether a limit rejects calls, or only counts what it would reject.
///
/// ```
/// use bulkman::adaptive::Enforcement;
///
/// assert_eq!(Enforcement::default(), Enforcement::Enforce);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
pub enum Enforcement {
    /// Calls above the limit wait or are rejected.
    #[default]
    Enforce,
    /// The limit is estimated, and calls above it run.
    Observe,
}
