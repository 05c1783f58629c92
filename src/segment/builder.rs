//! Making a sealed segment out of growing or sealed ones: the rows file, the indexes, all synced.
//!
//! A merge that keeps its first source whole can extend that source's indexes instead of building new
//! ones: then deleted rows of the first source stay, marked, and every row keeps its number.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::{BooleanBuffer, MutableBuffer, ScalarBuffer};

use super::block::{ColumnBlock, Lists, Rows};
use super::column_index::{graph_params, trained_params};
use super::column_vectors::ColumnVectors;
use super::graph_job::GraphJob;
use super::growing::GrowingView;
use super::kinds::KindSet;
use super::rows_file::{BATCH_ROWS, BATCH_ROWS_MIN, NODES_MAX, RowsFile, RowsWriter};
use super::sealed::{Sealed, SegmentContext, map_verified, segment_folder};
use super::suspects::Trial;
use super::trained_job::{BuildFailure, TrainedJob};
use crate::error::{Error, Result};
use crate::index::{BuildRun, Vectors};
use crate::manifest::{FileEntry, IndexEntry, Inserted, SegmentEntry};
use crate::native::{TrainedIndex, read_links};
use crate::schema::{ForwardRow, RecallCurve};
use crate::storage::ChecksumWriter;

/// Rows between two looks whether to go on.
const LOOK_ROWS: usize = 1_024;
/// Bytes of vectors of a batch of rows that have many.
const BATCH_BYTES: usize = 8 << 20;

/// A segment whose rows go into a new one.
#[derive(Debug, Clone)]
pub enum MergeSource {
    /// A growing segment that takes no more rows.
    Frozen(Arc<GrowingView>),
    /// A sealed segment, with what the manifest says of it.
    Sealed(Arc<Sealed>, SegmentEntry),
}

/// Whether the new segment gets indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexRule {
    /// None: it is scanned exactly.
    None,
    /// One for every column that declares one and has at least this many vectors, or as many as its
    /// training takes.
    FromRows(u64),
}

/// What to build.
pub struct BuildPlan<'a> {
    /// Identity of the new segment.
    pub id: u32,
    /// The sources, in row order.
    pub sources: &'a [MergeSource],
    /// Keep the first source whole and extend its indexes.
    pub extend_first: bool,
    /// Rows deleted at or below this sequence are left out (but for the first source, if extended).
    pub sequence: u64,
    /// Indexes.
    pub indexes: IndexRule,
    /// Threads for building indexes, and the flag that ends the build early, with [`Error::Stopping`].
    pub run: BuildRun<'a>,
}

/// What was built.
pub struct Built {
    /// For the manifest.
    pub entry: SegmentEntry,
    /// For each source, the old row number of each row taken, in the order of the new rows.
    pub taken: Vec<Vec<u32>>,
    /// Held until the new segment is open.
    pub trials: Vec<Trial>,
}

impl MergeSource {
    /// Rows, deleted ones included.
    pub fn rows(&self) -> u32 {
        match self {
            MergeSource::Frozen(view) => view.rows,
            MergeSource::Sealed(sealed, _) => sealed.rows(),
        }
    }

    /// The row space of the source.
    pub fn space(&self) -> u32 {
        match self {
            MergeSource::Frozen(view) => view.space,
            MergeSource::Sealed(sealed, _) => sealed.space,
        }
    }

    /// True for the sealed segment of that id when rows of it are deleted.
    pub fn has_deleted(&self, id: u32) -> bool {
        match self {
            MergeSource::Frozen(_) => false,
            MergeSource::Sealed(sealed, _) => sealed.id == id && sealed.tombstones.deleted() > 0,
        }
    }

    /// The delete mark of a row.
    pub fn mark(&self, row: u32) -> u64 {
        match self {
            MergeSource::Frozen(view) => view.mark(row),
            MergeSource::Sealed(sealed, _) => sealed.tombstones.mark(row),
        }
    }

    /// For statistics.
    pub fn inserted(&self) -> Inserted {
        match self {
            MergeSource::Frozen(view) => view.inserted,
            MergeSource::Sealed(sealed, _) => sealed.inserted,
        }
    }

    fn include_kinds(&self, kinds: &mut [KindSet]) {
        match self {
            MergeSource::Sealed(sealed, _) => {
                kinds.iter_mut().zip(sealed.kinds()).for_each(|(all, own)| all.include_all(*own));
            }
            MergeSource::Frozen(view) => {
                for row in view.blocks.iter().flat_map(|block| &block.forward) {
                    for (kinds, value) in kinds.iter_mut().zip(row.iter()) {
                        value.iter().for_each(|value| kinds.include(value));
                    }
                }
            }
        }
    }

    fn key(&self, row: u32) -> Option<u64> {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.key(row),
            MergeSource::Frozen(view) => {
                view.locate(row).and_then(|(block, at)| block.rows.keys.get(at).copied())
            }
        }
    }

    fn lsn(&self, row: u32) -> u64 {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.lsn(row),
            MergeSource::Frozen(view) => view
                .locate(row)
                .and_then(|(block, at)| block.rows.lsns.as_ref()?.get(at).copied())
                .unwrap_or_default(),
        }
    }

    /// Vectors of an index column, and as many as rows at least.
    pub fn vectors(&self, column: usize) -> u64 {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.vectors(column).max(sealed.rows()).into(),
            MergeSource::Frozen(view) => view.vectors(column).max(view.rows.into()),
        }
    }

    /// The vectors of a row, one after the other.
    fn vectors_of(&self, column: usize, row: u32) -> Option<&[u8]> {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.vectors_of(column, row),
            MergeSource::Frozen(view) => {
                let (block, at) = view.locate(row)?;
                block.rows.columns.get(column)?.vectors(at)
            }
        }
    }

    fn forward(&self, row: u32) -> ForwardRow {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.filed_forward(row),
            MergeSource::Frozen(view) => {
                let found = view.locate(row).and_then(|(block, at)| block.forward.get(at));
                found.cloned().unwrap_or_default()
            }
        }
    }
}

/// Builds a segment's files, all durable when this returns; `None` when no row is left to keep.
pub fn build_segment(context: &SegmentContext, plan: &BuildPlan<'_>) -> Result<Option<Built>> {
    let taken: Vec<Vec<u32>> = plan
        .sources
        .iter()
        .enumerate()
        .map(|(position, source)| {
            let keep_all = plan.extend_first && position == 0;
            (0..source.rows()).filter(|row| keep_all || source.mark(*row) > plan.sequence).collect()
        })
        .collect();
    let rows: usize = taken.iter().map(Vec::len).sum();
    if rows == 0 {
        return Ok(None);
    }
    // u32::MAX marks the end of a segment in the forward store.
    let Some(rows) = u32::try_from(rows).ok().filter(|rows| *rows < u32::MAX) else {
        return Err(Error::internal("a merge would make a segment of more than 2^32 - 2 rows"));
    };
    for column in 0..context.schema.columns.len() {
        let nodes: u64 = plan.sources.iter().map(|source| source.vectors(column)).sum();
        if nodes > NODES_MAX as u64 {
            return Err(Error::internal(
                "a merge would make a segment of more than 2^32 - 2 vectors",
            ));
        }
    }
    let _held = plan.run.hold(rows as usize * size_of::<u32>());
    let disk = &*context.disk;
    let folder = segment_folder(&context.folder, plan.id);
    disk.remove_dir(&folder)?;
    disk.create_dir(&folder)?;
    let rows_file = write_rows(context, plan, &folder, &taken)?;
    let mut trials = Vec::new();
    let index_files = build_indexes(context, plan, &folder, &rows_file, &mut trials)?;
    disk.sync_dir(&folder)?;
    disk.sync_dir(&context.folder)?;
    let inserted = plan.sources.iter().map(MergeSource::inserted);
    let entry = SegmentEntry {
        id: plan.id,
        rows,
        rows_file,
        index_files,
        tombstones_file: None,
        inserted: inserted.fold(Inserted::NOTHING, Inserted::union),
    };
    Ok(Some(Built { entry, taken, trials }))
}

fn write_rows(
    context: &SegmentContext,
    plan: &BuildPlan<'_>,
    folder: &Path,
    taken: &[Vec<u32>],
) -> Result<FileEntry> {
    let schema = &context.schema;
    let mut kinds = vec![KindSet::default(); schema.forward_columns.len()];
    plan.sources.iter().for_each(|source| source.include_kinds(&mut kinds));
    let name = "rows.arrow".to_string();
    let all: Vec<(&MergeSource, u32)> = plan
        .sources
        .iter()
        .zip(taken)
        .flat_map(|(source, rows)| rows.iter().map(move |row| (source, *row)))
        .collect();
    let _held = plan.run.hold(size_of_val(&all[..]));
    let rows = batch_rows(context, &all);
    let path = folder.join(&name);
    let mut writer = RowsWriter::create(&*context.disk, &path, schema, kinds, rows)?;
    writer.end_by(&context.stop);
    for chunk in all.chunks(rows) {
        context.check_running()?;
        let mut forward = Vec::new();
        if !schema.forward_columns.is_empty() {
            for part in chunk.chunks(LOOK_ROWS) {
                context.check_running()?;
                forward.extend(part.iter().map(|(source, row)| source.forward(*row)));
            }
        }
        writer.write(&gather(context, chunk)?, &forward)?;
    }
    let (bytes, crc32c) = writer.finish()?;
    Ok(FileEntry { name, bytes, crc32c })
}

/// Rows of a batch: fewer, down to [`BATCH_ROWS_MIN`], where rows have many vectors, so that those of a
/// batch fit into [`BATCH_BYTES`].
fn batch_rows(context: &SegmentContext, all: &[(&MergeSource, u32)]) -> usize {
    let columns = context.schema.columns.iter().enumerate();
    let multi: Vec<usize> =
        columns.filter(|(_, column)| column.multi.is_some()).map(|(place, _)| place).collect();
    if multi.is_empty() {
        return BATCH_ROWS;
    }
    let bytes = |(source, row): &(&MergeSource, u32)| -> usize {
        multi.iter().filter_map(|column| source.vectors_of(*column, *row)).map(<[u8]>::len).sum()
    };
    let bytes: Vec<usize> = all.iter().map(bytes).collect();
    let mut rows = BATCH_ROWS;
    let is_large = |batch: &[usize]| batch.iter().sum::<usize>() > BATCH_BYTES;
    while rows > BATCH_ROWS_MIN && bytes.chunks(rows).any(is_large) {
        rows /= 2;
    }
    rows
}

fn gather(context: &SegmentContext, chunk: &[(&MergeSource, u32)]) -> Result<Rows> {
    let keys: Option<Vec<u64>> = chunk.iter().map(|(source, row)| source.key(*row)).collect();
    let keys = keys.ok_or_else(|| Error::internal("a row to be merged is not in its source"))?;
    let lsns = context
        .schema
        .follows_repository()
        .then(|| chunk.iter().map(|(source, row)| source.lsn(*row)).collect::<Vec<u64>>().into());
    let mut columns = Vec::with_capacity(context.schema.columns.len());
    for (position, column) in context.schema.columns.iter().enumerate() {
        let vector_bytes = column.vector_bytes().unwrap_or(0);
        let mut data = MutableBuffer::new(vector_bytes * chunk.len());
        if column.multi.is_some() {
            let ends = chunk.iter().map(|(source, row)| {
                data.extend_from_slice(source.vectors_of(position, *row).unwrap_or_default());
                (data.len() / vector_bytes.max(1)) as i64
            });
            let lists = Some(Lists::of_ends(ends.collect()));
            columns.push(ColumnBlock { vector_bytes, data: data.into(), present: None, lists });
            continue;
        }
        let mut present = Vec::with_capacity(chunk.len());
        for (place, (source, row)) in chunk.iter().enumerate() {
            if place.is_multiple_of(LOOK_ROWS) {
                context.check_running()?;
            }
            let vector = source.vectors_of(position, *row);
            match vector {
                Some(vector) => data.extend_from_slice(vector),
                None => data.extend_zeros(vector_bytes),
            }
            present.push(vector.is_some());
        }
        let is_full = present.iter().all(|present| *present);
        let present = (!is_full).then(|| BooleanBuffer::from(present));
        columns.push(ColumnBlock { vector_bytes, data: data.into(), present, lists: None });
    }
    Ok(Rows { keys: ScalarBuffer::from(keys), lsns, columns })
}

/// Builds the indexes one after the other, so that one at a time is in memory, and writes them.
fn build_indexes(
    context: &SegmentContext,
    plan: &BuildPlan<'_>,
    folder: &Path,
    rows_file: &FileEntry,
    trials: &mut Vec<Trial>,
) -> Result<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    let IndexRule::FromRows(rows_min) = plan.indexes else { return Ok(entries) };
    let bytes = map_verified(context, folder, rows_file)?;
    let rows = RowsFile::open(bytes, &folder.join(&rows_file.name), &context.schema)?;
    for position in 0..context.schema.columns.len() {
        let vectors = ColumnVectors::new(&rows, position);
        let name = format!("{position}.faiss");
        let path = folder.join(&name);
        let built = build_index(context, plan, position, vectors, path, rows_min, trials)?;
        let Some((file, recall)) = built else { continue };
        let (bytes, crc32c) = file.finish()?;
        let file = FileEntry { name, bytes, crc32c };
        entries.push(IndexEntry { column: position as u32, file, recall });
    }
    Ok(entries)
}

/// Builds and writes the index of a column at a path, if the column wants one over so few vectors.
fn build_index(
    context: &SegmentContext,
    plan: &BuildPlan<'_>,
    position: usize,
    vectors: ColumnVectors<'_>,
    path: PathBuf,
    rows_min: u64,
    trials: &mut Vec<Trial>,
) -> Result<Option<(ChecksumWriter, RecallCurve)>> {
    let column = &context.schema.columns[position];
    let (count, run) = (vectors.count() as u64, plan.run);
    let base = base_index(context, plan, position);
    let base_bytes =
        || base.as_ref().map(|(entry, folder)| map_verified(context, folder, &entry.file));
    if let Some(params) = graph_params(column) {
        if count < rows_min.max(2) {
            return Ok(None);
        }
        let bytes = base_bytes().transpose()?;
        let links = bytes.as_ref().map(|bytes| read_links(bytes, &params)).transpose()?;
        let base = links.as_ref().zip(base.as_ref().map(|(entry, _)| &entry.recall));
        let job = GraphJob { context, column, params, vectors, base, path, run };
        return job.build().map(Some);
    }
    let Some((recipe, space)) = trained_params(column) else { return Ok(None) };
    if count < recipe.rows_min() || context.suspects.is_unbuilt(position) {
        return Ok(None);
    }
    let base_recall = base.as_ref().map(|(entry, _)| entry.recall.clone());
    let bytes = base_bytes().transpose()?;
    trials.push(context.suspects.building(position)?);
    let base = bytes.map(|bytes| TrainedIndex::read(&bytes, space)).transpose()?;
    let base = base.zip(base_recall);
    let job = TrainedJob { context, column, recipe, space, vectors, base, path, run };
    match job.build() {
        Err(BuildFailure::Foreign(error)) => {
            // It would fail again, with the same rows and a few more: those are scanned instead.
            tracing::error!(column = column.name, %error, "an index cannot be built");
            context.suspects.note_failure(position, error.to_string());
            Ok(None)
        }
        Err(BuildFailure::Other(error)) => Err(error),
        Ok(built) => Ok(Some(built)),
    }
}

/// The index to extend: the first source's, when that source is kept whole and has one in service.
fn base_index<'a>(
    context: &SegmentContext,
    plan: &BuildPlan<'a>,
    column: usize,
) -> Option<(&'a IndexEntry, PathBuf)> {
    let Some(MergeSource::Sealed(_, entry)) = plan.sources.first() else { return None };
    let index = entry.index_files.iter().find(|index| index.column as usize == column);
    let index = index.filter(|_| plan.extend_first)?;
    let is_served = context.suspects.left_out(entry.id, column).is_none();
    is_served.then(|| (index, segment_folder(&context.folder, entry.id)))
}
