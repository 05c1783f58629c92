//! `.npz`: what `numpy.savez` writes, a zip archive with one `.npy` file for each column, stored or
//! deflated. All columns are read side by side, each through a handle of its own.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::layout::{Candidate, one_table, rows_of_block};
use super::npy::{Bytes, NpyColumn, field};
use super::{Block, Fault, Read, Table};

/// Most arrays of a file.
const ARRAYS_MAX: usize = 4_096;

/// Where an array lies in the archive.
struct Place {
    name: String,
    start: u64,
    compressed: u64,
    bytes: u64,
    checksum: u32,
    is_deflated: bool,
}

/// The arrays of a file, of one length.
pub(super) struct NpzTable {
    path: PathBuf,
    schema: SchemaRef,
    places: Vec<Place>,
    rows: u64,
    at: u64,
    /// Those selected, opened when the first row is read.
    columns: Vec<(String, NpyColumn)>,
    selected: Vec<usize>,
}

impl NpzTable {
    pub fn open(path: &Path, wanted: &[String]) -> Read<NpzTable> {
        let mut places = places(path)?;
        let columns: Vec<Read<NpyColumn>> =
            places.iter().map(|place| column(path, place)).collect();
        let candidates: Vec<(usize, Candidate<'_>)> = (places.iter().zip(&columns).enumerate())
            .filter_map(|(at, (place, column))| {
                let column = column.as_ref().ok()?;
                let is_matrix = column.is_matrix();
                Some((at, Candidate { name: &place.name, rows: column.rows, is_matrix }))
            })
            .collect();
        if candidates.is_empty() {
            let faults = places.iter().zip(&columns).filter_map(|(place, column)| {
                Some(Fault::of_column(&place.name, column.as_ref().err()?).to_string())
            });
            let faults: Vec<String> = faults.collect();
            return Err(Fault::new(match faults.is_empty() {
                true => "no arrays in it".to_owned(),
                false => faults.join("; "),
            }));
        }
        let (numbers, candidates): (Vec<usize>, Vec<_>) = candidates.into_iter().unzip();
        let chosen: Vec<usize> =
            one_table(&candidates, wanted)?.into_iter().map(|at| numbers[at]).collect();
        let rows = columns[chosen[0]].as_ref().map_or(0, |column| column.rows);
        // What cannot be read is shown, and refused where it is wanted.
        let kept: Vec<usize> =
            (0..places.len()).filter(|at| chosen.contains(at) || columns[*at].is_err()).collect();
        let fields: Vec<_> =
            kept.iter().map(|at| field(&places[*at].name, &columns[*at])).collect();
        let mut number = 0;
        places.retain(|_| {
            number += 1;
            kept.contains(&(number - 1))
        });
        let selected = (0..places.len()).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(NpzTable { path: path.into(), schema, places, rows, at: 0, columns: vec![], selected })
    }

    fn open_columns(&mut self) -> Read<()> {
        if self.columns.is_empty() {
            for at in &self.selected {
                let place = &self.places[*at];
                let column = column(&self.path, place)
                    .map_err(|fault| Fault::of_column(&place.name, fault))?;
                self.columns.push((place.name.clone(), column));
            }
        }
        Ok(())
    }
}

fn places(path: &Path) -> Read<Vec<Place>> {
    let file = BufReader::new(File::open(path).map_err(Fault::new)?);
    let bytes = file.get_ref().metadata().map_err(Fault::new)?.len();
    let mut archive = ZipArchive::new(file).map_err(Fault::new)?;
    if archive.len() > ARRAYS_MAX {
        return Err(Fault::new(format!("{} arrays, and {ARRAYS_MAX} are allowed", archive.len())));
    }
    let mut places: Vec<Place> = Vec::new();
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(Fault::new)?;
        let full = entry.name().map_err(Fault::new)?.into_owned();
        let Some(name) = full.strip_suffix(".npy") else {
            return Err(Fault::new(format!("it holds {full:?}, which is no .npy file")));
        };
        let is_deflated = match entry.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => {
                let why = format!("compressed by {other}, and stored or deflated is read");
                return Err(Fault::of_column(name, why));
            }
        };
        if entry.encrypted() {
            return Err(Fault::of_column(name, "it is encrypted"));
        }
        let (start, compressed) = (entry.data_start().unwrap_or(u64::MAX), entry.compressed_size());
        if start.checked_add(compressed).is_none_or(|end| end > bytes) {
            return Err(Fault::of_column(name, "it is cut short"));
        }
        if places.iter().any(|place| place.name == name) {
            return Err(Fault::of_column(name, "it is there twice"));
        }
        places.push(Place {
            name: name.to_owned(),
            start,
            compressed,
            bytes: entry.size(),
            checksum: entry.crc32(),
            is_deflated,
        });
    }
    Ok(places)
}

fn column(path: &Path, place: &Place) -> Read<NpyColumn> {
    let mut file = File::open(path).map_err(Fault::new)?;
    file.seek(SeekFrom::Start(place.start)).map_err(Fault::new)?;
    let stored = BufReader::with_capacity(1 << 18, file.take(place.compressed));
    let bytes: Box<dyn io::Read + Send> = match place.is_deflated {
        true => Box::new(BufReader::with_capacity(1 << 18, DeflateDecoder::new(stored))),
        false => Box::new(stored),
    };
    let entry = Entry { bytes, left: place.bytes, checksum: Crc::new(), expected: place.checksum };
    NpyColumn::open(Box::new(entry), place.bytes)
}

/// A file in the archive, whose checksum is compared at its end.
struct Entry {
    bytes: Box<dyn io::Read + Send>,
    left: u64,
    checksum: Crc,
    expected: u32,
}

impl io::Read for Entry {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.bytes.read(&mut buffer[..wanted])?;
        self.checksum.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 && read > 0 && self.checksum.sum() != self.expected {
            return Err(io::Error::other("its bytes do not have the checksum of the archive"));
        }
        Ok(read)
    }
}

impl Bytes for Entry {
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if passed < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Table for NpzTable {
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
        self.open_columns()?;
        let row_bytes = self.columns.iter().map(|(_, column)| column.row_bytes()).sum();
        let rows = rows_of_block(rows_max, row_bytes, self.rows - self.at);
        let mut block = Block { rows, columns: Vec::new(), faults: Vec::new() };
        for (name, column) in &mut self.columns {
            let (array, faults) = column.read(name, rows)?;
            block.columns.push(array);
            block.faults.extend(faults);
        }
        self.at += rows as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, rows: u64) -> Read<()> {
        self.open_columns()?;
        self.at += rows;
        self.columns.iter_mut().try_for_each(|(_, column)| column.skip(rows))
    }
}
