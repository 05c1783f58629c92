//! `voisin import`: what of which files goes where, and the run of it. One thread reads and converts,
//! the sender keeps batches under way, and the checkpoint follows what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::checkpoint::{Checkpoint, Job, Source};
use super::columns::{Columns, Taken, declare, differences, embedded};
use super::flags::{ImportArgs, Mode};
use super::producer::{BadRow, Part, Produced, Producer};
use super::progress::Progress;
use super::sender::{Sender, Written};
use super::{ErrorKind, Result, TransferError, grouped};
use crate::files::{self, Fault, FileError, Format, Reader};
use crate::schema::Operation;
use crate::server::client::{Client, Declaration, Described, PreparedWrite};

/// Batches that are read ahead.
const AHEAD: usize = 4;
/// Bad rows that are shown one by one.
const SHOWN: u64 = 100;
/// How long what is under way may take after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// Rows looked through for the dimension of a column of lists, and how many at once.
const LOOK_ROWS: u64 = 100_000;
const LOOK_BLOCK_ROWS: usize = 4_096;

/// What an import did.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// The collection.
    pub collection: String,
    /// Rows of all files.
    pub rows: u64,
    /// Rows that were written now.
    pub written: u64,
    /// Rows that an earlier run had written.
    pub before: u64,
    /// Rows that were passed over.
    pub skipped: u64,
    /// Seconds of writing.
    pub seconds: f64,
}

impl ImportReport {
    /// One line for people.
    pub fn text(&self) -> String {
        let rate = grouped((self.written as f64 / self.seconds.max(1e-3)) as u64);
        let mut text = format!(
            "imported {} rows into {:?} in {:.1} s ({rate} rows/s)",
            grouped(self.written),
            self.collection,
            self.seconds
        );
        if self.before > 0 {
            text += &format!("; {} were imported before", grouped(self.before));
        }
        if self.skipped > 0 {
            text += &format!("; {} bad rows were passed over", grouped(self.skipped));
        }
        text
    }
}

/// Imports, until it is done or `interrupt` gives a signal's name.
pub async fn import(
    args: &ImportArgs,
    interrupt: impl Future<Output = &'static str>,
) -> Result<ImportReport> {
    let mut interrupt = std::pin::pin!(interrupt);
    let readers = open(args)?;
    let total: u64 = readers.iter().map(Reader::rows).fold(0, u64::saturating_add);
    if total == 0 {
        let words = format!("{}: no rows", args.files[0].display());
        return Err(TransferError::not_as_asked(words));
    }
    let mut client = Client::connect(&args.server).await?;
    let collection = collection(args, &mut client, &readers).await?;
    let parts = parts(args, readers, &collection.declaration)?;
    let sources = args.files.iter().chain(&args.keys).map(|path| {
        Source::of(path)
            .map_err(|cause| TransferError::failed(format!("{}: {cause}", path.display())))
    });
    let job = Job {
        collection: collection.declaration.name.clone(),
        uuid: collection.uuid.clone(),
        options: args.options(),
        sources: sources.collect::<Result<_>>()?,
    };
    let checkpoint = Checkpoint::open(args.state_path(), job)?;
    let before = checkpoint.standing.acknowledged - checkpoint.standing.refused.len() as u64;
    if checkpoint.standing.is_finished {
        eprintln!(
            "all rows were imported before, as {} says; without that file they are imported again",
            checkpoint.path().display()
        );
        let collection = collection.declaration.name;
        let (rows, written, skipped, seconds) = (total, 0, 0, 0.0);
        return Ok(ImportReport { collection, rows, written, before, skipped, seconds });
    }
    for part in &parts {
        let schema = part.reader.schema();
        let (path, rows) = (part.reader.path().display(), grouped(part.reader.rows()));
        eprintln!("{path}: {rows} rows; {}", part.columns.describe(schema));
    }
    let mut run = Run::new(args, checkpoint, total)?;
    let produced = run.produce(args, parts, &collection.declaration)?;
    let ended = run.follow(produced, interrupt.as_mut()).await;
    run.progress.finish();
    run.end(ended, before)
}

fn open(args: &ImportArgs) -> Result<Vec<Reader>> {
    let (keys, files) = (args.keys.len(), args.files.len());
    if keys > 0 && keys != files {
        let words = format!("{keys} files of keys (--keys) for {files} files of rows");
        return Err(TransferError::not_as_asked(words));
    }
    let open = |(at, path): (usize, &PathBuf)| {
        Reader::open(path, args.format, &args.wanted(at)).map_err(TransferError::not_as_asked)
    };
    args.files.iter().enumerate().map(open).collect()
}

/// Words about a file.
fn of_file(reader: &Reader) -> impl Fn(String) -> TransferError + use<> {
    let path = reader.path().to_owned();
    move |words| TransferError::not_as_asked(format!("{}: {words}", path.display()))
}

/// The collection that is there, or a new one.
async fn collection(
    args: &ImportArgs,
    client: &mut Client,
    readers: &[Reader],
) -> Result<Described> {
    if let Some(there) = client.describe(&args.collection).await? {
        if there.follows_repository {
            return Err(TransferError::not_as_asked(format!(
                "collection {:?} follows a repository, whose process alone writes it",
                args.collection
            )));
        }
        return Ok(there);
    }
    if args.no_create {
        let words = format!("there is no collection {:?}", args.collection);
        return Err(TransferError::not_as_asked(words));
    }
    // A file without rows may not know its types.
    let first = readers.iter().find(|reader| reader.rows() > 0).unwrap_or(&readers[0]);
    let of_file = of_file(first);
    let schema = first.schema();
    let embedded = embedded(schema).map_err(&of_file)?;
    let columns = Columns::choose(schema, &args.column_flags(), embedded.as_ref());
    let columns = columns.map_err(&of_file)?;
    let mut flags = args.index_flags();
    if first.format() == Format::Hdf5 && flags.metric.is_none() {
        let distance = files::distance(first.path()).map_err(|fault| of_file(fault.to_string()))?;
        flags.metric = distance.as_deref().and_then(files::metric_of);
    }
    let declaration = declare(&args.collection, schema, &columns, &flags, embedded, |taken| {
        dimension(args, first, taken)
    });
    let declaration = declaration.map_err(&of_file)?;
    let created = client.create_declared(&declaration).await;
    let created = created.map_err(|cause| {
        TransferError::not_as_asked(format!(
            "collection {:?} cannot be created: {cause}",
            args.collection
        ))
    })?;
    eprintln!("created collection {:?}: {}", args.collection, described(&created.declaration));
    Ok(created)
}

fn described(declaration: &Declaration) -> String {
    let columns = declaration.vectors.iter().map(|column| {
        format!(
            "{:?} {}[{}] {}",
            column.name,
            column.element.name(),
            column.dimension,
            column.metric.name()
        )
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// Elements, or bytes, of the first vector of a column whose type does not tell.
fn dimension(
    args: &ImportArgs,
    reader: &Reader,
    taken: &Taken,
) -> std::result::Result<u32, String> {
    let words = |cause: FileError| cause.fault.to_string();
    let file = args.files.iter().position(|path| path == reader.path()).unwrap_or(0);
    let mut look = Reader::open(reader.path(), args.format, &args.wanted(file)).map_err(words)?;
    look.select(&[taken.at]).map_err(words)?;
    while look.at() < LOOK_ROWS
        && let Some(block) = look.read(LOOK_BLOCK_ROWS).map_err(words)?
    {
        if let Some(length) = files::first_length(&block.columns[0]) {
            return u32::try_from(length).map_err(|cause| cause.to_string());
        }
    }
    let name = reader.schema().field(taken.at).name();
    Err(format!("column {name:?} has no vector in its first {} rows", look.at()))
}

/// Each file with what is taken of it, if all of it fits into the collection.
fn parts(args: &ImportArgs, readers: Vec<Reader>, there: &Declaration) -> Result<Vec<Part>> {
    let (mut parts, mut first) = (Vec::new(), 0u64);
    for reader in readers {
        let of_file = of_file(&reader);
        let schema = reader.schema();
        let columns = Columns::choose(schema, &args.column_flags(), Some(there));
        let columns = columns.map_err(&of_file)?;
        let differences = differences(schema, &columns, &args.index_flags(), there);
        if !differences.is_empty() {
            return Err(of_file(format!(
                "it does not fit into collection {:?}:\n  {}",
                there.name,
                differences.join("\n  ")
            )));
        }
        let rows = reader.rows();
        parts.push(Part { reader, columns, first });
        first = first.saturating_add(rows);
    }
    Ok(parts)
}

/// An import under way.
struct Run {
    checkpoint: Checkpoint,
    sender: Sender<PreparedWrite>,
    progress: Progress,
    collection: String,
    total: u64,
    /// Files with the numbers of their first rows.
    files: Vec<(PathBuf, u64)>,
    skip_bad: bool,
    /// Rows up to here may have been sent by an earlier run, from the second number on.
    sent_before: (u64, u64),
    written: u64,
    /// Rows of earlier runs that were not known to be written, and are.
    there_already: u64,
    skipped: u64,
    refused: BTreeMap<u64, Fault>,
    report: Option<std::io::BufWriter<std::fs::File>>,
}

impl Run {
    fn new(args: &ImportArgs, checkpoint: Checkpoint, total: u64) -> Result<Run> {
        let standing = &checkpoint.standing;
        let report = args.bad_rows.as_ref().map(|path| {
            let file = std::fs::File::create(path).map(std::io::BufWriter::new);
            file.map_err(|cause| {
                TransferError::not_as_asked(format!("{}: {cause}", path.display()))
            })
        });
        Ok(Run {
            sender: Sender::new(
                &args.server,
                Duration::from_secs(args.patience),
                args.mode == Mode::Upsert,
            ),
            progress: Progress::new("imported", "rows", total, standing.acknowledged),
            collection: args.collection.clone(),
            total,
            files: Vec::new(),
            skip_bad: args.skip_bad,
            sent_before: (standing.acknowledged, standing.sent),
            written: 0,
            there_already: 0,
            skipped: 0,
            refused: BTreeMap::new(),
            report: report.transpose()?,
            checkpoint,
        })
    }

    /// Starts the thread that reads and converts.
    fn produce(
        &mut self,
        args: &ImportArgs,
        parts: Vec<Part>,
        there: &Declaration,
    ) -> Result<mpsc::Receiver<Produced>> {
        self.files = parts.iter().map(|part| (part.reader.path().to_owned(), part.first)).collect();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let standing = &self.checkpoint.standing;
        let producer = Producer {
            collection: there.clone(),
            operation: match args.mode {
                Mode::Insert => Operation::Insert,
                Mode::Upsert => Operation::Upsert,
            },
            batch_rows: args.batch_rows.map(|rows| rows as usize),
            skip_bad: args.skip_bad,
            acknowledged: standing.acknowledged,
            again: standing.refused.iter().copied().collect(),
            sender,
        };
        std::thread::Builder::new()
            .name("import".into())
            .spawn(move || producer.run(parts))
            .map_err(|cause| TransferError::failed(format!("no thread can be started: {cause}")))?;
        Ok(receiver)
    }

    /// Keeps batches under way until all are written, a row cannot be taken, or a signal comes.
    async fn follow(
        &mut self,
        mut produced: mpsc::Receiver<Produced>,
        mut interrupt: std::pin::Pin<&mut impl Future<Output = &'static str>>,
    ) -> Result<()> {
        let mut ended: Option<Result<()>> = None;
        let mut tick = tokio::time::interval(TICK);
        loop {
            if ended.is_some() && self.sender.is_idle() {
                return ended.unwrap_or(Ok(()));
            }
            let takes_more = ended.is_none() && self.refused.is_empty() && self.sender.has_room();
            if ended.is_none() && !self.refused.is_empty() && self.sender.is_idle() {
                return Ok(());
            }
            tokio::select! {
                signal = interrupt.as_mut() => return self.stop(signal).await,
                written = self.sender.next(), if !self.sender.is_idle() => {
                    self.note(written?)?;
                }
                next = produced.recv(), if takes_more => match next {
                    Some(Produced::Batch(batch)) => {
                        self.checkpoint.promise(batch.end)?;
                        self.sender.push(batch);
                    }
                    Some(Produced::Bad(row)) => {
                        if self.skip_bad {
                            self.skip(&row)?;
                        } else {
                            self.refused.insert(row.number, row.fault);
                            ended = Some(Ok(()));
                        }
                    }
                    Some(Produced::Ended(how)) => ended = Some(how),
                    None => {
                        let words = "the thread that reads has ended without a word";
                        ended = Some(Err(TransferError::failed(words)));
                    }
                },
                _ = tick.tick() => self.progress.set(self.checkpoint.standing.acknowledged),
            }
        }
    }

    /// Takes note of a batch that was written.
    fn note(&mut self, written: Written<PreparedWrite>) -> Result<()> {
        let Written { batch, is_resent, failures } = written;
        let mut failed = BTreeSet::new();
        for failure in failures {
            let Some(number) = batch.rows.get(failure.row).copied() else { continue };
            failed.insert(number);
            let (from, to) = self.sent_before;
            let may_be_ours = is_resent || (from..to).contains(&number);
            if failure.is_duplicate && may_be_ours {
                self.there_already += 1;
                continue;
            }
            let fault = Fault::new(format!("key {}: {}", failure.key, failure.why));
            match self.skip_bad {
                true => self.skip(&BadRow { number, fault })?,
                false => {
                    self.refused.insert(number, fault);
                }
            }
        }
        self.written += (batch.rows.len() - failed.len()) as u64;
        let again = &mut self.checkpoint.standing.refused;
        if !again.is_empty() {
            again.retain(|row| batch.rows.binary_search(row).is_err());
        }
        self.checkpoint.acknowledge(batch.end)
    }

    /// Passes over a bad row, and tells it.
    fn skip(&mut self, row: &BadRow) -> Result<()> {
        self.skipped += 1;
        let (path, at) = self.place(row.number);
        if self.skipped <= SHOWN {
            let fault = row.fault.clone().at(at);
            self.progress.say(&FileError { path: path.to_owned(), fault }.to_string());
        }
        if self.skipped == SHOWN {
            self.progress.say("further bad rows are counted only; --bad-rows FILE has them all");
        }
        let line = serde_json::json!({
            "file": path,
            "row": at,
            "column": row.fault.column,
            "why": row.fault.why,
        });
        if let Some(report) = &mut self.report {
            let written = writeln!(report, "{line}");
            written.map_err(|cause| TransferError::failed(format!("--bad-rows: {cause}")))?;
        }
        Ok(())
    }

    /// The file of a row, and the row's number in it.
    fn place(&self, number: u64) -> (&Path, u64) {
        let after = self.files.partition_point(|(_, first)| *first <= number);
        let (path, first) = &self.files[after.saturating_sub(1)];
        (path, number - first)
    }

    /// Waits a while for what is under way.
    async fn stop(&mut self, signal: &'static str) -> Result<()> {
        let settle = async {
            while !self.sender.is_idle() {
                let written = self.sender.next().await?;
                self.note(written)?;
            }
            Ok::<(), TransferError>(())
        };
        // What is not acknowledged by then is sent again by the next run.
        let _ = tokio::time::timeout(STOP_TIMEOUT, settle).await;
        Err(TransferError {
            words: format!("stopped by {signal}"),
            kind: ErrorKind::Stopped(signal),
        })
    }

    /// Writes the state of the import for the last time and says what came of it.
    fn end(mut self, ended: Result<()>, before: u64) -> Result<ImportReport> {
        if let Some(mut report) = self.report.take() {
            let flushed = report.flush();
            flushed.map_err(|cause| TransferError::failed(format!("--bad-rows: {cause}")))?;
        }
        let first_refused = self.refused.pop_first();
        let standing = &mut self.checkpoint.standing;
        let of_rows: Vec<u64> = first_refused
            .iter()
            .map(|(number, _)| *number)
            .chain(self.refused.keys().copied())
            .collect();
        // A row that could not be read is the end of what was dealt with; the others are behind it.
        let behind = of_rows.into_iter().filter(|number| *number < standing.acknowledged);
        standing.refused.extend(behind);
        standing.refused.sort_unstable();
        standing.refused.dedup();
        if ended.is_ok() && first_refused.is_none() {
            standing.acknowledged = self.total;
            standing.refused.clear();
            standing.is_finished = true;
        }
        let saved = match self.sender.is_idle() {
            true => self.checkpoint.settle(),
            false => self.checkpoint.save(),
        };
        let error = match (ended, first_refused) {
            (Err(error), _) => error,
            (Ok(()), Some((number, fault))) => {
                let (path, at) = self.place(number);
                let others = self.refused.len();
                let fault = FileError { path: path.to_owned(), fault: fault.at(at) };
                let mut words = fault.to_string();
                if others > 0 {
                    words += &format!(" (and {others} more rows of those under way)");
                }
                TransferError::failed(words).and(
                    "--skip-bad passes over such rows; --mode upsert replaces rows whose key exists",
                )
            }
            (Ok(()), None) => {
                saved?;
                return Ok(ImportReport {
                    collection: self.collection,
                    rows: self.total,
                    written: self.written,
                    before: before + self.there_already,
                    skipped: self.skipped,
                    seconds: self.progress.seconds(),
                });
            }
        };
        let error = error.and(format!(
            "{} of {} rows are done; the same command goes on from there (its state is in {})",
            grouped(self.checkpoint.standing.acknowledged),
            grouped(self.total),
            self.checkpoint.path().display()
        ));
        match saved {
            Ok(()) => Err(error),
            Err(cause) => Err(error.and(cause)),
        }
    }
}
