//! Forward values and scores as JSON, both ways.

use std::fmt;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use utoipa::openapi::schema::{AnyOfBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::keys::KeyForm;
use crate::server::proto::voisin_v1::value::Kind;
use crate::server::proto::voisin_v1::{self as wire};

/// A form that is one of several.
pub(super) fn any_of(forms: AnyOfBuilder) -> RefOr<Schema> {
    RefOr::T(Schema::AnyOf(forms.build()))
}

/// A forward value; `None` is `null`, unset.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value(pub(super) Option<Kind>);

/// The values that JSON has no form of its own for, or whose kind is to be named.
#[derive(Debug, Clone, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Named {
    /// Base64 with padding.
    #[schema(value_type = String)]
    Bytes(Base64),
    String(String),
    Bool(bool),
    Int32(i32),
    #[schema(value_type = Int64)]
    Int64(Int64),
    Uint32(u32),
    #[schema(value_type = Uint64)]
    Uint64(Uint64),
    #[schema(value_type = Float)]
    Float(Float),
    #[schema(value_type = Float)]
    Double(Float),
}

impl From<Named> for Kind {
    fn from(named: Named) -> Kind {
        match named {
            Named::Bytes(Base64(bytes)) => Kind::BytesValue(bytes),
            Named::String(text) => Kind::StringValue(text),
            Named::Bool(truth) => Kind::BoolValue(truth),
            Named::Int32(number) => Kind::Int32Value(number),
            Named::Int64(Int64(number)) => Kind::Int64Value(number),
            Named::Uint32(number) => Kind::Uint32Value(number),
            Named::Uint64(Uint64(number)) => Kind::Uint64Value(number),
            Named::Float(Float(number)) => Kind::FloatValue(number as f32),
            Named::Double(Float(number)) => Kind::DoubleValue(number),
        }
    }
}

#[derive(Debug, Clone)]
struct Base64(Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        let text = String::deserialize(json)?;
        STANDARD.decode(text).map(|bytes| Base64(bytes.into())).map_err(D::Error::custom)
    }
}

/// A whole number of 64 bits, as a number or, for programs whose numbers end at 2^53, as text.
macro_rules! whole {
    ($name:ident, $number:ty, $pattern:literal) => {
        #[doc = concat!("An ", stringify!($number), ", as a number or as text.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(super) struct $name(pub(super) $number);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
                struct Form;
                impl Visitor<'_> for Form {
                    type Value = $name;

                    fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                        let (least, most) = (<$number>::MIN, <$number>::MAX);
                        write!(words, "a whole number from {least} to {most}, or one as text")
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        let known = number.try_into().map($name);
                        known.map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$name, E> {
                        let known = number.try_into().map($name);
                        known.map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        let known = text.parse().map($name);
                        known.map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
                    }
                }
                json.deserialize_any(Form)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let number = <$number>::schema();
                let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern));
                any_of(AnyOfBuilder::new().item(number).item(text.build()))
            }
        }

        impl ToSchema for $name {}
    };
}

whole!(Int64, i64, "^-?[0-9]+$");
whole!(Uint64, u64, "^[0-9]+$");

/// A number, or one of the three that JSON has none for.
#[derive(Debug, Clone, Copy)]
struct Float(f64);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Float;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Float, E> {
                Ok(Float(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Float, E> {
                Ok(Float(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Float, E> {
                Ok(Float(number as f64))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Float, E> {
                match text {
                    "NaN" => Ok(Float(f64::NAN)),
                    "Infinity" => Ok(Float(f64::INFINITY)),
                    "-Infinity" => Ok(Float(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        json.deserialize_any(Form)
    }
}

impl PartialSchema for Float {
    fn schema() -> RefOr<Schema> {
        let names = ["NaN", "Infinity", "-Infinity"];
        any_of(
            AnyOfBuilder::new().item(Object::with_type(Type::Number)).item(
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build(),
            ),
        )
    }
}

impl ToSchema for Float {}

fn name_of(number: f64) -> Option<&'static str> {
    match number {
        number if number.is_finite() => None,
        number if number.is_nan() => Some("NaN"),
        number if number > 0.0 => Some("Infinity"),
        _ => Some("-Infinity"),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Value;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str(
                    "a value: null, true, false, a number, text, or an object such as {\"bytes\": \"AAE=\"}",
                )
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value(None))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
                Ok(Value(Some(Kind::BoolValue(truth))))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value(Some(Kind::Int64Value(number))))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                let kind =
                    i64::try_from(number).map_or(Kind::Uint64Value(number), Kind::Int64Value);
                Ok(Value(Some(kind)))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value(Some(Kind::DoubleValue(number))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value(Some(Kind::StringValue(text.to_owned()))))
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Value, A::Error> {
                let named = Named::deserialize(MapAccessDeserializer::new(object))?;
                Ok(Value(Some(named.into())))
            }
        }
        json.deserialize_any(Form)
    }
}

impl PartialSchema for Value {
    fn schema() -> RefOr<Schema> {
        let plain = [Type::Null, Type::Boolean, Type::Number, Type::String];
        let plain = ObjectBuilder::new().schema_type(SchemaType::from_iter(plain)).build();
        any_of(AnyOfBuilder::new()
            .item(plain)
            .item(Ref::from_schema_name("NamedValue"))
            .description(Some(
                "A forward value. Whole numbers are int64 (uint64 beyond its range), other numbers double, `null` is unset. An object names the kind; so come bytes and what no JSON number is, and with `keys=text` whole numbers beyond 2^53 - 1.",
            ))
            .examples([serde_json::json!("a.jpg")]))
    }
}

impl ToSchema for Value {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("NamedValue".to_owned(), Named::schema()));
        schemas.push(("Float".to_owned(), Float::schema()));
        schemas.push(("Int64".to_owned(), Int64::schema()));
        schemas.push(("Uint64".to_owned(), Uint64::schema()));
    }
}

/// Largest whole number that every program which has 64-bit floats alone can tell from its neighbours.
const FLOAT_EXACT_MAX: u64 = (1 << 53) - 1;

/// A forward value to be written.
pub(super) struct ValueOut<'a>(pub(super) &'a wire::Value, pub(super) KeyForm);

impl Serialize for ValueOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let not_finite = |json: S, kind: &'static str, name: &'static str| {
            json.collect_map(std::iter::once((kind, name)))
        };
        let is_long = |number: u64| self.1 == KeyForm::Text && number > FLOAT_EXACT_MAX;
        match &self.0.kind {
            Some(Kind::Int64Value(number)) if is_long(number.unsigned_abs()) => {
                json.collect_map(std::iter::once(("int64", number.to_string())))
            }
            Some(Kind::Uint64Value(number)) if is_long(*number) => {
                json.collect_map(std::iter::once(("uint64", number.to_string())))
            }
            None => json.serialize_unit(),
            Some(Kind::BytesValue(bytes)) => {
                let text = Base64Display::new(bytes, &STANDARD).to_string();
                json.collect_map(std::iter::once(("bytes", text)))
            }
            Some(Kind::StringValue(text)) => json.serialize_str(text),
            Some(Kind::BoolValue(truth)) => json.serialize_bool(*truth),
            Some(Kind::Int32Value(number)) => json.serialize_i32(*number),
            Some(Kind::Int64Value(number)) => json.serialize_i64(*number),
            Some(Kind::Uint32Value(number)) => json.serialize_u32(*number),
            Some(Kind::Uint64Value(number)) => json.serialize_u64(*number),
            Some(Kind::FloatValue(number)) => match name_of((*number).into()) {
                Some(name) => not_finite(json, "float", name),
                None => json.serialize_f32(*number),
            },
            Some(Kind::DoubleValue(number)) => match name_of(*number) {
                Some(name) => not_finite(json, "double", name),
                None => json.serialize_f64(*number),
            },
        }
    }
}

/// A score: a number, or the name of one that JSON has none for.
pub(super) struct Score(pub(super) f32);

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match name_of(self.0.into()) {
            Some(name) => json.serialize_str(name),
            None => json.serialize_f32(self.0),
        }
    }
}

impl PartialSchema for Score {
    fn schema() -> RefOr<Schema> {
        Float::schema()
    }
}

impl ToSchema for Score {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_what_they_look_like_or_as_what_they_are_named() {
        let value = |text: &str| serde_json::from_str::<Value>(text).map(|value| value.0);
        for (text, kind) in [
            ("null", None),
            ("true", Some(Kind::BoolValue(true))),
            ("-5", Some(Kind::Int64Value(-5))),
            ("9223372036854775808", Some(Kind::Uint64Value(1 << 63))),
            ("1.0", Some(Kind::DoubleValue(1.0))),
            ("\"a\"", Some(Kind::StringValue("a".into()))),
            ("{\"bytes\":\"AP8=\"}", Some(Kind::BytesValue(vec![0, 255].into()))),
            ("{\"int32\":-5}", Some(Kind::Int32Value(-5))),
            ("{\"uint64\":5}", Some(Kind::Uint64Value(5))),
            ("{\"float\":0.5}", Some(Kind::FloatValue(0.5))),
            ("{\"double\":\"-Infinity\"}", Some(Kind::DoubleValue(f64::NEG_INFINITY))),
        ] {
            assert_eq!(value(text).expect(text), kind, "{text}");
        }
        for text in ["[1]", "{}", "{\"int32\":1.5}", "{\"int32\":1,\"bool\":true}", "{\"x\":1}"] {
            assert!(value(text).is_err(), "{text}");
        }
        let shown = |kind| {
            let value = wire::Value { kind: Some(kind) };
            serde_json::to_string(&ValueOut(&value, KeyForm::Number)).expect("JSON")
        };
        assert_eq!(shown(Kind::BytesValue(vec![0, 255].into())), r#"{"bytes":"AP8="}"#);
        assert_eq!(shown(Kind::FloatValue(0.1)), "0.1");
        assert_eq!(shown(Kind::FloatValue(f32::NAN)), r#"{"float":"NaN"}"#);
        assert_eq!(shown(Kind::DoubleValue(f64::INFINITY)), r#"{"double":"Infinity"}"#);
        assert_eq!(shown(Kind::Uint64Value(u64::MAX)), "18446744073709551615");
    }

    #[test]
    fn whole_numbers_that_floats_cannot_hold_are_text_on_request() {
        for (kind, text) in [
            (Kind::Int64Value((1 << 53) - 1), "9007199254740991"),
            (Kind::Int64Value(1 << 53), r#"{"int64":"9007199254740992"}"#),
            (Kind::Int64Value(i64::MIN), r#"{"int64":"-9223372036854775808"}"#),
            (Kind::Uint64Value(u64::MAX), r#"{"uint64":"18446744073709551615"}"#),
        ] {
            let value = wire::Value { kind: Some(kind.clone()) };
            let shown = serde_json::to_string(&ValueOut(&value, KeyForm::Text)).expect("JSON");
            assert_eq!(shown, text);
            let back: Value = serde_json::from_str(&shown).expect("a value");
            assert_eq!(back.0, Some(kind));
        }
        for text in [r#"{"int64":"1.0"}"#, r#"{"uint64":"-1"}"#, r#"{"uint64":-1}"#] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }
}
