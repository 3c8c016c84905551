//! The figures as JSON.

use std::path::Path;

pub(crate) use serde_json::Value as Json;

/// Returns an object with these members.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Object(
        members
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

/// Writes `value` to `path`, indented.
pub(crate) fn write(path: &Path, value: &Json) -> std::io::Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
}
