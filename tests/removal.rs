//! What deleting by a filter and expiring promise, over the real port of the real program: just the rows
//! that are meant, from the moment on, and gone for good.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use tonic::Code;

use support::PATIENCE;
use support::photos::{DIMENSION, NAME, Served, vectors};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::alter_collection_request::Expiry;
use voisin::server::proto::voisin_v1::{
    AlterCollectionRequest, CountRequest, CreateCollectionRequest, DeleteRequest, ElementType,
    FilterValue, ForwardColumn, ForwardColumnInfo, ForwardNames, GetRequest, Group, Operation,
    QueryRequest, ReadRequest, ScrollRequest, StatsRequest, Ttl, Value, ValueType,
    VectorColumnInfo, WriteAck, WriteRequest, filter_value, value::Kind,
};

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_millis()).expect("a time")
}

fn declaration(ttl: Option<Ttl>) -> CreateCollectionRequest {
    let forward = |name: &str, value_type: ValueType| ForwardColumnInfo {
        name: name.into(),
        r#type: value_type.into(),
    };
    CreateCollectionRequest {
        name: NAME.into(),
        vectors: vec![VectorColumnInfo {
            name: "v".into(),
            element: ElementType::Fp32.into(),
            dimension: DIMENSION,
            ..Default::default()
        }],
        forwards: vec![forward("at", ValueType::Unspecified), forward("n", ValueType::Int64)],
        ttl,
        ..Default::default()
    }
}

fn hour_after(column: &str) -> Ttl {
    Ttl { column: column.into(), milliseconds: HOUR as u64 }
}

fn integer(number: i64) -> Value {
    Value { kind: Some(Kind::Int64Value(number)) }
}

async fn start(ttl: Option<Ttl>) -> Served {
    let settings =
        [("VOISIN__SEGMENT__SEAL_ROWS_MAX", "400"), ("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "500")];
    let served = Served::start(&settings).await;
    served.voisin().create_collection(declaration(ttl)).await.expect("it is created");
    served
}

/// Writes rows with their own keys as `n`, and what `at` makes of each as the time.
async fn write(
    served: &Served,
    operation: Operation,
    keys: impl Iterator<Item = u64> + Clone,
    at: impl Fn(u64) -> Value,
) -> WriteAck {
    let column = |name: &str, values| ForwardColumn { name: name.into(), values };
    let request = WriteRequest {
        collection: NAME.into(),
        keys: keys.clone().collect(),
        operation: operation.into(),
        vectors: vec![vectors("v", keys.clone())],
        forwards: vec![
            column("at", keys.clone().map(at).collect()),
            column("n", keys.map(|key| integer(key as i64)).collect()),
        ],
        ..Default::default()
    };
    let ack = served.voisin().write(request).await.expect("an answer").into_inner();
    assert_eq!(ack.status, None);
    ack
}

async fn count(served: &Served, filter: &str) -> u64 {
    let request =
        CountRequest { collection: NAME.into(), filter: filter.into(), ..Default::default() };
    served.voisin().count(request).await.expect("a count").into_inner().rows
}

/// The keys of all rows, as a stream, and as pages.
async fn keys(served: &Served, filter: &str) -> Vec<u64> {
    let request =
        ReadRequest { collection: NAME.into(), filter: filter.into(), ..Default::default() };
    let stream = served.voisin().read(request).await.expect("the stream opens").into_inner();
    let streamed: Vec<u64> =
        stream.flat_map(|rows| futures::stream::iter(rows.expect("rows").keys)).collect().await;
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = ScrollRequest {
            collection: NAME.into(),
            filter: filter.into(),
            limit: 97,
            cursor,
            ..Default::default()
        };
        let page = served.voisin().scroll(request).await.expect("a page").into_inner();
        paged.extend(page.rows.expect("rows").keys);
        cursor = page.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(streamed, paged);
    streamed
}

/// Every key that a query finds.
async fn found(served: &Served, topk: u32, forwards: Option<&[&str]>) -> Vec<u64> {
    let names = |names: &[&str]| ForwardNames {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let request = QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors("v", 0..1)),
        topk,
        forwards: forwards.map(names),
        ..Default::default()
    };
    let reply = served.voisin().query(request).await.expect("an answer").into_inner();
    let [hits] = &reply.results[..] else { panic!("one query vector") };
    let returned: Vec<&str> = hits.forwards.iter().map(|column| column.name.as_str()).collect();
    assert!(forwards.is_none_or(|asked_for| asked_for == returned), "{returned:?}");
    assert!(hits.forwards.iter().all(|column| column.values.len() == hits.keys.len()));
    let mut keys = hits.keys.clone();
    keys.sort_unstable();
    keys
}

async fn live_rows(served: &Served) -> u64 {
    let request = StatsRequest { collection: NAME.into() };
    served.voisin().stats(request).await.expect("statistics").into_inner().rows
}

async fn wait_for_rows(served: &Served, rows: u64) {
    let started = Instant::now();
    while live_rows(served).await != rows {
        assert!(started.elapsed() < PATIENCE, "{} rows are left", live_rows(served).await);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_delete_by_filter_takes_just_the_rows_that_it_lets_through() {
    let served = start(None).await;
    write(&served, Operation::Insert, 0..1_500, |_| integer(0)).await;
    let delete = async |filter: &str, least: Option<i64>| {
        let least = least.map(|least| {
            let kind = Some(filter_value::Kind::Value(integer(least)));
            ("least".to_owned(), FilterValue { kind })
        });
        let request = DeleteRequest {
            collection: NAME.into(),
            filter: filter.into(),
            filter_params: least.into_iter().collect::<HashMap<_, _>>(),
        };
        served.voisin().delete(request).await.map(|reply| reply.into_inner().rows_deleted)
    };
    assert_eq!(delete("n % 3 == 0 and n >= {least}", Some(600)).await.expect("a count"), 300);
    let left: Vec<u64> = (0..1_500).filter(|n| *n < 600 || n % 3 != 0).collect();
    assert_eq!(keys(&served, "").await, left);
    assert_eq!(found(&served, 2_000, None).await, left);
    assert_eq!(delete("n % 3 == 0 and n >= {least}", Some(600)).await.expect("a count"), 0);
    let odd: Vec<u64> = left.iter().copied().filter(|n| n % 2 == 1).collect();
    assert_eq!(keys(&served, "_key % 2 == 1").await, odd);
    assert_eq!(count(&served, "_key % 2 == 1").await, odd.len() as u64);

    for (filter, least, words) in [
        ("", None, "filter is not set"),
        ("n >", None, "character"),
        ("m == 1", None, "\"m\""),
        ("n >= {least}", None, "least"),
    ] {
        let status = delete(filter, least).await.expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{filter}");
        assert!(status.message().contains(words), "{filter}: {}", status.message());
    }
    let served = served.restart().await;
    assert_eq!(keys(&served, "").await, left);
    let all = DeleteRequest {
        collection: NAME.into(),
        filter: "_key >= 0".into(),
        filter_params: HashMap::new(),
    };
    let deleted = served.voisin().delete(all).await.expect("a count").into_inner();
    assert_eq!(deleted.rows_deleted, left.len() as u64);
    assert_eq!((count(&served, "").await, live_rows(&served).await), (0, 0));
}

#[tokio::test]
async fn rows_are_not_found_from_the_moment_they_expire_and_deleted_soon() {
    let served = start(Some(hour_after("at"))).await;
    // Every third has expired long ago, every third not yet; the others have no time, or none that is
    // a number.
    let at = |key: u64| match key % 3 {
        0 => integer(now() - 2 * HOUR),
        1 => integer(now()),
        _ if key.is_multiple_of(2) => Value { kind: None },
        _ => Value { kind: Some(Kind::StringValue("long ago".into())) },
    };
    write(&served, Operation::Insert, 0..900, at).await;
    let current: Vec<u64> = (0..900).filter(|key| key % 3 != 0).collect();
    assert_eq!(found(&served, 600, None).await, current);
    assert_eq!(found(&served, 2_000, Some(&["n"])).await, current);
    assert_eq!(found(&served, 600, Some(&[])).await, current);
    assert_eq!(keys(&served, "").await, current);
    assert_eq!(count(&served, "").await, 600);
    assert_eq!(count(&served, "n < 300").await, 200);
    let asked = QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors("v", 0..1)),
        ..Default::default()
    };
    let by_rows =
        |positives| QueryRequest { vectors: None, positives, topk: u32::MAX, ..asked.clone() };
    let refused = served.voisin().query(by_rows(vec![1, 0])).await.expect_err("0 has expired");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let all = QueryRequest { radius: Some(f32::INFINITY), ..asked.clone() };
    let group = Some(Group { column: "n".into(), size: 2 });
    let groups = QueryRequest { topk: 900, group, ..asked.clone() };
    for (request, expected) in
        [(all, &current[..]), (groups, &current[..]), (by_rows(vec![1]), &current[1..])]
    {
        let mut reply = served.voisin().query(request).await.expect("an answer").into_inner();
        reply.results[0].keys.sort_unstable();
        assert_eq!(reply.results[0].keys, expected);
    }
    let request =
        GetRequest { collection: NAME.into(), keys: vec![0, 1, 2, 3], ..Default::default() };
    let rows = served.voisin().get(request).await.expect("rows").into_inner();
    assert_eq!(rows.keys, [1, 2]);
    let mut compatible = ProximaServiceClient::new(served.channel.clone());
    for (key, is_there) in [(0, false), (1, true)] {
        let request = proxima::GetDocumentRequest {
            collection_name: NAME.into(),
            primary_key: key,
            ..Default::default()
        };
        let reply = compatible.get_document_by_key(request).await.expect("an answer").into_inner();
        assert_eq!(reply.document.is_some(), is_there);
    }
    // The key of a row that has expired is free, whether or not the row was deleted.
    let ack = write(&served, Operation::Insert, [0].into_iter(), |_| integer(now())).await;
    assert_eq!(ack.rows_applied, 1);
    let ack = write(&served, Operation::Update, [3].into_iter(), |_| integer(now())).await;
    assert_eq!((ack.rows_applied, ack.failures.len()), (0, 1));
    wait_for_rows(&served, 601).await;
    let served = served.restart().await;
    assert_eq!(count(&served, "").await, 601);
}

#[tokio::test]
async fn rows_expire_by_the_time_of_their_last_write() {
    let ttl = Ttl { column: String::new(), milliseconds: 1_500 };
    let served = start(Some(ttl)).await;
    let before = now();
    write(&served, Operation::Insert, 0..50, |_| integer(0)).await;
    let request = GetRequest { collection: NAME.into(), keys: vec![7], ..Default::default() };
    let row = served.voisin().get(request).await.expect("rows").into_inner();
    // A machine that took longer than the rows live has nothing to look at.
    if let Some(column) = row.forwards.iter().find(|column| column.name == "_written_at")
        && let [Value { kind: Some(Kind::Int64Value(time)) }] = column.values[..]
    {
        assert!((before..=now()).contains(&time));
    }
    wait_for_rows(&served, 0).await;
    assert_eq!(count(&served, "").await, 0);
}

#[tokio::test]
async fn expiring_is_switched_on_and_off_where_there_are_rows() {
    let served = start(None).await;
    let old = |_| integer(now() - 2 * HOUR);
    write(&served, Operation::Insert, 0..10, old).await;
    let alter = async |expiry| {
        let request = AlterCollectionRequest {
            name: NAME.into(),
            expiry: Some(expiry),
            ..Default::default()
        };
        served.voisin().alter_collection(request).await.expect("it is altered").into_inner()
    };
    // The rows that there are have no time of writing.
    let altered = alter(Expiry::Ttl(hour_after(""))).await;
    assert_eq!(altered.ttl.expect("it is on").column, "_written_at");
    assert_eq!(count(&served, "").await, 10);
    assert_eq!(alter(Expiry::NoTtl(true)).await.ttl, None);
    assert_eq!(count(&served, "").await, 10);
    alter(Expiry::Ttl(hour_after("at"))).await;
    assert_eq!(count(&served, "").await, 0);
    wait_for_rows(&served, 0).await;
}

/// True where a file below a folder has these bytes.
fn is_in_a_file(folder: &Path, bytes: &[u8]) -> bool {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten();
    let mut contents = files
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| std::fs::read(entry.path()).ok());
    contents.any(|content| content.windows(bytes.len()).any(|window| window == bytes))
}

async fn wait_until_gone(served: &Served, bytes: &[u8], what: &str) {
    let started = Instant::now();
    while is_in_a_file(served.folder.path(), bytes) {
        assert!(started.elapsed() < PATIENCE, "{what} rows are in the files still");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn nothing_that_was_deleted_replaced_or_expired_is_in_a_file_once_it_is_quiet() {
    let quiet = ("VOISIN__SEGMENT__QUIET_MS", "500");
    let busy = ("VOISIN__SEGMENT__SEAL_ROWS_MAX", "400");
    let graphs = ("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "500");
    // Few rows stay in memory and in the log, many are sealed and get a graph.
    for rows in [60, 1_500] {
        let served = Served::start(&[quiet, busy, graphs]).await;
        served.voisin().create_collection(declaration(Some(hour_after("n")))).await.expect("one");
        let text = |secret: &str| Value { kind: Some(Kind::StringValue(secret.into())) };
        let secret =
            |key: u64| text(["deleted row", "replaced row", "row that stays"][key as usize % 3]);
        write(&served, Operation::Insert, 0..rows, secret).await;
        // The time of a row is its key, in 1970.
        wait_for_rows(&served, 0).await;
        wait_until_gone(&served, b"row that stays", "expired").await;

        let alter = AlterCollectionRequest {
            name: NAME.into(),
            expiry: Some(Expiry::NoTtl(true)),
            ..Default::default()
        };
        served.voisin().alter_collection(alter).await.expect("it is altered");
        write(&served, Operation::Insert, 0..rows, secret).await;
        wait_for_rows(&served, rows).await;
        write(&served, Operation::Delete, (0..rows).filter(|key| key % 3 == 0), secret).await;
        wait_until_gone(&served, b"deleted row", "deleted").await;
        assert!(is_in_a_file(served.folder.path(), b"replaced row"));
        let replaced = (0..rows).filter(|key| key % 3 == 1).take(3);
        write(&served, Operation::Update, replaced, |_| text("another row")).await;
        let left = (0..rows).filter(|key| key % 3 == 1).skip(3);
        write(&served, Operation::Update, left, |_| text("another row")).await;
        wait_until_gone(&served, b"replaced row", "replaced").await;
        for there in ["row that stays", "another row"] {
            assert!(is_in_a_file(served.folder.path(), there.as_bytes()), "{there}");
        }
        let current: Vec<u64> = (0..rows).filter(|key| key % 3 != 0).collect();
        assert_eq!(keys(&served, "").await, current);
        assert_eq!(found(&served, 2_000, Some(&["at"])).await, current);
        let served = served.restart().await;
        assert_eq!(keys(&served, "at == 'row that stays'").await.len() as u64, rows / 3);
    }
}
