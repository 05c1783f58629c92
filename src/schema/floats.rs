//! Stored vectors as 32-bit floats, for what is computed in floats whatever the element type.

use half::f16;

use super::ElementType;

/// Replaces the content of `floats` by the elements of whole stored rows of `dimension` elements,
/// each row scaled to length 1 when `normalised`. Bit rows have no floats: the result is then empty.
pub fn decode_floats(
    rows: &[u8],
    element: ElementType,
    dimension: usize,
    normalised: bool,
    floats: &mut Vec<f32>,
) {
    floats.clear();
    match element {
        ElementType::Fp32 => {
            floats.extend(rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        ElementType::Fp16 => {
            floats.extend(rows.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()));
        }
        ElementType::Int8 => floats.extend(rows.iter().map(|byte| f32::from(*byte as i8))),
        ElementType::Int4 => {
            for byte in rows {
                let (low, high) = ((byte << 4) as i8 >> 4, *byte as i8 >> 4);
                floats.extend([f32::from(low), f32::from(high)]);
            }
        }
        ElementType::Int16 => {
            let chunks = rows.as_chunks().0.iter();
            floats.extend(chunks.map(|bytes| f32::from(i16::from_le_bytes(*bytes))));
        }
        ElementType::Binary32 | ElementType::Binary64 => {}
    }
    if normalised {
        floats.chunks_exact_mut(dimension).for_each(normalise);
    }
}

/// Scales to length 1; a zero vector stays zero, which ranks it as at a right angle to everything.
/// The length is computed in 64 bits, where no square of a 32-bit float overflows or vanishes.
fn normalise(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    if square > 0.0 {
        let scale = 1.0 / square.sqrt();
        for x in vector {
            *x = (f64::from(*x) * scale) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(rows: &[u8], element: ElementType, normalised: bool, dimension: usize) -> Vec<f32> {
        let mut floats = vec![9.0];
        decode_floats(rows, element, dimension, normalised, &mut floats);
        floats
    }

    #[test]
    fn decodes_every_element_type() {
        assert_eq!(decoded(&[0, 0, 0xc0, 0x3f], ElementType::Fp32, false, 1), [1.5]);
        assert_eq!(decoded(&[0, 0xc0, 0, 0x3c], ElementType::Fp16, false, 2), [-2.0, 1.0]);
        assert_eq!(decoded(&[0x80, 0x7f], ElementType::Int8, false, 2), [-128.0, 127.0]);
        assert_eq!(decoded(&[0x78, 0x0f], ElementType::Int4, false, 4), [-8.0, 7.0, -1.0, 0.0]);
        assert_eq!(decoded(&[0, 0x80, 1, 0], ElementType::Int16, false, 2), [-32768.0, 1.0]);
    }

    #[test]
    fn normalises_without_overflow_and_leaves_zero_alone() {
        let rows: Vec<u8> =
            [3e38f32, 3e38, 0.0, 0.0, 1e-40, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let half = 0.5f32.sqrt();
        assert_eq!(decoded(&rows, ElementType::Fp32, true, 2), [half, half, 0.0, 0.0, 1.0, 0.0]);
    }
}
