//! The serialized form of a manager's configuration.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::config::ManagerConfig;
use crate::bulkhead::config::{BulkheadConfig, BulkheadRepr};
use crate::name::BulkheadName;

/// The form for reading. Writing produces the same form, without a copy.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ManagerRepr {
    #[serde(deserialize_with = "by_name")]
    bulkheads: Vec<BulkheadConfig>,
}

impl<'de> Deserialize<'de> for ManagerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ManagerRepr::deserialize(deserializer).map(|repr| repr.bulkheads.into_iter().collect())
    }
}

impl Serialize for ManagerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut repr = serializer.serialize_struct("ManagerConfig", 1)?;
        repr.serialize_field("bulkheads", &ByName(self.bulkheads()))?;
        repr.end()
    }
}

/// Serializes bulkheads as a map from their names.
struct ByName<'a>(&'a [BulkheadConfig]);

impl Serialize for ByName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|config| (config.name(), BulkheadRepr::of(config, None))),
        )
    }
}

fn by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BulkheadConfig>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<BulkheadConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map from names to bulkheads")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut bulkheads: Vec<BulkheadConfig> = Vec::new();
            while let Some(name) = map.next_key::<BulkheadName>()? {
                // Not every format rejects duplicate keys.
                if bulkheads
                    .iter()
                    .any(|config| config.name() == name.as_str())
                {
                    return Err(A::Error::custom(format_args!(
                        "duplicate bulkhead {name:?}"
                    )));
                }
                bulkheads.push(map.next_value_seed(Entry(name))?);
            }
            Ok(bulkheads)
        }
    }

    deserializer.deserialize_map(Entries)
}

/// Deserializes the bulkhead of this name.
struct Entry(BulkheadName);

impl<'de> DeserializeSeed<'de> for Entry {
    type Value = BulkheadConfig;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<BulkheadConfig, D::Error> {
        let repr = BulkheadRepr::deserialize(deserializer)?;
        match &repr.name {
            Some(name) if *name != self.0 => Err(D::Error::custom(format_args!(
                "bulkhead {:?} has the field name = {name:?}: omit it, the key is the name",
                self.0
            ))),
            _ => repr.into_config(&self.0).map_err(D::Error::custom),
        }
    }
}
