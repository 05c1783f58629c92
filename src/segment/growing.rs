//! The segment that takes rows. The writer appends to an open block; publishing closes it and hands
//! out an immutable view. Small blocks are merged as a binary counter carries, so that neither single
//! inserts nor large batches leave many blocks behind, at a few copies per row.

use std::sync::Arc;

use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, ScalarBuffer};
use bytes::Bytes;

use super::block::{ColumnBlock, Lists, Rows, complete};
use super::tombstones::{LIVE, Tombstones};
use crate::manifest::Inserted;
use crate::schema::{CollectionSchema, Document, ForwardRow, LsnContext, Value, VectorColumn};

/// Rows, or vectors where these are more, from which blocks are no longer merged.
const BLOCK_ROWS: usize = 8_192;

/// A run of rows of a growing segment, immutable but for its delete marks.
#[derive(Debug)]
pub struct Block {
    /// Row number of the first.
    pub first_row: u32,
    /// Keys and vectors.
    pub rows: Rows,
    /// Forward values.
    pub forward: Vec<ForwardRow>,
    /// Delete marks.
    pub tombstones: Tombstones,
}

/// What a snapshot sees of a growing segment.
#[derive(Debug)]
pub struct GrowingView {
    /// The row space that the collection's key map knows these rows under.
    pub space: u32,
    /// The blocks, in row order.
    pub blocks: Vec<Arc<Block>>,
    /// Rows in all blocks.
    pub rows: u32,
    /// Bytes of vectors and forward values, roughly.
    pub bytes: u64,
    /// For statistics.
    pub inserted: Inserted,
    /// The document id of the first row, whether or not there is one.
    pub first_doc_id: u64,
}

impl Block {
    /// Vectors of the column that has most, and as many as rows at least.
    fn vectors_max(&self) -> usize {
        let rows = self.rows.len();
        let lists = self.rows.columns.iter().filter_map(|column| column.lists.as_ref());
        lists.map(Lists::count).fold(rows, usize::max)
    }
}

impl GrowingView {
    /// Vectors of an index column. Rows without one count, where rows have one at most.
    pub fn vectors(&self, column: usize) -> u64 {
        let lists =
            |block: &Arc<Block>| block.rows.columns.get(column)?.lists.as_ref().map(Lists::count);
        let counts: Option<Vec<usize>> = self.blocks.iter().map(lists).collect();
        counts.map_or(u64::from(self.rows), |counts| counts.into_iter().sum::<usize>() as u64)
    }

    /// The block that holds a row, and the row's place in it.
    pub fn locate(&self, row: u32) -> Option<(&Block, usize)> {
        let after = self.blocks.partition_point(|block| block.first_row <= row);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        let place = (row - block.first_row) as usize;
        (place < block.rows.len()).then_some((block, place))
    }

    /// The forward values of a row.
    pub fn forward(&self, row: u32) -> ForwardRow {
        let found = self.locate(row).and_then(|(block, at)| block.forward.get(at));
        found.cloned().unwrap_or_default()
    }

    /// The delete mark of a row.
    pub fn mark(&self, row: u32) -> u64 {
        self.locate(row).map_or(0, |(block, place)| block.tombstones.mark(place as u32))
    }

    /// Rows that are deleted, by whatever sequence.
    pub fn deleted(&self) -> u64 {
        self.blocks.iter().map(|block| block.tombstones.deleted()).sum()
    }
}

/// The writer's end of a growing segment.
#[derive(Debug)]
pub struct Growing {
    space: u32,
    columns: Vec<ColumnForm>,
    /// Vectors of each index column whose rows may have several.
    vectors: Vec<u64>,
    forward_columns: usize,
    with_lsns: bool,
    blocks: Vec<Arc<Block>>,
    open: OpenBlock,
    bytes: u64,
    inserted: Inserted,
    first_doc_id: u64,
    next_doc_id: u64,
}

/// What the rows of an index column hold.
#[derive(Debug, Clone, Copy)]
struct ColumnForm {
    /// Bytes of one vector; 0 for a column that can hold none.
    vector_bytes: usize,
    /// True where a row may have several.
    is_multi: bool,
}

#[derive(Debug, Default)]
struct OpenBlock {
    first_row: u32,
    keys: Vec<u64>,
    lsns: Vec<u64>,
    marks: Vec<u64>,
    forward: Vec<ForwardRow>,
    columns: Vec<OpenColumn>,
}

#[derive(Debug, Default)]
struct OpenColumn {
    data: MutableBuffer,
    present: Vec<bool>,
    /// Where rows may have several vectors: how many there are up to and with each row.
    ends: Vec<i64>,
}

impl Growing {
    /// An empty segment of the given row space, whose first document gets `first_doc_id`.
    pub fn new(schema: &CollectionSchema, space: u32, first_doc_id: u64) -> Self {
        let form = |column: &VectorColumn| ColumnForm {
            vector_bytes: column.vector_bytes().unwrap_or(0),
            is_multi: column.multi.is_some(),
        };
        let columns: Vec<ColumnForm> = schema.columns.iter().map(form).collect();
        let open = OpenBlock::empty(0, columns.len());
        Growing {
            space,
            vectors: vec![0; columns.len()],
            columns,
            forward_columns: schema.forward_columns.len(),
            with_lsns: schema.follows_repository(),
            blocks: Vec::new(),
            open,
            bytes: 0,
            inserted: Inserted::NOTHING,
            first_doc_id,
            next_doc_id: first_doc_id,
        }
    }

    /// The row space.
    pub fn space(&self) -> u32 {
        self.space
    }

    /// Rows appended, deleted ones included.
    pub fn rows(&self) -> u32 {
        self.open.first_row + self.open.keys.len() as u32
    }

    /// Vectors of the column that has most, and as many as rows at least.
    pub fn vectors_max(&self) -> u64 {
        self.vectors.iter().copied().fold(u64::from(self.rows()), u64::max)
    }

    /// Bytes of vectors and forward values, roughly.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The document id the next row gets.
    pub fn next_doc_id(&self) -> u64 {
        self.next_doc_id
    }

    /// Appends a row and returns its number.
    pub fn push(&mut self, key: u64, document: &Document, lsn: Option<&LsnContext>) -> u32 {
        let row = self.rows();
        let open = &mut self.open;
        open.keys.push(key);
        open.marks.push(LIVE);
        open.lsns.push(lsn.map_or(0, |l| l.lsn));
        open.forward.push(complete(document.forward.clone(), self.forward_columns));
        let mut bytes = 48;
        for (position, column) in open.columns.iter_mut().enumerate() {
            let ColumnForm { vector_bytes: width, is_multi } = self.columns[position];
            // The schema's checks make every vector as long as its column says; a log of another
            // schema is refused before it is replayed.
            let vector = document.vectors.get(position).and_then(Option::as_ref);
            if is_multi {
                let fits = |vectors: &&Bytes| width > 0 && vectors.len().is_multiple_of(width);
                let vectors = vector.filter(fits).map_or(&[][..], |vectors| vectors);
                column.data.extend_from_slice(vectors);
                column.ends.push((column.data.len() / width.max(1)) as i64);
                self.vectors[position] += (vectors.len() / width.max(1)) as u64;
                bytes += (vectors.len() + size_of::<i64>()) as u64;
                continue;
            }
            match vector.filter(|vector| vector.len() == width && width > 0) {
                Some(vector) => column.data.extend_from_slice(vector),
                None => column.data.extend_zeros(width),
            }
            column.present.push(vector.is_some());
            bytes += width as u64;
        }
        bytes += document.forward.iter().map(value_bytes).sum::<u64>();
        self.bytes += bytes;
        self.inserted.count += 1;
        self.inserted.keys.include(key);
        self.inserted.lsns.include(lsn.map_or(0, |l| l.lsn));
        self.inserted.doc_ids.include(self.next_doc_id);
        self.next_doc_id += 1;
        row
    }

    /// Marks a row deleted.
    pub fn delete(&mut self, row: u32, sequence: u64) {
        if row >= self.open.first_row {
            if let Some(mark) = self.open.marks.get_mut((row - self.open.first_row) as usize)
                && *mark == LIVE
            {
                *mark = sequence;
            }
            return;
        }
        let after = self.blocks.partition_point(|block| block.first_row <= row);
        if let Some(block) = after.checked_sub(1).and_then(|at| self.blocks.get(at)) {
            block.tombstones.delete(row - block.first_row, sequence);
        }
    }

    /// The stored LSN of a row.
    pub fn lsn(&self, row: u32) -> u64 {
        if row >= self.open.first_row {
            return self.open.lsns.get((row - self.open.first_row) as usize).copied().unwrap_or(0);
        }
        let after = self.blocks.partition_point(|block| block.first_row <= row);
        let block = after.checked_sub(1).and_then(|at| self.blocks.get(at));
        block.map_or(0, |block| {
            let lsns = block.rows.lsns.as_ref();
            lsns.and_then(|l| l.get((row - block.first_row) as usize).copied()).unwrap_or(0)
        })
    }

    /// The forward values of a row.
    pub fn forward(&self, row: u32) -> ForwardRow {
        if let Some(place) = row.checked_sub(self.open.first_row) {
            return self.open.forward.get(place as usize).cloned().unwrap_or_default();
        }
        let after = self.blocks.partition_point(|block| block.first_row <= row);
        let block = after.checked_sub(1).and_then(|at| self.blocks.get(at));
        let found = block.and_then(|block| block.forward.get((row - block.first_row) as usize));
        found.cloned().unwrap_or_default()
    }

    /// Closes the open block and hands out everything appended so far.
    pub fn publish(&mut self) -> Arc<GrowingView> {
        let rows = self.rows();
        if !self.open.keys.is_empty() {
            let next = OpenBlock::empty(rows, self.columns.len());
            let open = std::mem::replace(&mut self.open, next);
            let mut block = open.close(&self.columns, self.with_lsns);
            while let Some(last) = self.blocks.last()
                && last.rows.len() <= block.rows.len()
                && last.vectors_max() + block.vectors_max() <= BLOCK_ROWS
            {
                block = merge(last, &block, self.with_lsns);
                self.blocks.pop();
            }
            self.blocks.push(Arc::new(block));
        }
        Arc::new(GrowingView {
            space: self.space,
            blocks: self.blocks.clone(),
            rows,
            bytes: self.bytes,
            inserted: self.inserted,
            first_doc_id: self.first_doc_id,
        })
    }
}

fn value_bytes(value: &Option<Value>) -> u64 {
    16 + value.as_ref().map_or(0, Value::payload_bytes) as u64
}

impl OpenBlock {
    fn empty(first_row: u32, columns: usize) -> Self {
        let columns = (0..columns).map(|_| OpenColumn::default()).collect();
        OpenBlock { first_row, columns, ..OpenBlock::default() }
    }

    fn close(self, forms: &[ColumnForm], with_lsns: bool) -> Block {
        let columns = self.columns.into_iter().zip(forms);
        let columns = columns.map(|(column, form)| ColumnBlock {
            vector_bytes: form.vector_bytes,
            data: column.data.into(),
            present: match column.present.iter().all(|present| *present) {
                true => None,
                false => Some(BooleanBuffer::from(column.present)),
            },
            lists: form.is_multi.then(|| Lists::of_ends(column.ends)),
        });
        let rows = Rows {
            columns: columns.collect(),
            keys: self.keys.into(),
            lsns: with_lsns.then(|| self.lsns.into()),
        };
        Block {
            first_row: self.first_row,
            rows,
            forward: self.forward,
            tombstones: Tombstones::from_marks(self.marks),
        }
    }
}

/// One block of two neighbours. Older snapshots keep the old blocks; marks set from now on go to the
/// merged one, and are all above what those snapshots see.
fn merge(left: &Block, right: &Block, with_lsns: bool) -> Block {
    let both = [left, right];
    let keys: Vec<u64> = both.iter().flat_map(|b| b.rows.keys.iter().copied()).collect();
    let lsns = with_lsns.then(|| {
        let lsns = both.iter().filter_map(|b| b.rows.lsns.as_ref()).flat_map(|l| l.iter().copied());
        lsns.collect::<Vec<u64>>().into()
    });
    let columns = (0..left.rows.columns.len()).map(|position| {
        let parts = both.map(|block| (&block.rows.columns[position], block.rows.len()));
        concatenate(&parts)
    });
    let rows = Rows { columns: columns.collect(), keys: ScalarBuffer::from(keys), lsns };
    let marks =
        both.iter().flat_map(|b| (0..b.rows.len() as u32).map(|row| b.tombstones.mark(row)));
    Block {
        first_row: left.first_row,
        tombstones: Tombstones::from_marks(marks),
        forward: both.iter().flat_map(|b| b.forward.iter().cloned()).collect(),
        rows,
    }
}

fn concatenate(parts: &[(&ColumnBlock, usize)]) -> ColumnBlock {
    let mut data = MutableBuffer::new(parts.iter().map(|(column, _)| column.data.len()).sum());
    for (column, _) in parts {
        data.extend_from_slice(&column.data);
    }
    let present = match parts.iter().all(|(column, _)| column.present.is_none()) {
        true => None,
        false => Some(BooleanBuffer::from_iter(
            parts.iter().flat_map(|(column, rows)| (0..*rows).map(|row| column.count_of(row) > 0)),
        )),
    };
    let lists: Option<Vec<&Lists>> =
        parts.iter().map(|(column, _)| column.lists.as_ref()).collect();
    let ends = lists.map(|lists| {
        let mut before = 0;
        let mut ends = Vec::new();
        for lists in lists {
            ends.extend(lists.starts.iter().skip(1).map(|end| before + end));
            before += lists.count() as i64;
        }
        ends
    });
    ColumnBlock {
        vector_bytes: parts.first().map_or(0, |(column, _)| column.vector_bytes),
        data: Buffer::from(data),
        present,
        lists: ends.map(Lists::of_ends),
    }
}
