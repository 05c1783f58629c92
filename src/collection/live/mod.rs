//! Recall of the queries that are really asked. A few of them are kept; in the background each is searched
//! for exactly, and with rising effort, in each segment, and the effort of later ones follows what that
//! shows. What is kept stays in the collection's folder; nothing of it is told to anybody.

mod file;
mod filtered;
mod kept;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::{Collection, SharedFilter};
use crate::compute::MeasuringBudget;
use crate::error::Result;
use crate::query::filter::{Both, Filter};
use crate::schema::{CollectionSchema, Effort, IndexKind, KnnPlan, RawFilter, VectorColumn};
use crate::storage::replace_file;

use file::Entry;
use kept::{Asked, Kept};
use target::{OfSegment, Target, summary};

/// The file of what is kept.
pub(super) const FILE: &str = "queries";
/// So many of a kind say something.
const ENOUGH: usize = 24;
/// Neighbours whose recall is measured.
const FEW: usize = 10;
const MANY: usize = 100;
/// Time between two writes of the file.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Queries that were asked, and what is known of them.
#[derive(Debug)]
pub(super) struct LiveQueries {
    plain: Kept,
    filtered: Kept,
    /// The processor time that measuring may take.
    budget: MeasuringBudget,
    /// By segment and column.
    measured: Mutex<HashMap<(u32, usize), OfSegment>>,
    measured_filtered: Mutex<HashMap<(u32, usize), filtered::OfSegment>>,
    /// Measurements since that was last asked, one for each query and part.
    newly_measured: AtomicU32,
    saved: Mutex<(Instant, u64)>,
    /// The queries kept and the segments there were when all were last measured.
    done: Mutex<(u64, Vec<u32>)>,
}

impl LiveQueries {
    /// None yet, for the columns of this schema.
    pub fn new(schema: &CollectionSchema, budget: MeasuringBudget) -> Self {
        let kept = || Kept::new(schema.columns.len());
        let live = LiveQueries {
            plain: kept(),
            filtered: kept(),
            budget,
            measured: Mutex::default(),
            measured_filtered: Mutex::default(),
            newly_measured: AtomicU32::new(0),
            saved: Mutex::new((Instant::now(), 0)),
            done: Mutex::default(),
        };
        live.turn(&[]);
        live
    }

    /// Keeps a query's vectors, perhaps: those of one that was answered by a column's index as it does by
    /// default.
    pub fn offer(&self, plan: &KnnPlan, column: &VectorColumn, filter: Option<&SharedFilter>) {
        let kept = if filter.is_some() { &self.filtered } else { &self.plain };
        if !kept.wants()
            || plan.exact
            || plan.metric != column.metric
            || column.index == IndexKind::Flat
            || plan.options.all_within
            || filter.is_some_and(|filter| filter.sources().is_none())
        {
            return;
        }
        kept.offer(plan.column, plan.vectors.iter().map(|vector| &vector[..]), filter);
    }

    /// Begins another interval: how much may be measured, and how many queries are taken. While some of those
    /// kept are not measured yet, no more are replaced than were measured: else few would ever be, where that
    /// takes long. The segments are those that there are. True where something is to be measured.
    fn turn(&self, segments: &[u32]) -> bool {
        if !self.budget.is_given() {
            return false;
        }
        let taken = self.taken();
        let (is_done, has_work) = {
            let done = self.done.lock();
            let is_done = done.0 == taken;
            (is_done, taken >= ENOUGH as u64 && (!is_done || done.1 != segments))
        };
        let parts = self.measured.lock().len() + self.measured_filtered.lock().len();
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        let measured = self.newly_measured.load(Ordering::Relaxed) / parts;
        self.newly_measured.fetch_sub(measured * parts, Ordering::Relaxed);
        for kept in [&self.plain, &self.filtered] {
            match is_done || !kept.is_full() {
                true => kept.want(u32::MAX),
                false => kept.want(measured),
            }
        }
        self.budget.turn(has_work);
        has_work
    }

    /// What was kept when the collection was closed or killed. A file that does not fit is none: nothing
    /// but speed depends on it.
    pub fn restore(&self, schema: &CollectionSchema, file: &[u8]) -> Option<()> {
        for Entry { column, vector, filters } in file::decode(file)? {
            let place = column as usize;
            // Declarations change.
            let fits = |column: &VectorColumn| column.vector_bytes() == Some(vector.len());
            if !schema.columns.get(place).is_some_and(fits) {
                continue;
            }
            match filters.is_empty() {
                true => self.plain.add(place, vector, None),
                false => {
                    if let Ok(filter) = all_of(&filters, schema) {
                        self.filtered.add(place, vector, filter);
                    }
                }
            }
        }
        Some(())
    }

    /// Queries that were ever kept.
    fn taken(&self) -> u64 {
        self.plain.taken() + self.filtered.taken()
    }

    fn content(&self, columns: usize) -> Vec<u8> {
        let kept = |place: usize| {
            let plain = self.plain.of_column(place).into_iter();
            plain.chain(self.filtered.of_column(place)).filter_map(move |asked| {
                let sources = asked.filter.as_ref().map(|filter| filter.sources());
                let filters = sources.unwrap_or_default().unwrap_or_default();
                // A time that has passed is no filter of another process.
                let can_be_told = asked.filter.is_none() || !filters.is_empty();
                can_be_told.then(|| Entry {
                    column: place as u32,
                    vector: asked.vector.clone(),
                    filters: filters.into_iter().cloned().collect(),
                })
            })
        };
        file::encode((0..columns).flat_map(kept))
    }
}

/// The filter that lets through what all of these do.
fn all_of(filters: &[RawFilter], schema: &CollectionSchema) -> Result<Option<SharedFilter>> {
    filters.iter().try_fold(None, |before: Option<SharedFilter>, raw| {
        let filter = Arc::new(Filter::parse(&raw.text, &raw.params, schema)?) as SharedFilter;
        Ok(Some(match before {
            Some(before) => Arc::new(Both(before, filter)),
            None => filter,
        }))
    })
}

/// Processor time of this thread.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

impl Collection {
    /// Sees to it that queries which were asked are measured, as far as the time for that goes.
    pub(super) fn schedule_live(self: &Arc<Self>) {
        let has_work = self.live.turn(&self.segment_ids());
        if self.is_stopping() {
            return;
        }
        if !has_work {
            self.save_live(SAVE_EVERY);
        } else if !self.live.budget.is_spent() && self.live_lane.schedule() {
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
        let is_there = |(segment, _): &(u32, usize)| done.1.contains(segment);
        self.live.measured.lock().retain(|at, _| is_there(at));
        self.live.measured_filtered.lock().retain(|at, _| is_there(at));
        for (place, column) in self.schema.columns.iter().enumerate() {
            let plain = self.live.plain.of_column(place);
            let filtered = self.live.filtered.of_column(place);
            for sealed in &snapshot.sealed {
                if let Some(index) = sealed.index(place) {
                    let target =
                        Target { sealed, index, column, place, sequence: snapshot.sequence };
                    if !self.measure_segment(&target, &plain)?
                        || !self.measure_filtered(&target, &filtered)?
                    {
                        return Ok(());
                    }
                }
            }
        }
        *self.live.done.lock() = done;
        Ok(())
    }

    /// Measures those of the queries kept that were not measured yet, and says whether there was time for
    /// all. Of those that are kept no more, what was measured is forgotten.
    fn measure_each<T>(
        &self,
        kept: &[Asked],
        known: &mut HashMap<u64, T>,
        measure: impl Fn(&Asked) -> Result<T>,
    ) -> Result<bool> {
        known.retain(|number, _| kept.iter().any(|asked| asked.number == *number));
        for asked in kept {
            if known.contains_key(&asked.number) {
                continue;
            }
            if self.live.budget.is_spent() || self.is_stopping() {
                return Ok(false);
            }
            let begun = spent();
            let measured = measure(asked)?;
            self.live.budget.spend(spent().saturating_sub(begun));
            known.insert(asked.number, measured);
            self.live.newly_measured.fetch_add(1, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// Measures queries in a segment that were not measured there. False when there is no more time.
    fn measure_segment(&self, target: &Target<'_>, kept: &[Asked]) -> Result<bool> {
        if kept.len() < ENOUGH {
            return Ok(true);
        }
        let at = (target.sealed.id, target.place);
        let mut known = self.live.measured.lock().remove(&at).unwrap_or_default();
        let before = known.len();
        let has_time =
            self.measure_each(kept, &mut known, |asked| target.measure(&asked.vector))?;
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
        let content = self.live.content(self.schema.columns.len());
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
        if self.live.budget.is_given() && disk.exists(&path) {
            let restored = disk.map(&path).ok();
            let restored = restored.and_then(|file| self.live.restore(&self.schema, &file));
            if restored.is_none() {
                tracing::warn!(path = %path.display(), "the queries kept are not readable, and left out");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::compute::MeasuringTime;
    use crate::schema::{DeclaredType, ElementType, NewCollection, NewColumn, SchemaLimits};

    #[test]
    fn what_was_not_measured_yet_is_not_replaced() {
        let column = NewColumn {
            name: "v".into(),
            index_type: 1,
            data_type: DeclaredType::Vector(ElementType::Fp32),
            dimension: 2,
            ..NewColumn::default()
        };
        let new = NewCollection { name: "c".into(), columns: vec![column], ..Default::default() };
        let limits = SchemaLimits { dimension_max: 1024, columns_max: 16 };
        let schema = CollectionSchema::new(new, &limits, |_| false).expect("a valid schema");
        let time = Arc::new(MeasuringTime::new(0.01));
        let live = LiveQueries::new(&schema, MeasuringBudget::new(time));
        let ask = || {
            let vector = [0; 8];
            live.plain.offer(0, (0..100).map(|_| &vector[..]), None);
            live.taken()
        };
        let first = ask();
        assert!((1..100).contains(&first), "some of those that were asked");
        live.turn(&[]);
        assert!(ask() > first, "there is room for more");
        while !live.plain.is_full() {
            live.plain.add(0, Bytes::from_static(&[0; 8]), None);
        }
        let taken = live.taken();
        live.turn(&[]);
        assert_eq!(ask(), taken);
        live.newly_measured.store(5, Ordering::Relaxed);
        live.turn(&[]);
        assert_eq!(ask(), taken + 5, "as many as were measured");
        live.turn(&[]);
        let taken = ask();
        *live.done.lock() = (taken, Vec::new());
        assert!(live.turn(&[7]), "a segment has come");
        assert!(!live.turn(&[]));
        assert!(ask() > taken);
    }
}
