//! What a query answers with.

use std::time::Duration;

use super::rows::VectorBatch;
use crate::schema::ForwardRow;
use crate::segment::RecallSource;

/// One row found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The primary key.
    pub key: u64,
    /// The score, in the shape asked for; as a distance, smaller is nearer for every metric. 0 for a
    /// row fetched by its key.
    pub score: f32,
    /// The forward values asked for: all in schema order, or those of the columns named, as named.
    pub forward: ForwardRow,
}

/// The answer to a KNN query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnnReply {
    /// One list per query vector, in order, each ascending by (distance, key); one list for all where they
    /// are aggregated.
    pub results: Vec<Vec<Hit>>,
    /// Where votes were counted, those of each hit of the list. Equal ones come by their distances.
    pub votes: Vec<Votes>,
    /// One list per query vector, where vectors are asked for: those of its hits, column by column.
    pub vectors: Vec<Vec<VectorBatch>>,
    /// One list per query vector, where groups are asked for: how many hits each has, which lie together.
    pub group_rows: Vec<Vec<u32>>,
    /// True when nothing nearer can have been missed: every row was looked at.
    pub exact: bool,
    /// The share of the true nearest that is expected to be among these, 0 to 1, of the segment where it is
    /// lowest; `None` where nothing was measured.
    pub expected_recall: Option<f32>,
    /// Where that comes from.
    pub recall_source: RecallSource,
    /// The most candidates kept, or lists looked into, in a segment; 0 where all rows were looked at.
    pub effort: u32,
    /// Live rows that were searched.
    pub rows: u64,
    /// Where the time went.
    pub profile: QueryProfile,
}

impl KnnReply {
    /// The reply with only the first `count` forward values of each hit; `None` for all.
    pub fn with_forwards(mut self, count: Option<usize>) -> Self {
        if let Some(count) = count {
            for hit in self.results.iter_mut().flatten() {
                hit.forward = hit.forward.iter().take(count).cloned().collect();
            }
        }
        self
    }
}

/// How many query vectors voted for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Votes {
    /// Votes, at least 1.
    pub count: u32,
    /// Their share of all query vectors, in percent: above 0, up to 100.
    pub confidence: f32,
}

/// Where the time of a query went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryProfile {
    /// Checking the request against the schema.
    pub validate: Duration,
    /// Waiting for a search thread.
    pub queue: Duration,
    /// Searching the segments.
    pub execute: Duration,
    /// Merging the segments' answers and fetching forward values.
    pub merge_and_sort: Duration,
}
