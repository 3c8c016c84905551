//! The labels of a series.

use std::sync::Arc;

use ::metrics::{Label, SharedString};

use crate::config_error::ConfigError;

/// The labels that all series of a bulkhead or a fleet share.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// The label `bulkhead` or `namespace`.
    owner: Label,
    extra: ExtraLabels,
}

impl Labels {
    pub(super) fn new(owner: &'static str, value: &str, extra: &ExtraLabels) -> Self {
        Self {
            owner: Label::new(owner, SharedString::from_shared(value.into())),
            extra: extra.clone(),
        }
    }

    /// Returns the labels of a series that has no others.
    pub(super) fn all(&self) -> Vec<Label> {
        self.iter().cloned().collect()
    }

    /// Returns the labels of a series that has one more.
    pub(super) fn with(&self, name: &'static str, value: &'static str) -> Vec<Label> {
        let more = Label::from_static_parts(name, value);
        let mut labels = Vec::with_capacity(2 + self.extra.0.len());
        labels.extend([self.owner.clone(), more]);
        labels.extend(self.extra.0.iter().cloned());
        labels
    }

    fn iter(&self) -> impl Iterator<Item = &Label> {
        std::iter::once(&self.owner).chain(self.extra.0.iter())
    }
}

/// The labels that a publisher adds.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtraLabels(Arc<[Label]>);

impl ExtraLabels {
    /// Adds a label.
    pub(super) fn add(&mut self, name: String, value: String) -> Result<(), ConfigError> {
        let mut bytes = name.bytes();
        let valid = bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !valid {
            return Err(ConfigError::out_of_range(
                "label",
                format_args!("{name:?}"),
                "ASCII letters, digits and underscores, without a digit at the start",
            ));
        }
        let taken = self.0.iter().any(|label| label.key() == name);
        if taken || USED.contains(&&*name) {
            return Err(ConfigError::conflict(
                "label",
                format_args!("the existing label `{name}`"),
            ));
        }
        self.0 = self
            .0
            .iter()
            .cloned()
            .chain([Label::new(name, value)])
            .collect();
        Ok(())
    }
}

/// The labels of the series themselves, and those that exporters add to histograms.
const USED: [&str; 10] = [
    BULKHEAD, NAMESPACE, "outcome", "reason", "to", "cause", "state", "event", "le", "quantile",
];

pub(super) const BULKHEAD: &str = "bulkhead";
pub(super) const NAMESPACE: &str = "namespace";
