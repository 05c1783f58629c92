//! Primary keys as JSON, both ways.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::values::any_of;
use super::{Line, Outcome, Refused};

/// A primary key, given as a number or as decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Key;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str(
                    "a key: a whole number from 0 to 18446744073709551614, or one as text",
                )
            }

            fn visit_u64<E>(self, key: u64) -> Result<Key, E> {
                Ok(Key(key))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                key(text).map(Key).map_err(E::custom)
            }
        }
        json.deserialize_any(Form)
    }
}

/// A key from its digits.
fn key(text: &str) -> Result<u64, String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let key = is_plain.then(|| text.parse().ok()).flatten();
    key.ok_or_else(|| {
        let start: String = text.chars().take(64).collect();
        format!("{start:?} is no key; it must be a whole number from 0 to 18446744073709551614")
    })
}

/// The key that a request's line names.
pub(in crate::server::http) fn line_key(line: &Line) -> Outcome<u64> {
    key(line.param("key")).map_err(Refused::invalid)
}

impl PartialSchema for Key {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).build();
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]+$")).build();
        any_of(AnyOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some(
                "A primary key: any whole number from 0 to 2^64 - 2. Numbers beyond 2^53 lose digits in JavaScript and the like: send them as text there, and ask for text with `keys=text`.",
            ))
            .examples([serde_json::json!(1)]))
    }
}

impl ToSchema for Key {}

/// How keys are written: as numbers, or as text for programs whose numbers end at 2^53. As text, values that
/// are whole numbers beyond 2^53 - 1 are text, too: `{"int64": "9007199254740993"}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub(super) enum KeyForm {
    #[default]
    Number,
    Text,
}

/// A key to be written.
pub(super) struct KeyOut(pub(super) u64, pub(super) KeyForm);

impl Serialize for KeyOut {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            KeyForm::Number => json.serialize_u64(self.0),
            KeyForm::Text => json.collect_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbers_or_digits() {
        let key = |text: &str| serde_json::from_str::<Key>(text).map(|key| key.0).ok();
        assert_eq!(key("7"), Some(7));
        assert_eq!(key("\"18446744073709551614\""), Some(u64::MAX - 1));
        for text in ["-1", "1.0", "\"\"", "\"+1\"", "\" 1\"", "\"18446744073709551616\"", "null"] {
            assert_eq!(key(text), None, "{text}");
        }
        let shown = |form| serde_json::to_string(&KeyOut(u64::MAX, form)).expect("JSON");
        assert_eq!(shown(KeyForm::Number), "18446744073709551615");
        assert_eq!(shown(KeyForm::Text), "\"18446744073709551615\"");
    }
}
