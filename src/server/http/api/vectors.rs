//! Vectors as JSON, both ways.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::f16;
use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::values::any_of;
use crate::schema::{ElementType, VectorColumn, pack_text};

/// The contract's number of an element type.
pub(super) fn element_number(element: ElementType) -> i32 {
    crate::server::convert::element_type(element).into()
}

/// The vectors that a row has in one column, or that a query has.
pub(super) struct Vectors {
    /// One after the other, as they are stored.
    pub(super) bytes: Bytes,
    /// How many.
    pub(super) count: u32,
}

/// Reads one vector, or a list of them: numbers, or base64 of the stored bytes.
pub(super) fn vectors(column: &VectorColumn, raw: &RawValue) -> Result<Vectors, String> {
    let text = raw.get();
    if text == "null" {
        return Ok(Vectors { bytes: Bytes::new(), count: 0 });
    }
    let inner = text.strip_prefix('[').map(str::trim_ascii_start);
    if !inner.is_some_and(|inner| inner.starts_with(['[', '"'])) {
        return Ok(Vectors { bytes: vector(column, text)?, count: 1 });
    }
    let list: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    for (position, raw) in list.iter().enumerate() {
        let one =
            vector(column, raw.get()).map_err(|words| format!("vector {position}: {words}"))?;
        bytes.extend_from_slice(&one);
    }
    Ok(Vectors { bytes: bytes.into(), count: list.len() as u32 })
}

/// Reads one vector.
pub(super) fn vector(column: &VectorColumn, text: &str) -> Result<Bytes, String> {
    let Some(expected) = column.vector_bytes() else {
        return Err(format!(
            "index column {:?} can hold no vector: no {} vector has dimension {}",
            column.name,
            column.element.name(),
            column.dimension
        ));
    };
    if !text.starts_with('"') {
        return pack_text(column.element, column.dimension, text);
    }
    let text: Cow<'_, str> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let bytes = STANDARD.decode(&*text).map_err(|error| format!("not base64: {error}"))?;
    match bytes.len() == expected {
        true => Ok(bytes.into()),
        false => Err(format!("{} bytes where {expected} belong", bytes.len())),
    }
}

/// A vector as the document describes it.
pub(super) struct VectorForm;

impl PartialSchema for VectorForm {
    fn schema() -> RefOr<Schema> {
        let numbers = ArrayBuilder::new().items(Object::with_type(Type::Number)).build();
        let text =
            ObjectBuilder::new().schema_type(Type::String).content_encoding("base64").build();
        any_of(AnyOfBuilder::new()
            .item(numbers)
            .item(text)
            .description(Some(
                "A vector: as many numbers as the column has dimensions (words for BINARY32 and BINARY64), or base64 of the stored bytes, little-endian.",
            ))
            .examples([serde_json::json!([0.5, 0.25])]))
    }
}

impl ToSchema for VectorForm {}

/// One stored vector, written as numbers.
pub(super) struct VectorOut<'a> {
    pub(super) element: ElementType,
    pub(super) bytes: &'a [u8],
}

impl Serialize for VectorOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        fn all<S: Serializer, const N: usize, T: Serialize>(
            json: S,
            bytes: &[u8],
            number: impl Fn([u8; N]) -> T,
        ) -> Result<S::Ok, S::Error> {
            let (chunks, _) = bytes.as_chunks();
            json.collect_seq(chunks.iter().map(|chunk| number(*chunk)))
        }
        match self.element {
            ElementType::Fp32 => all(json, self.bytes, f32::from_le_bytes),
            ElementType::Fp16 => all(json, self.bytes, |two| f16::from_le_bytes(two).to_f32()),
            ElementType::Int8 => all(json, self.bytes, i8::from_le_bytes),
            ElementType::Int16 => all(json, self.bytes, i16::from_le_bytes),
            ElementType::Binary32 => all(json, self.bytes, u32::from_le_bytes),
            ElementType::Binary64 => all(json, self.bytes, u64::from_le_bytes),
            ElementType::Int4 => {
                let mut array = json.serialize_seq(Some(self.bytes.len() * 2))?;
                for byte in self.bytes {
                    // Shifted up and back, so that the sign is kept.
                    array.serialize_element(&((*byte as i8) << 4 >> 4))?;
                    array.serialize_element(&(*byte as i8 >> 4))?;
                }
                array.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{CollectionSchema, DeclaredType, NewCollection, NewColumn, SchemaLimits};

    fn column(element: ElementType, dimension: u32) -> VectorColumn {
        let column = NewColumn {
            name: "v".into(),
            index_type: 1,
            data_type: DeclaredType::Vector(element),
            dimension,
            ..NewColumn::default()
        };
        let new = NewCollection { name: "c".into(), columns: vec![column], ..Default::default() };
        let limits = SchemaLimits { dimension_max: 1024, columns_max: 16 };
        let schema = CollectionSchema::new(new, &limits, |_| false).expect("a valid schema");
        schema.columns.into_iter().next().expect("one column")
    }

    fn read(column: &VectorColumn, text: &str) -> Result<Vectors, String> {
        vectors(column, serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn vectors_of_every_type_are_read_and_written() {
        for (element, dimension, text) in [
            (ElementType::Fp32, 3, "[0.1,-2.0,3.5]"),
            (ElementType::Fp16, 2, "[0.5,-2.0]"),
            (ElementType::Int8, 2, "[-128,127]"),
            (ElementType::Int16, 2, "[-32768,32767]"),
            (ElementType::Int4, 4, "[-8,7,0,-1]"),
            (ElementType::Binary32, 64, "[4294967295,1]"),
            (ElementType::Binary64, 64, "[18446744073709551615]"),
        ] {
            let column = column(element, dimension);
            let one = read(&column, text).expect(text);
            assert_eq!((one.count, Some(one.bytes.len())), (1, column.vector_bytes()));
            let out = VectorOut { element, bytes: &one.bytes };
            assert_eq!(serde_json::to_string(&out).expect("JSON"), text);
            let base64 = format!("{:?}", STANDARD.encode(&one.bytes));
            assert_eq!(read(&column, &base64).expect("base64").bytes, one.bytes);
            let many = read(&column, &format!("[ {text}, {base64}]")).expect("two of them");
            assert_eq!((many.count, many.bytes.len()), (2, 2 * one.bytes.len()));
        }
    }

    #[test]
    fn vectors_that_do_not_fit_are_refused() {
        let column = column(ElementType::Fp32, 2);
        assert_eq!(read(&column, "null").expect("none").count, 0);
        for (text, words) in [
            ("[1]", "1 numbers where 2 belong"),
            ("[1,2,3]", "3 numbers where 2 belong"),
            ("[]", "0 numbers where 2 belong"),
            ("[1,\"2\"]", "not a number"),
            ("{\"a\":1}", "not a JSON array"),
            ("7", "not a JSON array"),
            ("\"AAAA\"", "3 bytes where 8 belong"),
            ("\"*\"", "not base64"),
            ("[[1,2],[3]]", "vector 1: 1 numbers where 2 belong"),
            ("[[1,2],3]", "vector 1: not a JSON array"),
        ] {
            let refused = read(&column, text).err().expect(text);
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
