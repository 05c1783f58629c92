//! Collections as a client sees them: what they are declared to hold, and new ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Client, Result};
use crate::schema::{ElementType, Metric, ValueKind};
use crate::server::convert;
use crate::server::proto::voisin_v1 as wire;

/// A vector column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorInfo {
    /// The name.
    pub name: String,
    /// The element type.
    pub element: ElementType,
    /// Elements of a vector (bits for the BINARY types).
    pub dimension: u32,
    /// How vectors are compared.
    pub metric: Metric,
    /// The index and how it is built and searched.
    pub params: BTreeMap<String, String>,
}

/// A forward column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardInfo {
    /// The name.
    pub name: String,
    /// The kind of its values; none where each row may have its own.
    pub kind: Option<ValueKind>,
}

/// When rows expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlInfo {
    /// The forward column with the time; "" for the time of each row's last write.
    pub column: String,
    /// Milliseconds after that time.
    pub milliseconds: u64,
}

/// What a collection is declared to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The name.
    pub name: String,
    /// The vector columns in order.
    pub vectors: Vec<VectorInfo>,
    /// The forward columns in order.
    pub forwards: Vec<ForwardInfo>,
    /// Rows after which a segment is sealed; 0 where the server decides.
    pub segment_rows_max: u64,
    /// When rows expire.
    pub ttl: Option<TtlInfo>,
    /// True when rows have versions.
    pub versions: bool,
}

/// A collection that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What it is declared to hold, with the forward columns that the server fills.
    pub declaration: Declaration,
    /// New for every creation.
    pub uuid: String,
    /// True when it follows a repository of Proxima BE.
    pub follows_repository: bool,
}

impl Client {
    /// What a collection holds; `None` where there is none of that name or alias.
    pub async fn describe(&mut self, name: &str) -> Result<Option<Described>> {
        let request = wire::DescribeCollectionRequest { name: name.into() };
        match self.voisin.describe_collection(request).await {
            Ok(reply) => Ok(Some(described(reply.into_inner())?)),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// Creates a collection.
    pub async fn create_declared(&mut self, declaration: &Declaration) -> Result<Described> {
        let vectors = declaration.vectors.iter().map(|column| wire::VectorColumnInfo {
            name: column.name.clone(),
            element: convert::element_type(column.element).into(),
            dimension: column.dimension,
            metric: convert::wire_metric(column.metric).into(),
            params: column.params.clone().into_iter().collect(),
        });
        let forwards = declaration.forwards.iter().map(|column| wire::ForwardColumnInfo {
            name: column.name.clone(),
            r#type: column.kind.map_or(0, |kind| convert::value_type(kind).into()),
        });
        let request = wire::CreateCollectionRequest {
            name: declaration.name.clone(),
            vectors: vectors.collect(),
            forwards: forwards.collect(),
            segment_rows_max: declaration.segment_rows_max,
            ttl: declaration.ttl.as_ref().map(|ttl| wire::Ttl {
                column: ttl.column.clone(),
                milliseconds: ttl.milliseconds,
            }),
            versions: declaration.versions,
        };
        described(self.voisin.create_collection(request).await?.into_inner())
    }

    /// How many rows a collection has, all or those that meet an expression.
    pub async fn count(&mut self, name: &str, filter: Option<&str>) -> Result<u64> {
        let request = wire::CountRequest {
            collection: name.into(),
            filter: filter.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        Ok(self.voisin.count(request).await?.into_inner().rows)
    }
}

pub(super) fn described(info: wire::CollectionInfo) -> Result<Described> {
    let vector = |column: wire::VectorColumnInfo| -> std::result::Result<VectorInfo, String> {
        Ok(VectorInfo {
            element: convert::known_element(column.element)?,
            dimension: column.dimension,
            metric: convert::metric(column.metric)?.unwrap_or(Metric::SquaredEuclidean),
            params: column.params.into_iter().collect(),
            name: column.name,
        })
    };
    let forward = |column: wire::ForwardColumnInfo| -> std::result::Result<ForwardInfo, String> {
        Ok(ForwardInfo { kind: convert::value_kind(column.r#type)?, name: column.name })
    };
    let vectors = info.vectors.into_iter().map(vector).collect::<std::result::Result<_, _>>();
    let forwards = info.forwards.into_iter().map(forward).collect::<std::result::Result<_, _>>();
    let unknown = |words| super::ClientError::new(format!("the server answers with {words}"));
    Ok(Described {
        declaration: Declaration {
            name: info.name,
            vectors: vectors.map_err(unknown)?,
            forwards: forwards.map_err(unknown)?,
            segment_rows_max: info.segment_rows_max,
            ttl: info.ttl.map(|ttl| TtlInfo { column: ttl.column, milliseconds: ttl.milliseconds }),
            versions: info.versions,
        },
        uuid: info.uuid,
        follows_repository: info.follows_repository,
    })
}
