//! Rows as they are stored: those at known places, and all of a snapshot in key order.

use std::sync::Arc;

use super::execute::{SegmentRef, View};
use crate::cancel::CANCEL_ROWS;
use crate::error::Result;
use crate::index::RowSet;
use crate::schema::{CollectionSchema, ForwardChoice, ForwardRow, Value};

/// Rows looked up at once by [`next_rows`]: a pass over all keys gives so many.
pub const AHEAD_ROWS: usize = 65_536;

/// Which columns of rows are wanted, before any check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnChoice {
    /// The forward columns.
    pub forwards: ForwardChoice,
    /// The index columns; `*` stands for all of them.
    pub vectors: Vec<String>,
}

/// Which columns of rows are wanted: positions in the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowColumns {
    /// The forward columns; `None` for all, in schema order.
    pub forwards: Option<Vec<usize>>,
    /// The index columns.
    pub vectors: Vec<usize>,
}

impl RowColumns {
    /// The columns chosen, each of which must exist and be named once.
    pub fn new(schema: &CollectionSchema, choice: &ColumnChoice) -> Result<Self> {
        let forwards = schema.check_forwards(&choice.forwards)?;
        let vectors = schema.check_vectors(&choice.vectors)?;
        Ok(RowColumns { forwards, vectors })
    }

    /// The names of the forward columns, in the order of a row's values.
    pub fn forward_names<'s>(&'s self, schema: &'s CollectionSchema) -> Vec<&'s str> {
        match &self.forwards {
            None => schema.forward_columns.iter().map(String::as_str).collect(),
            Some(columns) => {
                columns.iter().map(|at| schema.forward_columns[*at].as_str()).collect()
            }
        }
    }
}

/// Where a row of a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowPlace {
    /// The primary key.
    pub key: u64,
    /// Position of the segment in the snapshot.
    pub segment: u32,
    /// The row in the segment.
    pub row: u32,
}

/// Rows, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowBatch {
    /// The primary keys.
    pub keys: Vec<u64>,
    /// The forward values wanted of each row.
    pub forwards: Vec<ForwardRow>,
    /// One entry per index column wanted.
    pub vectors: Vec<VectorBatch>,
}

/// The vectors of an index column for a run of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VectorBatch {
    /// Position of the column in the schema.
    pub column: usize,
    /// The vectors, little-endian, row after row; rows without one have no bytes here.
    pub data: Vec<u8>,
    /// Vectors of each row; `None` where each has one.
    pub counts: Option<Vec<u32>>,
}

impl SegmentRef<'_> {
    /// The row space that the collection's key map knows its rows under.
    pub fn space(&self) -> u32 {
        match self {
            SegmentRef::Sealed(sealed) => sealed.space,
            SegmentRef::Growing(view) => view.space,
        }
    }

    /// True when a snapshot at `sequence` sees the row.
    pub fn is_live(&self, row: u32, sequence: u64) -> bool {
        match self {
            SegmentRef::Sealed(sealed) => sealed.tombstones.is_live(row, sequence),
            SegmentRef::Growing(view) => view.mark(row) > sequence,
        }
    }

    /// What the row has in an index column: the bytes of its vectors, one after the other.
    pub fn vectors_of(&self, column: usize, row: u32) -> Option<&[u8]> {
        match self {
            SegmentRef::Sealed(sealed) => sealed.vectors_of(column, row),
            SegmentRef::Growing(view) => {
                let (block, at) = view.locate(row)?;
                block.rows.columns.get(column)?.vectors(at)
            }
        }
    }

    /// Runs of keys, each with the row number of its first.
    fn key_runs(&self) -> Box<dyn Iterator<Item = (u32, &[u64])> + '_> {
        match self {
            SegmentRef::Sealed(sealed) => {
                Box::new(sealed.blocks().map(|(first, rows)| (first, &rows.keys[..])))
            }
            SegmentRef::Growing(view) => {
                Box::new(view.blocks.iter().map(|block| (block.first_row, &block.rows.keys[..])))
            }
        }
    }
}

/// The live rows with the `count` lowest keys above `after`, by key. `allowed` has the rows of each
/// segment that may be among them.
pub fn next_rows(
    view: &View<'_>,
    allowed: Option<&[Arc<RowSet>]>,
    after: Option<u64>,
    count: usize,
) -> Result<Vec<RowPlace>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut found: Vec<RowPlace> = Vec::new();
    let mut bound = u64::MAX;
    for (position, segment) in view.segments.iter().enumerate() {
        let allowed = allowed.map(|sets| &*sets[position]);
        if allowed.is_some_and(RowSet::is_empty) {
            continue;
        }
        for (first_row, keys) in segment.key_runs() {
            for (at, key) in keys.iter().enumerate() {
                if at.is_multiple_of(CANCEL_ROWS) {
                    view.cancel.check()?;
                }
                let row = first_row + at as u32;
                let is_next = *key < bound && after.is_none_or(|after| *key > after);
                if !is_next
                    || allowed.is_some_and(|set| !set.contains(row))
                    || !segment.is_live(row, view.sequence)
                {
                    continue;
                }
                found.push(RowPlace { key: *key, segment: position as u32, row });
                if found.len() >= 2 * count {
                    found.select_nth_unstable(count);
                    bound = found[count].key;
                    found.truncate(count);
                }
            }
        }
    }
    found.sort_unstable();
    found.truncate(count);
    Ok(found)
}

/// How many live rows there are, of those allowed.
pub fn count_rows(view: &View<'_>, allowed: Option<&[Arc<RowSet>]>) -> Result<u64> {
    let segments = view.segments.iter().enumerate();
    let counts = segments.map(|(position, segment)| match allowed.map(|sets| &*sets[position]) {
        None => count_live(view, segment, 0..segment.rows() as u32),
        Some(set) => count_live(view, segment, set.iter()),
    });
    counts.sum()
}

fn count_live(
    view: &View<'_>,
    segment: &SegmentRef<'_>,
    rows: impl Iterator<Item = u32>,
) -> Result<u64> {
    let mut live = 0;
    for (seen, row) in rows.enumerate() {
        if seen.is_multiple_of(CANCEL_ROWS) {
            view.cancel.check()?;
        }
        live += u64::from(segment.is_live(row, view.sequence));
    }
    Ok(live)
}

/// The rows at these places, until they have `bytes_max` bytes; at least one.
pub fn fetch_rows(
    view: &View<'_>,
    columns: &RowColumns,
    places: &[RowPlace],
    bytes_max: u64,
) -> Result<RowBatch> {
    let mut batch = RowBatch {
        vectors: columns
            .vectors
            .iter()
            .map(|column| VectorBatch { column: *column, ..VectorBatch::default() })
            .collect(),
        ..RowBatch::default()
    };
    let mut bytes = 0;
    for place in places {
        if bytes >= bytes_max {
            break;
        }
        if batch.keys.len().is_multiple_of(CANCEL_ROWS) {
            view.cancel.check()?;
        }
        let segment = &view.segments[place.segment as usize];
        let forward = chosen(columns.forwards.as_deref(), || segment.forward(place.row));
        bytes += 16 + forward.iter().map(|value| 16 + payload(value)).sum::<u64>();
        for vectors in &mut batch.vectors {
            let own = segment.vectors_of(vectors.column, place.row).unwrap_or_default();
            bytes += 4 + own.len() as u64;
            let vector_bytes = view.schema.columns[vectors.column].vector_bytes().unwrap_or(0);
            vectors.push(own, vector_bytes, batch.keys.len());
        }
        batch.forwards.push(forward);
        batch.keys.push(place.key);
    }
    Ok(batch)
}

fn payload(value: &Option<Value>) -> u64 {
    value.as_ref().map_or(0, Value::payload_bytes) as u64
}

/// The values chosen of a row; `all` is not asked where none are.
pub(super) fn chosen(columns: Option<&[usize]>, all: impl FnOnce() -> ForwardRow) -> ForwardRow {
    match columns {
        None => all(),
        Some([]) => ForwardRow::default(),
        Some(columns) => {
            let all = all();
            columns.iter().map(|at| all.get(*at).cloned().flatten()).collect()
        }
    }
}

impl VectorBatch {
    /// Bytes that it takes in a reply.
    pub(super) fn bytes(&self) -> u64 {
        (self.data.len() + self.counts.as_ref().map_or(0, Vec::len)) as u64
    }

    /// Appends what the next row has, vectors of so many bytes; `before` rows came before it.
    fn push(&mut self, vectors: &[u8], vector_bytes: usize, before: usize) {
        let count = (vectors.len() / vector_bytes.max(1)) as u32;
        if count != 1 && self.counts.is_none() {
            self.counts = Some(vec![1; before]);
        }
        self.data.extend_from_slice(vectors);
        if let Some(counts) = &mut self.counts {
            counts.push(count);
        }
    }
}
