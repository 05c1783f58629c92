//! Queries that may find only some of the rows: k means k and 95 of 100 are found, whatever share is
//! allowed and wherever it lies, by every metric that graphs are made for, in a segment large enough for
//! every plan there is. Some rows have no vector in some columns.

mod engine;

use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use engine::{NAME, busy_config, column, floats, open, runtime};
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
const CLUSTERS: u64 = 50;
const K: u32 = 10;
/// Queries for every share, and what each share may fall short by chance with so many of them.
const QUERIES: u64 = 80;
const CHANCE: f64 = 0.025;

/// A column with vectors of its own.
struct Column {
    name: &'static str,
    metric: &'static str,
    element: ElementType,
    dimension: u32,
    /// One row of ten of each cluster has no vector in it; which one.
    lacks: Option<u64>,
    /// How much longer or shorter than others a vector is at most, as times its length.
    spread: f32,
}

const L2: Column = Column {
    name: "l2",
    metric: "SquaredEuclidean",
    element: ElementType::Fp32,
    dimension: 40,
    lacks: None,
    spread: 0.0,
};

const COLUMNS: [Column; 5] = [
    L2,
    Column { name: "ip", metric: "InnerProduct", lacks: Some(7), spread: 0.05, ..L2 },
    // Inner products favour what is long.
    Column { name: "ip of all lengths", metric: "InnerProduct", spread: 0.5, ..L2 },
    Column { name: "cos", metric: "Cosine", lacks: Some(3), spread: 0.5, ..L2 },
    Column {
        name: "bits",
        metric: "Hamming",
        element: ElementType::Binary64,
        dimension: 128,
        lacks: Some(5),
        ..L2
    },
];

/// Which row of ten of its cluster a key is.
fn place(key: u64) -> u64 {
    key / CLUSTERS % 10
}

impl Column {
    fn has(&self, key: u64) -> bool {
        self.lacks != Some(place(key))
    }

    /// A vector in the cluster of its key.
    fn vector(&self, key: u64, rng: &mut StdRng) -> Bytes {
        let cluster = key % CLUSTERS;
        if self.element == ElementType::Binary64 {
            let mut center = StdRng::seed_from_u64(cluster);
            let word = |_| {
                // One bit of eight differs from the cluster's.
                let noise = rng.random::<u64>() & rng.random::<u64>() & rng.random::<u64>();
                (center.random::<u64>() ^ noise).to_le_bytes()
            };
            return (0..self.dimension / 64).flat_map(word).collect::<Vec<u8>>().into();
        }
        let length = 1.0 + self.spread * rng.random_range(-1.0..=1.0f32);
        let number = |i: u32| {
            let center = (cluster as f32 * (i + 1) as f32).sin();
            length * (center + rng.random_range(-0.5..0.5f32))
        };
        floats(&(0..self.dimension).map(number).collect::<Vec<f32>>())
    }
}

/// Lets keys through that it accepts.
struct Keys<F>(F);

impl<F: Fn(u64) -> bool + Send + Sync> RowFilter for Keys<F> {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let is_in = |row: u32| segment.key(row).is_some_and(&self.0);
        Arc::new(RowSet::from_fn(segment.rows() as u32, is_in))
    }
}

fn raw_row(key: u64, operation: Operation, vectors: Vec<RawVector>) -> RawRow {
    RawRow { key, operation, forward: Vec::new(), vectors, lsn: None, condition: None }
}

async fn write(collection: &Arc<Collection>, columns: &[&Column], rows: Vec<RawRow>) {
    let meta = |column: &&Column| RawVectorMeta {
        column: column.name.into(),
        element: Ok(column.element),
        dimension: column.dimension,
    };
    let vector_metas = columns.iter().map(meta).collect();
    let raw = RawWrite { forward_names: Vec::new(), vector_metas, rows };
    assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
}

async fn search(
    collection: &Arc<Collection>,
    column: &Column,
    vector: &Bytes,
    is_exact: bool,
    filter: &Arc<dyn RowFilter>,
) -> Vec<Hit> {
    let request = KnnRequest {
        column: column.name.into(),
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
    let mut short = Vec::new();
    for column in &COLUMNS {
        check_column(collection, column, rng, &mut short).await;
    }
    assert!(short.is_empty(), "column, one in, whole clusters, recall: {short:?}");
}

/// Adds to `short` what is found with too low a recall.
async fn check_column(
    collection: &Arc<Collection>,
    column: &Column,
    rng: &mut StdRng,
    short: &mut Vec<(&'static str, u64, bool, f64)>,
) {
    let mut of_all = (0, 0);
    for one_in in [2_000, 150, 60, 25, 17, 13, 9, 6, 3, 1] {
        for by_cluster in [false, true] {
            // Of all clusters, and of what is in each.
            let is_allowed = move |key: u64, asked: u64| match by_cluster {
                false => (key / CLUSTERS).is_multiple_of(one_in),
                true => (key % CLUSTERS + asked + 1).is_multiple_of(one_in),
            };
            let (mut good, mut wanted) = (0, 0);
            for asked in 0..QUERIES {
                let vector = column.vector(asked, rng);
                let filter: Arc<dyn RowFilter> = Arc::new(Keys(move |key| is_allowed(key, asked)));
                let exact = search(collection, column, &vector, true, &filter).await;
                let found = search(collection, column, &vector, false, &filter).await;
                assert_eq!(found.len(), exact.len(), "k means k");
                let Some(edge) = exact.last().map(|hit| hit.score) else { continue };
                let fits = |key| is_allowed(key, asked) && column.has(key);
                assert!(found.iter().all(|hit| fits(hit.key)), "{found:?}");
                good += found.iter().filter(|hit| hit.score <= edge).count();
                wanted += exact.len();
            }
            of_all = (of_all.0 + good, of_all.1 + wanted);
            let recall = good as f64 / f64::from(wanted.max(1) as u32);
            if wanted > 0 && recall < 0.95 - CHANCE {
                short.push((column.name, one_in, by_cluster, recall));
            }
        }
    }
    assert!(of_all.0 as f64 >= 0.97 * of_all.1 as f64, "{}: {of_all:?}", column.name);
}

#[test]
fn k_are_found_at_any_share_and_anywhere_by_any_metric() {
    runtime().block_on(async {
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 64 << 20;
        config.segment.seal_rows_max = ROWS;
        let database = open(&TestDisk::new(), &config).unwrap();
        let columns = COLUMNS.iter().map(|own| {
            column(own.name, own.element, own.dimension, &[("metric_type", own.metric)])
        });
        let columns = columns.collect();
        let declared = NewCollection { name: NAME.into(), columns, ..NewCollection::default() };
        database.create_collection(declared).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(4);
        for batch in 0..ROWS / BATCH {
            // What rows lack decides which of them are written together.
            for own in 0..10 {
                let present: Vec<&Column> =
                    COLUMNS.iter().filter(|column| column.lacks != Some(own)).collect();
                let keys = (batch * BATCH..(batch + 1) * BATCH).filter(|key| place(*key) == own);
                let row = |key| {
                    let vector = |column: &&Column| RawVector::Bytes(column.vector(key, &mut rng));
                    raw_row(key, Operation::Insert, present.iter().map(vector).collect())
                };
                write(&collection, &present, keys.map(row).collect()).await;
            }
        }
        collection.settle();
        let (largest, report) = (collection.stats().segments[0].live_rows, collection.indexing());
        assert!(largest > 50_000 && report.rows_waiting < 1_000, "{largest}, {report:?}");
        check(&collection, &mut rng).await;
        let deleted = (0..ROWS).filter(|key| key % 11 < 2);
        let deleted: Vec<RawRow> =
            deleted.map(|key| raw_row(key, Operation::Delete, Vec::new())).collect();
        for rows in deleted.chunks(BATCH as usize) {
            write(&collection, &[], rows.to_vec()).await;
        }
        check(&collection, &mut rng).await;
        database.close();
    });
}
