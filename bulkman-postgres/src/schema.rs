//! The name of the schema, the only identifier that is inserted into statements.

use std::fmt;

use bulkman_core::store::StoreError;

/// The name of the schema with the tables: `[a-z_][a-z0-9_]{0,39}`, always quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema(String);

impl Schema {
    pub(crate) fn new(name: &str) -> Result<Self, StoreError> {
        let starts = |c: char| c.is_ascii_lowercase() || c == '_';
        let valid = name.len() <= MAX_LENGTH
            && name.starts_with(starts)
            && name.chars().all(|c| starts(c) || c.is_ascii_digit());
        if valid {
            return Ok(Self(name.to_owned()));
        }
        Err(StoreError::invalid_argument(format!(
            "schema {name:?} must be 1 to {MAX_LENGTH} characters of a-z, 0-9 and _, and not begin with a digit"
        )))
    }

    /// Replaces the default schema name in `text` by this one.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace(TOKEN, &format!("\"{}\"", self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The schema of a store that sets no other.
pub(crate) const DEFAULT_SCHEMA: &str = "bulkman";

/// The schema name in the shipped SQL, which is valid SQL as it is.
const TOKEN: &str = "\"bulkman\"";

const MAX_LENGTH: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_names_are_plain_identifiers() {
        for name in ["bulkman", "_x9", &"a".repeat(40)] {
            assert_eq!(Schema::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "9a",
            "A",
            "a-b",
            "a\"b",
            "a b",
            "ä",
            "a;b",
            "a\0",
            &"a".repeat(41),
        ] {
            let error = Schema::new(name).unwrap_err().to_string();
            assert!(error.contains("schema"), "{error}");
        }
    }

    #[test]
    fn fill_replaces_only_the_quoted_name() {
        let schema = Schema::new("other").unwrap();
        assert_eq!(
            schema.fill(r#"GRANT bulkman_app; "bulkman".t"#),
            r#"GRANT bulkman_app; "other".t"#
        );
    }
}
