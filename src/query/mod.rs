//! Answering a checked query over one snapshot: a plan per segment, a merge, the winners' values.

mod execute;
mod reply;

pub use execute::{Place, ReplyLimits, RowFilter, SegmentRef, View, execute, is_short};
pub use reply::{Hit, KnnReply, QueryProfile};
