//! The forms of single values: numbers, text, bytes, lists and messages within messages.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};

use super::{Field, Named, Room, Shown};

impl Field for bool {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, _: &Room) -> Result<(), D::Error> {
        *self = bool::deserialize(json)?;
        Ok(())
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.serialize_bool(*self)
    }
}

impl Field for String {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, _: &Room) -> Result<(), D::Error> {
        *self = String::deserialize(json)?;
        Ok(())
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.serialize_str(self)
    }
}

/// Base64 with padding.
impl Field for Bytes {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, _: &Room) -> Result<(), D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("text in base64 with padding")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                STANDARD.decode(text).map(Bytes::from).map_err(E::custom)
            }
        }
        *self = json.deserialize_str(Text)?;
        Ok(())
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_str(&Base64Display::new(self, &STANDARD))
    }
}

/// What a number may be given as.
struct Number<T> {
    /// The type, in words.
    what: &'static str,
    /// From a number written with digits only, where it has a place in the type.
    whole: fn(i128) -> Option<T>,
    /// From a number with a point or an exponent.
    broken: fn(f64) -> Option<T>,
    /// From text.
    text: fn(&str) -> Option<T>,
}

impl<T> Number<T> {
    fn refuse<E: Error>(&self, value: impl fmt::Display) -> E {
        E::custom(format_args!("{value} is not {}", self.what))
    }
}

impl<T> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
        words.write_str(self.what)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.whole)(number.into()).ok_or_else(|| self.refuse(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        (self.whole)(number.into()).ok_or_else(|| self.refuse(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        (self.broken)(number).ok_or_else(|| self.refuse(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| self.refuse(format_args!("{text:?}")))
    }
}

macro_rules! number {
    ($type:ty, $what:literal, broken: $broken:expr, text: $text:expr, write: $write:expr) => {
        impl Field for $type {
            fn read<'de, D: Deserializer<'de>>(
                &mut self,
                json: D,
                _: &Room,
            ) -> Result<(), D::Error> {
                let number =
                    Number { what: $what, whole: whole::<$type>, broken: $broken, text: $text };
                *self = json.deserialize_any(number)?;
                Ok(())
            }

            fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
                $write(*self, json)
            }
        }
    };
}

/// A number's type, from a whole one.
trait FromWhole: Sized {
    fn from_whole(number: i128) -> Option<Self>;
}

fn whole<T: FromWhole>(number: i128) -> Option<T> {
    T::from_whole(number)
}

macro_rules! from_whole {
    ($($type:ty),*) => {
        $(impl FromWhole for $type {
            fn from_whole(number: i128) -> Option<Self> {
                number.try_into().ok()
            }
        })*
    };
}

from_whole!(u32, i32, u64, i64);

impl FromWhole for f64 {
    fn from_whole(number: i128) -> Option<Self> {
        Some(number as f64)
    }
}

impl FromWhole for f32 {
    fn from_whole(number: i128) -> Option<Self> {
        Some(number as f32)
    }
}

number!(u32, "a whole number from 0 to 4294967295", broken: |_| None, text: |_| None,
    write: |number, json: S| json.serialize_u32(number));
number!(i32, "a whole number of 32 bits", broken: |_| None, text: |_| None,
    write: |number, json: S| json.serialize_i32(number));
number!(u64, "a whole number from 0 to 18446744073709551615, or one as text", broken: |_| None, text: digits,
    write: |number: u64, json: S| json.collect_str(&number));
number!(i64, "a whole number of 64 bits, or one as text", broken: |_| None, text: digits,
    write: |number: i64, json: S| json.collect_str(&number));
number!(f32, "a number of 32 bits, \"NaN\", \"Infinity\" or \"-Infinity\"",
broken: |number| Some(number as f32).filter(|number| number.is_finite()),
text: |text| not_finite(text).map(|number| number as f32),
write: |number: f32, json: S| match infinite_name(number.into()) {
    Some(name) => json.serialize_str(name),
    // The shortest text of the largest number is above it, and refused by parsers that look twice.
    None if number.abs() == f32::MAX => json.serialize_f64(number.into()),
    None => json.serialize_f32(number),
});
number!(f64, "a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
broken: Some,
text: not_finite,
write: |number: f64, json: S| match infinite_name(number) {
    Some(name) => json.serialize_str(name),
    None => json.serialize_f64(number),
});

/// Decimal digits, and a sign where the type has one; no `+`.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.starts_with('+')).then(|| text.parse().ok()).flatten()
}

fn not_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn infinite_name(number: f64) -> Option<&'static str> {
    if number.is_finite() {
        None
    } else if number.is_nan() {
        Some("NaN")
    } else if number > 0.0 {
        Some("Infinity")
    } else {
        Some("-Infinity")
    }
}

/// An enum, by its name or number.
#[derive(Default)]
pub(super) struct ByName<N>(pub(super) N);

impl<N: Named> Field for ByName<N> {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, _: &Room) -> Result<(), D::Error> {
        self.0 = json.deserialize_any(Number {
            what: "a known name or number",
            whole: |number| i32::try_from(number).ok().and_then(|number| N::try_from(number).ok()),
            broken: |_| None,
            text: N::from_name,
        })?;
        Ok(())
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.serialize_str(self.0.name())
    }
}

/// A value in a place where `null` is another thing than its default.
#[derive(Default)]
pub(super) struct Set<T>(pub(super) T);

impl<T: Field> Field for Option<Set<T>> {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, room: &Room) -> Result<(), D::Error> {
        self.insert(Set(T::default())).0.read(json, room)
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(Set(value)) => value.write(json),
            None => json.serialize_none(),
        }
    }
}

/// A list. `null` is no entry of any.
impl<T: Field> Field for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, room: &Room) -> Result<(), D::Error> {
        struct Entries<'a, T>(&'a mut Vec<T>, &'a Room);
        impl<'de, T: Field> Visitor<'de> for Entries<'_, T> {
            type Value = ();

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
                let Entries(entries, room) = self;
                while let Some(entry) = array.next_element_seed(Entry(room, PhantomData))? {
                    room.take(size_of::<T>())?;
                    entries.push(entry);
                }
                Ok(())
            }
        }
        json.deserialize_seq(Entries(self, room))
    }

    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let mut array = json.serialize_seq(Some(self.len()))?;
        for entry in self {
            array.serialize_element(&Shown(entry))?;
        }
        array.end()
    }
}

struct Entry<'a, T>(&'a Room, PhantomData<T>);

impl<'de, T: Field> DeserializeSeed<'de> for Entry<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        let mut entry = T::default();
        entry.read(json, self.0)?;
        Ok(entry)
    }
}
