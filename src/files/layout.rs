//! What formats have in common: lists of numbers as arrays, the size of blocks, and which columns make a
//! table where a file has columns of different lengths.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, FixedSizeListArray, PrimitiveArray, RecordBatch,
};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef};

use super::{BLOCK_BYTES, Block, DIMENSION_MAX, Fault, Read, memory_max};

/// The column of files that have one without a name.
pub(super) const VECTOR: &str = "vector";

/// Datasets of ann-benchmarks that are no rows.
const NO_ROWS: [&str; 3] = ["test", "neighbors", "distances"];

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, false))
}

/// The type of vectors of one dimension, which is at most [`DIMENSION_MAX`].
pub(super) fn list_type(data_type: DataType, dimension: usize) -> DataType {
    DataType::FixedSizeList(item(data_type), dimension as i32)
}

/// Vectors as they lie one after the other in a buffer that is aligned for them.
pub(super) fn list_of<T: ArrowPrimitiveType>(buffer: Buffer, dimension: usize) -> ArrayRef {
    let values: ArrayRef = primitive::<T>(buffer);
    let list = FixedSizeListArray::new(item(T::DATA_TYPE), dimension as i32, values, None);
    Arc::new(list)
}

/// Numbers as they lie one after the other in a buffer that is aligned for them.
pub(super) fn primitive<T: ArrowPrimitiveType>(buffer: Buffer) -> ArrayRef {
    let count = buffer.len() / size_of::<T::Native>();
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(buffer, 0, count), None))
}

/// Rows of a block: as many as are wanted, there, and of a block's bytes; at least one.
pub(super) fn rows_of_block(rows_max: usize, row_bytes: usize, left: u64) -> usize {
    let fits = (BLOCK_BYTES / row_bytes.max(1)).max(1);
    fits.min(rows_max).min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// The next rows of a batch of which so many are done, as many as a block may have; `None` at its end.
pub(super) fn block_of(batch: &RecordBatch, done: &mut usize, rows_max: usize) -> Option<Block> {
    let left = batch.num_rows().checked_sub(*done).filter(|left| *left > 0)?;
    let bytes = |array: &ArrayRef| array.to_data().get_slice_memory_size().unwrap_or(0);
    let bytes: usize = batch.columns().iter().map(bytes).sum();
    let rows = rows_of_block(rows_max, bytes / batch.num_rows(), left as u64);
    let columns = batch.slice(*done, rows).columns().to_vec();
    *done += rows;
    Some(Block { rows, columns, faults: Vec::new() })
}

/// Rows and dimension of an array, whose product overflows nothing then.
pub(super) fn checked_shape(shape: &[u64]) -> Read<(u64, Option<usize>)> {
    let (rows, dimension) = match *shape {
        [rows] => (rows, None),
        [rows, dimension] => {
            if !(1..=DIMENSION_MAX).contains(&dimension) {
                return Err(Fault::new(format!(
                    "dimension {dimension}, expected 1 to {DIMENSION_MAX}"
                )));
            }
            (rows, Some(dimension as usize))
        }
        _ => {
            return Err(Fault::new(format!(
                "an array of shape {shape:?}, where rows, or rows and columns, are wanted"
            )));
        }
    };
    Ok((rows, dimension))
}

/// Refuses to take more memory at once than may be taken.
pub(super) fn check_memory(what: &str, bytes: u64) -> Read<()> {
    let limit = memory_max();
    if bytes > limit {
        return Err(Fault::new(format!(
            "{what} takes {bytes} bytes of memory, and {limit} may be taken"
        )));
    }
    Ok(())
}

/// One of the columns of a file: its name, rows, and whether it holds vectors.
pub(super) struct Candidate<'a> {
    pub name: &'a str,
    pub rows: u64,
    pub is_matrix: bool,
}

/// The columns that make one table: those of the length of a column that is wanted, or else of `train`,
/// or else all, if they are of one length. Places are ascending.
pub(super) fn one_table(columns: &[Candidate<'_>], wanted: &[String]) -> Read<Vec<usize>> {
    let is_wanted = |column: &Candidate<'_>| wanted.iter().any(|name| name == column.name);
    let matrix = columns.iter().find(|column| column.is_matrix && is_wanted(column));
    let train = columns.iter().find(|column| column.is_matrix && column.name == "train");
    let first = matrix.or_else(|| columns.iter().find(|column| is_wanted(column)));
    let Some(first) = first.or(train).or(columns.first()) else {
        return Err(Fault::new("no columns"));
    };
    let is_of_queries = |column: &Candidate<'_>| {
        train.is_some() && NO_ROWS.contains(&column.name) && !is_wanted(column)
    };
    let meant = first.name == "train" || is_wanted(first);
    let mut places = Vec::new();
    for (place, column) in columns.iter().enumerate().filter(|(_, column)| !is_of_queries(column)) {
        if column.rows == first.rows {
            places.push(place);
        } else if is_wanted(column) || !meant {
            return Err(Fault::new(format!(
                "{:?} has {} rows, and {:?} has {}; --vector and --columns choose columns of one \
                 length",
                first.name, first.rows, column.name, column.rows
            )));
        }
    }
    Ok(places)
}
