//! HDF5 files: datasets of the root group, of one or two dimensions, are the columns of a table. Two
//! layouts are common: that of ann-benchmarks (`train` has the rows; `test`, `neighbors`, `distances` and
//! the attribute `distance` say what is asked of them), and vectors beside their names.
//! <https://github.com/erikbern/ann-benchmarks>
//!
//! The library reads any file, ours or hostile, without unsafe code; what it would take memory for is
//! held against the size of the file first. What it does not know, or would read as other numbers, is found
//! in the headers of the data sets:
//!
//! - `view`: the file as the library is shown it; `header`: the messages of an object.
//! - `chunks`: what HDF5 2.0 writes otherwise; `numbers`: what elements are.

use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, ArrowPrimitiveType, BooleanArray, LargeStringArray};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use half::f16;
use hdf5_pure::{AttrValue, ChunkCacheConfig, Dataset, Error, File, FileAccessProperties, Layout};

mod chunks;
mod header;
mod numbers;
mod view;

use header::{Frame, Header};
use numbers::{Details, Item, Order};
use view::{Changes, Shown, View};

use super::layout::{
    Candidate, checked_shape, list_of, list_type, one_table, primitive, rows_of_block,
};
use super::npy::{texts, utf8};
use super::{Block, Fault, Read, Table, unreadable_field};
use crate::schema::Metric;

/// Bytes that one byte of a file can at most stand for; deflate makes a thousand of one.
const EXPANSION_MAX: u64 = 2_048;
/// Elements that any chunk may have. Larger ones may have as many as there are.
const CHUNK_ELEMENTS: u64 = 1 << 20;
/// Decompressed chunks that are kept, since a block ends within some.
const CACHE_BYTES: usize = 64 << 20;
const CACHE_SLOTS: usize = 4_096;
/// The kind of message of data that lie in other files.
const EXTERNAL_FILES: u16 = 7;
/// What is taken for the bytes of a text whose length is not known.
const TEXT_BYTES: usize = 64;

fn open_view(view: &Arc<View>) -> Read<File> {
    let cache = ChunkCacheConfig::from_h5p_cache(CACHE_SLOTS, CACHE_BYTES);
    let properties = FileAccessProperties::new().with_chunk_cache(cache);
    File::from_source_with_options(Shown(view.clone()), properties).map_err(Fault::new)
}

fn open_file(path: &Path) -> Read<File> {
    open_view(&View::open(path, Changes::default())?)
}

/// A file, and of each data set of its root group what the library does not tell of it, or why it cannot
/// be read.
struct Opened {
    file: File,
    /// Bytes on disk.
    bytes: u64,
    datasets: Vec<(String, Read<Details>)>,
}

impl Opened {
    fn open(path: &Path) -> Read<Opened> {
        let view = View::open(path, Changes::default())?;
        let file = open_view(&view)?;
        let frame = Frame::of(file.superblock());
        let mut changes = Changes::default();
        let mut datasets = Vec::new();
        for name in file.root().datasets().map_err(Fault::new)? {
            let details = details(&view, &frame, &file, &name, &mut changes);
            datasets.push((name, details));
        }
        let file = match changes.is_empty() {
            true => file,
            false => open_view(&View::open(path, changes)?)?,
        };
        Ok(Opened { file, bytes: view.bytes, datasets })
    }
}

/// What the header of a data set says that the library does not; adds what the library must be shown.
fn details(
    view: &View,
    frame: &Frame,
    file: &File,
    name: &str,
    changes: &mut Changes,
) -> Read<Details> {
    view.last_header();
    // It may fail for what is to be shown otherwise, and has looked at the header then.
    let found = file.dataset(name);
    let Some(place) = view.last_header() else {
        return Err(found.err().map_or_else(|| Fault::new("no header was looked at"), Fault::new));
    };
    let header = Header::read(view, frame, place)?;
    if header.message(EXTERNAL_FILES).is_some() {
        return Err(Fault::new("its numbers lie in other files"));
    }
    chunks::show(view, frame, &header, changes)?;
    Details::of(view, frame, &header)
}

/// True when the root group has a dataset of that name.
pub fn has_dataset(path: &Path, name: &str) -> Read<bool> {
    let there = open_file(path)?.root().datasets().map_err(Fault::new)?;
    Ok(there.iter().any(|found| found == name))
}

/// The attribute `distance`, which names the metric.
pub fn distance(path: &Path) -> Read<Option<String>> {
    let mut attributes = open_file(path)?.root().attrs().map_err(Fault::new)?;
    match attributes.remove("distance") {
        None => Ok(None),
        Some(
            AttrValue::String(name) | AttrValue::AsciiString(name) | AttrValue::VarLenString(name),
        ) => Ok(Some(name.trim_end_matches('\0').to_owned())),
        Some(other) => {
            Err(Fault::new(format!("the attribute distance is {other:?}, where text is wanted")))
        }
    }
}

/// The metric that ann-benchmarks means by a distance.
pub fn metric_of(distance: &str) -> Option<Metric> {
    Some(match distance.to_ascii_lowercase().as_str() {
        // The root changes no order.
        "euclidean" | "l2" => Metric::SquaredEuclidean,
        "angular" | "cosine" => Metric::Cosine,
        "ip" | "dot" => Metric::InnerProduct,
        "manhattan" | "l1" => Metric::Manhattan,
        _ => return None,
    })
}

/// A dataset that can be as large as it says.
struct Column {
    name: String,
    dataset: Dataset,
    item: Item,
    rows: u64,
    /// Of vectors; none where a row is one element.
    dimension: Option<usize>,
    row_bytes: usize,
}

impl Column {
    fn open(opened: &Opened, name: &str, details: &Details) -> Read<Column> {
        let dataset = opened.file.dataset(name).map_err(Fault::new)?;
        let shape = dataset.shape().map_err(Fault::new)?;
        let (rows, dimension) = checked_shape(&shape)?;
        let element_bytes = dataset.element_size().map_err(Fault::new)?;
        let elements: u128 = shape.iter().map(|side| u128::from(*side)).product();
        let bytes = elements.saturating_mul(element_bytes.into());
        let there = opened.bytes;
        let most = match dataset.layout().map_err(Fault::new)? {
            Layout::Chunked { chunk_shape, .. } => {
                check_chunks(there, &dataset, &shape, &chunk_shape)?;
                there.saturating_mul(EXPANSION_MAX)
            }
            Layout::Virtual => return Err(Fault::new("it is made of parts of other data sets")),
            _ => there,
        };
        if bytes > most.into() {
            return Err(Fault::new(format!(
                "{bytes} bytes of elements, more than a file of {there} bytes holds"
            )));
        }
        let element_bytes = usize::try_from(element_bytes).unwrap_or(usize::MAX);
        let (dtype, datatype) = (dataset.dtype(), dataset.datatype().map_err(Fault::new)?);
        let item = Item::of(&dtype.map_err(Fault::new)?, &datatype, details, element_bytes)?;
        if dimension.is_some() && matches!(item, Item::Bool | Item::Bytes(_) | Item::Text) {
            return Err(Fault::new("rows and columns of texts, where vectors are wanted"));
        }
        let row_bytes = match item {
            Item::Text => TEXT_BYTES,
            _ => dimension.unwrap_or(1).saturating_mul(element_bytes),
        };
        Ok(Column { name: name.to_owned(), dataset, item, rows, dimension, row_bytes })
    }

    fn data_type(&self) -> DataType {
        match self.dimension {
            Some(dimension) => list_type(self.item.data_type(), dimension),
            None => self.item.data_type(),
        }
    }

    fn read(&self, first: u64, rows: usize) -> Read<(ArrayRef, Vec<(usize, Fault)>)> {
        let failed = |cause: Error| self.failed(cause).at(first);
        let (data, count) = (&self.dataset, rows as u64);
        let array = match self.item {
            Item::F32 => self.numbers::<Float32Type>(data.read_f32_rows(first, count), rows),
            Item::F64 => self.numbers::<Float64Type>(data.read_f64_rows(first, count), rows),
            Item::I8 => self.numbers::<Int8Type>(data.read_i8_rows(first, count), rows),
            Item::I16 => self.numbers::<Int16Type>(data.read_i16_rows(first, count), rows),
            Item::I32 => self.numbers::<Int32Type>(data.read_i32_rows(first, count), rows),
            Item::I64 => self.numbers::<Int64Type>(data.read_i64_rows(first, count), rows),
            Item::U8 => self.numbers::<UInt8Type>(data.read_u8_rows(first, count), rows),
            Item::U16 => self.numbers::<UInt16Type>(data.read_u16_rows(first, count), rows),
            Item::U32 => self.numbers::<UInt32Type>(data.read_u32_rows(first, count), rows),
            Item::U64 => self.numbers::<UInt64Type>(data.read_u64_rows(first, count), rows),
            Item::F16(order) => {
                let from = match order {
                    Order::Big => f16::from_be_bytes,
                    Order::Little => f16::from_le_bytes,
                };
                let bytes = data.read_raw_rows(first, count);
                let halves =
                    |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|b| from(*b)).collect();
                self.numbers::<Float16Type>(bytes.map(halves), rows)
            }
            Item::Float(float) => {
                let bytes = data.read_raw_rows(first, count);
                self.numbers::<Float64Type>(bytes.map(|bytes| float.read_all(&bytes)), rows)
            }
            Item::Bool => {
                let bytes = data.read_raw_rows(first, count).map_err(failed)?;
                self.check_count(bytes.len(), rows)?;
                let truths = bytes.iter().map(|byte| Some(*byte != 0));
                return Ok((Arc::new(BooleanArray::from_iter(truths)), Vec::new()));
            }
            Item::Bytes(width) => {
                let bytes = data.read_raw_rows(first, count).map_err(failed)?;
                self.check_count(bytes.len(), rows.saturating_mul(width))?;
                return Ok(texts(&self.name, bytes.chunks_exact(width), utf8));
            }
            Item::Text => {
                let texts = data.read_string_rows(first, count).map_err(failed)?;
                self.check_count(texts.len(), rows)?;
                // The library puts this character where bytes are no text.
                let is_damaged = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
                let damaged = texts.iter().enumerate().filter(|(_, text)| is_damaged(text));
                let why = "its bytes are no text in Unicode";
                let faults = damaged.map(|(row, _)| (row, Fault::of_column(&self.name, why)));
                let faults = faults.collect();
                return Ok((Arc::new(LargeStringArray::from(texts)), faults));
            }
        };
        Ok((array.map_err(|fault| fault.at(first))?, Vec::new()))
    }

    /// Numbers that cannot be had. The library tells a filter that it does not know by its number only.
    fn failed(&self, cause: Error) -> Fault {
        let filters: Vec<String> =
            self.dataset.filter_pipeline().iter().map(ToString::to_string).collect();
        Fault::of_column(
            &self.name,
            match filters.is_empty() {
                true => cause.to_string(),
                false => format!("{cause}; its numbers went through {}", filters.join(", ")),
            },
        )
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        numbers: std::result::Result<Vec<T::Native>, Error>,
        rows: usize,
    ) -> Read<ArrayRef> {
        let numbers = numbers.map_err(|cause| self.failed(cause))?;
        self.check_count(numbers.len(), rows * self.dimension.unwrap_or(1))?;
        let buffer = Buffer::from_vec(numbers);
        Ok(match self.dimension {
            Some(dimension) => list_of::<T>(buffer, dimension),
            None => primitive::<T>(buffer),
        })
    }

    fn check_count(&self, found: usize, wanted: usize) -> Read<()> {
        match found == wanted {
            true => Ok(()),
            false => Err(Fault::of_column(&self.name, format!("cut short: {found} of {wanted}"))),
        }
    }
}

/// Where chunks are and how large: the library takes memory for what the file says.
fn check_chunks(there: u64, dataset: &Dataset, shape: &[u64], chunk_shape: &[u64]) -> Read<()> {
    let product = |sides: &[u64]| sides.iter().try_fold(1u64, |all, side| all.checked_mul(*side));
    let allowed = product(shape).unwrap_or(u64::MAX).max(CHUNK_ELEMENTS);
    if product(chunk_shape).is_none_or(|elements| elements > allowed) {
        return Err(Fault::new(format!(
            "chunks of shape {chunk_shape:?}, and an array of shape {shape:?}"
        )));
    }
    for chunk in dataset.chunks().map_err(Fault::new)? {
        let end = chunk.address.checked_add(chunk.storage_size);
        if end.is_none_or(|end| end > there) {
            return Err(Fault::new(format!(
                "a chunk of {} bytes at byte {}, beyond the end of the file",
                chunk.storage_size, chunk.address
            )));
        }
        if chunk.offset.len() != shape.len()
            || chunk.offset.iter().zip(shape).any(|(offset, side)| offset >= side)
        {
            return Err(Fault::new(format!(
                "a chunk at {:?}, and an array of shape {shape:?}",
                chunk.offset
            )));
        }
    }
    Ok(())
}

/// The datasets of a file that make one table.
pub(super) struct Hdf5Table {
    schema: SchemaRef,
    columns: Vec<Option<Column>>,
    selected: Vec<usize>,
    rows: u64,
    at: u64,
}

impl Hdf5Table {
    pub fn open(path: &Path, wanted: &[String]) -> Read<Hdf5Table> {
        let opened = Opened::open(path)?;
        let column = |(name, details): &(String, Read<Details>)| match details {
            Ok(details) => Column::open(&opened, name, details),
            Err(fault) => Err(fault.clone()),
        };
        let columns: Vec<Read<Column>> = opened.datasets.iter().map(column).collect();
        let names: Vec<String> = opened.datasets.into_iter().map(|(name, _)| name).collect();
        let readable: Vec<&Column> = columns.iter().flatten().collect();
        if readable.is_empty() {
            let faults = names.iter().zip(&columns).filter_map(|(name, column)| {
                Some(Fault::of_column(name, column.as_ref().err()?).to_string())
            });
            let faults: Vec<String> = faults.collect();
            return Err(Fault::new(match faults.is_empty() {
                true => "no datasets in its root group".to_owned(),
                false => faults.join("; "),
            }));
        }
        let candidates: Vec<Candidate<'_>> = readable
            .iter()
            .map(|column| Candidate {
                name: &column.name,
                rows: column.rows,
                is_matrix: column.dimension.is_some(),
            })
            .collect();
        let chosen = one_table(&candidates, wanted)?;
        let names_chosen: Vec<String> =
            chosen.iter().map(|at| readable[*at].name.clone()).collect();
        let rows = readable[chosen[0]].rows;
        let (mut fields, mut kept) = (Vec::new(), Vec::new());
        for (name, column) in names.iter().zip(columns) {
            match column {
                Ok(column) if names_chosen.contains(name) => {
                    fields.push(Field::new(name, column.data_type(), true));
                    kept.push(Some(column));
                }
                Ok(_) => {}
                // What cannot be read is shown, and refused where it is wanted.
                Err(fault) => {
                    fields.push(unreadable_field(name, fault.why));
                    kept.push(None);
                }
            }
        }
        let selected = (0..kept.len()).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Hdf5Table { schema, columns: kept, selected, rows, at: 0 })
    }
}

impl Table for Hdf5Table {
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
        let mut columns = Vec::new();
        for at in &self.selected {
            let column = self.columns.get(*at).and_then(Option::as_ref);
            columns.push(column.ok_or_else(|| {
                let field = self.schema.field(*at);
                let why = super::unreadable(field).unwrap_or("it cannot be read");
                Fault::of_column(field.name(), why)
            })?);
        }
        let row_bytes = columns.iter().map(|column| column.row_bytes).sum();
        let rows = rows_of_block(rows_max, row_bytes, self.rows - self.at);
        let mut block = Block { rows, columns: Vec::new(), faults: Vec::new() };
        for column in columns {
            let (array, faults) = column.read(self.at, rows)?;
            block.columns.push(array);
            block.faults.extend(faults);
        }
        self.at += rows as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        self.at += rows;
        Ok(())
    }
}
