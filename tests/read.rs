//! What reading rows promises, over the real port of the real program: every row of one moment, once,
//! in key order, as it was written, whatever is written and merged meanwhile.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::StreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tonic::Code;

use support::PATIENCE;
use support::photos::{DIMENSION, FP32, NAME, Served, floats, vectors};
use voisin::server::proto::voisin_v1::{
    CountRequest, ForwardColumn, ForwardNames, GetRequest, Operation, ReadRequest, Rows,
    ScrollRequest, Value, VectorNames, WriteRequest, value::Kind,
};

/// Segments are sealed and merged all the time.
const SMALL: [(&str, &str); 2] =
    [("VOISIN__SEGMENT__SEAL_ROWS_MAX", "300"), ("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "700")];

fn names(names: &[&str]) -> Option<ForwardNames> {
    Some(ForwardNames { names: names.iter().map(|name| (*name).to_owned()).collect() })
}

fn all_vectors() -> Option<VectorNames> {
    Some(VectorNames { names: vec!["*".into()] })
}

/// What a key holds: the number that its values are made of, and whether it has a vector in `w`.
type Model = BTreeMap<u64, (u64, bool)>;

fn path(number: u64) -> Value {
    Value { kind: (!number.is_multiple_of(3)).then(|| Kind::StringValue(format!("{number}.jpg"))) }
}

/// Checks that rows are just those of the model, in its order, with all they hold.
fn check<'m>(rows: &Rows, expected: impl Iterator<Item = (&'m u64, &'m (u64, bool))> + Clone) {
    let keys: Vec<u64> = expected.clone().map(|(key, _)| *key).collect();
    assert_eq!(rows.keys, keys);
    let [forward] = &rows.forwards[..] else { panic!("one forward column") };
    assert_eq!(forward.name, "path");
    let paths: Vec<Value> = expected.clone().map(|(_, (number, _))| path(*number)).collect();
    assert_eq!(forward.values, paths);
    let [v, w] = &rows.vectors[..] else { panic!("two index columns") };
    assert_eq!((v.name.as_str(), w.name.as_str(), w.dimension), ("v", "w", DIMENSION));
    assert_eq!(v.vectors, floats(expected.clone().map(|(_, (number, _))| *number)));
    let with_w = expected.clone().filter(|(_, (_, has_w))| *has_w).map(|(_, (number, _))| *number);
    assert_eq!(w.vectors, floats(with_w));
    let counts: Vec<u32> = expected.map(|(_, (_, has_w))| u32::from(*has_w)).collect();
    let counts_left_out = w.counts.is_empty() && counts.iter().all(|count| *count == 1);
    assert!(w.counts == counts || counts_left_out, "{:?} is not {counts:?}", w.counts);
    assert!(v.counts.is_empty());
}

struct Pictures {
    served: Served,
    model: Model,
    random: StdRng,
}

impl Pictures {
    async fn start(settings: &[(&str, &str)]) -> Pictures {
        let served = Served::start(settings).await;
        served.create(NAME, &[("v", FP32), ("w", FP32)], &["path"]).await;
        Pictures { served, model: Model::new(), random: StdRng::seed_from_u64(11) }
    }

    /// Writes rows of one kind, and what they become into the model.
    async fn write(&mut self, operation: Operation, keys: Vec<u64>, has_w: bool) {
        let numbers: Vec<u64> = keys.iter().map(|_| self.random.random_range(0..10_000)).collect();
        for (key, number) in keys.iter().zip(&numbers) {
            match operation {
                Operation::Delete => self.model.remove(key),
                _ => self.model.insert(*key, (*number, has_w)),
            };
        }
        let columns = if has_w { &["v", "w"][..] } else { &["v"] };
        let written = columns.iter().map(|name| vectors(name, numbers.iter().copied()));
        self.served
            .write(WriteRequest {
                collection: NAME.into(),
                keys,
                operation: operation.into(),
                vectors: written.collect(),
                forwards: vec![ForwardColumn {
                    name: "path".into(),
                    values: numbers.iter().map(|number| path(*number)).collect(),
                }],
                ..Default::default()
            })
            .await;
    }

    /// Some inserts, updates and deletes, anywhere among the keys.
    async fn change(&mut self) {
        for has_w in [true, false] {
            let fresh: BTreeSet<u64> =
                (0..150).map(|_| self.random.random_range(0..1 << 40)).collect();
            let fresh = fresh.into_iter().filter(|key| !self.model.contains_key(key)).collect();
            self.write(Operation::Insert, fresh, has_w).await;
            let share = self.random.random_range(2..20);
            let some: Vec<u64> = self.model.keys().copied().step_by(share).collect();
            self.write(Operation::Update, some, has_w).await;
        }
        let some: Vec<u64> = self.model.keys().copied().skip(3).step_by(7).collect();
        self.write(Operation::Delete, some, true).await;
    }

    async fn scroll(&self, cursor: &str, limit: u32) -> (Rows, String) {
        let request = ScrollRequest {
            collection: NAME.into(),
            vectors: all_vectors(),
            limit,
            cursor: cursor.into(),
            ..Default::default()
        };
        let page = self.served.voisin().scroll(request).await.expect("a page").into_inner();
        (page.rows.expect("rows"), page.cursor)
    }
}

#[tokio::test]
async fn streams_and_pages_have_every_row_of_one_moment_whatever_is_written_meanwhile() {
    let mut pictures = Pictures::start(&SMALL).await;
    for round in 0..8 {
        pictures.change().await;
        let then = pictures.model.clone();
        let request =
            ReadRequest { collection: NAME.into(), vectors: all_vectors(), ..Default::default() };
        let stream = pictures.served.voisin().read(request).await.expect("the stream opens");
        let (page, mut cursor) = pictures.scroll("", 100).await;
        check(&page, then.iter().take(100));
        let mut seen = 100;
        while !cursor.is_empty() {
            if seen < 500 {
                pictures.change().await;
            }
            let limit = 1 + (seen as u32 * 37) % 400;
            let (page, next) = pictures.scroll(&cursor, limit).await;
            check(&page, then.iter().skip(seen).take(limit as usize));
            // A caller who did not get the page asks again.
            let again = pictures.scroll(&cursor, limit).await;
            assert_eq!(again, (page.clone(), next.clone()));
            (seen, cursor) = (seen + page.keys.len(), next);
        }
        assert_eq!(seen, then.len(), "round {round}");
        let messages: Vec<Rows> =
            stream.into_inner().map(|rows| rows.expect("the stream goes on")).collect().await;
        let mut seen = 0;
        for rows in messages {
            check(&rows, then.iter().skip(seen).take(rows.keys.len()));
            seen += rows.keys.len();
        }
        assert_eq!(seen, then.len(), "round {round}");
        let count = CountRequest { collection: NAME.into(), ..Default::default() };
        let count = pictures.served.voisin().count(count).await.expect("a count").into_inner();
        assert_eq!(count.rows, pictures.model.len() as u64);
    }
}

#[tokio::test]
async fn rows_of_keys_come_in_the_order_asked_for_without_those_that_are_not() {
    let mut pictures = Pictures::start(&SMALL).await;
    for _ in 0..4 {
        pictures.change().await;
        let mut keys: Vec<u64> = pictures.model.keys().rev().copied().step_by(3).collect();
        let found: Vec<(u64, (u64, bool))> =
            keys.iter().map(|key| (*key, pictures.model[key])).collect();
        keys.insert(2, u64::MAX);
        keys.push((1 << 40) + 1);
        let request = GetRequest {
            collection: NAME.into(),
            keys,
            vectors: all_vectors(),
            ..Default::default()
        };
        let rows = pictures.served.voisin().get(request).await.expect("rows").into_inner();
        check(&rows, found.iter().map(|(key, value)| (key, value)));
    }
    let request = GetRequest {
        collection: NAME.into(),
        keys: pictures.model.keys().copied().take(2).collect(),
        forwards: names(&[]),
        ..Default::default()
    };
    let rows = pictures.served.voisin().get(request).await.expect("rows").into_inner();
    assert_eq!((rows.keys.len(), rows.forwards.len(), rows.vectors.len()), (2, 0, 0));
}

#[tokio::test]
async fn a_stream_that_broke_goes_on_behind_the_last_key() {
    let served = Served::with_photos(1_000, &SMALL).await;
    let request = ReadRequest { collection: NAME.into(), after: Some(399), ..Default::default() };
    let stream = served.voisin().read(request).await.expect("the stream opens").into_inner();
    let keys: Vec<u64> =
        stream.flat_map(|rows| futures::stream::iter(rows.expect("rows").keys)).collect().await;
    assert!(keys.into_iter().eq(400..1_000));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let settings = [
        ("VOISIN__LIMITS__READERS_MAX", "1"),
        ("VOISIN__LIMITS__READER_IDLE_MS", "1000"),
        ("VOISIN__LIMITS__QUERY_RESULTS_MAX", "50"),
    ];
    let served = Served::with_photos(60, &settings).await;
    let page = |limit, cursor: &str| ScrollRequest {
        collection: NAME.into(),
        limit,
        cursor: cursor.into(),
        ..Default::default()
    };
    let refused = async |request: ScrollRequest| {
        let status = served.voisin().scroll(request).await.expect_err("it is refused");
        (status.code(), status.message().to_owned())
    };
    let (code, words) = refused(page(0, "")).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(words.contains("limit is 0"), "{words}");
    let (code, words) = refused(page(51, "")).await;
    assert_eq!(code, Code::OutOfRange);
    assert!(words.contains("51") && words.contains("limits.query_results_max"), "{words}");
    let (code, words) = refused(page(1, "nonsense")).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(words.contains("cursor"), "{words}");

    let open = served.voisin().scroll(page(20, "")).await.expect("a page").into_inner();
    let (code, words) = refused(page(20, "")).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(words.contains("limits.readers_max"), "{words}");
    let other = ScrollRequest { forwards: names(&["size"]), ..page(20, &open.cursor) };
    let (code, words) = refused(other).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(words.contains("columns"), "{words}");
    let unknown = ScrollRequest { forwards: names(&["no"]), ..page(20, "") };
    assert_eq!(refused(unknown).await.0, Code::NotFound);

    // Nobody reads by it any more: its place is free again after a while.
    let started = Instant::now();
    while served.voisin().scroll(page(20, "")).await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the scroll does not expire");
        tokio::task::yield_now().await;
    }
    let (code, words) = refused(page(20, &open.cursor)).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(words.contains("limits.reader_idle_ms"), "{words}");

    let keys =
        GetRequest { collection: NAME.into(), keys: (0..51).collect(), ..Default::default() };
    let status = served.voisin().get(keys).await.expect_err("it is refused");
    assert_eq!(status.code(), Code::OutOfRange);
}
