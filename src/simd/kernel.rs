//! Kernels for element types that are numbers: what is summed over a row, and the score of a sum.

use std::marker::PhantomData;

use super::element::{Element, Fp16, Fp32, Int4, Int8, Int16, Number};
use super::lanes::{Arith, Decode, DecodeAll, Line, Target};
use crate::schema::{ElementType, Metric};

/// Lines summed before [`Arith::total`]. Should all of them end up in one of 8 lanes of 32 bits, that
/// is 4096 * 2 * (2 * 255 * 255), below 2^31: no sum of integers overflows at any dimension.
const PIECE_LINES: usize = 4096;

/// From here to `f32::MAX`, an `f32` sum of squares, or of products, has lost nothing to zero or to
/// infinity.
const NORM_MIN: f64 = 1e-30;

/// Products with a number from here on vanish only where the other one is below 1e-30: too little for a
/// score to show. So a sum of exactly zero, as sparse vectors have many, is looked at again for smaller
/// queries only.
const SMALL_MAX: f64 = 1e-15;

/// A query that can score rows; the one virtual call of a scan.
pub(super) trait Scan: Send + Sync {
    /// Scores `out.len()` rows of `vector_bytes` each; the caller has compared the lengths.
    fn scan(&self, vector_bytes: usize, rows: &[u8], out: &mut [f32]);
}

/// What is done with each row.
pub(super) trait Kernel: Send + Sync {
    /// The instruction set the kernel is for.
    type Target: Target;
    /// The proof that the CPU has it.
    fn target(&self) -> Self::Target;
    /// The score of one row. Must be `inline(always)`.
    fn distance(&self, row: &[u8]) -> f32;
}

impl<K: Kernel> Scan for K {
    fn scan(&self, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
        self.target().scan(self, vector_bytes, rows, out);
    }
}

/// The loop over rows that every [`Target::scan`] compiles for itself.
#[inline(always)]
pub(super) fn scan_rows<K: Kernel>(kernel: &K, vector_bytes: usize, rows: &[u8], out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(vector_bytes).zip(out) {
        *out = kernel.distance(row);
    }
}

/// The kernel for a query of an element type that is a number; `None` where the metric does not fit.
pub(super) fn scanner<L: DecodeAll>(
    lanes: L,
    element: ElementType,
    metric: Metric,
    query: &[u8],
) -> Option<Box<dyn Scan>> {
    // Floats need four chains of additions to hide their latency; integer additions have none to hide.
    match element {
        ElementType::Fp32 => scanner_of::<L, Fp32, 4>(lanes, metric, query),
        ElementType::Fp16 => scanner_of::<L, Fp16, 4>(lanes, metric, query),
        ElementType::Int8 => scanner_of::<L, Int8, 2>(lanes, metric, query),
        ElementType::Int4 => scanner_of::<L, Int4, 2>(lanes, metric, query),
        ElementType::Int16 => scanner_of::<L, Int16, 2>(lanes, metric, query),
        ElementType::Binary32 | ElementType::Binary64 => None,
    }
}

fn scanner_of<L: Decode<E>, E: Element, const CHAINS: usize>(
    lanes: L,
    metric: Metric,
    query: &[u8],
) -> Option<Box<dyn Scan>> {
    let query = Operand::<E>::new(query);
    match metric {
        Metric::SquaredEuclidean => {
            Some(SumKernel::<L, E, Squares, CHAINS>::boxed(lanes, query, Finish::Keep))
        }
        Metric::Euclidean => {
            Some(SumKernel::<L, E, Squares, CHAINS>::boxed(lanes, query, Finish::Root))
        }
        Metric::InnerProduct => {
            Some(SumKernel::<L, E, Products, CHAINS>::boxed(lanes, query, Finish::Negate))
        }
        Metric::Manhattan => {
            Some(SumKernel::<L, E, Absolutes, CHAINS>::boxed(lanes, query, Finish::Keep))
        }
        Metric::Cosine => Some(CosineKernel::<L, E>::boxed(lanes, query)),
        Metric::Hamming => None,
    }
}

/// A decoded query.
struct Operand<E: Element> {
    /// As stored, to be compared with itself.
    bytes: Box<[u8]>,
    /// In the order of [`Element::numbers`].
    numbers: Vec<E::Number>,
    /// The same numbers, one line for each block of a row and one for its tail.
    lines: Box<[Line]>,
}

impl<E: Element> Operand<E> {
    fn new(bytes: &[u8]) -> Self {
        let numbers = E::numbers(bytes);
        Operand { bytes: bytes.into(), lines: E::Number::lines(&numbers), numbers }
    }
}

/// Whether terms are lost to zero.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vanishing {
    /// None are.
    Never,
    /// They may be where a sum is small; a sum is zero for rows like the query alone.
    Squares,
    /// They may be where a sum is small; sums of usual numbers may be zero, too.
    Products,
}

/// One metric's terms; `SUMS` of them are summed side by side.
trait Measure<const SUMS: usize>: Send + Sync + 'static {
    /// Whether its terms vanish, where elements are as small as floats of 32 bits may be.
    const VANISHING: Vanishing;

    /// Adds the terms of query numbers `q` and row numbers `x`.
    fn add<N: Number, L: Arith<N>>(
        lanes: L,
        sums: [L::Sums; SUMS],
        q: L::Vector,
        x: L::Vector,
    ) -> [L::Sums; SUMS];

    /// The terms of one pair of numbers.
    fn terms(q: f64, x: f64) -> [f64; SUMS];
}

/// Squared differences.
struct Squares;

impl Measure<1> for Squares {
    const VANISHING: Vanishing = Vanishing::Squares;

    #[inline(always)]
    fn add<N: Number, L: Arith<N>>(
        lanes: L,
        [sums]: [L::Sums; 1],
        q: L::Vector,
        x: L::Vector,
    ) -> [L::Sums; 1] {
        [lanes.add_squares(sums, q, x)]
    }

    fn terms(q: f64, x: f64) -> [f64; 1] {
        [(q - x) * (q - x)]
    }
}

/// Products.
struct Products;

impl Measure<1> for Products {
    const VANISHING: Vanishing = Vanishing::Products;

    #[inline(always)]
    fn add<N: Number, L: Arith<N>>(
        lanes: L,
        [sums]: [L::Sums; 1],
        q: L::Vector,
        x: L::Vector,
    ) -> [L::Sums; 1] {
        [lanes.add_products(sums, q, x)]
    }

    fn terms(q: f64, x: f64) -> [f64; 1] {
        [q * x]
    }
}

/// Absolute differences.
struct Absolutes;

impl Measure<1> for Absolutes {
    // A difference of two floats is exact where it is small.
    const VANISHING: Vanishing = Vanishing::Never;

    #[inline(always)]
    fn add<N: Number, L: Arith<N>>(
        lanes: L,
        [sums]: [L::Sums; 1],
        q: L::Vector,
        x: L::Vector,
    ) -> [L::Sums; 1] {
        [lanes.add_absolutes(sums, q, x)]
    }

    fn terms(q: f64, x: f64) -> [f64; 1] {
        [(q - x).abs()]
    }
}

/// Products, and squares of the row.
struct Cosine;

impl Measure<2> for Cosine {
    // Its kernel looks itself, at what it divides by.
    const VANISHING: Vanishing = Vanishing::Never;

    #[inline(always)]
    fn add<N: Number, L: Arith<N>>(
        lanes: L,
        [products, squares]: [L::Sums; 2],
        q: L::Vector,
        x: L::Vector,
    ) -> [L::Sums; 2] {
        [lanes.add_products(products, q, x), lanes.add_products(squares, x, x)]
    }

    fn terms(q: f64, x: f64) -> [f64; 2] {
        [q * x, x * x]
    }
}

/// The sums over a whole row.
#[inline(always)]
fn totals<L, E, M, const CHAINS: usize, const SUMS: usize>(
    lanes: L,
    query: &Operand<E>,
    row: &[u8],
) -> [f64; SUMS]
where
    L: Decode<E>,
    E: Element,
    M: Measure<SUMS>,
{
    let mut totals = [0.0; SUMS];
    if query.lines.len() <= PIECE_LINES {
        let sums = piece::<L, E, M, CHAINS, SUMS>(lanes, &query.lines, row);
        for i in 0..SUMS {
            totals[i] = lanes.total(sums[i]);
        }
        return totals;
    }
    let pieces = row.chunks(PIECE_LINES * size_of::<E::Block>());
    for (lines, row) in query.lines.chunks(PIECE_LINES).zip(pieces) {
        let sums = piece::<L, E, M, CHAINS, SUMS>(lanes, lines, row);
        for i in 0..SUMS {
            totals[i] += lanes.total(sums[i]);
        }
    }
    totals
}

/// The sums over at most [`PIECE_LINES`] lines, in `CHAINS` independent chains. Arrays are indexed by
/// constants once the loops are unrolled, which keeps them in registers.
#[inline(always)]
fn piece<L, E, M, const CHAINS: usize, const SUMS: usize>(
    lanes: L,
    lines: &[Line],
    row: &[u8],
) -> [L::Sums; SUMS]
where
    L: Decode<E>,
    E: Element,
    M: Measure<SUMS>,
{
    let mut chains = [[lanes.zero(); SUMS]; CHAINS];
    let (blocks, tail) = E::blocks(row);
    let (groups, rest) = blocks.as_chunks::<CHAINS>();
    let (line_groups, _) = lines.as_chunks::<CHAINS>();
    for (blocks, lines) in groups.iter().zip(line_groups) {
        for i in 0..CHAINS {
            chains[i] = M::add(lanes, chains[i], lanes.line(&lines[i]), lanes.block(&blocks[i]));
        }
    }
    let rest_lines = &lines[groups.len() * CHAINS..];
    for (i, chain) in chains.iter_mut().enumerate() {
        if let (Some(block), Some(line)) = (rest.get(i), rest_lines.get(i)) {
            *chain = M::add(lanes, *chain, lanes.line(line), lanes.block(block));
        }
    }
    let last = CHAINS - 1;
    if !tail.is_empty()
        && let Some(line) = lines.last()
    {
        chains[last] = M::add(lanes, chains[last], lanes.line(line), lanes.tail(tail));
    }
    let mut sums = chains[0];
    for chain in &chains[1..] {
        for i in 0..SUMS {
            sums[i] = lanes.merge(sums[i], chain[i]);
        }
    }
    sums
}

/// The sums over a whole row in `f64`, for the rare row whose `f32` sums left their range.
#[cold]
#[inline(never)]
fn wide_totals<E: Element, M: Measure<SUMS>, const SUMS: usize>(
    query: &Operand<E>,
    row: &[u8],
) -> [f64; SUMS] {
    let mut totals = [0.0; SUMS];
    for (q, x) in query.numbers.iter().zip(E::numbers(row)) {
        for (total, term) in totals.iter_mut().zip(M::terms((*q).into(), x.into())) {
            *total += term;
        }
    }
    totals
}

/// What makes a score of a sum.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// The sum itself.
    Keep,
    /// Its square root.
    Root,
    /// Minus the sum; zero stays positive, so that equal scores have equal bits.
    Negate,
}

impl Finish {
    /// The score.
    #[inline(always)]
    pub(super) fn score(self, total: f64) -> f32 {
        match self {
            Finish::Keep => total as f32,
            Finish::Root => total.sqrt() as f32,
            Finish::Negate => (0.0 - total) as f32,
        }
    }
}

/// Scores that follow from one sum.
struct SumKernel<L, E: Element, M, const CHAINS: usize> {
    lanes: L,
    query: Operand<E>,
    finish: Finish,
    /// True where no number of the query is as large as [`SMALL_MAX`], but some are there.
    is_small: bool,
    measure: PhantomData<M>,
}

impl<L: Decode<E>, E: Element, M: Measure<1>, const CHAINS: usize> SumKernel<L, E, M, CHAINS> {
    fn boxed(lanes: L, query: Operand<E>, finish: Finish) -> Box<dyn Scan> {
        let largest = query.numbers.iter().map(|number| (*number).into().abs());
        let largest = largest.fold(0.0, f64::max);
        let is_small = largest > 0.0 && largest < SMALL_MAX;
        Box::new(Self { lanes, query, finish, is_small, measure: PhantomData })
    }

    /// Whether a sum lost what counts: to infinity, or to zero.
    #[inline(always)]
    fn is_out_of_range(&self, total: f64, row: &[u8]) -> bool {
        if !E::IS_WIDE || M::VANISHING == Vanishing::Never {
            return !total.is_finite();
        }
        // One comparison for sums of all usual sizes, and for those that are no number.
        if (NORM_MIN..=f64::from(f32::MAX)).contains(&total.abs()) {
            return false;
        }
        if M::VANISHING == Vanishing::Products && total == 0.0 {
            return self.is_small;
        }
        // Rows like the query are many in some collections, and quickly told.
        total != 0.0 || *row != *self.query.bytes
    }
}

impl<L: Decode<E>, E: Element, M: Measure<1>, const CHAINS: usize> Kernel
    for SumKernel<L, E, M, CHAINS>
{
    type Target = L;

    fn target(&self) -> L {
        self.lanes
    }

    #[inline(always)]
    fn distance(&self, row: &[u8]) -> f32 {
        let [mut total] = totals::<L, E, M, CHAINS, 1>(self.lanes, &self.query, row);
        if self.is_out_of_range(total, row) {
            [total] = wide_totals::<E, M, 1>(&self.query, row);
        }
        self.finish.score(total)
    }
}

/// 1 - cos.
struct CosineKernel<L, E: Element> {
    lanes: L,
    query: Operand<E>,
    /// The sum of the query's squares, summed as a row's are: a vector is at exactly 0 from itself.
    squares: f64,
}

impl<L: Decode<E>, E: Element> CosineKernel<L, E> {
    fn boxed(lanes: L, query: Operand<E>) -> Box<dyn Scan> {
        let mut kernel = Self { lanes, query, squares: 1.0 };
        [_, kernel.squares] = kernel.totals(&kernel.query.bytes);
        Box::new(kernel)
    }

    /// The products and the row's squares.
    #[inline(always)]
    fn totals(&self, row: &[u8]) -> [f64; 2] {
        let [products, squares] = totals::<L, E, Cosine, 2, 2>(self.lanes, &self.query, row);
        let in_range = (NORM_MIN..=f64::from(f32::MAX)).contains(&squares)
            && squares * self.squares >= NORM_MIN * NORM_MIN
            && products.is_finite();
        if in_range { [products, squares] } else { wide_totals::<E, Cosine, 2>(&self.query, row) }
    }
}

impl<L: Decode<E>, E: Element> Kernel for CosineKernel<L, E> {
    type Target = L;

    fn target(&self) -> L {
        self.lanes
    }

    #[inline(always)]
    fn distance(&self, row: &[u8]) -> f32 {
        if self.squares == 0.0 {
            return 1.0;
        }
        let [products, squares] = self.totals(row);
        if squares == 0.0 {
            return 1.0;
        }
        (1.0 - products / (squares * self.squares).sqrt()).clamp(0.0, 2.0) as f32
    }
}
