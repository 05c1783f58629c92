//! Objects within objects. Derived code would take a list of their values for them, too, and the last of two
//! values of one name.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Reads an object whose names are the caller's own, and has each of them once: of two, one would be lost without a word.
pub(super) fn each_once<'de, D, V>(json: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Form<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Form<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
            words.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some((name, value)) = object.next_entry::<String, V>()? {
                if entries.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("{name:?} is there twice")));
                }
                entries.insert(name, value);
            }
            Ok(entries)
        }
    }
    json.deserialize_map(Form(PhantomData))
}

/// What can be read from an object alone.
struct Named<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = T;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object))
            }
        }
        json.deserialize_map(Form(PhantomData)).map(Named)
    }
}

/// Reads an object.
pub(super) fn named<'de, D, T>(json: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Named::deserialize(json).map(|Named(value)| value)
}

/// Reads an object, or `null`.
pub(super) fn maybe_named<'de, D, T>(json: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Option<Named<T>> = Option::deserialize(json)?;
    Ok(read.map(|Named(value)| value))
}

/// Reads a list of objects.
pub(super) fn all_named<'de, D, T>(json: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Vec<Named<T>> = Vec::deserialize(json)?;
    Ok(read.into_iter().map(|Named(value)| value).collect())
}
