//! Objects whose names are the caller's own.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Reads an object that has each name once: of two, one would be lost without a word.
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
