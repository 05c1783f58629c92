//! `rows.arrow`: the rows of a sealed segment as an Arrow IPC file that any Arrow tool opens.
//!
//! Columns, in order: `_key` (uint64), `_lsn` (uint64, repository collections only), one per index
//! column (fixed-size list of float, halffloat, int8 or int16; fixed-size binary for INT4 and the bit
//! types; a large list of these in columns whose rows may have several; null where a row has no
//! vector), one per forward column. A forward column whose values are
//! all of one kind has that kind's Arrow type; one of mixed kinds is a struct with one nullable field
//! per kind; one without values is of type null. A forward column that shares its name with an index
//! column is called `<name>#forward`. Record batches hold [`BATCH_ROWS`] rows each, or, where rows may
//! have several vectors, a lower power of two that the metadata names. Buffers are aligned to 64 bytes and not compressed, so that vectors are read where they are mapped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int8Type, Int16Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, LargeListArray, NullArray,
    PrimitiveArray, RecordBatch, UInt64Array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;

use super::block::{ColumnBlock, Lists, Rows};
use super::kinds::{KindSet, forward_array, value_at};
use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, ElementType, ForwardRow, Value, VectorColumn};
use crate::storage::{ChecksumWriter, Directory};

type ArrowResult<T> = std::result::Result<T, ArrowError>;

/// Rows of a record batch, where a row has one vector; the last may have fewer.
pub const BATCH_ROWS: usize = 65_536;

/// The form of the file, in its metadata.
const FORMAT: &str = "1";
/// The same where rows may have several vectors.
const FORMAT_MULTI: &str = "2";
/// Where the metadata of such a file says how many rows a batch has.
const BATCH_ROWS_KEY: &str = "voisin.batch_rows";
/// Rows of a batch at least, that bitmaps over all rows and over those of a batch share their words.
pub(super) const BATCH_ROWS_MIN: usize = u64::BITS as usize;
/// Vectors of a column: nodes are counted in 32 bits.
pub(super) const NODES_MAX: usize = u32::MAX as usize - 1;

/// The Arrow schema of a segment's rows.
fn arrow_schema(schema: &CollectionSchema, kinds: &[KindSet], batch_rows: usize) -> SchemaRef {
    let mut fields = vec![Field::new("_key", DataType::UInt64, false)];
    if schema.follows_repository() {
        fields.push(Field::new("_lsn", DataType::UInt64, false));
    }
    for column in &schema.columns {
        fields.push(Field::new(&column.name, vector_type(column), true));
    }
    for (name, kinds) in schema.forward_columns.iter().zip(kinds) {
        let taken = fields.iter().any(|field| field.name() == name);
        let name = if taken { format!("{name}#forward") } else { name.clone() };
        fields.push(Field::new(name, kinds.data_type(), true));
    }
    let mut metadata = HashMap::from([
        ("voisin.collection".to_string(), schema.name.clone()),
        ("voisin.format".to_string(), format(schema).to_string()),
    ]);
    if format(schema) == FORMAT_MULTI {
        metadata.insert(BATCH_ROWS_KEY.to_string(), batch_rows.to_string());
    }
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

fn format(schema: &CollectionSchema) -> &'static str {
    match schema.columns.iter().any(|column| column.multi.is_some()) {
        false => FORMAT,
        true => FORMAT_MULTI,
    }
}

fn list_item(column: &VectorColumn) -> Option<Arc<Field>> {
    let item = match column.element {
        ElementType::Fp32 => DataType::Float32,
        ElementType::Fp16 => DataType::Float16,
        ElementType::Int8 => DataType::Int8,
        ElementType::Int16 => DataType::Int16,
        ElementType::Int4 | ElementType::Binary32 | ElementType::Binary64 => return None,
    };
    Some(Arc::new(Field::new("item", item, false)))
}

fn vector_type(column: &VectorColumn) -> DataType {
    let vector = match (column.vector_bytes(), list_item(column)) {
        (None, _) => return DataType::Null,
        (Some(_), Some(item)) => DataType::FixedSizeList(item, column.dimension as i32),
        (Some(bytes), None) => DataType::FixedSizeBinary(bytes as i32),
    };
    match column.multi {
        None => vector,
        Some(_) => DataType::LargeList(vector_field(vector)),
    }
}

/// The field of the vectors of a row.
fn vector_field(vector: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", vector, false))
}

/// Writes a segment's rows, batch by batch.
pub struct RowsWriter {
    schema: SchemaRef,
    vector_columns: Vec<VectorColumn>,
    kinds: Vec<KindSet>,
    path: std::path::PathBuf,
    writer: FileWriter<ChecksumWriter>,
}

fn arrow_failure(path: &Path, error: &ArrowError) -> Error {
    Error::io("write", path, error)
}

impl RowsWriter {
    /// Creates the file. `kinds` has the kinds of every forward column over all rows to come. Batches are
    /// to have `batch_rows` rows: [`BATCH_ROWS`], or a lower power of two where rows may have several
    /// vectors.
    pub fn create(
        disk: &dyn Directory,
        path: &Path,
        schema: &CollectionSchema,
        kinds: Vec<KindSet>,
        batch_rows: usize,
    ) -> Result<Self> {
        let arrow_schema = arrow_schema(schema, &kinds, batch_rows);
        let options = IpcWriteOptions::try_new(64, false, arrow_ipc::MetadataVersion::V5)
            .map_err(|e| arrow_failure(path, &e))?;
        let file = ChecksumWriter::create(disk, path)?;
        let writer = FileWriter::try_new_with_options(file, &arrow_schema, options)
            .map_err(|e| arrow_failure(path, &e))?;
        Ok(RowsWriter {
            schema: arrow_schema,
            vector_columns: schema.columns.clone(),
            kinds,
            path: path.to_path_buf(),
            writer,
        })
    }

    /// Fails soon once the flag is set.
    pub fn end_by(&mut self, stop: &Arc<AtomicBool>) {
        self.writer.get_mut().end_by(stop);
    }

    /// Writes one batch; all but the last must have as many rows as was said.
    pub fn write(&mut self, rows: &Rows, forward: &[ForwardRow]) -> Result<()> {
        let batch = self.batch(rows, forward).map_err(|e| arrow_failure(&self.path, &e))?;
        self.writer.write(&batch).map_err(|e| arrow_failure(&self.path, &e))
    }

    fn batch(&self, rows: &Rows, forward: &[ForwardRow]) -> ArrowResult<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt64Array::new(rows.keys.clone(), None))];
        if let Some(lsns) = &rows.lsns {
            arrays.push(Arc::new(UInt64Array::new(lsns.clone(), None)));
        }
        for (column, block) in self.vector_columns.iter().zip(&rows.columns) {
            arrays.push(vector_array(column, block, rows.len())?);
        }
        for (position, kinds) in self.kinds.iter().enumerate() {
            let values: Vec<Option<&Value>> =
                forward.iter().map(|row| row.get(position).and_then(Option::as_ref)).collect();
            arrays.push(forward_array(*kinds, &values));
        }
        RecordBatch::try_new(self.schema.clone(), arrays)
    }

    /// Finishes and syncs the file; returns (bytes, CRC-32C).
    pub fn finish(self) -> Result<(u64, u32)> {
        let path = self.path;
        self.writer.into_inner().map_err(|e| arrow_failure(&path, &e))?.finish()
    }
}

fn vector_array(column: &VectorColumn, block: &ColumnBlock, rows: usize) -> ArrowResult<ArrayRef> {
    if block.vector_bytes == 0 {
        return Ok(Arc::new(NullArray::new(rows)));
    }
    let Some(lists) = &block.lists else {
        let nulls = block.present.clone().map(NullBuffer::new);
        return vectors_array(column, block, rows, nulls);
    };
    let vectors = vectors_array(column, block, lists.count(), None)?;
    let nulls = NullBuffer::from_iter((0..rows).map(|row| !lists.of_row(row).is_empty()));
    let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
    let field = vector_field(vectors.data_type().clone());
    let starts = OffsetBuffer::new(lists.starts.clone());
    Ok(Arc::new(LargeListArray::try_new(field, starts, vectors, nulls)?))
}

/// The first `count` vectors of a block.
fn vectors_array(
    column: &VectorColumn,
    block: &ColumnBlock,
    count: usize,
    nulls: Option<NullBuffer>,
) -> ArrowResult<ArrayRef> {
    let Some(item) = list_item(column) else {
        let width = block.vector_bytes as i32;
        return Ok(Arc::new(FixedSizeBinaryArray::try_new(width, block.data.clone(), nulls)?));
    };
    let count = count * column.dimension as usize;
    let data = block.data.clone();
    let values: ArrayRef = match column.element {
        ElementType::Fp32 => primitive::<Float32Type>(data, count),
        ElementType::Fp16 => primitive::<Float16Type>(data, count),
        ElementType::Int16 => primitive::<Int16Type>(data, count),
        _ => primitive::<Int8Type>(data, count),
    };
    let list = FixedSizeListArray::try_new(item, column.dimension as i32, values, nulls)?;
    Ok(Arc::new(list))
}

fn primitive<T: arrow_array::ArrowPrimitiveType>(data: Buffer, count: usize) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(data, 0, count), None))
}

/// One record batch as it lies in the mapped file.
#[derive(Debug)]
pub struct Batch {
    /// Row number of the first.
    pub first_row: u32,
    /// Keys and vectors.
    pub rows: Rows,
    /// Forward columns.
    forward: Vec<ArrayRef>,
}

impl Batch {
    /// The values of a forward column, if the file has it.
    pub(super) fn column(&self, column: usize) -> Option<&ArrayRef> {
        self.forward.get(column)
    }

    /// The forward values of a row of this batch.
    pub fn forward(&self, row: usize) -> ForwardRow {
        self.forward.iter().map(|array| value_at(array, row)).collect()
    }
}

/// A segment's rows, read where they are mapped.
#[derive(Debug)]
pub struct RowsFile {
    /// The record batches in row order.
    pub batches: Vec<Batch>,
    /// Kinds of every forward column.
    pub kinds: Vec<KindSet>,
    /// Rows in all batches.
    pub rows: u32,
    /// Rows of a batch, as a power of two.
    batch_shift: u32,
}

impl RowsFile {
    /// Opens a mapped file whose checksum was verified, and checks that it holds what the collection
    /// declares.
    pub fn open(bytes: Bytes, path: &Path, schema: &CollectionSchema) -> Result<Self> {
        let damaged = |detail: String| Error::damaged(path, 0, detail);
        let (file_schema, batches) =
            read_batches(bytes).map_err(|e| damaged(format!("not a readable Arrow file: {e}")))?;
        let first_forward = 1 + usize::from(schema.follows_repository()) + schema.columns.len();
        let kinds: Option<Vec<KindSet>> = file_schema
            .fields()
            .iter()
            .skip(first_forward)
            .map(|field| KindSet::of_type(field.data_type()))
            .collect();
        let kinds = kinds.ok_or_else(|| damaged("a forward column of an unknown type".into()))?;
        let (found, wanted) = (file_schema.metadata().get("voisin.format"), format(schema));
        if found.map(String::as_str) != Some(wanted) {
            let detail = format!("format {found:?} is not {wanted}, that of such a collection");
            return Err(damaged(detail));
        }
        // A file from before a forward column was added has fewer.
        if kinds.len() > schema.forward_columns.len()
            || arrow_schema(schema, &kinds, 0).fields() != file_schema.fields()
        {
            return Err(damaged("the columns are not those of the collection".into()));
        }
        let batch_rows = match wanted {
            FORMAT => Some(BATCH_ROWS),
            _ => file_schema.metadata().get(BATCH_ROWS_KEY).and_then(|rows| rows.parse().ok()),
        };
        let fits =
            |rows: &usize| rows.is_power_of_two() && (BATCH_ROWS_MIN..=BATCH_ROWS).contains(rows);
        let batch_rows = batch_rows.filter(fits);
        let batch_rows =
            batch_rows.ok_or_else(|| damaged(format!("{BATCH_ROWS_KEY} is no number of rows")))?;
        let batch_shift = batch_rows.ilog2();
        let mut kinds = kinds;
        kinds.resize(schema.forward_columns.len(), KindSet::default());
        let mut file = RowsFile { batches: Vec::new(), kinds, rows: 0, batch_shift };
        let mut nodes = vec![0; schema.columns.len()];
        let last = batches.len().saturating_sub(1);
        for (position, batch) in batches.iter().enumerate() {
            if position != last && batch.num_rows() != batch_rows || batch.num_rows() > batch_rows {
                return Err(damaged(format!("batch {position} has {} rows", batch.num_rows())));
            }
            let batch = split_batch(batch, file.rows, &mut nodes, schema)
                .ok_or_else(|| damaged(format!("batch {position} cannot be read in place")))?;
            file.rows += batch.rows.len() as u32;
            file.batches.push(batch);
        }
        Ok(file)
    }

    /// Rows of every batch but the last, which may have fewer.
    pub(super) fn batch_rows(&self) -> usize {
        1 << self.batch_shift
    }

    /// The batch that holds a row, and the row's place in it.
    pub fn locate(&self, row: u32) -> Option<(&Batch, usize)> {
        let batch = self.batches.get(row as usize >> self.batch_shift)?;
        let place = row as usize & ((1 << self.batch_shift) - 1);
        (place < batch.rows.len()).then_some((batch, place))
    }
}

fn read_batches(bytes: Bytes) -> ArrowResult<(SchemaRef, Vec<RecordBatch>)> {
    let short = || ArrowError::IpcError("the file is cut short".into());
    let buffer = Buffer::from(bytes);
    let trailer_start = buffer.len().checked_sub(10).ok_or_else(short)?;
    let mut trailer = [0; 10];
    trailer.copy_from_slice(&buffer[trailer_start..]);
    let footer_bytes = read_footer_length(trailer)?;
    let footer_start = trailer_start.checked_sub(footer_bytes).ok_or_else(short)?;
    let footer = arrow_ipc::root_as_footer(&buffer[footer_start..trailer_start])
        .map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let no_schema = || ArrowError::IpcError("the footer has no schema".into());
    let schema = arrow_ipc::convert::try_fb_to_schema(footer.schema().ok_or_else(no_schema)?)?;
    let schema = Arc::new(schema);
    let decoder = FileDecoder::new(schema.clone(), footer.version()).with_require_alignment(true);
    let mut batches = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let (Ok(offset), Ok(body), Ok(metadata)) = (
            usize::try_from(block.offset()),
            usize::try_from(block.bodyLength()),
            usize::try_from(block.metaDataLength()),
        ) else {
            return Err(short());
        };
        let length = body.checked_add(metadata).ok_or_else(short)?;
        if offset.checked_add(length).is_none_or(|end| end > buffer.len()) {
            return Err(short());
        }
        let data = buffer.slice_with_length(offset, length);
        batches.extend(decoder.read_record_batch(block, &data)?);
    }
    Ok((schema, batches))
}

/// The parts of a batch, before which there are so many rows, and so many vectors of each column that
/// takes several for a row.
fn split_batch(
    batch: &RecordBatch,
    first_row: u32,
    nodes: &mut [usize],
    schema: &CollectionSchema,
) -> Option<Batch> {
    let rows = batch.num_rows();
    let mut columns = batch.columns().iter();
    let keys = columns.next()?.as_primitive_opt::<UInt64Type>()?.values().clone();
    let lsns = match schema.follows_repository() {
        true => Some(columns.next()?.as_primitive_opt::<UInt64Type>()?.values().clone()),
        false => None,
    };
    let mut vectors = Vec::with_capacity(schema.columns.len());
    for (column, nodes) in schema.columns.iter().zip(nodes) {
        let mut block = column_block(columns.next()?, column, rows)?;
        if let Some(lists) = &mut block.lists {
            lists.first_node = u32::try_from(*nodes).ok()?;
            *nodes += lists.count();
            (*nodes <= NODES_MAX).then_some(())?;
        }
        vectors.push(block);
    }
    let mut forward: Vec<ArrayRef> = columns.cloned().collect();
    forward.resize_with(schema.forward_columns.len(), || Arc::new(NullArray::new(rows)));
    Some(Batch { first_row, rows: Rows { keys, lsns, columns: vectors }, forward })
}

fn column_block(array: &ArrayRef, column: &VectorColumn, rows: usize) -> Option<ColumnBlock> {
    let Some(vector_bytes) = column.vector_bytes() else {
        let lists = column.multi.map(|_| Lists::of_ends(vec![0; rows]));
        let data = Buffer::from(&[][..]);
        return Some(ColumnBlock { vector_bytes: 0, data, present: None, lists });
    };
    if column.multi.is_none() {
        let data = vectors_data(array, column, vector_bytes, rows)?;
        let present = array.nulls().filter(|n| n.null_count() > 0).map(|n| n.inner().clone());
        return Some(ColumnBlock { vector_bytes, data, present, lists: None });
    }
    let array = array.as_list_opt::<i64>()?;
    let starts = array.offsets().inner().clone();
    let count = array.values().len();
    let is_whole = starts.len() == rows + 1
        && starts.first() == Some(&0)
        && starts.is_sorted()
        && starts.last().is_some_and(|end| usize::try_from(*end) == Ok(count))
        && array.values().null_count() == 0;
    let data = vectors_data(array.values(), column, vector_bytes, count)?;
    let lists = Some(Lists { starts, first_node: 0 });
    is_whole.then_some(ColumnBlock { vector_bytes, data, present: None, lists })
}

/// The bytes of so many vectors of an array.
fn vectors_data(
    array: &ArrayRef,
    column: &VectorColumn,
    vector_bytes: usize,
    count: usize,
) -> Option<Buffer> {
    let length = count.checked_mul(vector_bytes)?;
    let (buffer, start) = if let Some(list) = array.as_fixed_size_list_opt() {
        let values = list.values().to_data();
        let element_bytes = vector_bytes / column.dimension as usize;
        (values.buffers().first()?.clone(), values.offset() * element_bytes)
    } else {
        let data = array.as_fixed_size_binary_opt()?.to_data();
        (data.buffers().first()?.clone(), data.offset() * vector_bytes)
    };
    (start.checked_add(length)? <= buffer.len()).then(|| buffer.slice_with_length(start, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{IndexKind, Metric, MultiVectors};

    fn column() -> VectorColumn {
        VectorColumn {
            name: "v".into(),
            element: ElementType::Int8,
            dimension: 2,
            metric: Metric::SquaredEuclidean,
            index: IndexKind::Flat,
            multi: Some(MultiVectors { max: None }),
            extra_params: Vec::new(),
        }
    }

    fn array(ends: &[i64]) -> ArrayRef {
        let count = ends.last().map_or(0, |end| *end as usize);
        let block = ColumnBlock {
            vector_bytes: 2,
            data: Buffer::from_vec((0..2 * count as u8).collect()),
            present: None,
            lists: Some(Lists::of_ends(ends.to_vec())),
        };
        vector_array(&column(), &block, ends.len()).expect("the block is whole")
    }

    #[test]
    fn lists_of_vectors_come_back_as_they_were() {
        let array = array(&[2, 2, 5]);
        assert_eq!((array.len(), array.null_count()), (3, 1), "a row without vectors is null");
        let block = column_block(&array, &column(), 3).expect("it is whole");
        assert_eq!(block.vectors(0), Some(&[0, 1, 2, 3][..]));
        assert_eq!((block.vectors(1), block.vectors(3)), (None, None));
        assert_eq!(block.vectors(2), Some(&[4, 5, 6, 7, 8, 9][..]));
        assert_eq!((block.count(3), block.count_of(0), block.count_of(1)), (5, 2, 0));
        assert_eq!(block.node(4, 2), Some(&[8, 9][..]));
        assert_eq!(block.node(5, 2), None);
    }

    #[test]
    fn lists_that_are_not_whole_are_refused() {
        let whole = array(&[2, 2, 5]);
        assert!(column_block(&whole, &column(), 2).is_none(), "of other rows");
        assert!(
            column_block(&whole.slice(1, 2), &column(), 2).is_none(),
            "not from the first vector"
        );
        assert!(column_block(&whole.slice(0, 2), &column(), 2).is_none(), "not to the last");
        let other = VectorColumn { element: ElementType::Int4, ..column() };
        assert!(
            column_block(&whole, &VectorColumn { multi: None, ..other }, 3).is_none(),
            "no lists"
        );
        let longer = VectorColumn { dimension: 4, ..column() };
        assert!(column_block(&whole, &longer, 3).is_none(), "too few bytes");
    }
}
