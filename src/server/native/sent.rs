//! Vectors as callers send them: how many they mean, and floats of 64 bits, which no column holds and
//! those of 32 or 16 bits are made of.

use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, ElementType};
use crate::server::convert::known_element;
use crate::server::proto::voisin_v1 as wire;

/// The name of floats of 64 bits.
const FP64: &str = "FP64";

fn is_fp64(column: &wire::VectorColumn) -> bool {
    column.element == i32::from(wire::ElementType::Fp64)
}

/// Refuses query vectors that are more, or fewer, than the caller says: bytes of wider elements than are
/// named would be taken for twice as many.
pub(super) fn check_vectors_count(request: &wire::QueryRequest) -> Result<()> {
    let Some(count) = request.vectors_count else { return Ok(()) };
    let none = wire::VectorColumn::default();
    let vectors = request.vectors.as_ref().unwrap_or(&none);
    let each = match is_fp64(vectors) {
        true => (vectors.dimension as usize).checked_mul(size_of::<f64>()),
        false => known_element(vectors.element)
            .ok()
            .and_then(|element| element.vector_bytes(vectors.dimension)),
    };
    let found = vectors.vectors.len() as u64;
    let expected = match each {
        Some(each) => each as u64 * u64::from(count),
        None if found == 0 && count == 0 => 0,
        // Told apart by the checks that follow, which say what is wrong.
        None if found > 0 => return Ok(()),
        None => {
            return Err(Error::query(format!(
                "vectors_count is {count}, and there are no vectors"
            )));
        }
    };
    match found == expected {
        true => Ok(()),
        false => Err(Error::query(format!(
            "the query vectors have {found} bytes; vectors_count is {count}, and so many of these are {expected}"
        ))),
    }
}

/// Rounds vectors of floats of 64 bits, which only columns of floats take. `refused` makes the error of
/// words about them.
pub(super) fn round_doubles(
    column: &mut wire::VectorColumn,
    schema: &CollectionSchema,
    refused: impl Fn(String) -> Error,
) -> Result<()> {
    if !is_fp64(column) {
        return Ok(());
    }
    let known = match (&column.name[..], &schema.columns[..]) {
        ("", [only]) => Some(only),
        (name, columns) => columns.iter().find(|known| known.name == name),
    };
    // A column that is not there is refused with the others.
    if let Some(known) = known
        && !matches!(known.element, ElementType::Fp32 | ElementType::Fp16)
    {
        return Err(Error::MismatchedDataType {
            column: known.name.clone(),
            expected: known.element.name().into(),
            got: FP64.into(),
        });
    }
    let (doubles, rest) = column.vectors.as_chunks();
    if !rest.is_empty() {
        return Err(refused(format!(
            "vector column {:?} has {} bytes, which are no floats of 64 bits",
            column.name,
            column.vectors.len()
        )));
    }
    let mut bytes = Vec::with_capacity(doubles.len() * size_of::<f32>());
    for (at, double) in doubles.iter().enumerate() {
        let number = f64::from_le_bytes(*double);
        let rounded = number as f32;
        // What is no number is refused with its row, as in vectors of other types.
        if number.is_finite() && !rounded.is_finite() {
            return Err(refused(format!(
                "vector column {:?}: element {at} of its bytes is {number:e}, which FP32 does not hold",
                column.name
            )));
        }
        bytes.extend(rounded.to_le_bytes());
    }
    column.vectors = bytes.into();
    column.element = wire::ElementType::Fp32.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::schema::{DeclaredType, NewCollection, NewColumn, SchemaLimits};

    fn schema(element: ElementType) -> CollectionSchema {
        let column = NewColumn {
            name: "v".into(),
            index_type: 1,
            data_type: DeclaredType::Vector(element),
            dimension: 2,
            ..NewColumn::default()
        };
        let new = NewCollection { name: "c".into(), columns: vec![column], ..Default::default() };
        let limits = SchemaLimits { dimension_max: 1024, columns_max: 16 };
        CollectionSchema::new(new, &limits, |_| false).expect("a valid schema")
    }

    fn doubles(numbers: &[f64]) -> wire::VectorColumn {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        wire::VectorColumn {
            name: "v".into(),
            element: wire::ElementType::Fp64.into(),
            dimension: 2,
            vectors: bytes.into(),
            ..Default::default()
        }
    }

    #[test]
    fn floats_of_64_bits_are_rounded_for_columns_of_floats() {
        for element in [ElementType::Fp32, ElementType::Fp16] {
            for name in ["v", ""] {
                let mut column = doubles(&[0.1, -2.0, 1e-300, f64::NAN]);
                column.name = name.into();
                round_doubles(&mut column, &schema(element), Error::query).expect("they fit");
                let numbers: Vec<f32> =
                    column.vectors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                assert_eq!(numbers[..3], [0.1, -2.0, 0.0]);
                assert!(numbers[3].is_nan());
                assert_eq!(column.element, i32::from(wire::ElementType::Fp32));
            }
        }
        let mut same = doubles(&[1.0]);
        same.element = wire::ElementType::Fp32.into();
        let before = same.clone();
        round_doubles(&mut same, &schema(ElementType::Int8), Error::query).expect("no doubles");
        assert_eq!(same, before);
    }

    #[test]
    fn doubles_that_no_column_takes_are_refused() {
        let refused = |mut column: wire::VectorColumn, element| {
            let error = round_doubles(&mut column, &schema(element), Error::query);
            error.expect_err("it is refused").to_string()
        };
        let int8 = refused(doubles(&[1.0]), ElementType::Int8);
        assert!(int8.contains("INT8") && int8.contains("FP64"), "{int8}");
        assert!(refused(doubles(&[1e39]), ElementType::Fp32).contains("1e39"));
        let mut odd = doubles(&[1.0]);
        odd.vectors = Bytes::from_static(&[0; 12]);
        assert!(refused(odd, ElementType::Fp32).contains("12 bytes"));
    }

    #[test]
    fn queries_of_another_number_of_vectors_are_refused() {
        let request = |vectors, vectors_count| wire::QueryRequest {
            vectors: Some(vectors),
            vectors_count,
            ..Default::default()
        };
        let two = doubles(&[1.0, 2.0, 3.0, 4.0]);
        for count in [None, Some(2)] {
            check_vectors_count(&request(two.clone(), count)).expect("two of them");
        }
        // The same bytes by another name.
        let mut four = two.clone();
        four.element = wire::ElementType::Fp32.into();
        check_vectors_count(&request(four.clone(), Some(4))).expect("four of them");
        for (vectors, count) in [(two.clone(), 1), (two, 3), (four, 2), (doubles(&[]), 1)] {
            let error = check_vectors_count(&request(vectors, Some(count))).expect_err("others");
            assert!(error.to_string().contains(&format!("vectors_count is {count}")), "{error}");
        }
        let none = wire::QueryRequest { vectors_count: Some(0), ..Default::default() };
        check_vectors_count(&none).expect("none");
        let some = wire::QueryRequest { vectors_count: Some(1), ..Default::default() };
        assert!(check_vectors_count(&some).is_err());
    }
}
