//! Names for calls, as numbers.

use std::collections::HashMap;
use std::sync::Arc;

/// A name for calls, shown in the list of the oldest running calls.
///
/// Created by [`Bulkhead::label`](crate::Bulkhead::label), and valid for that bulkhead only.
///
/// ```
/// use bulkman::bulkhead::Label;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let config = BulkheadConfig::new("users").track_running_calls(true);
/// let bulkhead = Bulkhead::new(config, ClockOnly)?;
/// let get: Label = bulkhead.label("GET /users");
/// assert_eq!(get, bulkhead.label("GET /users"));
///
/// let oldest = bulkhead
///     .call()
///     .label(get)
///     .execute_sync(|| Ok::<_, ()>(bulkhead.snapshot().oldest));
/// assert_eq!(oldest.unwrap()[0].label.as_deref(), Some("GET /users"));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label(pub(super) u16);

impl Label {
    /// The label of calls that set none.
    pub(crate) const NONE: Self = Self(0);
    /// The label of all names beyond the first [`MAX_LABELS`].
    pub(super) const OTHER: Self = Self(MAX_LABELS as u16 + 1);
}

/// The names of the labels of a bulkhead.
#[derive(Debug, Default)]
pub(super) struct Labels {
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, Label>,
}

impl Labels {
    /// Returns the label of a name.
    pub(super) fn label(&mut self, name: &str) -> Label {
        if let Some(label) = self.by_name.get(name) {
            return *label;
        }
        if self.names.len() == MAX_LABELS {
            return Label::OTHER;
        }
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        let label = Label(self.names.len() as u16);
        self.by_name.insert(name, label);
        label
    }

    /// Returns the name of a label.
    pub(super) fn name(&self, label: Label) -> Option<Arc<str>> {
        match label {
            Label::NONE => None,
            Label::OTHER => Some("other".into()),
            Label(number) => self.names.get(usize::from(number) - 1).cloned(),
        }
    }
}

const MAX_LABELS: usize = 1_024;

#[cfg(all(test, not(bulkman_loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_maximum_share_a_label() {
        let mut labels = Labels::default();
        for number in 0..MAX_LABELS {
            let label = labels.label(&number.to_string());
            assert_eq!(labels.name(label).as_deref(), Some(&*number.to_string()));
        }
        let other = labels.label("one more");
        assert_eq!(
            (other, labels.name(other).as_deref()),
            (Label::OTHER, Some("other"))
        );
        assert_eq!(labels.label("yet another"), other);
        assert_eq!(labels.label("0"), Label(1));
        assert_eq!(labels.name(Label::NONE), None);
    }
}
