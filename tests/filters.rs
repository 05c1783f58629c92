//! Filters over whole segments: whatever the expression and the values, a segment's rows are those that
//! the plain meaning of the filter lets through, row by row. Sealed segments with and without an order of
//! their values, growing ones, and segments of several batches.

mod engine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use engine::{NAME, busy_config, column, floats, open, runtime};
use voisin::collection::Collection;
use voisin::config::Durability;
use voisin::database::Database;
use voisin::index::RowSet;
use voisin::query::filter::Filter;
use voisin::query::{RowFilter, SegmentRef};
use voisin::schema::{
    ElementType, FilterParam, ForwardRow, NewCollection, Operation, RawRow, RawVector,
    RawVectorMeta, RawWrite, Value,
};
use voisin::storage::TestDisk;

/// Expressions tried on each kind of segments.
const CASES: usize = 10_000;
/// Rows written at once.
const BATCH: u64 = 5_000;

/// The forward columns; the values of each are made by [`value`].
const COLUMNS: [&str; 12] =
    ["mixed", "i32", "i64", "u32", "u64", "f32", "f64", "text", "word", "flag", "blob", "never"];

type Params = Vec<(String, FilterParam)>;

/// What each key holds.
type Model = BTreeMap<u64, ForwardRow>;

/// Numbers at and beside all limits, as they are written.
const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "0.5",
    "-2.5",
    "0.1",
    "1e308",
    "-1e308",
    "5e-324",
    "9007199254740992",
    "9007199254740993",
    "9007199254740993.0",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "4294967295",
    "-2147483648",
    "2147483648",
    "3.4028234663852886e38",
    "16777217",
];

const TEXTS: [&str; 14] = [
    "",
    "a",
    "ab",
    "abc",
    "b",
    "A",
    "\u{e9}",
    "e\u{301}",
    "\u{4f60}\u{597d}",
    "a%b",
    "a_b",
    "a\\b",
    "\u{1F600}\u{1F600}",
    "abcabcabcabd",
];

const PATTERNS: [&str; 16] = [
    "%",
    "a%",
    "%b",
    "%b%",
    "ab",
    "a_c%",
    "_",
    "__",
    "%\u{597d}",
    r"a\%b",
    r"a\_b",
    r"%\\%",
    "%a%c%",
    "\u{e9}%",
    "%abd",
    "a%%c",
];

fn ints(rng: &mut StdRng) -> i128 {
    const EDGES: [i128; 12] = [
        i32::MIN as i128,
        i32::MAX as i128,
        i64::MIN as i128,
        i64::MAX as i128,
        u32::MAX as i128,
        u64::MAX as i128,
        1 << 53,
        (1 << 53) + 1,
        1 << 24,
        (1 << 24) + 1,
        1 << 63,
        0,
    ];
    match rng.random_range(0..8) {
        0 => *EDGES.choose(rng).unwrap(),
        1 => rng.random::<u64>().into(),
        _ => rng.random_range(-5..9),
    }
}

fn float(rng: &mut StdRng) -> f64 {
    const EDGES: [f64; 10] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        f64::MAX,
        5e-324,
        9007199254740992.0,
        18446744073709551616.0,
        0.1,
        1e308,
    ];
    match rng.random_range(0..6) {
        0 => *EDGES.choose(rng).unwrap(),
        1 => f64::from_bits(rng.random()),
        _ => f64::from(rng.random_range(-6..7i8)) / 2.0,
    }
}

fn of_kind(kind: usize, rng: &mut StdRng) -> Value {
    match kind {
        0 => Value::Bytes(vec![rng.random_range(0..3); rng.random_range(0..3)].into()),
        1 => Value::String((*TEXTS.choose(rng).unwrap()).into()),
        2 => Value::Bool(rng.random()),
        3 => Value::Int32(ints(rng) as i32),
        4 => Value::Int64(ints(rng) as i64),
        5 => Value::UInt32(ints(rng) as u32),
        6 => Value::UInt64(ints(rng) as u64),
        7 => Value::Float(float(rng) as f32),
        _ => Value::Double(float(rng)),
    }
}

/// A value of a column.
fn value(column: &str, key: u64, rng: &mut StdRng) -> Option<Value> {
    let is_set = !rng.random_ratio(1, 6);
    match column {
        // Always set, and in the order of the keys: zones tell much of it.
        "i32" => Some(Value::Int32((key / 100) as i32 - 20)),
        "u32" => Some(Value::UInt32((key % 7) as u32)),
        "never" => None,
        _ if !is_set => None,
        "mixed" => Some(of_kind(rng.random_range(0..9), rng)),
        "i64" => Some(of_kind(4, rng)),
        "u64" => Some(of_kind(6, rng)),
        "f32" => Some(of_kind(7, rng)),
        "f64" => Some(of_kind(8, rng)),
        "text" => Some(of_kind(1, rng)),
        "word" => Some(Value::String(format!("w{}", rng.random_range(0..2_000)))),
        "flag" => Some(of_kind(2, rng)),
        _ => Some(of_kind(0, rng)),
    }
}

/// Makes expressions.
struct Maker {
    rng: StdRng,
    params: Params,
}

impl Maker {
    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.choose(&mut self.rng).unwrap()
    }

    fn param(&mut self, param: FilterParam) -> String {
        let name = format!("p{}", self.params.len());
        self.params.push((name.clone(), param));
        format!("{{{name}}}")
    }

    fn column(&mut self) -> String {
        match self.rng.random_range(0..14) {
            0 => "_key".to_owned(),
            _ => self.pick(&COLUMNS).to_owned(),
        }
    }

    /// A value that is the same in all rows.
    fn constant(&mut self) -> String {
        match self.rng.random_range(0..6) {
            0 => {
                let kind = self.rng.random_range(0..9);
                let value = of_kind(kind, &mut self.rng);
                self.param(FilterParam::One(value))
            }
            1 => format!("{:?}", self.pick(&["w1", "w1000", "w15", "a", "abc", "\u{e9}"])),
            2 => self.pick(&["true", "false"]).to_owned(),
            _ => self.pick(&NUMBERS).to_owned(),
        }
    }

    fn number(&mut self, depth: u32) -> String {
        match self.rng.random_range(0..if depth == 0 { 2 } else { 4 }) {
            0 => self.pick(&NUMBERS).to_owned(),
            1 => {
                let columns = ["i32", "i64", "u32", "u64", "f32", "f64", "mixed", "_key", "text"];
                self.pick(&columns).to_owned()
            }
            2 => format!("-({})", self.number(depth - 1)),
            _ => {
                let operator = self.pick(&["+", "-", "*", "/", "%", "**"]);
                let (left, right) = (self.number(depth - 1), self.number(depth - 1));
                format!("({left}) {operator} ({right})")
            }
        }
    }

    fn value(&mut self, depth: u32) -> String {
        match self.rng.random_range(0..8) {
            0..4 => self.column(),
            4..6 => self.constant(),
            6 => format!("({})", self.number(depth)),
            _ if depth > 0 => format!("({})", self.condition(depth - 1)),
            _ => self.column(),
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        let most = if depth == 0 { 9 } else { 13 };
        match self.rng.random_range(0..most) {
            0..3 => {
                let comparison = self.pick(&["==", "!=", "<", "<=", ">", ">="]);
                let (left, right) = (self.value(depth), self.value(depth));
                format!("{left} {comparison} {right}")
            }
            3 => {
                let (low, high) = match self.rng.random() {
                    true => (self.pick(&["<", "<="]), self.pick(&["<", "<="])),
                    false => (self.pick(&[">", ">="]), self.pick(&[">", ">="])),
                };
                let (left, right) = (self.constant(), self.constant());
                format!("{left} {low} {} {high} {right}", self.column())
            }
            4 | 5 => {
                let not = self.pick(&["", "not "]);
                let list = self.list();
                format!("{} {not}in {list}", self.value(0))
            }
            6 => {
                let not = self.pick(&["", "not "]);
                let pattern = self.pick(&PATTERNS);
                let pattern = match self.rng.random() {
                    true => format!("'{}'", pattern.replace('\\', "\\\\")),
                    false => self.param(FilterParam::One(Value::String(pattern.into()))),
                };
                format!("{} {not}like {pattern}", self.value(0))
            }
            7 => format!("{} is {}null", self.value(0), self.pick(&["", "not "])),
            8 => match self.rng.random_range(0..3) {
                0 => self.pick(&["true", "false"]).to_owned(),
                1 => "flag".to_owned(),
                _ => self.pick(&COLUMNS).to_owned(),
            },
            9 | 10 => format!("not ({})", self.condition(depth - 1)),
            _ => {
                let word = self.pick(&[" and ", " or "]);
                let count = self.rng.random_range(2..4);
                let terms = (0..count).map(|_| format!("({})", self.condition(depth - 1)));
                terms.collect::<Vec<String>>().join(word)
            }
        }
    }

    fn list(&mut self) -> String {
        let count = *[0, 1, 2, 5, 40].choose(&mut self.rng).unwrap();
        match self.rng.random() {
            true => {
                let kinds = |rng: &mut StdRng| of_kind(rng.random_range(0..9), rng);
                let values = (0..count).map(|_| kinds(&mut self.rng)).collect();
                self.param(FilterParam::List(values))
            }
            false => {
                let items: Vec<String> = (0..count).map(|_| self.constant()).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

/// Compares the rows of each segment with the plain meaning of the filter.
struct Probe {
    filter: Filter,
    model: Arc<Model>,
    wrong: Mutex<Vec<String>>,
}

impl RowFilter for Probe {
    fn rows(&self, segment: &SegmentRef<'_>) -> Arc<RowSet> {
        let rows = self.filter.rows(segment);
        for row in 0..segment.rows() as u32 {
            let key = segment.key(row).expect("every row has a key");
            let forward = &self.model[&key];
            if rows.contains(row) != self.filter.matches(key, forward) {
                let sealed = matches!(segment, SegmentRef::Sealed(_));
                let words = format!("row {row}, key {key}, sealed {sealed}: {forward:?}");
                self.wrong.lock().push(words);
            }
        }
        rows
    }
}

struct Rows {
    collection: Arc<Collection>,
    model: Arc<Model>,
    deleted: Vec<u64>,
    database: Arc<Database>,
}

impl Rows {
    /// Rows in segments of at most `seal_rows`, with an order of their values from `order_rows_min` on.
    async fn write(count: u64, seal_rows: u64, order_rows_min: u32, seed: u64) -> Rows {
        let mut config = busy_config(Durability::Process);
        config.storage.log_file_bytes = 64 << 20;
        config.segment.seal_rows_max = seal_rows;
        config.segment.graph_rows_min = u32::MAX.into();
        config.segment.filter_index_rows_min = order_rows_min;
        let database = open(&TestDisk::new(), &config).unwrap();
        let declared = NewCollection {
            name: NAME.into(),
            forward_columns: COLUMNS.map(Into::into).into(),
            columns: vec![column("v", ElementType::Fp32, 1, &[])],
            ..NewCollection::default()
        };
        database.create_collection(declared).await.unwrap();
        let collection = database.collection(NAME).unwrap();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Model::new();
        for first in (0..count).step_by(BATCH as usize) {
            let row = |key: u64| {
                let forward: Vec<Option<Value>> =
                    COLUMNS.iter().map(|column| value(column, key, &mut rng)).collect();
                model.insert(key, forward.clone().into());
                raw_row(key, Operation::Insert, forward)
            };
            write(&collection, (first..count.min(first + BATCH)).map(row).collect()).await;
        }
        collection.settle();
        let deleted: Vec<u64> = (0..count).filter(|key| key % 13 == 4).collect();
        let rows = deleted.iter().map(|key| raw_row(*key, Operation::Delete, Vec::new()));
        write(&collection, rows.collect()).await;
        Rows { collection, model: model.into(), deleted, database }
    }

    /// Checks one filter over all segments, and how many live rows it counts.
    async fn check(&self, text: &str, params: &Params) {
        let told = || format!("{text}\n{params:?}");
        let filter = Filter::parse(text, params, self.collection.schema());
        let filter = filter.unwrap_or_else(|error| panic!("{error}\n{}", told()));
        let expected = self.model.iter().filter(|(key, forward)| filter.matches(**key, forward));
        let expected = expected.filter(|(key, _)| self.deleted.binary_search(key).is_err());
        let expected = expected.count() as u64;
        let (model, wrong) = (self.model.clone(), Mutex::default());
        let probe = Arc::new(Probe { filter, model, wrong });
        let counted = self.collection.count(Some(probe.clone())).await.unwrap();
        let wrong = probe.wrong.lock();
        assert!(wrong.is_empty(), "{}\n{} rows, such as {}", told(), wrong.len(), wrong[0]);
        assert_eq!(counted, expected, "{}", told());
    }

    async fn check_random(&self, seed: u64) {
        let mut maker = Maker { rng: StdRng::seed_from_u64(seed), params: Vec::new() };
        let depth = maker.rng.random_range(0..4);
        let text = maker.condition(depth);
        self.check(&text, &maker.params).await;
    }
}

fn raw_row(key: u64, operation: Operation, forward: Vec<Option<Value>>) -> RawRow {
    let vectors = match operation {
        Operation::Delete => Vec::new(),
        _ => vec![RawVector::Bytes(floats(&[key as f32]))],
    };
    RawRow { key, operation, forward, vectors, lsn: None, condition: None }
}

async fn write(collection: &Arc<Collection>, rows: Vec<RawRow>) {
    let meta = RawVectorMeta { column: "v".into(), element: Ok(ElementType::Fp32), dimension: 1 };
    let forward_names = COLUMNS.map(String::from).into();
    let raw = RawWrite { forward_names, vector_metas: vec![meta], rows };
    assert_eq!(collection.write(raw, None).await.unwrap().failures, []);
}

#[test]
fn random_filters_let_through_what_they_mean_row_by_row() {
    runtime().block_on(async {
        for (order_rows_min, seed) in [(u32::MAX, 1), (0, 2)] {
            // Two runs of arithmetic and a rest in the larger segment; some rows stay unsealed.
            let rows = Rows::write(2_900, 2_500, order_rows_min, seed).await;
            let stats = rows.collection.stats();
            assert!(stats.segments.last().unwrap().live_rows > 0, "{stats:?}");
            for case in 0..CASES as u64 / 2 {
                rows.check_random(seed * CASES as u64 + case).await;
                if case == 200 {
                    rows.collection.settle();
                    assert_eq!(rows.collection.memory().filters > 0, order_rows_min == 0);
                }
            }
            rows.database.close();
        }
    });
}

#[test]
fn filters_hold_over_several_batches_of_a_segment() {
    runtime().block_on(async {
        for order_rows_min in [u32::MAX, 0] {
            let rows = Rows::write(70_000, 69_000, order_rows_min, 3).await;
            assert!(rows.collection.stats().segments[0].live_rows > 60_000);
            let filters = [
                "i32 > 400 and i32 <= 660",
                "word in ['w7', 'w1999'] or i64 == 3",
                "word like 'w19%' and not flag",
                "_key % 1000 == 7 and u64 + i64 > 3",
                "f64 != 1.5",
                "text > 'ab' or mixed is null",
            ];
            for _ in 0..2 {
                for text in filters {
                    rows.check(text, &Vec::new()).await;
                }
                // What they asked for is there the second time.
                rows.collection.settle();
            }
            assert_eq!(rows.collection.memory().filters > 0, order_rows_min == 0);
            rows.database.close();
        }
    });
}

/// For as many seconds as `VOISIN_FILTER_SECONDS` says.
#[test]
#[ignore = "takes as long as it is told to"]
fn random_filters_for_a_long_time() {
    let seconds = std::env::var("VOISIN_FILTER_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    runtime().block_on(async {
        let mut cases = 0u64;
        while Instant::now() < until {
            let seed: u64 = rand::random();
            println!("seed {seed}");
            let mut rng = StdRng::seed_from_u64(seed);
            let order_rows_min = if rng.random() { 0 } else { u32::MAX };
            let rows = Rows::write(rng.random_range(1..4_000), 1_500, order_rows_min, seed).await;
            for case in 0..2_000 {
                rows.check_random(seed.wrapping_add(case)).await;
                cases += 1;
                if case == 100 {
                    rows.collection.settle();
                }
            }
            rows.database.close();
        }
        println!("{cases} filters");
    });
}
