//! Answering a checked query over one snapshot: a plan per segment, a merge, the winners' values.

mod aggregate;
mod examples;
mod execute;
pub mod filter;
mod groups;
mod reply;
mod rows;
#[cfg(test)]
mod tests;
mod within;

pub use examples::resolve_examples;
pub use execute::{Place, ReplyLimits, RowFilter, SegmentRef, View, execute, is_short};
pub use reply::{Hit, KnnReply, QueryProfile, Votes};
pub use rows::{
    AHEAD_ROWS, ColumnChoice, RowBatch, RowColumns, RowPlace, VectorBatch, count_rows, fetch_rows,
    next_rows,
};
