//! What to merge next: a pure decision over the sealed segments.
//!
//! Sealing makes small segments without graphs, scanned exactly. As soon as enough rows wait, they go
//! into a graph: into that of the largest segment not much larger than they are, or into a new one.
//! Graphs are joined, by extending the larger, when the small ones together reach half of the largest.
//!
//! A merge writes everything it takes anew. What that may come to is bounded by the bytes that were
//! written, which the [`Ledger`](super::ledger::Ledger) keeps: a large segment is written again only when
//! the rows that came have paid for it, and until then they stay in segments of their own. Merges that
//! are due whatever they cost are those that each row is part of a few times at most: a first graph for
//! many waiting rows, segments of which half is deleted, and more segments than queries should meet.
//!
//! What is scanned and linked are vectors: where rows have several, segments are as large as these.

use std::ops::Add;

use crate::native::ROWS_MAX;
use crate::segment::IndexRule;

/// Graph segments kept side by side as long as more can be paid for.
const GRAPHS_MAX: usize = 4;
/// Graph segments kept side by side at most, whatever it costs.
const GRAPHS_BOUND: usize = 8;
/// As many times the rows that a graph pays for get one of their own, whatever it costs.
const WAITING_BOUND: u64 = 3;
/// A graph is extended by rows that are at least this fraction of it.
const EXTEND_RATIO: u64 = 4;
/// The same when nothing is being written.
const REST_RATIO: u64 = 128;
/// Segments without graph and of similar size kept side by side, as long as more can be paid for.
const FLAT_FAN_IN: usize = 4;
/// The same, whatever it costs.
const FLAT_FAN_IN_BOUND: usize = 12;
/// While rows are being written, a segment is rewritten when more than this share of it is deleted, and
/// that can be paid for: sooner than that, more of it may follow.
const DELETED_SHARE_BUSY: f64 = 0.5;
/// The same, whatever it costs, which is a quarter of what was written for the rows that are left out.
const DELETED_SHARE_BOUND: f64 = 0.8;

/// What is known of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Identity.
    pub id: u32,
    /// Rows, deleted ones included.
    pub rows: u64,
    /// Vectors of the column that has most, of those that have indexes, deleted rows' included; as many as
    /// rows at least.
    pub vectors: u64,
    /// Deleted rows.
    pub deleted: u64,
    /// True when a column has an index.
    pub has_index: bool,
    /// Bytes of the rows file.
    pub rows_bytes: u64,
}

/// Rows, and the vectors that these have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    rows: u64,
    vectors: u64,
}

impl Add for Size {
    type Output = Size;

    fn add(self, other: Size) -> Size {
        Size { rows: self.rows + other.rows, vectors: self.vectors + other.vectors }
    }
}

impl SegmentFacts {
    fn whole(&self) -> Size {
        Size { rows: self.rows, vectors: self.vectors }
    }

    /// What is left without the deleted rows, as if each had as many vectors.
    fn live(&self) -> Size {
        Size {
            rows: self.rows - self.deleted.min(self.rows),
            vectors: self.live_share(self.vectors),
        }
    }

    /// The live rows' share of something that the whole segment has.
    fn live_share(&self, of: u64) -> u64 {
        let rows = self.rows - self.deleted.min(self.rows);
        (u128::from(of) * u128::from(rows) / u128::from(self.rows.max(1))) as u64
    }

    fn deleted_share(&self) -> f64 {
        self.deleted as f64 / self.rows.max(1) as f64
    }
}

/// Bytes that merges may write now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For fewer and larger segments.
    pub joins: u64,
    /// For what was deleted to be gone.
    pub removal: u64,
    /// Most of the rows came since all was in order for the last time: it may be put in order once, whatever
    /// that costs.
    pub is_first_order: bool,
}

impl Budget {
    /// Whatever there is to do.
    pub const UNBOUNDED: Budget =
        Budget { joins: u64::MAX, removal: u64::MAX, is_first_order: true };
}

/// The collection's and the server's wishes.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Rows from which an index pays; `None` when no column has one.
    pub index_rows_min: Option<u64>,
    /// Share of deleted rows above which a segment is rewritten.
    pub deleted_share_max: f64,
    /// Rows a merged segment may have.
    pub rows_max: u64,
    /// Segments above which rows_max gives way.
    pub segments_max: usize,
    /// Nothing is being written: small rests are worth a rewrite of what they join.
    pub is_still: bool,
    /// Segments below this id are to lose their deleted rows, since it is quiet.
    pub removal_before: u32,
    /// Bytes of index files for each vector.
    pub index_bytes: u64,
    /// What merges may cost.
    pub budget: Budget,
}

/// A merge to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeJob {
    /// The segments, in row order of the result.
    pub sources: Vec<u32>,
    /// Keep the first source whole and extend its indexes.
    pub extend_first: bool,
    /// Indexes of the result.
    pub indexes: IndexRule,
    /// Paid by nothing: the one merge that puts in order what is mostly new.
    pub is_first_order: bool,
    /// Done for what is deleted to be gone.
    pub is_removal: bool,
}

impl Policy {
    /// True for what one segment may hold.
    fn fits(&self, size: Size) -> bool {
        size.rows <= self.rows_max && size.vectors <= ROWS_MAX as u64
    }

    fn indexes(&self) -> IndexRule {
        self.index_rows_min.map_or(IndexRule::None, IndexRule::FromRows)
    }

    fn job(&self, sources: Vec<u32>, extend_first: bool) -> MergeJob {
        MergeJob {
            sources,
            extend_first,
            indexes: self.indexes(),
            is_first_order: false,
            is_removal: false,
        }
    }

    /// Bytes that merging these writes, roughly: all of the first when it is extended, else what lives.
    fn cost(&self, sources: &[&SegmentFacts], extend_first: bool) -> u64 {
        let mut bytes = 0u64;
        let mut vectors = 0u64;
        for (place, source) in sources.iter().enumerate() {
            let is_whole = extend_first && place == 0;
            let (own_bytes, size) = match is_whole {
                true => (source.rows_bytes, source.whole()),
                false => (source.live_share(source.rows_bytes), source.live()),
            };
            bytes = bytes.saturating_add(own_bytes);
            vectors = vectors.saturating_add(size.vectors);
        }
        let was_index = sources.iter().any(|source| source.has_index);
        let has_index = was_index || self.index_rows_min.is_some_and(|min| vectors >= min.max(2));
        match has_index {
            true => bytes.saturating_add(vectors.saturating_mul(self.index_bytes)),
            false => bytes,
        }
    }

    /// The next merge, or `None` when all is well or what is not cannot be paid for. Every merge it proposes
    /// leaves fewer segments, fewer deleted rows or fewer rows without a graph, so a run of merges ends.
    pub fn next_merge(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        self.rewrite(segments)
            .or_else(|| self.remove_deleted(segments))
            .or_else(|| self.put_in_order(segments))
            .or_else(|| self.link_waiting(segments))
            .or_else(|| self.link_rest(segments))
            .or_else(|| self.join_graphs(segments))
            .or_else(|| self.join_flat(segments))
            .or_else(|| self.too_many(segments))
    }

    /// A segment with too many deleted rows is rewritten without them.
    fn rewrite(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let least = self.deleted_share_max;
        let wanted = if self.is_still { least } else { least.max(DELETED_SHARE_BUSY) };
        let is_due = |s: &&SegmentFacts| {
            let share = s.deleted_share();
            let is_paid = || self.cost(&[s], false) <= self.budget.joins.max(self.budget.removal);
            share > least.max(DELETED_SHARE_BOUND) || (share > wanted && is_paid())
        };
        let due = segments.iter().filter(|s| s.deleted > 0).filter(is_due);
        due.max_by_key(|s| s.deleted).map(|worst| self.without_deleted(worst))
    }

    /// A graph stays one although it is a little small for one without its deleted rows: it would be made
    /// anew as soon as a few rows come.
    fn without_deleted(&self, segment: &SegmentFacts) -> MergeJob {
        let least = self.index_rows_min.filter(|_| segment.has_index).map(|least| least / 2);
        let indexes = least.map_or(self.indexes(), IndexRule::FromRows);
        MergeJob { indexes, is_removal: true, ..self.job(vec![segment.id], false) }
    }

    /// When it is quiet, whatever has a deleted row is rewritten without it, the cheapest first.
    fn remove_deleted(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let cost = |s: &SegmentFacts| self.cost(&[s], false);
        let is_swept = |s: &&SegmentFacts| s.deleted > 0 && s.id < self.removal_before;
        let cheapest = segments.iter().filter(is_swept).min_by_key(|s| cost(s))?;
        (cost(cheapest) <= self.budget.removal).then(|| self.without_deleted(cheapest))
    }

    /// Rows without a graph go into one.
    fn link_waiting(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let rows_min = self.index_rows_min?;
        let mut waiting: Vec<&SegmentFacts> = Vec::new();
        let mut size = Size::default();
        for segment in segments.iter().filter(|s| !s.has_index) {
            if waiting.is_empty() || self.fits(size + segment.live()) {
                size = size + segment.live();
                waiting.push(segment);
            }
        }
        if waiting.is_empty() || size.vectors < rows_min.max(2) {
            return None;
        }
        let with = |base| std::iter::once(base).chain(waiting.iter().copied()).collect::<Vec<_>>();
        let base = segments
            .iter()
            .filter(|s| s.has_index)
            .filter(|s| s.vectors <= EXTEND_RATIO * size.vectors && self.fits(s.whole() + size))
            .filter(|s| self.cost(&with(s), true) <= self.budget.joins)
            .max_by_key(|s| s.vectors);
        let ids = waiting.iter().map(|s| s.id);
        if let Some(base) = base {
            return Some(self.job(std::iter::once(base.id).chain(ids).collect(), true));
        }
        let is_paid = self.cost(&waiting, false) <= self.budget.joins;
        let are_many = size.vectors >= WAITING_BOUND * rows_min;
        let is_first = self.is_still && self.budget.is_first_order;
        (is_paid || are_many || is_first).then(|| MergeJob {
            is_first_order: !is_paid && !are_many,
            ..self.job(ids.collect(), false)
        })
    }

    /// When nothing is being written, everything becomes one segment, by extending the largest graph.
    fn put_in_order(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        if !self.is_still {
            return None;
        }
        let mut graphs: Vec<&SegmentFacts> = segments.iter().filter(|s| s.has_index).collect();
        graphs.sort_by_key(|s| std::cmp::Reverse(s.vectors));
        let largest = graphs.first()?.vectors;
        graphs.extend(segments.iter().filter(|s| !s.has_index));
        let sources = self.fitting(&graphs);
        let added: u64 = sources[1..].iter().map(|s| s.live().vectors).sum();
        let is_paid = self.cost(&sources, true) <= self.budget.joins;
        let is_due = sources.len() > 1 && REST_RATIO * added >= largest;
        (is_due && (is_paid || self.budget.is_first_order)).then(|| MergeJob {
            is_first_order: !is_paid,
            ..self.job(sources.iter().map(|s| s.id).collect(), true)
        })
    }

    /// Where that cannot be paid for, rows without a graph, fewer than are worth one, join the smallest graph
    /// for which it can, rather than being scanned by every query.
    fn link_rest(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let flat: Vec<&SegmentFacts> = segments.iter().filter(|s| !s.has_index).collect();
        let size = flat.iter().map(|s| s.live()).fold(Size::default(), Size::add);
        if !self.is_still || size.vectors == 0 {
            return None;
        }
        let with = |base| std::iter::once(base).chain(flat.iter().copied()).collect::<Vec<_>>();
        let base = segments
            .iter()
            .filter(|s| s.has_index)
            .filter(|s| s.vectors <= REST_RATIO * size.vectors && self.fits(s.whole() + size))
            .filter(|s| self.cost(&with(s), true) <= self.budget.joins)
            .min_by_key(|s| s.vectors)?;
        Some(self.job(with(base).iter().map(|s| s.id).collect(), true))
    }

    /// Graphs are joined by extending the largest: of all, or of those that are small for many to be fewer.
    fn join_graphs(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let mut graphs: Vec<&SegmentFacts> = segments.iter().filter(|s| s.has_index).collect();
        graphs.sort_by_key(|s| std::cmp::Reverse(s.vectors));
        let (largest, rest) = graphs.split_first()?;
        let small: u64 = rest.iter().map(|s| s.live().vectors).sum();
        let mut joined = self.fitting(&graphs);
        let is_worth_it = 2 * small >= largest.vectors && joined.len() > 1;
        if !is_worth_it || self.cost(&joined, true) > self.budget.joins {
            if graphs.len() <= GRAPHS_MAX {
                return None;
            }
            joined = self.fitting(self.smallest(&graphs));
            let is_paid = self.cost(&joined, true) <= self.budget.joins;
            if joined.len() < 2 || !(is_paid || graphs.len() > GRAPHS_BOUND) {
                return None;
            }
        }
        Some(self.job(joined.iter().map(|s| s.id).collect(), true))
    }

    /// Of graphs, largest first, those of the end that are of a size, two at least.
    fn smallest<'a, 'b>(&self, graphs: &'a [&'b SegmentFacts]) -> &'a [&'b SegmentFacts] {
        let mut vectors = 0;
        let mut first = graphs.len();
        while let Some(before) = first.checked_sub(1)
            && (graphs.len() - first < 2 || graphs[before].vectors <= vectors)
        {
            vectors += graphs[before].live().vectors;
            first = before;
        }
        &graphs[first..]
    }

    /// The first, and what one segment may hold with it.
    fn fitting<'b>(&self, segments: &[&'b SegmentFacts]) -> Vec<&'b SegmentFacts> {
        let mut size = Size::default();
        let mut fitting = Vec::new();
        for segment in segments {
            let added = if fitting.is_empty() { segment.whole() } else { segment.live() };
            if fitting.is_empty() || self.fits(size + added) {
                size = size + added;
                fitting.push(*segment);
            }
        }
        fitting
    }

    /// Segments without graphs are merged when several are of a size.
    fn join_flat(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let mut flat: Vec<&SegmentFacts> = segments.iter().filter(|s| !s.has_index).collect();
        flat.sort_by_key(|s| s.live().vectors);
        let mut sources = Vec::new();
        let mut size = Size::default();
        for segment in flat {
            let live = segment.live();
            let is_much_larger = sources.len() >= FLAT_FAN_IN && live.vectors > size.vectors;
            if is_much_larger || !self.fits(size + live) {
                break;
            }
            size = size + live;
            sources.push(segment);
        }
        let is_paid = self.cost(&sources, false) <= self.budget.joins;
        let least = if is_paid { FLAT_FAN_IN } else { FLAT_FAN_IN_BOUND };
        let mut ids: Vec<u32> = sources.iter().map(|s| s.id).collect();
        ids.sort_unstable();
        // What cannot be paid for gets no graph either.
        let indexes = if is_paid { self.indexes() } else { IndexRule::None };
        (sources.len() >= least).then(|| MergeJob { indexes, ..self.job(ids, false) })
    }

    /// Above the limit the smallest are merged, whatever rows_max says.
    fn too_many(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        if segments.len() <= self.segments_max {
            return None;
        }
        let mut by_size: Vec<&SegmentFacts> = segments.iter().collect();
        by_size.sort_by_key(|s| s.live().vectors);
        let mut vectors = 0;
        let fitting = by_size.iter().take(segments.len() / 2).take_while(|s| {
            vectors += s.live().vectors;
            vectors <= ROWS_MAX as u64
        });
        let mut sources: Vec<u32> = fitting.map(|s| s.id).collect();
        sources.sort_unstable();
        (sources.len() > 1).then(|| self.job(sources, false))
    }
}

#[cfg(test)]
mod tests;
