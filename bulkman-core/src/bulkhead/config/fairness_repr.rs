//! The serialized form of fair shares.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected};
use serde::ser::{Serialize, Serializer};

use super::Fairness;
use crate::setting::{self, Field, Setting};

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
    fn of(fairness: &Fairness) -> Self {
        Self {
            min_per_key: Field::Set(fairness.min_per_key),
            max_per_key: fairness.max_per_key.into(),
            max_queue_per_key: fairness.max_queue_per_key.into(),
            evict_longest: Field::Set(fairness.evict_longest),
        }
    }

    /// Fills missing fields with the defaults of the file.
    fn or(self, defaults: &Self) -> Self {
        Self {
            min_per_key: self.min_per_key.or(&defaults.min_per_key),
            max_per_key: self.max_per_key.or(&defaults.max_per_key),
            max_queue_per_key: self.max_queue_per_key.or(&defaults.max_queue_per_key),
            evict_longest: self.evict_longest.or(&defaults.evict_longest),
        }
    }

    fn into_fairness(self) -> Fairness {
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

/// The fair shares of a bulkhead: their settings, `true` for the default ones, or `false`.
#[derive(Clone)]
pub(super) enum FairnessSwitch {
    Off,
    On(FairnessRepr),
}

impl FairnessSwitch {
    pub(super) fn of(fairness: &Fairness) -> Self {
        Self::On(FairnessRepr::of(fairness))
    }

    /// Fills missing settings with the defaults of the file, unless one of the two is off.
    pub(super) fn or(self, defaults: &Self) -> Self {
        match (self, defaults) {
            (Self::On(fairness), Self::On(defaults)) => Self::On(fairness.or(defaults)),
            (switch, _) => switch,
        }
    }

    pub(super) fn into_fairness(self) -> Option<Fairness> {
        match self {
            Self::Off => None,
            Self::On(fairness) => Some(fairness.into_fairness()),
        }
    }
}

impl Serialize for FairnessSwitch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On(fairness) => fairness.serialize(serializer),
        }
    }
}

impl Setting for FairnessSwitch {
    const SHAPE: &'static str =
        "true, false, or a table of settings, such as `{ max_per_key = 40 }`";

    fn from_bool<E: Error>(shares: bool) -> Result<Self, E> {
        Ok(if shares {
            Self::On(FairnessRepr::default())
        } else {
            Self::Off
        })
    }

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        bool::from_text::<E>(text)
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &Self::SHAPE))
            .and_then(Self::from_bool)
    }

    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error> {
        Ok(Self::On(setting::fields(table)?))
    }
}
