//! What scores are by their definition, for vectors of every element type.

use bytes::Bytes;
use half::f16;
use rand::Rng;
use rand::rngs::StdRng;
use voisin::schema::{ElementType, Metric};

/// A vector of random small values in an element type: as stored, and as numbers.
pub fn random_vector(rng: &mut StdRng, element: ElementType, dimension: u32) -> (Bytes, Vec<f64>) {
    let mut bytes = Vec::new();
    let mut numbers = Vec::new();
    match element {
        ElementType::Fp32 => {
            for _ in 0..dimension {
                let x: f32 = rng.random_range(-1.0..1.0);
                bytes.extend_from_slice(&x.to_le_bytes());
                numbers.push(f64::from(x));
            }
        }
        ElementType::Fp16 => {
            for _ in 0..dimension {
                let x = f16::from_f32(rng.random_range(-1.0..1.0));
                bytes.extend_from_slice(&x.to_le_bytes());
                numbers.push(f64::from(x));
            }
        }
        ElementType::Int8 => {
            for _ in 0..dimension {
                let x: i8 = rng.random();
                bytes.push(x as u8);
                numbers.push(f64::from(x));
            }
        }
        ElementType::Int16 => {
            for _ in 0..dimension {
                let x: i16 = rng.random();
                bytes.extend_from_slice(&x.to_le_bytes());
                numbers.push(f64::from(x));
            }
        }
        ElementType::Int4 => {
            for _ in 0..dimension / 2 {
                let (low, high): (i8, i8) = (rng.random_range(-8..8), rng.random_range(-8..8));
                bytes.push((low as u8 & 15) | (high as u8) << 4);
                numbers.extend([f64::from(low), f64::from(high)]);
            }
        }
        ElementType::Binary32 | ElementType::Binary64 => {
            for _ in 0..dimension / 8 {
                let byte: u8 = rng.random();
                bytes.push(byte);
                numbers.extend((0..8).map(|bit| f64::from(byte >> bit & 1)));
            }
        }
    }
    (bytes.into(), numbers)
}

/// The score by its definition.
pub fn brute_score(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
    let pairs = || a.iter().zip(b);
    let dot: f64 = pairs().map(|(x, y)| x * y).sum();
    let squared: f64 = pairs().map(|(x, y)| (x - y).powi(2)).sum();
    match metric {
        Metric::SquaredEuclidean | Metric::Hamming => squared,
        Metric::Euclidean => squared.sqrt(),
        Metric::InnerProduct => -dot,
        Metric::Manhattan => pairs().map(|(x, y)| (x - y).abs()).sum(),
        Metric::Cosine => {
            let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            1.0 - dot / (norm(a) * norm(b))
        }
    }
}

/// The metrics that fit an element type.
pub fn metrics_of(element: ElementType) -> Vec<Metric> {
    let fits = |metric: &Metric| match metric {
        Metric::Hamming => element.is_binary(),
        Metric::SquaredEuclidean | Metric::Euclidean => true,
        _ => !element.is_binary(),
    };
    Metric::ALL.iter().map(|(_, metric)| *metric).filter(fits).collect()
}

/// Every element type.
pub const ELEMENTS: [ElementType; 7] = [
    ElementType::Fp32,
    ElementType::Fp16,
    ElementType::Int8,
    ElementType::Int4,
    ElementType::Int16,
    ElementType::Binary32,
    ElementType::Binary64,
];

/// True where a score is what it is by definition, but for rounding.
pub fn close(found: f32, expected: f64) -> bool {
    (f64::from(found) - expected).abs() <= 1e-5 * expected.abs().max(1.0)
}
