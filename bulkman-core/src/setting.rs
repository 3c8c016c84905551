//! How one setting of a configuration is read, whatever the format.
//!
//! Every scalar is accepted as text, too, since environment variables are text. Null means that the
//! setting is not set. An error states the accepted shape, never the name of a private type.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::adaptive::Enforcement;
use crate::circuit_breaker::{CircuitState, HalfOpenTimeoutAction};
use crate::human_duration::HumanDuration;
use crate::queue::QueueOrder;
use crate::store::Push;

/// A value that a configuration can set.
///
/// Each method reads one kind of value. By default it returns an error that states the shape.
pub(crate) trait Setting: Sized {
    /// The accepted shape. It completes the sentence "expected ..".
    const SHAPE: &'static str;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Str(text), &Self::SHAPE))
    }

    fn from_bool<E: Error>(value: bool) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Bool(value), &Self::SHAPE))
    }

    fn from_unsigned<E: Error>(number: u64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Unsigned(number), &Self::SHAPE))
    }

    fn from_negative<E: Error>(number: i64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Signed(number), &Self::SHAPE))
    }

    fn from_float<E: Error>(number: f64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Float(number), &Self::SHAPE))
    }

    fn from_list<'de, A: SeqAccess<'de>>(_list: A) -> Result<Self, A::Error> {
        Err(A::Error::invalid_type(Unexpected::Seq, &Self::SHAPE))
    }

    fn from_table<'de, A: MapAccess<'de>>(mut table: A) -> Result<Self, A::Error> {
        // With its feature `arbitrary_precision`, serde_json passes a number as this table.
        const NUMBER: &str = "$serde_json::private::Number";
        match table.next_key::<String>() {
            Ok(Some(key)) if key == NUMBER => Self::from_text(&table.next_value::<String>()?),
            _ => Err(A::Error::invalid_type(Unexpected::Map, &Self::SHAPE)),
        }
    }
}

/// The serialized form of settings that can be switched on and off.
pub(crate) trait SwitchSettings: Clone + Default + Serialize + Sized {
    /// The shape that the switch accepts. It completes the sentence "expected ..".
    const SHAPE: &'static str;

    /// Fills missing fields with the defaults of the file.
    fn or(self, defaults: &Self) -> Self;

    /// Reads the settings from a table.
    fn from_table<'de, A: MapAccess<'de>>(table: A) -> Result<Self, A::Error>;
}

/// Settings, `true` for the default ones, or `false`.
#[derive(Clone)]
pub(crate) enum Switch<R> {
    Off,
    On(R),
}

impl<R: SwitchSettings> Switch<R> {
    /// Fills missing settings with the defaults of the file, unless one of the two is off.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        match (self, defaults) {
            (Self::On(settings), Self::On(defaults)) => Self::On(settings.or(defaults)),
            (switch, _) => switch,
        }
    }

    pub(crate) fn into_settings(self) -> Option<R> {
        match self {
            Self::Off => None,
            Self::On(settings) => Some(settings),
        }
    }
}

impl<R: SwitchSettings> Serialize for Switch<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On(settings) => settings.serialize(serializer),
        }
    }
}

impl<R: SwitchSettings> Setting for Switch<R> {
    const SHAPE: &'static str = R::SHAPE;

    fn from_bool<E: Error>(on: bool) -> Result<Self, E> {
        Ok(if on {
            Self::On(R::default())
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
        R::from_table(table).map(Self::On)
    }
}

/// Reads a value that is required, so that null is an error.
pub(crate) fn required<'de, T: Setting, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Read(PhantomData))
}

/// A value that is required, for lists.
struct Required<T>(T);

impl<'de, T: Setting> Deserialize<'de> for Required<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        required(deserializer).map(Self)
    }
}

/// Reads a table through `R`, the private form of its fields.
pub(crate) fn fields<'de, R: Deserialize<'de>, A: MapAccess<'de>>(table: A) -> Result<R, A::Error> {
    R::deserialize(MapAccessDeserializer::new(table))
}

/// One field of a configuration.
///
/// Null and a missing field differ where a bulkhead overrides the defaults of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Field<T> {
    /// The field is missing.
    #[default]
    Missing,
    /// The field is null.
    Null,
    /// The field has a value.
    Set(T),
}

impl<T> Field<T> {
    pub(crate) const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    pub(crate) const fn is_set(&self) -> bool {
        matches!(self, Self::Set(_))
    }

    pub(crate) fn get(self) -> Option<T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Missing | Self::Null => None,
        }
    }

    /// Returns the value of a field without which its table has no meaning.
    pub(crate) fn required<E: Error>(self, name: &'static str) -> Result<T, E> {
        self.get().ok_or_else(|| E::missing_field(name))
    }

    /// Returns this field, or the default of the file if it is missing.
    pub(crate) fn or(self, default: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Missing => default.clone(),
            given => given,
        }
    }
}

impl<T> From<Option<T>> for Field<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Self::Set)
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing | Self::Null => serializer.serialize_none(),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Setting> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(ReadOrNull(PhantomData))
    }
}

/// Reads a value.
struct Read<T>(PhantomData<T>);

impl<'de, T: Setting> Visitor<'de> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::SHAPE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        T::from_bool(value)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::from_unsigned(number)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number).map_or_else(|_| T::from_negative(number), T::from_unsigned)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::from_float(number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::from_list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<T, A::Error> {
        T::from_table(table)
    }
}

/// Reads a value or null.
struct ReadOrNull<T>(PhantomData<T>);

impl<'de, T: Setting> Visitor<'de> for ReadOrNull<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::SHAPE)
    }

    fn visit_none<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<T>, D::Error> {
        required(deserializer).map(Field::Set)
    }

    // Formats without null, such as a list of environment variables, pass the value itself.
    fn visit_str<E: Error>(self, text: &str) -> Result<Field<T>, E> {
        Read(PhantomData).visit_str(text).map(Field::Set)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Field<T>, E> {
        Read(PhantomData).visit_bool(value).map(Field::Set)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Field<T>, E> {
        Read(PhantomData).visit_u64(number).map(Field::Set)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Field<T>, E> {
        Read(PhantomData).visit_i64(number).map(Field::Set)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Field<T>, E> {
        Read(PhantomData).visit_f64(number).map(Field::Set)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Field<T>, A::Error> {
        Read(PhantomData).visit_seq(list).map(Field::Set)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Field<T>, A::Error> {
        Read(PhantomData).visit_map(table).map(Field::Set)
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $shape:literal;)*) => {$(
        impl Setting for $type {
            const SHAPE: &'static str = $shape;

            fn from_text<E: Error>(text: &str) -> Result<Self, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &Self::SHAPE))
            }

            fn from_unsigned<E: Error>(number: u64) -> Result<Self, E> {
                number
                    .try_into()
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &Self::SHAPE))
            }

            fn from_negative<E: Error>(number: i64) -> Result<Self, E> {
                Err(E::invalid_value(Unexpected::Signed(number), &Self::SHAPE))
            }
        }
    )*};
}

whole_numbers! {
    u16: "a whole number up to 65,535";
    u32: "a whole number up to 4,294,967,295";
    u64: "a whole number";
    usize: "a whole number";
}

impl Setting for f64 {
    const SHAPE: &'static str = "a number, such as 0.5";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        text.parse()
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &Self::SHAPE))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "no rate or factor has more than 2^53"
    )]
    fn from_unsigned<E: Error>(number: u64) -> Result<Self, E> {
        Ok(number as Self)
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "no rate or factor has more than 2^53"
    )]
    fn from_negative<E: Error>(number: i64) -> Result<Self, E> {
        Ok(number as Self)
    }

    fn from_float<E: Error>(number: f64) -> Result<Self, E> {
        Ok(number)
    }
}

impl Setting for bool {
    const SHAPE: &'static str = "true or false";

    /// Accepts what sources of environment variables commonly accept.
    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        match &*text.to_ascii_lowercase() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err(E::invalid_value(Unexpected::Str(text), &Self::SHAPE)),
        }
    }

    fn from_bool<E: Error>(value: bool) -> Result<Self, E> {
        Ok(value)
    }
}

/// Values that are words.
macro_rules! words {
    ($($type:ty: $shape:literal;)*) => {$(
        impl Setting for $type {
            const SHAPE: &'static str = $shape;

            fn from_text<E: Error>(text: &str) -> Result<Self, E> {
                Self::deserialize(StrDeserializer::new(text))
            }
        }
    )*};
}

words! {
    Enforcement: r#""enforce" or "observe""#;
    QueueOrder: r#""fifo" or "lifo""#;
    CircuitState: r#""closed", "open", "half_open", "forced_open", "disabled" or "metrics_only""#;
    HalfOpenTimeoutAction: r#""open" or "closed""#;
    Push: r#""auto" or "off""#;
}

impl Setting for Arc<str> {
    const SHAPE: &'static str = "text";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Ok(text.into())
    }

    // Some sources of environment variables turn text into numbers where they can.
    fn from_unsigned<E: Error>(number: u64) -> Result<Self, E> {
        Ok(number.to_string().into())
    }
}

/// A list, or text with commas.
impl Setting for Vec<HumanDuration> {
    const SHAPE: &'static str = r#"a list of durations, such as ["5s", "1m"], or "5s, 1m" as text"#;

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        text.split(',')
            .map(|part| HumanDuration::from_text(part.trim()))
            .collect()
    }

    fn from_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut durations = Self::new();
        while let Some(Required(duration)) = list.next_element()? {
            durations.push(duration);
        }
        Ok(durations)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error, MapDeserializer};

    use super::*;

    /// Fault F06.
    #[test]
    fn numbers_of_arbitrary_precision_are_numbers() {
        let number = |text| {
            MapDeserializer::<_, Error>::new([("$serde_json::private::Number", text)].into_iter())
        };
        assert_eq!(required::<u32, _>(number("20")), Ok(20));
        assert_eq!(required::<f64, _>(number("0.5")), Ok(0.5));
        let other = MapDeserializer::<_, Error>::new([("number", "20")].into_iter());
        let error = required::<u32, _>(other).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid type: map, expected a whole number up to 4,294,967,295"
        );
    }
}
