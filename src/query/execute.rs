//! From a plan and the segments of a snapshot to hits.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use rayon::prelude::*;

use super::reply::{Hit, KnnReply, QueryProfile};
use super::rows::{RowColumns, RowPlace, VectorBatch, chosen, fetch_rows};
use super::within::Admitted;
use crate::cancel::{CANCEL_ROWS, Cancel};
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::index::{Best, Candidate, RowSet, TopK, TopRows};
use crate::schema::{
    Aggregation, AggregationKind, CollectionSchema, Effort, ForwardRow, KnnPlan, RawFilter, Value,
    VectorColumn,
};
use crate::segment::{
    ColumnIndex, GrowingView, Outcome, Sealed, SegmentSearch, Told, scan_growing, scan_sealed,
    search_index,
};
use crate::simd::Query;

/// Rows scanned by one task when a query may use several threads.
const PARALLEL_ROWS: u64 = 65_536;

/// What a short query reads at most: some 100 microseconds' worth.
const SHORT_BYTES: u64 = 1 << 20;
/// As many times the rows wanted are looked for among vectors of which a row may have several.
const FEW_OF_A_ROW: usize = 2;

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

    /// Vectors of an index column, and as many as rows at least.
    pub fn vectors(&self, column: usize) -> u64 {
        match self {
            SegmentRef::Sealed(sealed) => self.rows().max(sealed.vectors(column).into()),
            SegmentRef::Growing(view) => self.rows().max(view.vectors(column)),
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

    /// The expressions that callers sent, all of which a row must pass, where they take little memory and may
    /// be kept. What else it is made of, they do not tell.
    fn sources(&self) -> Option<Vec<&RawFilter>> {
        Some(Vec::new())
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
    /// Rows that queries do not find all the same, by segment and row, ascending; a few.
    pub hidden: &'a [(u32, u32)],
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
        SegmentRef::Sealed(sealed)
            if !plan.exact && (k as u64) < segment.vectors(plan.column) / 8 =>
        {
            sealed.index(plan.column).map(|index| (*sealed, index))
        }
        _ => None,
    }
}

/// True for a query that reads so little that handing it to another thread would cost as much as
/// answering it: at most 1 MiB of rows and codes, for at most 100 hits, and what its filter looks at.
pub fn is_short(view: &View<'_>, plan: &KnnPlan) -> bool {
    let Some(column) = view.schema.columns.get(plan.column) else { return true };
    let (queries, k) = (plan.vectors.len() as u64, plan.k_per_vector());
    let is_max_sim = |aggregation: Aggregation| aggregation.kind == AggregationKind::MaxSim;
    // Whose candidates are scored with all their vectors.
    if queries.saturating_mul(k as u64) > SHORT_HITS || plan.aggregation.is_some_and(is_max_sim) {
        return false;
    }
    if !plan.options.are_short() {
        return false;
    }
    if let Some(filter) = view.filter {
        let costs = view.segments.iter().map(|segment| filter.cost(segment));
        if costs.fold(0, u64::saturating_add) > SHORT_COST {
            return false;
        }
    }
    let vector_bytes = column.vector_bytes().unwrap_or(0) as u64;
    let reads = view.segments.iter().map(|segment| match index_for(segment, plan, k) {
        Some((_, index)) if column.multi.is_some() => {
            let each = segment.vectors(plan.column).div_ceil(segment.rows().max(1));
            let rows_bytes = each.saturating_mul(k as u64).saturating_mul(vector_bytes);
            let nodes = k.saturating_mul(FEW_OF_A_ROW);
            index.search_bytes(plan.effort, nodes, vector_bytes).saturating_add(rows_bytes)
        }
        Some((_, index)) => index.search_bytes(plan.effort, k, vector_bytes),
        None => segment.vectors(plan.column).saturating_mul(vector_bytes),
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
pub(super) enum Stop {
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
    let View { schema, segments, filter, hidden, sequence, cancel } = *view;
    let started = Instant::now();
    let column = schema
        .columns
        .get(plan.column)
        .ok_or_else(|| Error::internal("the plan names a column that the schema lacks"))?;
    let kind = plan.aggregation.map(|aggregation| aggregation.kind);
    // Votes are for vectors, of which a row may have several; everything else ranks rows.
    let rows_once = column.multi.is_some() && kind != Some(AggregationKind::Votes);
    let there_are: u64 = match rows_once {
        true => segments.iter().map(SegmentRef::rows).sum(),
        false => segments.iter().map(|segment| segment.vectors(plan.column)).sum(),
    };
    let k = plan.k_per_vector().min(usize::try_from(there_are).unwrap_or(usize::MAX));
    check_wanted(plan, k, there_are, limits.results_max)?;
    let lists = if kind.is_some() { 1 } else { plan.vectors.len() };
    let mut reply = KnnReply {
        results: vec![Vec::new(); lists],
        exact: true,
        rows: segments.iter().map(SegmentRef::live_rows).sum(),
        profile,
        ..KnnReply::default()
    };
    if there_are == 0 || (k == 0 && !plan.options.all_within) {
        return Ok(Some(reply));
    }
    let allowed: Option<Vec<Arc<RowSet>>> =
        filter.map(|filter| segments.iter().map(|segment| filter.rows(segment)).collect());
    let allowed = allowed.as_deref();
    let told = &Told::default();
    let radius = plan.radius.filter(|_| kind != Some(AggregationKind::MaxSim));
    // What is hidden takes places among what an index finds.
    let hidden_vectors = |(segment, row): &(u32, u32)| {
        let vectors = segments[*segment as usize].vectors_of(plan.column, *row).unwrap_or_default();
        vectors.len() / column.vector_bytes().unwrap_or(1).max(1)
    };
    let spare = match rows_once {
        true => hidden.len(),
        false => hidden.iter().map(hidden_vectors).sum(),
    };
    let search = Search {
        compute,
        place,
        column,
        plan,
        k: k + spare,
        spare,
        rows_once,
        is_exact: plan.exact,
        radius,
        segments,
        allowed,
        hidden,
        sequence,
        cancel,
        told,
    };
    let found = match (plan.aggregation, plan.options.group) {
        (Some(aggregation), _) => search.together(aggregation).map(|(found, votes)| {
            reply.votes = votes;
            vec![found]
        }),
        (None, Some(group)) => search.grouped(group, limits.results_max).map(|found| {
            let (rows, group_rows) = found.into_iter().unzip();
            reply.group_rows = group_rows;
            rows
        }),
        (None, None) if plan.options.all_within => search.all_within(limits.results_max),
        (None, None) => search.each(|vector| search.one(vector)),
    };
    let found = match found {
        Ok(found) => found,
        Err(Stop::TooLong) => return Ok(None),
        Err(Stop::Failed(error)) => return Err(error),
    };
    profile.execute = started.elapsed();
    let started = Instant::now();
    fetch(view, plan, found, limits.bytes_max, &mut reply)?;
    profile.merge_and_sort = started.elapsed();
    reply.exact = told.is_exact();
    reply.expected_recall = told.expected_recall();
    reply.recall_source = told.source();
    reply.effort = told.effort();
    reply.profile = profile;
    Ok(Some(reply))
}

/// Refuses a query that asks for more than a reply may have; `k` with each query vector, of so many as
/// there are.
fn check_wanted(plan: &KnnPlan, k: usize, there_are: u64, results_max: u64) -> Result<()> {
    let size = plan.options.group.map_or(1, |group| group.size as u64);
    let each = (k as u64).saturating_mul(size).min(there_are);
    let wanted = each.saturating_mul(plan.vectors.len() as u64);
    if wanted <= results_max {
        return Ok(());
    }
    Err(Error::LimitExceeded {
        what: match (plan.aggregation, plan.options.group) {
            (Some(_), _) => "k_per_vector (or what stands for it) times query vectors",
            (None, Some(_)) => {
                "topk times the size of a group (no more than there are rows) times query vectors"
            }
            (None, None) => "topk (no more than there are rows) times query vectors",
        },
        value: wanted,
        limit: results_max,
        setting: "limits.query_results_max",
    })
}

/// Puts the winners into a reply with what is asked for of them, as long as that fits.
fn fetch(
    view: &View<'_>,
    plan: &KnnPlan,
    found: Vec<Vec<Candidate>>,
    bytes_max: u64,
    reply: &mut KnnReply,
) -> Result<()> {
    let named = |name: &String| name.len() + 16;
    let names: usize = match &plan.forwards {
        None => view.schema.forward_columns.iter().map(named).sum(),
        Some(columns) => columns.iter().map(|at| named(&view.schema.forward_columns[*at])).sum(),
    };
    let dimension = view.schema.columns[plan.column].dimension;
    let check_size = |bytes: u64| match bytes <= bytes_max {
        true => Ok(()),
        false => Err(Error::LimitExceeded {
            what: "size of the reply in bytes",
            value: bytes,
            limit: bytes_max,
            setting: "limits.reply_bytes_max",
        }),
    };
    let columns = RowColumns { forwards: Some(Vec::new()), vectors: plan.options.vectors.clone() };
    let mut bytes = 0;
    for (candidates, hits) in found.into_iter().zip(&mut reply.results) {
        hits.reserve_exact(candidates.len());
        for candidate in &candidates {
            if hits.len().is_multiple_of(CANCEL_ROWS) {
                view.cancel.check()?;
            }
            let (segment, row) = candidate.place;
            let forward =
                chosen(plan.forwards.as_deref(), || view.segments[segment as usize].forward(row));
            let values: usize = forward.iter().flatten().map(Value::payload_bytes).sum();
            bytes += (16 + names + values) as u64;
            check_size(bytes)?;
            let score = plan.options.score.score(plan.metric, dimension, candidate.score);
            hits.push(Hit { key: candidate.key, score, forward });
        }
        if !columns.vectors.is_empty() {
            let place = |Candidate { key, place: (segment, row), .. }: &Candidate| RowPlace {
                key: *key,
                segment: *segment,
                row: *row,
            };
            let places: Vec<RowPlace> = candidates.iter().map(place).collect();
            let rows = fetch_rows(view, &columns, &places, bytes_max - bytes)?;
            bytes += rows.vectors.iter().map(VectorBatch::bytes).sum::<u64>();
            // Those that did not fit were left out.
            check_size(if rows.keys.len() < places.len() { bytes_max + 1 } else { bytes })?;
            reply.vectors.push(rows.vectors);
        }
    }
    Ok(())
}

/// One query over the segments of a snapshot.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub compute: &'a Compute,
    pub place: Place,
    pub column: &'a VectorColumn,
    pub plan: &'a KnnPlan,
    /// Vectors, or rows, that are looked for with each query vector, and to spare.
    pub k: usize,
    /// How many of these make up for hidden ones.
    pub spare: usize,
    /// Each row is found once, by the nearest of its vectors; else each of its vectors is found.
    pub rows_once: bool,
    /// Whatever an index could find, all rows are looked at.
    pub is_exact: bool,
    /// Vectors with a score above this are left out.
    pub radius: Option<f32>,
    pub segments: &'a [SegmentRef<'a>],
    pub allowed: Option<&'a [Arc<RowSet>]>,
    /// Rows that are not found, ascending.
    pub hidden: &'a [(u32, u32)],
    pub sequence: u64,
    pub cancel: &'a Cancel,
    /// Is told how well indexes were searched, which may have missed something.
    pub told: &'a Told,
}

impl Search<'_> {
    /// What `one` finds for each query vector. Those of a batch are spread over the pool.
    pub fn each<T: Send>(
        &self,
        one: impl Fn(&[u8]) -> std::result::Result<T, Stop> + Sync,
    ) -> std::result::Result<Vec<T>, Stop> {
        match &self.plan.vectors[..] {
            [vector] => one(vector).map(|found| vec![found]),
            vectors if self.place == Place::Socket => vectors.iter().map(|v| one(v)).collect(),
            vectors => self.compute.spread(|| vectors.par_iter().map(|v| one(v)).collect()),
        }
    }

    /// The nearest of one query vector.
    pub fn one(&self, vector: &[u8]) -> std::result::Result<Vec<Candidate>, Stop> {
        let mut found = match self.rows_once {
            false => {
                let best = || TopK::new(self.k, self.radius);
                self.nearest(vector, || Admitted::new(self, best()))
            }
            true => {
                let best = || TopRows::new(self.k, self.radius);
                self.nearest(vector, || Admitted::new(self, best()))
            }
        }?;
        found.truncate(self.k - self.spare);
        Ok(found)
    }

    /// A query vector, ready for scoring.
    pub fn query(&self, vector: &[u8]) -> Result<Query> {
        let VectorColumn { element, dimension, .. } = *self.column;
        let query = Query::new(element, self.plan.metric, dimension, vector);
        query.ok_or_else(|| Error::internal("a checked query vector does not fit"))
    }

    /// What `best` keeps of one query vector's neighbours, nearest first; of each segment by itself, where
    /// they are many: large exact scans are spread over the pool.
    pub fn nearest<B: Best>(
        &self,
        vector: &[u8],
        best: impl Fn() -> B + Sync,
    ) -> std::result::Result<Vec<Candidate>, Stop> {
        let query = self.query(vector)?;
        let scanned = self.scanned_vectors();
        if scanned < 2 * PARALLEL_ROWS {
            let mut top = best();
            for position in 0..self.segments.len() {
                self.segment(position, &query, vector, &mut top)?;
            }
            return Ok(top.into_sorted());
        }
        let one_segment = |position: usize| {
            let mut top = best();
            self.segment(position, &query, vector, &mut top)?;
            Ok(top.into_sorted())
        };
        let parts: Vec<Vec<Candidate>> = self.compute.spread(|| {
            (0..self.segments.len())
                .into_par_iter()
                .map(one_segment)
                .collect::<std::result::Result<_, Stop>>()
        })?;
        let mut found = parts.concat();
        found.sort_unstable();
        Ok(found)
    }

    fn scanned_vectors(&self) -> u64 {
        let scanned = self.segments.iter().filter(|segment| self.index_of(segment).is_none());
        scanned.map(|segment| segment.vectors(self.plan.column)).sum()
    }

    /// The index that a segment is searched by.
    fn index_of<'s>(&self, segment: &SegmentRef<'s>) -> Option<(&'s Sealed, &'s ColumnIndex)> {
        if self.is_exact { None } else { index_for(segment, self.plan, self.k) }
    }

    /// True where any segment is searched by an index.
    pub fn has_index(&self) -> bool {
        self.segments.iter().any(|segment| self.index_of(segment).is_some())
    }

    fn segment(
        &self,
        position: usize,
        query: &Query,
        vector: &[u8],
        top: &mut impl Best,
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
            declared: self.column,
            allowed,
            scan_bytes_max: match self.place {
                Place::Socket => SHORT_BYTES,
                Place::Search => u64::MAX,
            },
            k: self.k,
            effort: self.plan.effort,
            likeness: None,
            boost: None,
            keeps_promise: matches!(self.plan.effort, Effort::Recall(_)),
            told: self.told,
            refine_k: self.plan.refine_k,
            sequence: self.sequence,
            segment: position as u32,
            cancel: self.cancel,
        };
        if let Some((sealed, index)) = self.index_of(segment) {
            if self.walk((sealed, index), &search, top)? {
                return Ok(());
            }
            // The search ended short of k though more rows are live, or what it found would not do: the
            // promise is kept by scanning.
            let vectors = segment.vectors(self.plan.column);
            if self.place == Place::Socket && vectors * vector.len() as u64 > SHORT_BYTES {
                return Err(Stop::TooLong);
            }
        }
        match segment {
            SegmentRef::Growing(view) => scan_growing(view, &search, top),
            SegmentRef::Sealed(sealed) => scan_sealed(sealed, &search, top),
        }
        Ok(self.cancel.check()?)
    }

    /// Offers the first k rows that an index found vectors of, each with the nearest of all its vectors:
    /// that need not be one that was found.
    fn offer_rows(
        &self,
        sealed: &Sealed,
        search: &SegmentSearch<'_>,
        found: &[Candidate],
        top: &mut impl Best,
    ) {
        let mut scores = Vec::new();
        for candidate in rows_of(found, self.k) {
            let vectors = sealed.vectors_of(search.column, candidate.place.1).unwrap_or_default();
            scores.resize(vectors.len() / search.vector.len().max(1), 0.0);
            if search.query.distances(vectors, &mut scores) {
                let least = scores.iter().copied().fold(candidate.score, f32::min);
                top.push(Candidate { score: least, ..candidate });
            }
        }
    }

    /// Offers what an index finds, and says whether that is as many as there can be. Where rows are
    /// looked for and several of the nearest vectors are of one, more vectors are.
    fn walk(
        &self,
        (sealed, index): (&Sealed, &ColumnIndex),
        search: &SegmentSearch<'_>,
        top: &mut impl Best,
    ) -> std::result::Result<bool, Stop> {
        let mut wanted = if self.rows_once { search.k * FEW_OF_A_ROW } else { search.k };
        loop {
            let search = SegmentSearch { k: wanted, ..*search };
            let mut own = TopK::new(wanted, None);
            let found = match search_index(sealed, index, &search, &mut own)? {
                Outcome::Found(found) => found,
                Outcome::TooLong => return Err(Stop::TooLong),
                Outcome::Scan => return Ok(false),
            };
            let own = own.into_sorted();
            let is_beyond = |radius: f32| own.last().is_some_and(|last| last.score > radius);
            let rows = if self.rows_once { rows_of(&own, self.k).len() } else { found };
            let is_enough = match search.allowed.is_some() && found < wanted {
                true => true,
                false if self.rows_once => rows == self.k || self.radius.is_some_and(is_beyond),
                false => found >= wanted.min(index.nodes()),
            };
            if is_enough {
                match self.rows_once {
                    true => self.offer_rows(sealed, &search, &own, top),
                    false => own.into_iter().for_each(|candidate| top.push(candidate)),
                }
                return Ok(true);
            }
            if found < wanted || !self.rows_once {
                return Ok(false);
            }
            wanted = (wanted * FEW_OF_A_ROW).max(wanted * self.k / rows.max(1));
            // A scan is as quick.
            if wanted >= index.nodes() / 8 {
                return Ok(false);
            }
            let vector_bytes = search.vector.len() as u64;
            let bytes = index.search_bytes(search.effort, wanted, vector_bytes);
            if self.place == Place::Socket && bytes > SHORT_BYTES {
                return Err(Stop::TooLong);
            }
        }
    }
}

/// The first candidate of each row of a segment, of `most` rows.
fn rows_of(found: &[Candidate], most: usize) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let firsts = found.iter().filter(|candidate| seen.insert(candidate.place.1));
    firsts.take(most).copied().collect()
}
