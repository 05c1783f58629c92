//! Vectors written as JSON text, and the checks on vectors written as bytes.
//!
//! Stored vectors are little-endian throughout, exactly as on the wire.

use bytes::Bytes;
use half::f16;
use serde_json::Value as Json;

use super::types::ElementType;

/// Parses JSON text into a flat list of numbers, whatever its nesting.
pub fn flat_numbers(text: &str) -> Result<Vec<Json>, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let Json::Array(items) = json else { return Err("not a JSON array".into()) };
    let mut numbers = Vec::with_capacity(items.len());
    flatten(items, &mut numbers)?;
    Ok(numbers)
}

/// serde_json refuses text nested deeper than 128, which bounds this recursion.
fn flatten(items: Vec<Json>, numbers: &mut Vec<Json>) -> Result<(), String> {
    for item in items {
        match item {
            Json::Array(inner) => flatten(inner, numbers)?,
            Json::Number(_) => numbers.push(item),
            other => return Err(format!("element {} is not a number: {other}", numbers.len())),
        }
    }
    Ok(())
}

/// Parses JSON text of several vectors of `length` numbers each, above 0, into all their numbers: one
/// flat array, or an array with an array for each vector. None at all are refused.
pub fn vector_numbers(text: &str, length: usize) -> Result<Vec<Json>, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let Json::Array(items) = json else { return Err("not a JSON array".into()) };
    let mut numbers = Vec::with_capacity(items.len());
    if items.iter().any(Json::is_array) {
        for (place, item) in items.into_iter().enumerate() {
            let Json::Array(vector) = item else {
                return Err(format!("element {place} is not a vector like others: {item}"));
            };
            if vector.len() != length {
                let found = vector.len();
                return Err(format!("vector {place} has {found} numbers where {length} belong"));
            }
            numbers.extend(vector);
        }
    } else {
        numbers = items;
    }
    if let Some(place) = numbers.iter().position(|number| !number.is_number()) {
        return Err(format!("element {place} is not a number: {}", numbers[place]));
    }
    if numbers.is_empty() || !numbers.len().is_multiple_of(length) {
        let found = numbers.len();
        return Err(format!("{found} numbers where one or more times {length} belong"));
    }
    Ok(numbers)
}

/// Parses JSON text of a query: one flat array of `dimension` numbers, or an array of such arrays.
pub fn matrix_rows(text: &str, dimension: usize) -> Result<Vec<Vec<Json>>, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| format!("matrix is not JSON: {e}"))?;
    let Json::Array(items) = json else { return Err("matrix is not a JSON array".into()) };
    if items.iter().all(Json::is_number) {
        return Ok(vec![exactly(items, dimension, 0)?]);
    }
    items
        .into_iter()
        .enumerate()
        .map(|(row, item)| match item {
            Json::Array(numbers) => exactly(numbers, dimension, row),
            _ => Err(format!("matrix row {row} is not an array")),
        })
        .collect()
}

fn exactly(numbers: Vec<Json>, dimension: usize, row: usize) -> Result<Vec<Json>, String> {
    if numbers.len() != dimension {
        return Err(format!(
            "matrix row {row} has {} numbers, the column's dimension is {dimension}",
            numbers.len()
        ));
    }
    Ok(numbers)
}

/// Packs JSON text as one stored vector. Numbers are counted before memory is taken for them.
pub fn pack_text(element: ElementType, dimension: u32, text: &str) -> Result<Bytes, String> {
    let expected = element.numbers(dimension);
    let commas = text.bytes().filter(|byte| *byte == b',').count();
    if commas >= expected.max(1) {
        return Err(format!("{} numbers where {expected} belong", commas + 1));
    }
    pack(element, dimension, &flat_numbers(text)?)
}

/// Packs JSON numbers as one stored vector. The count must be the dimension (words for bit types).
pub fn pack(element: ElementType, dimension: u32, numbers: &[Json]) -> Result<Bytes, String> {
    let expected = element.numbers(dimension);
    if numbers.len() != expected {
        return Err(format!("{} numbers where {expected} belong", numbers.len()));
    }
    let mut out = Vec::with_capacity(element.vector_bytes(dimension).unwrap_or(0));
    match element {
        ElementType::Fp32 => {
            for number in numbers {
                out.extend_from_slice(&float(number)?.to_le_bytes());
            }
        }
        ElementType::Fp16 => {
            for number in numbers {
                out.extend_from_slice(&f16::from_f32(float(number)?).to_le_bytes());
            }
        }
        ElementType::Int8 => {
            for number in numbers {
                out.push(integer(number, i8::MIN.into(), i8::MAX.into())? as u8);
            }
        }
        ElementType::Int16 => {
            for number in numbers {
                let value = integer(number, i16::MIN.into(), i16::MAX.into())? as i16;
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        ElementType::Int4 => {
            for pair in numbers.chunks(2) {
                let low = integer(&pair[0], -8, 7)? as u8 & 0x0f;
                let high = pair.get(1).map_or(Ok(0), |n| integer(n, -8, 7))? as u8 & 0x0f;
                out.push(low | high << 4);
            }
        }
        ElementType::Binary32 => {
            for number in numbers {
                let word = number.as_u64().and_then(|n| u32::try_from(n).ok());
                let word =
                    word.ok_or_else(|| format!("{number} is not an unsigned 32-bit word"))?;
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        ElementType::Binary64 => {
            for number in numbers {
                let word = number
                    .as_u64()
                    .ok_or_else(|| format!("{number} is not an unsigned 64-bit word"))?;
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    Ok(Bytes::from(out))
}

/// Packs the JSON numbers of one or more vectors, one after the other.
pub fn pack_all(element: ElementType, dimension: u32, numbers: &[Json]) -> Result<Bytes, String> {
    let length = element.numbers(dimension);
    if numbers.len() <= length || length == 0 {
        return pack(element, dimension, numbers);
    }
    let mut out = Vec::with_capacity(numbers.len() * size_of::<f32>());
    for vector in numbers.chunks(length) {
        out.extend_from_slice(&pack(element, dimension, vector)?);
    }
    Ok(out.into())
}

fn float(number: &Json) -> Result<f32, String> {
    number.as_f64().map(|n| n as f32).ok_or_else(|| format!("{number} is not a number"))
}

fn integer(number: &Json, low: i64, high: i64) -> Result<i64, String> {
    match number.as_i64() {
        Some(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("{number} is not a whole number from {low} to {high}")),
    }
}

/// Rounds little-endian FP32 vectors to little-endian FP16.
pub fn fp32_to_fp16(bytes: &[u8]) -> Bytes {
    bytes
        .chunks_exact(4)
        .flat_map(|b| f16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]])).to_le_bytes())
        .collect::<Vec<u8>>()
        .into()
}

/// The first element that is NaN or infinite, with its position.
pub fn first_not_finite(element: ElementType, bytes: &[u8]) -> Option<(usize, f32)> {
    match element {
        ElementType::Fp32 => {
            // Branch-free over the whole vector first: nearly every vector is clean.
            let clean = bytes.chunks_exact(4).fold(true, |ok, b| {
                ok & (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 != 0x7f80_0000)
            });
            if clean {
                return None;
            }
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .enumerate()
                .find(|(_, value)| !value.is_finite())
        }
        ElementType::Fp16 => bytes
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
            .enumerate()
            .find(|(_, value)| !value.is_finite()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(element: ElementType, dimension: u32, text: &str) -> Result<Vec<u8>, String> {
        pack(element, dimension, &flat_numbers(text)?).map(|b| b.to_vec())
    }

    #[test]
    fn text_packs_as_the_wire_bytes() {
        assert_eq!(packed(ElementType::Fp32, 1, "[1.5]").unwrap(), 1.5f32.to_le_bytes());
        assert_eq!(packed(ElementType::Fp16, 1, "[[1.0]]").unwrap(), [0x00, 0x3c]);
        assert_eq!(packed(ElementType::Int8, 2, "[-1, 127]").unwrap(), [0xff, 0x7f]);
        assert_eq!(packed(ElementType::Int16, 1, "[-2]").unwrap(), [0xfe, 0xff]);
        assert_eq!(packed(ElementType::Int4, 4, "[1, -1, 7, -8]").unwrap(), [0xf1, 0x87]);
        assert_eq!(packed(ElementType::Binary32, 64, "[1, 2]").unwrap(), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(packed(ElementType::Binary64, 64, "[18446744073709551615]").unwrap(), [0xff; 8]);
    }

    #[test]
    fn text_that_does_not_fit_is_refused() {
        for (element, dimension, text) in [
            (ElementType::Fp32, 2, "[1]"),
            (ElementType::Fp32, 1, "{}"),
            (ElementType::Fp32, 1, "[1"),
            (ElementType::Fp32, 1, "[\"1\"]"),
            (ElementType::Int8, 1, "[128]"),
            (ElementType::Int8, 1, "[1.5]"),
            (ElementType::Int4, 2, "[8, 0]"),
            (ElementType::Binary32, 32, "[4294967296]"),
            (ElementType::Binary64, 64, "[-1]"),
        ] {
            assert!(packed(element, dimension, text).is_err(), "{text} into {}", element.name());
        }
    }

    #[test]
    fn several_vectors_are_one_list_or_a_list_each() {
        let packed = |text: &str| {
            let numbers = vector_numbers(text, 2)?;
            pack_all(ElementType::Int8, 2, &numbers).map(|bytes| bytes.to_vec())
        };
        for text in ["[1,2,3,4]", "[[1,2],[3,4]]"] {
            assert_eq!(packed(text), Ok(vec![1, 2, 3, 4]), "{text}");
        }
        assert_eq!(packed("[[1,2]]"), Ok(vec![1, 2]));
        for (text, words) in [
            ("[]", "0 numbers where one or more times 2 belong"),
            ("[1,2,3]", "3 numbers where one or more times 2 belong"),
            ("[[1,2],[3]]", "vector 1 has 1 numbers where 2 belong"),
            ("[[1],[2,3,4]]", "vector 0 has 1 numbers where 2 belong"),
            ("[[]]", "vector 0 has 0 numbers where 2 belong"),
            ("[[1,2],3,4]", "element 1 is not a vector like others: 3"),
            ("[[[1,2]]]", "vector 0 has 1 numbers where 2 belong"),
            ("[[1,\"2\"]]", "element 1 is not a number: \"2\""),
            ("[1,null]", "element 1 is not a number: null"),
            ("{}", "not a JSON array"),
            ("[1,2", "not JSON"),
            ("[1,400]", "400 is not a whole number from -128 to 127"),
        ] {
            let refused = packed(text).expect_err(text);
            assert!(refused.starts_with(words), "{text}: {refused}");
        }
    }

    #[test]
    fn a_flat_matrix_is_one_row_only() {
        assert_eq!(matrix_rows("[1,2]", 2).unwrap().len(), 1);
        assert_eq!(matrix_rows("[[1,2],[3,4]]", 2).unwrap().len(), 2);
        for text in ["[1,2,3,4]", "[[1,2],[3]]", "[[1,2]", "{}", "[[1,2],3]", "[]"] {
            assert!(matrix_rows(text, 2).is_err(), "{text}");
        }
    }
}
