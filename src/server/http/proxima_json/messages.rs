//! Which fields the messages have that REST carries. A test compares them with the contract's own
//! descriptors.

use serde::de::{Deserializer, MapAccess};
use serde::ser::{SerializeMap, Serializer};

use super::{
    Field, Message, Named, Room, is_named, read_choice, read_entry, read_named, read_object,
    write_entry, write_named, write_object,
};
use crate::server::proto::proxima;

use proxima::collection_config::repository_config::{Database, Entity, RepositoryType};
use proxima::collection_config::{IndexColumnParam, RepositoryConfig};
use proxima::collection_info::CollectionStatus;
use proxima::collection_stats::SegmentStats;
use proxima::collection_stats::segment_stats::SegmentState;
use proxima::generic_value::ValueOneof;
use proxima::query_request::knn_query_param::FeaturesValue;
use proxima::query_request::{KnnQueryParam, QueryParam, QueryType};
use proxima::write_request::{IndexColumnMeta, Row, RowMeta};
use proxima::{DataType, IndexType, OperationType};

/// An enum of the contract.
macro_rules! named {
    ($($type:ty),* $(,)?) => {
        $(impl Named for $type {
            fn from_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }

            fn name(self) -> &'static str {
                self.as_str_name()
            }
        })*
    };
}

/// A message of the contract: its fields, `as` an enum where they are one, and where it has one, its
/// choice with the values that exclude each other.
macro_rules! message {
    ($type:ty {
        $($field:ident $(as $named:ty)?),* $(,)?
        $(; $choice:ident: $($case:path = $name:ident),* $(,)?)?
    }) => {
        impl Message for $type {
            fn read_field<'de, A: MapAccess<'de>>(
                &mut self,
                name: &str,
                object: &mut A,
                room: &Room,
            ) -> Result<bool, A::Error> {
                $(if is_named(name, stringify!($field)) {
                    message!(@read self.$field, object, room $(, $named)?);
                    return Ok(true);
                })*
                $($(if is_named(name, stringify!($name)) {
                    read_choice(&mut self.$choice, $case, object, room)?;
                    return Ok(true);
                })*)?
                Ok(false)
            }

            fn write_fields<M: SerializeMap>(&self, object: &mut M) -> Result<(), M::Error> {
                $(message!(@write stringify!($field), self.$field, object $(, $named)?);)*
                $(match &self.$choice {
                    $(Some($case(value)) => write_entry(stringify!($name), value, object)?,)*
                    None => {}
                })?
                Ok(())
            }
        }

        impl Field for $type {
            fn read<'de, D: Deserializer<'de>>(&mut self, json: D, room: &Room) -> Result<(), D::Error> {
                read_object(self, json, room)
            }

            fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
                write_object(self, json)
            }
        }

        /// A message within a message is left out where it is not set.
        impl Field for Option<$type> {
            fn read<'de, D: Deserializer<'de>>(&mut self, json: D, room: &Room) -> Result<(), D::Error> {
                self.insert(<$type>::default()).read(json, room)
            }

            fn write<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
                match self {
                    Some(message) => message.write(json),
                    None => json.serialize_none(),
                }
            }

            fn is_shown(&self) -> bool {
                self.is_some()
            }
        }

        #[cfg(test)]
        impl super::tests::Listed for $type {
            const FIELDS: &[&str] = &[
                $(stringify!($field),)*
                $($(stringify!($name),)*)?
            ];
        }
    };
    (@read $field:expr, $object:ident, $room:ident) => {
        read_entry(&mut $field, $object, $room)?
    };
    (@read $field:expr, $object:ident, $room:ident, $named:ty) => {
        read_named::<$named, _>(&mut $field, $object, $room)?
    };
    (@write $name:expr, $field:expr, $object:ident) => {
        write_entry($name, &$field, $object)?
    };
    (@write $name:expr, $field:expr, $object:ident, $named:ty) => {
        write_named::<$named, _>($name, $field, $object)?
    };
}

named!(
    CollectionStatus,
    DataType,
    IndexType,
    OperationType,
    QueryType,
    RepositoryType,
    SegmentState,
);

// What comes with other messages.
message!(proxima::Status { code, reason });
message!(proxima::KeyValuePair { key, value });
message!(proxima::LsnContext { lsn, context });
message!(proxima::GenericValue {
    ; value_oneof:
        ValueOneof::BytesValue = bytes_value,
        ValueOneof::StringValue = string_value,
        ValueOneof::BoolValue = bool_value,
        ValueOneof::Int32Value = int32_value,
        ValueOneof::Int64Value = int64_value,
        ValueOneof::Uint32Value = uint32_value,
        ValueOneof::Uint64Value = uint64_value,
        ValueOneof::FloatValue = float_value,
        ValueOneof::DoubleValue = double_value,
});
message!(proxima::GenericValueList { values });
message!(proxima::GenericKeyValue { key, value });

// Collections.
message!(proxima::CollectionConfig {
    collection_name,
    max_docs_per_segment,
    forward_column_names,
    index_column_params,
    repository_config,
});
message!(IndexColumnParam {
    column_name,
    index_type as IndexType,
    data_type as DataType,
    dimension,
    extra_params,
});
message!(RepositoryConfig {
    repository_type as RepositoryType,
    repository_name;
    entity: Entity::Database = database
});
message!(Database { connection_uri, table_name, user, password });
message!(proxima::CollectionInfo {
    config,
    status as CollectionStatus,
    uuid,
    latest_lsn_context,
    magic_number,
});
message!(proxima::DescribeCollectionResponse { status, collection });
message!(proxima::ListCollectionsResponse { status, collections });
message!(proxima::StatsCollectionResponse { status, collection_stats });
message!(proxima::CollectionStats {
    collection_name,
    collection_path,
    total_doc_count,
    total_segment_count,
    total_index_file_count,
    total_index_file_size,
    segment_stats,
});
message!(SegmentStats {
    segment_id,
    state as SegmentState,
    doc_count,
    index_file_count,
    index_file_size,
    min_doc_id,
    max_doc_id,
    min_primary_key,
    max_primary_key,
    min_timestamp,
    max_timestamp,
    min_lsn,
    max_lsn,
    segment_path,
});

// Writes.
message!(proxima::WriteRequest { collection_name, row_meta, rows, request_id, magic_number });
message!(RowMeta { forward_column_names, index_column_metas });
message!(IndexColumnMeta { column_name, data_type as DataType, dimension });
message!(Row {
    primary_key,
    operation_type as OperationType,
    forward_column_values,
    index_column_values,
    lsn_context,
});

// Queries.
message!(proxima::QueryRequest {
    collection_name,
    query_type as QueryType,
    debug_mode;
    query_param: QueryParam::KnnParam = knn_param
});
message!(KnnQueryParam {
    column_name,
    topk,
    batch_count,
    dimension,
    data_type as DataType,
    radius,
    is_linear,
    extra_params;
    features_value: FeaturesValue::Features = features, FeaturesValue::Matrix = matrix
});
message!(proxima::QueryResponse { status, debug_info, latency_us, results });
message!(proxima::query_response::Result { documents });
message!(proxima::Document { primary_key, score, forward_column_values });
message!(proxima::GetDocumentResponse { status, debug_info, document });
message!(proxima::GetVersionResponse { status, version });
