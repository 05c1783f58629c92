//! What the engine's tests share: a database on a test disk, and writing and reading it as a caller
//! would, below the wire.

#![allow(dead_code)] // each test file uses its own part

pub mod brute;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use voisin::collection::{Collection, WriteOutcome};
use voisin::config::{Config, Durability};
use voisin::database::Database;
use voisin::error::Result;
use voisin::query::Hit;
use voisin::schema::{
    DeclaredType, ElementType, KnnRequest, NewCollection, NewColumn, Operation, RawQueryVectors,
    RawRow, RawVector, RawVectorMeta, RawWrite, Value,
};
use voisin::storage::TestDisk;

/// The collection that these tests use.
pub const NAME: &str = "images";
/// Its dimension.
pub const DIMENSION: u32 = 4;

/// A runtime for the asynchronous calls.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Settings that make segments, merges and log files come soon.
pub fn busy_config(durability: Durability) -> Config {
    let mut config = Config::default();
    config.storage.data = PathBuf::from("/data");
    config.storage.durability = durability;
    config.storage.log_file_bytes = 8 << 10;
    config.segment.seal_rows_max = 40;
    config.segment.graph_rows_min = 60;
    config.compute.search_threads = 2;
    config
}

/// Opens a database on a test disk.
pub fn open(disk: &TestDisk, config: &Config) -> Result<Arc<Database>> {
    Database::open_on(Arc::new(disk.clone()), config, None)
}

/// A column as declared.
pub fn column(
    name: &str,
    element: ElementType,
    dimension: u32,
    params: &[(&str, &str)],
) -> NewColumn {
    NewColumn {
        name: name.into(),
        index_type: 1,
        data_type: DeclaredType::Vector(element),
        dimension,
        extra_params: params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    }
}

/// The declaration of a collection with one FP32 column `v` and a forward column `version`.
pub fn declaration(name: &str) -> NewCollection {
    NewCollection {
        name: name.into(),
        forward_columns: vec!["version".into()],
        columns: vec![column("v", ElementType::Fp32, DIMENSION, &[])],
        ..NewCollection::default()
    }
}

/// Little-endian bytes of a float vector.
pub fn floats(vector: &[f32]) -> Bytes {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// The vector and the forward value that belong to a key and a version: a row that mixes two
/// versions is caught by either.
pub fn vector_of(key: u64, version: u64) -> [f32; DIMENSION as usize] {
    [key as f32, version as f32, (key * 7 % 13) as f32, 1.0]
}

/// One row of the collection.
pub fn row(key: u64, operation: Operation, version: u64) -> RawRow {
    RawRow {
        key,
        operation,
        forward: vec![Some(Value::UInt64(version))],
        vectors: vec![RawVector::Bytes(floats(&vector_of(key, version)))],
        lsn: None,
        condition: None,
    }
}

/// A write request of rows.
pub fn request(rows: Vec<RawRow>) -> RawWrite {
    RawWrite {
        forward_names: vec!["version".into()],
        vector_metas: vec![RawVectorMeta {
            column: "v".into(),
            element: Ok(ElementType::Fp32),
            dimension: DIMENSION,
        }],
        rows,
    }
}

/// Writes rows.
pub async fn write(collection: &Arc<Collection>, rows: Vec<RawRow>) -> Result<WriteOutcome> {
    collection.write(request(rows), None).await
}

/// The k nearest of a vector in the column `v`.
pub async fn nearest(
    collection: &Arc<Collection>,
    vector: &[f32],
    topk: u32,
    is_linear: bool,
) -> Result<Vec<Hit>> {
    let request = KnnRequest {
        column: "v".into(),
        topk,
        vectors: RawQueryVectors::Bytes(floats(vector)),
        batch_count: 1,
        is_linear,
        ..KnnRequest::default()
    };
    Ok(collection.query(request).await?.results.remove(0))
}

/// The version a row carries in its forward value.
pub fn version_of(hit: &Hit) -> u64 {
    match hit.forward.first() {
        Some(Some(Value::UInt64(version))) => *version,
        other => panic!("key {} has {other:?} for a version", hit.key),
    }
}

/// Every live row as (key, version), each checked to be whole: its vector and its forward value are
/// of the same version, it is found by its key, and no key comes twice.
pub async fn contents(collection: &Arc<Collection>) -> Result<Vec<(u64, u64)>> {
    let origin = [0.0; DIMENSION as usize];
    let hits = nearest(collection, &origin, 1_000_000, true).await?;
    let mut rows = Vec::with_capacity(hits.len());
    for hit in &hits {
        let version = version_of(hit);
        let expected: f32 = vector_of(hit.key, version).iter().map(|x| x * x).sum();
        assert_eq!(hit.score, expected, "key {} mixes two versions", hit.key);
        let fetched = collection.get(hit.key).await?;
        assert_eq!(fetched.map(|f| f.forward), Some(hit.forward.clone()), "key {}", hit.key);
        rows.push((hit.key, version));
    }
    rows.sort_unstable();
    assert!(rows.windows(2).all(|pair| pair[0].0 != pair[1].0), "a key is live twice: {rows:?}");
    Ok(rows)
}
