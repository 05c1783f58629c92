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
