//! A sealed segment: a folder of immutable files, opened.
//!
//! ```text
//! segment-<id>/rows.arrow           the rows
//!              <column>.faiss       the graph of the index column at that position, where it has one
//!              tombstones-<number>  rows deleted up to the checkpoint of manifest <number>
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::forward_store::{ForwardTree, StoredSegment};
use super::rows_file::{KindSet, RowsFile};
use super::tombstones::{self, Tombstones};
use super::{ColumnBlock, Rows};
use crate::error::{Error, Result};
use crate::index::{Codes, HnswGraph, Vectors};
use crate::manifest::{FileEntry, GraphEntry, Inserted, SegmentEntry};
use crate::native::{GraphParams, read_links};
use crate::schema::{
    CollectionSchema, Effort, ElementType, ForwardRow, IndexKind, Metric, RecallCurve, VectorColumn,
};
use crate::storage::Disk;

/// What every segment of a collection shares.
#[derive(Debug, Clone)]
pub struct SegmentContext {
    /// Where the files are.
    pub disk: Disk,
    /// The collection's folder.
    pub folder: PathBuf,
    /// The collection's declaration.
    pub schema: Arc<CollectionSchema>,
    /// The collection's forward values.
    pub forward: ForwardTree,
}

/// Fewer rows are scanned as quickly without codes.
const FLAT_CODES_ROWS_MIN: u32 = 1_024;

/// The folder of a segment within its collection's.
pub fn segment_folder(collection: &Path, id: u32) -> PathBuf {
    collection.join(format!("segment-{id}"))
}

/// The id in a segment folder's name.
pub fn segment_id(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?.parse().ok()
}

/// The graph of one index column, with what its nodes are ranked by and the rows they stand for.
#[derive(Debug)]
pub struct ColumnGraph {
    /// The graph; node ids count the rows that have a vector in the column.
    pub graph: HnswGraph,
    /// The nodes' vectors as codes, for columns that can have them.
    pub codes: Option<Codes>,
    /// What searches of it find.
    pub recall: RecallCurve,
    /// Row of each node, where some rows have no vector; else node and row are the same.
    row_of_id: Option<Box<[u32]>>,
}

impl ColumnGraph {
    /// Bytes that a walk for the `k` nearest reads at most, roughly: what all neighbours of its
    /// candidates are ranked by.
    pub fn walk_bytes(&self, effort: Effort, k: usize, vector_bytes: u64) -> u64 {
        let ef_search = self.recall.candidates(effort, k);
        let row_bytes = self.codes.as_ref().map_or(vector_bytes, |codes| codes.row_bytes() as u64);
        let neighbours = (self.graph.width() as u64).saturating_mul(ef_search as u64);
        neighbours.min(self.graph.len() as u64).saturating_mul(row_bytes)
    }

    /// The node that stands for a row, if it has a vector.
    pub fn id(&self, row: u32) -> Option<u32> {
        match &self.row_of_id {
            None => Some(row).filter(|row| (*row as usize) < self.graph.len()),
            Some(rows) => rows.binary_search(&row).ok().map(|id| id as u32),
        }
    }

    /// The row that a node stands for.
    pub fn row(&self, id: u32) -> u32 {
        match &self.row_of_id {
            None => id,
            Some(rows) => rows.get(id as usize).copied().unwrap_or(u32::MAX),
        }
    }
}

/// The codes of an index column without a graph.
#[derive(Debug)]
struct FlatCodes {
    codes: Codes,
    /// The row of each, where some rows have no vector.
    row_of_id: Option<Box<[u32]>>,
}

/// A sealed segment, opened for searching. Immutable but for its delete marks.
#[derive(Debug)]
pub struct Sealed {
    /// Identity; the folder's number.
    pub id: u32,
    /// The row space that the collection's key map knows these rows under.
    pub space: u32,
    /// Delete marks.
    pub tombstones: Tombstones,
    /// For statistics.
    pub inserted: Inserted,
    /// Bytes of all files.
    pub file_bytes: u64,
    rows: RowsFile,
    graphs: Vec<Option<ColumnGraph>>,
    /// Codes of columns without a graph, for exact search.
    flat: Vec<Option<FlatCodes>>,
    forward: ForwardTree,
    stored: StoredSegment,
    /// The forward store holds just this segment's values.
    is_stored: AtomicBool,
}

/// How the graph of a column is made, or `None` for a column that has none.
pub(super) fn graph_params(column: &VectorColumn) -> Option<GraphParams> {
    match column.index {
        IndexKind::Flat => None,
        IndexKind::Hnsw { max_neighbor_count, ef_construction, .. } => Some(GraphParams {
            element: column.element,
            metric: column.metric,
            dimension: column.dimension,
            max_neighbor_count,
            ef_construction,
        }),
    }
}

/// Maps a file and verifies its size and checksum.
pub(super) fn map_verified(
    context: &SegmentContext,
    folder: &Path,
    file: &FileEntry,
) -> Result<bytes::Bytes> {
    let path = folder.join(&file.name);
    // Names come from the manifest; a checksum keeps accidents out, this keeps strangers in the folder.
    if file.name.contains(['/', '\\']) || file.name == ".." {
        return Err(Error::damaged(&path, 0, "the manifest names a file outside its segment"));
    }
    let bytes = context.disk.map(&path)?;
    if bytes.len() as u64 != file.bytes {
        let detail = format!("{} bytes, the manifest says {}", bytes.len(), file.bytes);
        return Err(Error::damaged(&path, bytes.len() as u64, detail));
    }
    let crc = crc32c::crc32c(&bytes);
    if crc != file.crc32c {
        let detail = format!("CRC-32C {crc:08x}, the manifest says {:08x}", file.crc32c);
        return Err(Error::damaged(&path, 0, detail));
    }
    Ok(bytes)
}

impl Sealed {
    /// Opens a segment: maps its files, verifies every checksum and that the files fit each other, and
    /// makes the graphs ready for searching.
    pub fn open(context: &SegmentContext, entry: &SegmentEntry, space: u32) -> Result<Self> {
        let folder = segment_folder(&context.folder, entry.id);
        let path = folder.join(&entry.rows_file.name);
        let bytes = map_verified(context, &folder, &entry.rows_file)?;
        let rows = RowsFile::open(bytes, &path, &context.schema)?;
        if rows.rows != entry.rows {
            let detail = format!("{} rows, the manifest says {}", rows.rows, entry.rows);
            return Err(Error::damaged(&path, 0, detail));
        }
        let mut graphs: Vec<Option<ColumnGraph>> = Vec::new();
        graphs.resize_with(context.schema.columns.len(), || None);
        for graph_entry in &entry.graph_files {
            let graph = open_graph(context, &folder, graph_entry, &rows)?;
            graphs[graph_entry.column as usize] = Some(graph);
        }
        let tombstones = match &entry.tombstones_file {
            None => Tombstones::all_live(rows.rows as usize),
            Some(file) => {
                let bytes = map_verified(context, &folder, file)?;
                let marks = tombstones::decode(bytes, rows.rows)
                    .map_err(|detail| Error::damaged(folder.join(&file.name), 0, detail))?;
                Tombstones::from_marks(marks)
            }
        };
        let stored =
            StoredSegment { id: entry.id, rows: rows.rows, crc32c: entry.rows_file.crc32c };
        Ok(Sealed {
            id: entry.id,
            space,
            tombstones,
            inserted: entry.inserted,
            file_bytes: entry.files().map(|file| file.bytes).sum(),
            is_stored: AtomicBool::new(context.forward.has_segment(stored)),
            stored,
            flat: flat_codes(context, &rows, &graphs),
            rows,
            graphs,
            forward: context.forward.clone(),
        })
    }

    /// Rows in the files, deleted ones included.
    pub fn rows(&self) -> u32 {
        self.rows.rows
    }

    /// Runs of rows, each with the row number of its first.
    pub fn blocks(&self) -> impl Iterator<Item = (u32, &Rows)> {
        self.rows.batches.iter().map(|batch| (batch.first_row, &batch.rows))
    }

    /// The graph of an index column, if this segment has one.
    pub fn graph(&self, column: usize) -> Option<&ColumnGraph> {
        self.graphs.get(column)?.as_ref()
    }

    /// The codes of an index column, if it has some, and the row of each where that is another number.
    pub fn codes(&self, column: usize) -> Option<(&Codes, Option<&[u32]>)> {
        if let Some(graph) = self.graph(column) {
            return Some((graph.codes.as_ref()?, graph.row_of_id.as_deref()));
        }
        let flat = self.flat.get(column)?.as_ref()?;
        Some((&flat.codes, flat.row_of_id.as_deref()))
    }

    /// Bytes of memory that codes and graphs take.
    pub fn index_bytes(&self) -> (u64, u64) {
        let row_bytes = |rows: &Option<Box<[u32]>>| rows.as_deref().map_or(0, size_of_val);
        let (mut codes, mut graphs) = (0, 0);
        for graph in self.graphs.iter().flatten() {
            codes += graph.codes.as_ref().map_or(0, Codes::memory_bytes);
            graphs += graph.graph.memory_bytes() + row_bytes(&graph.row_of_id);
        }
        for flat in self.flat.iter().flatten() {
            codes += flat.codes.memory_bytes() + row_bytes(&flat.row_of_id);
        }
        (codes as u64, graphs as u64)
    }

    /// True when any index column has a graph.
    pub fn has_graph(&self) -> bool {
        self.graphs.iter().any(Option::is_some)
    }

    /// The key of a row.
    pub fn key(&self, row: u32) -> Option<u64> {
        let (batch, place) = self.rows.locate(row)?;
        batch.rows.keys.get(place).copied()
    }

    /// The stored LSN of a row; 0 in direct collections.
    pub fn lsn(&self, row: u32) -> u64 {
        let found = self.rows.locate(row);
        found
            .and_then(|(batch, place)| batch.rows.lsns.as_ref()?.get(place).copied())
            .unwrap_or_default()
    }

    /// The stored vector of a row in an index column, if it has one.
    pub fn vector(&self, column: usize, row: u32) -> Option<&[u8]> {
        let (batch, place) = self.rows.locate(row)?;
        batch.rows.columns.get(column)?.vector(place)
    }

    /// The vectors of an index column and the place of a row among them.
    pub fn column(&self, column: usize, row: u32) -> Option<(&ColumnBlock, usize)> {
        let (batch, place) = self.rows.locate(row)?;
        Some((batch.rows.columns.get(column)?, place))
    }

    /// The forward values of a row, from the forward store or else from the segment's own file.
    pub fn forward(&self, row: u32) -> ForwardRow {
        if self.rows.kinds.is_empty() {
            return ForwardRow::default();
        }
        let stored = match self.is_stored.load(Ordering::Acquire) {
            true => self.forward.get(self.id, row),
            false => None,
        };
        stored.unwrap_or_else(|| self.filed_forward(row))
    }

    /// The forward values of a row from the segment's own file.
    pub fn filed_forward(&self, row: u32) -> ForwardRow {
        self.rows.locate(row).map_or_else(ForwardRow::default, |(batch, at)| batch.forward(at))
    }

    /// Kinds of every forward column.
    pub fn kinds(&self) -> &[KindSet] {
        &self.rows.kinds
    }

    /// Fills the forward store from the segment's own file, unless it holds the segment already.
    pub fn fill_forward_store(&self) {
        if self.rows.kinds.is_empty() || self.is_stored.load(Ordering::Acquire) {
            return;
        }
        let values = (0..self.rows()).map(|row| self.filed_forward(row));
        let is_stored = self.forward.put_segment(self.stored, values);
        self.is_stored.store(is_stored, Ordering::Release);
    }
}

/// Reads the graph of a column, and makes the codes that it is searched by.
fn open_graph(
    context: &SegmentContext,
    folder: &Path,
    entry: &GraphEntry,
    rows: &RowsFile,
) -> Result<ColumnGraph> {
    let position = entry.column as usize;
    let path = folder.join(&entry.file.name);
    let column = context.schema.columns.get(position);
    let Some((column, params)) = column.and_then(|column| Some((column, graph_params(column)?)))
    else {
        return Err(Error::damaged(&path, 0, "a graph of a column that has no graphs"));
    };
    let vectors = ColumnVectors::new(rows, position);
    let read_graph = || -> Result<HnswGraph> {
        let bytes = map_verified(context, folder, &entry.file)?;
        let links = read_links(&bytes, &params).map_err(|e| e.in_file(&path))?;
        if links.levels().len() != vectors.count() {
            let (nodes, count) = (links.levels().len(), vectors.count());
            return Err(Error::damaged(&path, 0, format!("{nodes} nodes for {count} vectors")));
        }
        Ok(HnswGraph::new(&links))
    };
    let (graph, codes) = rayon::join(read_graph, || Codes::new(column, vectors.iter()));
    let row_of_id = vectors.row_of_id;
    Ok(ColumnGraph { graph: graph?, codes, recall: entry.recall.clone(), row_of_id })
}

/// Codes for the columns without graphs that gain by them.
fn flat_codes(
    context: &SegmentContext,
    rows: &RowsFile,
    graphs: &[Option<ColumnGraph>],
) -> Vec<Option<FlatCodes>> {
    let columns = context.schema.columns.iter().zip(graphs).enumerate();
    let of_column =
        |(position, (column, graph)): (usize, (&VectorColumn, &Option<ColumnGraph>))| {
            // Bytes are their own codes: there is nothing to save.
            let is_wide =
                column.element != ElementType::Int8 && column.element != ElementType::Int4;
            let is_distance = matches!(
                column.metric,
                Metric::SquaredEuclidean | Metric::Euclidean | Metric::Cosine
            );
            if graph.is_some() || !is_wide || !is_distance || rows.rows < FLAT_CODES_ROWS_MIN {
                return None;
            }
            let vectors = ColumnVectors::new(rows, position);
            let codes = Codes::new(column, vectors.iter())?;
            Some(FlatCodes { codes, row_of_id: vectors.row_of_id })
        };
    columns.map(of_column).collect()
}

/// The vectors of an index column, numbered as the nodes of its graph are.
pub(super) struct ColumnVectors<'a> {
    rows: &'a RowsFile,
    column: usize,
    /// Row of each node, where some rows have no vector.
    row_of_id: Option<Box<[u32]>>,
}

impl<'a> ColumnVectors<'a> {
    pub fn new(rows: &'a RowsFile, column: usize) -> Self {
        ColumnVectors { rows, column, row_of_id: rows_with_vector(rows, column) }
    }

    pub fn get(&self, node: u32) -> &'a [u8] {
        let row = self.row_of_id.as_ref().map_or(node, |rows| rows[node as usize]);
        let found = self.rows.locate(row);
        found.and_then(|(batch, at)| batch.rows.columns[self.column].vector(at)).unwrap_or_default()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        (0..self.count()).map(|node| self.get(node as u32))
    }
}

impl Vectors for ColumnVectors<'_> {
    fn count(&self) -> usize {
        self.row_of_id.as_ref().map_or(self.rows.rows as usize, |rows| rows.len())
    }

    fn vector(&self, node: u32) -> &[u8] {
        self.get(node)
    }
}

/// The rows that have a vector in a column, or `None` when all do.
fn rows_with_vector(rows: &RowsFile, column: usize) -> Option<Box<[u32]>> {
    let has_gaps = rows.batches.iter().any(|batch| {
        let block = &batch.rows.columns[column];
        block.count_present(batch.rows.len()) < batch.rows.len()
    });
    has_gaps.then(|| {
        let present = rows.batches.iter().flat_map(|batch| {
            let block = &batch.rows.columns[column];
            let places = (0..batch.rows.len()).filter(|place| block.is_present(*place));
            places.map(|place| batch.first_row + place as u32)
        });
        present.collect()
    })
}
