//! Searching one run of rows: exactly, or over a graph with an exact re-score. Scores are always
//! those of [`crate::simd::Query`], whatever index found the row.

mod exact;
mod graph;
mod topk;

pub use exact::{ScanTarget, scan};
pub use graph::{GraphSearch, search_graph};
pub use topk::{Candidate, TopK};
