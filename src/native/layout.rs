//! How a column's element type and metric become a faiss index.

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
    /// Bytes, with a range for each dimension (`IndexHNSWSQ`, `QT_8bit`).
    Bytes = 4,
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
        Self::with_bytes(element, metric, false)
    }

    /// The same with bytes for floats, if `quantized`.
    pub fn with_bytes(
        element: ElementType,
        metric: Metric,
        quantized: bool,
    ) -> NativeResult<Layout> {
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
        let is_bytes = matches!(element, ElementType::Int8 | ElementType::Int4);
        if quantized && (element.is_binary() || is_bytes || metric == Metric::Manhattan) {
            let (metric, element) = (metric.name(), element.name());
            return Err(NativeError::refused(format!("{element} by {metric} is not quantized")));
        }
        // faiss's scalar quantizers know no L1, and unit vectors are not whole numbers.
        let storage = match (element, metric) {
            (ElementType::Binary32 | ElementType::Binary64, _) => Storage::Bits,
            _ if quantized => Storage::Bytes,
            (_, Metric::Manhattan) | (ElementType::Fp32 | ElementType::Int16, _) => Storage::Floats,
            (ElementType::Fp16, _) => Storage::Halves,
            (ElementType::Int8 | ElementType::Int4, Metric::Cosine) => Storage::Floats,
            (ElementType::Int8 | ElementType::Int4, _) => Storage::SignedBytes,
        };
        Ok(Layout { storage, metric: faiss_metric, normalised: metric == Metric::Cosine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_metrics_that_do_not_fit() {
        assert!(Layout::new(ElementType::Fp32, Metric::Hamming).is_err());
        assert!(Layout::new(ElementType::Binary64, Metric::Cosine).is_err());
    }
}
