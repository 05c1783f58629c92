//! From a KNN request as a caller sent it to a plan that can always be executed, in the order of
//! checks that Proxima BE 0.2 makes.

use bytes::Bytes;

use super::aggregation::Aggregation;
use super::collection::{CollectionSchema, VectorColumn, check_metric};
use super::effort::Effort;
use super::filter::RawFilter;
use super::index_kind::{EffortParam, IndexKind};
use super::options::{PlanOptions, QueryOptions};
use super::search::SearchParams;
use super::types::{ElementType, Metric};
use super::vector_text;
use crate::error::{Error, Result};

/// A KNN request before any check.
#[derive(Debug, Clone, Default)]
pub struct KnnRequest {
    /// The index column.
    pub column: String,
    /// Neighbours wanted per query vector.
    pub topk: u32,
    /// The query vectors.
    pub vectors: RawQueryVectors,
    /// How many query vectors there are; not read where they are [`RawQueryVectors::Packed`].
    pub batch_count: u32,
    /// Dimension as the caller sees it; 0 means the column's.
    pub dimension: u32,
    /// Element type as the caller sees it; `None` means the column's, `Err` is a type no column has.
    pub element: Option<std::result::Result<ElementType, String>>,
    /// Keeps documents with a score up to this.
    pub radius: Option<f32>,
    /// Exact scan instead of the graph.
    pub is_linear: bool,
    /// How to search; `None` leaves it to the column, `Err` says what could not be read of it.
    pub params: Option<std::result::Result<SearchParams, String>>,
    /// One list of rows for all query vectors; `None` for one each, `Err` says what could not be read.
    pub aggregation: Option<std::result::Result<Aggregation, String>>,
    /// Which forward values come with the hits.
    pub forwards: ForwardChoice,
    /// Which rows may be found; `None` for all, `Err` says what could not be read of it.
    pub filter: Option<std::result::Result<RawFilter, String>>,
    /// What else is asked for; `None` for nothing, `Err` says what could not be read of it.
    pub options: Option<std::result::Result<QueryOptions, String>>,
}

/// Which forward values a query returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ForwardChoice {
    /// Those of all forward columns.
    #[default]
    All,
    /// Those of these columns, in this order.
    Named(Vec<String>),
}

/// Query vectors before any check.
#[derive(Debug, Clone, Default)]
pub enum RawQueryVectors {
    /// Neither features nor matrix was sent.
    #[default]
    Missing,
    /// Little-endian vectors, one after the other.
    Bytes(Bytes),
    /// The same, as many as there are bytes for.
    Packed(Bytes),
    /// JSON text.
    Matrix(String),
}

/// One query vector in the column's element type, little-endian.
pub type QueryVector = Bytes;

/// A checked KNN query.
#[derive(Debug, Clone)]
pub struct KnnPlan {
    /// Position of the index column in the schema.
    pub column: usize,
    /// Neighbours wanted per query vector, not yet bounded by the rows there are.
    pub topk: usize,
    /// The query vectors.
    pub vectors: Vec<QueryVector>,
    /// How to compare: the column's metric, or another one that the query asked for.
    pub metric: Metric,
    /// Keeps documents with a score up to this.
    pub radius: Option<f32>,
    /// Exact scan instead of the graph.
    pub exact: bool,
    /// How hard indexes are searched.
    pub effort: Effort,
    /// Rows that an index finds and that are scored exactly, as times `topk`. 1 to 100; `None` for as
    /// many as the index asks for.
    pub refine_k: Option<f32>,
    /// One list of rows for all query vectors; `None` for one each.
    pub aggregation: Option<Aggregation>,
    /// Positions in the schema of the forward columns to return; `None` for all, in schema order.
    pub forwards: Option<Vec<usize>>,
    /// What else is asked for.
    pub options: PlanOptions,
}

impl KnnPlan {
    /// What is looked for with each query vector.
    pub fn k_per_vector(&self) -> usize {
        self.aggregation.map_or(self.topk, |aggregation| aggregation.k_per_vector(self.topk))
    }
}

impl CollectionSchema {
    /// Checks a KNN request against the schema, and that it has at most `vectors_max` query vectors.
    pub fn check_query(&self, mut raw: KnnRequest, vectors_max: u32) -> Result<KnnPlan> {
        let position = self.column_position(&raw.column).ok_or_else(|| Error::ColumnNotFound {
            collection: self.name.clone(),
            column: raw.column.clone(),
        })?;
        let column = &self.columns[position];
        let options = raw.options.take().unwrap_or_else(|| Ok(QueryOptions::default()));
        let has_examples = options.as_ref().is_ok_and(|options| !options.examples.is_empty());
        let vectors = match raw.vectors {
            RawQueryVectors::Missing if has_examples => Vec::new(),
            RawQueryVectors::Missing => {
                return Err(Error::query("neither features nor matrix is set"));
            }
            RawQueryVectors::Bytes(ref bytes) | RawQueryVectors::Packed(ref bytes) => {
                check_features(bytes, column, &raw, vectors_max)?
            }
            RawQueryVectors::Matrix(ref text) => {
                check_count(raw.batch_count.into(), vectors_max)?;
                check_matrix(text, column, &raw)?
            }
        };
        for (index, vector) in vectors.iter().enumerate() {
            if let Some((element, value)) = vector_text::first_not_finite(column.element, vector) {
                return Err(Error::query(format!(
                    "query vector {index} holds {value} at element {element}; only finite numbers can be searched"
                )));
            }
        }
        if raw.radius.is_some_and(f32::is_nan) {
            return Err(Error::query("radius is not a number"));
        }
        let options = options.map_err(Error::query)?.check(self, column, &raw, vectors_max)?;
        let params = raw.params.unwrap_or_else(|| Ok(SearchParams::default()));
        let params = params.and_then(|params| params.check().map(|()| params));
        let params = params.map_err(Error::query)?;
        let metric = params.metric.unwrap_or(column.metric);
        check_metric(column.element, metric).map_err(Error::query)?;
        let aggregation = raw.aggregation.transpose();
        let checked = |aggregation: Option<Aggregation>| match aggregation {
            Some(aggregation) => aggregation.check().map(|()| Some(aggregation)),
            None => Ok(None),
        };
        let aggregation = aggregation.and_then(checked).map_err(Error::query)?;
        let effort = effort(column, &params);
        Ok(KnnPlan {
            column: position,
            topk: raw.topk as usize,
            vectors,
            radius: raw.radius,
            exact: raw.is_linear
                || params.exact
                || matches!(column.index, IndexKind::Flat)
                // A graph serves the metric that it was built for.
                || metric != column.metric
                // No number of candidates is sure to find everything, or what is not too near.
                || effort == Effort::Recall(1.0)
                || options.all_within
                || options.radius_min.is_some(),
            metric,
            effort,
            aggregation,
            refine_k: params.refine_k.or(column.index.refine_k()),
            forwards: self.check_forwards(&raw.forwards)?,
            options,
        })
    }

    /// Positions of the forward columns chosen, each of which must exist and be named once; `None` for all.
    pub fn check_forwards(&self, choice: &ForwardChoice) -> Result<Option<Vec<usize>>> {
        let names = match choice {
            ForwardChoice::All => return Ok(None),
            ForwardChoice::Named(names) => names,
        };
        let mut positions = Vec::new();
        for name in names {
            let position = self.forward_columns.iter().position(|known| known == name);
            let position = position.ok_or_else(|| Error::ColumnNotFound {
                collection: self.name.clone(),
                column: name.clone(),
            })?;
            if positions.contains(&position) {
                return Err(Error::query(format!("forward column {name:?} is asked for twice")));
            }
            positions.push(position);
        }
        Ok(Some(positions))
    }
}

/// How hard indexes of a column are searched by a query with these parameters.
fn effort(column: &VectorColumn, params: &SearchParams) -> Effort {
    let count = match column.index.effort_param() {
        Some(EffortParam::EfSearch) => params.ef_search,
        Some(EffortParam::Nprobe) => params.nprobe,
        None => None,
    };
    match (count, params.recall_target) {
        (Some(count), _) => Effort::Candidates(count as usize),
        (None, Some(target)) => Effort::asked(target),
        (None, None) => column.index.effort(),
    }
}

fn check_count(vectors: u64, vectors_max: u32) -> Result<()> {
    if vectors <= vectors_max.into() {
        return Ok(());
    }
    Err(Error::LimitExceeded {
        what: "number of query vectors",
        value: vectors,
        limit: vectors_max.into(),
        setting: "limits.query_vectors_max",
    })
}

fn check_features(
    bytes: &Bytes,
    column: &VectorColumn,
    raw: &KnnRequest,
    vectors_max: u32,
) -> Result<Vec<Bytes>> {
    let rounds_to_half =
        column.element == ElementType::Fp16 && raw.element == Some(Ok(ElementType::Fp32));
    match &raw.element {
        None => {}
        Some(Ok(element)) if *element == column.element || rounds_to_half => {}
        Some(other) => {
            return Err(Error::MismatchedDataType {
                column: column.name.clone(),
                expected: column.element.name().into(),
                got: other.as_ref().map_or_else(Clone::clone, |e| e.name().into()),
            });
        }
    }
    check_dimension(column, raw)?;
    let stored_bytes = column.vector_bytes().ok_or_else(|| unstorable(column))?;
    let vector_bytes = if rounds_to_half { stored_bytes * 2 } else { stored_bytes };
    let count = match raw.vectors {
        RawQueryVectors::Packed(_) => (bytes.len() / vector_bytes) as u64,
        _ => u64::from(raw.batch_count),
    };
    // Compared in 64 bits: the count is the caller's and may be anything.
    let expected = vector_bytes as u64 * count;
    if bytes.len() as u64 != expected {
        return Err(Error::query(format!(
            "the query vectors have {} bytes; {count} of {vector_bytes} bytes are {expected}",
            bytes.len(),
        )));
    }
    check_count(count, vectors_max)?;
    Ok((0..bytes.len() / vector_bytes)
        .map(|i| bytes.slice(i * vector_bytes..(i + 1) * vector_bytes))
        .map(|v| if rounds_to_half { vector_text::fp32_to_fp16(&v) } else { v })
        .collect())
}

fn check_matrix(text: &str, column: &VectorColumn, raw: &KnnRequest) -> Result<Vec<Bytes>> {
    let rounds_to_half =
        column.element == ElementType::Fp16 && raw.element == Some(Ok(ElementType::Fp32));
    if let Some(element) = &raw.element
        && *element != Ok(column.element)
        && !rounds_to_half
    {
        return Err(Error::query(format!(
            "index column {:?} holds {}, the query says {}",
            column.name,
            column.element.name(),
            element.as_ref().map_or_else(Clone::clone, |e| e.name().to_string())
        )));
    }
    check_dimension(column, raw)?;
    column.vector_bytes().ok_or_else(|| unstorable(column))?;
    let rows = vector_text::matrix_rows(text, column.dimension as usize).map_err(Error::query)?;
    if rows.len() as u64 != u64::from(raw.batch_count) {
        return Err(Error::query(format!(
            "matrix has {} rows, batch_count is {}",
            rows.len(),
            raw.batch_count
        )));
    }
    rows.iter()
        .map(|row| vector_text::pack(column.element, column.dimension, row).map_err(Error::query))
        .collect()
}

fn check_dimension(column: &VectorColumn, raw: &KnnRequest) -> Result<()> {
    if raw.dimension != 0 && raw.dimension != column.dimension {
        return Err(Error::query(format!(
            "index column {:?} has dimension {}, the query says {}",
            column.name, column.dimension, raw.dimension
        )));
    }
    Ok(())
}

fn unstorable(column: &VectorColumn) -> Error {
    Error::query(format!(
        "index column {:?} can hold no vector: no {} vector has dimension {}",
        column.name,
        column.element.name(),
        column.dimension
    ))
}
