//! The serialized form of a manager's configuration.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::config::ManagerConfig;
use crate::bulkhead::config::{BulkheadConfig, BulkheadRepr};
use crate::name::BulkheadName;
use crate::setting::{self, Field, Setting};

/// The form for reading. Writing produces the same form, without a copy and without defaults.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ManagerRepr {
    defaults: Field<Defaults>,
    bulkheads: Field<Bulkheads>,
}

impl Setting for ManagerConfig {
    const SHAPE: &'static str = "a table with the key `bulkheads`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        let ManagerRepr {
            defaults,
            bulkheads,
        } = setting::fields(table)?;
        if bulkheads.is_missing() {
            // Probably an unrelated file.
            return Err(A::Error::missing_field("bulkheads"));
        }
        let defaults = defaults.get();
        let bulkheads = bulkheads
            .get()
            .map_or_else(Vec::new, |Bulkheads(list)| list);
        let merged = bulkheads.into_iter().map(|(name, bulkhead)| {
            let bulkhead = match &defaults {
                Some(Defaults(defaults)) => bulkhead.or(defaults),
                None => bulkhead,
            };
            // The line is lost here, so the error names the bulkhead.
            bulkhead
                .into_config(&name)
                .map_err(|error| A::Error::custom(format_args!("bulkhead {name:?}: {error}")))
        });
        merged.collect()
    }
}

impl<'de> Deserialize<'de> for ManagerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
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

/// The settings of all bulkheads that do not set them.
struct Defaults(BulkheadRepr);

impl Setting for Defaults {
    const SHAPE: &'static str = BulkheadRepr::SHAPE;

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        match BulkheadRepr::from_table(table)? {
            BulkheadRepr { name: Some(_), .. } => {
                Err(A::Error::custom("`defaults` has the field `name`: omit it"))
            }
            defaults => Ok(Self(defaults)),
        }
    }
}

/// The tables of all bulkheads, in the order of the file.
struct Bulkheads(Vec<(BulkheadName, BulkheadRepr)>);

impl Setting for Bulkheads {
    const SHAPE: &'static str = "a table from names to bulkheads";

    fn from_table<'de, A: MapAccess<'de>>(mut table: A) -> Result<Self, A::Error> {
        let mut bulkheads: Vec<(BulkheadName, BulkheadRepr)> = Vec::new();
        while let Some(name) = table.next_key::<BulkheadName>()? {
            // Not every format rejects duplicate keys.
            if bulkheads.iter().any(|(listed, _)| *listed == name) {
                return Err(A::Error::custom(format_args!(
                    "duplicate bulkhead {name:?}"
                )));
            }
            let bulkhead = table.next_value_seed(Named(&name))?;
            bulkheads.push((name, bulkhead));
        }
        Ok(Self(bulkheads))
    }
}

/// Deserializes the bulkhead of this name.
struct Named<'a>(&'a BulkheadName);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = BulkheadRepr;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<BulkheadRepr, D::Error> {
        let mut bulkhead = Field::<BulkheadRepr>::deserialize(deserializer)?
            .get()
            .unwrap_or_default();
        match bulkhead.name.take() {
            Some(name) if name != *self.0 => Err(D::Error::custom(format_args!(
                "bulkhead {:?} has the field name = {name:?}: omit it, the key is the name",
                self.0
            ))),
            _ => Ok(bulkhead),
        }
    }
}
