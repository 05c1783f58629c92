//! Tables in files: which formats there are, and what all of them give, which is blocks of rows as Arrow
//! arrays. One file for each format knows its bytes.
//!
//! Files come from anywhere. Nothing here takes memory by a number of a file that was not held against
//! the size of the file or the memory there is, and what is wrong is told with row and column.

mod arrow;
mod hdf5;
mod json;
mod keyed;
mod layout;
mod npy;
mod npz;
mod parquet;
mod values;
mod vecs;
mod vectors;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::ArrayRef;
use arrow_schema::{Field, SchemaRef};
use clap::ValueEnum;

pub use hdf5::{distance, has_dataset, metric_of};
pub use values::{check_values, is_integer, keys, value_kind, values};
pub use vecs::write as write_vecs;
pub use vectors::{Form, Vectors, first_length, form, integers, several, vectors};
pub use write::{WRITTEN, WriteOptions, Writer, is_vectors_only, keys_path};

use crate::memory::MemoryLimit;

/// Highest dimension that a file may have.
const DIMENSION_MAX: u64 = 65_536;
/// Bytes of a block that readers aim at; a row may be larger.
const BLOCK_BYTES: usize = 4 << 20;
/// Why a column cannot be read, in a field's metadata.
const UNREADABLE: &str = "voisin.unreadable";

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The row concerned, counted from 0.
    pub row: Option<u64>,
    /// The column concerned.
    pub column: Option<String>,
    /// What is wrong, in words.
    pub why: String,
}

impl Fault {
    /// A fault of the whole file.
    pub fn new(why: impl fmt::Display) -> Fault {
        Fault { row: None, column: None, why: why.to_string() }
    }

    /// A fault of a column.
    pub fn of_column(column: &str, why: impl fmt::Display) -> Fault {
        Fault { row: None, column: Some(column.to_owned()), why: why.to_string() }
    }

    /// The same fault, of this row.
    pub fn at(mut self, row: u64) -> Fault {
        self.row = Some(row);
        self
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::new(why)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(f, "row {row}: ")?;
        }
        if let Some(column) = &self.column {
            write!(f, "column {column:?}: ")?;
        }
        f.write_str(&self.why)
    }
}

/// Result of reading; the path is put before a fault by who opened the file.
pub type Read<T> = std::result::Result<T, Fault>;

/// What is wrong with which file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: Fault,
}

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Arrow IPC, file or stream; Feather version 2 is the same.
    Arrow,
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line.
    Jsonl,
    /// One array of numpy.
    Npy,
    /// Several arrays of numpy, one for each column.
    Npz,
    /// Vectors of 32-bit floats.
    Fvecs,
    /// Vectors of bytes.
    Bvecs,
    /// Vectors of 32-bit integers.
    Ivecs,
    /// HDF5: datasets of the root group, one for each column.
    Hdf5,
}

impl Format {
    /// The format by the end of a file's name.
    pub fn of_name(path: &Path) -> Option<Format> {
        let end = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match end.as_str() {
            "arrow" | "arrows" | "feather" | "ipc" => Format::Arrow,
            "parquet" | "pq" | "parq" => Format::Parquet,
            "jsonl" | "ndjson" | "jsonlines" => Format::Jsonl,
            "npy" => Format::Npy,
            "npz" => Format::Npz,
            "fvecs" => Format::Fvecs,
            "bvecs" => Format::Bvecs,
            "ivecs" => Format::Ivecs,
            "hdf5" | "h5" | "he5" => Format::Hdf5,
            _ => return None,
        })
    }
}

/// Some rows of a table.
#[derive(Debug)]
pub struct Block {
    /// How many.
    pub rows: usize,
    /// One array of so many rows for each column selected. Its own type counts: files whose rows may
    /// differ in type have blocks that do.
    pub columns: Vec<ArrayRef>,
    /// Rows that cannot be read, by their place in the block; what the arrays have for them means
    /// nothing.
    pub faults: Vec<(usize, Fault)>,
}

/// A table in a file.
trait Table: Send {
    /// The columns. Types say what is known before rows are read.
    fn schema(&self) -> &SchemaRef;

    /// Rows of the whole file.
    fn rows(&self) -> u64;

    /// Leaves only these columns, in this order. Called once, before the first read.
    fn select(&mut self, columns: &[usize]) -> Read<()>;

    /// The next rows, at most so many; `None` after the last one.
    fn read(&mut self, rows_max: usize) -> Read<Option<Block>>;

    /// Passes over rows, of which there are so many.
    fn skip(&mut self, rows: u64) -> Read<()>;
}

/// What is known of the columns that will be read, before the file is.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Columns that are certainly meant.
    pub names: Vec<String>,
    /// True when others are meant, too.
    pub has_others: bool,
    /// A `.npy` with a key for each row.
    pub keys: Option<PathBuf>,
}

/// A file that is read block by block.
pub struct Reader {
    path: PathBuf,
    format: Format,
    table: Box<dyn Table>,
    schema: SchemaRef,
    rows: u64,
    at: u64,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} at row {} of {})", self.path.display(), self.at, self.rows)
    }
}

/// The format that a file has by its name, or else by its first bytes.
fn format_of(path: &Path) -> Read<Format> {
    if let Some(format) = Format::of_name(path) {
        return Ok(format);
    }
    let mut start = [0; 8];
    let mut file = std::fs::File::open(path).map_err(Fault::new)?;
    let read = std::io::Read::read(&mut file, &mut start).map_err(Fault::new)?;
    match &start[..read] {
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Ok(Format::Arrow),
        [b'P', b'A', b'R', b'1', ..] => Ok(Format::Parquet),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Format::Npy),
        [0x89, b'H', b'D', b'F', ..] => Ok(Format::Hdf5),
        [b'{', ..] => Ok(Format::Jsonl),
        _ => Err(Fault::new(
            "its name does not tell its format; name it with --format, or end the name with .parquet, \
             .arrow, .jsonl, .npy, .npz, .fvecs, .bvecs, .ivecs or .hdf5",
        )),
    }
}

/// Runs a reader. What it fails on in a way that nobody foresaw is a fault of the file, too.
fn shielded<T>(work: impl FnOnce() -> Read<T>) -> Read<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(cause) => {
            let words = cause.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(Fault::new(format!("it is damaged: its reader failed ({words})")))
        }
    }
}

impl Reader {
    /// Opens a table. What is wanted counts for formats whose columns may have different lengths, or
    /// appear late. Fails where the file cannot be read or is not of the format.
    pub fn open(path: &Path, format: Option<Format>, wanted: &Wanted) -> Result<Reader, FileError> {
        let failed = |fault| FileError { path: path.to_owned(), fault };
        let open = || -> Read<(Format, Box<dyn Table>)> {
            if std::fs::metadata(path).map_err(Fault::new)?.is_dir() {
                return Err(Fault::new("it is a folder; name the files in it"));
            }
            let format = format.map_or_else(|| format_of(path), Ok)?;
            let mut table: Box<dyn Table> = match format {
                Format::Arrow => Box::new(arrow::IpcTable::open(path)?),
                Format::Parquet => Box::new(parquet::ParquetTable::open(path)?),
                Format::Jsonl => Box::new(json::JsonTable::open(path, wanted)?),
                Format::Npy => Box::new(npy::NpyTable::open(path)?),
                Format::Npz => Box::new(npz::NpzTable::open(path, &wanted.names)?),
                Format::Fvecs => Box::new(vecs::VecsTable::open(path, vecs::Width::Float)?),
                Format::Bvecs => Box::new(vecs::VecsTable::open(path, vecs::Width::Byte)?),
                Format::Ivecs => Box::new(vecs::VecsTable::open(path, vecs::Width::Integer)?),
                Format::Hdf5 => Box::new(hdf5::Hdf5Table::open(path, &wanted.names)?),
            };
            if let Some(keys) = &wanted.keys {
                table = Box::new(keyed::KeyedTable::open(table, keys)?);
            }
            Ok((format, table))
        };
        let (format, table) = shielded(open).map_err(failed)?;
        let (schema, rows) = (table.schema().clone(), table.rows());
        if schema.fields().is_empty() {
            return Err(failed(Fault::new("no columns")));
        }
        Ok(Reader { path: path.to_owned(), format, table, schema, rows, at: 0 })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The columns. Types say what is known before rows are read.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows of the whole file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The row that is read next.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Leaves only these columns of the schema, in this order. To be called before the first read.
    pub fn select(&mut self, columns: &[usize]) -> Result<(), FileError> {
        let table = &mut self.table;
        let selected = shielded(|| table.select(columns));
        selected.map_err(|fault| FileError { path: self.path.clone(), fault })
    }

    /// The next rows, at most so many; `None` after the last one.
    pub fn read(&mut self, rows_max: usize) -> Result<Option<Block>, FileError> {
        let table = &mut self.table;
        let block = shielded(|| table.read(rows_max.max(1)));
        let block = block.map_err(|fault| FileError { path: self.path.clone(), fault })?;
        let rows = block.as_ref().map_or(0, |block| block.rows as u64);
        if rows == 0 && self.at < self.rows {
            let fault =
                Fault::new(format!("cut short: {} rows, and it says {}", self.at, self.rows));
            return Err(FileError { path: self.path.clone(), fault });
        }
        self.at += rows;
        Ok(block.filter(|block| block.rows > 0))
    }

    /// Passes over rows. Fails where there are not so many.
    pub fn skip(&mut self, rows: u64) -> Result<(), FileError> {
        let failed = |fault| FileError { path: self.path.clone(), fault };
        if rows > self.rows - self.at {
            let there = self.rows;
            return Err(failed(Fault::new(format!(
                "row {} is wanted, and there are {there}",
                self.at + rows
            ))));
        }
        let table = &mut self.table;
        shielded(|| table.skip(rows)).map_err(failed)?;
        self.at += rows;
        Ok(())
    }
}

/// Why a column cannot be read, where it cannot.
pub fn unreadable(field: &Field) -> Option<&str> {
    field.metadata().get(UNREADABLE).map(String::as_str)
}

/// A column that cannot be read, which matters only to who wants it.
fn unreadable_field(name: &str, why: String) -> Field {
    let metadata = HashMap::from([(UNREADABLE.to_owned(), why)]);
    Field::new(name, arrow_schema::DataType::Null, true).with_metadata(metadata)
}

/// Bytes that what is read may take.
pub fn memory_max() -> u64 {
    MemoryLimit::new(0).limit()
}

#[cfg(test)]
mod tests;
