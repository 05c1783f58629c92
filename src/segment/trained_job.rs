//! Training and filling the index of one index column.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::column_vectors::ColumnVectors;
use super::sealed::SegmentContext;
use crate::error::Error;
use crate::index::{BuildRun, Codes, GRAPH_LADDER, Probe, RecallSample, Vectors};
use crate::native::{NativeError, NativeResult, TrainedIndex, TrainedSpace, Tuning, run_apart};
use crate::schema::{Effort, RECALL_TARGET, Reach, RecallCurve, RecallPoint, Recipe, VectorColumn};
use crate::storage::ChecksumWriter;

/// Bytes of floats added at once.
const BLOCK_BYTES: usize = 32 << 20;
/// Most lists looked into while measuring.
const PROBES_MAX: u32 = 1_024;
/// Lists looked into, or candidates kept, while the number of finalists is chosen.
const REFINE_EFFORT: u32 = 256;
/// Fewer rows are not measured: what is trained with them is trained anew when more come.
const MEASURED_ROWS_MIN: usize = 2_000;
/// An index that finds so much less than it did before is trained anew, if it misses its target.
const DRIFT: f32 = 0.01;

/// A trained index to be built.
pub(super) struct TrainedJob<'a> {
    pub context: &'a SegmentContext,
    pub column: &'a VectorColumn,
    pub recipe: &'a Recipe,
    pub space: TrainedSpace,
    pub vectors: ColumnVectors<'a>,
    /// The index to extend, over the first of the vectors, and what it was measured to find.
    pub base: Option<(TrainedIndex, RecallCurve)>,
    pub path: PathBuf,
    pub run: BuildRun<'a>,
}

/// Why a build ended.
pub(super) enum BuildFailure {
    /// faiss cannot do it.
    Foreign(NativeError),
    /// The disk, or a stop.
    Other(Error),
}

impl From<NativeError> for BuildFailure {
    fn from(error: NativeError) -> Self {
        BuildFailure::Foreign(error)
    }
}

impl From<Error> for BuildFailure {
    fn from(error: Error) -> Self {
        BuildFailure::Other(error)
    }
}

type Outcome<T> = std::result::Result<T, BuildFailure>;

impl TrainedJob<'_> {
    /// Trains the index, fills it, measures what searches find, and writes the file, which is yet to be
    /// finished. An index that was extended and then finds too little, because its new rows are unlike
    /// those it was trained with, is trained anew with what there is now, and the better one kept.
    pub fn build(mut self) -> Outcome<(ChecksumWriter, RecallCurve)> {
        let count = self.vectors.count();
        let lists = self.recipe.lists(count as u64);
        let vector_bytes = self.column.vector_bytes().unwrap_or(0) as u64;
        let row_bytes = self.column.index.row_bytes(self.column.dimension, vector_bytes);
        let _held = self.run.hold(count * row_bytes as usize);
        let base = self.base.take().filter(|(base, _)| self.is_worth_extending(base, lists));
        let (mut index, before) = match base {
            Some((base, before)) => (base, Some(before)),
            None => (self.trained(lists)?, None),
        };
        let known = before.as_ref().map_or(0, |_| index.len());
        index = self.filled(index)?;
        let codes = Codes::new(self.column, self.vectors.iter_until(self.run.stop));
        self.check_stop()?;
        let _coded = self.run.hold(codes.as_ref().map_or(0, Codes::memory_bytes));
        let sample = RecallSample::take(self.column, &self.vectors, codes.as_ref(), self.run);
        self.check_stop()?;
        let mut recall = RecallCurve::default();
        if let Some(sample) = &sample {
            recall = self.measure(&index, sample, known)?;
            let before = before.filter(|_| known < count);
            if before.is_some_and(|before| self.has_drifted(&before, &recall)) {
                let _held = self.run.hold(count * row_bytes as usize);
                let fresh = self.filled(self.trained(lists)?)?;
                let again = self.measure(&fresh, sample, known)?;
                let (column, was, is) = (&self.column.name, reached(&recall), reached(&again));
                tracing::info!(
                    column,
                    rows = count,
                    was,
                    is,
                    "index trained anew: its rows changed"
                );
                if is > was {
                    (index, recall) = (fresh, again);
                }
            }
            self.warn_below_target(&recall);
        }
        let mut file = ChecksumWriter::create(&*self.context.disk, &self.path)?;
        file.end_by(&self.context.stop);
        let written = index.write(&mut file)?;
        written.map_err(|e| Error::io("write", &self.path, &e))?;
        Ok((file, recall))
    }

    /// True for an index that was trained well enough to take more rows.
    fn is_worth_extending(&self, base: &TrainedIndex, lists: u32) -> bool {
        let count = self.vectors.count();
        let is_poor = (base.len() as u64) < self.recipe.rows_wanted() && base.len() < count;
        // As long as its lists have not become much too long.
        let is_outgrown =
            matches!(base.tuning(), Tuning::Lists(known) if lists as usize > 2 * known);
        base.len() <= count && count >= MEASURED_ROWS_MIN && !is_poor && !is_outgrown
    }

    fn trained(&self, lists: u32) -> Outcome<TrainedIndex> {
        let mut index = TrainedIndex::new(&self.recipe.description(lists), self.space)?;
        let count = self.vectors.count();
        let rows_wanted = self.recipe.rows_wanted();
        if (count as u64) < rows_wanted {
            let column = &self.column.name;
            tracing::warn!(
                column,
                rows = count,
                rows_wanted,
                "index trained with few rows; more of them train it anew"
            );
        }
        let wanted = self.recipe.training_rows(lists, count as u64) as usize;
        let bytes = wanted * 4 * self.column.dimension as usize;
        let _held = self.run.hold(bytes);
        let floats = self.floats(&index, (0..wanted).map(|place| place * count / wanted))?;
        let train = move |threads| index.train_floats(&floats, threads).map(|()| index);
        self.apart(bytes as u64, train)
    }

    /// Adds the vectors that the index lacks.
    fn filled(&self, mut index: TrainedIndex) -> Outcome<TrainedIndex> {
        let count = self.vectors.count();
        let vector_bytes = self.column.vector_bytes().unwrap_or(0) as u64;
        let row_bytes = self.column.index.row_bytes(self.column.dimension, vector_bytes);
        let block = (BLOCK_BYTES / (4 * self.column.dimension as usize)).max(1);
        while index.len() < count {
            self.check_stop()?;
            let nodes = index.len()..count.min(index.len() + block);
            let added = nodes.len() as u64;
            let floats = self.floats(&index, nodes)?;
            let bytes = count as u64 * row_bytes + 4 * floats.len() as u64;
            let add = move |threads| index.add_floats(&floats, threads).map(|()| index);
            index = self.apart(bytes, add)?;
            self.run.done.fetch_add(added, Ordering::Relaxed);
        }
        Ok(index)
    }

    /// Vectors as the index takes them.
    fn floats(
        &self,
        index: &TrainedIndex,
        nodes: impl Iterator<Item = usize>,
    ) -> Outcome<Vec<f32>> {
        let nodes = nodes.take_while(|_| !self.run.stop.load(Ordering::Relaxed));
        let floats = index.floats(nodes.map(|node| self.vectors.get(node as u32)));
        self.context.check_running()?;
        Ok(floats)
    }

    /// Runs native work on a thread of its own, which holds so many bytes, and waits for it or until the
    /// build should end: then it is left behind. Not on a thread of the pool: work of others would wait
    /// for it there.
    fn apart<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce(usize) -> NativeResult<T> + Send + 'static,
    ) -> Outcome<T> {
        let threads = self.run.pool.current_num_threads();
        match run_apart(self.run.stop, bytes, move || work(threads))? {
            Some(made) => Ok(made?),
            None => Err(Error::Stopping.into()),
        }
    }

    fn check_stop(&self) -> Outcome<()> {
        match self.run.stop.load(Ordering::Relaxed) {
            true => Err(Error::Stopping.into()),
            false => Ok(()),
        }
    }

    /// What searches of an index find: of the first `known` vectors and of those that came after, the less.
    fn measure(
        &self,
        index: &TrainedIndex,
        sample: &RecallSample<'_, ColumnVectors<'_>>,
        known: usize,
    ) -> Outcome<RecallCurve> {
        let known = known as u32;
        let count = self.vectors.count() as u32;
        let parts = match (sample.among(0..known), sample.among(known..count)) {
            (Some(old), Some(new)) => RecallCurve {
                unlike: self.curve(index, sample).unlike,
                ..worse(self.curve(index, &old), self.curve(index, &new))
            },
            _ => self.curve(index, sample),
        };
        // What was measured in part is nothing: the index would be searched as one that never was.
        self.check_stop()?;
        Ok(parts)
    }

    fn curve(
        &self,
        index: &TrainedIndex,
        sample: &RecallSample<'_, ColumnVectors<'_>>,
    ) -> RecallCurve {
        let find = |probe: &Probe<'_, ColumnVectors<'_>>| -> Vec<u32> {
            let (count, effort) = (probe.count + 1, probe.effort as usize);
            let mut found =
                index.search(probe.vector, count, effort, None).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a search of a new index failed");
                    Vec::new()
                });
            found.retain(|id| *id != probe.node);
            found
        };
        let ladder = ladder(index.tuning());
        let most = ladder.last().copied().unwrap_or(1).min(REFINE_EFFORT);
        let Some(refine_k) = sample.refine_k(most, find) else { return RecallCurve::default() };
        sample.curve(&ladder, refine_k, find)
    }

    fn target(&self) -> f32 {
        match self.column.index.effort() {
            Effort::Recall(target) => target,
            Effort::Candidates(_) => RECALL_TARGET,
        }
    }

    /// True for an extended index that misses its target, and did better before.
    fn has_drifted(&self, before: &RecallCurve, now: &RecallCurve) -> bool {
        let now = reached(now);
        let was_better = before.points.is_empty() || now < reached(before) - DRIFT;
        now < self.target() && was_better
    }

    fn warn_below_target(&self, recall: &RecallCurve) {
        let (reached, target) = (reached(recall), self.target());
        if matches!(self.column.index.effort(), Effort::Recall(_)) && reached < target {
            let (column, path) = (&self.column.name, self.path.display());
            tracing::warn!(column, %path, reached, target, "the index cannot reach its recall_target");
        }
    }
}

/// The most that was found of the 10 nearest.
fn reached(recall: &RecallCurve) -> f32 {
    recall.points.iter().map(|point| point.at_10).fold(0.0, f32::max)
}

/// What both parts of an index find at each effort. A part that was found whole was not measured with more.
fn worse(old: RecallCurve, new: RecallCurve) -> RecallCurve {
    let (Some(last_old), Some(last_new)) = (old.points.last(), new.points.last()) else {
        return RecallCurve::default();
    };
    let steps = old.points.len().max(new.points.len());
    let points = (0..steps).map(|step| {
        let (old, new) =
            (old.points.get(step).unwrap_or(last_old), new.points.get(step).unwrap_or(last_new));
        RecallPoint {
            ef_search: old.ef_search.max(new.ef_search),
            at_1: old.at_1.zip(new.at_1).map(|(old, new)| old.min(new)),
            at_10: old.at_10.min(new.at_10),
            at_100: old.at_100.min(new.at_100),
        }
    });
    let reach = old.reach.zip(new.reach).map(|(old, new)| Reach {
        at_10: old.at_10.max(new.at_10),
        at_100: old.at_100.max(new.at_100),
        apart: old.apart.zip(new.apart).map(|(old, new)| old.max(new)),
        row_at_10: None,
        row_apart: None,
        apart_least: None,
    });
    let refine_k = old.refine_k.zip(new.refine_k).map(|(old, new)| old.max(new));
    RecallCurve { points: points.collect(), reach, refine_k, ..RecallCurve::default() }
}

/// The efforts that are measured.
fn ladder(tuning: Tuning) -> Vec<u32> {
    match tuning {
        Tuning::Nothing => vec![1],
        Tuning::Candidates => GRAPH_LADDER.to_vec(),
        Tuning::Lists(lists) => {
            let most = u32::try_from(lists).unwrap_or(u32::MAX).clamp(1, PROBES_MAX);
            let steps = std::iter::successors(Some(1u32), |probes| Some(2 * probes));
            steps.take_while(|probes| *probes < most).chain([most]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_as_much_as_of_the_part_of_its_rows_that_it_finds_less_of() {
        let curve = |points: &[(u32, f32, f32)], refine_k| RecallCurve {
            points: points
                .iter()
                .map(|(ef_search, at_10, at_100)| RecallPoint {
                    ef_search: *ef_search,
                    at_1: None,
                    at_10: *at_10,
                    at_100: *at_100,
                })
                .collect(),
            refine_k: Some(refine_k),
            ..RecallCurve::default()
        };
        let old = curve(&[(1, 0.9, 0.8), (2, 1.0, 0.999)], 2.0);
        let new = curve(&[(1, 0.3, 0.9), (2, 0.5, 0.4), (4, 0.6, 0.5)], 8.0);
        let both = curve(&[(1, 0.3, 0.8), (2, 0.5, 0.4), (4, 0.6, 0.5)], 8.0);
        assert_eq!(worse(old.clone(), new.clone()), both);
        assert_eq!(worse(new, old.clone()), both);
        assert_eq!(worse(old, RecallCurve::default()), RecallCurve::default());
    }
}
