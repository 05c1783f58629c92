//! Exact distances between one query vector and stored vectors, at the speed of the memory they lie
//! in. Owns which instruction set is used; knows nothing of segments, deletions or top-k.
//!
//! A [`Query`] picks its kernel once, when it is made. The kernel is one loop over rows compiled for
//! one instruction set, element type and metric:
//!
//! - `lanes`: what an instruction set must offer; `portable`, `avx2` and `avx512` offer it.
//! - `element`: how stored bytes become numbers; `kernel`: what is summed and how a sum is a score.
//! - `bits`: the bit types, which share none of that.
//! - `codes`: 8-bit codes of vectors, compared in integers; they rank and do not score.
//! - `memory`: prefetches and large pages.
//! - `pixels`: weighted sums of pixels, for resizing.
//!
//! A row's score depends on the bytes of the row and of the query only. It is bit for bit the same
//! in a batch and alone, wherever the row lies; it may differ in its last digits between CPUs.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use crate::schema::{ElementType, Metric};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bits;
mod codes;
mod element;
mod kernel;
mod lanes;
mod memory;
mod pixels;
mod portable;
#[cfg(test)]
mod tests;

pub use codes::{CODE_DIMENSION_MAX, CodeMeasure, CodeQuery, CodeRows};
pub use memory::{large_vec, prefetch, prefetch_bytes};
pub use pixels::{WEIGHT_BITS, Weights};
use portable::Portable;

/// Instruction sets the kernels can use, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimdLevel {
    /// AVX-512 F, BW, DQ and VL; VPOPCNTDQ for the bit types where the CPU has it.
    Avx512,
    /// AVX2 with FMA, F16C and POPCNT.
    Avx2,
    /// The portable kernels as the compiler vectorises them for a 64-bit ARM, which always has NEON.
    Neon,
    /// The portable kernels.
    Scalar,
}

impl SimdLevel {
    /// Every level, best first.
    pub const ALL: [SimdLevel; 4] =
        [SimdLevel::Avx512, SimdLevel::Avx2, SimdLevel::Neon, SimdLevel::Scalar];

    /// The best level of this CPU; looked up once per process.
    pub fn detect() -> Self {
        static LEVEL: OnceLock<SimdLevel> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            Self::ALL
                .into_iter()
                .find(|level| level.is_supported())
                .expect("the scalar level is always supported")
        })
    }

    /// The level's name in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            SimdLevel::Avx512 => "avx512",
            SimdLevel::Avx2 => "avx2",
            SimdLevel::Neon => "neon",
            SimdLevel::Scalar => "scalar",
        }
    }

    /// True where this CPU can run the level.
    fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => avx512::Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            SimdLevel::Avx512 | SimdLevel::Avx2 => false,
            SimdLevel::Neon => cfg!(target_arch = "aarch64"),
            SimdLevel::Scalar => true,
        }
    }
}

/// A query vector decoded once for scanning a column.
///
/// Scores ascend with distance, as [`Metric`] says. FP32 and FP16 are summed in `f32`, and again in
/// `f64` where that leaves the range of `f32`; integers and bits are summed exactly and rounded once.
pub struct Query {
    element: ElementType,
    metric: Metric,
    dimension: u32,
    vector_bytes: usize,
    scan: Box<dyn kernel::Scan>,
}

impl Query {
    /// Prepares `bytes`, one little-endian vector of `dimension` elements. `None` when its length is
    /// not that of such a vector, the dimension is 0, or the metric does not fit the element type
    /// (bit types take SquaredEuclidean, Euclidean and Hamming; the others take all but Hamming).
    pub fn new(
        element: ElementType,
        metric: Metric,
        dimension: u32,
        bytes: &[u8],
    ) -> Option<Query> {
        Self::with_level(SimdLevel::detect(), element, metric, dimension, bytes)
    }

    /// [`Query::new`] at a given level; also `None` where this CPU does not have it.
    fn with_level(
        level: SimdLevel,
        element: ElementType,
        metric: Metric,
        dimension: u32,
        bytes: &[u8],
    ) -> Option<Query> {
        let vector_bytes = element.vector_bytes(dimension)?;
        if dimension == 0 || bytes.len() != vector_bytes {
            return None;
        }
        let scan = if element.is_binary() {
            Self::bit_scan(level, metric, bytes)?
        } else {
            match level {
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx512 => {
                    kernel::scanner(avx512::Avx512::detect()?, element, metric, bytes)?
                }
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx2 => kernel::scanner(avx2::Avx2::detect()?, element, metric, bytes)?,
                #[cfg(not(target_arch = "x86_64"))]
                SimdLevel::Avx512 | SimdLevel::Avx2 => return None,
                SimdLevel::Neon | SimdLevel::Scalar => {
                    kernel::scanner(Portable, element, metric, bytes)?
                }
            }
        };
        Some(Query { element, metric, dimension, vector_bytes, scan })
    }

    /// A query with another vector, of the same kind; `None` when its length is not that of such a vector.
    pub fn with(&self, bytes: &[u8]) -> Option<Query> {
        Self::new(self.element, self.metric, self.dimension, bytes)
    }

    /// The kernel for the bit types. An AVX-512 CPU without VPOPCNTDQ counts as an AVX2 one does.
    fn bit_scan(level: SimdLevel, metric: Metric, bytes: &[u8]) -> Option<Box<dyn kernel::Scan>> {
        match level {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => match avx512::Avx512Popcount::detect() {
                Some(lanes) => bits::scanner(lanes, metric, bytes),
                None => bits::scanner(avx2::Avx2::detect()?, metric, bytes),
            },
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => bits::scanner(avx2::Avx2::detect()?, metric, bytes),
            #[cfg(not(target_arch = "x86_64"))]
            SimdLevel::Avx512 | SimdLevel::Avx2 => None,
            SimdLevel::Neon | SimdLevel::Scalar => bits::scanner(Portable, metric, bytes),
        }
    }

    /// Scores `out.len()` stored vectors that lie one behind the other in `rows`, little-endian, at
    /// any alignment. Returns false, with nothing written, when `rows` is not of exactly that size.
    #[must_use]
    pub fn distances(&self, rows: &[u8], out: &mut [f32]) -> bool {
        if out.len().checked_mul(self.vector_bytes) != Some(rows.len()) {
            return false;
        }
        self.scan.scan(self.vector_bytes, rows, out);
        true
    }

    /// Scores one stored vector; `None` when `row` is not of its size.
    pub fn distance(&self, row: &[u8]) -> Option<f32> {
        let mut out = [0.0];
        self.distances(row, &mut out).then_some(out[0])
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("vector_bytes", &self.vector_bytes).finish_non_exhaustive()
    }
}
