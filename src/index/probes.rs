//! Queries that a segment's index is measured with before anybody has asked one: rows, and queries that
//! are made of rows but are none. Averages, texts among pictures and noise are harder for an index than
//! what it holds.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::space::Vectors;
use crate::schema::{VectorColumn, decode_floats, encode_numbers};

/// Rows looked at to tell how far numbers are spread.
const SPREAD_ROWS: usize = 256;
/// How far rows are moved, in standard deviations of all numbers.
const MOVED: f64 = 2.0;
/// How many rows the queries in the middle of some are averages of, in turn.
const SOME_ROWS: [usize; 3] = [8, 16, 32];
/// The same of those in the middle of all, nearly.
const MANY_ROWS: [usize; 3] = [50, 150, 500];
/// How many times the spread of rows is far away.
const FAR: f64 = 10.0;

/// What a query of the sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// A row, searched for as if it were not there.
    Row,
    /// The average of two rows.
    Between,
    /// The average of some rows.
    Middle,
    /// The average of so many rows that it is near that of all: the more there are, the fewer rows are the
    /// nearest of all such queries, and these hide behind others.
    Centre,
    /// Numbers spread as those of rows are, each by itself.
    Noise,
    /// A row, moved by the same in each dimension.
    Moved,
    /// Noise, far away from all rows.
    Far,
}

/// The kinds of queries unlike the rows.
pub const UNLIKE: [ProbeKind; 6] = [
    ProbeKind::Between,
    ProbeKind::Middle,
    ProbeKind::Centre,
    ProbeKind::Noise,
    ProbeKind::Moved,
    ProbeKind::Far,
];

/// Makes queries unlike the rows, always the same ones of the same rows.
pub struct ProbeMaker<'a, V> {
    column: &'a VectorColumn,
    vectors: &'a V,
    /// Mean and standard deviation of each number.
    spread: Vec<(f64, f64)>,
    /// How many queries were made.
    made: usize,
    rng: StdRng,
}

impl<'a, V: Vectors> ProbeMaker<'a, V> {
    /// Looks at some of the vectors, of which there must be one.
    pub fn new(column: &'a VectorColumn, vectors: &'a V) -> Self {
        let dimension = column.dimension as usize;
        let (mut sums, mut squares) = (vec![0f64; dimension], vec![0f64; dimension]);
        let (mut floats, wanted) = (Vec::new(), SPREAD_ROWS.min(vectors.count()));
        for place in 0..wanted {
            let node = (place * vectors.count() / wanted) as u32;
            decode_floats(vectors.vector(node), column.element, dimension, false, &mut floats);
            for (at, number) in floats.iter().map(|x| f64::from(*x)).enumerate() {
                sums[at] += number;
                squares[at] += number * number;
            }
        }
        let count = wanted.max(1) as f64;
        let spread = sums.iter().zip(&squares).map(|(sum, square)| {
            let mean = sum / count;
            (mean, (square / count - mean * mean).max(0.0).sqrt())
        });
        let spread = spread.collect();
        ProbeMaker { column, vectors, spread, made: 0, rng: StdRng::seed_from_u64(0) }
    }

    /// A query of a kind, as stored vectors are; `None` for kinds that the column has not.
    pub fn make(&mut self, kind: ProbeKind) -> Option<Bytes> {
        self.made += 1;
        if self.column.element.is_binary() {
            return self.make_bits(kind);
        }
        let numbers = match kind {
            ProbeKind::Row => return None,
            ProbeKind::Between => self.average(2),
            ProbeKind::Middle => self.average(SOME_ROWS[self.made % SOME_ROWS.len()]),
            ProbeKind::Centre => self.average(MANY_ROWS[self.made % MANY_ROWS.len()]),
            ProbeKind::Noise => {
                let rng = &mut self.rng;
                self.spread.iter().map(|(mean, own)| mean + own * normal(rng)).collect()
            }
            // Lengths of queries do not change the order of inner products and cosines, but rows lie in few
            // directions, perhaps, and what is far away in any, by rare numbers as by frequent ones.
            ProbeKind::Far => {
                let (far, rng) = (FAR * self.deviation(), &mut self.rng);
                self.spread.iter().map(|(mean, _)| mean + far * normal(rng)).collect()
            }
            ProbeKind::Moved => {
                let moved = MOVED * self.deviation();
                self.row().iter().map(|x| x + moved).collect::<Vec<f64>>()
            }
        };
        Some(encode_numbers(self.column.element, numbers.into_iter()))
    }

    /// The average of so many rows.
    fn average(&mut self, of: usize) -> Vec<f64> {
        let mut sums = vec![0f64; self.column.dimension as usize];
        for _ in 0..of {
            sums.iter_mut().zip(self.row()).for_each(|(sum, number)| *sum += number);
        }
        sums.iter().map(|sum| sum / of as f64).collect()
    }

    fn random_row(&mut self) -> &'a [u8] {
        let node = self.rng.random_range(0..self.vectors.count().max(1) as u32);
        self.vectors.vector(node)
    }

    fn row(&mut self) -> Vec<f64> {
        let (vector, mut floats) = (self.random_row(), Vec::new());
        let dimension = self.column.dimension as usize;
        decode_floats(vector, self.column.element, dimension, false, &mut floats);
        floats.into_iter().map(f64::from).collect()
    }

    /// The standard deviation of all numbers from the means of their dimensions.
    fn deviation(&self) -> f64 {
        let variances = self.spread.iter().map(|(_, deviation)| deviation * deviation);
        (variances.sum::<f64>() / self.spread.len().max(1) as f64).sqrt()
    }

    fn make_bits(&mut self, kind: ProbeKind) -> Option<Bytes> {
        let one = self.random_row();
        let mask: Vec<u8> = one.iter().map(|_| self.rng.random()).collect();
        match kind {
            ProbeKind::Between => {
                let other = self.random_row();
                let mixed = one.iter().zip(other).zip(&mask);
                Some(mixed.map(|((a, b), mask)| (a & mask) | (b & !mask)).collect())
            }
            ProbeKind::Noise => Some(mask.into()),
            // A quarter of the bits turned.
            ProbeKind::Moved => {
                let turned =
                    one.iter().zip(&mask).map(|(a, mask)| a ^ (mask & self.rng.random::<u8>()));
                Some(turned.collect())
            }
            ProbeKind::Row | ProbeKind::Middle | ProbeKind::Centre | ProbeKind::Far => None,
        }
    }
}

/// A normally distributed number (Box & Muller, 1958).
fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
