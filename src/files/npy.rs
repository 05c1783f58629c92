//! `.npy`: what `numpy.save` writes of an array of one or two dimensions, of either byte order, row after
//! row (C order) or column after column (Fortran order). The header is a Python literal of one fixed form,
//! so nothing else of Python is read, and pickled objects are refused.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, LargeStringArray, PrimitiveArray, types,
};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::layout::{
    VECTOR, check_memory, checked_shape, list_of, list_type, primitive, rows_of_block,
};
use super::{Block, Fault, Read, Table, unreadable_field};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header: numpy itself reads no longer ones.
const HEADER_BYTES_MAX: usize = 10_000;
/// Longest text of one row.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Where an array's bytes come from.
pub(super) trait Bytes: io::Read + Send {
    /// Passes over bytes.
    fn pass(&mut self, bytes: u64) -> io::Result<()>;

    /// Reads at a place in the file, whatever was read before; `None` where that cannot be done.
    fn read_at(&mut self, _at: u64, _buffer: &mut [u8]) -> Option<io::Result<()>> {
        None
    }
}

impl Bytes for BufReader<File> {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
        self.seek_relative(bytes)
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> Option<io::Result<()>> {
        Some(FileExt::read_exact_at(self.get_ref(), buffer, at))
    }
}

/// What one element is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// Moments of 64 bits.
    Time(TimeUnit),
    /// So many code points of 32 bits.
    Text(usize),
    /// So many bytes of text.
    Bytes(usize),
}

impl Item {
    fn new(kind: &str) -> Read<Item> {
        let text = |width: &str, each: usize| {
            let width: usize = width.parse().ok()?;
            (1..=TEXT_BYTES_MAX / each).contains(&width).then_some(width)
        };
        let found = match kind {
            "f2" => Some(Item::F16),
            "f4" => Some(Item::F32),
            "f8" => Some(Item::F64),
            "i1" => Some(Item::I8),
            "i2" => Some(Item::I16),
            "i4" => Some(Item::I32),
            "i8" => Some(Item::I64),
            "u1" => Some(Item::U8),
            "u2" => Some(Item::U16),
            "u4" => Some(Item::U32),
            "u8" => Some(Item::U64),
            "b1" => Some(Item::Bool),
            "M8[s]" => Some(Item::Time(TimeUnit::Second)),
            "M8[ms]" => Some(Item::Time(TimeUnit::Millisecond)),
            "M8[us]" => Some(Item::Time(TimeUnit::Microsecond)),
            "M8[ns]" => Some(Item::Time(TimeUnit::Nanosecond)),
            "O" => {
                return Err(Fault::new(
                    "it holds pickled Python objects, which are not read; save numbers or text",
                ));
            }
            other => match other.split_at_checked(1) {
                Some(("U", width)) => text(width, 4).map(Item::Text),
                Some(("S", width)) => text(width, 1).map(Item::Bytes),
                _ => None,
            },
        };
        found.ok_or_else(|| {
            Fault::new(format!("elements of type {kind:?}, where numbers or text are wanted"))
        })
    }

    fn bytes(self) -> usize {
        match self {
            Item::I8 | Item::U8 | Item::Bool => 1,
            Item::F16 | Item::I16 | Item::U16 => 2,
            Item::F32 | Item::I32 | Item::U32 => 4,
            Item::F64 | Item::I64 | Item::U64 | Item::Time(_) => 8,
            Item::Text(width) => 4 * width,
            Item::Bytes(width) => width,
        }
    }

    /// Bytes that change places in the other byte order.
    fn order_bytes(self) -> usize {
        match self {
            Item::Text(_) => 4,
            Item::Bytes(_) => 1,
            other => other.bytes(),
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Item::F16 => DataType::Float16,
            Item::F32 => DataType::Float32,
            Item::F64 => DataType::Float64,
            Item::I8 => DataType::Int8,
            Item::I16 => DataType::Int16,
            Item::I32 => DataType::Int32,
            Item::I64 => DataType::Int64,
            Item::U8 => DataType::UInt8,
            Item::U16 => DataType::UInt16,
            Item::U32 => DataType::UInt32,
            Item::U64 => DataType::UInt64,
            Item::Bool => DataType::Boolean,
            Item::Time(unit) => DataType::Timestamp(unit, None),
            Item::Text(_) | Item::Bytes(_) => DataType::LargeUtf8,
        }
    }
}

/// An array whose columns lie one after the other.
struct Fortran {
    /// The byte at which they begin.
    start: u64,
    /// All of it, where the source is read from its beginning to its end alone.
    whole: Option<Vec<u8>>,
}

/// One array that is read row by row.
pub(super) struct NpyColumn {
    source: Box<dyn Bytes>,
    /// None where rows lie one after the other.
    fortran: Option<Fortran>,
    item: Item,
    is_big_endian: bool,
    /// Of vectors; none where a row is one element.
    dimension: Option<usize>,
    pub rows: u64,
    at: u64,
}

impl NpyColumn {
    /// Reads the header. `bytes` is how many there are in all.
    pub fn open(mut source: Box<dyn Bytes>, bytes: u64) -> Read<NpyColumn> {
        let (header, header_bytes) = read_header(&mut source)?;
        let (order, kind) = header.descr.split_at_checked(1).unwrap_or_default();
        if !matches!(order, "<" | ">" | "|" | "=") {
            return Err(Fault::new(format!(
                "elements of type {:?}, where numbers or text are wanted",
                header.descr
            )));
        }
        let item = Item::new(kind)?;
        let (rows, dimension) = checked_shape(&header.shape)?;
        let is_number =
            !matches!(item, Item::Bool | Item::Time(_) | Item::Text(_) | Item::Bytes(_));
        if dimension.is_some() && !is_number {
            return Err(Fault::new(format!(
                "rows and columns of type {:?}, where vectors of numbers are wanted",
                header.descr
            )));
        }
        let row_bytes = (dimension.unwrap_or(1) * item.bytes()) as u128;
        let (wanted, there) = (u128::from(rows) * row_bytes, bytes.saturating_sub(header_bytes));
        if u128::from(there) < wanted {
            return Err(Fault::new(format!(
                "cut short: {there} bytes of elements, where {wanted} are wanted"
            )));
        }
        let fortran = (header.is_fortran && dimension.is_some())
            .then_some(Fortran { start: header_bytes, whole: None });
        let is_big_endian = order == ">";
        Ok(NpyColumn { source, fortran, item, is_big_endian, dimension, rows, at: 0 })
    }

    pub fn data_type(&self) -> DataType {
        let item = self.item.data_type();
        match self.dimension {
            Some(dimension) => list_type(item, dimension),
            None => item,
        }
    }

    pub fn is_matrix(&self) -> bool {
        self.dimension.is_some()
    }

    pub fn row_bytes(&self) -> usize {
        self.dimension.unwrap_or(1) * self.item.bytes()
    }

    /// The next rows, of which there are so many.
    pub fn read(&mut self, name: &str, rows: usize) -> Read<(ArrayRef, Vec<(usize, Fault)>)> {
        let mut buffer = MutableBuffer::from_len_zeroed(rows * self.row_bytes());
        let read = match self.fortran {
            None => self.source.read_exact(buffer.as_slice_mut()),
            Some(_) => self
                .whole_in_memory()
                .map_err(|fault| Fault::of_column(name, fault).at(self.at))
                .map(|()| self.read_columns(buffer.as_slice_mut()))?,
        };
        read.map_err(|cause| Fault::of_column(name, format!("cut short: {cause}")).at(self.at))?;
        if self.is_big_endian {
            for element in buffer.as_slice_mut().chunks_exact_mut(self.item.order_bytes()) {
                element.reverse();
            }
        }
        self.at += rows as u64;
        self.array(name, buffer.into())
    }

    /// Takes an array whose columns lie one after the other into memory where they cannot be read side by
    /// side.
    fn whole_in_memory(&mut self) -> Read<()> {
        let (item, dimension) = (self.item.bytes() as u64, self.dimension.unwrap_or(1) as u64);
        let Some(fortran) = &mut self.fortran else { return Ok(()) };
        if fortran.whole.is_some() || self.source.read_at(fortran.start, &mut []).is_some() {
            return Ok(());
        }
        // The header was compared with the bytes that there are.
        let bytes = self.rows * item * dimension;
        check_memory("an array of a .npz file in Fortran order", bytes)?;
        let mut whole = vec![0; usize::try_from(bytes).map_err(Fault::new)?];
        let read = self.source.read_exact(&mut whole);
        read.map_err(|cause| Fault::new(format!("cut short: {cause}")))?;
        fortran.whole = Some(whole);
        Ok(())
    }

    /// The next rows of an array whose columns lie one after the other, as many as fill the buffer.
    fn read_columns(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let (item, row_bytes) = (self.item.bytes(), self.row_bytes());
        let mut part = vec![0; buffer.len() / row_bytes.max(1) * item];
        let Some(fortran) = &self.fortran else { return Ok(()) };
        for column in 0..self.dimension.unwrap_or(1) {
            let at = (column as u64 * self.rows + self.at) * item as u64;
            match &fortran.whole {
                Some(whole) => {
                    let found = usize::try_from(at).ok().and_then(|at| whole.get(at..));
                    let found = found.and_then(|found| found.get(..part.len()));
                    part.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                }
                None => self
                    .source
                    .read_at(fortran.start + at, &mut part)
                    .unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))?,
            }
            let places = buffer.chunks_exact_mut(row_bytes).map(|row| &mut row[column * item..]);
            for (place, element) in places.zip(part.chunks_exact(item)) {
                place[..item].copy_from_slice(element);
            }
        }
        Ok(())
    }

    fn array(&self, name: &str, buffer: Buffer) -> Read<(ArrayRef, Vec<(usize, Fault)>)> {
        let array = match self.item {
            Item::F16 => self.numbers::<Float16Type>(buffer),
            Item::F32 => self.numbers::<Float32Type>(buffer),
            Item::F64 => self.numbers::<Float64Type>(buffer),
            Item::I8 => self.numbers::<Int8Type>(buffer),
            Item::I16 => self.numbers::<Int16Type>(buffer),
            Item::I32 => self.numbers::<Int32Type>(buffer),
            Item::I64 => self.numbers::<Int64Type>(buffer),
            Item::U8 => self.numbers::<UInt8Type>(buffer),
            Item::U16 => self.numbers::<UInt16Type>(buffer),
            Item::U32 => self.numbers::<UInt32Type>(buffer),
            Item::U64 => self.numbers::<UInt64Type>(buffer),
            Item::Bool => {
                Arc::new(BooleanArray::from_iter(buffer.iter().map(|byte| Some(*byte != 0))))
            }
            Item::Time(TimeUnit::Second) => moments::<types::TimestampSecondType>(&buffer),
            Item::Time(TimeUnit::Millisecond) => {
                moments::<types::TimestampMillisecondType>(&buffer)
            }
            Item::Time(TimeUnit::Microsecond) => {
                moments::<types::TimestampMicrosecondType>(&buffer)
            }
            Item::Time(TimeUnit::Nanosecond) => moments::<types::TimestampNanosecondType>(&buffer),
            Item::Text(width) => return Ok(texts(name, buffer.chunks_exact(4 * width), points)),
            Item::Bytes(width) => return Ok(texts(name, buffer.chunks_exact(width), utf8)),
        };
        Ok((array, Vec::new()))
    }

    fn numbers<T: ArrowPrimitiveType>(&self, buffer: Buffer) -> ArrayRef {
        match self.dimension {
            Some(dimension) => list_of::<T>(buffer, dimension),
            None => primitive::<T>(buffer),
        }
    }

    /// Passes over rows, of which there are so many.
    pub fn skip(&mut self, rows: u64) -> Read<()> {
        if self.fortran.is_none() {
            self.source.pass(rows * self.row_bytes() as u64).map_err(Fault::new)?;
        }
        self.at += rows;
        Ok(())
    }
}

/// Moments; numpy's "not a time" is unset.
fn moments<T: ArrowPrimitiveType<Native = i64>>(buffer: &Buffer) -> ArrayRef {
    let numbers = buffer.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    Arc::new(numbers.map(|n| (n != i64::MIN).then_some(n)).collect::<PrimitiveArray<T>>())
}

/// Texts of one width each, without the zeros at their ends.
pub(super) fn texts<'a>(
    name: &str,
    rows: impl Iterator<Item = &'a [u8]>,
    decode: fn(&[u8]) -> Option<String>,
) -> (ArrayRef, Vec<(usize, Fault)>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for (row, bytes) in rows.enumerate() {
        let text = decode(bytes);
        if text.is_none() {
            faults.push((row, Fault::of_column(name, "its bytes are no text in Unicode")));
        }
        found.push(text);
    }
    (Arc::new(LargeStringArray::from(found)), faults)
}

fn points(bytes: &[u8]) -> Option<String> {
    let points = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let text: Option<String> = points.map(char::from_u32).collect();
    text.map(|text| text.trim_end_matches('\0').to_owned())
}

/// Text of one width, without the zeros at its end.
pub(super) fn utf8(bytes: &[u8]) -> Option<String> {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8(bytes[..length].to_vec()).ok()
}

/// A file with one array.
pub(super) struct NpyTable {
    column: NpyColumn,
    schema: SchemaRef,
}

impl NpyTable {
    pub fn open(path: &Path) -> Read<NpyTable> {
        let file = File::open(path).map_err(Fault::new)?;
        let bytes = file.metadata().map_err(Fault::new)?.len();
        let source = Box::new(BufReader::with_capacity(1 << 20, file));
        let column = NpyColumn::open(source, bytes)?;
        let schema = Schema::new(vec![Field::new(VECTOR, column.data_type(), false)]);
        Ok(NpyTable { column, schema: Arc::new(schema) })
    }
}

impl Table for NpyTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.column.rows
    }

    fn select(&mut self, _: &[usize]) -> Read<()> {
        Ok(())
    }

    fn read(&mut self, rows_max: usize) -> Read<Option<Block>> {
        let left = self.column.rows - self.column.at;
        let rows = rows_of_block(rows_max, self.column.row_bytes(), left);
        let (array, faults) = self.column.read(VECTOR, rows)?;
        Ok(Some(Block { rows, columns: vec![array], faults }))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        self.column.skip(rows)
    }
}

/// The field of an array, which may be one that cannot be read.
pub(super) fn field(name: &str, column: &Read<NpyColumn>) -> Field {
    match column {
        Ok(column) => Field::new(name, column.data_type(), true),
        Err(fault) => unreadable_field(name, fault.why.clone()),
    }
}

/// What the header says.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    is_fortran: bool,
    shape: Vec<u64>,
}

/// The header, and at which byte the numbers begin.
fn read_header(reader: &mut impl io::Read) -> Read<(Header, u64)> {
    let cut = |cause: io::Error| Fault::new(format!("the header is cut short: {cause}"));
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(cut)?;
    if start[..6] != *MAGIC {
        return Err(Fault::new("it does not begin as .npy files do"));
    }
    let mut length = [0; 4];
    let length_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => {
            return Err(Fault::new(format!(
                "version {version} of the format, and 1 to 3 are known"
            )));
        }
    };
    reader.read_exact(&mut length[..length_bytes]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(Fault::new(format!(
            "a header of {length} bytes, and {HEADER_BYTES_MAX} are allowed"
        )));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(cut)?;
    let text = String::from_utf8_lossy(&text);
    let header =
        parse(&text).ok_or_else(|| Fault::new(format!("not a header: {:?}", text.trim_end())))?;
    Ok((header, (start.len() + length_bytes + length) as u64))
}
/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, in any order.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        rest = after.trim_start().strip_prefix(':')?.trim_start();
        match key {
            "descr" if rest.starts_with('[') => {
                // Named fields: shown as they are, and refused with the type.
                let (fields, after) = rest.split_at(rest.find("],")? + 1);
                (descr, rest) = (Some(fields.to_owned()), after);
            }
            "descr" => {
                let (value, after) = quoted(rest)?;
                (descr, rest) = (Some(value.to_owned()), after);
            }
            "fortran_order" => {
                let word = ["False", "True"].into_iter().find(|word| rest.starts_with(word))?;
                (is_fortran, rest) = (Some(word == "True"), &rest[word.len()..]);
            }
            "shape" => {
                let (numbers, after) = rest.strip_prefix('(')?.split_once(')')?;
                let numbers = numbers.trim().trim_end_matches(',').split(',').map(str::trim);
                let numbers = numbers.filter(|number| !number.is_empty());
                shape = Some(numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?);
                rest = after;
            }
            _ => return None,
        }
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(Header { descr: descr?, is_fortran: is_fortran?, shape: shape? })
}

/// A quoted word without escapes at the start of a text, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    text[1..].split_once(quote)
}
