//! The validated name of a bulkhead or circuit.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config_error::ConfigError;

/// The number of bytes stored inline. Longer names are shared through an `Arc`.
///
/// Cloning and dropping an `Arc` costs two atomic operations, which is more than a rejection may
/// take. 16 bytes hold most names and are copied by one move.
const INLINE: usize = 16;

/// The name of a bulkhead or circuit.
///
/// It consists of 1 to 255 bytes of UTF-8 without control characters. It identifies a circuit in
/// logs, errors, metrics and the store. Cloning is cheap and does not allocate, so every error
/// contains the name.
///
/// ```
/// use bulkman::bulkhead::BulkheadName;
///
/// let name = BulkheadName::new("payments")?;
/// assert_eq!(name.as_str(), "payments");
/// assert!(BulkheadName::new("").is_err());
/// assert!(BulkheadName::new("line\nbreak").is_err());
/// assert!(BulkheadName::new("x".repeat(256)).is_err());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct BulkheadName(Repr);

#[derive(Clone)]
enum Repr {
    Inline(Inline),
    Shared(Arc<str>),
}

/// A name that is stored inline, in parts that are as wide as a register.
///
/// Narrower parts are stored one by one and loaded as a whole, which a processor can't forward.
/// This took longer than the rest of a rejection.
#[derive(Clone, Copy)]
struct Inline {
    bytes: [u8; INLINE],
    /// Zero is the niche that distinguishes the two variants of `Repr`.
    length: NonZeroUsize,
}

impl BulkheadName {
    /// The maximum number of bytes of a name.
    pub const MAX_LENGTH: usize = 255;

    /// Creates a name from valid text.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError::OutOfRange`] for the field `name` if it is empty, longer than
    /// [`MAX_LENGTH`](Self::MAX_LENGTH) bytes, or contains a control character.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// assert_eq!(BulkheadName::new("payments")?.as_str(), "payments");
    /// let error = BulkheadName::new("").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "`name` is 0 bytes, must be 1 to 255 bytes"
    /// );
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        check("name", name, Self::MAX_LENGTH, "1 to 255 bytes")?;
        Ok(Self::from_checked(name))
    }

    /// Returns the name as a string slice.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// let name = BulkheadName::new("payments")?;
    /// assert!(name.as_str().starts_with("pay"));
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // The bytes were copied from a `str` of this length, so this never fails.
            Repr::Inline(Inline { bytes, length }) => {
                std::str::from_utf8(&bytes[..length.get()]).unwrap_or_default()
            }
            Repr::Shared(name) => name,
        }
    }

    /// Returns the bytes of the name, without the UTF-8 check of `as_str`.
    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(Inline { bytes, length }) => &bytes[..length.get()],
            Repr::Shared(name) => name.as_bytes(),
        }
    }

    fn from_checked(name: &str) -> Self {
        match NonZeroUsize::new(name.len()) {
            Some(length) if name.len() <= INLINE => {
                let mut bytes = [0; INLINE];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                Self(Repr::Inline(Inline { bytes, length }))
            }
            _ => Self(Repr::Shared(name.into())),
        }
    }
}

/// Checks a name, or the namespace of a store.
pub(crate) fn check(
    field: &'static str,
    text: &str,
    max_length: usize,
    range: &'static str,
) -> Result<(), ConfigError> {
    if text.is_empty() || text.len() > max_length {
        return Err(ConfigError::out_of_range(
            field,
            format_args!("{} bytes", text.len()),
            range,
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(ConfigError::out_of_range(
            field,
            format_args!("{text:?}"),
            "text without control characters",
        ));
    }
    Ok(())
}

impl AsRef<str> for BulkheadName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for BulkheadName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for BulkheadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for BulkheadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq for BulkheadName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for BulkheadName {}

impl PartialEq<str> for BulkheadName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for BulkheadName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for BulkheadName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BulkheadName {
    // By bytes, as `str` is ordered.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

// `Borrow<str>` requires the same hash as that of `str`.
impl Hash for BulkheadName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_names_round_trip() {
        for length in [1, INLINE - 1, INLINE, INLINE + 1, 255] {
            let text = "n".repeat(length);
            assert_eq!(BulkheadName::new(&text).unwrap().as_str(), text);
        }
        assert_eq!(
            BulkheadName::new("zahlungsgebühr-日本").unwrap().as_str(),
            "zahlungsgebühr-日本"
        );
        assert_eq!(size_of::<BulkheadName>(), 24);
    }

    #[test]
    fn error_contains_field_value_and_range() {
        let text = BulkheadName::new("x".repeat(256)).unwrap_err().to_string();
        assert!(
            text.contains("name") && text.contains("256 bytes") && text.contains("1 to 255"),
            "{text}"
        );
        let text = BulkheadName::new("a\0b").unwrap_err().to_string();
        assert!(text.contains(r#""a\0b""#), "{text}");
    }
}
