//! What readers see: an immutable list of segments at one sequence, and where each key lives.
//!
//! Both are published together: whoever holds the key map's lock and loads the snapshot sees the
//! same state in both. Queries need only the snapshot and take no lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::query::{RowPlace, SegmentRef};
use crate::schema::{ForwardRow, LsnContext};
use crate::segment::{GrowingView, Sealed};

/// Where a key's live row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The row space: a numbering of rows that outlives the segment when its rows keep their numbers.
    pub space: u32,
    /// The row.
    pub row: u32,
}

/// The segments at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Sequence of the last operation seen.
    pub sequence: u64,
    /// Sealed segments, oldest first.
    pub sealed: Vec<Arc<Sealed>>,
    /// Growing segments that take no more rows, oldest first.
    pub frozen: Vec<Arc<GrowingView>>,
    /// The growing segment.
    pub growing: Arc<GrowingView>,
}

impl Snapshot {
    /// All segments, for a query.
    pub fn segments(&self) -> Vec<SegmentRef<'_>> {
        let sealed = self.sealed.iter().map(|sealed| SegmentRef::Sealed(sealed));
        let growing = self.frozen.iter().chain(std::iter::once(&self.growing));
        sealed.chain(growing.map(|view| SegmentRef::Growing(view))).collect()
    }

    /// Rows that are not deleted, by now.
    pub fn live_rows(&self) -> u64 {
        let sealed = self.sealed.iter().map(|s| (u64::from(s.rows()), s.tombstones.deleted()));
        let growing = self.frozen.iter().chain(std::iter::once(&self.growing));
        let growing = growing.map(|view| (u64::from(view.rows), view.deleted()));
        sealed.chain(growing).map(|(rows, deleted)| rows - deleted.min(rows)).sum()
    }

    /// The forward values of a row, if this snapshot sees it.
    pub fn forward(&self, location: Location) -> Option<ForwardRow> {
        if let Some(sealed) = self.sealed.iter().find(|s| s.space == location.space) {
            let is_live = sealed.tombstones.is_live(location.row, self.sequence);
            return is_live.then(|| sealed.forward(location.row));
        }
        let mut growing = self.frozen.iter().chain(std::iter::once(&self.growing));
        let view = growing.find(|view| view.space == location.space)?;
        let (block, place) = view.locate(location.row)?;
        let is_live = block.tombstones.is_live(place as u32, self.sequence);
        if is_live { block.forward.get(place).cloned() } else { None }
    }
}

/// Keys that room is kept for.
const KEYS_KEPT: usize = 4_096;

/// The key map.
pub type Keys = HashMap<u64, Location>;

/// What is published.
#[derive(Debug)]
pub struct Published {
    snapshot: ArcSwap<Snapshot>,
    keys: RwLock<Keys>,
    latest_lsn: RwLock<LsnContext>,
}

impl Published {
    /// The first state.
    pub fn new(snapshot: Snapshot, keys: Keys, latest_lsn: LsnContext) -> Self {
        Published {
            snapshot: ArcSwap::from_pointee(snapshot),
            keys: RwLock::new(keys),
            latest_lsn: RwLock::new(latest_lsn),
        }
    }

    /// The current snapshot, to be held for a whole request.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Where a key lives now.
    pub fn location(&self, key: u64) -> Option<Location> {
        self.keys.read().get(&key).copied()
    }

    /// The forward values of a key's live row.
    pub fn forward(&self, key: u64) -> Option<ForwardRow> {
        let (location, snapshot) = {
            let keys = self.keys.read();
            (keys.get(&key).copied()?, self.snapshot())
        };
        snapshot.forward(location)
    }

    /// A snapshot, and where it has the live rows of these keys, in their order; keys that have none are
    /// left out.
    pub fn places(&self, keys: &[u64]) -> (Arc<Snapshot>, Vec<RowPlace>) {
        let (locations, snapshot) = {
            let map = self.keys.read();
            let found = keys.iter().filter_map(|key| Some((*key, *map.get(key)?)));
            (found.collect::<Vec<(u64, Location)>>(), self.snapshot())
        };
        let segments = snapshot.segments();
        let position: HashMap<u32, u32> =
            segments.iter().zip(0..).map(|(segment, at)| (segment.space(), at)).collect();
        let places = locations.into_iter().filter_map(|(key, location)| {
            let place =
                RowPlace { key, segment: *position.get(&location.space)?, row: location.row };
            let segment = &segments[place.segment as usize];
            segment.is_live(place.row, snapshot.sequence).then_some(place)
        });
        let places = places.collect();
        (snapshot, places)
    }

    /// Where to resume following a repository.
    pub fn latest_lsn(&self) -> LsnContext {
        self.latest_lsn.read().clone()
    }

    /// Gives up what the key map has room for, where that is several times what it holds.
    pub fn shrink_keys(&self) {
        let is_roomy = |keys: &Keys| keys.capacity() > 4 * keys.len() + KEYS_KEPT;
        if is_roomy(&self.keys.read()) {
            self.keys.write().shrink_to_fit();
        }
    }

    /// Bytes that the key map takes.
    pub fn keys_bytes(&self) -> u64 {
        self.keys.read().allocation_size() as u64
    }

    /// Publishes a new state: `change` edits the key map, then the snapshot takes its place.
    pub fn publish(&self, snapshot: Snapshot, change: impl FnOnce(&mut Keys)) {
        let mut keys = self.keys.write();
        change(&mut keys);
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Publishes where to resume.
    pub fn publish_lsn(&self, latest: LsnContext) {
        *self.latest_lsn.write() = latest;
    }
}
