//! The writer's view of a collection and the one function that changes it: `apply`. Live writes and
//! replay both go through it.
//!
//! What is applied is not seen before it is published: new rows are beyond the published view, and
//! delete marks carry sequences above the published one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::lsn::LsnWindow;
use super::snapshot::{Keys, Location};
use crate::schema::{CollectionSchema, ForwardRow};
use crate::segment::{Growing, GrowingView, Sealed};
use crate::wal::LogOperation;

/// Distance between the last document id of a segment and the first of the next, as in Proxima BE.
const DOC_ID_GAP: u64 = 1_000;

/// Changed keys that room is kept for.
const CHANGES_KEPT: usize = 4_096;

/// When a growing segment is full.
#[derive(Debug, Clone, Copy)]
pub struct FreezeLimits {
    /// Rows.
    pub rows: u64,
    /// Vectors of a column whose rows may have several.
    pub vectors: u64,
    /// Bytes of vectors and forward values.
    pub bytes: u64,
}

/// A growing segment that takes no more rows.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// Its rows.
    pub view: Arc<GrowingView>,
    /// Sequence of the last operation it contains; everything up to it is in this segment, in older
    /// ones or deleted.
    pub last_sequence: u64,
    /// The document id that the next segment starts at.
    pub next_doc_id: u64,
}

/// The segment that a row space belongs to.
#[derive(Debug, Clone)]
pub enum SpaceOwner {
    /// A frozen one.
    Frozen(Arc<GrowingView>),
    /// A sealed one.
    Sealed(Arc<Sealed>),
}

/// The state that operations change.
#[derive(Debug)]
pub struct State {
    schema: Arc<CollectionSchema>,
    limits: FreezeLimits,
    /// The growing segment.
    pub growing: Growing,
    /// Frozen segments, oldest first.
    pub frozen: Vec<Frozen>,
    /// Every other row space.
    pub spaces: HashMap<u32, SpaceOwner>,
    /// Keys changed since the last publication; `None` means gone.
    pub changed: HashMap<u64, Option<Location>>,
    /// LSNs seen.
    pub lsns: LsnWindow,
    /// A row was deleted or replaced that the growing segment or the log may have still.
    pub has_removed: bool,
    next_space: u32,
}

impl State {
    /// A state over sealed segments whose row spaces are below `next_space`.
    pub fn new(
        schema: Arc<CollectionSchema>,
        limits: FreezeLimits,
        sealed: &[Arc<Sealed>],
        next_space: u32,
        first_doc_id: u64,
        lsns: LsnWindow,
    ) -> Self {
        let spaces = sealed.iter().map(|s| (s.space, SpaceOwner::Sealed(s.clone()))).collect();
        State {
            growing: Growing::new(&schema, next_space, first_doc_id),
            schema,
            limits,
            frozen: Vec::new(),
            spaces,
            changed: HashMap::new(),
            lsns,
            has_removed: false,
            next_space: next_space + 1,
        }
    }

    /// A row space that nobody has.
    pub fn new_space(&mut self) -> u32 {
        let space = self.next_space;
        self.next_space += 1;
        space
    }

    /// Where a key's live row is, changes not yet published included.
    pub fn locate(
        &self,
        key: u64,
        published: impl FnOnce(u64) -> Option<Location>,
    ) -> Option<Location> {
        match self.changed.get(&key) {
            Some(location) => *location,
            None => published(key),
        }
    }

    /// The stored LSN of a row.
    pub fn lsn_at(&self, location: Location) -> u64 {
        if location.space == self.growing.space() {
            return self.growing.lsn(location.row);
        }
        match self.spaces.get(&location.space) {
            Some(SpaceOwner::Sealed(sealed)) => sealed.lsn(location.row),
            Some(SpaceOwner::Frozen(view)) => view
                .locate(location.row)
                .and_then(|(block, at)| block.rows.lsns.as_ref()?.get(at).copied())
                .unwrap_or_default(),
            None => 0,
        }
    }

    /// The forward values of a row.
    pub fn forward_at(&self, location: Location) -> ForwardRow {
        if location.space == self.growing.space() {
            return self.growing.forward(location.row);
        }
        match self.spaces.get(&location.space) {
            Some(SpaceOwner::Sealed(sealed)) => sealed.forward(location.row),
            Some(SpaceOwner::Frozen(view)) => view.forward(location.row),
            None => ForwardRow::default(),
        }
    }

    /// Applies one operation. It cannot fail: whatever could be refused was refused before it was
    /// logged. A put replaces what the key held; a delete of nothing does nothing, so that operations
    /// already contained in a segment may be replayed.
    pub fn apply(
        &mut self,
        operation: &LogOperation,
        sequence: u64,
        published: impl FnOnce(u64) -> Option<Location>,
    ) {
        if let Some(lsn) = operation.lsn() {
            self.lsns.include(lsn.clone());
        }
        match operation {
            LogOperation::Seen { .. } => {}
            LogOperation::Delete { key, .. } => {
                if let Some(old) = self.locate(*key, published) {
                    self.delete(old, sequence);
                    self.changed.insert(*key, None);
                }
            }
            LogOperation::Put { key, document, lsn } => {
                if let Some(old) = self.locate(*key, published) {
                    self.delete(old, sequence);
                }
                let row = self.growing.push(*key, document, lsn.as_ref());
                let location = Location { space: self.growing.space(), row };
                self.changed.insert(*key, Some(location));
                if u64::from(self.growing.rows()) >= self.limits.rows
                    || self.growing.vectors_max() >= self.limits.vectors
                    || self.growing.bytes() >= self.limits.bytes
                {
                    self.freeze(sequence);
                }
            }
        }
    }

    /// Closes the growing segment after the operation `sequence`, and opens the next.
    pub fn freeze(&mut self, sequence: u64) {
        let space = self.new_space();
        let next_doc_id = match self.growing.rows() {
            0 => self.growing.next_doc_id(),
            _ => self.growing.next_doc_id() - 1 + DOC_ID_GAP,
        };
        let next = Growing::new(&self.schema, space, next_doc_id);
        let mut full = std::mem::replace(&mut self.growing, next);
        let view = full.publish();
        self.spaces.insert(view.space, SpaceOwner::Frozen(view.clone()));
        self.frozen.push(Frozen { view, last_sequence: sequence, next_doc_id });
    }

    fn delete(&mut self, location: Location, sequence: u64) {
        self.has_removed = true;
        if location.space == self.growing.space() {
            return self.growing.delete(location.row, sequence);
        }
        match self.spaces.get(&location.space) {
            Some(SpaceOwner::Sealed(sealed)) => {
                sealed.tombstones.delete(location.row, sequence);
            }
            Some(SpaceOwner::Frozen(view)) => {
                if let Some((block, place)) = view.locate(location.row) {
                    block.tombstones.delete(place as u32, sequence);
                }
            }
            None => tracing::error!(?location, "a key lives in a segment that is not there"),
        }
    }

    /// Moves the changed keys into the key map.
    pub fn drain_changes(&mut self, keys: &mut Keys) {
        for (key, location) in self.changed.drain() {
            match location {
                Some(location) => keys.insert(key, location),
                None => keys.remove(&key),
            };
        }
        if self.changed.capacity() > CHANGES_KEPT {
            self.changed = HashMap::new();
        }
    }
}
