//! How long filters take over a sealed segment of a million rows, on one thread: `cargo bench --bench
//! filters`. First without, then with the rows in the order of the columns; the fastest and the median of
//! many times, in milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use voisin::collection::Collection;
use voisin::config::{Config, Durability};
use voisin::database::Database;
use voisin::index::RowSet;
use voisin::query::filter::Filter;
use voisin::query::{RowFilter, SegmentRef};
use voisin::schema::{
    DeclaredType, ElementType, NewCollection, NewColumn, Operation, RawRow, RawVector,
    RawVectorMeta, RawWrite, Value,
};

const ROWS: u64 = 1_000_000;
const BATCH: u64 = 50_000;
const TIMES: usize = 200;

const COLUMNS: [&str; 7] = ["chance", "time", "price", "owner", "path", "flag", "mixed"];

const FILTERS: [&str; 18] = [
    "chance < 10000",
    "chance < 500000",
    "100000 < chance <= 600000",
    "price >= 0.25 and price < 0.75",
    "time > 900000",
    "mixed > 500000",
    "chance == 123456",
    "owner == \"user-777\"",
    "path == \"/pictures/2024/01/123456.jpg\"",
    "owner in [\"user-1\", \"user-22\", \"user-333\", \"user-444\", \"user-5\"]",
    "path like \"/pictures/2024/01/1234%\"",
    "path like \"%3456%\"",
    "path like \"%_3456.jpg\"",
    "flag and owner == \"user-777\"",
    "flag and price < 0.5",
    "chance % 10 == 3",
    "chance + time * 2 > price * 1000000",
    "not (owner == \"user-777\") or chance is null",
];

fn values(key: u64, rng: &mut StdRng) -> Vec<Option<Value>> {
    let chance = rng.random_range(0..ROWS as i64);
    let mixed = match key % 3 {
        0 => Value::Int64(chance),
        1 => Value::Double(chance as f64),
        _ => Value::String(format!("{chance}")),
    };
    vec![
        Some(Value::Int64(chance)),
        Some(Value::UInt64(key)),
        Some(Value::Float(rng.random())),
        Some(Value::String(format!("user-{}", rng.random_range(0..1_000)))),
        Some(Value::String(format!("/pictures/2024/{:02}/{key}.jpg", key % 12 + 1))),
        rng.random_ratio(9, 10).then(|| Value::Bool(rng.random())),
        Some(mixed),
    ]
}

/// Evaluates a filter many times, where a segment is at hand.
struct Timed {
    filter: Filter,
    times: Mutex<Vec<Duration>>,
}

impl RowFilter for Timed {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let SegmentRef::Sealed(sealed) = segment else { return Arc::default() };
        assert_eq!(u64::from(sealed.rows()), ROWS, "one segment has all rows");
        for _ in 0..TIMES {
            let started = Instant::now();
            std::hint::black_box(self.filter.rows(segment));
            self.times.lock().push(started.elapsed());
        }
        self.filter.rows(segment)
    }
}

async fn load(collection: &Arc<Collection>) {
    let mut rng = StdRng::seed_from_u64(5);
    for first in (0..ROWS).step_by(BATCH as usize) {
        let row = |key: u64| RawRow {
            key,
            operation: Operation::Insert,
            forward: values(key, &mut rng),
            vectors: vec![RawVector::Bytes((key as f32).to_le_bytes().to_vec().into())],
            lsn: None,
            condition: None,
        };
        let meta =
            RawVectorMeta { column: "v".into(), element: Ok(ElementType::Fp32), dimension: 1 };
        let raw = RawWrite {
            forward_names: COLUMNS.map(String::from).into(),
            vector_metas: vec![meta],
            rows: (first..first + BATCH).map(row).collect(),
        };
        collection.write(raw, None).await.expect("the rows are taken");
    }
    collection.settle();
}

async fn measure(collection: &Arc<Collection>, title: &str) {
    println!("{title:60} {:>8} {:>8} {:>9}", "fastest", "median", "rows");
    for text in FILTERS {
        // What it let through is not remembered: each time is that of a new filter.
        let filter = Filter::parse(text, &[], collection.schema()).expect("a filter").once();
        let timed = Arc::new(Timed { filter, times: Mutex::default() });
        let rows = collection.count(Some(timed.clone())).await.expect("a count");
        let mut times = timed.times.lock().clone();
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{text:60} {:8.3} {:8.3} {rows:9}", ms(times[0]), ms(times[TIMES / 2]));
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::default();
    config.storage.data = folder.path().to_owned();
    config.storage.durability = Durability::Process;
    config.segment.seal_rows_max = ROWS;
    config.segment.graph_rows_min = u32::MAX.into();
    let column = NewColumn {
        name: "v".into(),
        index_type: 1,
        data_type: DeclaredType::Vector(ElementType::Fp32),
        dimension: 1,
        extra_params: Vec::new(),
    };
    let declared = NewCollection {
        name: "filters".into(),
        forward_columns: COLUMNS.map(Into::into).into(),
        columns: vec![column],
        ..NewCollection::default()
    };
    let open = |filter_index_rows_min: u32| {
        let mut config = config.clone();
        config.segment.filter_index_rows_min = filter_index_rows_min;
        Database::open(&config).expect("the folder opens")
    };
    runtime.block_on(async {
        let database = open(u32::MAX);
        database.create_collection(declared).await.expect("it is new");
        let collection = database.collection("filters").expect("it is there");
        load(&collection).await;
        measure(&collection, "without an order of values").await;
        database.close();
        drop((collection, database));
        let database = open(0);
        let collection = database.collection("filters").expect("it is there");
        for text in FILTERS {
            let filter = Filter::parse(text, &[], collection.schema()).expect("a filter");
            collection.count(Some(Arc::new(filter))).await.expect("a count");
        }
        let started = Instant::now();
        collection.settle();
        let bytes = collection.memory().filters;
        println!("\norders made in {:?}, {bytes} bytes", started.elapsed());
        measure(&collection, "with the rows in the order of values").await;
        database.close();
    });
}
