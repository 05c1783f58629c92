//! What a collection reports of itself.

/// The state of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentState {
    /// Takes new rows.
    Growing,
    /// Full, being written to files; still searched exactly.
    Sealing,
    /// Sealed, being merged into another.
    Compacting,
    /// Sealed.
    Sealed,
}

/// Statistics of one segment. Minima are `u64::MAX` while nothing was inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStats {
    /// Identity within the collection.
    pub segment_id: u32,
    /// The state.
    pub state: SegmentState,
    /// Insertions ever made, updates included; deletes subtract nothing.
    pub doc_count: u64,
    /// Rows that are visible now.
    pub live_rows: u64,
    /// Files.
    pub file_count: u64,
    /// Bytes of the files, or of memory while growing.
    pub file_bytes: u64,
    /// Document ids given, first and last.
    pub doc_ids: (u64, u64),
    /// Primary keys, lowest and highest.
    pub primary_keys: (u64, u64),
    /// LSNs, lowest and highest.
    pub lsns: (u64, u64),
}

/// Statistics of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionStats {
    /// The name.
    pub name: String,
    /// Its folder.
    pub path: String,
    /// Sealed segments first, the growing one last.
    pub segments: Vec<SegmentStats>,
}

/// Resident memory of a collection in bytes, by what it is for. Mapped files are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// Rows that are not sealed yet.
    pub growing: u64,
    /// Codes of sealed vectors.
    pub codes: u64,
    /// Links of graphs.
    pub graphs: u64,
    /// Where each key's row is.
    pub keys: u64,
    /// Delete marks of sealed rows.
    pub deletes: u64,
    /// Graphs that are being made, with the codes that they are made by.
    pub builds: u64,
}

impl MemoryReport {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.growing + self.codes + self.graphs + self.keys + self.deletes + self.builds
    }
}

/// How far the indexing of a collection is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct IndexingReport {
    /// Rows that no graph holds, of columns that have graphs, those that are being linked included:
    /// they are scanned.
    pub rows_waiting: u64,
    /// Rows that the merge under way links.
    pub rows_linking: u64,
    /// How many of these are linked.
    pub rows_linked: u64,
    /// Seconds until these are all linked, going by those that are.
    pub seconds_left: Option<f64>,
}

/// The merge under way.
#[derive(Debug, Clone)]
pub(super) struct Merging {
    /// Its sources.
    pub sources: Vec<u32>,
    /// Rows to be linked.
    pub rows: u64,
    /// The collection's count of linked rows when it began.
    pub linked_before: u64,
    pub started: std::time::Instant,
}

impl Merging {
    /// Rows linked, and the seconds left, where the collection's count is now `linked`.
    pub fn progress(&self, linked: u64) -> (u64, Option<f64>) {
        let done = linked.saturating_sub(self.linked_before).min(self.rows);
        let left = (self.rows - done) as f64 / done as f64;
        (done, (done > 0).then(|| self.started.elapsed().as_secs_f64() * left))
    }
}
