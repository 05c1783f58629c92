//! The thread of an import that reads files and makes batches of them, a few ahead of those being sent.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::columns::Columns;
use super::intake::Intake;
use super::sender::Batch;
use super::{Result, TransferError};
use crate::files::{Fault, FileError, Reader};
use crate::schema::Operation;
use crate::server::client::{Declaration, PreparedWrite};

/// Bytes of vectors in a request, about.
const BATCH_BYTES: usize = 1 << 20;
/// Most rows of a request.
const BATCH_ROWS: usize = 4_096;

/// A file with what is taken of it.
pub(super) struct Part {
    pub reader: Reader,
    pub columns: Columns,
    /// Number of its first row through all files.
    pub first: u64,
}

/// A row that was not taken.
#[derive(Debug)]
pub(super) struct BadRow {
    /// Through all files.
    pub number: u64,
    pub fault: Fault,
}

/// What comes from the thread that reads.
pub(super) enum Produced {
    Batch(Batch<PreparedWrite>),
    Bad(BadRow),
    /// Nothing more comes.
    Ended(Result<()>),
}

/// Reads files and makes batches of them.
pub(super) struct Producer {
    pub collection: Declaration,
    pub operation: Operation,
    pub batch_rows: Option<usize>,
    pub skip_bad: bool,
    pub acknowledged: u64,
    /// Rows below `acknowledged` that are sent again.
    pub again: BTreeSet<u64>,
    pub sender: mpsc::Sender<Produced>,
}

impl Producer {
    /// Reads files to their ends, or until nobody listens any more.
    pub fn run(self, parts: Vec<Part>) {
        let mut how = Ok(());
        for part in parts {
            how = match self.part(part) {
                Ok(true) => Ok(()),
                // The other side has heard why, or is gone.
                Ok(false) => return,
                Err(error) => Err(error),
            };
            if how.is_err() {
                break;
            }
        }
        let _ = self.sender.blocking_send(Produced::Ended(how));
    }

    /// Reads a file to its end; false when no more is wanted.
    fn part(&self, part: Part) -> Result<bool> {
        let Part { mut reader, columns, first } = part;
        let start = self.again.first().copied().unwrap_or(u64::MAX).min(self.acknowledged);
        let end = first.saturating_add(reader.rows());
        if end <= start {
            return Ok(true);
        }
        let intake = Intake::new(reader.schema(), &columns, &self.collection);
        let intake = intake.map_err(TransferError::failed)?;
        reader.select(&columns.places())?;
        reader.skip(start.saturating_sub(first))?;
        let by_bytes = (BATCH_BYTES / intake.vector_bytes().max(1)).clamp(1, BATCH_ROWS);
        let rows_max = self.batch_rows.unwrap_or(by_bytes);
        loop {
            let number = first + reader.at();
            let Some(block) = reader.read(rows_max)? else { return Ok(true) };
            let is_wanted = |place: usize| {
                let row = number + place as u64;
                row >= self.acknowledged || self.again.contains(&row)
            };
            let taken = intake.take(&block, number, is_wanted, self.skip_bad);
            let (taken, faults) = taken.map_err(|fault| {
                let fault = fault.at(number - first);
                FileError { path: reader.path().to_owned(), fault }
            })?;
            let first_bad = faults.keys().next().filter(|_| !self.skip_bad);
            let done = first_bad.map_or(number + block.rows as u64, |bad| number + *bad as u64);
            let parts = taken.parts();
            let last = parts.len() - 1;
            for (at, part) in parts.into_iter().enumerate() {
                let rows: Vec<u64> =
                    part.places.iter().map(|place| number + *place as u64).collect();
                let next = rows.last().map_or(number, |last| last + 1);
                let batch = Batch {
                    end: if at == last { done } else { next },
                    write: PreparedWrite::new(&self.collection.name, self.operation, part.batch),
                    rows,
                };
                if !batch.write.is_empty() && !self.send(Produced::Batch(batch)) {
                    return Ok(false);
                }
            }
            for (place, fault) in faults {
                let row = BadRow { number: number + place as u64, fault };
                if !self.send(Produced::Bad(row)) || !self.skip_bad {
                    return Ok(false);
                }
            }
        }
    }

    fn send(&self, produced: Produced) -> bool {
        self.sender.blocking_send(produced).is_ok()
    }
}
