//! Random stored rows, and exact scores of them by plain loops that share no code with the engine.

use half::f16;
use rand::{Rng, rngs::StdRng};

use super::super::GraphParams;
use crate::schema::{ElementType, Metric};

/// Stored rows of one column.
pub(super) struct Rows {
    pub bytes: Vec<u8>,
    pub count: usize,
    pub row_bytes: usize,
}

impl Rows {
    pub fn random(params: &GraphParams, count: usize, rng: &mut StdRng) -> Rows {
        let row_bytes = params.element.vector_bytes(params.dimension).expect("dimension fits");
        let elements = count * params.dimension as usize;
        let mut unit = || rng.random_range(-1.0..1.0f32);
        let bytes = match params.element {
            ElementType::Fp32 => (0..elements).flat_map(|_| unit().to_le_bytes()).collect(),
            ElementType::Fp16 => {
                (0..elements).flat_map(|_| f16::from_f32(unit()).to_le_bytes()).collect()
            }
            _ => (0..count * row_bytes).map(|_| rng.random()).collect(),
        };
        Rows { bytes, count, row_bytes }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.row_bytes)
    }

    pub fn row(&self, row: usize) -> &[u8] {
        self.slice(row..row + 1)
    }

    pub fn slice(&self, rows: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }
}

/// The share of the k nearest rows that `found` has. Rows as near as the k-th count as found, since
/// any of them is right; so do rows beyond it by less than rounding to 16 bits can hide.
pub(super) fn recall(
    params: &GraphParams,
    rows: &Rows,
    query: &[u8],
    found: &[u32],
    k: usize,
) -> f64 {
    let query = elements(params.element, query);
    let scores: Vec<f64> = rows
        .iter()
        .map(|row| score(params.metric, &query, &elements(params.element, row)))
        .collect();
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let limit = sorted[k - 1] + 1e-3 * sorted[k - 1].abs();
    let mut distinct = found.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), found.len(), "no id twice");
    found.iter().filter(|id| scores[**id as usize] <= limit).count() as f64 / k as f64
}

fn elements(element: ElementType, row: &[u8]) -> Vec<f64> {
    let pairs = || row.chunks(2).map(|pair| [pair[0], pair[1]]);
    match element {
        ElementType::Fp32 => {
            row.chunks(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        }
        ElementType::Fp16 => pairs().map(|pair| f16::from_le_bytes(pair).to_f64()).collect(),
        ElementType::Int16 => pairs().map(|pair| f64::from(i16::from_le_bytes(pair))).collect(),
        ElementType::Int8 => row.iter().map(|byte| f64::from(*byte as i8)).collect(),
        ElementType::Int4 => {
            let signed =
                |nibble: u8| if nibble > 7 { f64::from(nibble) - 16.0 } else { nibble.into() };
            row.iter().flat_map(|byte| [signed(byte & 15), signed(byte >> 4)]).collect()
        }
        ElementType::Binary32 | ElementType::Binary64 => {
            row.iter().flat_map(|byte| (0..8).map(move |bit| f64::from(byte >> bit & 1))).collect()
        }
    }
}

fn score(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
    let sum = |term: fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| term(*a, *b)).sum::<f64>();
    let product = sum(|a, b| a * b);
    match metric {
        Metric::SquaredEuclidean | Metric::Hamming => sum(|a, b| (a - b) * (a - b)),
        Metric::Euclidean => sum(|a, b| (a - b) * (a - b)).sqrt(),
        Metric::InnerProduct => -product,
        Metric::Cosine => 1.0 - product / (sum(|a, _| a * a) * sum(|_, b| b * b)).sqrt(),
        Metric::Manhattan => sum(|a, b| (a - b).abs()),
    }
}
