//! Finding rows: exact scans, walks through graphs, and keeping the best of what they find. Scores
//! are always those of [`crate::simd::Query`], whatever index found the row.

mod beam;
mod bounds;
mod build;
mod cells;
mod codes;
mod copies;
mod cut;
mod exact;
mod graph;
mod probes;
mod recall;
mod resolution;
mod row_set;
mod shortlist;
mod space;
#[cfg(test)]
mod tests;
mod topk;
mod truth;
mod visited;

pub use bounds::Bounds;
pub use build::{
    BuildParams, BuildRun, GRAPH_LADDER, GraphBuilder, HeldBytes, WIDER, is_scan_quicker,
};
pub use cells::Cells;
pub use codes::{CodeRanker, Codes};
pub use copies::Copies;
pub use exact::{ScanTarget, scan};
pub use graph::{BREADTH, HnswGraph, Ranker};
pub use recall::{AnyRanker, Met, Probe, RecallSample, apartness, finalists, fullness};
pub use resolution::to_score;
pub use row_set::RowSet;
pub use shortlist::Shortlist;
pub use space::{CodeSpace, RowSpace, Space, Vectors};
pub use topk::{Best, Candidate, TopK, TopRows};
