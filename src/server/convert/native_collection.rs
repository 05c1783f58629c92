//! Collections of our own contract.

use super::super::proto::voisin_v1 as wire;
use super::columnar::{element_type, known_element};
use super::native_query::{metric, wire_metric};
use crate::database::{AliasChange, Aliases};
use crate::error::{Error, Result};
use crate::schema::{
    Alteration, CollectionSchema, DeclaredType, NewCollection, NewColumn, NewForwardColumn, NewTtl,
    ValueKind, VectorColumn,
};

/// The parameter that names the metric in the compatible contract.
const METRIC: &str = "metric_type";

/// A collection to create.
pub(in crate::server) fn declared(wire: wire::CreateCollectionRequest) -> Result<NewCollection> {
    Ok(NewCollection {
        name: wire.name,
        max_docs_per_segment: wire.segment_rows_max,
        forward_columns: forwards(wire.forwards)?,
        columns: wire.vectors.into_iter().map(vector_column).collect::<Result<_>>()?,
        ttl: wire.ttl.map(new_ttl),
        versions: wire.versions,
        repository: None,
    })
}

fn vector_column(wire: wire::VectorColumnInfo) -> Result<NewColumn> {
    let invalid = |detail| Error::InvalidColumn { column: wire.name.clone(), detail };
    let data_type = match (wire.element, wire.params.contains_key("model")) {
        (0, true) => DeclaredType::Undefined,
        (element, _) => DeclaredType::Vector(known_element(element).map_err(invalid)?),
    };
    let mut extra_params: Vec<(String, String)> = wire.params.into_iter().collect();
    // A map has no order; described columns should not differ from one time to the next.
    extra_params.sort();
    if let Some(metric) = metric(wire.metric).map_err(invalid)? {
        if extra_params.iter().any(|(name, _)| name == METRIC) {
            return Err(invalid(format!("the metric is set twice, once as parameter {METRIC}")));
        }
        extra_params.push((METRIC.to_owned(), metric.name().to_owned()));
    }
    Ok(NewColumn {
        index_type: 1,
        data_type,
        dimension: wire.dimension,
        extra_params,
        name: wire.name,
    })
}

fn forwards(wire: Vec<wire::ForwardColumnInfo>) -> Result<Vec<NewForwardColumn>> {
    let column = |wire: wire::ForwardColumnInfo| {
        let kind = value_kind(wire.r#type).map_err(|detail| Error::InvalidArgument {
            detail: format!("forward column {:?}: {detail}", wire.name),
        })?;
        Ok(NewForwardColumn { name: wire.name, kind })
    };
    wire.into_iter().map(column).collect()
}

/// What a value type means: `None` where each row may have its own, `Err` the words for one that means
/// nothing.
pub(in crate::server) fn value_kind(number: i32) -> std::result::Result<Option<ValueKind>, String> {
    use wire::ValueType;
    Ok(Some(match ValueType::try_from(number) {
        Ok(ValueType::Unspecified) => return Ok(None),
        Ok(ValueType::Bytes) => ValueKind::Bytes,
        Ok(ValueType::String) => ValueKind::String,
        Ok(ValueType::Bool) => ValueKind::Bool,
        Ok(ValueType::Int32) => ValueKind::Int32,
        Ok(ValueType::Int64) => ValueKind::Int64,
        Ok(ValueType::Uint32) => ValueKind::UInt32,
        Ok(ValueType::Uint64) => ValueKind::UInt64,
        Ok(ValueType::Float) => ValueKind::Float,
        Ok(ValueType::Double) => ValueKind::Double,
        Err(_) => return Err(format!("value type {number} is unknown")),
    }))
}

/// A kind of value as the wire has it.
pub(in crate::server) fn value_type(kind: ValueKind) -> wire::ValueType {
    use wire::ValueType;
    match kind {
        ValueKind::Bytes => ValueType::Bytes,
        ValueKind::String => ValueType::String,
        ValueKind::Bool => ValueType::Bool,
        ValueKind::Int32 => ValueType::Int32,
        ValueKind::Int64 => ValueType::Int64,
        ValueKind::UInt32 => ValueType::Uint32,
        ValueKind::UInt64 => ValueType::Uint64,
        ValueKind::Float => ValueType::Float,
        ValueKind::Double => ValueType::Double,
    }
}

fn new_ttl(wire: wire::Ttl) -> NewTtl {
    NewTtl { column: wire.column, milliseconds: wire.milliseconds }
}

/// A change of a collection.
pub(in crate::server) fn alteration(wire: wire::AlterCollectionRequest) -> Result<Alteration> {
    use wire::alter_collection_request::Expiry;
    let params = wire.params.into_iter().flat_map(|change| {
        let mut params: Vec<(String, String)> = change.params.into_iter().collect();
        params.sort();
        let column = change.column;
        params.into_iter().map(move |(name, value)| (column.clone(), name, value))
    });
    Ok(Alteration {
        add_forwards: forwards(wire.add_forwards)?,
        ttl: match wire.expiry {
            None | Some(Expiry::NoTtl(false)) => None,
            Some(Expiry::NoTtl(true)) => Some(None),
            Some(Expiry::Ttl(ttl)) => Some(Some(new_ttl(ttl))),
        },
        params: params.collect(),
    })
}

/// A collection as it is declared.
pub(in crate::server) fn described(
    schema: &CollectionSchema,
    aliases: &Aliases,
) -> wire::CollectionInfo {
    let forward = |name: &String| wire::ForwardColumnInfo {
        name: name.clone(),
        r#type: schema.forward_kinds.get(name).map_or(0, |kind| value_type(*kind).into()),
    };
    let own = aliases.iter().filter(|(_, collection)| **collection == schema.name);
    wire::CollectionInfo {
        name: schema.name.clone(),
        uuid: schema.uuid.clone(),
        vectors: schema.columns.iter().map(described_column).collect(),
        forwards: schema.forward_columns.iter().map(forward).collect(),
        segment_rows_max: match schema.max_docs_per_segment {
            u64::MAX => 0,
            rows => rows,
        },
        ttl: schema
            .ttl
            .as_ref()
            .map(|ttl| wire::Ttl { column: ttl.column.clone(), milliseconds: ttl.milliseconds }),
        versions: schema.versions,
        follows_repository: schema.follows_repository(),
        aliases: own.map(|(alias, _)| alias.clone()).collect(),
    }
}

fn described_column(column: &VectorColumn) -> wire::VectorColumnInfo {
    // The first of a repeated name is the one in force.
    let params = column.extra_params.iter().rev().filter(|(name, _)| name != METRIC);
    wire::VectorColumnInfo {
        name: column.name.clone(),
        element: element_type(column.element).into(),
        dimension: column.dimension,
        metric: wire_metric(column.metric).into(),
        params: params.cloned().collect(),
    }
}

/// Changes of aliases.
pub(in crate::server) fn alias_changes(wire: wire::ChangeAliasesRequest) -> Vec<AliasChange> {
    let change = |change: wire::AliasChange| AliasChange {
        alias: change.alias,
        collection: (!change.collection.is_empty()).then_some(change.collection),
    };
    wire.changes.into_iter().map(change).collect()
}
