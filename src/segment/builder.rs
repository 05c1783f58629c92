//! Making a sealed segment out of growing or sealed ones: the rows file, the graphs, all synced.
//!
//! A merge that keeps its first source whole can extend that source's graphs instead of building new
//! ones: then deleted rows of the first source stay, marked, and every row keeps its number.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_buffer::{BooleanBuffer, MutableBuffer, ScalarBuffer};

use super::block::{ColumnBlock, Rows};
use super::graph_job::GraphJob;
use super::growing::GrowingView;
use super::rows_file::{BATCH_ROWS, KindSet, RowsFile, RowsWriter};
use super::sealed::{
    ColumnVectors, Sealed, SegmentContext, graph_params, map_verified, segment_folder,
};
use crate::error::{Error, Result};
use crate::index::{BuildRun, Vectors};
use crate::manifest::{FileEntry, GraphEntry, Inserted, SegmentEntry};
use crate::native::read_links;
use crate::schema::ForwardRow;

/// A segment whose rows go into a new one.
#[derive(Debug, Clone)]
pub enum MergeSource {
    /// A growing segment that takes no more rows.
    Frozen(Arc<GrowingView>),
    /// A sealed segment, with what the manifest says of it.
    Sealed(Arc<Sealed>, SegmentEntry),
}

/// Whether the new segment gets graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphRule {
    /// No graph: it is scanned exactly.
    None,
    /// A graph for every column that declares one and has at least this many vectors.
    FromRows(u64),
}

/// What to build.
pub struct BuildPlan<'a> {
    /// Identity of the new segment.
    pub id: u32,
    /// The sources, in row order.
    pub sources: &'a [MergeSource],
    /// Keep the first source whole and extend its graphs.
    pub extend_first: bool,
    /// Rows deleted at or below this sequence are left out (but for the first source, if extended).
    pub sequence: u64,
    /// Graphs.
    pub graphs: GraphRule,
    /// Threads for building graphs, and the flag that ends the build early, with [`Error::Stopping`].
    pub run: BuildRun<'a>,
}

/// What was built.
pub struct Built {
    /// For the manifest.
    pub entry: SegmentEntry,
    /// For each source, the old row number of each row taken, in the order of the new rows.
    pub taken: Vec<Vec<u32>>,
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

    fn vector(&self, column: usize, row: u32) -> Option<&[u8]> {
        match self {
            MergeSource::Sealed(sealed, _) => sealed.vector(column, row),
            MergeSource::Frozen(view) => {
                let (block, at) = view.locate(row)?;
                block.rows.columns.get(column)?.vector(at)
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
    let disk = &*context.disk;
    let folder = segment_folder(&context.folder, plan.id);
    disk.remove_dir(&folder)?;
    disk.create_dir(&folder)?;
    let rows_file = write_rows(context, plan, &folder, &taken)?;
    let graph_files = build_graphs(context, plan, &folder, &rows_file)?;
    disk.sync_dir(&folder)?;
    disk.sync_dir(&context.folder)?;
    let inserted = plan.sources.iter().map(MergeSource::inserted);
    let entry = SegmentEntry {
        id: plan.id,
        rows,
        rows_file,
        graph_files,
        tombstones_file: None,
        inserted: inserted.fold(Inserted::NOTHING, Inserted::union),
    };
    Ok(Some(Built { entry, taken }))
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
    let mut writer = RowsWriter::create(&*context.disk, &folder.join(&name), schema, kinds)?;
    let all: Vec<(&MergeSource, u32)> = plan
        .sources
        .iter()
        .zip(taken)
        .flat_map(|(source, rows)| rows.iter().map(move |row| (source, *row)))
        .collect();
    for chunk in all.chunks(BATCH_ROWS) {
        if plan.run.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let forward: Vec<ForwardRow> = match schema.forward_columns.is_empty() {
            true => Vec::new(),
            false => chunk.iter().map(|(source, row)| source.forward(*row)).collect(),
        };
        writer.write(&gather(context, chunk)?, &forward)?;
    }
    let (bytes, crc32c) = writer.finish()?;
    Ok(FileEntry { name, bytes, crc32c })
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
        let mut present = Vec::with_capacity(chunk.len());
        for (source, row) in chunk {
            let vector = source.vector(position, *row);
            match vector {
                Some(vector) => data.extend_from_slice(vector),
                None => data.extend_zeros(vector_bytes),
            }
            present.push(vector.is_some());
        }
        let is_full = present.iter().all(|present| *present);
        let present = (!is_full).then(|| BooleanBuffer::from(present));
        columns.push(ColumnBlock { vector_bytes, data: data.into(), present });
    }
    Ok(Rows { keys: ScalarBuffer::from(keys), lsns, columns })
}

/// Builds the graphs one after the other, so that one at a time is in memory, and writes them.
fn build_graphs(
    context: &SegmentContext,
    plan: &BuildPlan<'_>,
    folder: &Path,
    rows_file: &FileEntry,
) -> Result<Vec<GraphEntry>> {
    let mut entries = Vec::new();
    let GraphRule::FromRows(rows_min) = plan.graphs else { return Ok(entries) };
    let bytes = map_verified(context, folder, rows_file)?;
    let rows = RowsFile::open(bytes, &folder.join(&rows_file.name), &context.schema)?;
    for (position, column) in context.schema.columns.iter().enumerate() {
        let Some(params) = graph_params(column) else { continue };
        let vectors = ColumnVectors::new(&rows, position);
        if (vectors.count() as u64) < rows_min.max(2) {
            continue;
        }
        let base = match base_graph(context, plan, position) {
            Some((entry, folder)) => Some(map_verified(context, &folder, &entry)?),
            None => None,
        };
        let base = match &base {
            Some(bytes) => Some(read_links(bytes, &params)?),
            None => None,
        };
        let name = format!("{position}.faiss");
        let job = GraphJob {
            context,
            column,
            params,
            vectors,
            base: base.as_ref(),
            path: folder.join(&name),
            run: plan.run,
        };
        let (file, recall) = job.build()?;
        let (bytes, crc32c) = file.finish()?;
        let file = FileEntry { name, bytes, crc32c };
        entries.push(GraphEntry { column: position as u32, file, recall });
    }
    Ok(entries)
}

/// The graph to extend: the first source's, when that source is kept whole and has one.
fn base_graph(
    context: &SegmentContext,
    plan: &BuildPlan<'_>,
    column: usize,
) -> Option<(FileEntry, std::path::PathBuf)> {
    let Some(MergeSource::Sealed(_, entry)) = plan.sources.first() else { return None };
    let graph = entry.graph_files.iter().find(|graph| graph.column as usize == column);
    let graph = graph.filter(|_| plan.extend_first)?;
    Some((graph.file.clone(), segment_folder(&context.folder, entry.id)))
}
