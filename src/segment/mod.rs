//! Segments: where rows live. A growing segment takes rows and is searched exactly; a sealed one is
//! a folder of immutable files. Both hold their vectors in the same blocks, so that one scan serves
//! both, and both mark deleted rows with the sequence that deleted them, so that a snapshot taken
//! before goes on seeing them.

mod block;
mod builder;
mod column_index;
mod column_vectors;
mod filter_cache;
mod forward_column;
mod forward_index;
mod forward_store;
mod graph_job;
mod growing;
mod index_recall;
mod kinds;
mod rows_file;
mod sealed;
mod search;
mod suspects;
mod told;
mod tombstones;
mod trained_job;

pub use block::{ColumnBlock, Rows};
pub use builder::{BuildPlan, Built, IndexRule, MergeSource, build_segment};
pub use column_index::{ColumnIndex, check_indexes};
pub use forward_column::{ForwardBatch, ForwardColumn, Part, Values, full_words};
pub use forward_index::{ValueOrder, ZONE_ROWS, Zones};
pub use forward_store::{ForwardStore, ForwardTree};
pub use growing::{Block, Growing, GrowingView};
pub use index_recall::{BOOSTS, Band, FilteredRecall, IndexRecall, LiveRecall};
pub use kinds::{KindSet, forward_array, value_at};
pub use sealed::{Sealed, SegmentContext, segment_folder, segment_id};
pub use search::{
    Outcome, SegmentSearch, scan_growing, scan_sealed, scans_by_itself, scans_thin, search_index,
};
pub use suspects::{Suspects, Trial};
pub use told::{RecallSource, Told};
pub use tombstones::{LIVE, Tombstones, encode as encode_tombstones};
