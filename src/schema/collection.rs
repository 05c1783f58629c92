//! What a collection is declared to hold, and the checks a declaration passes, in the order that
//! Proxima BE 0.2 makes them.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::evolution::{Alteration, NewForwardColumn, NewTtl, Ttl};
use super::index_kind::{IndexKind, Params};
use super::multi::MultiVectors;
use super::types::{Document, ElementType, Metric, ValueKind};
use crate::error::{Error, RepositoryFault, Result};

/// Longest collection, column or forward name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The bounds a new collection is checked against.
#[derive(Debug, Clone, Copy)]
pub struct SchemaLimits {
    /// Highest dimension of a vector column.
    pub dimension_max: u32,
    /// Most index columns, and most forward columns, of a collection.
    pub columns_max: u32,
}

/// A collection as a caller declares it, before any check.
#[derive(Debug, Clone, Default)]
pub struct NewCollection {
    /// The name.
    pub name: String,
    /// Rows after which a segment is sealed; 0 lets the server decide.
    pub max_docs_per_segment: u64,
    /// The forward columns in order.
    pub forward_columns: Vec<NewForwardColumn>,
    /// The index columns in order.
    pub columns: Vec<NewColumn>,
    /// When rows expire; `None` for never.
    pub ttl: Option<NewTtl>,
    /// Gives each row a version.
    pub versions: bool,
    /// Present for collections that follow a repository.
    pub repository: Option<NewRepository>,
}

/// An index column as a caller declares it.
#[derive(Debug, Clone, Default)]
pub struct NewColumn {
    /// The name.
    pub name: String,
    /// The wire number of the index type; 1 is the only one known.
    pub index_type: i32,
    /// The wire number of the data type, and what it means as a vector element where it does.
    pub data_type: DeclaredType,
    /// Elements (bits for the bit types).
    pub dimension: u32,
    /// Parameters in the order given; the first of a repeated key wins.
    pub extra_params: Vec<(String, String)>,
}

/// The parameter that names the model whose vectors a column holds.
const MODEL: &str = "model";

impl NewColumn {
    /// The model that makes the column's vectors.
    pub fn model(&self) -> Option<&str> {
        Params(&self.extra_params).get(MODEL)
    }
}

/// The data type of a new column as the wire names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeclaredType {
    /// Undefined or not a number the wire knows.
    #[default]
    Undefined,
    /// Undefined, with the unknown number.
    Unknown(i32),
    /// A known type that is not a vector (or one nothing can be written in).
    NotAVector(&'static str),
    /// A vector element type.
    Vector(ElementType),
}

/// A repository configuration as a caller declares it.
#[derive(Debug, Clone, Default)]
pub struct NewRepository {
    /// False when `repository_type` is not RT_DATABASE.
    pub is_known_type: bool,
    /// The name a synchronising process looks for.
    pub name: String,
    /// `mysql://host:port/database`.
    pub connection_uri: String,
    /// The table.
    pub table_name: String,
    /// The user.
    pub user: String,
    /// The password; described back in clear, as Proxima BE does.
    pub password: String,
}

/// A checked repository configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// The name a synchronising process looks for.
    pub name: String,
    /// `mysql://host:port/database`.
    pub connection_uri: String,
    /// The table.
    pub table_name: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// One vector column of a collection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorColumn {
    /// The name.
    pub name: String,
    /// The element type.
    pub element: ElementType,
    /// Elements (bits for the bit types).
    pub dimension: u32,
    /// The metric.
    pub metric: Metric,
    /// The index.
    pub index: IndexKind,
    /// Present where a row may hold several vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi: Option<MultiVectors>,
    /// All parameters as given, for describe.
    pub extra_params: Vec<(String, String)>,
}

impl VectorColumn {
    /// Bytes of one stored vector, or `None` where the declared dimension fits no stored vector
    /// (such columns exist, as in Proxima BE, but every write to them is refused).
    pub fn vector_bytes(&self) -> Option<usize> {
        self.element.vector_bytes(self.dimension)
    }

    /// The model that makes its vectors.
    pub fn model(&self) -> Option<&str> {
        Params(&self.extra_params).get(MODEL)
    }
}

/// A checked collection declaration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// The name.
    pub name: String,
    /// 32 lowercase hexadecimal digits, new for every creation.
    pub uuid: String,
    /// Rows after which a segment is sealed; `u64::MAX` lets the server decide.
    pub max_docs_per_segment: u64,
    /// The forward columns in order; those added later are the last.
    pub forward_columns: Vec<String>,
    /// The kinds of the forward columns that were declared with one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forward_kinds: BTreeMap<String, ValueKind>,
    /// When rows expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// The server fills [`VERSION_COLUMN`](super::VERSION_COLUMN).
    #[serde(default, skip_serializing_if = "is_false")]
    pub versions: bool,
    /// The server fills [`WRITE_TIME_COLUMN`](super::WRITE_TIME_COLUMN).
    #[serde(default, skip_serializing_if = "is_false")]
    pub write_times: bool,
    /// The index columns in order of declaration.
    pub columns: Vec<VectorColumn>,
    /// Present for collections that follow a repository.
    pub repository: Option<Repository>,
}

impl CollectionSchema {
    /// Checks a declaration and gives the collection its identity. `is_taken` says whether a
    /// collection of the name exists: that check sits between the repository type and the name.
    pub fn new(
        declared: NewCollection,
        limits: &SchemaLimits,
        is_taken: impl FnOnce(&str) -> bool,
    ) -> Result<Self> {
        if let Some(repository) = &declared.repository
            && !repository.is_known_type
        {
            return Err(Error::InvalidRepository(RepositoryFault::UnknownType));
        }
        if is_taken(&declared.name) {
            return Err(Error::DuplicateCollection { name: declared.name });
        }
        if declared.name.is_empty() {
            return Err(Error::EmptyCollectionName);
        }
        if declared.columns.is_empty() {
            return Err(Error::EmptyColumns);
        }
        for (position, column) in declared.columns.iter().enumerate() {
            if column.name.is_empty() {
                return Err(Error::EmptyColumnName { position });
            }
            match column.data_type {
                DeclaredType::Undefined => {
                    return Err(Error::InvalidDataType {
                        column: column.name.clone(),
                        data_type: 0,
                    });
                }
                DeclaredType::Unknown(data_type) => {
                    return Err(Error::InvalidDataType { column: column.name.clone(), data_type });
                }
                DeclaredType::NotAVector(_) | DeclaredType::Vector(_) => {}
            }
        }
        let repository = declared.repository.map(check_repository).transpose()?;
        let columns =
            declared.columns.into_iter().map(|c| check_column(c, limits)).collect::<Result<_>>()?;
        let mut schema = CollectionSchema {
            name: declared.name,
            uuid: uuid::Uuid::new_v4().simple().to_string(),
            max_docs_per_segment: match declared.max_docs_per_segment {
                0 => u64::MAX,
                rows => rows,
            },
            forward_columns: Vec::new(),
            forward_kinds: BTreeMap::new(),
            ttl: None,
            versions: false,
            write_times: false,
            columns,
            repository,
        };
        if declared.versions {
            schema.add_versions();
        }
        let add_forwards = declared.forward_columns;
        let ttl = declared.ttl.map(Some);
        schema.altered(Alteration { add_forwards, ttl, ..Alteration::default() }, limits)
    }

    /// Position of the index column of that name.
    pub fn column_position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// True when writes carry LSNs and answer success whatever happens to single rows.
    pub fn follows_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// True when a document has a vector of the right length (or several, where a column takes them), or
    /// none, for every index column, and a value, or none, for every forward column. Documents from
    /// before a column was added have fewer.
    pub fn fits(&self, document: &Document) -> bool {
        let vectors = self.columns.iter().zip(&document.vectors);
        document.vectors.len() == self.columns.len()
            && document.forward.len() <= self.forward_columns.len()
            && vectors.into_iter().all(|(column, vector)| {
                let fits = |bytes| column.count_vectors(bytes, column.vector_bytes()?);
                vector.as_ref().is_none_or(|vector| fits(vector.len()).is_some())
            })
    }

    /// The safety checks the original leaves out: names that could be taken for paths or lists,
    /// repeated names, and counts.
    pub(super) fn check_names(&self, limits: &SchemaLimits) -> Result<()> {
        check_name("collection", &self.name)?;
        let counts = [
            ("number of index columns", self.columns.len()),
            ("number of forward columns", self.forward_columns.len()),
        ];
        for (what, count) in counts {
            if count > limits.columns_max as usize {
                return Err(Error::LimitExceeded {
                    what,
                    value: count as u64,
                    limit: u64::from(limits.columns_max),
                    setting: "limits.columns_max",
                });
            }
        }
        let mut seen = HashSet::new();
        for column in &self.columns {
            check_name("index column", &column.name)?;
            if !seen.insert(column.name.as_str()) {
                return Err(repeated("index column", &column.name));
            }
        }
        seen.clear();
        for name in &self.forward_columns {
            check_name("forward column", name)?;
            if name.contains(',') {
                return Err(Error::InvalidName {
                    what: "forward column",
                    name: shorten(name),
                    reason: "it holds a comma, which separates names in Proxima BE",
                });
            }
            if !seen.insert(name.as_str()) {
                return Err(repeated("forward column", name));
            }
        }
        Ok(())
    }
}

fn is_false(truth: &bool) -> bool {
    !truth
}

fn repeated(what: &'static str, name: &str) -> Error {
    Error::InvalidName { what, name: shorten(name), reason: "it is declared twice" }
}

/// The start of a text, to be quoted in an error.
pub(super) fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Names never become paths here; names that look like paths are refused all the same, so that no
/// tool that reads them later can be led astray.
pub fn check_name(what: &'static str, name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 255 bytes"
    } else if name == "." || name == ".." {
        "it names a folder"
    } else if name.contains(['/', '\\']) {
        "it holds a path separator"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { what, name: shorten(name), reason })
}

fn check_repository(declared: NewRepository) -> Result<Repository> {
    let fault = if declared.name.is_empty() {
        RepositoryFault::EmptyName
    } else if !has_scheme(&declared.connection_uri) {
        RepositoryFault::InvalidUri
    } else if declared.user.is_empty() {
        RepositoryFault::EmptyUser
    } else if declared.password.is_empty() {
        RepositoryFault::EmptyPassword
    } else if declared.table_name.is_empty() {
        RepositoryFault::EmptyTable
    } else {
        return Ok(Repository {
            name: declared.name,
            connection_uri: declared.connection_uri,
            table_name: declared.table_name,
            user: declared.user,
            password: declared.password,
        });
    };
    Err(Error::InvalidRepository(fault))
}

fn has_scheme(uri: &str) -> bool {
    uri.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty())
}

fn check_column(declared: NewColumn, limits: &SchemaLimits) -> Result<VectorColumn> {
    let name = declared.name;
    if declared.index_type != 1 {
        return Err(Error::UndefinedIndexType { column: name, index_type: declared.index_type });
    }
    let invalid = |detail: String| Error::InvalidColumn { column: name.clone(), detail };
    let element = match declared.data_type {
        DeclaredType::Vector(element) => element,
        DeclaredType::NotAVector(type_name) => {
            return Err(invalid(format!(
                "data type {type_name} is not a storable vector type; use FP32, FP16, INT8, INT4, INT16, BINARY32 or BINARY64"
            )));
        }
        DeclaredType::Undefined | DeclaredType::Unknown(_) => {
            return Err(Error::InvalidDataType { column: name, data_type: 0 });
        }
    };
    if declared.dimension == 0 {
        return Err(invalid("dimension is 0".into()));
    }
    if declared.dimension > limits.dimension_max {
        return Err(Error::LimitExceeded {
            what: "dimension",
            value: u64::from(declared.dimension),
            limit: u64::from(limits.dimension_max),
            setting: "limits.dimension_max",
        });
    }
    let params = Params(&declared.extra_params);
    check_quantize(&params, element).map_err(&invalid)?;
    let metric = match params.get("metric_type") {
        None => Metric::SquaredEuclidean,
        Some(text) => Metric::from_name(text)
            .ok_or_else(|| Error::UnknownMetric { column: name.clone(), metric: shorten(text) })?,
    };
    check_metric(element, metric).map_err(&invalid)?;
    let index = params.index_kind(element, metric, declared.dimension).map_err(&invalid)?;
    let multi = MultiVectors::from_params(&params).map_err(&invalid)?;
    Ok(VectorColumn {
        name,
        element,
        dimension: declared.dimension,
        metric,
        index,
        multi,
        extra_params: declared.extra_params,
    })
}

/// Refuses a metric that is not defined over an element type.
pub(super) fn check_metric(
    element: ElementType,
    metric: Metric,
) -> std::result::Result<(), String> {
    let fits = match metric {
        Metric::Hamming => element.is_binary(),
        Metric::SquaredEuclidean | Metric::Euclidean => true,
        Metric::InnerProduct | Metric::Cosine | Metric::Manhattan => !element.is_binary(),
    };
    if fits {
        return Ok(());
    }
    let allowed = match element.is_binary() {
        true => "Hamming, SquaredEuclidean or Euclidean",
        false => "SquaredEuclidean, Euclidean, InnerProduct, Cosine or Manhattan",
    };
    Err(format!("metric_type {} does not fit {}; use {allowed}", metric.name(), element.name()))
}

/// `quantize_type` is checked as the original does; this engine stores what was written.
fn check_quantize(params: &Params<'_>, element: ElementType) -> std::result::Result<(), String> {
    let Some(text) = params.get("quantize_type") else { return Ok(()) };
    if !matches!(text, "DT_VECTOR_FP16" | "DT_VECTOR_INT8" | "DT_VECTOR_INT4") {
        return Err(format!(
            "quantize_type {text:?} is unknown; use DT_VECTOR_FP16, DT_VECTOR_INT8 or DT_VECTOR_INT4"
        ));
    }
    if element != ElementType::Fp32 {
        return Err(format!("quantize_type needs an FP32 column, this one is {}", element.name()));
    }
    Ok(())
}
