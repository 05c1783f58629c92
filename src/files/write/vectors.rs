//! `.npy` and `.fvecs`: vectors alone, with their keys in a `.npy` beside them.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int8Type, Int16Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};

use super::super::{Fault, Format, Read, several};
use super::sync;

/// Bytes of the header of a `.npy`, which is written again when the rows are counted.
const HEADER_BYTES: usize = 128;

/// What the vectors are.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    format: Format,
    dimension: usize,
    /// As numpy names the type.
    descr: &'static str,
}

impl Shape {
    /// That of the second column of two.
    pub fn of(format: Format, schema: &SchemaRef) -> Read<Shape> {
        let [_, vectors] = &schema.fields()[..] else {
            return Err(Fault::new(
                "it has room for one column of vectors, which --vectors names, and for no values",
            ));
        };
        if several(vectors.data_type()).is_some() {
            let why = "several vectors for a row, which .arrow, .parquet and .jsonl hold";
            return Err(Fault::of_column(vectors.name(), why));
        }
        let DataType::FixedSizeList(item, dimension) = vectors.data_type() else {
            let why = "vectors of INT4 or of bits, which .arrow, .parquet and .jsonl hold";
            return Err(Fault::of_column(vectors.name(), why));
        };
        let descr = match item.data_type() {
            DataType::Float16 => "<f2",
            DataType::Int8 => "|i1",
            DataType::Int16 => "<i2",
            _ => "<f4",
        };
        let dimension = usize::try_from(*dimension).unwrap_or(0);
        Ok(Shape { format, dimension, descr })
    }
}

/// Two files.
pub(super) struct VectorWriter {
    vectors: BufWriter<File>,
    keys: BufWriter<File>,
    shape: Shape,
    rows: u64,
}

/// The header of an array of so many rows, always of the same length.
fn header(descr: &str, rows: u64, dimension: Option<usize>) -> Vec<u8> {
    let shape = match dimension {
        Some(dimension) => format!("({rows}, {dimension})"),
        None => format!("({rows},)"),
    };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = HEADER_BYTES - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    bytes
}

impl VectorWriter {
    pub fn begin(
        vectors: BufWriter<File>,
        keys: BufWriter<File>,
        shape: Shape,
    ) -> Read<VectorWriter> {
        let mut writer = VectorWriter { vectors, keys, shape, rows: 0 };
        writer.headers().map_err(Fault::new)?;
        Ok(writer)
    }

    fn headers(&mut self) -> io::Result<()> {
        self.keys.write_all(&header("<u8", self.rows, None))?;
        if self.shape.format == Format::Npy {
            let dimension = Some(self.shape.dimension);
            self.vectors.write_all(&header(self.shape.descr, self.rows, dimension))?;
        }
        Ok(())
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Read<()> {
        let (keys, vectors) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1));
        if let Some(row) = (0..vectors.len()).find(|row| vectors.is_null(*row)) {
            let key = keys.value(row);
            return Err(Fault::new(format!(
                "the row of key {key} has no vector, which .arrow, .parquet and .jsonl can tell"
            )));
        }
        self.rows += batch.num_rows() as u64;
        let bytes: Vec<u8> = keys.values().iter().flat_map(|key| key.to_le_bytes()).collect();
        self.keys.write_all(&bytes).map_err(Fault::new)?;
        let mut bytes = Vec::new();
        for row in 0..vectors.len() {
            let numbers = vectors.as_fixed_size_list().value(row);
            if self.shape.format == Format::Fvecs {
                bytes.extend((self.shape.dimension as i32).to_le_bytes());
                append_floats(&numbers, &mut bytes);
            } else {
                append(&numbers, &mut bytes);
            }
        }
        self.vectors.write_all(&bytes).map_err(Fault::new)
    }

    pub fn finish(mut self) -> Read<()> {
        let mut rewind = || -> io::Result<()> {
            self.keys.seek(SeekFrom::Start(0))?;
            self.vectors.seek(SeekFrom::Start(0))?;
            self.headers()
        };
        rewind().map_err(Fault::new)?;
        sync(self.keys)?;
        sync(self.vectors)
    }
}

/// Numbers as they are.
fn append(numbers: &ArrayRef, bytes: &mut Vec<u8>) {
    match numbers.data_type() {
        DataType::Float16 => {
            let all = numbers.as_primitive::<Float16Type>().values();
            bytes.extend(all.iter().flat_map(|x| x.to_le_bytes()));
        }
        DataType::Int8 => {
            let all = numbers.as_primitive::<Int8Type>().values();
            bytes.extend(all.iter().flat_map(|x| x.to_le_bytes()));
        }
        DataType::Int16 => {
            let all = numbers.as_primitive::<Int16Type>().values();
            bytes.extend(all.iter().flat_map(|x| x.to_le_bytes()));
        }
        _ => append_floats(numbers, bytes),
    }
}

/// Numbers as floats of 32 bits, which hold all that narrower types do.
fn append_floats(numbers: &ArrayRef, bytes: &mut Vec<u8>) {
    let mut push = |x: f32| bytes.extend(x.to_le_bytes());
    match numbers.data_type() {
        DataType::Float32 => {
            numbers.as_primitive::<Float32Type>().values().iter().for_each(|x| push(*x));
        }
        DataType::Float16 => {
            numbers.as_primitive::<Float16Type>().values().iter().for_each(|x| push(x.to_f32()));
        }
        DataType::Int8 => {
            numbers.as_primitive::<Int8Type>().values().iter().for_each(|x| push((*x).into()));
        }
        _ => {
            numbers.as_primitive::<Int16Type>().values().iter().for_each(|x| push((*x).into()));
        }
    }
}
