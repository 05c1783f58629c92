//! `voisin export`: all rows of one moment, or those of a filter, in key order into a file.
//!
//! Files of columns need to know which kinds of values a column has before the first row is written. So
//! the first rows are looked at; when a later row has another kind, the rest is looked through and the
//! rows are read once more.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::types::{Float16Type, Float32Type, Int8Type, Int16Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, FixedSizeBinaryArray, FixedSizeListArray, ListArray,
    PrimitiveArray, RecordBatch, UInt64Array,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use clap::Args;

use super::columns::is_multi;
use super::progress::Progress;
use super::{DECLARATION, ErrorKind, KEY, NAME, ROLE, Result, TransferError, grouped, listed};
use crate::files::{self, Format, WRITTEN, WriteOptions, Writer};
use crate::schema::{ElementType, VERSION_COLUMN, Value, WRITE_TIME_COLUMN};
use crate::segment::{KindSet, forward_array};
use crate::server::client::{
    Client, Declaration, RowBatch, RowChoice, RowStream, TtlInfo, VectorBatch, VectorInfo,
};

/// Rows that are looked at before the first is written.
const LOOK_ROWS: usize = 65_536;
/// Rows of a record batch, and about how many bytes of vectors.
const BATCH_ROWS: usize = 65_536;
const BATCH_BYTES: usize = 32 << 20;
/// How often rows are read anew because of a kind that was not seen before. Each time there are more.
const READS_MAX: usize = 100;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);

/// Arguments of `voisin export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// The collection.
    #[arg(long, value_name = "NAME")]
    pub collection: String,
    /// The file: .parquet, .arrow, .feather, .jsonl, .npy or .fvecs. The last two have vectors alone; the
    /// keys are written beside them, into FILE with the end .keys.npy.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The server's gRPC address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:16000")]
    pub server: String,
    /// The format, where the file's name does not tell.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Only rows that this expression is true for (docs/filters.md).
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// The forward columns; '' for none [default: all].
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// The vector columns [default: all].
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub vectors: Option<Vec<String>>,
    /// Leave vectors out.
    #[arg(long, conflicts_with = "vectors")]
    pub no_vectors: bool,
    /// JSON lines of plain numbers and text, for other programs; kinds of numbers are lost.
    #[arg(long)]
    pub plain: bool,
    /// Replace a file that is there.
    #[arg(long)]
    pub overwrite: bool,
}

/// What an export did.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportReport {
    /// The collection.
    pub collection: String,
    /// The file.
    pub out: PathBuf,
    /// Rows written.
    pub rows: u64,
    /// Seconds of reading and writing.
    pub seconds: f64,
}

impl ExportReport {
    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "exported {} rows of {:?} into {} in {:.1} s ({} rows/s)",
            grouped(self.rows),
            self.collection,
            self.out.display(),
            self.seconds,
            grouped((self.rows as f64 / self.seconds.max(1e-3)) as u64)
        )
    }
}

/// What is read and how it is written.
struct Job {
    format: Format,
    choice: RowChoice,
    /// What the file is of: the columns that are read.
    declaration: Declaration,
    args: ExportArgs,
}

/// Exports, until it is done or `interrupt` gives a signal's name; then no file is left.
pub async fn export(
    args: &ExportArgs,
    interrupt: impl Future<Output = &'static str>,
) -> Result<ExportReport> {
    let format = format(args)?;
    let mut client = Client::connect(&args.server).await?;
    let there = client.describe(&args.collection).await?.ok_or_else(|| {
        TransferError::not_as_asked(format!("there is no collection {:?}", args.collection))
    })?;
    let declaration = chosen(args, format, there.declaration)?;
    let choice = RowChoice {
        collection: args.collection.clone(),
        filter: args.filter.clone(),
        forwards: Some(declaration.forwards.iter().map(|column| column.name.clone()).collect()),
        vectors: declaration.vectors.iter().map(|column| column.name.clone()).collect(),
    };
    // A filter that is wrong is refused here, before there is a file.
    let total = client.count(&args.collection, args.filter.as_deref()).await;
    let total = total.map_err(TransferError::not_as_asked)?;
    let mut progress = Progress::new("exported", "rows", total, 0);
    let job = Job { format, choice, declaration, args: args.clone() };
    let ended = tokio::select! {
        signal = interrupt => Err(TransferError {
            words: format!("stopped by {signal}; no file is left"),
            kind: ErrorKind::Stopped(signal),
        }),
        rows = job.run(&mut client, &mut progress) => rows,
    };
    progress.finish();
    Ok(ExportReport {
        collection: args.collection.clone(),
        out: args.out.clone(),
        rows: ended?,
        seconds: progress.seconds(),
    })
}

fn format(args: &ExportArgs) -> Result<Format> {
    let format = args.format.or_else(|| Format::of_name(&args.out));
    let Some(format) = format.filter(|format| WRITTEN.contains(format)) else {
        return Err(TransferError::not_as_asked(format!(
            "{}: its end does not tell a format that is written; .parquet, .arrow, .feather, .jsonl, \
             .npy and .fvecs do, or --format",
            args.out.display()
        )));
    };
    let keys = files::is_vectors_only(format).then(|| files::keys_path(&args.out));
    for path in [Some(args.out.clone()), keys].into_iter().flatten() {
        if path.exists() && !args.overwrite {
            return Err(TransferError::not_as_asked(format!(
                "{} is there already; --overwrite replaces it",
                path.display()
            )));
        }
    }
    Ok(format)
}

/// The columns that are exported, of those that are there.
fn chosen(args: &ExportArgs, format: Format, mut there: Declaration) -> Result<Declaration> {
    let missing = |what: &str, name: &str, names: Vec<&str>| {
        let collection = &args.collection;
        TransferError::not_as_asked(format!(
            "collection {collection:?} has no {what} column {name:?}, but {}",
            listed(names)
        ))
    };
    let named = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !name.is_empty()).cloned().collect()
    };
    if let Some(names) = args.columns.as_deref().map(named) {
        let all = || there.forwards.iter().map(|column| column.name.as_str()).collect::<Vec<_>>();
        if let Some(name) = names.iter().find(|name| !all().contains(&name.as_str())) {
            return Err(missing("forward", name, all()));
        }
        there.forwards.retain(|column| names.contains(&column.name));
    } else if files::is_vectors_only(format) && !there.forwards.is_empty() {
        let names = listed(there.forwards.iter().map(|column| column.name.as_str()));
        eprintln!("forward columns are left out, which the format has no room for: {names}");
        there.forwards.clear();
    }
    if let Some(names) = args.vectors.as_deref().map(named) {
        let all = || there.vectors.iter().map(|column| column.name.as_str()).collect::<Vec<_>>();
        if let Some(name) = names.iter().find(|name| !all().contains(&name.as_str())) {
            return Err(missing("vector", name, all()));
        }
        there.vectors.retain(|column| names.contains(&column.name));
    }
    if args.no_vectors {
        there.vectors.clear();
    }
    Ok(there)
}

/// The declaration as one would give it to make the collection anew: without what the server adds.
fn as_declared(mut declaration: Declaration) -> Declaration {
    let by_write = declaration.ttl.as_ref().is_some_and(|ttl| ttl.column == WRITE_TIME_COLUMN);
    declaration.forwards.retain(|column| {
        !(declaration.versions && column.name == VERSION_COLUMN
            || by_write && column.name == WRITE_TIME_COLUMN)
    });
    declaration.ttl = declaration.ttl.map(|ttl| match by_write {
        true => TtlInfo { column: String::new(), ..ttl },
        false => ttl,
    });
    declaration
}

/// How a read of all rows ended.
enum Read {
    Whole(u64),
    /// Values of these kinds are there, and the file began without them.
    MoreKinds(Vec<KindSet>),
}

impl Job {
    async fn run(&self, client: &mut Client, progress: &mut Progress) -> Result<u64> {
        let declared = |column: &crate::server::client::ForwardInfo| {
            let mut kinds = KindSet::default();
            column.kind.into_iter().for_each(|kind| kinds.include_kind(kind));
            kinds
        };
        let mut kinds: Vec<KindSet> = self.declaration.forwards.iter().map(declared).collect();
        for _ in 0..READS_MAX {
            match self.read(client, &kinds, progress).await? {
                Read::Whole(rows) => return Ok(rows),
                Read::MoreKinds(more) => kinds = more,
            }
            progress.set(0);
        }
        Err(TransferError::failed("values of other kinds are written all the time"))
    }

    /// Reads all rows once.
    async fn read(
        &self,
        client: &mut Client,
        known: &[KindSet],
        progress: &mut Progress,
    ) -> Result<Read> {
        let mut stream = client.read(&self.choice).await?;
        let mut kinds = known.to_vec();
        let mut look: Vec<RowBatch> = Vec::new();
        let mut looked = 0;
        while looked < LOOK_ROWS
            && let Some(rows) = stream.next().await?
        {
            looked += rows.keys.len();
            include(&mut kinds, &rows);
            look.push(rows);
        }
        let schema = self.schema(&kinds);
        let options = WriteOptions { is_plain: self.args.plain };
        let mut writer = Writer::create(&self.args.out, self.format, &schema, options)?;
        let mut pending = Pending::default();
        let (mut done, mut look) = (0u64, look.into_iter());
        let mut told = tokio::time::Instant::now();
        loop {
            let rows = match look.next() {
                Some(rows) => Some(rows),
                None => stream.next().await?,
            };
            let Some(rows) = rows else { break };
            if self.has_fixed_kinds() {
                let mut more = kinds.clone();
                include(&mut more, &rows);
                if more != kinds {
                    return rest(stream, more).await;
                }
            }
            done += rows.keys.len() as u64;
            if pending.add(rows)? {
                self.write(&mut writer, &schema, &kinds, &mut pending)?;
            }
            if told.elapsed() >= TICK {
                told = tokio::time::Instant::now();
                progress.set(done);
            }
        }
        self.write(&mut writer, &schema, &kinds, &mut pending)?;
        writer.finish()?;
        Ok(Read::Whole(done))
    }

    /// True for formats whose columns have one type in the whole file.
    fn has_fixed_kinds(&self) -> bool {
        self.format != Format::Jsonl
    }

    fn schema(&self, kinds: &[KindSet]) -> SchemaRef {
        let mut fields: Vec<Field> = Vec::new();
        let mut push = |name: &str, role: &str, data_type: DataType, is_nullable: bool| {
            let mut own = name.to_owned();
            while fields.iter().any(|field| *field.name() == own) {
                own += "#forward";
            }
            let mut metadata = HashMap::from([(ROLE.to_owned(), role.to_owned())]);
            if own != name {
                metadata.insert(NAME.to_owned(), name.to_owned());
            }
            let field = Field::new(own, data_type, is_nullable);
            fields.push(field.with_metadata(metadata));
        };
        push(KEY, "key", DataType::UInt64, false);
        for column in &self.declaration.vectors {
            push(&column.name, "vector", vector_type(column), true);
        }
        for (column, kinds) in self.declaration.forwards.iter().zip(kinds) {
            push(&column.name, "forward", kinds.data_type(), true);
        }
        let declaration = as_declared(self.declaration.clone());
        let declaration = serde_json::to_string(&declaration).unwrap_or_default();
        let metadata = HashMap::from([(DECLARATION.to_owned(), declaration)]);
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }

    fn write(
        &self,
        writer: &mut Writer,
        schema: &SchemaRef,
        kinds: &[KindSet],
        pending: &mut Pending,
    ) -> Result<()> {
        let rows = pending.take();
        if rows.keys.is_empty() {
            return Ok(());
        }
        let batch = self.batch(schema, kinds, rows);
        writer.write(&batch.map_err(TransferError::failed)?)?;
        Ok(())
    }

    fn batch(
        &self,
        schema: &SchemaRef,
        kinds: &[KindSet],
        rows: RowBatch,
    ) -> std::result::Result<RecordBatch, ArrowError> {
        let RowBatch { keys, vectors, forwards } = rows;
        let mut schema = schema.clone();
        let rows = keys.len();
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(keys))];
        for (column, declared) in vectors.into_iter().zip(&self.declaration.vectors) {
            arrays.push(vector_array(column, rows, is_multi(declared))?);
        }
        for (column, kinds) in forwards.iter().zip(kinds) {
            let values: Vec<Option<&Value>> = column.values.iter().map(Option::as_ref).collect();
            let mut own = *kinds;
            if !self.has_fixed_kinds() {
                own = KindSet::default();
                values.iter().flatten().for_each(|value| own.include(value));
            }
            arrays.push(forward_array(own, &values));
        }
        if !self.has_fixed_kinds() {
            let fields = schema.fields().iter().zip(&arrays).map(|(field, array)| {
                Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()))
            });
            schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        RecordBatch::try_new(schema, arrays)
    }
}

fn include(kinds: &mut [KindSet], rows: &RowBatch) {
    for (kinds, column) in kinds.iter_mut().zip(&rows.forwards) {
        column.values.iter().flatten().for_each(|value| kinds.include(value));
    }
}

/// Looks through what is left for kinds.
async fn rest(mut stream: RowStream, mut kinds: Vec<KindSet>) -> Result<Read> {
    while let Some(rows) = stream.next().await? {
        include(&mut kinds, &rows);
    }
    Ok(Read::MoreKinds(kinds))
}

/// Rows that are not written yet.
#[derive(Default)]
struct Pending {
    /// Without the bytes of vectors.
    rows: RowBatch,
    /// Those, column by column.
    bytes: Vec<Vec<u8>>,
}

impl Pending {
    /// Adds rows behind those there are; true when it is time to write them.
    fn add(&mut self, mut more: RowBatch) -> Result<bool> {
        let bytes = more.vectors.iter_mut().map(|column| std::mem::take(&mut column.bytes));
        self.bytes.resize_with(self.bytes.len().max(bytes.len()), Vec::new);
        self.bytes.iter_mut().zip(bytes).for_each(|(all, more)| all.extend_from_slice(&more));
        if self.rows.keys.is_empty() {
            self.rows = more;
        } else {
            let before = self.rows.keys.len();
            self.rows.keys.extend(more.keys);
            for (column, more) in self.rows.vectors.iter_mut().zip(more.vectors) {
                append_counts(column, more, before, self.rows.keys.len() - before);
            }
            for (column, more) in self.rows.forwards.iter_mut().zip(more.forwards) {
                column.values.extend(more.values);
            }
        }
        let rows = self.rows.keys.len();
        let fits = self
            .rows
            .vectors
            .iter()
            .all(|column| column.counts.is_empty() || column.counts.len() == rows);
        let fits = fits && self.rows.forwards.iter().all(|column| column.values.len() == rows);
        if !fits {
            return Err(TransferError::failed("the server answers with columns of other lengths"));
        }
        let bytes: usize = self.bytes.iter().map(Vec::len).sum();
        Ok(rows >= BATCH_ROWS || bytes >= BATCH_BYTES)
    }

    /// All of them; nothing is left.
    fn take(&mut self) -> RowBatch {
        let Pending { mut rows, bytes } = std::mem::take(self);
        rows.vectors.iter_mut().zip(bytes).for_each(|(column, all)| column.bytes = all.into());
        rows
    }
}

fn append_counts(column: &mut VectorBatch, more: VectorBatch, before: usize, rows: usize) {
    if column.counts.is_empty() != more.counts.is_empty() {
        if column.counts.is_empty() {
            column.counts = vec![1; before];
        } else {
            column.counts.extend(vec![1; rows]);
        }
    }
    column.counts.extend(more.counts);
}

fn item_type(element: ElementType) -> Option<DataType> {
    match element {
        ElementType::Fp32 => Some(DataType::Float32),
        ElementType::Fp16 => Some(DataType::Float16),
        ElementType::Int8 => Some(DataType::Int8),
        ElementType::Int16 => Some(DataType::Int16),
        ElementType::Int4 | ElementType::Binary32 | ElementType::Binary64 => None,
    }
}

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, false))
}

fn vector_type(column: &VectorInfo) -> DataType {
    let bytes = column.element.vector_bytes(column.dimension).unwrap_or(0);
    let of_one = match item_type(column.element) {
        Some(data_type) => DataType::FixedSizeList(item(data_type), column.dimension as i32),
        None => DataType::FixedSizeBinary(bytes as i32),
    };
    if is_multi(column) { DataType::List(item(of_one)) } else { of_one }
}

/// The vectors of a column in so many rows: lists of them where rows may have several.
fn vector_array(
    column: VectorBatch,
    rows: usize,
    is_multi: bool,
) -> std::result::Result<ArrayRef, ArrowError> {
    let each = column.element.vector_bytes(column.dimension).unwrap_or(0);
    let wrong = |words: &str| {
        let name = &column.name;
        ArrowError::InvalidArgumentError(format!("vector column {name:?}: {words}"))
    };
    if is_multi {
        let counts = if column.counts.is_empty() { vec![1; rows] } else { column.counts.clone() };
        let there: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
        let mut ends = vec![0i32];
        for count in counts {
            let end =
                i32::try_from(count).ok().and_then(|count| ends[ends.len() - 1].checked_add(count));
            ends.push(end.ok_or_else(|| wrong("more vectors than a batch holds"))?);
        }
        let vectors = one_each(&column, Buffer::from_slice_ref(&column.bytes), None)?;
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        let item = item(vectors.data_type().clone());
        return Ok(Arc::new(ListArray::try_new(item, ends, vectors, Some(there.into()))?));
    }
    let (mut bytes, mut nulls) = (column.bytes.to_vec(), None);
    if !column.counts.is_empty() {
        if column.counts.iter().any(|count| *count > 1) {
            return Err(wrong("several vectors for a row, which it is not declared to have"));
        }
        let there: Vec<bool> = column.counts.iter().map(|count| *count > 0).collect();
        let mut spread = Vec::with_capacity(there.len() * each);
        let mut left = bytes.chunks_exact(each.max(1));
        for is_there in &there {
            match is_there {
                true => spread.extend_from_slice(left.next().ok_or_else(|| wrong("cut short"))?),
                false => spread.resize(spread.len() + each, 0),
            }
        }
        (bytes, nulls) = (spread, Some(NullBuffer::from(there)));
    }
    // Of 64 bytes, as arrays are aligned.
    one_each(&column, Buffer::from_slice_ref(&bytes), nulls)
}

/// Vectors one after the other, of which some may be null.
fn one_each(
    column: &VectorBatch,
    buffer: Buffer,
    nulls: Option<NullBuffer>,
) -> std::result::Result<ArrayRef, ArrowError> {
    let dimension = column.dimension as i32;
    let each = column.element.vector_bytes(column.dimension).unwrap_or(0);
    fn list<T: ArrowPrimitiveType>(
        buffer: Buffer,
        dimension: i32,
        nulls: Option<NullBuffer>,
    ) -> std::result::Result<ArrayRef, ArrowError> {
        let count = buffer.len() / size_of::<T::Native>();
        let values = PrimitiveArray::<T>::new(ScalarBuffer::new(buffer, 0, count), None);
        let item = item(T::DATA_TYPE);
        Ok(Arc::new(FixedSizeListArray::try_new(item, dimension, Arc::new(values), nulls)?))
    }
    match column.element {
        ElementType::Fp32 => list::<Float32Type>(buffer, dimension, nulls),
        ElementType::Fp16 => list::<Float16Type>(buffer, dimension, nulls),
        ElementType::Int8 => list::<Int8Type>(buffer, dimension, nulls),
        ElementType::Int16 => list::<Int16Type>(buffer, dimension, nulls),
        _ => Ok(Arc::new(FixedSizeBinaryArray::try_new(each as i32, buffer, nulls)?)),
    }
}
