//! JSON values, and how they are written.

use std::fmt;
use std::time::Duration;

/// A JSON value.
pub(crate) enum Json {
    Null,
    Flag(bool),
    Integer(u64),
    Seconds(Duration),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(&'static str, Self)>),
}

/// Generates conversions to values.
macro_rules! conversions {
    ($($type:ty: $value:ident => $json:expr;)*) => {
        $(
            impl From<$type> for Json {
                fn from($value: $type) -> Self {
                    $json
                }
            }
        )*
    };
}

conversions! {
    bool: value => Self::Flag(value);
    u16: value => Self::Integer(value.into());
    u32: value => Self::Integer(value.into());
    u64: value => Self::Integer(value);
    Duration: value => Self::Seconds(value);
    &str: value => Self::Text(value.to_owned());
    String: value => Self::Text(value);
    Vec<Json>: value => Self::List(value);
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl Json {
    /// Returns a text, or null if it is empty.
    pub(crate) fn text_or_null(text: &str) -> Self {
        Some(text).filter(|text| !text.is_empty()).into()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Seconds(value) => value.as_secs_f64().fmt(f),
            Self::Text(text) => write_text(f, text),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "," };
                    write!(f, "{separator}{item}")?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "," };
                    write!(f, "{separator}\"{name}\":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            // Also those above ASCII, which could control a terminal.
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_valid_json() {
        let value = Json::Object(vec![
            ("text", "a\"b\\c\nd\u{1b}\u{85}\u{6f22}".into()),
            ("seconds", Duration::from_millis(1_250).into()),
            ("none", None::<u64>.into()),
            ("list", vec![Json::from(true), Json::from(3_u64)].into()),
        ]);
        let expected =
            r#"{"text":"a\"b\\c\u000ad\u001b\u0085漢","seconds":1.25,"none":null,"list":[true,3]}"#;
        assert_eq!(value.to_string(), expected);
    }
}
