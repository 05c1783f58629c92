//! Recall of the queries that are really asked. A few of them are kept; in the background each is searched
//! for exactly, and with rising effort, in each segment, and the effort of later ones follows what that
//! shows. What is kept stays in the collection's folder, and is told to nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use rand::Rng;
use rustix::time::{ClockId, clock_gettime};

use super::Collection;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::index::{Best, GRAPH_LADDER, TopK};
use crate::native::Tuning;
use crate::schema::{
    CollectionSchema, Effort, IndexKind, KnnPlan, Likeness, RecallCurve, RecallPoint, VectorColumn,
};
use crate::segment::{
    ColumnIndex, LiveRecall, Outcome, Sealed, SegmentSearch, Told, scan_sealed, scans_by_itself,
    search_index,
};
use crate::simd::Query;
use crate::storage::replace_file;

/// The file of what is kept.
pub(super) const FILE: &str = "queries";
const MAGIC: &[u8; 8] = b"voisinq1";
/// Queries kept of each column, and taken in between two looks.
const KEPT: usize = 192;
const TAKEN: u32 = 48;
/// Bytes of vectors kept of each column at most.
const KEPT_BYTES: usize = 4 << 20;
/// So many of a kind say something.
const ENOUGH: usize = 24;
/// Neighbours whose recall is measured.
const FEW: usize = 10;
const MANY: usize = 100;
/// Processor time that may be saved up.
const SAVED_MAX: Duration = Duration::from_secs(1);
/// Time between two writes of the file.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// A query that was asked.
#[derive(Debug, Clone)]
struct Asked {
    /// Tells it from others that were kept at its place.
    number: u64,
    vector: Bytes,
}

/// The queries kept of one column: of all that were offered, each with the same chance at first, and
/// newer ones with a larger one later.
#[derive(Debug, Default)]
struct Reservoir {
    kept: Vec<Asked>,
    next: u64,
}

impl Reservoir {
    fn add(&mut self, vector: Bytes) {
        let room = (KEPT_BYTES / vector.len().max(1)).clamp(ENOUGH, KEPT);
        let asked = Asked { number: self.next, vector };
        self.next += 1;
        match self.kept.len() < room {
            true => self.kept.push(asked),
            false => {
                let place = rand::rng().random_range(0..self.kept.len());
                self.kept[place] = asked;
            }
        }
    }
}

/// What one query found in a segment at each effort of the ladder.
#[derive(Debug, Clone)]
struct Measured {
    likeness: Likeness,
    /// Of the nearest, the 10 and the 100 nearest.
    at: Vec<[f32; 3]>,
}

/// Processor time for measuring.
#[derive(Debug)]
struct Budget {
    left: Duration,
    seen: Instant,
}

/// The measurements of a segment's column, by query.
type OfSegment = HashMap<u64, Measured>;

/// Queries that were asked, and what is known of them.
#[derive(Debug)]
pub(super) struct LiveQueries {
    columns: Vec<Mutex<Reservoir>>,
    /// Queries that are wanted until the next look.
    wanted: AtomicU32,
    /// The share of a core that measuring may take; 0 switches it off.
    share: f64,
    budget: Mutex<Budget>,
    /// By segment and column.
    measured: Mutex<HashMap<(u32, usize), OfSegment>>,
    saved: Mutex<(Instant, u64)>,
    /// The queries kept and the segments there were when all were last measured.
    done: Mutex<(u64, Vec<u32>)>,
}

impl LiveQueries {
    /// None yet, for the columns of this schema.
    pub fn new(schema: &CollectionSchema, share: f64) -> Self {
        LiveQueries {
            columns: schema.columns.iter().map(|_| Mutex::default()).collect(),
            wanted: AtomicU32::new(if share > 0.0 { TAKEN } else { 0 }),
            share,
            budget: Mutex::new(Budget { left: SAVED_MAX, seen: Instant::now() }),
            measured: Mutex::default(),
            saved: Mutex::new((Instant::now(), 0)),
            done: Mutex::default(),
        }
    }

    /// Keeps a query's vectors, perhaps: those of one that was answered by a column's index as it does by
    /// default.
    pub fn offer(&self, plan: &KnnPlan, column: &VectorColumn) {
        if self.wanted.load(Ordering::Relaxed) == 0
            || plan.exact
            || plan.metric != column.metric
            || column.index == IndexKind::Flat
            || plan.options.all_within
        {
            return;
        }
        for vector in &plan.vectors {
            let less = |wanted: u32| wanted.checked_sub(1);
            if self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                return;
            }
            if let Some(reservoir) = self.columns.get(plan.column) {
                // A copy: the message that the vector came in is large perhaps.
                reservoir.lock().add(Bytes::copy_from_slice(vector));
            }
        }
    }

    /// Begins another interval: how much may be measured, and how many queries are taken.
    fn turn(&self) {
        if self.share <= 0.0 {
            return;
        }
        self.wanted.store(TAKEN, Ordering::Relaxed);
        let mut budget = self.budget.lock();
        let passed = budget.seen.elapsed();
        budget.seen = Instant::now();
        budget.left = (budget.left + passed.mul_f64(self.share)).min(SAVED_MAX);
    }

    fn spend(&self, spent: Duration) {
        let mut budget = self.budget.lock();
        budget.left = budget.left.saturating_sub(spent);
    }

    fn is_spent(&self) -> bool {
        self.budget.lock().left.is_zero()
    }

    fn kept(&self, column: usize) -> Vec<Asked> {
        self.columns.get(column).map(|reservoir| reservoir.lock().kept.clone()).unwrap_or_default()
    }

    /// What was kept when the collection was closed or killed. A file that does not fit is none: nothing
    /// but speed depends on it.
    pub fn restore(&self, schema: &CollectionSchema, file: &[u8]) -> Option<()> {
        let (head, sum) = file.split_at_checked(file.len().checked_sub(4)?)?;
        if crc32c::crc32c(head) != u32::from_le_bytes(sum.try_into().ok()?) {
            return None;
        }
        let mut rest = head.strip_prefix(MAGIC)?;
        while !rest.is_empty() {
            let (column, after) = rest.split_first_chunk::<4>()?;
            let (bytes, after) = after.split_first_chunk::<4>()?;
            let (vector, after) = after.split_at_checked(u32::from_le_bytes(*bytes) as usize)?;
            rest = after;
            let place = u32::from_le_bytes(*column) as usize;
            let column = schema.columns.get(place)?;
            // Declarations change.
            if column.vector_bytes() == Some(vector.len()) {
                self.columns[place].lock().add(Bytes::copy_from_slice(vector));
            }
        }
        Some(())
    }

    /// Queries that were ever kept.
    fn taken(&self) -> u64 {
        self.columns.iter().map(|reservoir| reservoir.lock().next).sum()
    }

    fn content(&self) -> Vec<u8> {
        let mut content = MAGIC.to_vec();
        for (place, reservoir) in self.columns.iter().enumerate() {
            for asked in &reservoir.lock().kept {
                content.extend_from_slice(&(place as u32).to_le_bytes());
                content.extend_from_slice(&(asked.vector.len() as u32).to_le_bytes());
                content.extend_from_slice(&asked.vector);
            }
        }
        let sum = crc32c::crc32c(&content);
        content.extend_from_slice(&sum.to_le_bytes());
        content
    }
}

/// Processor time of this thread.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

impl Collection {
    /// Sees to it that queries which were asked are measured, as far as the time for that goes.
    pub(super) fn schedule_live(self: &Arc<Self>) {
        self.live.turn();
        let taken = self.live.taken();
        if taken < ENOUGH as u64 || self.live.is_spent() || self.is_stopping() {
            return;
        }
        if *self.live.done.lock() == (taken, self.segment_ids()) {
            self.save_live(SAVE_EVERY);
        } else if self.live_lane.schedule() {
            let collection = self.clone();
            self.compute.build_pool().spawn(move || {
                if !collection.live_lane.begin(|| collection.is_stopping()) {
                    return;
                }
                if let Err(error) = collection.measure_live() {
                    tracing::debug!(collection = collection.schema.name, %error, "not measured");
                }
                collection.live_lane.unschedule();
            });
        }
    }

    fn segment_ids(&self) -> Vec<u32> {
        self.published.snapshot().sealed.iter().map(|sealed| sealed.id).collect()
    }

    fn measure_live(&self) -> Result<()> {
        let done = (self.live.taken(), self.segment_ids());
        let snapshot = self.published.snapshot();
        self.live
            .measured
            .lock()
            .retain(|(segment, _), _| snapshot.sealed.iter().any(|sealed| sealed.id == *segment));
        for (place, column) in self.schema.columns.iter().enumerate() {
            if column.index == IndexKind::Flat {
                continue;
            }
            let kept = self.live.kept(place);
            if kept.len() < ENOUGH {
                continue;
            }
            for sealed in &snapshot.sealed {
                if let Some(index) = sealed.index(place) {
                    let target = Target { sealed, index, column, place };
                    if !self.measure_segment(&target, &kept, snapshot.sequence)? {
                        return Ok(());
                    }
                }
            }
        }
        *self.live.done.lock() = done;
        Ok(())
    }

    /// Measures queries in a segment that were not measured there. False when there is no more time.
    fn measure_segment(&self, target: &Target<'_>, kept: &[Asked], sequence: u64) -> Result<bool> {
        let at = (target.sealed.id, target.place);
        let mut known = self.live.measured.lock().remove(&at).unwrap_or_default();
        known.retain(|number, _| kept.iter().any(|asked| asked.number == *number));
        let before = known.len();
        let mut has_time = true;
        for asked in kept {
            if known.contains_key(&asked.number) {
                continue;
            }
            has_time = !self.live.is_spent() && !self.is_stopping();
            if !has_time {
                break;
            }
            let begun = spent();
            let measured = target.measure(&asked.vector, sequence)?;
            self.live.spend(spent().saturating_sub(begun));
            known.insert(asked.number, measured);
        }
        if known.len() > before && known.len() >= ENOUGH {
            self.show_live(target, &known);
        }
        self.live.measured.lock().insert(at, known);
        Ok(has_time)
    }

    fn show_live(&self, target: &Target<'_>, known: &OfSegment) {
        let ladder = target.ladder();
        let recall = target.index.recall();
        let live = summary(&ladder, known, |likeness| target.effort(likeness));
        let promised = match target.column.index.effort() {
            Effort::Recall(aimed) => crate::schema::promise(aimed),
            Effort::Candidates(_) => 0.0,
        };
        if live.recall + live.deviation < promised {
            let (collection, column) = (&self.schema.name, &target.column.name);
            tracing::warn!(
                collection,
                column,
                segment = target.sealed.id,
                recall = live.recall,
                recall_target = promised,
                queries = known.len(),
                "queries that were asked found less than the recall_target; later ones are searched harder"
            );
        }
        recall.set_live(live);
    }

    /// Writes what is kept, where there is something new and the last time is longer ago than this.
    pub(super) fn save_live(&self, ago: Duration) {
        let mut saved = self.live.saved.lock();
        let taken = self.live.taken();
        if taken == saved.1 || saved.0.elapsed() < ago || taken < ENOUGH as u64 {
            return;
        }
        let content = self.live.content();
        *saved = (Instant::now(), taken);
        let path = self.context.folder.join(FILE);
        if let Err(error) = replace_file(&*self.context.disk, &path, &content) {
            tracing::debug!(collection = self.schema.name, %error, "queries not kept");
        }
    }

    /// Takes up what an earlier process kept.
    pub(super) fn restore_live(&self) {
        let path = self.context.folder.join(FILE);
        let disk = &*self.context.disk;
        if self.live.share > 0.0 && disk.exists(&path) {
            let restored = disk.read(&path).ok();
            let restored = restored.and_then(|file| self.live.restore(&self.schema, &file));
            if restored.is_none() {
                tracing::warn!(path = %path.display(), "the queries kept are not readable, and left out");
            }
        }
    }
}

/// An index that is measured.
struct Target<'a> {
    sealed: &'a Sealed,
    index: &'a ColumnIndex,
    column: &'a VectorColumn,
    place: usize,
}

impl Target<'_> {
    /// The efforts that are tried.
    fn ladder(&self) -> Vec<usize> {
        match self.index.tuning() {
            None | Some(Tuning::Candidates) => GRAPH_LADDER.map(|effort| effort as usize).to_vec(),
            Some(Tuning::Nothing) => vec![1],
            Some(Tuning::Lists(lists)) => {
                let steps = std::iter::successors(Some(1), |probes| Some(2 * probes));
                steps.take_while(|probes| *probes < lists).chain([lists.max(1)]).collect()
            }
        }
    }

    /// How hard queries of a kind are searched for by themselves; `None` where a scan answers them.
    fn effort(&self, likeness: Likeness) -> Option<usize> {
        let VectorColumn { element, metric, dimension, .. } = *self.column;
        let effort = self.column.index.effort();
        let vector = vec![0; self.column.vector_bytes().unwrap_or(0)];
        let query = Query::new(element, metric, dimension, &vector)?;
        let (told, cancel) = (Told::default(), Cancel::default());
        let search = self.search(&vector, &query, (&told, &cancel), 0);
        let search = SegmentSearch { k: FEW, effort, ..search };
        let is_scanned = scans_by_itself(self.sealed, self.index, &search, likeness);
        (!is_scanned).then(|| self.index.recall().trial(effort, FEW, likeness).candidates)
    }

    fn search<'s>(
        &self,
        vector: &'s [u8],
        query: &'s Query,
        (told, cancel): (&'s Told, &'s Cancel),
        sequence: u64,
    ) -> SegmentSearch<'s> {
        SegmentSearch {
            vector,
            query,
            metric: self.column.metric,
            column: self.place,
            scan_bytes_max: u64::MAX,
            allowed: None,
            k: MANY,
            effort: Effort::Candidates(1),
            keeps_promise: true,
            likeness: None,
            told,
            refine_k: None,
            sequence,
            segment: 0,
            cancel,
        }
    }

    fn measure(&self, vector: &[u8], sequence: u64) -> Result<Measured> {
        let VectorColumn { element, metric, dimension, .. } = *self.column;
        let query = Query::new(element, metric, dimension, vector)
            .ok_or_else(|| Error::internal("a query that was kept does not fit"))?;
        let (told, cancel) = (Told::default(), Cancel::default());
        let search = self.search(vector, &query, (&told, &cancel), sequence);
        let mut truth = TopK::new(MANY, None);
        scan_sealed(self.sealed, &search, &mut truth);
        let truth: Vec<f32> = truth.into_sorted().iter().map(|found| found.score).collect();
        let edge = |k: usize| truth.get(k - 1).or(truth.last()).copied().unwrap_or_default();
        let is_far = self.index.recall().is_far(edge(FEW), FEW, 1.0);
        let likeness = match is_far || !self.index.recall().tells_far() {
            true => Likeness::Unlike,
            false => Likeness::Like,
        };
        let mut at: Vec<[f32; 3]> = Vec::new();
        for effort in self.ladder() {
            // As much as the effort before found everything.
            if at.last().is_some_and(|shares| shares.iter().all(|share| *share >= 1.0)) {
                at.push([1.0; 3]);
                continue;
            }
            let share = |k: usize| -> Result<f32> {
                let mut top = TopK::new(k, None);
                let search = SegmentSearch {
                    k,
                    effort: Effort::Candidates(effort),
                    likeness: Some(likeness),
                    ..search
                };
                if search_index(self.sealed, self.index, &search, &mut top)? == Outcome::Scan {
                    return Ok(1.0);
                }
                let near = top.into_sorted();
                let hits = near.iter().filter(|found| found.score <= edge(k)).count();
                Ok(hits as f32 / k.min(truth.len()).max(1) as f32)
            };
            at.push([share(1)?, share(FEW)?, share(MANY)?]);
        }
        Ok(Measured { likeness, at })
    }
}

/// What queries found on average, by kind; `effort` says how those of a kind are searched for by
/// themselves, `None` where by a scan.
fn summary(
    ladder: &[usize],
    known: &OfSegment,
    effort: impl Fn(Likeness) -> Option<usize>,
) -> LiveRecall {
    let of_kind = |kind: Likeness| -> Vec<&Measured> {
        known.values().filter(|measured| measured.likeness == kind).collect()
    };
    let points = |queries: &[&Measured]| -> Vec<RecallPoint> {
        if queries.len() < ENOUGH {
            return Vec::new();
        }
        let point = |(place, effort): (usize, &usize)| {
            let mean = |which: usize| {
                let shares = queries.iter().filter_map(|query| query.at.get(place));
                shares.map(|at| at[which]).sum::<f32>() / queries.len() as f32
            };
            let ef_search = u32::try_from(*effort).unwrap_or(u32::MAX);
            RecallPoint { ef_search, at_1: Some(mean(0)), at_10: mean(1), at_100: mean(2) }
        };
        ladder.iter().enumerate().map(point).collect()
    };
    let (like, unlike) = (of_kind(Likeness::Like), of_kind(Likeness::Unlike));
    // As they were searched so far: at the effort of the ladder next below.
    let found = |queries: &[&Measured], effort: Option<usize>| -> Vec<f32> {
        let Some(effort) = effort else { return vec![1.0; queries.len()] };
        let place = ladder.partition_point(|step| *step <= effort).saturating_sub(1);
        queries.iter().filter_map(|query| query.at.get(place)).map(|at| at[1]).collect()
    };
    let mut shares = found(&like, effort(Likeness::Like));
    shares.extend(found(&unlike, effort(Likeness::Unlike)));
    let count = shares.len().max(1) as f32;
    let recall = shares.iter().sum::<f32>() / count;
    let variance = shares.iter().map(|share| (share - recall).powi(2)).sum::<f32>() / count;
    LiveRecall {
        curve: RecallCurve {
            points: points(&like),
            unlike: points(&unlike),
            ..RecallCurve::default()
        },
        queries: (like.len() as u32, unlike.len() as u32),
        recall,
        deviation: 1.96 * (variance / count).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(likeness: Likeness, few: f32) -> Measured {
        Measured { likeness, at: vec![[1.0, few, 0.0], [1.0, 1.0, 0.5]] }
    }

    #[test]
    fn queries_of_a_kind_say_something_when_they_are_enough() {
        let mut known = OfSegment::default();
        for number in 0..30 {
            let few = if number % 2 == 0 { 0.25 } else { 0.75 };
            known.insert(number, measured(Likeness::Unlike, few));
        }
        known.insert(99, measured(Likeness::Like, 0.5));
        let live = summary(&[16, 64], &known, |_| Some(20));
        assert!(live.curve.points.is_empty());
        let expected = [(16, 0.5, 0.0), (64, 1.0, 0.5)];
        let expected = expected.map(|(ef_search, at_10, at_100)| RecallPoint {
            ef_search,
            at_1: Some(1.0),
            at_10,
            at_100,
        });
        assert_eq!(live.curve.unlike, expected);
        assert_eq!(live.queries, (1, 30));
        assert!((live.recall - 0.5).abs() < 1e-6 && live.deviation > 0.05);
        for effort in [Some(64), None] {
            let harder = summary(&[16, 64], &known, |_| effort);
            assert_eq!((harder.recall, harder.deviation), (1.0, 0.0));
        }
    }
}
