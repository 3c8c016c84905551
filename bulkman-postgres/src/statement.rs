//! Statements with arguments, in the extended or the simple protocol.

use std::fmt::Write;
use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Executor, Postgres};

/// The protocol in which statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Named prepared statements, planned once per connection.
    Prepared,
    /// One message with literals. A prepared statement needs a second message, which a pooler in
    /// transaction mode may send to another connection.
    Simple,
}

/// A statement with its arguments `$1`, `$2` and so on.
pub(crate) struct Statement {
    text: Arc<str>,
    arguments: Vec<Argument>,
}

impl Statement {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self {
            text: text.into(),
            arguments: Vec::new(),
        }
    }

    pub(crate) fn bind(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Runs the statement as a separate transaction.
    pub(crate) async fn fetch_all<'e>(
        self,
        protocol: Protocol,
        executor: impl Executor<'e, Database = Postgres>,
    ) -> sqlx::Result<Vec<PgRow>> {
        match protocol {
            Protocol::Prepared => {
                let mut arguments = PgArguments::default();
                for argument in self.arguments {
                    argument
                        .add_to(&mut arguments)
                        .map_err(sqlx::Error::Encode)?;
                }
                sqlx::query_with(AssertSqlSafe(self.text), arguments)
                    .fetch_all(executor)
                    .await
            }
            Protocol::Simple => {
                sqlx::raw_sql(AssertSqlSafe(self.to_literal_sql()))
                    .fetch_all(executor)
                    .await
            }
        }
    }

    /// Returns the text with arguments replaced by literals.
    pub(crate) fn to_literal_sql(&self) -> String {
        let mut text = String::with_capacity(self.text.len() + 256);
        for line in self.text.lines() {
            // Comments mention arguments, and a line break in a value would end the comment.
            let line = line.split("--").next().unwrap_or_default();
            let mut parts = line.split('$');
            text.push_str(parts.next().unwrap_or_default());
            for part in parts {
                let digits =
                    part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (number, rest) = part.split_at(digits);
                let index = number
                    .parse()
                    .ok()
                    .and_then(|number: usize| number.checked_sub(1));
                match index.and_then(|index| self.arguments.get(index)) {
                    Some(argument) => argument.write_to(&mut text),
                    // The server reports the missing argument.
                    None => {
                        text.push('$');
                        text.push_str(number);
                    }
                }
                text.push_str(rest);
            }
            text.push('\n');
        }
        text
    }
}

/// Generates the kinds of arguments from a Rust type, the PostgreSQL type, and a literal writer.
macro_rules! arguments {
    ($($kind:ident($type:ty): $name:literal, $write:expr;)*) => {
        pub(crate) enum Argument {
            $($kind($type),)*
        }

        $(
            impl From<$type> for Argument {
                fn from(value: $type) -> Self {
                    Self::$kind(value)
                }
            }
        )*

        impl Argument {
            fn add_to(self, arguments: &mut PgArguments) -> Result<(), sqlx::error::BoxDynError> {
                match self {
                    $(Self::$kind(value) => arguments.add(value),)*
                }
            }

            /// Writes a literal in parentheses, so that a cast in the statement applies to all of
            /// it.
            fn write_to(&self, text: &mut String) {
                match self {
                    $(Self::$kind(value) => {
                        text.push('(');
                        let write: fn(&mut String, &$type) = $write;
                        write(text, value);
                        text.push_str(concat!("::", $name, ")"));
                    })*
                }
            }
        }
    };
}

arguments! {
    Flag(bool): "bool", |text, value| write_display(text, *value);
    Small(i16): "int2", |text, value| write_display(text, *value);
    Int(i32): "int4", |text, value| write_display(text, *value);
    Big(i64): "int8", |text, value| write_display(text, *value);
    Text(String): "text", |text, value| write_string(text, value);
    MaybeSmall(Option<i16>): "int2", |text, value| write_option(text, value.as_ref(), write_display);
    MaybeBig(Option<i64>): "int8", |text, value| write_option(text, value.as_ref(), write_display);
    MaybeText(Option<String>): "text", |text, value| write_option(text, value.as_ref(), |text, value| write_string(text, value));
    Bigs(Vec<i64>): "int8[]", |text, values| write_array(text, values, |text, value| write_display(text, value));
    Texts(Vec<String>): "text[]", |text, values| write_array(text, values, |text, value| write_string(text, value));
}

impl From<&str> for Argument {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Option<&str>> for Argument {
    fn from(value: Option<&str>) -> Self {
        Self::MaybeText(value.map(str::to_owned))
    }
}

impl From<Vec<&str>> for Argument {
    fn from(values: Vec<&str>) -> Self {
        Self::Texts(values.into_iter().map(str::to_owned).collect())
    }
}

fn write_display(text: &mut String, value: impl std::fmt::Display) {
    // Quoted, since the sign of a bare number is an operator that binds less than the cast.
    let _infallible = write!(text, "'{value}'");
}

/// Writes a literal that does not depend on `standard_conforming_strings`.
fn write_string(text: &mut String, value: &str) {
    text.push_str("E'");
    for character in value.chars() {
        if matches!(character, '\'' | '\\') {
            text.push(character);
        }
        text.push(character);
    }
    text.push('\'');
}

fn write_option<T>(text: &mut String, value: Option<T>, write: impl Fn(&mut String, T)) {
    match value {
        Some(value) => write(text, value),
        None => text.push_str("NULL"),
    }
}

fn write_array<T>(text: &mut String, values: &[T], write: impl Fn(&mut String, &T)) {
    text.push_str("ARRAY[");
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(text, value);
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_replace_their_placeholders() {
        let statement = Statement::new("-- $1 is first\nSELECT $2, $1::text, $10 -- $2\nFROM t")
            .bind("it's \\ $2 -- x\ny")
            .bind(-5_i64);
        let expected =
            "\nSELECT ('-5'::int8), (E'it''s \\\\ $2 -- x\ny'::text)::text, $10 \nFROM t\n";
        assert_eq!(statement.to_literal_sql(), expected);
    }

    #[test]
    fn arrays_and_nulls_have_a_type() {
        let statement = Statement::new("$1 $2 $3 $4")
            .bind(vec!["a", "'"])
            .bind(Vec::<i64>::new())
            .bind(None::<i64>)
            .bind(true);
        let expected =
            "(ARRAY[E'a',E'''']::text[]) (ARRAY[]::int8[]) (NULL::int8) ('true'::bool)\n";
        assert_eq!(statement.to_literal_sql(), expected);
    }
}
