//! Arrow IPC, files and streams; Feather version 2 is the same. A stream is messages one after the other,
//! and the footer of a file says where they are. Either is read message by message, one record batch in
//! memory at a time.
//! <https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc>

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::{RecordBatchDecoder, read_dictionary, read_footer_length};
use arrow_ipc::{Endianness, Message, MessageHeader, MetadataVersion};
use arrow_schema::{Schema, SchemaRef};

use super::layout::{block_of, check_memory};
use super::{Block, Fault, Read, Table};

/// A file begins and ends with this; a stream does neither.
const MAGIC: &[u8; 6] = b"ARROW1";
/// Length of the footer, and the mark.
const TRAILER_BYTES: u64 = 10;
/// Comes before the length of a message, except in streams of old writers.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Longest description of a message.
const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Bytes that one compressed byte can at most stand for: a block of zstd is 128 KiB, and takes 4 bytes.
const EXPANSION_MAX: u64 = 32_768;

/// Where a message lies.
struct Place {
    metadata_start: u64,
    metadata_bytes: u64,
    body_bytes: u64,
    /// Of a record batch; none of a dictionary.
    rows: Option<u64>,
}

/// A file or a stream.
pub(super) struct IpcTable {
    file: BufReader<File>,
    schema: SchemaRef,
    version: MetadataVersion,
    /// Record batches and dictionaries in order.
    messages: std::vec::IntoIter<Place>,
    dictionaries: HashMap<i64, ArrayRef>,
    selected: Vec<usize>,
    rows: u64,
    /// The batch that is being read, and how many of its rows were.
    batch: Option<(RecordBatch, usize)>,
}

impl IpcTable {
    pub fn open(path: &Path) -> Read<IpcTable> {
        let mut file = BufReader::new(File::open(path).map_err(Fault::new)?);
        let bytes = file.get_ref().metadata().map_err(Fault::new)?.len();
        let mut start = [0; 6];
        if bytes >= MAGIC.len() as u64 {
            file.read_exact(&mut start).map_err(Fault::new)?;
        }
        let is_file = start == *MAGIC;
        if start.starts_with(b"FEA1") {
            return Err(Fault::new(
                "Feather version 1, which is not read; pandas and pyarrow write version 2",
            ));
        }
        let found = if is_file {
            Found::of_file(&mut file, bytes)
        } else {
            Found::of_stream(&mut file, bytes)
        };
        let Found { schema, version, places } = found?;
        let rows =
            places.iter().try_fold(0u64, |all, place| all.checked_add(place.rows.unwrap_or(0)));
        let rows = rows.ok_or_else(|| Fault::new("more rows than can be counted"))?;
        let selected = (0..schema.fields().len()).collect();
        Ok(IpcTable {
            file,
            schema: Arc::new(schema),
            version,
            messages: places.into_iter(),
            dictionaries: HashMap::new(),
            selected,
            rows,
            batch: None,
        })
    }

    /// Reads messages up to the next record batch, which is passed over if it has so few rows.
    fn next_batch(&mut self, pass: u64) -> Read<Option<Next>> {
        for place in self.messages.by_ref() {
            if let Some(rows) = place.rows
                && rows <= pass
            {
                return Ok(Some(Next::Passed(rows)));
            }
            let (metadata, body) = read_message(&mut self.file, &place)?;
            let message = parse(&metadata)?;
            if let Some(dictionary) = message.header_as_dictionary_batch() {
                let data = dictionary.data().ok_or_else(|| Fault::new("an empty dictionary"))?;
                check_body(&data, &body)?;
                read_dictionary(
                    &body,
                    dictionary,
                    &self.schema,
                    &mut self.dictionaries,
                    &self.version,
                )
                .map_err(Fault::new)?;
                continue;
            }
            let Some(batch) = message.header_as_record_batch() else { continue };
            check_body(&batch, &body)?;
            let decoder = RecordBatchDecoder::try_new(
                &body,
                batch,
                self.schema.clone(),
                &self.dictionaries,
                &self.version,
            );
            let batch = decoder
                .and_then(|decoder| {
                    decoder.with_projection(Some(&self.selected)).read_record_batch()
                })
                .map_err(Fault::new)?;
            if Some(batch.num_rows() as u64) != place.rows {
                return Err(Fault::new("it changed while it was read"));
            }
            return Ok(Some(Next::Batch(batch)));
        }
        Ok(None)
    }
}

enum Next {
    Batch(RecordBatch),
    Passed(u64),
}

impl Table for IpcTable {
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
        loop {
            if let Some((batch, done)) = &mut self.batch
                && let Some(block) = block_of(batch, done, rows_max)
            {
                return Ok(Some(block));
            }
            // The old batch goes before the new one is read.
            self.batch = None;
            match self.next_batch(0)? {
                Some(Next::Batch(batch)) => self.batch = Some((batch, 0)),
                Some(Next::Passed(_)) => {}
                None => return Ok(None),
            }
        }
    }

    fn skip(&mut self, mut rows: u64) -> Read<()> {
        while rows > 0 {
            if let Some((batch, done)) = &mut self.batch {
                let passed = rows.min((batch.num_rows() - *done) as u64);
                *done += passed as usize;
                rows -= passed;
                if rows == 0 {
                    break;
                }
            }
            self.batch = None;
            match self.next_batch(rows)? {
                Some(Next::Batch(batch)) => self.batch = Some((batch, 0)),
                Some(Next::Passed(passed)) => rows -= passed,
                None => return Err(Fault::new("cut short")),
            }
        }
        Ok(())
    }
}

/// What there is to read.
struct Found {
    schema: Schema,
    version: MetadataVersion,
    places: Vec<Place>,
}

fn schema_of(schema: arrow_ipc::Schema<'_>) -> Read<Schema> {
    if schema.endianness() != Endianness::Little {
        return Err(Fault::new("big-endian, which is not read"));
    }
    arrow_ipc::convert::try_fb_to_schema(schema).map_err(Fault::new)
}

impl Found {
    /// What the footer says.
    fn of_file(file: &mut BufReader<File>, bytes: u64) -> Read<Found> {
        let cut = || Fault::new("cut short: it does not end as Arrow files do");
        let end = bytes.checked_sub(TRAILER_BYTES).ok_or_else(cut)?;
        let mut trailer = [0; TRAILER_BYTES as usize];
        file.seek(SeekFrom::Start(end)).map_err(Fault::new)?;
        file.read_exact(&mut trailer).map_err(Fault::new)?;
        let length = read_footer_length(trailer).map_err(|_| cut())?;
        let start = end.checked_sub(length as u64).ok_or_else(cut)?;
        let mut footer = vec![0; length];
        file.seek(SeekFrom::Start(start)).map_err(Fault::new)?;
        file.read_exact(&mut footer).map_err(Fault::new)?;
        let footer = arrow_ipc::root_as_footer(&footer)
            .map_err(|cause| Fault::new(format!("no footer of Arrow: {cause}")))?;
        let schema = footer.schema().ok_or_else(|| Fault::new("its footer has no schema"))?;
        let mut places = Vec::new();
        let dictionaries = footer.dictionaries().into_iter().flatten();
        for block in dictionaries.chain(footer.recordBatches().into_iter().flatten()) {
            let at = u64::try_from(block.offset()).ok().filter(|at| *at < bytes);
            let message = at.map(|at| Messages { at, bytes }.next(file)).transpose()?.flatten();
            let (place, _) = message.ok_or_else(|| {
                Fault::new(format!("no message at byte {}, as its footer says", block.offset()))
            })?;
            places.push(place);
        }
        Ok(Found { schema: schema_of(schema)?, version: footer.version(), places })
    }

    /// What comes one after the other.
    fn of_stream(file: &mut BufReader<File>, bytes: u64) -> Read<Found> {
        let mut messages = Messages { at: 0, bytes };
        let Some((first, metadata)) = messages.next(file)? else {
            return Err(Fault::new("it does not begin as Arrow files or streams do"));
        };
        let message = parse(&metadata)?;
        let Some(schema) = message.header_as_schema().filter(|_| first.body_bytes == 0) else {
            return Err(Fault::new("it does not begin with a schema, as Arrow streams do"));
        };
        let (schema, version) = (schema_of(schema)?, message.version());
        let mut places = Vec::new();
        while let Some((place, _)) = messages.next(file)? {
            places.push(place);
        }
        Ok(Found { schema, version, places })
    }
}

/// The messages of a stream, found without reading their bodies.
struct Messages {
    at: u64,
    bytes: u64,
}

impl Messages {
    /// The next message and its description; `None` at the end.
    fn next(&mut self, file: &mut BufReader<File>) -> Read<Option<(Place, Vec<u8>)>> {
        loop {
            let start = self.at;
            let cut = |_| Fault::new(format!("the message at byte {start} is cut short"));
            if start == self.bytes {
                return Ok(None);
            }
            file.seek(SeekFrom::Start(start)).map_err(Fault::new)?;
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(cut)?;
            let mut metadata_start = start + 4;
            if length == CONTINUATION {
                file.read_exact(&mut length).map_err(cut)?;
                metadata_start += 4;
            }
            let length = i32::from_le_bytes(length);
            if length == 0 {
                return Ok(None);
            }
            let metadata_bytes = u64::try_from(length).ok();
            let fits = |bytes: &u64| {
                *bytes <= METADATA_BYTES_MAX && *bytes <= self.bytes.saturating_sub(metadata_start)
            };
            let Some(metadata_bytes) = metadata_bytes.filter(fits) else {
                return Err(Fault::new(match start {
                    0 => "it does not begin as Arrow files or streams do".to_owned(),
                    _ => format!(
                        "the message at byte {start} has a description of {length} bytes, which is \
                         not there"
                    ),
                }));
            };
            let mut metadata = vec![0; metadata_bytes as usize];
            file.read_exact(&mut metadata).map_err(cut)?;
            let message = parse(&metadata)?;
            let body_start = metadata_start + metadata_bytes;
            let body_bytes = u64::try_from(message.bodyLength()).ok();
            let Some(body_bytes) = body_bytes.filter(|bytes| *bytes <= self.bytes - body_start)
            else {
                return Err(Fault::new(format!(
                    "the message at byte {start} has a body of {} bytes, and {} are there",
                    message.bodyLength(),
                    self.bytes - body_start
                )));
            };
            self.at = body_start + body_bytes;
            let rows = match message.header_type() {
                MessageHeader::Schema | MessageHeader::DictionaryBatch => None,
                MessageHeader::RecordBatch => {
                    let rows = message.header_as_record_batch().map(|batch| batch.length());
                    let rows = rows.and_then(|rows| u64::try_from(rows).ok());
                    Some(rows.ok_or_else(|| {
                        Fault::new(format!("the batch at byte {start} has no number of rows"))
                    })?)
                }
                _ => continue,
            };
            let place = Place { metadata_start, metadata_bytes, body_bytes, rows };
            return Ok(Some((place, metadata)));
        }
    }
}

fn parse(metadata: &[u8]) -> Read<Message<'_>> {
    arrow_ipc::root_as_message(metadata)
        .map_err(|cause| Fault::new(format!("no message of Arrow: {cause}")))
}

/// Description and body of a message, which are as long as is known.
fn read_message(file: &mut BufReader<File>, place: &Place) -> Read<(Vec<u8>, Buffer)> {
    check_memory("a record batch", place.body_bytes)?;
    file.seek(SeekFrom::Start(place.metadata_start)).map_err(Fault::new)?;
    let mut metadata = vec![0; place.metadata_bytes as usize];
    file.read_exact(&mut metadata).map_err(Fault::new)?;
    let mut body =
        MutableBuffer::try_from_len_zeroed(place.body_bytes as usize).map_err(Fault::new)?;
    file.read_exact(body.as_slice_mut()).map_err(Fault::new)?;
    Ok((metadata, body.into()))
}

/// Checks that buffers lie within their body, and what decompressing them will take.
fn check_body(batch: &arrow_ipc::RecordBatch<'_>, body: &Buffer) -> Read<()> {
    let mut decompressed = 0u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let range =
            usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(start, length)| body.get(start..start.checked_add(length)?));
        let Some(bytes) = bytes else {
            return Err(Fault::new(format!(
                "a buffer of {} bytes at byte {} of a body of {}",
                buffer.length(),
                buffer.offset(),
                body.len()
            )));
        };
        let Some(length) = bytes.first_chunk().filter(|_| batch.compression().is_some()) else {
            continue;
        };
        // -1 says that the rest is not compressed.
        let length = u64::try_from(i64::from_le_bytes(*length)).unwrap_or(0);
        if length > (bytes.len() as u64).saturating_mul(EXPANSION_MAX) {
            return Err(Fault::new(format!(
                "{} compressed bytes that claim to be {length}",
                bytes.len()
            )));
        }
        decompressed = decompressed.saturating_add(length);
    }
    check_memory("a record batch", decompressed)
}
