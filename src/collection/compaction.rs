//! What to merge next: a pure decision over the sealed segments.
//!
//! Sealing makes small segments without graphs, scanned exactly. As soon as enough rows wait, they go
//! into a graph: into that of the largest segment not much larger than they are, or into a new one.
//! Graphs are merged, by extending the larger, when the small ones together reach half of the
//! largest. So each row is linked into a graph about once, and a query meets few segments.
//!
//! What is scanned and linked are vectors: where rows have several, segments are as large as these.

use std::ops::Add;

use crate::native::ROWS_MAX;
use crate::segment::IndexRule;

/// Graph segments kept side by side at most.
const GRAPHS_MAX: usize = 4;
/// A graph is extended by rows that are at least this fraction of it.
const EXTEND_RATIO: u64 = 4;
/// The same when nothing is being written.
const REST_RATIO: u64 = 128;
/// Segments without graph and of similar size kept side by side at most.
const FLAT_FAN_IN: usize = 4;

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
        let rows = self.rows - self.deleted.min(self.rows);
        let share = u128::from(self.vectors) * u128::from(rows) / u128::from(self.rows.max(1));
        Size { rows, vectors: share as u64 }
    }
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
}

impl Policy {
    /// How many times its new rows a graph may have to be extended by them.
    fn extend_ratio(&self) -> u64 {
        if self.is_still { REST_RATIO } else { EXTEND_RATIO }
    }

    /// True for what one segment may hold.
    fn fits(&self, size: Size) -> bool {
        size.rows <= self.rows_max && size.vectors <= ROWS_MAX as u64
    }

    fn indexes(&self) -> IndexRule {
        self.index_rows_min.map_or(IndexRule::None, IndexRule::FromRows)
    }

    /// The next merge, or `None` when all is well. Every merge it proposes leaves fewer segments,
    /// fewer deleted rows or fewer rows without a graph, so a run of merges ends.
    pub fn next_merge(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        self.rewrite(segments)
            .or_else(|| self.link_waiting(segments))
            .or_else(|| self.join_graphs(segments))
            .or_else(|| self.join_flat(segments))
            .or_else(|| self.too_many(segments))
    }

    /// A segment with too many deleted rows is rewritten without them.
    fn rewrite(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let worst = segments
            .iter()
            .filter(|s| s.deleted > 0 && s.deleted as f64 > self.deleted_share_max * s.rows as f64)
            .max_by_key(|s| s.deleted)?;
        Some(MergeJob { sources: vec![worst.id], extend_first: false, indexes: self.indexes() })
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
            return self.link_rest(segments, &waiting, size);
        }
        let most = self.extend_ratio() * size.vectors;
        let base = segments
            .iter()
            .filter(|s| s.has_index)
            .filter(|s| s.vectors <= most && self.fits(s.whole() + size))
            .max_by_key(|s| s.vectors);
        let ids = waiting.iter().map(|s| s.id);
        Some(match base {
            Some(base) => MergeJob {
                sources: std::iter::once(base.id).chain(ids).collect(),
                extend_first: true,
                indexes: self.indexes(),
            },
            None => {
                MergeJob { sources: ids.collect(), extend_first: false, indexes: self.indexes() }
            }
        })
    }

    /// When nothing is being written, what is left over joins the smallest graph that it is not too
    /// small a part of, rather than being scanned by every query.
    fn link_rest(
        &self,
        segments: &[SegmentFacts],
        waiting: &[&SegmentFacts],
        size: Size,
    ) -> Option<MergeJob> {
        if !self.is_still || waiting.is_empty() {
            return None;
        }
        let base = segments
            .iter()
            .filter(|s| s.has_index)
            .filter(|s| s.vectors <= REST_RATIO * size.vectors && self.fits(s.whole() + size))
            .min_by_key(|s| s.vectors)?;
        let sources = std::iter::once(base.id).chain(waiting.iter().map(|s| s.id));
        Some(MergeJob { sources: sources.collect(), extend_first: true, indexes: self.indexes() })
    }

    /// Graphs are joined by extending the largest.
    fn join_graphs(&self, segments: &[SegmentFacts]) -> Option<MergeJob> {
        let mut graphs: Vec<&SegmentFacts> = segments.iter().filter(|s| s.has_index).collect();
        graphs.sort_by_key(|s| std::cmp::Reverse(s.vectors));
        let (largest, rest) = graphs.split_first()?;
        let small: u64 = rest.iter().map(|s| s.live().vectors).sum();
        let is_worth_it = match self.is_still {
            true => REST_RATIO * small >= largest.vectors,
            false => 2 * small >= largest.vectors || graphs.len() > GRAPHS_MAX,
        };
        if rest.is_empty() || !is_worth_it {
            return None;
        }
        let mut size = largest.whole();
        let mut sources = vec![largest.id];
        for segment in rest {
            if self.fits(size + segment.live()) {
                size = size + segment.live();
                sources.push(segment.id);
            }
        }
        (sources.len() > 1).then(|| MergeJob {
            sources,
            extend_first: true,
            indexes: self.indexes(),
        })
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
            sources.push(segment.id);
        }
        sources.sort_unstable();
        (sources.len() >= FLAT_FAN_IN).then(|| MergeJob {
            sources,
            extend_first: false,
            indexes: self.indexes(),
        })
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
        (sources.len() > 1).then(|| MergeJob {
            sources,
            extend_first: false,
            indexes: self.indexes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy {
            index_rows_min: Some(10_000),
            deleted_share_max: 0.2,
            rows_max: u64::MAX,
            segments_max: 16,
            is_still: false,
        }
    }

    fn segment(id: u32, rows: u64, has_index: bool) -> SegmentFacts {
        SegmentFacts { id, rows, vectors: rows, deleted: 0, has_index }
    }

    #[test]
    fn waiting_rows_extend_a_graph_not_much_larger_than_they_are() {
        let segments = [segment(0, 40_000, true), segment(1, 9_999, false)];
        assert_eq!(policy().next_merge(&segments), None);
        let segments =
            [segment(0, 40_000, true), segment(1, 6_000, false), segment(2, 6_000, false)];
        let job = policy().next_merge(&segments).unwrap();
        assert_eq!((job.sources, job.extend_first), (vec![0, 1, 2], true));
        let segments = [segment(0, 400_000, true), segment(1, 12_000, false)];
        let job = policy().next_merge(&segments).unwrap();
        assert_eq!((job.sources, job.extend_first), (vec![1], false));
    }

    #[test]
    fn rows_of_many_vectors_are_as_large_as_these() {
        let many = |id, rows, has_index| SegmentFacts {
            vectors: 100 * rows,
            ..segment(id, rows, has_index)
        };
        assert_eq!(policy().next_merge(&[many(0, 99, false)]), None);
        let job = policy().next_merge(&[many(0, 99, false), many(1, 1, false)]).unwrap();
        assert_eq!((job.sources, job.extend_first), (vec![0, 1], false));
        let full = many(0, 21_000_000, true);
        let job = policy().next_merge(&[full, many(1, 2_000_000, false)]).unwrap();
        assert_eq!(job.sources, [1], "no graph has 2.3 billion vectors");
    }

    #[test]
    fn deleted_rows_are_reclaimed() {
        let full = SegmentFacts { deleted: 21, ..segment(3, 100, false) };
        let job = policy().next_merge(&[segment(0, 100, false), full]).unwrap();
        assert_eq!(job.sources, [3]);
        let few = SegmentFacts { deleted: 20, ..segment(3, 100, false) };
        assert_eq!(policy().next_merge(&[few]), None);
    }

    #[test]
    fn segments_as_large_as_the_collection_allows_stay_as_they_are() {
        let policy = Policy { rows_max: 100, index_rows_min: None, ..policy() };
        let segments: Vec<_> = (0..10).map(|id| segment(id, 100, false)).collect();
        assert_eq!(policy.next_merge(&segments), None);
        let segments: Vec<_> = (0..17).map(|id| segment(id, 100, false)).collect();
        assert_eq!(policy.next_merge(&segments).unwrap().sources.len(), 8);
    }

    fn apply(segments: &[SegmentFacts], job: &MergeJob, id: u32) -> Vec<SegmentFacts> {
        let is_source = |s: &&SegmentFacts| job.sources.contains(&s.id);
        let sources: Vec<_> = segments.iter().filter(is_source).collect();
        let extended: u64 = sources
            .iter()
            .filter(|s| job.extend_first && s.id == job.sources[0])
            .map(|s| s.deleted)
            .sum();
        let live = sources.iter().map(|s| s.live()).fold(Size::default(), Size::add);
        let mut left: Vec<_> = segments.iter().filter(|s| !is_source(s)).copied().collect();
        let rows = live.rows + extended;
        let vectors = live.vectors.max(live.rows) * rows / live.rows.max(1);
        let has_index = matches!(job.indexes, IndexRule::FromRows(min) if vectors >= min.max(2));
        if rows > 0 {
            left.push(SegmentFacts { id, rows, vectors, deleted: extended, has_index });
        }
        left
    }

    proptest! {
        /// Merging comes to an end, with few segments and no unbounded wait for a graph.
        #[test]
        fn merges_come_to_rest(
            sizes in proptest::collection::vec((1u64..200_000, 0u64..100, any::<bool>()), 0..40),
            rows_max in prop_oneof![Just(u64::MAX), 1u64..300_000],
            graphs in any::<bool>(),
            is_still in any::<bool>(),
            vectors_of_row in prop_oneof![Just(1u64), 1u64..400],
        ) {
            let policy = Policy {
                rows_max,
                is_still,
                index_rows_min: graphs.then_some(10_000),
                ..policy()
            };
            let mut segments: Vec<_> = sizes
                .into_iter()
                .enumerate()
                .map(|(id, (rows, deleted, has_index))| SegmentFacts {
                    id: id as u32,
                    rows,
                    vectors: rows * vectors_of_row,
                    deleted: rows * deleted / 100,
                    has_index: has_index && graphs && rows * vectors_of_row >= 10_000,
                })
                .collect();
            let live_rows = |segments: &[SegmentFacts]| -> u64 {
                segments.iter().map(|segment| segment.live().rows).sum()
            };
            let live = live_rows(&segments);
            let mut steps = 0;
            while let Some(job) = policy.next_merge(&segments) {
                prop_assert!(job.sources.iter().all(|id| segments.iter().any(|s| s.id == *id)));
                segments = apply(&segments, &job, 1_000 + steps);
                steps += 1;
                prop_assert!(steps < 500, "no end: {job:?} over {segments:?}");
            }
            prop_assert_eq!(live, live_rows(&segments));
            prop_assert!(segments.len() <= 16 + usize::from(segments.len() > 16));
        }
    }
}
