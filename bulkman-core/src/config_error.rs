//! The error returned for an invalid or unsupported configuration.

use std::fmt;

use thiserror::Error;

/// The error returned for a configuration that can't be used.
///
/// Each variant names the setting, and the value or what is missing.
///
/// ```
/// use bulkman::{BulkheadConfig, ConfigError};
///
/// match BulkheadConfig::new("search")
///     .max_concurrent_calls(0)
///     .validate()
/// {
///     Err(ConfigError::OutOfRange {
///         field,
///         value,
///         range,
///     }) => {
///         assert_eq!(
///             (field, &*value, range),
///             ("max_concurrent_calls", "0", "1 to 1,000,000")
///         );
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value is outside its range.
    #[error("`{field}` is {value}, must be {range}")]
    OutOfRange {
        /// The configuration's field.
        field: &'static str,
        /// The value of the field.
        value: Box<str>,
        /// The accepted values.
        range: &'static str,
    },

    /// A setting is not set, but another one requires it.
    #[error("`{setting}` is not set, but `{required_by}` requires it")]
    Missing {
        /// The setting that is not set.
        setting: &'static str,
        /// The setting that requires it.
        required_by: &'static str,
    },

    /// A setting can't be combined with another one, or with what is already in use.
    #[error("`{setting}` conflicts with {with}")]
    Conflict {
        /// The setting, or the method.
        setting: &'static str,
        /// What it conflicts with.
        with: Box<str>,
    },

    /// The runtime doesn't support a setting.
    #[error("`{setting}` needs {needs}, which the runtime does not have")]
    Unsupported {
        /// The configuration's field.
        setting: &'static str,
        /// The capability that the runtime lacks.
        needs: &'static str,
    },

    /// A setting has no effect without something else that is not available.
    #[error("`{setting}` needs {needs}")]
    Requires {
        /// The configuration's field, or the method.
        setting: &'static str,
        /// What must be available.
        needs: &'static str,
    },

    /// A value can't change after the bulkhead was created.
    #[error("`{field}` can't change from {from:?} to {to:?} in place")]
    Immutable {
        /// The configuration's field.
        field: &'static str,
        /// The current value.
        from: Box<str>,
        /// The requested value.
        to: Box<str>,
    },
}

impl ConfigError {
    pub(crate) fn out_of_range(
        field: &'static str,
        value: impl fmt::Display,
        range: &'static str,
    ) -> Self {
        Self::OutOfRange {
            field,
            value: value.to_string().into(),
            range,
        }
    }

    pub(crate) fn immutable(
        field: &'static str,
        from: impl fmt::Display,
        to: impl fmt::Display,
    ) -> Self {
        Self::Immutable {
            field,
            from: from.to_string().into(),
            to: to.to_string().into(),
        }
    }

    pub(crate) const fn missing(setting: &'static str, required_by: &'static str) -> Self {
        Self::Missing {
            setting,
            required_by,
        }
    }

    /// The runtime did not take the background task that `setting` needs.
    pub(crate) const fn not_spawned(setting: &'static str) -> Self {
        Self::Unsupported {
            setting,
            needs: "a running runtime when it is created",
        }
    }

    /// `with` completes the sentence "conflicts with ...": a setting is quoted in backticks.
    pub(crate) fn conflict(setting: &'static str, with: impl fmt::Display) -> Self {
        Self::Conflict {
            setting,
            with: with.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_setting_and_the_other_one() {
        let missing =
            ConfigError::missing("slow_call_duration_threshold", "slow_call_rate_threshold");
        assert_eq!(
            missing.to_string(),
            "`slow_call_duration_threshold` is not set, but `slow_call_rate_threshold` requires it"
        );
        let conflict = ConfigError::conflict("store", "the store that is already attached");
        assert_eq!(
            conflict.to_string(),
            "`store` conflicts with the store that is already attached"
        );
    }
}
