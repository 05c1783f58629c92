//! JSON lines: one object a line, its members being the columns. A member is text, a number, `true`,
//! `false`, `null` (as one that is not there), or, for vectors, an array of numbers; for rows with several,
//! an array of vectors. Whole numbers are of 64 bits and others doubles; another kind is told by an object
//! with one member, such as `{"$int32": 5}` or `{"$bytes": "AAE="}` (base64).

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{Float64Builder, LargeBinaryBuilder, LargeListBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::layout::rows_of_block;
use super::{Block, DIMENSION_MAX, Fault, Read, Table, Wanted};
use crate::schema::Value;
use crate::segment::{KindSet, forward_array};

/// Longest line.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Rows at the beginning that tell which columns there are.
const SAMPLE_ROWS: u64 = 10_000;
/// Most columns.
const COLUMNS_MAX: usize = 4_096;
/// Marks the start of text in some files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file.
pub(super) struct JsonTable {
    lines: Lines,
    schema: SchemaRef,
    /// Number of each column by its name.
    columns: HashMap<String, usize>,
    holds: Vec<Holds>,
    selected: Vec<usize>,
    /// True when columns that are not known are not wanted.
    may_have_others: bool,
    rows: u64,
    at: u64,
    /// Bytes of a line on average.
    row_bytes: usize,
}

impl JsonTable {
    pub fn open(path: &Path, wanted: &Wanted) -> Read<JsonTable> {
        let mut lines = Lines::open(path)?;
        let mut found = Found::default();
        wanted.names.iter().for_each(|name| found.include(name, &Cell::Unset));
        let (mut rows, mut bytes) = (0u64, 0u64);
        while let Some(line) = lines.next()? {
            if rows < SAMPLE_ROWS {
                let of_line = |fault: Fault| fault.at(rows);
                if rows == 0 && line.text.first() == Some(&b'[') {
                    return Err(of_line(Fault::new(
                        "one array of JSON, where each line has an object of its own; \
                         `jq -c '.[]'` makes such lines",
                    )));
                }
                // A line that is wrong is told when its row is read.
                if let Ok(cells) = cells(line.text) {
                    cells.iter().for_each(|(name, cell)| found.include(name, cell));
                }
            }
            bytes += line.text.len() as u64;
            rows += 1;
            if found.names.len() > COLUMNS_MAX {
                return Err(Fault::new(format!("more than {COLUMNS_MAX} columns")));
            }
        }
        if rows > 0 && found.names.is_empty() {
            // Most likely no JSON at all: the first row tells.
            lines.rewind()?;
            if let Some(line) = lines.next()? {
                cells(line.text).map_err(|why| Fault::new(line.name(&why)).at(0))?;
            }
        }
        lines.rewind()?;
        let row_bytes = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX);
        let columns = found.names.iter().zip(&found.holds);
        let fields: Vec<Field> =
            columns.map(|(name, holds)| Field::new(name, holds.data_type(), true)).collect();
        let selected = (0..fields.len()).collect();
        Ok(JsonTable {
            lines,
            schema: Arc::new(Schema::new(fields)),
            columns: found.names.into_iter().enumerate().map(|(at, name)| (name, at)).collect(),
            holds: found.holds,
            selected,
            may_have_others: !wanted.has_others,
            rows,
            at: 0,
            row_bytes,
        })
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    /// Values of these kinds; of none where all were unset.
    Values(KindSet),
    /// Vectors of numbers, one for each row.
    Vector,
    /// Vectors of numbers, several for each row.
    Vectors,
    /// Vectors as columns store them, several for each row; one is a value like any other.
    Packed,
}

impl Holds {
    fn data_type(self) -> DataType {
        let list = |item| DataType::LargeList(Arc::new(Field::new("item", item, true)));
        match self {
            Holds::Values(kinds) => kinds.data_type(),
            Holds::Vector => list(DataType::Float64),
            Holds::Vectors => list(list(DataType::Float64)),
            Holds::Packed => list(DataType::LargeBinary),
        }
    }

    /// A cell as the column has it, or why it cannot.
    fn take(self, cell: Cell) -> std::result::Result<Cell, String> {
        let wrong = match (self, cell) {
            (_, Cell::Wrong(why)) => return Err(why),
            (_, Cell::Unset) => return Ok(Cell::Unset),
            (Holds::Values(_), cell @ Cell::Value(_))
            | (Holds::Vector, cell @ Cell::Vector(_))
            | (Holds::Vectors, cell @ Cell::Vectors(_))
            | (Holds::Packed, cell @ Cell::Packed(_)) => return Ok(cell),
            (Holds::Vectors | Holds::Packed, Cell::Vector(numbers)) if numbers.is_empty() => {
                return Ok(Cell::Unset);
            }
            (Holds::Vectors, Cell::Vector(numbers)) => return Ok(Cell::Vectors(vec![numbers])),
            (Holds::Values(_), _) => NO_VECTOR,
            (_, Cell::Value(_)) => NO_VALUE,
            _ => OTHER_VECTOR,
        };
        Err(wrong.to_owned())
    }
}

/// Columns in the order of their first appearance, with what they hold.
#[derive(Default)]
struct Found {
    names: Vec<String>,
    holds: Vec<Holds>,
    places: HashMap<String, usize>,
}

impl Found {
    fn include(&mut self, name: &str, cell: &Cell) {
        let at = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.names.push(name.to_owned());
            self.holds.push(Holds::Values(KindSet::default()));
            self.holds.len() - 1
        });
        // The first that is set says whether a column has vectors, and one row with several says that
        // all may.
        let holds = &mut self.holds[at];
        let is_unset = *holds == Holds::Values(KindSet::default());
        match (cell, &mut *holds) {
            (Cell::Value(value), Holds::Values(kinds)) => kinds.include(value),
            (Cell::Vector(_), _) if is_unset => *holds = Holds::Vector,
            (Cell::Vectors(_), Holds::Vector) => *holds = Holds::Vectors,
            (Cell::Vectors(_), _) if is_unset => *holds = Holds::Vectors,
            (Cell::Packed(_), _) if is_unset => *holds = Holds::Packed,
            _ => {}
        }
    }
}

impl Table for JsonTable {
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
        let rows = rows_of_block(rows_max, self.row_bytes, self.rows - self.at);
        let mut columns: Vec<Vec<Cell>> = self.selected.iter().map(|_| Vec::new()).collect();
        let mut places = vec![None; self.holds.len()];
        for (place, column) in self.selected.iter().enumerate() {
            places[*column] = Some(place);
        }
        let mut faults = Vec::new();
        let mut read = 0;
        while read < rows {
            let Some(line) = self.lines.next()? else { break };
            columns.iter_mut().for_each(|column| column.push(Cell::Unset));
            match cells(line.text) {
                Err(why) => faults.push((read, Fault::new(line.name(&why)))),
                Ok(cells) => {
                    for (name, cell) in cells {
                        let fault = |why: &str| Fault::of_column(&name, line.name(why));
                        let Some(at) = self.columns.get(&name) else {
                            if !self.may_have_others {
                                faults.push((read, fault(NEW_COLUMN)));
                            }
                            continue;
                        };
                        let Some(place) = places[*at] else { continue };
                        match self.holds[*at].take(cell) {
                            Ok(cell) => columns[place][read] = cell,
                            Err(why) => faults.push((read, fault(&why))),
                        }
                    }
                }
            }
            read += 1;
        }
        self.at += read as u64;
        let arrays = self.selected.iter().zip(columns);
        let arrays = arrays.map(|(column, cells)| array(self.holds[*column], cells));
        Ok(Some(Block { rows: read, columns: arrays.collect(), faults }))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        for _ in 0..rows {
            self.lines.next()?;
        }
        self.at += rows;
        Ok(())
    }
}

const NEW_COLUMN: &str = "a column that the first 10000 rows do not have; --columns can name it, or \
                          leave it out";
const NO_VECTOR: &str = "an array, where rows before have values";
const NO_VALUE: &str = "a value, where other rows have arrays of numbers";
const OTHER_VECTOR: &str = "an array of another form than rows before have";

fn array(holds: Holds, cells: Vec<Cell>) -> ArrayRef {
    match holds {
        Holds::Values(_) => value_array(&cells),
        Holds::Vector => {
            let mut builder = LargeListBuilder::new(Float64Builder::new());
            for cell in cells {
                let Cell::Vector(numbers) = cell else {
                    builder.append_null();
                    continue;
                };
                builder.values().append_slice(&numbers);
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        Holds::Vectors => {
            let lists = LargeListBuilder::new(Float64Builder::new());
            let mut builder = LargeListBuilder::new(lists);
            for cell in cells {
                let Cell::Vectors(vectors) = cell else {
                    builder.append_null();
                    continue;
                };
                for numbers in vectors {
                    builder.values().values().append_slice(&numbers);
                    builder.values().append(true);
                }
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
        Holds::Packed => {
            let mut builder = LargeListBuilder::new(LargeBinaryBuilder::new());
            for cell in cells {
                let Cell::Packed(vectors) = cell else {
                    builder.append_null();
                    continue;
                };
                vectors.iter().for_each(|bytes| builder.values().append_value(bytes));
                builder.append(true);
            }
            Arc::new(builder.finish())
        }
    }
}

fn value_array(cells: &[Cell]) -> ArrayRef {
    let values: Vec<Option<&Value>> = cells
        .iter()
        .map(|cell| match cell {
            Cell::Value(value) => Some(value),
            _ => None,
        })
        .collect();
    let mut kinds = KindSet::default();
    values.iter().flatten().for_each(|value| kinds.include(value));
    forward_array(kinds, &values)
}

/// One line that is not blank.
struct Line<'a> {
    text: &'a [u8],
    /// Counted from 1, as editors do.
    number: u64,
}

impl Line<'_> {
    fn name(&self, why: &str) -> String {
        format!("line {}: {why}", self.number)
    }
}

/// The lines of a file that are not blank.
struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Read<Lines> {
        let file = File::open(path).map_err(Fault::new)?;
        let reader = BufReader::with_capacity(1 << 20, file);
        let mut lines = Lines { reader, line: Vec::new(), number: 0 };
        lines.rewind()?;
        Ok(lines)
    }

    fn rewind(&mut self) -> Read<()> {
        self.number = 0;
        self.reader.seek(SeekFrom::Start(0)).map_err(Fault::new)?;
        let marked = self.reader.fill_buf().map_err(Fault::new)?.starts_with(BYTE_ORDER_MARK);
        if marked {
            self.reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    fn next(&mut self) -> Read<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX);
            let read = bounded.read_until(b'\n', &mut self.line).map_err(Fault::new)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read as u64 == LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                return Err(Fault::new(format!(
                    "line {}: longer than {LINE_BYTES_MAX} bytes; has it line breaks?",
                    self.number
                )));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some(Line { text: self.line.trim_ascii(), number: self.number }))
    }
}

/// A member of an object.
#[derive(Debug, PartialEq)]
enum Cell {
    Unset,
    Value(Value),
    Vector(Vec<f64>),
    Vectors(Vec<Vec<f64>>),
    Packed(Vec<Bytes>),
    /// What no column can hold, and why.
    Wrong(String),
}

/// The members of a line's object, in order; the words for a line that has none.
fn cells(text: &[u8]) -> std::result::Result<Vec<(String, Cell)>, String> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let cells = RowSeed.deserialize(&mut parser);
    let cells = cells.and_then(|cells| parser.end().map(|()| cells));
    // The parser sees one line only, so only the column tells something.
    cells.map_err(|cause| {
        let words = cause.to_string();
        let words = words.split(" at line 1 column ").next().unwrap_or_default();
        format!("no JSON object at character {}: {words}", cause.column())
    })
}

struct RowSeed;

impl<'de> DeserializeSeed<'de> for RowSeed {
    type Value = Vec<(String, Cell)>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        parser: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed {
    type Value = Vec<(String, Cell)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose members are the columns")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut members: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut cells: Vec<(String, Cell)> = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if cells.len() > COLUMNS_MAX {
                return Err(A::Error::custom(format!("more than {COLUMNS_MAX} members")));
            }
            let cell = members.next_value_seed(CellSeed)?;
            if cells.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("member {name:?} is there twice")));
            }
            cells.push((name, cell));
        }
        Ok(cells)
    }
}

struct CellSeed;

impl<'de> DeserializeSeed<'de> for CellSeed {
    type Value = Cell;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        parser: D,
    ) -> std::result::Result<Cell, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of numbers")
    }

    fn visit_unit<E>(self) -> std::result::Result<Cell, E> {
        Ok(Cell::Unset)
    }

    fn visit_bool<E>(self, truth: bool) -> std::result::Result<Cell, E> {
        Ok(Cell::Value(Value::Bool(truth)))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Cell, E> {
        Ok(Cell::Value(Value::Int64(number)))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Cell, E> {
        Ok(Cell::Value(i64::try_from(number).map_or(Value::UInt64(number), Value::Int64)))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Cell, E> {
        Ok(Cell::Value(Value::Double(number)))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Cell, E> {
        Ok(Cell::Value(Value::String(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> std::result::Result<Cell, A::Error> {
        let (mut numbers, mut vectors, mut packed) = (Vec::new(), Vec::new(), Vec::new());
        let mut wrong = None;
        while let Some(element) = elements.next_element_seed(CellSeed)? {
            match element {
                Cell::Value(Value::Double(number)) => numbers.push(number),
                Cell::Value(Value::Int64(number)) => numbers.push(number as f64),
                Cell::Value(Value::UInt64(number)) => numbers.push(number as f64),
                Cell::Value(Value::Bytes(bytes)) => packed.push(bytes),
                Cell::Vector(vector) => vectors.push(vector),
                Cell::Wrong(why) => wrong = Some(why),
                _ => wrong = Some(NO_NUMBERS.to_owned()),
            }
            if numbers.len() > DIMENSION_MAX as usize {
                wrong = Some(format!("an array of more than {DIMENSION_MAX} numbers"));
                numbers.clear();
            }
        }
        Ok(match (wrong, numbers.is_empty(), vectors.is_empty(), packed.is_empty()) {
            (Some(why), ..) => Cell::Wrong(why),
            (None, _, true, true) => Cell::Vector(numbers),
            (None, true, false, true) => Cell::Vectors(vectors),
            (None, true, true, false) => Cell::Packed(packed),
            _ => Cell::Wrong(NO_NUMBERS.to_owned()),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<Cell, A::Error> {
        let Some(kind) = members.next_key::<String>()? else {
            return Ok(Cell::Wrong(NESTED.to_owned()));
        };
        if !kind.starts_with('$') {
            members.next_value::<IgnoredAny>()?;
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Cell::Wrong(NESTED.to_owned()));
        }
        let value = members.next_value::<serde_json::Value>()?;
        let cell = match of_kind(&kind[1..], &value) {
            Some(value) => Cell::Value(value),
            None => Cell::Wrong(format!("{value} is no {}", &kind[1..])),
        };
        let mut is_alone = true;
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_alone = false;
        }
        Ok(if is_alone { cell } else { Cell::Wrong(NESTED.to_owned()) })
    }
}

const NESTED: &str = "an object, and columns hold values";
const NO_NUMBERS: &str = "an array with elements that are no numbers";

/// A value whose kind is named.
fn of_kind(kind: &str, value: &serde_json::Value) -> Option<Value> {
    let float = || match value.as_str() {
        // What JSON has no numbers for.
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    };
    Some(match kind {
        "bytes" => Value::Bytes(BASE64.decode(value.as_str()?).ok()?.into()),
        "string" => Value::String(value.as_str()?.to_owned()),
        "bool" => Value::Bool(value.as_bool()?),
        "int32" => Value::Int32(value.as_i64()?.try_into().ok()?),
        "int64" => Value::Int64(value.as_i64()?),
        "uint32" => Value::UInt32(value.as_u64()?.try_into().ok()?),
        "uint64" => Value::UInt64(value.as_u64()?),
        "float" => Value::Float(float()? as f32),
        "double" => Value::Double(float()?),
        _ => return None,
    })
}
