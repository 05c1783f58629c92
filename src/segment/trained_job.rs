//! Training and filling the index of one index column.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::column_vectors::ColumnVectors;
use super::sealed::SegmentContext;
use crate::error::{Error, Result};
use crate::index::{BuildRun, Codes, GRAPH_LADDER, Probe, RecallSample, Vectors};
use crate::native::{NativeResult, TrainedIndex, TrainedSpace, Tuning, run_apart};
use crate::schema::{Effort, RecallCurve, Recipe, VectorColumn};
use crate::storage::ChecksumWriter;

/// Bytes of floats added at once.
const BLOCK_BYTES: usize = 32 << 20;
/// Most lists looked into while measuring.
const PROBES_MAX: u32 = 1_024;
/// Lists looked into, or candidates kept, while the number of finalists is chosen.
const REFINE_EFFORT: u32 = 256;
/// A trained index to be built.
pub(super) struct TrainedJob<'a> {
    pub context: &'a SegmentContext,
    pub column: &'a VectorColumn,
    pub recipe: &'a Recipe,
    pub space: TrainedSpace,
    pub vectors: ColumnVectors<'a>,
    /// The index to extend: over the first of the vectors.
    pub base: Option<TrainedIndex>,
    pub path: PathBuf,
    pub run: BuildRun<'a>,
}

impl TrainedJob<'_> {
    /// Trains the index, fills it, measures what searches find, and writes the file, which is yet to be
    /// finished.
    pub fn build(mut self) -> Result<(ChecksumWriter, RecallCurve)> {
        let count = self.vectors.count();
        let lists = self.recipe.lists(count as u64);
        let mut index = match self.base.take() {
            // As long as its lists have not become much too long.
            Some(base) if base.len() <= count && !is_outgrown(&base, lists) => base,
            _ => self.trained(lists)?,
        };
        let vector_bytes = self.column.vector_bytes().unwrap_or(0) as u64;
        let row_bytes = self.column.index.row_bytes(self.column.dimension, vector_bytes);
        let _held = self.run.hold(count * row_bytes as usize);
        let block = (BLOCK_BYTES / (4 * self.column.dimension as usize)).max(1);
        while index.len() < count {
            let nodes = index.len()..count.min(index.len() + block);
            let added = nodes.len() as u64;
            let floats = self.floats(&index, nodes)?;
            let bytes = count as u64 * row_bytes + 4 * floats.len() as u64;
            let add = move |threads| index.add_floats(&floats, threads).map(|()| index);
            index = self.apart(bytes, add)?;
            self.run.done.fetch_add(added, Ordering::Relaxed);
        }
        let recall = self.measure(&index);
        // What was measured in part is nothing: the index would be searched as one that never was.
        if self.run.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let mut file = ChecksumWriter::create(&*self.context.disk, &self.path)?;
        file.end_by(&self.context.stop);
        let written = index.write(&mut file)?;
        written.map_err(|e| Error::io("write", &self.path, &e))?;
        Ok((file, recall))
    }

    fn trained(&self, lists: u32) -> Result<TrainedIndex> {
        let mut index = TrainedIndex::new(&self.recipe.description(lists), self.space)?;
        let count = self.vectors.count();
        let wanted = self.recipe.training_rows(lists, count as u64) as usize;
        let bytes = wanted * 4 * self.column.dimension as usize;
        let _held = self.run.hold(bytes);
        let floats = self.floats(&index, (0..wanted).map(|place| place * count / wanted))?;
        let train = move |threads| index.train_floats(&floats, threads).map(|()| index);
        self.apart(bytes as u64, train)
    }

    /// Vectors as the index takes them.
    fn floats(&self, index: &TrainedIndex, nodes: impl Iterator<Item = usize>) -> Result<Vec<f32>> {
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
    ) -> Result<T> {
        let threads = self.run.pool.current_num_threads();
        match run_apart(self.run.stop, bytes, move || work(threads))? {
            Some(made) => Ok(made?),
            None => Err(Error::Stopping),
        }
    }

    fn measure(&self, index: &TrainedIndex) -> RecallCurve {
        let codes = Codes::new(self.column, self.vectors.iter_until(self.run.stop));
        if self.context.is_stopping() {
            return RecallCurve::default();
        }
        let _held = self.run.hold(codes.as_ref().map_or(0, Codes::memory_bytes));
        let sample = RecallSample::take(self.column, &self.vectors, codes.as_ref(), self.run);
        let Some(sample) = sample else { return RecallCurve::default() };
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
        let curve = sample.curve(&ladder, refine_k, find);
        let reached = curve.points.iter().map(|point| point.at_10).fold(0.0, f32::max);
        if let Effort::Recall(target) = self.column.index.effort()
            && reached < target
        {
            let (column, path) = (&self.column.name, self.path.display());
            tracing::warn!(column, %path, reached, target, "the index cannot reach its recall_target");
        }
        curve
    }
}

/// True when so many more lists are wanted now that training anew pays.
fn is_outgrown(base: &TrainedIndex, lists: u32) -> bool {
    matches!(base.tuning(), Tuning::Lists(known) if lists as usize > 2 * known)
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
