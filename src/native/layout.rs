//! How a column's element type and metric become a faiss index, and its stored rows faiss's input.

use half::f16;

use super::error::{NativeError, NativeResult};
use crate::schema::{ElementType, Metric};

/// What a faiss index keeps of each row; the numbers are those of `VoisinStorage` in shim.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Storage {
    /// Floats of 32 bits (`IndexHNSWFlat`).
    Floats = 0,
    /// Floats of 16 bits (`IndexHNSWSQ`, `QT_fp16`).
    Halves = 1,
    /// Signed bytes (`IndexHNSWSQ`, `QT_8bit_direct_signed`).
    SignedBytes = 2,
    /// Bits (`IndexBinaryHNSW`).
    Bits = 3,
}

/// A metric of faiss; the numbers are `faiss::MetricType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum FaissMetric {
    /// Larger is nearer.
    InnerProduct = 0,
    /// Sum of squares; also what every binary index is labelled.
    L2 = 1,
    /// Sum of absolute differences; only float storage has it.
    L1 = 2,
}

/// The faiss index for one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub storage: Storage,
    pub metric: FaissMetric,
    /// True when rows and queries are scaled to length 1 first.
    pub normalised: bool,
}

impl Layout {
    /// The index for that element type and metric, or a refusal where the two do not fit.
    pub fn new(element: ElementType, metric: Metric) -> NativeResult<Layout> {
        let faiss_metric = match metric {
            Metric::SquaredEuclidean | Metric::Euclidean => FaissMetric::L2,
            Metric::InnerProduct | Metric::Cosine => FaissMetric::InnerProduct,
            Metric::Manhattan => FaissMetric::L1,
            Metric::Hamming => FaissMetric::L2,
        };
        let fits = match metric {
            Metric::SquaredEuclidean | Metric::Euclidean => true,
            Metric::InnerProduct | Metric::Cosine | Metric::Manhattan => !element.is_binary(),
            Metric::Hamming => element.is_binary(),
        };
        if !fits {
            let (metric, element) = (metric.name(), element.name());
            return Err(NativeError::refused(format!("metric {metric} does not fit {element}")));
        }
        // faiss's scalar quantizers know no L1, and unit vectors are not whole numbers.
        let storage = match (element, metric) {
            (ElementType::Binary32 | ElementType::Binary64, _) => Storage::Bits,
            (_, Metric::Manhattan) | (ElementType::Fp32 | ElementType::Int16, _) => Storage::Floats,
            (ElementType::Fp16, _) => Storage::Halves,
            (ElementType::Int8 | ElementType::Int4, Metric::Cosine) => Storage::Floats,
            (ElementType::Int8 | ElementType::Int4, _) => Storage::SignedBytes,
        };
        Ok(Layout { storage, metric: faiss_metric, normalised: metric == Metric::Cosine })
    }
}

/// Replaces the content of `floats` by the elements of whole stored rows of `dimension` elements,
/// scaled to length 1 when the layout says so. Bit rows have no floats: the result is then empty.
pub(super) fn decode(
    rows: &[u8],
    element: ElementType,
    layout: Layout,
    dimension: usize,
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
    if layout.normalised {
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

    fn decoded(rows: &[u8], element: ElementType, metric: Metric, dimension: usize) -> Vec<f32> {
        let mut floats = vec![9.0];
        let layout = Layout::new(element, metric).expect("fits");
        decode(rows, element, layout, dimension, &mut floats);
        floats
    }

    #[test]
    fn decodes_every_element_type() {
        let l2 = Metric::SquaredEuclidean;
        assert_eq!(decoded(&[0, 0, 0xc0, 0x3f], ElementType::Fp32, l2, 1), [1.5]);
        assert_eq!(decoded(&[0, 0xc0, 0, 0x3c], ElementType::Fp16, l2, 2), [-2.0, 1.0]);
        assert_eq!(decoded(&[0x80, 0x7f], ElementType::Int8, l2, 2), [-128.0, 127.0]);
        assert_eq!(decoded(&[0x78, 0x0f], ElementType::Int4, l2, 4), [-8.0, 7.0, -1.0, 0.0]);
        assert_eq!(decoded(&[0, 0x80, 1, 0], ElementType::Int16, l2, 2), [-32768.0, 1.0]);
    }

    #[test]
    fn normalises_without_overflow_and_leaves_zero_alone() {
        let rows: Vec<u8> =
            [3e38f32, 3e38, 0.0, 0.0, 1e-40, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let half = 0.5f32.sqrt();
        assert_eq!(
            decoded(&rows, ElementType::Fp32, Metric::Cosine, 2),
            [half, half, 0.0, 0.0, 1.0, 0.0]
        );
    }

    #[test]
    fn refuses_metrics_that_do_not_fit() {
        assert!(Layout::new(ElementType::Fp32, Metric::Hamming).is_err());
        assert!(Layout::new(ElementType::Binary64, Metric::Cosine).is_err());
    }
}
