//! From a plan and the segments of a snapshot to hits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use super::reply::{Hit, KnnReply, QueryProfile};
use super::rows::chosen;
use crate::cancel::{CANCEL_ROWS, Cancel};
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::index::{Candidate, RowSet, TopK};
use crate::schema::{CollectionSchema, ForwardRow, KnnPlan, Value, VectorColumn};
use crate::segment::{
    ColumnIndex, GrowingView, Sealed, SegmentSearch, scan_growing, scan_sealed, search_index,
};
use crate::simd::Query;

/// Rows scanned by one task when a query may use several threads.
const PARALLEL_ROWS: u64 = 65_536;

/// What a short query reads at most: some 100 microseconds' worth.
const SHORT_BYTES: u64 = 1 << 20;
/// Hits of a short query, whose forward values are fetched one by one.
const SHORT_HITS: u64 = 100;
/// Values that the filter of a short query looks at.
const SHORT_COST: u64 = 4_096;

/// A segment of a snapshot.
#[derive(Debug, Clone, Copy)]
pub enum SegmentRef<'a> {
    /// Sealed.
    Sealed(&'a Sealed),
    /// Growing or frozen.
    Growing(&'a GrowingView),
}

impl SegmentRef<'_> {
    /// Rows, deleted ones included; they are numbered from 0.
    pub fn rows(&self) -> u64 {
        match self {
            SegmentRef::Sealed(sealed) => u64::from(sealed.rows()),
            SegmentRef::Growing(view) => u64::from(view.rows),
        }
    }

    /// The key of a row.
    pub fn key(&self, row: u32) -> Option<u64> {
        match self {
            SegmentRef::Sealed(sealed) => sealed.key(row),
            SegmentRef::Growing(view) => {
                view.locate(row).and_then(|(block, at)| block.rows.keys.get(at).copied())
            }
        }
    }

    fn live_rows(&self) -> u64 {
        let deleted = match self {
            SegmentRef::Sealed(sealed) => sealed.tombstones.deleted(),
            SegmentRef::Growing(view) => view.deleted(),
        };
        self.rows().saturating_sub(deleted)
    }

    /// The forward values of a row.
    pub fn forward(&self, row: u32) -> ForwardRow {
        match self {
            SegmentRef::Sealed(sealed) => sealed.forward(row),
            SegmentRef::Growing(view) => view.forward(row),
        }
    }
}

/// Says which rows of each segment a query may find.
pub trait RowFilter: Send + Sync {
    /// The rows of a segment. Deleted rows may be among them.
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet>;

    /// How many values are looked at to tell these rows, roughly.
    fn cost(&self, segment: &SegmentRef<'_>) -> u64 {
        segment.rows()
    }
}

/// What a query sees.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The collection's declaration.
    pub schema: &'a CollectionSchema,
    /// The segments of a snapshot.
    pub segments: &'a [SegmentRef<'a>],
    /// Says which rows may be found; `None` for all.
    pub filter: Option<&'a dyn RowFilter>,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// Says when nobody waits for the answer any more.
    pub cancel: &'a Cancel,
}

/// Bounds on one answer.
#[derive(Debug, Clone, Copy)]
pub struct ReplyLimits {
    /// Hits over all query vectors.
    pub results_max: u64,
    /// Bytes of all hits with their forward values and the names of these, roughly.
    pub bytes_max: u64,
}

/// The index to use for a segment, if the plan allows one and the segment has it. When a good part
/// of the segment is wanted anyway, scanning it is quicker and exact.
fn index_for<'s>(
    segment: &SegmentRef<'s>,
    plan: &KnnPlan,
    k: usize,
) -> Option<(&'s Sealed, &'s ColumnIndex)> {
    match segment {
        SegmentRef::Sealed(sealed) if !plan.exact && (k as u64) < u64::from(sealed.rows()) / 8 => {
            sealed.index(plan.column).map(|index| (*sealed, index))
        }
        _ => None,
    }
}

/// True for a query that reads so little that handing it to another thread would cost as much as
/// answering it: at most 1 MiB of rows and codes, for at most 100 hits, and what its filter looks at.
pub fn is_short(view: &View<'_>, plan: &KnnPlan) -> bool {
    let Some(column) = view.schema.columns.get(plan.column) else { return true };
    let queries = plan.vectors.len() as u64;
    if queries.saturating_mul(plan.topk as u64) > SHORT_HITS {
        return false;
    }
    if let Some(filter) = view.filter {
        let costs = view.segments.iter().map(|segment| filter.cost(segment));
        if costs.fold(0, u64::saturating_add) > SHORT_COST {
            return false;
        }
    }
    let vector_bytes = column.vector_bytes().unwrap_or(0) as u64;
    let reads = view.segments.iter().map(|segment| match index_for(segment, plan, plan.topk) {
        Some((_, index)) => index.search_bytes(plan.effort, plan.topk, vector_bytes),
        None => segment.rows().saturating_mul(vector_bytes),
    });
    let bytes = reads.fold(0, u64::saturating_add);
    bytes.saturating_mul(queries) <= SHORT_BYTES
}

/// Where a query runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a thread that serves sockets: only as long as it stays short.
    Socket,
    /// On a search thread, with large scans and batches spread over the scan pool.
    Search,
}

/// Why a search has no answer.
enum Stop {
    /// It has to scan more than it may where it runs.
    TooLong,
    /// It failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Answers a query over what a snapshot sees. `None` for a query that did not stay short at
/// [`Place::Socket`].
pub fn execute(
    compute: &Compute,
    place: Place,
    view: &View<'_>,
    plan: &KnnPlan,
    limits: ReplyLimits,
    mut profile: QueryProfile,
) -> Result<Option<KnnReply>> {
    let View { schema, segments, filter, sequence, cancel } = *view;
    let started = Instant::now();
    let rows: u64 = segments.iter().map(SegmentRef::rows).sum();
    let k = plan.topk.min(usize::try_from(rows).unwrap_or(usize::MAX));
    let wanted = k as u64 * plan.vectors.len() as u64;
    if wanted > limits.results_max {
        return Err(Error::LimitExceeded {
            what: "topk (no more than there are rows) times query vectors",
            value: wanted,
            limit: limits.results_max,
            setting: "limits.query_results_max",
        });
    }
    let mut reply = KnnReply {
        results: vec![Vec::new(); plan.vectors.len()],
        exact: true,
        rows: segments.iter().map(SegmentRef::live_rows).sum(),
        profile,
    };
    if k == 0 {
        return Ok(Some(reply));
    }
    let column = schema
        .columns
        .get(plan.column)
        .ok_or_else(|| Error::internal("the plan names a column that the schema lacks"))?;
    let allowed: Option<Vec<Arc<RowSet>>> =
        filter.map(|filter| segments.iter().map(|segment| filter.rows(segment)).collect());
    let allowed = allowed.as_deref();
    let walked = AtomicBool::new(false);
    let search =
        Search { compute, place, column, plan, k, segments, allowed, sequence, cancel, walked };
    let found: std::result::Result<Vec<Vec<Candidate>>, Stop> = match &plan.vectors[..] {
        [vector] => search.one(vector).map(|found| vec![found]),
        vectors if place == Place::Socket => vectors.iter().map(|v| search.one(v)).collect(),
        vectors => compute.spread(|| vectors.par_iter().map(|v| search.one(v)).collect()),
    };
    let found = match found {
        Ok(found) => found,
        Err(Stop::TooLong) => return Ok(None),
        Err(Stop::Failed(error)) => return Err(error),
    };
    profile.execute = started.elapsed();
    let started = Instant::now();
    reply.results = fetch(view, plan, found, limits.bytes_max)?;
    profile.merge_and_sort = started.elapsed();
    reply.exact = !search.walked.load(Ordering::Relaxed);
    reply.profile = profile;
    Ok(Some(reply))
}

/// The winners with their forward values, as long as these fit into a reply.
fn fetch(
    view: &View<'_>,
    plan: &KnnPlan,
    found: Vec<Vec<Candidate>>,
    bytes_max: u64,
) -> Result<Vec<Vec<Hit>>> {
    let named = |name: &String| name.len() + 16;
    let names: usize = match &plan.forwards {
        None => view.schema.forward_columns.iter().map(named).sum(),
        Some(columns) => columns.iter().map(|at| named(&view.schema.forward_columns[*at])).sum(),
    };
    let mut bytes = 0;
    let mut results = Vec::with_capacity(found.len());
    for candidates in found {
        let mut hits = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            if hits.len().is_multiple_of(CANCEL_ROWS) {
                view.cancel.check()?;
            }
            let (segment, row) = candidate.place;
            let forward =
                chosen(plan.forwards.as_deref(), || view.segments[segment as usize].forward(row));
            let values: usize = forward.iter().flatten().map(Value::payload_bytes).sum();
            bytes += (16 + names + values) as u64;
            if bytes > bytes_max {
                return Err(Error::LimitExceeded {
                    what: "size of the reply in bytes",
                    value: bytes,
                    limit: bytes_max,
                    setting: "limits.reply_bytes_max",
                });
            }
            hits.push(Hit { key: candidate.key, score: candidate.score, forward });
        }
        results.push(hits);
    }
    Ok(results)
}

struct Search<'a> {
    compute: &'a Compute,
    place: Place,
    column: &'a VectorColumn,
    plan: &'a KnnPlan,
    k: usize,
    segments: &'a [SegmentRef<'a>],
    allowed: Option<&'a [Arc<RowSet>]>,
    sequence: u64,
    cancel: &'a Cancel,
    /// A graph was walked, which may have missed something.
    walked: AtomicBool,
}

impl Search<'_> {
    /// The k nearest of one query vector. Large exact scans are spread over the pool.
    fn one(&self, vector: &[u8]) -> std::result::Result<Vec<Candidate>, Stop> {
        let query =
            Query::new(self.column.element, self.plan.metric, self.column.dimension, vector);
        let query = query.ok_or_else(|| Error::internal("a checked query vector does not fit"))?;
        let scanned = self.scanned_rows();
        if scanned < 2 * PARALLEL_ROWS {
            let mut top = TopK::new(self.k, self.plan.radius);
            for position in 0..self.segments.len() {
                self.segment(position, &query, vector, &mut top)?;
            }
            return Ok(top.into_sorted());
        }
        let one_segment = |position: usize| {
            let mut top = TopK::new(self.k, self.plan.radius);
            self.segment(position, &query, vector, &mut top)?;
            Ok(top.into_sorted())
        };
        let parts: Vec<Vec<Candidate>> = self.compute.spread(|| {
            (0..self.segments.len())
                .into_par_iter()
                .map(one_segment)
                .collect::<std::result::Result<_, Stop>>()
        })?;
        let mut top = TopK::new(self.k, self.plan.radius);
        parts.into_iter().flatten().for_each(|candidate| top.push(candidate));
        Ok(top.into_sorted())
    }

    fn scanned_rows(&self) -> u64 {
        let has_index = |segment: &SegmentRef<'_>| index_for(segment, self.plan, self.k).is_some();
        self.segments.iter().filter(|segment| !has_index(segment)).map(SegmentRef::rows).sum()
    }

    fn segment(
        &self,
        position: usize,
        query: &Query,
        vector: &[u8],
        top: &mut TopK,
    ) -> std::result::Result<(), Stop> {
        self.cancel.check()?;
        let segment = &self.segments[position];
        let allowed = self.allowed.map(|sets| &*sets[position]);
        if allowed.is_some_and(RowSet::is_empty) {
            return Ok(());
        }
        let search = SegmentSearch {
            vector,
            query,
            metric: self.plan.metric,
            column: self.plan.column,
            allowed,
            scan_bytes_max: match self.place {
                Place::Socket => SHORT_BYTES,
                Place::Search => u64::MAX,
            },
            k: self.k,
            effort: self.plan.effort,
            refine_k: self.plan.refine_k,
            sequence: self.sequence,
            segment: position as u32,
            cancel: self.cancel,
        };
        if let Some((sealed, index)) = index_for(segment, self.plan, self.k) {
            let mut own = TopK::new(self.k, None);
            let found = search_index(sealed, index, &search, &mut own)?.ok_or(Stop::TooLong)?;
            if allowed.is_some() || found >= self.k.min(index.nodes()) {
                own.into_sorted().into_iter().for_each(|candidate| top.push(candidate));
                self.walked.store(true, Ordering::Relaxed);
                return Ok(());
            }
            // The search ended short of k though more rows are live: the promise is kept by scanning.
            let bytes = segment.rows().saturating_mul(vector.len() as u64);
            if self.place == Place::Socket && bytes > SHORT_BYTES {
                return Err(Stop::TooLong);
            }
        }
        match segment {
            SegmentRef::Growing(view) => scan_growing(view, &search, top),
            SegmentRef::Sealed(sealed) => scan_sealed(sealed, &search, top),
        }
        Ok(self.cancel.check()?)
    }
}
