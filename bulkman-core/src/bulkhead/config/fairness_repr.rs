//! The serialized form of fair shares.

use serde::de::{Deserialize, Deserializer, MapAccess};
use serde::ser::{Serialize, Serializer};

use super::Fairness;
use crate::setting::{self, Field, Setting, SwitchSettings};

/// The fields of [`Fairness`] under the names of their setters; each may be left out.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FairnessRepr {
    #[serde(skip_serializing_if = "Field::is_missing")]
    min_per_key: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    max_per_key: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    max_queue_per_key: Field<u32>,
    #[serde(skip_serializing_if = "Field::is_missing")]
    evict_longest: Field<bool>,
}

impl FairnessRepr {
    pub(super) fn of(fairness: &Fairness) -> Self {
        Self {
            min_per_key: Field::Set(fairness.min_per_key),
            max_per_key: fairness.max_per_key.into(),
            max_queue_per_key: fairness.max_queue_per_key.into(),
            evict_longest: Field::Set(fairness.evict_longest),
        }
    }

    pub(super) fn into_fairness(self) -> Fairness {
        let new = Fairness::new();
        Fairness {
            min_per_key: self.min_per_key.get().unwrap_or(new.min_per_key),
            max_per_key: self.max_per_key.get(),
            max_queue_per_key: self.max_queue_per_key.get(),
            evict_longest: self.evict_longest.get().unwrap_or(new.evict_longest),
        }
    }
}

impl Setting for Fairness {
    const SHAPE: &'static str = "a table of settings, such as `{ max_per_key = 40 }`";

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        Ok(setting::fields::<FairnessRepr, _>(table)?.into_fairness())
    }
}

impl Serialize for Fairness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FairnessRepr::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fairness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        setting::required(deserializer)
    }
}

impl SwitchSettings for FairnessRepr {
    const SHAPE: &'static str =
        "true, false, or a table of settings, such as `{ max_per_key = 40 }`";

    fn or(self, defaults: &Self) -> Self {
        Self {
            min_per_key: self.min_per_key.or(&defaults.min_per_key),
            max_per_key: self.max_per_key.or(&defaults.max_per_key),
            max_queue_per_key: self.max_queue_per_key.or(&defaults.max_queue_per_key),
            evict_longest: self.evict_longest.or(&defaults.evict_longest),
        }
    }

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        setting::fields(table)
    }
}
