//! A sealed segment: a folder of immutable files, opened.
//!
//! ```text
//! segment-<id>/rows.arrow           the rows
//!              <column>.faiss       the index of the index column at that position, where it has one
//!              tombstones-<number>  rows deleted up to the checkpoint of manifest <number>
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Rows;
use super::block::complete;
use super::column_index::ColumnIndex;
use super::column_vectors::{ColumnVectors, count_vectors};
use super::filter_cache::FilterCache;
use super::forward_column::ForwardColumn;
use super::forward_index::{ForwardIndex, ValueOrder, Zones};
use super::forward_store::{ForwardTree, StoredSegment};
use super::kinds::KindSet;
use super::rows_file::RowsFile;
use super::suspects::Suspects;
use super::tombstones::{self, Tombstones};
use crate::error::{Error, Result};
use crate::index::{BuildRun, Codes, RowSet};
use crate::manifest::{FileEntry, Inserted, SegmentEntry};
use crate::schema::{CollectionSchema, ElementType, ForwardRow, Metric, VectorColumn};
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
    /// Rows from which forward columns are indexed for filters.
    pub filter_index_rows_min: u32,
    /// Indexes that are not to be touched.
    pub suspects: Arc<Suspects>,
    /// Set when work on segments should end early, with [`Error::Stopping`].
    pub stop: Arc<AtomicBool>,
}

impl SegmentContext {
    /// True when work on segments should end early.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends work that should end early.
    pub(super) fn check_running(&self) -> Result<()> {
        if self.is_stopping() { Err(Error::Stopping) } else { Ok(()) }
    }
}

/// Bytes whose checksum is taken between two looks whether to go on.
const CHECKED_BYTES: usize = 16 << 20;

/// Fewer vectors are scanned as quickly without codes.
const FLAT_CODES_ROWS_MIN: usize = 1_024;

/// The folder of a segment within its collection's.
pub fn segment_folder(collection: &Path, id: u32) -> PathBuf {
    collection.join(format!("segment-{id}"))
}

/// The id in a segment folder's name.
pub fn segment_id(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?.parse().ok()
}

/// The codes of an index column without an index.
#[derive(Debug)]
struct FlatCodes {
    codes: Codes,
    /// The row of each, where some rows have no vector or several.
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
    /// Bytes of the rows file.
    pub rows_bytes: u64,
    rows: RowsFile,
    indexes: Vec<Option<ColumnIndex>>,
    /// It has an index that is left out of service.
    has_left_out: bool,
    /// Vectors of each index column.
    vectors: Vec<u32>,
    /// Codes of columns without an index, for exact search.
    flat: Vec<Option<FlatCodes>>,
    /// What is known of each forward column.
    forward_indexes: Vec<ForwardIndex>,
    /// Enough rows for that to be made.
    is_indexable: bool,
    /// What recent filters let through.
    filters: FilterCache,
    forward: ForwardTree,
    stop: Arc<AtomicBool>,
    stored: StoredSegment,
    /// The generation of the forward store that holds just this segment's values; 0 for none.
    stored_in: AtomicU64,
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
    let mut crc = 0;
    for part in bytes.chunks(CHECKED_BYTES) {
        context.check_running()?;
        crc = crc32c::crc32c_append(crc, part);
    }
    if crc != file.crc32c {
        let detail = format!("CRC-32C {crc:08x}, the manifest says {:08x}", file.crc32c);
        return Err(Error::damaged(&path, 0, detail));
    }
    Ok(bytes)
}

impl Sealed {
    /// Opens a segment: maps its files, verifies every checksum and that the files fit each other, and
    /// makes the indexes ready for searching.
    pub fn open(context: &SegmentContext, entry: &SegmentEntry, space: u32) -> Result<Self> {
        let folder = segment_folder(&context.folder, entry.id);
        let path = folder.join(&entry.rows_file.name);
        let bytes = map_verified(context, &folder, &entry.rows_file)?;
        let rows = RowsFile::open(bytes, &path, &context.schema)?;
        if rows.rows != entry.rows {
            let detail = format!("{} rows, the manifest says {}", rows.rows, entry.rows);
            return Err(Error::damaged(&path, 0, detail));
        }
        let mut indexes: Vec<Option<ColumnIndex>> = Vec::new();
        indexes.resize_with(context.schema.columns.len(), || None);
        let mut has_left_out = false;
        for index_entry in &entry.index_files {
            let position = index_entry.column as usize;
            let place = indexes.get_mut(position).ok_or_else(|| {
                Error::damaged(&path, 0, format!("the manifest has an index of column {position}"))
            })?;
            let vectors = ColumnVectors::new(&rows, position);
            *place = ColumnIndex::open(context, entry.id, index_entry, vectors)?;
            has_left_out |= place.is_none();
        }
        let columns = 0..context.schema.columns.len();
        let vectors = columns.map(|column| count_vectors(&rows, column) as u32).collect();
        let tombstones = match &entry.tombstones_file {
            None => Tombstones::all_live(rows.rows as usize),
            Some(file) => {
                let bytes = map_verified(context, &folder, file)?;
                let marks = tombstones::decode(bytes, rows.rows)
                    .map_err(|detail| Error::damaged(folder.join(&file.name), 0, detail))?;
                Tombstones::from_marks(marks)
            }
        };
        let flat = flat_codes(context, &rows, &indexes);
        // Codes of a part of the vectors are of no use.
        context.check_running()?;
        let stored =
            StoredSegment { id: entry.id, rows: rows.rows, crc32c: entry.rows_file.crc32c };
        Ok(Sealed {
            id: entry.id,
            space,
            tombstones,
            inserted: entry.inserted,
            file_bytes: entry.files().map(|file| file.bytes).sum(),
            rows_bytes: entry.rows_file.bytes,
            stored_in: AtomicU64::new(context.forward.has_segment(stored).unwrap_or(0)),
            stored,
            flat,
            is_indexable: rows.rows >= context.filter_index_rows_min,
            filters: FilterCache::default(),
            forward_indexes: rows.kinds.iter().map(|_| ForwardIndex::default()).collect(),
            rows,
            vectors,
            indexes,
            has_left_out,
            forward: context.forward.clone(),
            stop: context.stop.clone(),
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

    /// The index of an index column, if this segment has one.
    pub fn index(&self, column: usize) -> Option<&ColumnIndex> {
        self.indexes.get(column)?.as_ref()
    }

    /// Vectors of an index column.
    pub fn vectors(&self, column: usize) -> u32 {
        self.vectors.get(column).copied().unwrap_or(0)
    }

    /// The codes of an index column, if it has some, and the row of each where that is another number.
    pub fn codes(&self, column: usize) -> Option<(&Codes, Option<&[u32]>)> {
        if let Some(index) = self.index(column) {
            return Some((index.codes()?, index.row_of_id.as_deref()));
        }
        let flat = self.flat.get(column)?.as_ref()?;
        Some((&flat.codes, flat.row_of_id.as_deref()))
    }

    /// Bytes of memory that codes and trained indexes, and that links of graphs take.
    pub fn index_bytes(&self) -> (u64, u64) {
        let row_bytes = |rows: &Option<Box<[u32]>>| rows.as_deref().map_or(0, size_of_val);
        let (mut codes, mut graphs) = (0, 0);
        for index in self.indexes.iter().flatten() {
            let (own_codes, links) = index.memory_bytes();
            codes += own_codes;
            graphs += links;
        }
        for flat in self.flat.iter().flatten() {
            codes += flat.codes.memory_bytes() + row_bytes(&flat.row_of_id);
        }
        (codes as u64, graphs as u64)
    }

    /// True when any index column has an index.
    pub fn has_index(&self) -> bool {
        self.indexes.iter().any(Option::is_some)
    }

    /// True when an index of it is left out of service.
    pub fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    /// True where [`Sealed::make_cells`] has something to do.
    pub fn lacks_cells(&self) -> bool {
        self.indexes.iter().flatten().any(ColumnIndex::lacks_cells)
    }

    /// Makes what searches among few allowed rows look into, for columns of this schema. Ends early when
    /// the run is stopped.
    pub fn make_cells(&self, schema: &CollectionSchema, run: &BuildRun<'_>) {
        let columns = schema.columns.iter().zip(&self.indexes).enumerate();
        for (position, (column, index)) in columns {
            if let Some(index) = index.as_ref().filter(|index| index.lacks_cells()) {
                index.make_cells(column, &ColumnVectors::new(&self.rows, position), run);
            }
        }
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

    /// The stored vector of a row in an index column, if it has one; all its vectors, one after the
    /// other, where it has several.
    pub fn vectors_of(&self, column: usize, row: u32) -> Option<&[u8]> {
        let (batch, place) = self.rows.locate(row)?;
        batch.rows.columns.get(column)?.vectors(place)
    }

    /// The stored vector of a node, which is one of a row's in an index column.
    #[inline]
    pub fn node_vector(&self, column: usize, row: u32, node: u32) -> Option<&[u8]> {
        let (batch, place) = self.rows.locate(row)?;
        batch.rows.columns.get(column)?.node(node, place)
    }

    /// The forward values of a row, from the forward store or else from the segment's own file.
    pub fn forward(&self, row: u32) -> ForwardRow {
        if self.rows.kinds.is_empty() {
            return ForwardRow::default();
        }
        let stored = match self.is_stored() {
            true => self.forward.get(self.id, row).map(|row| complete(row, self.rows.kinds.len())),
            false => None,
        };
        stored.unwrap_or_else(|| self.filed_forward(row))
    }

    /// The forward values of a row from the segment's own file.
    pub fn filed_forward(&self, row: u32) -> ForwardRow {
        self.rows.locate(row).map_or_else(ForwardRow::default, |(batch, at)| batch.forward(at))
    }

    /// The values of a forward column, where they lie.
    pub fn forward_column(&self, column: usize) -> ForwardColumn<'_> {
        ForwardColumn::new(&self.rows, column)
    }

    /// The primary keys, as if they were a forward column.
    pub fn key_column(&self) -> ForwardColumn<'_> {
        ForwardColumn::of_keys(&self.rows)
    }

    /// What is known of a forward column so far. What is not is made when
    /// [`Sealed::make_forward_indexes`] comes by.
    pub fn forward_index(&self, column: usize) -> (Option<&Zones>, Option<&ValueOrder>) {
        self.forward_indexes.get(column).map_or((None, None), |index| index.get(self.is_indexable))
    }

    /// True where the rows are known in the order of a forward column.
    pub fn has_order(&self, column: usize) -> bool {
        self.forward_indexes.get(column).is_some_and(ForwardIndex::has_order)
    }

    /// True where [`Sealed::make_forward_indexes`] has something to do.
    pub fn lacks_forward_indexes(&self) -> bool {
        self.forward_indexes.iter().any(ForwardIndex::is_lacking)
    }

    /// Makes what filters have asked for, column by column, as long as `admit` lets it take so many
    /// bytes.
    pub fn make_forward_indexes(&self, admit: impl Fn(u64) -> Result<()>) -> Result<()> {
        for (column, index) in self.forward_indexes.iter().enumerate() {
            if index.is_lacking() {
                index.make(&self.forward_column(column), self.rows(), &admit)?;
            }
        }
        Ok(())
    }

    /// Bytes of memory that filters have for looking up rows.
    pub fn forward_index_bytes(&self) -> u64 {
        let indexes = self.forward_indexes.iter().map(ForwardIndex::memory_bytes).sum::<usize>();
        (indexes + self.filters.memory_bytes()) as u64
    }

    /// The rows of a filter that was asked lately, or those that `find` tells.
    pub fn rows_of_filter(&self, filter: &Arc<str>, find: impl FnOnce() -> RowSet) -> Arc<RowSet> {
        match self.is_indexable {
            true => self.filters.rows(filter, find),
            false => Arc::new(find()),
        }
    }

    /// True where the rows of a filter are known without looking.
    pub fn knows_filter(&self, filter: &str) -> bool {
        self.filters.has(filter)
    }

    /// Kinds of every forward column.
    pub fn kinds(&self) -> &[KindSet] {
        &self.rows.kinds
    }

    /// True where the forward store, as it is now, holds the values.
    fn is_stored(&self) -> bool {
        let stored_in = self.stored_in.load(Ordering::Acquire);
        stored_in != 0 && stored_in == self.forward.generation()
    }

    /// True where [`Sealed::fill_forward_store`] has something to do.
    pub fn lacks_forward_store(&self) -> bool {
        !self.rows.kinds.is_empty() && self.forward.generation() != 0 && !self.is_stored()
    }

    /// Fills the forward store from the segment's own file, unless it holds the segment already. Ends
    /// early, to be begun anew by whoever opens the segment next, when background work ends.
    pub fn fill_forward_store(&self) {
        if self.lacks_forward_store() {
            let rows = (0..self.rows()).take_while(|_| !self.stop.load(Ordering::Relaxed));
            let values = rows.map(|row| self.filed_forward(row));
            let stored_in = self.forward.put_segment(self.stored, values);
            self.stored_in.store(stored_in.unwrap_or(0), Ordering::Release);
        }
    }
}

/// Codes for the columns without an index that gain by them.
fn flat_codes(
    context: &SegmentContext,
    rows: &RowsFile,
    indexes: &[Option<ColumnIndex>],
) -> Vec<Option<FlatCodes>> {
    let columns = context.schema.columns.iter().zip(indexes).enumerate();
    let of_column =
        |(position, (column, index)): (usize, (&VectorColumn, &Option<ColumnIndex>))| {
            // Bytes are their own codes: there is nothing to save.
            let is_wide =
                column.element != ElementType::Int8 && column.element != ElementType::Int4;
            let is_distance = matches!(
                column.metric,
                Metric::SquaredEuclidean | Metric::Euclidean | Metric::Cosine
            );
            let is_large = count_vectors(rows, position) >= FLAT_CODES_ROWS_MIN;
            if index.is_some() || !is_wide || !is_distance || !is_large {
                return None;
            }
            let vectors = ColumnVectors::new(rows, position);
            let codes = Codes::new(column, vectors.iter_until(&context.stop))?;
            Some(FlatCodes { codes, row_of_id: vectors.row_of_id })
        };
    columns.map(of_column).collect()
}
