//! Queries that may find only some of the rows: k means k and 95 of 100 are found, whatever share is
//! allowed and wherever it lies, in a segment large enough for every plan there is.

mod engine;

use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use engine::{NAME, busy_config, column, open, runtime};
use voisin::collection::Collection;
use voisin::config::Durability;
use voisin::index::RowSet;
use voisin::query::{Hit, RowFilter, SegmentRef};
use voisin::schema::{
    ElementType, KnnRequest, NewCollection, Operation, RawQueryVectors, RawRow, RawVector,
    RawVectorMeta, RawWrite, SearchParams,
};
use voisin::storage::TestDisk;

const ROWS: u64 = 60_000;
const BATCH: u64 = 6_000;
const DIMENSION: u32 = 40;
const CLUSTERS: u64 = 50;
const K: u32 = 10;

/// Lets keys through that it accepts.
struct Keys<F>(F);

impl<F: Fn(u64) -> bool + Send + Sync> RowFilter for Keys<F> {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let is_in = |row: u32| segment.key(row).is_some_and(&self.0);
        Arc::new(RowSet::from_fn(segment.rows() as u32, is_in))
    }
}

/// A vector in the cluster of its key.
fn vector(key: u64, rng: &mut StdRng) -> Bytes {
    let cluster = (key % CLUSTERS) as f32;
    let number = |i: u32| (cluster * (i + 1) as f32).sin() + rng.random_range(-0.5..0.5f32);
    engine::floats(&(0..DIMENSION).map(number).collect::<Vec<f32>>())
}

async fn write(collection: &Arc<Collection>, rows: Vec<RawRow>) {
    let meta =
        RawVectorMeta { column: "v".into(), element: Ok(ElementType::Fp32), dimension: DIMENSION };
    let raw = RawWrite { forward_names: Vec::new(), vector_metas: vec![meta], rows };
    assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
}

async fn search(
    collection: &Arc<Collection>,
    vector: &Bytes,
    is_exact: bool,
    filter: &Arc<dyn RowFilter>,
) -> Vec<Hit> {
    let request = KnnRequest {
        column: "v".into(),
        topk: K,
        vectors: RawQueryVectors::Bytes(vector.clone()),
        batch_count: 1,
        params: Some(Ok(SearchParams { exact: is_exact, ..SearchParams::default() })),
        ..KnnRequest::default()
    };
    collection.query_among(request, Some(filter.clone())).await.unwrap().results.remove(0)
}

/// One row in so many, wherever it lies, and whole clusters, one in so many.
async fn check(collection: &Arc<Collection>, rng: &mut StdRng) {
    for one_in in [2_000, 150, 60, 25, 17, 13, 9, 6, 3, 1] {
        for by_cluster in [false, true] {
            // Of all clusters, and of what is in each.
            let is_allowed = move |key: u64, asked: u64| match by_cluster {
                false => (key / CLUSTERS).is_multiple_of(one_in),
                true => (key % CLUSTERS + asked + 1).is_multiple_of(one_in),
            };
            let (mut good, mut wanted) = (0, 0);
            for asked in 0..40 {
                let vector = vector(asked, rng);
                let filter: Arc<dyn RowFilter> = Arc::new(Keys(move |key| is_allowed(key, asked)));
                let exact = search(collection, &vector, true, &filter).await;
                let found = search(collection, &vector, false, &filter).await;
                assert_eq!(found.len(), exact.len(), "k means k");
                let Some(edge) = exact.last().map(|hit| hit.score) else { continue };
                assert!(found.iter().all(|hit| is_allowed(hit.key, asked)), "{found:?}");
                good += found.iter().filter(|hit| hit.score <= edge).count();
                wanted += exact.len();
            }
            let recall = good as f64 / f64::from(wanted.max(1) as u32);
            assert!(wanted == 0 || recall >= 0.95, "{recall}: one in {one_in}, {by_cluster}");
        }
    }
}

#[test]
fn k_are_found_at_any_share_and_anywhere() {
    runtime().block_on(async {
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 64 << 20;
        config.segment.seal_rows_max = ROWS;
        let database = open(&TestDisk::new(), &config).unwrap();
        let columns = vec![column("v", ElementType::Fp32, DIMENSION, &[])];
        let declared = NewCollection { name: NAME.into(), columns, ..NewCollection::default() };
        database.create_collection(declared).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(4);
        for batch in 0..ROWS / BATCH {
            let row = |key| RawRow {
                key,
                operation: Operation::Insert,
                forward: Vec::new(),
                vectors: vec![RawVector::Bytes(vector(key, &mut rng))],
                lsn: None,
                condition: None,
            };
            let rows = (batch * BATCH..(batch + 1) * BATCH).map(row).collect();
            write(&collection, rows).await;
        }
        collection.settle();
        let (largest, report) = (collection.stats().segments[0].live_rows, collection.indexing());
        assert!(largest > 50_000 && report.rows_waiting < 1_000, "{largest}, {report:?}");
        check(&collection, &mut rng).await;
        let deleted = (0..ROWS).filter(|key| key % 11 < 2).map(|key| RawRow {
            key,
            operation: Operation::Delete,
            forward: Vec::new(),
            vectors: Vec::new(),
            lsn: None,
            condition: None,
        });
        let mut deleted: Vec<RawRow> = deleted.collect();
        while !deleted.is_empty() {
            let rest = deleted.split_off(deleted.len().min(BATCH as usize));
            write(&collection, std::mem::replace(&mut deleted, rest)).await;
        }
        check(&collection, &mut rng).await;
        database.close();
    });
}
