//! Vectors of known difficulty, made up reproducibly.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::schema::Metric;

/// Rows made from one state of the generator: what comes out does not depend on the threads.
const CHUNK_ROWS: usize = 4_096;
/// Base vectors of [`Kind::Copies`].
const COPY_BASES: usize = 92;

/// What made-up vectors are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// 200 clusters whose sizes follow a power law, of 24 intrinsic dimensions, with some noise in
    /// all of them (SquaredEuclidean).
    Clustered,
    /// Unit-length, non-negative, sparse: as networks for images give them (Cosine).
    Features,
    /// 92 base vectors and noisy copies of them: near-duplicate images (SquaredEuclidean).
    Copies,
}

impl Kind {
    /// The metric that fits.
    pub fn metric(self) -> Metric {
        match self {
            Kind::Features => Metric::Cosine,
            Kind::Clustered | Kind::Copies => Metric::SquaredEuclidean,
        }
    }

    /// The dimension when none is given.
    pub fn dimension(self) -> usize {
        match self {
            Kind::Clustered => 128,
            Kind::Features => 512,
            Kind::Copies => 2_048,
        }
    }

    /// The rows when no number is given.
    pub fn rows(self) -> usize {
        match self {
            Kind::Clustered | Kind::Features => 100_000,
            Kind::Copies => COPY_BASES * 101,
        }
    }
}

/// Rows and queries of one dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Elements of one vector.
    pub dimension: usize,
    /// The rows, one after the other.
    pub rows: Vec<f32>,
    /// The queries, none of them a row.
    pub queries: Vec<f32>,
}

impl Vectors {
    /// Makes up vectors.
    pub fn made(kind: Kind, rows: usize, queries: usize, dimension: usize, seed: u64) -> Vectors {
        let shape = Shape::new(kind, dimension, seed);
        Vectors {
            dimension,
            rows: shape.make(rows, seed, 1),
            queries: shape.make(queries, seed, 2),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.dimension
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// What all vectors of a kind are mixed from.
struct Shape {
    kind: Kind,
    dimension: usize,
    /// Intrinsic dimensions.
    inner: usize,
    /// `inner` vectors of all dimensions.
    basis: Vec<f32>,
    /// Points in the intrinsic dimensions, or base vectors.
    centres: Vec<f32>,
    clusters: usize,
}

/// Roughly normal, within 4.2 standard deviations of about 1.
fn normal(rng: &mut StdRng) -> f32 {
    (0..6).map(|_| rng.random_range(-0.7f32..0.7)).sum()
}

impl Shape {
    fn new(kind: Kind, dimension: usize, seed: u64) -> Shape {
        let mut rng = StdRng::seed_from_u64(seed);
        let (clusters, inner) = match kind {
            Kind::Clustered => (200, 24.min(dimension)),
            Kind::Features => (500, 48.min(dimension)),
            Kind::Copies => (COPY_BASES, dimension),
        };
        let basis = match kind {
            Kind::Copies => Vec::new(),
            _ => (0..inner * dimension).map(|_| normal(&mut rng)).collect(),
        };
        let centres = (0..clusters * inner).map(|_| normal(&mut rng)).collect();
        Shape { kind, dimension, inner, basis, centres, clusters }
    }

    /// `part` tells rows from queries.
    fn make(&self, count: usize, seed: u64, part: u64) -> Vec<f32> {
        let mut vectors = vec![0.0; count * self.dimension];
        vectors.par_chunks_mut(CHUNK_ROWS * self.dimension).enumerate().for_each(|(chunk, out)| {
            let stream = part << 48 | chunk as u64;
            let mut rng = StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for vector in out.chunks_mut(self.dimension) {
                self.fill(vector, &mut rng);
            }
        });
        vectors
    }

    fn fill(&self, vector: &mut [f32], rng: &mut StdRng) {
        if self.kind == Kind::Copies {
            let base = rng.random_range(0..self.clusters) * self.inner;
            let base = &self.centres[base..base + self.inner];
            vector.iter_mut().zip(base).for_each(|(x, base)| *x = base + 0.1 * normal(rng));
            return;
        }
        let cluster = (self.clusters as f64 * rng.random::<f64>().powi(2)) as usize;
        let centre = &self.centres[cluster * self.inner..][..self.inner];
        let spread = if self.kind == Kind::Features { 0.8 } else { 0.6 };
        let place: Vec<f32> = centre.iter().map(|c| c + spread * normal(rng)).collect();
        vector.fill(0.0);
        for (weight, axis) in place.iter().zip(self.basis.chunks(self.dimension)) {
            vector.iter_mut().zip(axis).for_each(|(x, axis)| *x += weight * axis);
        }
        vector.iter_mut().for_each(|x| *x += 0.15 * normal(rng));
        if self.kind == Kind::Features {
            // Rectified below half a standard deviation: some two thirds become zero.
            let threshold = 0.5 * (self.inner as f32 * 1.64).sqrt();
            vector.iter_mut().for_each(|x| *x = (*x - threshold).max(0.0));
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|x| *x /= length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_vectors_are_the_same_every_time_and_queries_are_no_rows() {
        for kind in Kind::value_variants() {
            let make = |rows| Vectors::made(*kind, rows, 20, 40, 7);
            let vectors = make(5_000);
            assert_eq!(make(5_000), vectors);
            assert_eq!(make(4_500).rows, vectors.rows[..4_500 * 40]);
            assert_ne!(vectors.queries, vectors.rows[..20 * 40]);
            assert_ne!(Vectors::made(*kind, 100, 1, 40, 8).rows, vectors.rows[..100 * 40]);
        }
    }

    #[test]
    fn features_are_sparse_and_of_length_one() {
        let vectors = Vectors::made(Kind::Features, 1_000, 1, 128, 1);
        for vector in vectors.rows.chunks(128) {
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-4, "{length}");
        }
        let zeros = vectors.rows.iter().filter(|x| **x == 0.0).count() as f64;
        let share = zeros / vectors.rows.len() as f64;
        assert!((0.4..0.9).contains(&share), "{share} are zero");
    }
}
