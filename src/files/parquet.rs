//! Apache Parquet, compressed by snappy, gzip, zstd, LZ4 or not at all. Rows are read page by page.

use std::fs::File;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::layout::block_of;
use super::{BLOCK_BYTES, Block, Fault, Read, Table};

/// Most rows decoded at once.
const BATCH_ROWS: usize = 8_192;
/// Columns that a file may have, parts of nested ones included.
const COLUMNS_MAX: usize = 100_000;

/// A file.
pub(super) struct ParquetTable {
    file: File,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    /// Columns of the file in the order wanted.
    selected: Vec<usize>,
    rows: u64,
    /// The row at which reading begins.
    first: u64,
    reader: Option<ParquetRecordBatchReader>,
    /// The batch that is being read, and how many of its rows were.
    batch: Option<(RecordBatch, usize)>,
}

impl ParquetTable {
    pub fn open(path: &Path) -> Read<ParquetTable> {
        let file = File::open(path).map_err(Fault::new)?;
        let there = file.metadata().map_err(Fault::new)?.len();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
        let metadata = metadata.map_err(Fault::new)?;
        let mut rows = 0u64;
        for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
            let of_group = u64::try_from(group.num_rows()).ok();
            rows = of_group.and_then(|of_group| rows.checked_add(of_group)).ok_or_else(|| {
                Fault::new(format!("row group {number} says it has {} rows", group.num_rows()))
            })?;
            if group.columns().len() > COLUMNS_MAX {
                return Err(Fault::new(format!("{} columns", group.columns().len())));
            }
            for column in group.columns() {
                let (data, length) = (column.data_page_offset(), column.compressed_size());
                // A dictionary comes before what it is for.
                let start = column.dictionary_page_offset().unwrap_or(data).min(data);
                let end = start.checked_add(length).and_then(|end| u64::try_from(end).ok());
                if start < 0 || length < 0 || end.is_none_or(|end| end > there) {
                    return Err(Fault::of_column(
                        &column.column_path().string(),
                        format!("{length} bytes at byte {start} of a file of {there} bytes"),
                    ));
                }
                if column.num_values() < 0 || column.uncompressed_size() < 0 {
                    return Err(Fault::of_column(&column.column_path().string(), "a size below 0"));
                }
            }
        }
        let schema = metadata.schema().clone();
        let selected = (0..schema.fields().len()).collect();
        Ok(ParquetTable {
            file,
            metadata,
            schema,
            selected,
            rows,
            first: 0,
            reader: None,
            batch: None,
        })
    }

    /// Rows decoded at once: lists of numbers are large.
    fn batch_rows(&self) -> usize {
        let bytes_of = |at: &usize| match self.schema.field(*at).data_type() {
            DataType::FixedSizeList(_, size) => usize::try_from(*size).unwrap_or(0) * 4,
            _ => 0,
        };
        let by_type: usize = self.selected.iter().map(bytes_of).sum();
        let groups = self.metadata.metadata().row_groups();
        let by_group = groups.iter().map(|group| {
            let bytes = u64::try_from(group.total_byte_size()).unwrap_or(0);
            usize::try_from(bytes / (group.num_rows().max(1) as u64)).unwrap_or(0)
        });
        let row_bytes = by_type.max(by_group.max().unwrap_or(0)).max(1);
        (BLOCK_BYTES / row_bytes).clamp(1, BATCH_ROWS)
    }

    fn reader(&mut self) -> Read<&mut ParquetRecordBatchReader> {
        if self.reader.is_none() {
            let file = self.file.try_clone().map_err(Fault::new)?;
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
            let roots = ProjectionMask::roots(
                self.metadata.parquet_schema(),
                self.selected.iter().copied(),
            );
            let first = usize::try_from(self.first).map_err(Fault::new)?;
            let builder = builder
                .with_projection(roots)
                .with_batch_size(self.batch_rows())
                .with_offset(first);
            self.reader = Some(builder.build().map_err(Fault::new)?);
        }
        self.reader.as_mut().ok_or_else(|| Fault::new("no reader"))
    }

    /// A batch has the columns in the order of the file.
    fn reorder(&self, batch: &RecordBatch) -> Read<RecordBatch> {
        let mut sorted = self.selected.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let place =
            |column: &usize| sorted.binary_search(column).map_err(|_| "a column is missing");
        let places = self.selected.iter().map(place).collect::<Result<Vec<_>, _>>();
        batch.project(&places.map_err(Fault::new)?).map_err(Fault::new)
    }
}

impl Table for ParquetTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn select(&mut self, columns: &[usize]) -> Read<()> {
        self.selected = columns.to_vec();
        Ok(())
    }

    fn read(&mut self, rows_max: usize) -> Read<Option<Block>> {
        loop {
            if let Some((batch, done)) = &mut self.batch
                && let Some(block) = block_of(batch, done, rows_max)
            {
                return Ok(Some(block));
            }
            let Some(batch) = self.reader()?.next() else { return Ok(None) };
            let batch = self.reorder(&batch.map_err(Fault::new)?)?;
            self.batch = Some((batch, 0));
        }
    }

    fn skip(&mut self, mut rows: u64) -> Read<()> {
        if self.reader.is_none() {
            self.first += rows;
            return Ok(());
        }
        while rows > 0 {
            let rows_max = usize::try_from(rows).unwrap_or(usize::MAX);
            let block = self.read(rows_max)?.ok_or_else(|| Fault::new("cut short"))?;
            rows -= block.rows as u64;
        }
        Ok(())
    }
}
