//! Finding rows: exact scans, walks through graphs, and keeping the best of what they find. Scores
//! are always those of [`crate::simd::Query`], whatever index found the row.

mod beam;
mod codes;
mod exact;
mod graph;
#[cfg(test)]
mod tests;
mod topk;
mod visited;

pub use codes::{CodeRanker, Codes};
pub use exact::{ScanTarget, scan};
pub use graph::{HnswGraph, Ranker};
pub use topk::{Candidate, TopK};
