//! Vectors as 8-bit codes: a fourth of the memory of floats, and distances in integers.
//!
//! Scalar quantization with one step for all dimensions, so that sums of integers rank as distances
//! do. The mean of each dimension is taken off first, which no ranking notices, and the step is chosen
//! so that nearly all of a sample lies within 127 steps; what lies beyond is cut, and kept apart
//! ([`Cut`]). Rows of bytes are their own codes and rank exactly.
//!
//! Codes rank; they do not score. Whoever uses them scores the finalists from the stored rows.

use crate::schema::{ElementType, Metric, VectorColumn, decode_floats};
use crate::simd::{CODE_DIMENSION_MAX, CodeMeasure, CodeQuery, CodeRows, Query, large_vec};

use super::cut::{Cut, Rest, add, growth};
use super::graph::Ranker;

/// Numbers looked at to choose the step: rows of small dimension are many, of large one few.
const SAMPLE_NUMBERS: usize = 1 << 20;
/// Rows looked at, at least and at most.
const SAMPLE_ROWS: (usize, usize) = (256, 8_192);
/// The share of the sample's numbers that may lie beyond 127 steps.
const CUT_SHARE: f64 = 1e-4;
/// What was cut off a row is much where it is more than this share of what rows are from their mean, squared.
const MUCH_CUT: f32 = 0.01;
/// Dimensions up to this are ranked as well by the stored rows, which take two cache lines at most.
const DIMENSION_MIN: usize = 32;
/// The check whether codes can tell rows apart: rows asked for, rows looked at, neighbours wanted,
/// places among which they must be, and the share of them that must be there.
const CHECK_QUERIES: usize = 64;
const CHECK_ROWS: usize = 1_024;
const CHECK_NEIGHBOURS: usize = 10;
const CHECK_PLACES: usize = 15;
const CHECK_RECALL: f64 = 0.95;
/// Steps of a query that are more than so many of the rows' are too coarse.
const COARSE: f32 = 2.0;
/// Ids measured at once, on the stack.
const RUN: usize = 64;

/// How numbers become codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantizer {
    element: ElementType,
    metric: Metric,
    dimension: usize,
    /// Taken off each row.
    mean: Vec<f32>,
    /// One step of the codes.
    step: f32,
}

/// The codes of a column's vectors, in the order of a graph's nodes.
#[derive(Debug)]
pub struct Codes {
    quantizer: Quantizer,
    rows: CodeRows,
    /// Sums of the squares of each row's codes, for metrics of squared differences.
    squares: Vec<f32>,
    /// How far each row is from its codes at most, in steps, for the same.
    errors: Vec<f32>,
    /// What was cut off rows.
    cut: Box<Cut>,
    /// `squares` are nothing but the sums that they say.
    has_plain_squares: bool,
    /// The mean of the sums of the squares of rows' codes.
    mean_square: f32,
}

/// What is added to the measures of rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Squares<'a> {
    /// Nothing.
    None,
    /// These numbers, one for each row.
    Given(&'a [f32]),
    /// The sum of the squares of the row's codes, where the measure minus twice the products, so
    /// that the query can sum them too.
    Summed,
}

impl Squares<'_> {
    /// Asks the CPU for a row's number.
    #[inline(always)]
    pub fn prefetch(&self, id: u32) {
        if let Squares::Given(numbers) = self
            && let Some(number) = numbers.get(id as usize)
        {
            crate::simd::prefetch(number);
        }
    }
}

impl Codes {
    /// The codes of the vectors, or `None` where they would not serve: bits; small dimensions, and
    /// those above 65,793; and vectors that one step for all dimensions cannot tell apart, which is
    /// tried on a sample. `vectors` is gone through three times.
    pub fn new<'a>(
        column: &VectorColumn,
        vectors: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Option<Codes> {
        let dimension = column.dimension as usize;
        if column.element.is_binary() || dimension > CODE_DIMENSION_MAX {
            return None;
        }
        let quantizer = Quantizer::new(column, vectors.clone());
        if !quantizer.is_exact() && dimension <= DIMENSION_MIN {
            return None;
        }
        let count = vectors.len();
        let sample: Vec<&[u8]> =
            vectors.clone().step_by(count.div_ceil(CHECK_ROWS).max(1)).collect();
        let codes = Codes::encode(&quantizer, sample.iter().copied());
        if !quantizer.is_exact() && !codes.tell_apart(column, &sample) {
            return None;
        }
        Some(Codes::encode(&quantizer, vectors))
    }

    pub(super) fn encode<'a>(
        quantizer: &Quantizer,
        vectors: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Codes {
        let count = vectors.len();
        let mut rows = CodeRows::with_capacity(quantizer.dimension, count);
        let has_squares = quantizer.measures_squares();
        let mut squares = large_vec(if has_squares { count } else { 0 });
        // A zero vector, the only one without length 1, is at a right angle to everything: as far as
        // it would be with length 1.
        let right_angle = (1.0 / quantizer.step).powi(2).min(1e30);
        let mut errors = large_vec(if has_squares { count } else { 0 });
        let mut has_plain_squares = true;
        let mut sum_of_squares = 0i64;
        let mut rests: Vec<(u32, Box<[Rest]>)> = Vec::new();
        let (mut floats, mut codes) = (Vec::new(), Vec::new());
        for vector in vectors {
            quantizer.decode_as_stored(vector, &mut floats);
            let is_zero = quantizer.is_normalised() && floats.iter().all(|x| *x == 0.0);
            quantizer.take_mean(&mut floats);
            quantizer.encode(&floats, quantizer.step, &mut codes);
            let cut = quantizer.rests(&floats, &codes);
            if !cut.is_empty() {
                rests.push((rows.len() as u32, cut));
            }
            rows.push(&codes);
            has_plain_squares &= !is_zero;
            let square: i64 = codes.iter().map(|code| i64::from(*code).pow(2)).sum();
            sum_of_squares = sum_of_squares.saturating_add(square);
            if has_squares {
                squares.push(square as f32 + if is_zero { right_angle } else { 0.0 });
                errors.push(quantizer.error(&floats, &codes));
            }
        }
        let mean_square = sum_of_squares as f32 / count.max(1) as f32;
        let cut = Box::new(Cut::new(rests.into_iter(), MUCH_CUT * mean_square));
        let quantizer = quantizer.clone();
        Codes { quantizer, rows, squares, errors, cut, has_plain_squares, mean_square }
    }

    /// Whether the nearest of these rows, which `rows` are, are near by their codes too.
    fn tell_apart(&self, column: &VectorColumn, rows: &[&[u8]]) -> bool {
        let wanted = CHECK_NEIGHBOURS.min(rows.len());
        let ids: Vec<u32> = (0..rows.len() as u32).collect();
        let (mut ranks, mut asked, mut found) = (Vec::new(), 0, 0);
        for vector in rows.iter().step_by(rows.len().div_ceil(CHECK_QUERIES).max(1)) {
            let query = Query::new(column.element, column.metric, column.dimension, vector);
            let score = |row: &&[u8]| query.as_ref()?.distance(row);
            let scores: Vec<f32> = rows.iter().filter_map(score).collect();
            if scores.len() != rows.len() || wanted == 0 {
                return false;
            }
            self.ranker(vector).rank(&ids, &mut ranks);
            let mut by_rank = ids.clone();
            by_rank.sort_by(|a, b| ranks[*a as usize].total_cmp(&ranks[*b as usize]));
            let mut by_score = scores.clone();
            by_score.sort_by(f32::total_cmp);
            let edge = by_score[wanted - 1];
            let near = by_rank.iter().take(CHECK_PLACES).filter(|id| scores[**id as usize] <= edge);
            found += near.count().min(wanted);
            asked += wanted;
        }
        found as f64 >= asked as f64 * CHECK_RECALL
    }

    /// Vectors.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of one vector's codes.
    pub fn row_bytes(&self) -> usize {
        self.quantizer.dimension
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let numbers = self.squares.capacity() + self.errors.capacity();
        self.rows.memory_bytes() + numbers * size_of::<f32>() + self.cut.memory_bytes()
    }

    /// A query's codes with the sum of their squares and how far it is from them at most, in steps;
    /// `None` for metrics other than of squared differences.
    pub(super) fn bounded_query(&self, vector: &[u8]) -> Option<(CodeQuery, f32, f32)> {
        let quantizer = &self.quantizer;
        if !quantizer.measures_squares() {
            return None;
        }
        let (mut floats, mut codes) = (Vec::new(), Vec::new());
        quantizer.decode_as_stored(vector, &mut floats);
        quantizer.take_mean(&mut floats);
        quantizer.encode(&floats, quantizer.step, &mut codes);
        let square: i64 = codes.iter().map(|code| i64::from(*code).pow(2)).sum();
        let error = quantizer.error(&floats, &codes);
        Some((CodeQuery::new(CodeMeasure::Products, &codes), square as f32, error))
    }

    /// The sum of the squares of a row's codes, and how far the row is from them at most.
    #[inline(always)]
    pub(super) fn square_and_error(&self, id: u32) -> (f32, f32) {
        (self.squares[id as usize], self.errors[id as usize])
    }

    pub(super) fn rows(&self) -> &CodeRows {
        &self.rows
    }

    /// The metric that the codes are made for.
    pub(super) fn metric(&self) -> Metric {
        self.quantizer.metric
    }

    /// One step of the codes.
    pub(super) fn step(&self) -> f32 {
        self.quantizer.step
    }

    /// A query that rows can be made.
    pub(super) fn row_query(&self) -> CodeQuery {
        let measure = match self.quantizer.metric {
            Metric::Manhattan => CodeMeasure::Absolutes,
            _ => CodeMeasure::Products,
        };
        CodeQuery::new(measure, &vec![0; self.quantizer.dimension])
    }

    /// The sum of the squares of each row's codes.
    pub(super) fn squares_of_all(&self) -> Vec<f32> {
        if self.quantizer.measures_squares() {
            return self.squares.clone();
        }
        let mut query = CodeQuery::new(CodeMeasure::Products, &vec![0; self.quantizer.dimension]);
        let square = |row: u32| {
            let mut sum = [0];
            query.set_row(&self.rows, row);
            query.measure(&self.rows, &[row], &mut sum);
            sum[0] as f32
        };
        (0..self.len() as u32).map(square).collect()
    }

    /// Replaces `ranks` by `base` and `factor` times the measure of each id, and what `squares` adds.
    #[inline]
    pub(super) fn rank(
        &self,
        query: &CodeQuery,
        (base, factor): (f32, f32),
        squares: Squares<'_>,
        ids: &[u32],
        ranks: &mut Vec<f32>,
    ) {
        ranks.clear();
        for ids in ids.chunks(RUN) {
            let mut sums = [0; RUN];
            let sums = &mut sums[..ids.len()];
            if let Squares::Summed = squares {
                query.distances(&self.rows, ids, sums);
                ranks.extend(sums.iter().map(|sum| base + *sum as f32));
                continue;
            }
            query.measure(&self.rows, ids, sums);
            let measures = sums.iter().map(|sum| base + factor * *sum as f32);
            match squares {
                Squares::Given(numbers) => ranks
                    .extend(ids.iter().zip(measures).map(|(id, sum)| numbers[*id as usize] + sum)),
                _ => ranks.extend(measures),
            }
        }
    }

    /// Adds to ranks of rows what was cut off these.
    #[inline]
    fn mend(&self, query: &Whole, ids: &[u32], ranks: &mut [f32]) {
        for (id, rank) in ids.iter().zip(ranks) {
            self.mend_one(query, *id, rank);
        }
    }

    #[inline(always)]
    fn mend_one(&self, query: &Whole, id: u32, rank: &mut f32) {
        let rests = self.cut.of(id);
        if !rests.is_empty() {
            self.add_rests(rests, query, id, rank);
        }
    }

    fn add_rests(&self, rests: &[Rest], query: &Whole, id: u32, rank: &mut f32) {
        let quantizer = &self.quantizer;
        for Rest { dimension, steps } in rests {
            let (rest, number) = (f64::from(*steps), f64::from(query.number(*dimension)));
            let more = match quantizer.measures_differences() {
                true => {
                    let code = f64::from(self.rows.code(id, *dimension));
                    growth(code - number, rest, quantizer.measures_squares())
                }
                false => -number * rest,
            };
            add(rank, more);
        }
    }

    /// The same for the distances of rows to one of them, by which rows are linked: links bear a little.
    #[inline]
    pub(super) fn mend_between(&self, center: u32, ids: &[u32], ranks: &mut [f32]) {
        if self.cut.is_little() {
            return;
        }
        let is_much = self.cut.may_be_much(center);
        for (id, rank) in ids.iter().zip(ranks) {
            if is_much || self.cut.may_be_much(*id) {
                self.add_rests_between(center, *id, rank);
            }
        }
    }

    fn add_rests_between(&self, center: u32, row: u32, rank: &mut f32) {
        let (of_center, of_row) = (self.cut.of(center), self.cut.of(row));
        let is_square = self.quantizer.metric != Metric::Manhattan;
        let difference = |dimension: u32| {
            let code = |row: u32| f64::from(self.rows.code(row, dimension));
            code(row) - code(center)
        };
        let other = |rests: &[Rest], dimension: u32| {
            rests.iter().find(|rest| rest.dimension == dimension).map(|rest| rest.steps)
        };
        for Rest { dimension, steps } in of_row {
            let both = steps - other(of_center, *dimension).unwrap_or(0.0);
            add(rank, growth(difference(*dimension), both.into(), is_square));
        }
        for Rest { dimension, steps } in of_center {
            if other(of_row, *dimension).is_none() {
                add(rank, growth(difference(*dimension), (-steps).into(), is_square));
            }
        }
    }

    /// How the squares of rows are best had by a query whose products count `factor` times; `given`
    /// has them, one for each row.
    pub(super) fn squares<'a>(
        &self,
        query: &CodeQuery,
        factor: f32,
        given: &'a [f32],
    ) -> Squares<'a> {
        match given.is_empty() {
            true => Squares::None,
            false if factor == -2.0 && self.has_plain_squares && query.has_distances() => {
                Squares::Summed
            }
            false => Squares::Given(given),
        }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, id: u32) {
        self.rows.prefetch(id);
    }

    /// Prepares a query, one stored vector of the column.
    pub fn ranker(&self, query: &[u8]) -> CodeRanker<'_> {
        let quantizer = &self.quantizer;
        let (mut floats, mut codes) = (Vec::new(), Vec::new());
        quantizer.decode_as_stored(query, &mut floats);
        if quantizer.measures_differences() {
            quantizer.take_mean(&mut floats);
        }
        let largest = floats.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let own_step = sound_step(largest / 127.0);
        let (measure, step) = match quantizer.metric {
            Metric::Manhattan => (CodeMeasure::Absolutes, quantizer.step),
            _ if quantizer.is_exact() => (CodeMeasure::Products, quantizer.step),
            // A query outside the range of the rows gets coarser steps rather than being cut.
            _ if quantizer.measures_squares() => {
                (CodeMeasure::Products, quantizer.step.max(own_step))
            }
            // Only its direction counts, so the whole range is used.
            _ => (CodeMeasure::Products, own_step),
        };
        quantizer.encode(&floats, step, &mut codes);
        let factor = match measure {
            CodeMeasure::Absolutes => 1.0,
            // Bounded, so that no rank is infinity times zero.
            CodeMeasure::Products if quantizer.measures_squares() => {
                -2.0 * (step / quantizer.step).min(1e20)
            }
            CodeMeasure::Products => -1.0,
        };
        let square: i64 = codes.iter().map(|code| i64::from(*code).pow(2)).sum();
        let noise = self.noise(square as f32, step / quantizer.step);
        let query = CodeQuery::new(measure, &codes);
        let squares = self.squares(&query, factor, &self.squares);
        let step = if quantizer.measures_differences() { quantizer.step } else { step };
        // Then what was cut off a row is on the side away from the query, and can only add to its distance.
        let only_adds = quantizer.measures_differences() && largest / step <= 127.0;
        let whole = (!self.cut.is_empty()).then_some(Whole { numbers: floats, step });
        CodeRanker { codes: self, query, factor, squares, noise, whole, only_adds }
    }

    /// The noise of ranks for a query whose codes have that sum of squares and steps so many times those
    /// of rows. Each number of row and query is off by up to half a step, evenly.
    fn noise(&self, square: f32, coarseness: f32) -> Noise {
        let quantizer = &self.quantizer;
        let dimension = quantizer.dimension as f32;
        if quantizer.is_exact() {
            return Noise::default();
        }
        match quantizer.metric {
            Metric::Manhattan => Noise { constant: dimension * 2.0 * UNIFORM, ..Noise::default() },
            _ if quantizer.measures_squares() => {
                let coarseness = coarseness.min(1e9);
                let both = (1.0 + coarseness * coarseness) * UNIFORM;
                Noise {
                    offset: square * coarseness * coarseness,
                    // The difference of two vectors changes by the sum of their errors along it,
                    per_rank: 4.0 * both,
                    // and by the square of that, whose variance is about this (two uniform errors).
                    constant: dimension * 0.7 * both * both,
                }
            }
            _ => Noise { constant: (square + self.mean_square) * UNIFORM, ..Noise::default() },
        }
    }
}

/// The variance of what rounding to a whole number takes off.
const UNIFORM: f32 = 1.0 / 12.0;

/// The variance of ranks: `constant`, and `per_rank` for each unit of the rank above `-offset`.
#[derive(Debug, Clone, Copy, Default)]
struct Noise {
    offset: f32,
    per_rank: f32,
    constant: f32,
}

/// A step that can be divided by.
fn sound_step(step: f32) -> f32 {
    if step.is_finite() { step.max(f32::MIN_POSITIVE) } else { f32::MAX / 256.0 }
}

impl Quantizer {
    /// Chooses mean and step by a sample of the vectors.
    pub(super) fn new<'a>(
        column: &VectorColumn,
        vectors: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Quantizer {
        let dimension = column.dimension as usize;
        let mut quantizer = Quantizer {
            element: column.element,
            metric: column.metric,
            dimension,
            mean: vec![0.0; dimension],
            step: 1.0,
        };
        if quantizer.is_exact() {
            return quantizer;
        }
        let wanted = (SAMPLE_NUMBERS / dimension.max(1)).clamp(SAMPLE_ROWS.0, SAMPLE_ROWS.1);
        let every = vectors.len().div_ceil(wanted).max(1);
        let mut sample: Vec<Vec<f32>> = Vec::new();
        for vector in vectors.step_by(every) {
            let mut floats = Vec::new();
            quantizer.decode_as_stored(vector, &mut floats);
            sample.push(floats);
        }
        let mut sums = vec![0f64; dimension];
        for floats in &sample {
            sums.iter_mut().zip(floats).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let count = sample.len().max(1) as f64;
        quantizer.mean = sums.iter().map(|sum| (sum / count) as f32).collect();
        let mut distances: Vec<f32> = Vec::with_capacity(sample.len() * dimension);
        for floats in &sample {
            distances.extend(floats.iter().zip(&quantizer.mean).map(|(x, mean)| (x - mean).abs()));
        }
        if !distances.is_empty() {
            let kept = (distances.len() as f64 * (1.0 - CUT_SHARE)) as usize;
            let place = kept.min(distances.len() - 1);
            let (_, edge, _) = distances.select_nth_unstable_by(place, f32::total_cmp);
            quantizer.step = sound_step(*edge / 127.0);
        }
        quantizer
    }

    fn is_normalised(&self) -> bool {
        self.metric == Metric::Cosine
    }

    /// Rows are bytes, and their own codes.
    fn is_exact(&self) -> bool {
        let is_bytes = matches!(self.element, ElementType::Int8 | ElementType::Int4);
        is_bytes && !self.is_normalised()
    }

    /// Taking the same off row and query changes nothing. (Off a row alone it changes every product
    /// by the same.)
    fn measures_differences(&self) -> bool {
        self.measures_squares() || self.metric == Metric::Manhattan
    }

    /// Among vectors of length 1, the square of the difference ranks as the cosine does, and bears
    /// the mean being taken off both.
    fn measures_squares(&self) -> bool {
        matches!(self.metric, Metric::SquaredEuclidean | Metric::Euclidean | Metric::Cosine)
    }

    fn decode_as_stored(&self, vector: &[u8], floats: &mut Vec<f32>) {
        decode_floats(vector, self.element, self.dimension, self.is_normalised(), floats);
    }

    fn take_mean(&self, floats: &mut [f32]) {
        floats.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
    }

    /// How far numbers, the mean taken off, are from their codes at most, in steps.
    fn error(&self, floats: &[f32], codes: &[i8]) -> f32 {
        let per_step = 1.0 / f64::from(self.step);
        let square: f64 = floats
            .iter()
            .zip(codes)
            .map(|(x, code)| (f64::from(*x) * per_step - f64::from(*code)).powi(2))
            .sum();
        // Upwards: it is rounded, and so were the numbers when the mean was taken off.
        let largest = floats.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let rounding = f64::from(largest) * per_step * (floats.len() as f64).sqrt() * 2e-7;
        ((square.sqrt() + rounding) * 1.000_001) as f32
    }

    /// What the codes of numbers, the mean taken off, lack of those beyond their range.
    fn rests(&self, floats: &[f32], codes: &[i8]) -> Box<[Rest]> {
        if self.is_exact() {
            return Box::default();
        }
        let per_step = 1.0 / self.step;
        let numbers = floats.iter().zip(codes).zip(0..);
        let rests = numbers.filter(|((_, code), _)| matches!(**code, i8::MIN | i8::MAX));
        let rests = rests.map(|((x, code), dimension)| {
            // Below what squares of 32 bits bear.
            let steps = (x * per_step - f32::from(*code)).clamp(-1e15, 1e15);
            Rest { dimension, steps }
        });
        rests.filter(|rest| rest.steps.abs() > 0.5).collect()
    }

    fn encode(&self, floats: &[f32], step: f32, codes: &mut Vec<i8>) {
        /// Adding and taking it off again rounds a float below 2^22 to the nearest whole number.
        const ROUNDS: f32 = 12_582_912.0;
        codes.clear();
        let per_step = 1.0 / step;
        codes.extend(floats.iter().map(|x| {
            let steps = (x * per_step).clamp(-128.0, 127.0);
            ((steps + ROUNDS) - ROUNDS) as i32 as i8
        }));
    }
}

/// A query before it became codes.
#[derive(Debug)]
struct Whole {
    numbers: Vec<f32>,
    /// A step of the rows' codes; for products, one of its own.
    step: f32,
}

impl Whole {
    /// One of its numbers in steps.
    fn number(&self, dimension: u32) -> f32 {
        self.numbers[dimension as usize] / self.step
    }
}

/// A query against codes.
#[derive(Debug)]
pub struct CodeRanker<'a> {
    codes: &'a Codes,
    query: CodeQuery,
    factor: f32,
    squares: Squares<'a>,
    noise: Noise,
    /// The query itself, where something was cut off rows.
    whole: Option<Whole>,
    /// What was cut off rows adds to their ranks and takes nothing off.
    only_adds: bool,
}

impl CodeRanker<'_> {
    /// True for a query so far out of the range of the rows that its own codes tell little.
    pub fn is_coarse(&self) -> bool {
        self.codes.quantizer.measures_squares() && self.factor < -2.0 * COARSE
    }
}

impl Ranker for CodeRanker<'_> {
    fn deviation(&self, rank: f32) -> f32 {
        let Noise { offset, per_rank, constant } = self.noise;
        (per_rank * (rank + offset).max(0.0) + constant).sqrt()
    }

    #[inline]
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        self.codes.rank(&self.query, (0.0, self.factor), self.squares, ids, ranks);
        if let Some(whole) = &self.whole {
            self.codes.mend(whole, ids, ranks);
        }
    }

    #[inline]
    fn rank_at_least(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        match self.only_adds {
            true => self.codes.rank(&self.query, (0.0, self.factor), self.squares, ids, ranks),
            false => self.rank(ids, ranks),
        }
    }

    #[inline]
    fn complete(&self, id: u32, at_least: f32) -> f32 {
        let mut rank = at_least;
        if let Some(whole) = self.whole.as_ref().filter(|_| self.only_adds) {
            self.codes.mend_one(whole, id, &mut rank);
        }
        rank
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        self.codes.prefetch(id);
        self.squares.prefetch(id);
    }
}
