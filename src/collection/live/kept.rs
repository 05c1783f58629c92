//! The queries that are kept.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;

use super::super::SharedFilter;
use super::ENOUGH;

/// Queries kept of each column, and taken in between two looks.
const KEPT: usize = 192;
const TAKEN: u32 = 48;
/// Bytes of vectors kept of each column at most.
const KEPT_BYTES: usize = 4 << 20;

/// A query that was asked.
#[derive(Clone)]
pub(super) struct Asked {
    /// Tells it from others that were kept at its place.
    pub number: u64,
    /// The vector, as stored ones are.
    pub vector: Bytes,
    /// Which rows it may find; `None` for all.
    pub filter: Option<SharedFilter>,
}

/// How many queries like this one are kept of a column.
fn room(vector: &Bytes) -> usize {
    (KEPT_BYTES / vector.len().max(1)).clamp(ENOUGH, KEPT)
}

/// The queries kept of one column: of all that were offered, each with the same chance at first, and
/// newer ones with a larger one later.
#[derive(Default)]
struct Reservoir {
    kept: Vec<Asked>,
    next: u64,
}

impl Reservoir {
    fn is_full(&self) -> bool {
        self.kept.first().is_none_or(|asked| self.kept.len() >= room(&asked.vector))
    }

    fn add(&mut self, vector: Bytes, filter: Option<SharedFilter>) {
        let room = room(&vector);
        let asked = Asked { number: self.next, vector, filter };
        self.next += 1;
        match self.kept.len() < room {
            true => self.kept.push(asked),
            false => {
                let place = rand::rng().random_range(0..self.kept.len());
                self.kept[place] = asked;
            }
        }
    }
}

/// The queries kept of each column: of those with a filter, or of those without.
pub(super) struct Kept {
    columns: Vec<Mutex<Reservoir>>,
    /// Queries that are wanted until the next look.
    wanted: AtomicU32,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("taken", &self.taken()).finish_non_exhaustive()
    }
}

impl Kept {
    /// None yet, of so many columns.
    pub fn new(columns: usize) -> Self {
        let columns = (0..columns).map(|_| Mutex::default()).collect();
        Kept { columns, wanted: AtomicU32::new(0) }
    }

    /// Some are wanted again, at most so many.
    pub fn want(&self, most: u32) {
        self.wanted.store(most.min(TAKEN), Ordering::Relaxed);
    }

    /// True unless queries of a column were kept, and fewer than it has room for.
    pub fn is_full(&self) -> bool {
        self.columns.iter().all(|reservoir| reservoir.lock().is_full())
    }

    /// True where more are wanted.
    pub fn wants(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Keeps these vectors, as far as more are wanted.
    pub fn offer<'a>(
        &self,
        column: usize,
        vectors: impl Iterator<Item = &'a [u8]>,
        filter: Option<&SharedFilter>,
    ) {
        for vector in vectors {
            let less = |wanted: u32| wanted.checked_sub(1);
            if self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                return;
            }
            // A copy: the message that the vector came in is large perhaps.
            self.add(column, Bytes::copy_from_slice(vector), filter.cloned());
        }
    }

    /// Keeps a vector.
    pub fn add(&self, column: usize, vector: Bytes, filter: Option<SharedFilter>) {
        if let Some(reservoir) = self.columns.get(column) {
            reservoir.lock().add(vector, filter);
        }
    }

    /// Those of a column.
    pub fn of_column(&self, column: usize) -> Vec<Asked> {
        self.columns.get(column).map(|reservoir| reservoir.lock().kept.clone()).unwrap_or_default()
    }

    /// How many were ever kept.
    pub fn taken(&self) -> u64 {
        self.columns.iter().map(|reservoir| reservoir.lock().next).sum()
    }
}
