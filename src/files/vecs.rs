//! `.fvecs`, `.bvecs`, `.ivecs`: for each vector, its dimension as an i32 and its elements, which are
//! 32-bit floats, bytes or 32-bit integers, little-endian. The one column is called `vector`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::types::{Float32Type, Int32Type, UInt8Type};
use arrow_buffer::MutableBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::layout::{VECTOR, list_of, list_type, rows_of_block};
use super::{Block, DIMENSION_MAX, Fault, Read, Table};

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Float,
    Byte,
    Integer,
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Width::Byte => 1,
            Width::Float | Width::Integer => 4,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Width::Float => DataType::Float32,
            Width::Byte => DataType::UInt8,
            Width::Integer => DataType::Int32,
        }
    }
}

/// A file of vectors.
pub(super) struct VecsTable {
    reader: BufReader<File>,
    schema: SchemaRef,
    width: Width,
    dimension: usize,
    rows: u64,
    at: u64,
}

impl VecsTable {
    pub fn open(path: &Path, width: Width) -> Read<VecsTable> {
        let mut file = File::open(path).map_err(Fault::new)?;
        let bytes = file.metadata().map_err(Fault::new)?.len();
        if bytes == 0 {
            return Err(Fault::new("no rows"));
        }
        let mut header = [0; 4];
        file.read_exact(&mut header).map_err(|_| cut(0))?;
        let dimension = dimension_at(0, header, 1..=DIMENSION_MAX)?;
        let row_bytes = 4 + dimension * width.bytes() as u64;
        if !bytes.is_multiple_of(row_bytes) {
            return Err(Fault::new(format!(
                "{bytes} bytes are no whole number of vectors of dimension {dimension}, which take \
                 {row_bytes} bytes each: it is cut short, or its vectors differ in dimension"
            )));
        }
        let reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Fault::new)?);
        let item = list_type(width.data_type(), dimension as usize);
        let schema = Arc::new(Schema::new(vec![Field::new(VECTOR, item, false)]));
        let (rows, dimension) = (bytes / row_bytes, dimension as usize);
        Ok(VecsTable { reader, schema, width, dimension, rows, at: 0 })
    }

    /// Bytes of a vector with its dimension.
    fn row_bytes(&self) -> usize {
        4 + self.dimension * self.width.bytes()
    }
}

fn cut(at: u64) -> Fault {
    Fault::new(format!("the vector at byte {at} is cut short"))
}

fn dimension_at(at: u64, header: [u8; 4], expected: std::ops::RangeInclusive<u64>) -> Read<u64> {
    let found = i32::from_le_bytes(header);
    u64::try_from(found).ok().filter(|found| expected.contains(found)).ok_or_else(|| {
        Fault::new(format!(
            "the vector at byte {at} has dimension {found}, expected {} to {}",
            expected.start(),
            expected.end()
        ))
    })
}

impl Table for VecsTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn select(&mut self, _: &[usize]) -> Read<()> {
        Ok(())
    }

    fn read(&mut self, rows_max: usize) -> Read<Option<Block>> {
        let rows = rows_of_block(rows_max, self.row_bytes(), self.rows - self.at);
        let vector_bytes = self.dimension * self.width.bytes();
        let mut buffer = MutableBuffer::from_len_zeroed(rows * vector_bytes);
        let wanted = self.dimension as u64;
        for vector in buffer.as_slice_mut().chunks_exact_mut(vector_bytes) {
            let place = self.at * (4 + vector_bytes) as u64;
            let mut header = [0; 4];
            self.reader.read_exact(&mut header).map_err(|_| cut(place).at(self.at))?;
            dimension_at(place, header, wanted..=wanted).map_err(|fault| fault.at(self.at))?;
            self.reader.read_exact(vector).map_err(|_| cut(place).at(self.at))?;
            self.at += 1;
        }
        let buffer = buffer.into();
        let array: ArrayRef = match self.width {
            Width::Float => list_of::<Float32Type>(buffer, self.dimension),
            Width::Byte => list_of::<UInt8Type>(buffer, self.dimension),
            Width::Integer => list_of::<Int32Type>(buffer, self.dimension),
        };
        Ok(Some(Block { rows, columns: vec![array], faults: Vec::new() }))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        let bytes = rows * self.row_bytes() as u64;
        self.reader.seek_relative(bytes as i64).map_err(Fault::new)?;
        self.at += rows;
        Ok(())
    }
}

/// Writes vectors of 32-bit floats one after the other.
pub fn write(path: &Path, dimension: usize, vectors: &[f32]) -> std::io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for vector in vectors.chunks(dimension) {
        writer.write_all(&(dimension as i32).to_le_bytes())?;
        for x in vector {
            writer.write_all(&x.to_le_bytes())?;
        }
    }
    writer.flush()
}
