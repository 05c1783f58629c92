//! JSON lines, with all members of all columns. Kinds that JSON has no words for are told as `super::json`
//! reads them.

use std::fs::File;
use std::io::{BufWriter, Write};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int8Type, Int16Type};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::super::{Fault, Read, form, several, values};
use crate::schema::Value;

/// A file of lines.
pub(super) struct JsonWriter {
    file: BufWriter<File>,
    /// The columns' names as they are written.
    names: Vec<String>,
    is_plain: bool,
}

/// The cells of a column in a batch: keys, one vector a row, several, or values.
enum Cells<'a> {
    Keys(&'a UInt64Array),
    Vectors(&'a ArrayRef),
    Several(&'a ArrayRef),
    Values(Vec<Option<Value>>),
}

impl JsonWriter {
    pub fn new(file: BufWriter<File>, schema: &SchemaRef, is_plain: bool) -> JsonWriter {
        let names = schema.fields().iter().map(|field| json!(field.name()).to_string());
        JsonWriter { file, names: names.collect(), is_plain }
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Read<()> {
        fn cells<'a>(field: &Field, array: &'a ArrayRef) -> Read<Cells<'a>> {
            // Keys are whole numbers, whatever their kind.
            if *field.data_type() == DataType::UInt64 && !field.is_nullable() {
                return Ok(Cells::Keys(array.as_primitive()));
            }
            match array.data_type() {
                of_many @ DataType::List(_) if several(of_many).is_some() => {
                    return Ok(Cells::Several(array));
                }
                of_one @ DataType::FixedSizeList(item, _)
                    if form(of_one).is_some() && item.data_type().is_numeric() =>
                {
                    return Ok(Cells::Vectors(array));
                }
                _ => {}
            }
            values(array, |_, _| ()).map(Cells::Values).map_err(Fault::new)
        }
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns =
            columns.map(|(field, array)| cells(field, array)).collect::<Read<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            self.line(&columns, row).map_err(Fault::new)?;
        }
        Ok(())
    }

    fn line(&mut self, columns: &[Cells<'_>], row: usize) -> std::io::Result<()> {
        for (at, (name, column)) in self.names.iter().zip(columns).enumerate() {
            write!(self.file, "{}{name}:", if at == 0 { '{' } else { ',' })?;
            match column {
                Cells::Keys(keys) => write!(self.file, "{}", keys.value(row))?,
                Cells::Vectors(array) | Cells::Several(array) if array.is_null(row) => {
                    self.file.write_all(b"null")?;
                }
                Cells::Vectors(array) => write_vector(&mut self.file, array, row)?,
                Cells::Several(array) => {
                    write_vectors(
                        &mut self.file,
                        &array.as_list::<i32>().value(row),
                        self.is_plain,
                    )?;
                }
                Cells::Values(values) => {
                    let value = cell(values[row].as_ref(), self.is_plain);
                    serde_json::to_writer(&mut self.file, &value)?;
                }
            }
        }
        self.file.write_all(b"}\n")
    }

    pub fn finish(self) -> BufWriter<File> {
        self.file
    }
}

/// A value, told so that its kind can be told from it unless plain is enough.
fn cell(value: Option<&Value>, is_plain: bool) -> Json {
    let Some(value) = value else { return Json::Null };
    let number = match value {
        Value::String(text) => return json!(text),
        Value::Bool(truth) => return json!(truth),
        Value::Int64(number) => return json!(number),
        Value::UInt64(number) if *number > i64::MAX as u64 => return json!(number),
        Value::Bytes(bytes) => json!(BASE64.encode(bytes)),
        Value::Int32(number) => json!(number),
        Value::UInt32(number) => json!(number),
        Value::UInt64(number) => json!(number),
        Value::Float(number) => float(f64::from(*number), json!(shortest(*number))),
        Value::Double(number) => float(*number, json!(number)),
    };
    let is_told = matches!((value, &number), (Value::Double(_), Json::Number(_)));
    match (is_plain, &number) {
        _ if is_told => number,
        // JSON has no such numbers.
        (true, Json::String(_)) if value.float().is_some() => Json::Null,
        (true, _) => number,
        (false, _) => json!({ format!("${}", value.kind().name()): number }),
    }
}

/// A float as JSON has it, or in words where it has not.
fn float(number: f64, as_json: Json) -> Json {
    match number {
        _ if number.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        _ => as_json,
    }
}

/// All vectors of an array.
fn write_vectors(file: &mut impl Write, vectors: &ArrayRef, is_plain: bool) -> std::io::Result<()> {
    file.write_all(b"[")?;
    for at in 0..vectors.len() {
        if at > 0 {
            file.write_all(b",")?;
        }
        match vectors.as_fixed_size_binary_opt() {
            Some(packed) => {
                let bytes = Value::Bytes(Bytes::copy_from_slice(packed.value(at)));
                serde_json::to_writer(&mut *file, &cell(Some(&bytes), is_plain))?;
            }
            None => write_vector(file, vectors, at)?,
        }
    }
    file.write_all(b"]")
}

fn write_vector(file: &mut impl Write, array: &ArrayRef, row: usize) -> std::io::Result<()> {
    let numbers = array.as_fixed_size_list().value(row);
    file.write_all(b"[")?;
    for at in 0..numbers.len() {
        if at > 0 {
            file.write_all(b",")?;
        }
        match numbers.data_type() {
            DataType::Float32 => {
                write_f32(file, numbers.as_primitive::<Float32Type>().value(at))?;
            }
            DataType::Float16 => {
                let half = numbers.as_primitive::<Float16Type>().value(at);
                write_f32(file, half.to_f32())?;
            }
            DataType::Int8 => {
                let number = numbers.as_primitive::<Int8Type>().value(at);
                write!(file, "{number}")?;
            }
            _ => {
                let number = numbers.as_primitive::<Int16Type>().value(at);
                write!(file, "{number}")?;
            }
        }
    }
    file.write_all(b"]")
}

/// The double of the fewest digits from which the same float comes back.
fn shortest(number: f32) -> f64 {
    let short = number.to_string().parse::<f64>().ok();
    short.filter(|short| *short as f32 == number).unwrap_or(f64::from(number))
}

fn write_f32(file: &mut impl Write, number: f32) -> std::io::Result<()> {
    write!(file, "{}", shortest(number))
}
