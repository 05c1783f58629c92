//! Distances between the rows of a column, which a graph is built by.

use super::codes::{Codes, Squares};
use super::graph::Ranker;
use crate::schema::{Metric, VectorColumn, decode_floats};
use crate::simd::{CodeQuery, Query, prefetch_bytes};

/// Lengths are unlike where this share of the square of the longest is missing.
const UNLIKE: f32 = 0.15;

/// The vectors that the nodes of a graph stand for.
pub trait Vectors: Sync {
    /// Nodes; their ids are 0 to `count() - 1`.
    fn count(&self) -> usize;

    /// The stored vector of a node.
    fn vector(&self, node: u32) -> &[u8];
}

/// Rows of tests.
#[cfg(test)]
impl Vectors for &[Vec<u8>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn vector(&self, node: u32) -> &[u8] {
        &self[node as usize]
    }
}

/// A symmetric distance between nodes.
///
/// The inner product is none: rows would link to the longest rows only, and most would be linked to by
/// nobody. Each vector is given one more dimension, which fills its length up to that of the longest;
/// then inner products with a query, which has zero there, rank as distances do (Bachrach et al.,
/// "Speeding up the Xbox recommender system", 2014).
pub trait Space: Sync {
    /// A node that others are compared with.
    type Center: Send;

    /// Nodes.
    fn count(&self) -> usize;

    /// Some center; [`Space::set`] makes it one of a node.
    fn center(&self) -> Self::Center;

    /// Makes a node the center.
    fn set(&self, center: &mut Self::Center, node: u32);

    /// Makes a query with a node's vector the center: ranks are then in the order of scores, which for
    /// inner products is another than that of distances to the node.
    fn ask(&self, center: &mut Self::Center, node: u32);

    /// Replaces `ranks` by one rank for each id, smaller for nearer, never NaN. Ranks of different
    /// centers can be compared.
    fn rank(&self, center: &Self::Center, ids: &[u32], ranks: &mut Vec<f32>);

    /// See [`Ranker::rank_at_least`].
    #[inline(always)]
    fn rank_at_least(&self, center: &Self::Center, ids: &[u32], ranks: &mut Vec<f32>) {
        self.rank(center, ids, ranks);
    }

    /// See [`Ranker::complete`].
    #[inline(always)]
    fn complete(&self, _center: &Self::Center, _id: u32, at_least: f32) -> f32 {
        at_least
    }

    /// Asks the CPU for what ranking an id will read.
    fn prefetch(&self, id: u32);

    /// True where scores are inner products of vectors of unlike length: what is nearest to a node by this
    /// distance is then not what has the largest products with it, and a graph needs links to both.
    fn has_products(&self) -> bool {
        false
    }
}

/// Ranks by the distance to a center.
pub(super) struct Around<'a, S: Space> {
    pub space: &'a S,
    pub center: &'a S::Center,
}

impl<S: Space> Ranker for Around<'_, S> {
    #[inline(always)]
    fn rank(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        self.space.rank(self.center, ids, ranks);
    }

    #[inline(always)]
    fn rank_at_least(&self, ids: &[u32], ranks: &mut Vec<f32>) {
        self.space.rank_at_least(self.center, ids, ranks);
    }

    #[inline(always)]
    fn complete(&self, id: u32, at_least: f32) -> f32 {
        self.space.complete(self.center, id, at_least)
    }

    #[inline(always)]
    fn prefetch(&self, id: u32) {
        self.space.prefetch(id);
    }
}

/// Distances between codes.
pub struct CodeSpace<'a> {
    codes: &'a Codes,
    squares: Vec<f32>,
    /// The added dimension, for inner products.
    lifts: Vec<f32>,
    /// Vectors are of unlike length, and scores inner products.
    has_products: bool,
    /// Whether `squares` are looked at for every rank.
    fetches_squares: bool,
}

/// A node's codes.
pub struct CodeCenter {
    node: u32,
    query: CodeQuery,
    square: f32,
    lift: f32,
}

impl<'a> CodeSpace<'a> {
    /// The space of these codes, which are of these vectors.
    pub fn new(codes: &'a Codes, column: &VectorColumn, vectors: &impl Vectors) -> Self {
        let mut space = CodeSpace {
            codes,
            squares: Vec::new(),
            lifts: Vec::new(),
            has_products: false,
            fetches_squares: false,
        };
        if column.metric != Metric::Manhattan {
            space.squares = codes.squares_of_all();
            let squares = space.squares_for(&codes.row_query());
            space.fetches_squares = matches!(squares, Squares::Given(_));
        }
        if column.metric == Metric::InnerProduct {
            let (step, (lifts, longest)) = (codes.step(), lifts(column, vectors));
            space.has_products = are_unlike(&lifts, longest);
            space.lifts = lifts.into_iter().map(|lift| lift / step).collect();
        }
        space
    }

    fn squares_for(&self, query: &CodeQuery) -> Squares<'_> {
        self.codes.squares(query, -2.0, &self.squares)
    }
}

impl Space for CodeSpace<'_> {
    type Center = CodeCenter;

    fn count(&self) -> usize {
        self.codes.len()
    }

    fn center(&self) -> CodeCenter {
        CodeCenter { node: u32::MAX, query: self.codes.row_query(), square: 0.0, lift: 0.0 }
    }

    #[inline]
    fn set(&self, center: &mut CodeCenter, node: u32) {
        center.node = node;
        center.query.set_row(self.codes.rows(), node);
        center.square = self.squares.get(node as usize).copied().unwrap_or(0.0);
        center.lift = self.lifts.get(node as usize).copied().unwrap_or(0.0);
    }

    fn ask(&self, center: &mut CodeCenter, node: u32) {
        self.set(center, node);
        center.lift = 0.0;
    }

    #[inline]
    fn rank(&self, center: &CodeCenter, ids: &[u32], ranks: &mut Vec<f32>) {
        self.rank_at_least(center, ids, ranks);
        self.codes.mend_between(center.node, ids, ranks);
    }

    #[inline(always)]
    fn complete(&self, center: &CodeCenter, id: u32, at_least: f32) -> f32 {
        let mut rank = [at_least];
        self.codes.mend_between(center.node, &[id], &mut rank);
        rank[0]
    }

    // What was cut off rows, each on its own side of the range, can only add to how far they are from each other.
    #[inline]
    fn rank_at_least(&self, center: &CodeCenter, ids: &[u32], ranks: &mut Vec<f32>) {
        let codes = self.codes;
        match self.squares.is_empty() {
            true => codes.rank(&center.query, (0.0, 1.0), Squares::None, ids, ranks),
            false => {
                let scale = (center.square, -2.0);
                codes.rank(&center.query, scale, self.squares_for(&center.query), ids, ranks);
            }
        }
        if !self.lifts.is_empty() {
            for (rank, id) in ranks.iter_mut().zip(ids) {
                *rank += (center.lift - self.lifts[*id as usize]).powi(2);
            }
        }
    }

    #[inline(always)]
    fn prefetch(&self, id: u32) {
        self.codes.prefetch(id);
        if self.fetches_squares {
            Squares::Given(&self.squares).prefetch(id);
        }
    }

    fn has_products(&self) -> bool {
        self.has_products
    }
}

/// Distances between stored vectors.
pub struct RowSpace<'a, V> {
    vectors: &'a V,
    column: &'a VectorColumn,
    /// The added dimension, for inner products.
    lifts: Vec<f32>,
    /// The square of the length of the longest vector, for the same.
    longest: f32,
}

/// A node's vector.
pub struct RowCenter {
    query: Option<Query>,
    lift: f32,
}

impl<'a, V: Vectors> RowSpace<'a, V> {
    /// The space of these vectors.
    pub fn new(column: &'a VectorColumn, vectors: &'a V) -> Self {
        let is_product = column.metric == Metric::InnerProduct;
        let (lifts, longest) = if is_product { lifts(column, vectors) } else { (Vec::new(), 0.0) };
        RowSpace { vectors, column, lifts, longest }
    }
}

impl<V: Vectors> Space for RowSpace<'_, V> {
    type Center = RowCenter;

    fn count(&self) -> usize {
        self.vectors.count()
    }

    fn center(&self) -> RowCenter {
        RowCenter { query: None, lift: 0.0 }
    }

    fn set(&self, center: &mut RowCenter, node: u32) {
        center.query = query_of(self.column, self.vectors.vector(node));
        center.lift = self.lifts.get(node as usize).copied().unwrap_or(0.0);
    }

    fn ask(&self, center: &mut RowCenter, node: u32) {
        self.set(center, node);
        center.lift = 0.0;
    }

    fn rank(&self, center: &RowCenter, ids: &[u32], ranks: &mut Vec<f32>) {
        ranks.clear();
        ranks.extend(ids.iter().map(|id| {
            let query = center.query.as_ref();
            let score = query.and_then(|query| query.distance(self.vectors.vector(*id)));
            let rank = match self.lifts.get(*id as usize) {
                None => score,
                // The square of the distance: that of each length is that of the longest.
                Some(lift) => score.map(|s| 2.0 * (self.longest + s - lift * center.lift).max(0.0)),
            };
            rank.filter(|rank| !rank.is_nan()).unwrap_or(f32::INFINITY)
        }));
    }

    #[inline]
    fn prefetch(&self, id: u32) {
        prefetch_bytes(self.vectors.vector(id));
    }

    fn has_products(&self) -> bool {
        are_unlike(&self.lifts, self.longest)
    }
}

/// True where vectors miss enough of the length of the longest that it matters, most of them.
fn are_unlike(lifts: &[f32], longest: f32) -> bool {
    let many = lifts.iter().filter(|lift| **lift * **lift > UNLIKE * longest).count();
    many * 2 > lifts.len()
}

fn query_of(column: &VectorColumn, vector: &[u8]) -> Option<Query> {
    Query::new(column.element, column.metric, column.dimension, vector)
}

/// What is missing of each vector's length to the length of the longest, as another dimension, and the
/// square of that length.
fn lifts(column: &VectorColumn, vectors: &impl Vectors) -> (Vec<f32>, f32) {
    let mut floats = Vec::new();
    let mut square = |node| -> f32 {
        let dimension = column.dimension as usize;
        decode_floats(vectors.vector(node), column.element, dimension, false, &mut floats);
        let square: f64 = floats.iter().map(|x| f64::from(*x).powi(2)).sum();
        if square <= f64::from(f32::MAX) { square as f32 } else { 0.0 }
    };
    let squares: Vec<f32> = (0..vectors.count() as u32).map(&mut square).collect();
    let longest = squares.iter().copied().fold(0.0, f32::max);
    let lifts = squares.into_iter().map(|square| (longest - square).max(0.0).sqrt());
    (lifts.collect(), longest)
}
