//! What a collection reports of itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Collection, WrittenReport};
use crate::schema::{Effort, IndexKind, Likeness, VectorColumn, promise};
use crate::segment::{IndexRecall, Sealed, SegmentContext};

/// Bytes of a growing row's key and delete mark.
const KEY_BYTES: u64 = 16;

/// Neighbours whose recall is told.
const RECALL_OF: usize = 10;

/// The state of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Takes new rows.
    Growing,
    /// Full, being written to files; still searched exactly.
    Sealing,
    /// Sealed, being merged into another.
    Compacting,
    /// Sealed.
    Sealed,
}

/// Statistics of one segment. Minima are `u64::MAX` while nothing was inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStats {
    /// Identity within the collection.
    pub segment_id: u32,
    /// The state.
    pub state: SegmentState,
    /// Insertions ever made, updates included; deletes subtract nothing.
    pub doc_count: u64,
    /// Rows that are visible now.
    pub live_rows: u64,
    /// Files.
    pub file_count: u64,
    /// Bytes of the files, or of memory while growing.
    pub file_bytes: u64,
    /// Document ids given, first and last.
    pub doc_ids: (u64, u64),
    /// Primary keys, lowest and highest.
    pub primary_keys: (u64, u64),
    /// LSNs, lowest and highest.
    pub lsns: (u64, u64),
}

/// Statistics of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionStats {
    /// The name.
    pub name: String,
    /// Its folder.
    pub path: String,
    /// Sealed segments first, the growing one last.
    pub segments: Vec<SegmentStats>,
}

/// Resident memory of a collection in bytes, by what it is for. Mapped files are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Rows that are not sealed yet.
    pub growing: u64,
    /// Codes of sealed vectors.
    pub codes: u64,
    /// Links of graphs.
    pub graphs: u64,
    /// Where each key's row is.
    pub keys: u64,
    /// Delete marks of sealed rows.
    pub deletes: u64,
    /// Graphs that are being made, with the codes that they are made by.
    pub builds: u64,
    /// Sealed rows in the order of forward columns, for filters.
    pub filters: u64,
}

impl MemoryReport {
    /// All of it.
    pub fn total(&self) -> u64 {
        let rows = self.growing + self.keys + self.deletes + self.filters;
        rows + self.codes + self.graphs + self.builds
    }
}

/// How far the indexing of a collection is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IndexingReport {
    /// Live rows that no graph holds, of columns that have graphs, those that are being linked included:
    /// they are scanned.
    pub rows_waiting: u64,
    /// No work is due or under way: what waits now stays as it is until something is written.
    pub is_settled: bool,
    /// Rows that the merge under way links.
    pub rows_linking: u64,
    /// How many of these are linked.
    pub rows_linked: u64,
    /// Seconds until these are all linked, going by those that are.
    pub seconds_left: Option<f64>,
}

/// What the index of a column is measured to find of the 10 nearest, as queries search it by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecallReport {
    /// The column.
    pub column: String,
    /// What was measured with its rows when it was built, 0 to 1, of the segment where it is least; `None`
    /// where some was not measured. Segments without index are scanned, and find all.
    pub expected: Option<f32>,
    /// What was found of the queries that were really asked, on average over the segments that were measured
    /// with them; `None` before there are any.
    pub live: Option<f32>,
    /// Half of the interval that the true mean lies in with a probability of 95%.
    pub live_deviation: f32,
    /// How many queries that is of.
    pub live_queries: u32,
    /// What is found of queries with filters that were really asked, as they are searched by now, of the segment
    /// and the share of rows let through where it is least; `None` before there are enough of them.
    pub filtered: Option<f32>,
    /// How many queries with filters were measured, in the segment where these were most.
    pub filtered_queries: u32,
}

/// The merge under way.
#[derive(Debug, Clone)]
pub(super) struct Merging {
    /// Its sources.
    pub sources: Vec<u32>,
    /// Rows to be linked.
    pub rows: u64,
    /// The collection's count of linked rows when it began.
    pub linked_before: u64,
    pub started: std::time::Instant,
}

impl Merging {
    /// Rows linked, and the seconds left, where the collection's count is now `linked`.
    pub fn progress(&self, linked: u64) -> (u64, Option<f64>) {
        let done = linked.saturating_sub(self.linked_before).min(self.rows);
        let left = (self.rows - done) as f64 / done as f64;
        (done, (done > 0).then(|| self.started.elapsed().as_secs_f64() * left))
    }
}

/// Why rows of these segments are scanned that an index would hold, but for what is yet to be done.
pub(super) fn unindexed(context: &SegmentContext, sealed: &[Arc<Sealed>]) -> Vec<String> {
    let (suspects, columns) = (&context.suspects, &context.schema.columns);
    let mut reasons: Vec<String> = Vec::new();
    for segment in sealed.iter().filter(|segment| segment.has_left_out()) {
        let places = 0..columns.len();
        reasons.extend(places.filter_map(|place| suspects.left_out(segment.id, place)));
    }
    let columns = columns.iter().enumerate();
    reasons.extend(columns.filter_map(|(place, column)| suspects.unbuilt(place, &column.name)));
    reasons
}

impl Collection {
    /// Why rows are scanned that an index would hold: indexes that are left out of service, columns whose
    /// indexes cannot be built, and too few rows to train one with.
    pub fn unindexed(&self) -> Vec<String> {
        let mut reasons = unindexed(&self.context, &self.published.snapshot().sealed);
        reasons.extend(self.too_few_to_train());
        reasons
    }

    /// The columns, in words, of which so few rows have no index that none can be trained with them.
    pub(super) fn too_few_to_train(&self) -> Vec<String> {
        let snapshot = self.published.snapshot();
        let mut reasons = Vec::new();
        for (place, column) in self.indexed_columns() {
            let IndexKind::Trained { recipe, .. } = &column.index else { continue };
            let flat = snapshot.sealed.iter().filter(|sealed| sealed.index(place).is_none());
            let flat = flat.filter(|sealed| !sealed.has_left_out());
            let flat: u64 = flat.map(|sealed| u64::from(sealed.vectors(place))).sum();
            let growing = snapshot.frozen.iter().chain(std::iter::once(&snapshot.growing));
            let vectors = flat + growing.map(|view| view.vectors(place)).sum::<u64>();
            if (1..recipe.rows_min()).contains(&vectors) {
                let (name, least) = (&column.name, recipe.rows_min());
                reasons.push(format!(
                    "{vectors} vectors of column {name:?} are scanned: an index of their own takes {least} to be trained with"
                ));
            }
        }
        reasons
    }

    /// Live rows.
    pub fn live_rows(&self) -> u64 {
        self.stats().segments.iter().map(|segment| segment.live_rows).sum()
    }

    /// Statistics of every segment.
    pub fn stats(&self) -> CollectionStats {
        let snapshot = self.published.snapshot();
        let merging = self.merging.lock().clone();
        let merging = merging.map(|merging| merging.sources).unwrap_or_default();
        let sealed = snapshot.sealed.iter().map(|sealed| {
            let state = match merging.contains(&sealed.id) {
                true => SegmentState::Compacting,
                false => SegmentState::Sealed,
            };
            let rows = u64::from(sealed.rows());
            SegmentStats {
                segment_id: sealed.id,
                state,
                doc_count: sealed.inserted.count,
                live_rows: rows - sealed.tombstones.deleted().min(rows),
                file_count: 1,
                file_bytes: sealed.file_bytes,
                doc_ids: (sealed.inserted.doc_ids.min, sealed.inserted.doc_ids.max),
                primary_keys: (sealed.inserted.keys.min, sealed.inserted.keys.max),
                lsns: (sealed.inserted.lsns.min, sealed.inserted.lsns.max),
            }
        });
        let next_id = self.manifest.lock().next_segment_id;
        let growing = snapshot.frozen.iter().chain(std::iter::once(&snapshot.growing));
        let growing = growing.enumerate().map(|(position, view)| {
            let is_last = position == snapshot.frozen.len();
            let rows = u64::from(view.rows);
            SegmentStats {
                segment_id: next_id.saturating_add(position as u32),
                state: if is_last { SegmentState::Growing } else { SegmentState::Sealing },
                doc_count: view.inserted.count,
                live_rows: rows - view.deleted().min(rows),
                file_count: self.schema.columns.len() as u64 + 1,
                file_bytes: view.bytes,
                doc_ids: match rows {
                    0 => (view.first_doc_id, 0),
                    _ => (view.inserted.doc_ids.min, view.inserted.doc_ids.max),
                },
                primary_keys: (view.inserted.keys.min, view.inserted.keys.max),
                lsns: (view.inserted.lsns.min, view.inserted.lsns.max),
            }
        });
        CollectionStats {
            name: self.schema.name.clone(),
            path: self.context.folder.display().to_string(),
            segments: sealed.chain(growing).collect(),
        }
    }

    /// The memory that the collection takes.
    pub fn memory(&self) -> MemoryReport {
        let snapshot = self.published.snapshot();
        let growing = snapshot.frozen.iter().chain(std::iter::once(&snapshot.growing));
        let mut report = MemoryReport {
            growing: growing.map(|view| view.bytes + u64::from(view.rows) * KEY_BYTES).sum(),
            keys: self.published.keys_bytes(),
            builds: self.seal_bytes.load(Ordering::Relaxed)
                + self.merge_bytes.load(Ordering::Relaxed),
            ..MemoryReport::default()
        };
        for sealed in &snapshot.sealed {
            let (codes, graphs) = sealed.index_bytes();
            report.codes += codes;
            report.graphs += graphs;
            report.filters += sealed.forward_index_bytes();
            report.deletes += size_of_val(sealed.tombstones.marks()) as u64;
        }
        report
    }

    /// What indexes are measured to find, of each column that has one.
    pub fn recall(&self) -> Vec<RecallReport> {
        let snapshot = self.published.snapshot();
        let columns = self.schema.columns.iter().enumerate();
        let columns = columns.filter(|(_, column)| column.index != IndexKind::Flat);
        let report = |(place, column): (usize, &VectorColumn)| {
            let indexes = snapshot.sealed.iter().filter_map(|sealed| sealed.index(place));
            let recalls: Vec<&IndexRecall> = indexes.map(|index| index.recall()).collect();
            let expected = |recall: &&IndexRecall| {
                let sample = recall.sample();
                let like = sample.trial(column.index.effort(), RECALL_OF, Likeness::Like);
                sample.is_measured(Likeness::Like).then_some(like.expected).flatten()
            };
            let expected: Option<Vec<f32>> = recalls.iter().map(expected).collect();
            let live: Vec<_> = recalls.iter().filter_map(|recall| recall.live()).collect();
            let filtered: Vec<_> = recalls.iter().filter_map(|recall| recall.filtered()).collect();
            let bands = || filtered.iter().flat_map(|filtered| filtered.bands());
            let promised = match column.index.effort() {
                Effort::Recall(target) => promise(target),
                Effort::Candidates(_) => 0.0,
            };
            let mean = live.iter().map(|live| live.recall).sum::<f32>() / live.len() as f32;
            RecallReport {
                column: column.name.clone(),
                expected: expected.map(|all| all.into_iter().fold(1.0, f32::min)),
                live: (!live.is_empty()).then_some(mean),
                live_deviation: live.iter().map(|live| live.deviation).fold(0.0, f32::max),
                live_queries: live.iter().map(|l| l.queries.0 + l.queries.1).max().unwrap_or(0),
                filtered: bands().map(|band| band.found_by_now(promised)).reduce(f32::min),
                filtered_queries: filtered.iter().map(|f| f.queries()).max().unwrap_or(0),
            }
        };
        columns.map(report).collect()
    }

    /// What was written.
    pub fn written(&self) -> WrittenReport {
        self.ledger.report()
    }

    /// How far indexing is.
    pub fn indexing(&self) -> IndexingReport {
        let snapshot = self.published.snapshot();
        let has_indexes = self.policy().index_rows_min.is_some();
        let flat = snapshot.sealed.iter().filter(|sealed| !sealed.has_index());
        let flat = flat.filter(|sealed| !self.is_beyond_indexing(sealed));
        let live = |rows: u32, deleted: u64| u64::from(rows).saturating_sub(deleted);
        let flat: u64 = flat.map(|sealed| live(sealed.rows(), sealed.tombstones.deleted())).sum();
        let growing = snapshot.frozen.iter().chain(std::iter::once(&snapshot.growing));
        let growing: u64 = growing.map(|view| live(view.rows, view.deleted())).sum();
        let mut report = IndexingReport {
            rows_waiting: if has_indexes { flat + growing } else { 0 },
            is_settled: self.is_settled(&snapshot),
            ..IndexingReport::default()
        };
        if let Some(merging) = &*self.merging.lock() {
            report.rows_linking = merging.rows;
            (report.rows_linked, report.seconds_left) =
                merging.progress(self.built.load(Ordering::Relaxed));
        }
        report
    }
}
