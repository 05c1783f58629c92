//! From blocks of a file to batches of rows: keys, vectors in the form of their columns, forward values,
//! and which rows cannot be taken, with the reason.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, BooleanArray};
use arrow_select::filter::filter;
use bytes::Bytes;

use super::columns::{Columns, Key, is_export, is_multi};
use crate::files::{self, Block, Fault};
use crate::schema::Value;
use crate::server::client::{
    Declaration, ForwardBatch, ForwardInfo, RowBatch, VectorBatch, VectorInfo,
};

/// Where the columns of blocks go.
pub(super) struct Intake {
    /// The place of the key among a block's columns; none where keys are row numbers.
    has_key: bool,
    first_key: u64,
    /// What follows the key, in order; with the names in the file.
    vectors: Vec<(String, VectorInfo)>,
    forwards: Vec<(String, ForwardInfo)>,
    key_name: String,
    /// True where a row without any vector is a row: in columns that take several, and in what was exported.
    may_lack: bool,
}

/// Rows of a block that can be taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// Their places in the block.
    pub places: Vec<usize>,
    pub batch: RowBatch,
}

impl Taken {
    /// The same rows, so that all rows of a part have vectors in the same columns: a request has them
    /// in all of its columns. Rows without any vector name a column in which they have none.
    pub fn parts(self) -> Vec<Taken> {
        if self.batch.vectors.iter().all(|column| !column.counts.contains(&0)) {
            return vec![self];
        }
        let rows = self.places.len();
        let vectors = &self.batch.vectors;
        let has = |column: &VectorBatch, row: usize| column.counts.get(row) != Some(&0);
        let like =
            |a: usize, b: usize| vectors.iter().all(|column| has(column, a) == has(column, b));
        let mut starts: Vec<usize> =
            (0..rows).filter(|at| *at == 0 || !like(at - 1, *at)).collect();
        starts.push(rows);
        let mut done = vec![0; vectors.len()];
        let mut parts = Vec::new();
        for ends in starts.windows(2) {
            let (start, end) = (ends[0], ends[1]);
            let mut own = Vec::new();
            for (column, done) in vectors.iter().zip(&mut done) {
                if !has(column, start) {
                    continue;
                }
                let each = column.element.vector_bytes(column.dimension).unwrap_or(0);
                let counts = column.counts.get(start..end).unwrap_or_default().to_vec();
                let vectors: usize = match counts.is_empty() {
                    true => end - start,
                    false => counts.iter().map(|count| *count as usize).sum(),
                };
                let bytes = column.bytes.slice(*done..*done + vectors * each);
                *done += bytes.len();
                own.push(VectorBatch {
                    name: column.name.clone(),
                    element: column.element,
                    dimension: column.dimension,
                    bytes,
                    counts: if counts.iter().all(|count| *count == 1) { vec![] } else { counts },
                });
            }
            if own.is_empty()
                && let Some(column) = vectors.first()
            {
                own.push(VectorBatch {
                    name: column.name.clone(),
                    element: column.element,
                    dimension: column.dimension,
                    bytes: Bytes::new(),
                    counts: vec![0; end - start],
                });
            }
            let forward = |column: &ForwardBatch| ForwardBatch {
                name: column.name.clone(),
                values: column.values[start..end].to_vec(),
            };
            let batch = RowBatch {
                keys: self.batch.keys[start..end].to_vec(),
                vectors: own,
                forwards: self.batch.forwards.iter().map(forward).collect(),
            };
            parts.push(Taken { places: self.places[start..end].to_vec(), batch });
        }
        parts
    }
}

impl Intake {
    /// `columns` are those of a file that fits into the collection.
    pub fn new(
        schema: &arrow_schema::Schema,
        columns: &Columns,
        collection: &Declaration,
    ) -> Result<Intake, String> {
        let name = |at: usize| schema.field(at).name().clone();
        let (has_key, first_key, key_name) = match columns.key {
            Key::Column(at) => (true, 0, name(at)),
            Key::Rows(first) => (false, first, String::new()),
        };
        let gone = |name: &str| format!("the collection has no column {name:?} any more");
        let vectors = columns.vectors.iter().map(|taken| {
            let mut known = collection.vectors.iter().filter(|column| column.name == taken.name);
            let known = known.next().ok_or_else(|| gone(&taken.name))?;
            Ok((name(taken.at), known.clone()))
        });
        let forwards = columns.forwards.iter().map(|taken| {
            let mut known = collection.forwards.iter().filter(|column| column.name == taken.name);
            let known = known.next().ok_or_else(|| gone(&taken.name))?;
            Ok((name(taken.at), known.clone()))
        });
        let vectors = vectors.collect::<Result<Vec<(String, VectorInfo)>, String>>()?;
        let may_lack = is_export(schema) || vectors.iter().any(|(_, column)| is_multi(column));
        Ok(Intake {
            has_key,
            first_key,
            may_lack,
            vectors,
            forwards: forwards.collect::<Result<_, String>>()?,
            key_name,
        })
    }

    /// Bytes of the vectors of a row.
    pub fn vector_bytes(&self) -> usize {
        let bytes = self
            .vectors
            .iter()
            .map(|(_, column)| column.element.vector_bytes(column.dimension).unwrap_or(0));
        bytes.sum()
    }

    /// The rows of a block that are wanted and can be taken, and by place why others cannot. `first` is
    /// the number of the block's first row through all files. Where bad rows are not passed over, only
    /// the rows before the first of them are taken. Fails where the whole block cannot be read.
    pub fn take(
        &self,
        block: &Block,
        first: u64,
        is_wanted: impl Fn(usize) -> bool,
        skip_bad: bool,
    ) -> Result<(Taken, BTreeMap<usize, Fault>), Fault> {
        let mut faults: BTreeMap<usize, Fault> = BTreeMap::new();
        for (place, fault) in block.faults.iter().filter(|(place, _)| is_wanted(*place)) {
            faults.entry(*place).or_insert_with(|| fault.clone());
        }
        let all: Vec<usize> = (0..block.rows).filter(|place| is_wanted(*place)).collect();
        let good = |faults: &BTreeMap<usize, Fault>| -> Vec<usize> {
            let end = match faults.first_key_value() {
                Some((first, _)) if !skip_bad => *first,
                _ => block.rows,
            };
            all.iter().copied().filter(|at| *at < end && !faults.contains_key(at)).collect()
        };
        let places = good(&faults);
        let (batch, found) = self.convert(block, &places, first)?;
        if found.is_empty() {
            return Ok((Taken { places, batch }, faults));
        }
        faults.extend(found);
        // What is left has no faults: they were looked for in every row.
        let places = good(&faults);
        let (batch, _) = self.convert(block, &places, first)?;
        Ok((Taken { places, batch }, faults))
    }

    fn convert(
        &self,
        block: &Block,
        places: &[usize],
        first: u64,
    ) -> Result<(RowBatch, BTreeMap<usize, Fault>), Fault> {
        let columns = selected(block, places)?;
        let mut columns = columns.iter();
        let mut faults: BTreeMap<usize, Fault> = BTreeMap::new();
        let mut fault = |column: &str, row: usize, why: String| {
            faults.entry(places[row]).or_insert_with(|| Fault::of_column(column, why));
        };
        let too_few = || Fault::new("a block has too few columns");
        let keys = match self.has_key {
            true => {
                let array = columns.next().ok_or_else(too_few)?;
                files::keys(array, |row, why| fault(&self.key_name, row, why))
            }
            false => {
                let mut keys = Vec::with_capacity(places.len());
                for (row, place) in places.iter().enumerate() {
                    let number = first.saturating_add(*place as u64);
                    let key = self.first_key.checked_add(number).filter(|key| *key != u64::MAX);
                    if key.is_none() {
                        fault("", row, "its number is no key".to_owned());
                    }
                    keys.push(key.unwrap_or(0));
                }
                keys
            }
        };
        let mut vectors = Vec::new();
        let mut with_any = vec![false; places.len()];
        for (name, column) in &self.vectors {
            let array = columns.next().ok_or_else(too_few)?;
            let of_column = |why: String| Fault::of_column(name, why);
            let found = files::vectors(array, column.element, column.dimension, |row, why| {
                fault(name, row, why);
            });
            let found = found.map_err(of_column)?;
            let mut counts = found.counts;
            with_any.iter_mut().zip(&counts).for_each(|(any, count)| *any |= *count > 0);
            if counts.iter().all(|count| *count == 1) {
                counts.clear();
            }
            vectors.push(VectorBatch {
                name: column.name.clone(),
                element: column.element,
                dimension: column.dimension,
                bytes: Bytes::from(found.bytes),
                counts,
            });
        }
        for (row, _) in with_any.iter().enumerate().filter(|(_, any)| !self.may_lack && !**any) {
            let names: Vec<&str> = self.vectors.iter().map(|(name, _)| name.as_str()).collect();
            fault(&names.join(", "), row, "it has no vector".to_owned());
        }
        let mut forwards = Vec::new();
        for (name, column) in &self.forwards {
            let array = columns.next().ok_or_else(too_few)?;
            let values = files::values(array, |row, why| fault(name, row, why));
            let values = values.map_err(|why| Fault::of_column(name, why))?;
            let values = values.into_iter().enumerate().map(|(row, value)| {
                let kind = column
                    .kind
                    .filter(|kind| value.as_ref().is_some_and(|value| value.kind() != *kind));
                let (Some(kind), Some(value)) = (kind, &value) else { return value };
                match kind.convert(value.clone()) {
                    Ok(value) => Some(value),
                    Err(value) => {
                        let (found, name) = (value.describe(), kind.name());
                        fault(&column.name, row, format!("{found}, and the column is {name}"));
                        None
                    }
                }
            });
            let values: Vec<Option<Value>> = values.collect();
            forwards.push(ForwardBatch { name: column.name.clone(), values });
        }
        Ok((RowBatch { keys, vectors, forwards }, faults))
    }
}

/// The columns of a block without the rows that are not wanted.
fn selected(block: &Block, places: &[usize]) -> Result<Vec<ArrayRef>, Fault> {
    if places.len() == block.rows {
        return Ok(block.columns.clone());
    }
    let mut wanted = vec![false; block.rows];
    places.iter().for_each(|place| wanted[*place] = true);
    let wanted = BooleanArray::from(wanted);
    let filtered = block.columns.iter().map(|array| filter(array, &wanted).map_err(Fault::new));
    filtered.collect()
}
