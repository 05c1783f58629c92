//! Searching one run of rows exactly, and keeping the best of what any index finds. Scores are
//! always those of [`crate::simd::Query`], whatever index found the row.

mod exact;
mod topk;

pub use exact::{ScanTarget, scan};
pub use topk::{Candidate, TopK};
