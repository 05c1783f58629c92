//! Declarations, descriptions and statistics of collections.

use super::super::proto::proxima;
use super::{data_type, element, pairs};
use crate::collection::{CollectionStats, SegmentState, SegmentStats};
use crate::schema::{
    CollectionSchema, DeclaredType, LsnContext, NewCollection, NewColumn, NewRepository,
    Repository, VectorColumn,
};

use proxima::collection_config::repository_config::{Database, Entity, RepositoryType};
use proxima::collection_config::{IndexColumnParam, RepositoryConfig};
use proxima::collection_info::CollectionStatus;
use proxima::collection_stats::SegmentStats as WireSegment;
use proxima::collection_stats::segment_stats::SegmentState as WireState;

/// A collection to create.
pub(in crate::server) fn new_collection(wire: proxima::CollectionConfig) -> NewCollection {
    NewCollection {
        name: wire.collection_name,
        max_docs_per_segment: wire.max_docs_per_segment,
        forward_columns: wire.forward_column_names.into_iter().map(Into::into).collect(),
        columns: wire.index_column_params.into_iter().map(new_column).collect(),
        repository: wire.repository_config.map(new_repository),
        ..NewCollection::default()
    }
}

fn new_column(wire: IndexColumnParam) -> NewColumn {
    NewColumn {
        name: wire.column_name,
        index_type: wire.index_type,
        data_type: declared_type(wire.data_type),
        dimension: wire.dimension,
        extra_params: pairs(wire.extra_params),
    }
}

fn declared_type(number: i32) -> DeclaredType {
    use proxima::DataType;
    if let Ok(element) = element(number) {
        return DeclaredType::Vector(element);
    }
    match DataType::try_from(number) {
        Ok(DataType::DtUndefined) => DeclaredType::Undefined,
        // Known by name, but nothing can be written in it: refused like an unknown one.
        Ok(DataType::DtVectorFp64) | Err(_) => DeclaredType::Unknown(number),
        Ok(scalar) => DeclaredType::NotAVector(scalar.as_str_name()),
    }
}

fn new_repository(wire: RepositoryConfig) -> NewRepository {
    let is_known_type = RepositoryType::try_from(wire.repository_type).is_ok();
    let database = match wire.entity {
        Some(Entity::Database(database)) => database,
        None => Database::default(),
    };
    NewRepository {
        is_known_type,
        name: wire.repository_name,
        connection_uri: database.connection_uri,
        table_name: database.table_name,
        user: database.user,
        password: database.password,
    }
}

/// What is told of a served collection. The two live facts are told of repository collections only.
pub(in crate::server) fn collection_info(
    schema: &CollectionSchema,
    latest_lsn: LsnContext,
    magic_number: u64,
) -> proxima::CollectionInfo {
    let follows = schema.follows_repository();
    proxima::CollectionInfo {
        config: Some(proxima::CollectionConfig {
            collection_name: schema.name.clone(),
            max_docs_per_segment: schema.max_docs_per_segment,
            forward_column_names: schema.forward_columns.clone(),
            // Last created first, as the original has it.
            index_column_params: schema.columns.iter().rev().map(index_column_param).collect(),
            repository_config: schema.repository.as_ref().map(repository_config),
        }),
        status: CollectionStatus::CsServing.into(),
        uuid: schema.uuid.clone(),
        latest_lsn_context: follows
            .then_some(proxima::LsnContext { lsn: latest_lsn.lsn, context: latest_lsn.context }),
        magic_number: if follows { magic_number } else { 0 },
    }
}

fn index_column_param(column: &VectorColumn) -> IndexColumnParam {
    let mut extra_params: Vec<proxima::KeyValuePair> = Vec::new();
    for (key, value) in &column.extra_params {
        // The first of a repeated key is the one in force.
        if extra_params.iter().all(|known| known.key != *key) {
            extra_params.push(proxima::KeyValuePair { key: key.clone(), value: value.clone() });
        }
    }
    IndexColumnParam {
        column_name: column.name.clone(),
        index_type: proxima::IndexType::ItProximaGraphIndex.into(),
        data_type: data_type(column.element).into(),
        dimension: column.dimension,
        extra_params,
    }
}

fn repository_config(repository: &Repository) -> RepositoryConfig {
    RepositoryConfig {
        repository_type: RepositoryType::RtDatabase.into(),
        repository_name: repository.name.clone(),
        entity: Some(Entity::Database(Database {
            connection_uri: repository.connection_uri.clone(),
            table_name: repository.table_name.clone(),
            user: repository.user.clone(),
            password: repository.password.clone(),
        })),
    }
}

/// Statistics, counted in the original's files: a writing segment has one per index column and one
/// for its forward values, a persisted one is a single file, and a collection adds four of its own.
pub(in crate::server) fn collection_stats(
    stats: CollectionStats,
    index_columns: usize,
) -> proxima::CollectionStats {
    let segments: Vec<WireSegment> =
        stats.segments.iter().map(|segment| segment_stats(segment, index_columns)).collect();
    let total = |count: fn(&WireSegment) -> u64| segments.iter().map(count).sum::<u64>();
    proxima::CollectionStats {
        collection_name: stats.name,
        collection_path: stats.path,
        total_doc_count: total(|segment| segment.doc_count),
        total_segment_count: segments.len() as u64,
        total_index_file_count: total(|segment| segment.index_file_count) + 4,
        total_index_file_size: total(|segment| segment.index_file_size),
        segment_stats: segments,
    }
}

fn segment_stats(segment: &SegmentStats, index_columns: usize) -> WireSegment {
    let (state, is_in_files) = match segment.state {
        SegmentState::Growing => (WireState::SsWriting, false),
        SegmentState::Sealing => (WireState::SsDumping, false),
        SegmentState::Compacting => (WireState::SsCompacting, true),
        SegmentState::Sealed => (WireState::SsPersist, true),
    };
    let is_empty = segment.doc_count == 0;
    // The only minimum that an empty segment tells as 0, being the id its first row will get.
    let min_doc_id = if segment.doc_ids.0 == u64::MAX { 0 } else { segment.doc_ids.0 };
    WireSegment {
        segment_id: segment.segment_id,
        state: state.into(),
        doc_count: segment.doc_count,
        index_file_count: if is_in_files { 1 } else { index_columns as u64 + 1 },
        index_file_size: segment.file_bytes,
        min_doc_id,
        max_doc_id: segment.doc_ids.1,
        min_primary_key: segment.primary_keys.0,
        max_primary_key: segment.primary_keys.1,
        // Rows carry no time; the original reports 0 once there is a row.
        min_timestamp: if is_empty { u64::MAX } else { 0 },
        max_timestamp: 0,
        min_lsn: segment.lsns.0,
        max_lsn: segment.lsns.1,
        segment_path: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ElementType, SchemaLimits};

    fn pair(key: &str, value: &str) -> proxima::KeyValuePair {
        proxima::KeyValuePair { key: key.into(), value: value.into() }
    }

    fn declaration() -> proxima::CollectionConfig {
        let column = |name: &str, data_type, dimension| IndexColumnParam {
            column_name: name.into(),
            index_type: 1,
            data_type,
            dimension,
            extra_params: vec![],
        };
        let mut text = column("text", 26, 8);
        text.extra_params = vec![
            pair("metric_type", "InnerProduct"),
            pair("own", "kept"),
            pair("metric_type", "Euclidean"),
        ];
        proxima::CollectionConfig {
            collection_name: "photos".into(),
            max_docs_per_segment: 0,
            forward_column_names: vec!["path".into(), "size".into()],
            index_column_params: vec![column("image", 23, 512), text],
            repository_config: None,
        }
    }

    fn with_repository() -> proxima::CollectionConfig {
        let database = Database {
            connection_uri: "mysql://host:3306/db".into(),
            table_name: "table".into(),
            user: "root".into(),
            password: "secret".into(),
        };
        proxima::CollectionConfig {
            repository_config: Some(RepositoryConfig {
                repository_type: 0,
                repository_name: "mysql_repository".into(),
                entity: Some(Entity::Database(database)),
            }),
            ..declaration()
        }
    }

    fn schema(wire: proxima::CollectionConfig) -> CollectionSchema {
        let limits = SchemaLimits { dimension_max: 1024, columns_max: 16 };
        CollectionSchema::new(new_collection(wire), &limits, |_| false).expect("a valid schema")
    }

    #[test]
    fn a_description_is_the_declaration_with_columns_reversed() {
        let schema = schema(declaration());
        let lsn = LsnContext { lsn: 9, context: "c".into() };
        let info = collection_info(&schema, lsn, 77);

        let mut expected = declaration();
        expected.max_docs_per_segment = u64::MAX;
        expected.index_column_params.reverse();
        // Nothing is added, and the first of the repeated key stays.
        expected.index_column_params[0].extra_params.truncate(2);
        assert_eq!(info.config, Some(expected));
        assert_eq!(info.status, CollectionStatus::CsServing as i32);
        assert_eq!(info.uuid, schema.uuid);
        assert_eq!((info.magic_number, info.latest_lsn_context), (0, None));
    }

    #[test]
    fn a_repository_collection_tells_its_magic_number_lsn_and_password() {
        let info = collection_info(&schema(with_repository()), LsnContext::default(), 77);
        assert_eq!(info.magic_number, 77);
        assert_eq!(info.latest_lsn_context, Some(proxima::LsnContext::default()));
        let described = info.config.expect("a config").repository_config;
        assert_eq!(described, with_repository().repository_config);
    }

    #[test]
    fn an_unknown_repository_type_is_carried_on() {
        let wire = RepositoryConfig { repository_type: 5, ..Default::default() };
        assert!(!new_repository(wire).is_known_type);
        assert!(new_repository(RepositoryConfig::default()).is_known_type);
    }

    #[test]
    fn data_types_of_new_columns_mean_what_the_original_makes_of_them() {
        assert_eq!(declared_type(0), DeclaredType::Undefined);
        assert_eq!(declared_type(23), DeclaredType::Vector(ElementType::Fp32));
        assert_eq!(declared_type(24), DeclaredType::Unknown(24));
        assert_eq!(declared_type(99), DeclaredType::Unknown(99));
        assert_eq!(declared_type(1), DeclaredType::NotAVector("DT_BINARY"));
        assert_eq!(declared_type(9), DeclaredType::NotAVector("DT_DOUBLE"));
    }

    #[test]
    fn statistics_count_as_the_original_does() {
        let segment = |segment_id, state, doc_count: u64| SegmentStats {
            segment_id,
            state,
            doc_count,
            live_rows: 1,
            file_count: 9,
            file_bytes: 100,
            doc_ids: (1000, 1000 + doc_count),
            primary_keys: (3, 8),
            lsns: (0, 0),
        };
        let fresh = SegmentStats {
            doc_ids: (u64::MAX, 0),
            primary_keys: (u64::MAX, 0),
            lsns: (u64::MAX, 0),
            ..segment(4, SegmentState::Growing, 0)
        };
        let stats = CollectionStats {
            name: "photos".into(),
            path: "/data/photos".into(),
            segments: vec![
                segment(1, SegmentState::Sealed, 10),
                segment(2, SegmentState::Compacting, 20),
                segment(3, SegmentState::Sealing, 30),
                fresh,
            ],
        };
        let wire = collection_stats(stats, 2);
        assert_eq!(wire.collection_path, "/data/photos");
        assert_eq!((wire.total_doc_count, wire.total_segment_count), (60, 4));
        assert_eq!((wire.total_index_file_count, wire.total_index_file_size), (12, 400));
        let states: Vec<_> = wire.segment_stats.iter().map(WireSegment::state).collect();
        use WireState::*;
        assert_eq!(states, [SsPersist, SsCompacting, SsDumping, SsWriting]);
        let files: Vec<_> = wire.segment_stats.iter().map(|s| s.index_file_count).collect();
        assert_eq!(files, [1, 1, 3, 3]);

        let written = &wire.segment_stats[0];
        assert_eq!((written.min_timestamp, written.max_timestamp), (0, 0));
        assert_eq!((written.min_doc_id, written.max_doc_id), (1000, 1010));
        assert_eq!((written.min_primary_key, written.max_primary_key), (3, 8));
        let fresh = &wire.segment_stats[3];
        assert_eq!((fresh.min_timestamp, fresh.max_timestamp), (u64::MAX, 0));
        assert_eq!((fresh.min_doc_id, fresh.max_doc_id), (0, 0));
        assert_eq!((fresh.min_primary_key, fresh.min_lsn), (u64::MAX, u64::MAX));
        assert_eq!((fresh.max_primary_key, fresh.max_lsn), (0, 0));
    }
}
