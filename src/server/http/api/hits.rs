//! The rows that a query found.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use utoipa::ToSchema;

use super::columns::{ValuesOut, VectorColumns};
use super::keys::{Key, KeyForm, KeyOut};
use super::read::RowVectors;
use super::values::{Score, Value};
use crate::schema::CollectionSchema;
use crate::server::proto::voisin_v1::{self as wire};

/// The nearest rows.
#[derive(Serialize, ToSchema)]
pub(super) struct QueryResult {
    /// A list for each query vector, in order; one for all where they are aggregated. Nearest first; equal
    /// scores come by key.
    #[schema(value_type = Vec<Vec<Hit>>)]
    results: Vec<Hits>,
    /// True when nothing nearer can have been missed.
    exact: bool,
    /// Live rows that were searched.
    rows: u64,
    /// Microseconds from the query's arrival to its answer, in the server.
    elapsed_us: u64,
    /// Microseconds of these that the query waited for others.
    queue_us: u64,
    /// The share of the true nearest that is expected to be among those found: of the segment where it is
    /// lowest, as measured with queries like this one; 1 when `exact`. `null` where nothing was measured.
    #[schema(minimum = 0, maximum = 1)]
    expected_recall: Option<f32>,
    recall_source: RecallSource,
    /// The most candidates kept while a graph was walked, or lists looked into, in any segment; 0 where all
    /// rows were looked at.
    effort: u32,
}

/// Where an expected recall comes from: all rows were looked at; queries that were really asked were
/// compared with exact answers; queries made of the rows were, when the index was built; nothing was
/// measured.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RecallSource {
    Exact,
    Live,
    Sample,
    Unmeasured,
}

impl From<wire::RecallSource> for RecallSource {
    fn from(source: wire::RecallSource) -> Self {
        match source {
            wire::RecallSource::Exact => RecallSource::Exact,
            wire::RecallSource::Live => RecallSource::Live,
            wire::RecallSource::Sample => RecallSource::Sample,
            wire::RecallSource::Unmeasured => RecallSource::Unmeasured,
        }
    }
}

impl QueryResult {
    /// The answer of a collection of this declaration.
    pub(super) fn new(reply: wire::QueryReply, schema: &CollectionSchema, keys: KeyForm) -> Self {
        QueryResult {
            expected_recall: reply.expected_recall,
            recall_source: reply.recall_source().into(),
            effort: reply.effort,
            results: reply.results.into_iter().map(|hits| Hits::new(hits, schema, keys)).collect(),
            exact: reply.exact,
            rows: reply.rows,
            elapsed_us: reply.elapsed_us,
            queue_us: reply.queue_us,
        }
    }
}

/// A row that was found.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the form that `Hits` writes, for the document")]
struct Hit {
    key: Key,
    /// Always computed from the stored vectors; smaller is nearer, unless `score` says otherwise. In a column
    /// whose rows have several vectors, that of the nearest of them.
    score: Score,
    /// Values by forward column, of the columns asked for; `null` is unset.
    values: BTreeMap<String, Value>,
    /// Vectors by index column, of the columns asked for; left out where none were.
    vectors: Option<RowVectors>,
    /// Where groups were asked for: the number of the row's group, from 0. The rows of a group lie together,
    /// nearest first; the group with the nearest row is the first.
    group: Option<u32>,
    /// Where votes were counted: how many query vectors voted for the row.
    votes: Option<u32>,
    /// Where votes were counted: 100 times the votes by the number of query vectors, above 0 and up to 100.
    confidence: Option<f32>,
}

/// Hits that are written from their columns.
struct Hits {
    row_keys: Vec<u64>,
    scores: Vec<f32>,
    forwards: Vec<wire::ForwardColumn>,
    vectors: VectorColumns,
    /// The group of each hit, where there are groups.
    groups: Vec<u32>,
    votes: Vec<u32>,
    confidence: Vec<f32>,
    /// How keys are written.
    keys: KeyForm,
}

impl Hits {
    fn new(hits: wire::Hits, schema: &CollectionSchema, keys: KeyForm) -> Self {
        let numbers = (0..).zip(&hits.group_rows);
        let groups = numbers.flat_map(|(group, rows)| std::iter::repeat_n(group, *rows as usize));
        Hits {
            groups: groups.collect(),
            vectors: VectorColumns::new(hits.vectors, hits.keys.len(), schema),
            row_keys: hits.keys,
            scores: hits.scores,
            forwards: hits.forwards,
            votes: hits.votes,
            confidence: hits.confidence,
            keys,
        }
    }
}

impl Serialize for Hits {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_seq((0..self.row_keys.len()).map(|place| HitOut(self, place)))
    }
}

struct HitOut<'a>(&'a Hits, usize);

impl Serialize for HitOut<'_> {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        let HitOut(hits, place) = *self;
        let mut object = json.serialize_map(None)?;
        object.serialize_entry("key", &KeyOut(hits.row_keys[place], hits.keys))?;
        let score = hits.scores.get(place).copied().unwrap_or(f32::NAN);
        object.serialize_entry("score", &Score(score))?;
        let values = ValuesOut { columns: &hits.forwards, row: place, keys: hits.keys };
        object.serialize_entry("values", &values)?;
        if let Some(vectors) = hits.vectors.of_row(place) {
            object.serialize_entry("vectors", &vectors)?;
        }
        if let Some(group) = hits.groups.get(place) {
            object.serialize_entry("group", group)?;
        }
        if let Some(votes) = hits.votes.get(place) {
            object.serialize_entry("votes", votes)?;
        }
        if let Some(confidence) = hits.confidence.get(place) {
            object.serialize_entry("confidence", confidence)?;
        }
        object.end()
    }
}
