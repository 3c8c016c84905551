//! The name of a bulkhead or of a circuit, validated once.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config_error::ConfigError;

/// Bytes kept inside the value; names up to this length are copied, longer ones are shared.
///
/// An `Arc` costs about twice an atomic operation per clone and drop, more than a refusal may
/// take; 16 bytes hold most names, and are copied by one move.
const INLINE: usize = 16;

/// The name of a bulkhead: 1 to 255 bytes of UTF-8 without control characters.
///
/// It identifies a circuit in logs, errors, metrics and the store. Cloning is cheap and does not
/// allocate, so that an error may carry it.
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

/// Two parts as wide as a register each. Anything narrower is stored piece by piece and loaded
/// back as a whole, which a processor can't forward from one to the other: that took longer than
/// all the rest of a refusal.
#[derive(Clone, Copy)]
struct Inline {
    bytes: [u8; INLINE],
    /// Never zero, which leaves the zero to tell the two kinds of names apart.
    length: NonZeroUsize,
}

impl BulkheadName {
    /// The most bytes a name may have.
    pub const MAX_LENGTH: usize = 255;

    /// Checks and keeps a name.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for field `name` when it is empty, longer than
    /// [`MAX_LENGTH`](Self::MAX_LENGTH) bytes, or contains a control character.
    ///
    /// ```
    /// # use bulkman::bulkhead::BulkheadName;
    /// assert_eq!(BulkheadName::new("payments")?.as_str(), "payments");
    /// let error = BulkheadName::new("").unwrap_err();
    /// assert_eq!(error.to_string(), "`name` is 0 bytes, must be 1 to 255 bytes");
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn new(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        check("name", name, Self::MAX_LENGTH, "1 to 255 bytes")?;
        Ok(Self::from_checked(name))
    }

    /// The name as text.
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
            // The bytes were copied from a `str` of this length, so the check never fails.
            Repr::Inline(Inline { bytes, length }) => {
                std::str::from_utf8(&bytes[..length.get()]).unwrap_or_default()
            }
            Repr::Shared(name) => name,
        }
    }

    /// To compare names by, without the check that makes them a `str`.
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

/// The one rule for whatever names something: names, and the namespaces of stores.
pub(crate) fn check(
    field: &'static str,
    text: &str,
    most: usize,
    range: &'static str,
) -> Result<(), ConfigError> {
    if text.is_empty() || text.len() > most {
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
    // As `str` orders: by bytes.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

// As `str` hashes, which `Borrow<str>` requires.
impl Hash for BulkheadName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_names_read_back() {
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
    fn the_error_names_field_value_and_range() {
        let text = BulkheadName::new("x".repeat(256)).unwrap_err().to_string();
        assert!(
            text.contains("name") && text.contains("256 bytes") && text.contains("1 to 255"),
            "{text}"
        );
        let text = BulkheadName::new("a\0b").unwrap_err().to_string();
        assert!(text.contains(r#""a\0b""#), "{text}");
    }
}
