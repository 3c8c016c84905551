//! Serialization of durations and names as text.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::name::BulkheadName;
use crate::setting::Setting;

/// A duration that is serialized as text, such as "250ms" or "1m 30s".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HumanDuration(pub(crate) Duration);

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl Setting for HumanDuration {
    const SHAPE: &'static str = r#"a duration as text, such as "250ms" or "1m 30s""#;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &Self::SHAPE))
    }
}

impl From<HumanDuration> for Duration {
    fn from(text: HumanDuration) -> Self {
        text.0
    }
}

impl Serialize for BulkheadName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for BulkheadName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Check;

        impl Visitor<'_> for Check {
            type Value = BulkheadName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name as text")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<BulkheadName, E> {
                BulkheadName::new(name).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Check)
    }
}
