//! The messages of Proxima BE as JSON, by the rules of its own REST server: which forms are taken and
//! which are given. They are not those of protobuf's JSON mapping: whole numbers of 32 bits may not be
//! text, floats may not be text but for the three that JSON has no numbers for, and `null` is unset.
//!
//! Nothing is buffered on the way: text becomes messages, and messages text, in one pass each.

mod fields;
mod messages;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Memory that a message's entries may take, as times the text they were read from. Entries of real
/// content take less than 8; 22 million rows of `{}` would take more than 60.
const ROOM_TIMES: usize = 16;
/// What the entries of a short text may take.
const ROOM_BYTES_MIN: usize = 1 << 20;

/// Reads a message from the text of one JSON object; `Err` says what is wrong with it.
pub(super) fn read<M: Message>(text: &[u8]) -> Result<M, String> {
    let room = Room(Cell::new(text.len().saturating_mul(ROOM_TIMES).max(ROOM_BYTES_MIN)));
    let mut message = M::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let outcome = read_object(&mut message, &mut json, &room).and_then(|()| json.end());
    outcome.map(|()| message).map_err(|error| error.to_string())
}

/// The message as text, without white space.
pub(super) fn write<M: Message>(message: &M) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let outcome = write_object(message, &mut serde_json::Serializer::new(&mut text));
    outcome.map(|()| text).map_err(|error| error.to_string())
}

/// A message whose fields are the entries of a JSON object.
pub(super) trait Message: Default {
    /// Reads the value of the field of that name, in snake_case or lowerCamelCase; false, and nothing is
    /// read, where there is none.
    fn read_field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
        room: &Room,
    ) -> Result<bool, A::Error>;

    /// Writes all fields: those of messages and choices where they are set, all others always.
    fn write_fields<M: SerializeMap>(&self, object: &mut M) -> Result<(), M::Error>;
}

/// A value of a field.
trait Field: Default {
    /// Reads a value that is not `null`.
    fn read<'de, D: Deserializer<'de>>(&mut self, json: D, room: &Room) -> Result<(), D::Error>;

    /// Writes the value.
    fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error>;

    /// False for what is left out of the object.
    fn is_shown(&self) -> bool {
        true
    }
}

/// Bytes of memory that entries of lists may still take.
pub(super) struct Room(Cell<usize>);

impl Room {
    /// Takes the room of one entry, or refuses it.
    fn take<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom("too many entries that hold nothing")),
        }
    }
}

/// Something to be written.
struct Shown<'a, T>(&'a T);

impl<T: Field> Serialize for Shown<'_, T> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        self.0.write(json)
    }
}

/// Something to be read into; `null` leaves it unset.
struct Slot<'a, T> {
    value: &'a mut T,
    room: &'a Room,
}

impl<'de, T: Field> DeserializeSeed<'de> for Slot<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de, T: Field> Visitor<'de> for Slot<'_, T> {
    type Value = ();

    fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
        words.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        *self.value = T::default();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        // The last of a repeated field is in force; lists do not grow together.
        *self.value = T::default();
        self.value.read(json, self.room)
    }
}

/// The name of an entry; borrowed from the text where it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
        words.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Whether an entry's name is that of a field, in snake_case or in lowerCamelCase.
fn is_named(name: &str, field: &str) -> bool {
    if name == field {
        return true;
    }
    let mut name = name.bytes();
    let mut raise = false;
    for letter in field.bytes() {
        if letter == b'_' {
            raise = true;
            continue;
        }
        let wanted = if raise { letter.to_ascii_uppercase() } else { letter };
        raise = false;
        if name.next() != Some(wanted) {
            return false;
        }
    }
    name.next().is_none()
}

fn read_object<'de, M: Message, D: Deserializer<'de>>(
    message: &mut M,
    json: D,
    room: &Room,
) -> Result<(), D::Error> {
    struct Object<'a, M>(Slot<'a, M>);

    impl<'de, M: Message> Visitor<'de> for Object<'_, M> {
        type Value = ();

        fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
            words.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
            let Slot { value, room } = self.0;
            while let Some(name) = object.next_key_seed(Name)? {
                if !value.read_field(&name, &mut object, room)? {
                    object.next_value::<serde::de::IgnoredAny>()?;
                }
            }
            Ok(())
        }
    }

    json.deserialize_map(Object(Slot { value: message, room }))
}

fn write_object<M: Message, S: Serializer>(message: &M, json: S) -> Result<S::Ok, S::Error> {
    let mut object = json.serialize_map(None)?;
    message.write_fields(&mut object)?;
    object.end()
}

fn read_entry<'de, T: Field, A: MapAccess<'de>>(
    value: &mut T,
    object: &mut A,
    room: &Room,
) -> Result<(), A::Error> {
    object.next_value_seed(Slot { value, room })
}

fn write_entry<T: Field, M: SerializeMap>(
    name: &'static str,
    value: &T,
    object: &mut M,
) -> Result<(), M::Error> {
    match value.is_shown() {
        true => object.serialize_entry(name, &Shown(value)),
        false => Ok(()),
    }
}

/// An enum of the contract, which messages hold as a number.
trait Named: TryFrom<i32> + Default + Copy + Into<i32> {
    fn from_name(name: &str) -> Option<Self>;
    fn name(self) -> &'static str;
}

/// Reads an enum given by name or number.
fn read_named<'de, N: Named, A: MapAccess<'de>>(
    number: &mut i32,
    object: &mut A,
    room: &Room,
) -> Result<(), A::Error> {
    let mut value = fields::ByName(N::default());
    read_entry(&mut value, object, room)?;
    *number = value.0.into();
    Ok(())
}

/// Writes an enum by its name.
fn write_named<N: Named, M: SerializeMap>(
    name: &'static str,
    number: i32,
    object: &mut M,
) -> Result<(), M::Error> {
    let Ok(value) = N::try_from(number) else {
        return Err(serde::ser::Error::custom(format!("{name} has no name for {number}")));
    };
    object.serialize_entry(name, value.name())
}

/// Reads one choice of several; `null` is none of them.
fn read_choice<'de, T: Field, C, A: MapAccess<'de>>(
    chosen: &mut Option<C>,
    choice: fn(T) -> C,
    object: &mut A,
    room: &Room,
) -> Result<(), A::Error> {
    let mut value: Option<fields::Set<T>> = None;
    read_entry(&mut value, object, room)?;
    if let Some(fields::Set(value)) = value {
        if chosen.is_some() {
            return Err(A::Error::custom("two of the values that exclude each other are set"));
        }
        *chosen = Some(choice(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
