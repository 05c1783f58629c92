//! From a KNN request as a caller sent it to a plan that can always be executed, in the order of
//! checks that Proxima BE 0.2 makes.

use bytes::Bytes;

use super::collection::{CollectionSchema, VectorColumn, check_metric};
use super::effort::Effort;
use super::index_kind::{EFFORT_MAX, IndexKind, parse_recall_target, parse_refine_k};
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
    /// How many query vectors there are.
    pub batch_count: u32,
    /// Dimension as the caller sees it; 0 means the column's.
    pub dimension: u32,
    /// Element type as the caller sees it; `None` means the column's, `Err` is a type no column has.
    pub element: Option<std::result::Result<ElementType, String>>,
    /// Keeps documents with a score up to this; off unless above 0.
    pub radius: f32,
    /// Exact scan instead of the graph.
    pub is_linear: bool,
    /// `ef_search`, `nprobe`, `recall_target`, `refine_k`, `exact`, `index_type`, `metric_type`; others are ignored.
    pub extra_params: Vec<(String, String)>,
}

/// Query vectors before any check.
#[derive(Debug, Clone, Default)]
pub enum RawQueryVectors {
    /// Neither features nor matrix was sent.
    #[default]
    Missing,
    /// Little-endian vectors, one after the other.
    Bytes(Bytes),
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
}

impl CollectionSchema {
    /// Checks a KNN request against the schema.
    pub fn check_query(&self, raw: KnnRequest) -> Result<KnnPlan> {
        let position = self.column_position(&raw.column).ok_or_else(|| Error::ColumnNotFound {
            collection: self.name.clone(),
            column: raw.column.clone(),
        })?;
        let column = &self.columns[position];
        let vectors = match raw.vectors {
            RawQueryVectors::Missing => {
                return Err(Error::query("neither features nor matrix is set"));
            }
            RawQueryVectors::Bytes(ref bytes) => check_features(bytes, column, &raw)?,
            RawQueryVectors::Matrix(ref text) => check_matrix(text, column, &raw)?,
        };
        for (index, vector) in vectors.iter().enumerate() {
            if let Some((element, value)) = vector_text::first_not_finite(column.element, vector) {
                return Err(Error::query(format!(
                    "query vector {index} holds {value} at element {element}; only finite numbers can be searched"
                )));
            }
        }
        if raw.radius.is_nan() {
            return Err(Error::query("radius is not a number"));
        }
        let metric = query_metric(column, &raw)?;
        let search = search_params(column, &raw)?;
        Ok(KnnPlan {
            column: position,
            topk: raw.topk as usize,
            vectors,
            radius: (raw.radius > 0.0).then_some(raw.radius),
            // A graph serves the metric that it was built for.
            exact: search.exact || metric != column.metric,
            metric,
            effort: search.effort,
            refine_k: search.refine_k,
        })
    }
}

fn check_features(bytes: &Bytes, column: &VectorColumn, raw: &KnnRequest) -> Result<Vec<Bytes>> {
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
    // Compared in 64 bits: batch_count is the caller's and may be anything.
    let expected = vector_bytes as u64 * u64::from(raw.batch_count);
    if bytes.len() as u64 != expected {
        return Err(Error::query(format!(
            "features have {} bytes; {} vectors of {vector_bytes} bytes are {expected}",
            bytes.len(),
            raw.batch_count
        )));
    }
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

impl KnnRequest {
    fn param(&self, key: &str) -> Option<&str> {
        self.extra_params.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

fn query_metric(column: &VectorColumn, raw: &KnnRequest) -> Result<Metric> {
    let Some(name) = raw.param("metric_type") else { return Ok(column.metric) };
    let known = || Metric::ALL.map(|(name, _)| name).join(", ");
    let metric = Metric::from_name(name).ok_or_else(|| {
        Error::query(format!("metric_type {name:?} is unknown; known: {}", known()))
    })?;
    check_metric(column.element, metric).map_err(Error::query)?;
    Ok(metric)
}

struct SearchParams {
    exact: bool,
    effort: Effort,
    refine_k: Option<f32>,
}

/// The kinds of index that a query may name. Only FLAT makes a difference: the column has its index.
const INDEX_TYPES: [&str; 7] =
    ["FLAT", "HNSW", "HNSW_SQ8", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "FACTORY"];

fn search_params(column: &VectorColumn, raw: &KnnRequest) -> Result<SearchParams> {
    let mut exact = raw.is_linear || column.index == IndexKind::Flat;
    match raw.param("index_type") {
        None => {}
        Some("FLAT") => exact = true,
        Some(text) if INDEX_TYPES.contains(&text) => {}
        Some(text) => {
            let known = INDEX_TYPES.join(", ");
            return Err(Error::query(format!("index_type {text:?} is unknown; known: {known}")));
        }
    }
    match raw.param("exact") {
        None => {}
        // In Python, str(True) is True.
        Some(text) if text.eq_ignore_ascii_case("false") => {}
        Some(text) if text.eq_ignore_ascii_case("true") => exact = true,
        Some(text) => {
            return Err(Error::query(format!("exact is {text:?}; it must be true or false")));
        }
    }
    let mut effort = column.index.effort();
    // Both are checked, whichever of them the column's index has.
    for name in ["ef_search", "nprobe"] {
        let Some(text) = raw.param(name) else { continue };
        let count = text.trim().parse::<u32>().ok().filter(|n| (1..=EFFORT_MAX).contains(n));
        let count = count.ok_or_else(|| {
            Error::query(format!(
                "{name} is {text:?}; it must be a whole number from 1 to {EFFORT_MAX}"
            ))
        })?;
        if raw.param("recall_target").is_some() {
            return Err(Error::query(format!("{name} and recall_target exclude each other")));
        }
        if column.index.effort_param() == Some(name) {
            effort = Effort::Candidates(count as usize);
        }
    }
    if let Some(text) = raw.param("recall_target") {
        effort = Effort::Recall(parse_recall_target(text).map_err(Error::query)?);
    }
    // No number of candidates is sure to find everything.
    exact |= effort == Effort::Recall(1.0);
    let refine_k = raw.param("refine_k").map(parse_refine_k).transpose().map_err(Error::query)?;
    Ok(SearchParams { exact, effort, refine_k: refine_k.or(column.index.refine_k()) })
}
