//! The schema's name, the only identifier that is ever written into a statement.

use std::fmt;

use bulkman_core::store::StoreError;

/// The name of the schema in which the tables are: `[a-z_][a-z0-9_]{0,39}`, always quoted.
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
            "schema {name:?} must have 1 to {MAX_LENGTH} of the characters a-z, 0-9 and _, and not begin with a digit"
        )))
    }

    /// `text`, which is about the schema of the default name, made to be about this one.
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

/// How the shipped SQL names the schema, and nothing else: so it can be run as it is.
const TOKEN: &str = "\"bulkman\"";

const MAX_LENGTH: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_nothing_else() {
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
    fn only_the_quoted_name_is_replaced() {
        let schema = Schema::new("other").unwrap();
        assert_eq!(
            schema.fill(r#"GRANT bulkman_app; "bulkman".t"#),
            r#"GRANT bulkman_app; "other".t"#
        );
    }
}
