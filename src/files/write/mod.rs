//! Tables into files: record batches of one schema, written under a name of their own until all of them
//! are there.

mod json;
mod vectors;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::SchemaRef;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{Fault, FileError, Form, Format, Read, form};

/// Bytes of a row group, about: a reader holds no more at a time, a writer all of it.
const GROUP_BYTES: usize = 64 << 20;
/// Most rows of a row group.
const GROUP_ROWS: usize = 1 << 20;

/// How files are written, where the format leaves a choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// JSON: plain numbers and text, from which some kinds cannot be told.
    pub is_plain: bool,
}

/// A file that is written.
enum Output {
    Arrow(Box<FileWriter<BufWriter<File>>>),
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
    Json(json::JsonWriter),
    Vectors(vectors::VectorWriter),
}

/// Files that appear under their names when they are whole, and not at all before.
pub struct Writer {
    path: PathBuf,
    output: Option<Output>,
    /// The names under which they are written, and those that they get.
    files: Vec<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.path.display())
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(end);
    name.into()
}

/// The file with the keys of vectors in a file that has no room for them.
pub fn keys_path(path: &Path) -> PathBuf {
    path.with_extension("keys.npy")
}

/// True for formats that have room for vectors alone, and have the keys beside them.
pub fn is_vectors_only(format: Format) -> bool {
    matches!(format, Format::Npy | Format::Fvecs)
}

/// The formats that are written.
pub const WRITTEN: [Format; 5] =
    [Format::Parquet, Format::Arrow, Format::Jsonl, Format::Npy, Format::Fvecs];

impl Writer {
    /// Begins a file for batches of this schema. Formats of vectors alone want two columns, the keys and
    /// the vectors. Fails where the format cannot hold the columns or the file cannot be made.
    pub fn create(
        path: &Path,
        format: Format,
        schema: &SchemaRef,
        options: WriteOptions,
    ) -> Result<Writer, FileError> {
        let mut writer = Writer { path: path.to_owned(), output: None, files: Vec::new() };
        let output = writer.begin(format, schema, options);
        let output = output.map_err(|fault| writer.failed(fault))?;
        writer.output = Some(output);
        Ok(writer)
    }

    fn failed(&self, fault: Fault) -> FileError {
        FileError { path: self.path.clone(), fault }
    }

    fn file(&mut self, path: PathBuf) -> Read<BufWriter<File>> {
        let part = with_end(&path, ".part");
        let file = File::create(&part).map_err(Fault::new)?;
        self.files.push((part, path));
        Ok(BufWriter::with_capacity(1 << 20, file))
    }

    fn begin(&mut self, format: Format, schema: &SchemaRef, options: WriteOptions) -> Read<Output> {
        if is_vectors_only(format) {
            let shape = vectors::Shape::of(format, schema)?;
            let file = self.file(self.path.clone())?;
            let keys = self.file(keys_path(&self.path))?;
            return Ok(Output::Vectors(vectors::VectorWriter::begin(file, keys, shape)?));
        }
        let file = self.file(self.path.clone())?;
        Ok(match format {
            Format::Arrow => {
                // As pyarrow does: Feather is compressed, and files to be mapped are not.
                let is_feather = self.path.extension().is_some_and(|end| end == "feather");
                let compression = is_feather.then_some(CompressionType::LZ4_FRAME);
                let options = IpcWriteOptions::default()
                    .try_with_compression(compression)
                    .map_err(Fault::new)?;
                let writer = FileWriter::try_new_with_options(file, schema, options);
                Output::Arrow(Box::new(writer.map_err(Fault::new)?))
            }
            Format::Parquet => {
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties(schema)?));
                Output::Parquet(Box::new(writer.map_err(Fault::new)?))
            }
            Format::Jsonl => Output::Json(json::JsonWriter::new(file, schema, options.is_plain)),
            _ => return Err(Fault::new("a format that is read and not written")),
        })
    }

    /// Writes rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        let written = match &mut self.output {
            Some(Output::Arrow(writer)) => writer.write(batch).map_err(Fault::new),
            Some(Output::Parquet(writer)) => writer.write(batch).map_err(Fault::new),
            Some(Output::Json(writer)) => writer.write(batch),
            Some(Output::Vectors(writer)) => writer.write(batch),
            None => Err(Fault::new("it is finished")),
        };
        written.map_err(|fault| self.failed(fault))
    }

    /// Writes what is left, and gives the files their names once they are safe on the disk.
    pub fn finish(mut self) -> Result<(), FileError> {
        let finished = match self.output.take() {
            Some(Output::Arrow(writer)) => writer.into_inner().map_err(Fault::new).and_then(sync),
            Some(Output::Parquet(writer)) => writer.into_inner().map_err(Fault::new).and_then(sync),
            Some(Output::Json(writer)) => sync(writer.finish()),
            Some(Output::Vectors(writer)) => writer.finish(),
            None => Ok(()),
        };
        finished.map_err(|fault| self.failed(fault))?;
        // The keys before the vectors: who sees the vectors finds their keys.
        while let Some((part, path)) = self.files.pop() {
            let named = std::fs::rename(&part, &path);
            named.map_err(|cause| FileError { path, fault: Fault::new(cause) })?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        for (part, _) in &self.files {
            // What is not whole is of no use to anyone.
            let _ = std::fs::remove_file(part);
        }
    }
}

/// Writes out a file to the disk.
fn sync(mut file: BufWriter<File>) -> Read<()> {
    let synced: io::Result<()> = file.flush().and_then(|()| file.get_ref().sync_all());
    synced.map_err(Fault::new)
}

/// Vectors are not compressed: it takes long and gains next to nothing. What else there is, is.
fn properties(schema: &SchemaRef) -> Read<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    let leaves = ArrowSchemaConverter::new().convert(schema).map_err(Fault::new)?;
    for leaf in leaves.columns() {
        let root = leaf.path().parts().first();
        let field = root.and_then(|name| schema.field_with_name(name).ok());
        if field.is_some_and(|field| matches!(form(field.data_type()), Some(Form::Numbers(..)))) {
            properties = properties
                .set_column_compression(leaf.path().clone(), Compression::UNCOMPRESSED)
                .set_column_dictionary_enabled(leaf.path().clone(), false)
                .set_column_statistics_enabled(leaf.path().clone(), EnabledStatistics::None);
        }
    }
    Ok(properties.build())
}

#[cfg(test)]
mod tests;
