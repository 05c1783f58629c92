//! Asking for the nearest rows.

use std::collections::BTreeMap;

use axum::extract::State;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tonic::Request;
use utoipa::ToSchema;

use super::collections::Metric;
use super::columns::{forward_names, vector_names};
use super::filter::{Param, filter_params};
use super::hits::QueryResult;
use super::keys::{Key, KeyForm};
use super::object::{each_once, maybe_named, named};
use super::vectors::{VectorForm, element_number, vector, vectors};
use super::{Answer, Call, Outcome, message};
use crate::error::Error;
use crate::schema::CollectionSchema;
use crate::server::http::{Http, if_long};
use crate::server::native::only_column;
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// Asks for the nearest rows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "vector": [0.5, 0.25], "topk": 5 }))]
pub(super) struct Query<'a> {
    /// The index column; it may be left out where there is only one.
    #[serde(default)]
    column: Option<String>,
    /// The query vector. Excludes `vectors`; both may be left out where there are `positives`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<VectorForm>)]
    vector: Option<&'a RawValue>,
    /// Several query vectors, each with a list of its own in the answer, or ranked together where an
    /// aggregation is asked for.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Vec<VectorForm>>)]
    vectors: Option<&'a RawValue>,
    /// How many query vectors are meant: a query with another number of them is refused.
    #[serde(default)]
    vectors_count: Option<u32>,
    /// Rows, or groups of rows, wanted for each query vector (for all together where they are aggregated).
    /// As many are found where that many are live, unless `radius`, `radius_min` or `filter` leave fewer. 0 or
    /// left out: all rows within `radius`, which must be given then; they are found exactly, and the call is
    /// refused (413) where they are more than `limits.query_results_max`.
    #[serde(default)]
    topk: u32,
    /// Leaves out rows with a distance above this, whatever `score` is.
    #[serde(default)]
    radius: Option<f32>,
    /// Leaves out rows with a distance below this, whatever `score` is; scans exactly. Not for columns whose
    /// rows may have several vectors.
    #[serde(default)]
    radius_min: Option<f32>,
    /// Compares by another metric than the column's, which scans exactly.
    #[serde(default)]
    metric: Option<Metric>,
    /// How to search.
    #[serde(default, deserialize_with = "named")]
    params: SearchParams,
    /// The forward columns to return; left out: all. An empty list is the quickest.
    #[serde(default)]
    forwards: Option<Vec<String>>,
    /// Which rows may be found: an expression over forward columns such as
    /// `size > 100 and kind in {kinds}` (docs/filters.md). Left out: all rows.
    #[serde(default)]
    filter: String,
    /// What stands for each `{name}` of the filter, none more and none less.
    #[serde(default, deserialize_with = "each_once")]
    filter_params: BTreeMap<String, Param>,
    /// Keys of rows to query by ("more like this"). The average of their vectors and, where there are query
    /// vectors, each of these makes one query; without query vectors there is one. A key named twice counts
    /// twice. Positives and negatives are not found themselves. Bits have no averages, nor have columns
    /// whose rows may have several vectors; a single positive alone is queried by as it is stored.
    #[serde(default)]
    positives: Vec<Key>,
    /// Keys of rows to be unlike: the query vector becomes avg(positives) + (avg(positives) -
    /// avg(negatives)), where query vectors are positives too.
    #[serde(default)]
    negatives: Vec<Key>,
    /// Finds the `topk` nearest groups of rows.
    #[serde(default, deserialize_with = "maybe_named")]
    group: Option<Group>,
    /// What the scores are; hits come nearest first whatever it is. Left out: distance. Not for votes and
    /// max_sim.
    #[serde(default)]
    score: Option<ScoreShape>,
    /// The index columns whose vectors come with the hits; `*` stands for all of them. Left out: none.
    #[serde(default)]
    return_vectors: Vec<String>,
    /// One list of rows for all query vectors together.
    #[serde(default, deserialize_with = "maybe_named")]
    aggregation: Option<Aggregation>,
}

impl Query<'_> {
    /// The index column; "" where it is left out.
    pub(super) fn column_name(&self) -> String {
        self.column.clone().unwrap_or_default()
    }

    /// Whether query vectors are given.
    pub(super) fn has_vectors(&self) -> bool {
        self.vector.is_some() || self.vectors.is_some()
    }

    /// The query as the contract has it, of these vectors.
    pub(super) fn wire(self, collection: &str, vectors: wire::VectorColumn) -> wire::QueryRequest {
        wire::QueryRequest {
            collection: collection.to_owned(),
            vectors: Some(vectors),
            topk: self.topk,
            radius: self.radius,
            radius_min: self.radius_min,
            metric: self.metric.map_or(0, Metric::number),
            params: Some(wire::SearchParams {
                ef_search: self.params.ef_search,
                nprobe: self.params.nprobe,
                refine_k: self.params.refine_k,
                exact: self.params.exact,
                recall_target: self.params.recall_target,
            }),
            forwards: forward_names(self.forwards),
            filter: self.filter,
            filter_params: filter_params(self.filter_params),
            aggregation: self.aggregation.map(Aggregation::wire),
            positives: self.positives.into_iter().map(|key| key.0).collect(),
            negatives: self.negatives.into_iter().map(|key| key.0).collect(),
            group: self.group.map(|group| wire::Group { column: group.column, size: group.size }),
            score: self.score.map_or(0, ScoreShape::number),
            return_vectors: vector_names(self.return_vectors),
            vectors_count: self.vectors_count,
        }
    }
}

/// How to search; what is left out is left to the column, or to the server.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct SearchParams {
    /// Candidates kept while a graph is walked. Excludes `recall_target`.
    #[schema(minimum = 1, maximum = 65536)]
    ef_search: Option<u32>,
    /// Lists that are searched in columns that have some. Other columns ignore it.
    #[schema(minimum = 1, maximum = 65536)]
    nprobe: Option<u32>,
    /// Rows that an index finds and that are scored exactly, as times `topk`.
    #[schema(minimum = 1, maximum = 100)]
    refine_k: Option<f32>,
    /// Scans exactly.
    exact: bool,
    /// The share of the true neighbours to be found on average; 1 scans exactly. Excludes `ef_search`.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    recall_target: Option<f32>,
}

/// How the query vectors rank rows together.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Aggregation {
    kind: AggregationKind,
    /// Votes: nearest stored vectors that each query vector votes for the rows of; left out: `topk`.
    /// Max_sim: rows that each query vector proposes; left out: 4 times `topk`.
    #[serde(default)]
    k_per_vector: u32,
    /// Votes that a row needs to be found; left out: 1. For votes only.
    #[serde(default)]
    min_votes: u32,
}

/// What is ranked by.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AggregationKind {
    /// How many of the query vectors have the row among their nearest; most votes first. The score is
    /// minus the votes.
    Votes,
    /// The sum over all query vectors of the best similarity that any of the row's vectors has. The score
    /// is minus the sum.
    MaxSim,
    /// The least distance between any query vector and any of the row's vectors, which is the score.
    MinDistance,
}

impl Aggregation {
    fn wire(self) -> wire::Aggregation {
        use wire::aggregation::Kind;
        let kind = match self.kind {
            AggregationKind::Votes => Kind::Votes,
            AggregationKind::MaxSim => Kind::MaxSim,
            AggregationKind::MinDistance => Kind::MinDistance,
        };
        let (k_per_vector, min_votes) = (self.k_per_vector, self.min_votes);
        wire::Aggregation { kind: kind.into(), k_per_vector, min_votes }
    }
}

/// Rows that share the value of a forward column, such as near-duplicates of a picture. Numbers are the same
/// where they are worth the same. A row without a value is a group by itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Group {
    /// The forward column.
    column: String,
    /// The nearest rows of each group to return; 0 or left out: 1. Groups with fewer rows have fewer.
    #[serde(default)]
    size: u32,
}

/// What scores are. docs/metrics.md has the direction and the range of each for every metric.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ScoreShape {
    /// The distance: smaller is nearer.
    Distance,
    /// As Elasticsearch's script_score examples have it; larger is nearer.
    Elasticsearch,
    /// As Milvus returns it: the inner product and the cosine, larger is nearer; or else the distance,
    /// squared for Euclidean ones.
    Milvus,
}

impl ScoreShape {
    fn number(self) -> i32 {
        let shape = match self {
            ScoreShape::Distance => wire::ScoreShape::Distance,
            ScoreShape::Elasticsearch => wire::ScoreShape::Elasticsearch,
            ScoreShape::Milvus => wire::ScoreShape::Milvus,
        };
        shape.into()
    }
}

/// The query vectors as the contract has them: the column's name alone where rows are queried by.
fn query_vectors(
    asked: &Query<'_>,
    schema: &CollectionSchema,
) -> Result<wire::VectorColumn, Error> {
    let name = match &asked.column {
        Some(name) => name,
        None => only_column(schema)?,
    };
    let column = schema.column_position(name).map(|position| &schema.columns[position]);
    let column = column.ok_or_else(|| Error::ColumnNotFound {
        collection: schema.name.clone(),
        column: name.to_owned(),
    })?;
    let vectors = match (asked.vector, asked.vectors) {
        (Some(one), None) => vector(column, one.get()),
        (None, Some(list)) if list.get().starts_with('[') => match list.get()[1..].trim_ascii() {
            "]" => Ok(Bytes::new()),
            _ => vectors(column, list).map(|vectors| vectors.bytes),
        },
        (None, Some(_)) => Err("vectors is not a list".to_owned()),
        (Some(_), Some(_)) => Err("vector and vectors exclude each other".to_owned()),
        (None, None) if asked.positives.is_empty() && asked.negatives.is_empty() => {
            Err("none of vector, vectors and positives is set".to_owned())
        }
        (None, None) => Ok(Bytes::new()),
    };
    Ok(wire::VectorColumn {
        name: column.name.clone(),
        element: element_number(column.element),
        dimension: column.dimension,
        vectors: vectors.map_err(Error::query)?,
        ..Default::default()
    })
}

/// Finds the nearest rows
///
/// The rows nearest to one or many vectors. The answer is of one moment: it sees every write that was
/// acknowledged before the call, and a batch of writes whole or not at all.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/query", operation_id = "query", tag = "rows",
    params(
        ("name" = String, Path, description = "The collection, or an alias."),
        ("keys" = Option<KeyForm>, Query, description = "How keys are written."),
    ),
    request_body(content = Query<'_>),
    responses((status = 200, description = "The nearest rows.", body = QueryResult))
)]
pub(super) async fn query(State(http): State<Http>, call: Call) -> Outcome<Answer<QueryResult>> {
    call.line.takes(&["keys"])?;
    let keys = call.line.keys()?;
    let asked: Query<'_> = call.read()?;
    let collection = http.database.collection(call.line.name())?;
    let schema = collection.schema();
    let vectors = if_long(call.body.len(), || query_vectors(&asked, schema))?;
    let request = asked.wire(call.line.name(), vectors);
    let reply = message(http.native.query(Request::new(request)).await)?;
    let bytes = prost::Message::encoded_len(&reply);
    Ok(Answer { bytes, ..Answer::short(QueryResult::new(reply, schema, keys)) })
}
