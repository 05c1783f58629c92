//! What a caller's deadline promises, over the real port of the real program: when it passes, or the
//! caller hangs up, the search threads are free for others, however much was left to do.

mod support;

use std::time::{Duration, Instant};

use tonic::{Code, Request};

use support::PATIENCE;
use support::photos::{DIMENSION, FP32, NAME, Served, floats, vectors};
use voisin::server::proto::proxima::{self, proxima_service_client::ProximaServiceClient};
use voisin::server::proto::voisin_v1::{ForwardNames, QueryRequest, SearchParams};

use proxima::query_request::{KnnQueryParam, QueryParam, knn_query_param::FeaturesValue};

/// Too many to be scanned where the query is received.
const ROWS: u64 = 40_000;
/// A batch that one thread takes long for.
const MANY: u64 = 16_384;
/// How long callers wait who do not wait long.
const SHORT: Duration = Duration::from_millis(300);

async fn one_thread() -> Served {
    let settings = [
        ("VOISIN__COMPUTE__SEARCH_THREADS", "1"),
        // Rows stay where they are: nothing else is at work.
        ("VOISIN__SEGMENT__SEAL_ROWS_MAX", "1000000"),
    ];
    let served = Served::with_photos(0, &settings).await;
    for first in (0..ROWS).step_by(10_000) {
        served.insert(first..first + 10_000).await;
    }
    served
}

fn exact(queries: u64) -> QueryRequest {
    QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors("v", 0..queries)),
        topk: 1,
        params: Some(SearchParams { exact: true, ..Default::default() }),
        forwards: Some(ForwardNames::default()),
        ..Default::default()
    }
}

impl Served {
    /// How long it takes until a small query is answered.
    async fn small_query(&self) -> Duration {
        let started = Instant::now();
        let reply = self.voisin().query(exact(1)).await.expect("an answer").into_inner();
        assert_eq!(reply.results[0].keys, [0]);
        started.elapsed()
    }

    /// How long the large query would take, from a part of it.
    async fn large_query(&self) -> Duration {
        let started = Instant::now();
        let part = self.voisin().query(exact(MANY / 64)).await.expect("an answer").into_inner();
        assert_eq!(part.results.len() as u64, MANY / 64);
        started.elapsed() * 64
    }
}

#[tokio::test]
async fn a_search_ends_when_its_callers_deadline_passes() {
    let served = one_thread().await;
    let whole = served.large_query().await;
    assert!(whole > 8 * SHORT, "{whole:?} is not long; the test needs a larger query");

    // By the header alone: this client waits, and sees what the server says.
    let mut request = Request::new(exact(MANY));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("ASCII"));
    let refused = served.voisin().query(request).await.expect_err("the deadline passes");
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused}");
    let after = served.small_query().await;
    assert!(after < whole / 8, "the one thread was busy for {after:?} of {whole:?}");

    // The same over the compatible call.
    let knn = KnnQueryParam {
        column_name: "v".into(),
        topk: 1,
        features_value: Some(FeaturesValue::Features(floats(0..MANY))),
        batch_count: MANY as u32,
        dimension: DIMENSION,
        data_type: FP32,
        is_linear: true,
        ..Default::default()
    };
    let mut request = Request::new(proxima::QueryRequest {
        collection_name: NAME.into(),
        query_param: Some(QueryParam::KnnParam(knn)),
        ..Default::default()
    });
    request.set_timeout(SHORT);
    let mut client = ProximaServiceClient::new(served.channel.clone());
    let refused = client.query(request).await.expect_err("the deadline passes");
    assert!(matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled), "{refused}");
    let after = served.small_query().await;
    assert!(after < whole / 8, "the one thread was busy for {after:?} of {whole:?}");
}

#[tokio::test]
async fn searches_end_when_their_callers_hang_up_whether_they_had_begun_or_not() {
    let served = one_thread().await;
    let whole = served.large_query().await;
    // One is under way, the others wait for the thread.
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = served.voisin();
            tokio::spawn(async move { client.query(exact(MANY)).await })
        })
        .collect();
    let started = Instant::now();
    while tokio::time::timeout(SHORT, served.small_query()).await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "the large queries do not arrive");
    }
    let mut waiting = served.voisin();
    let waiting = tokio::spawn(async move { waiting.query(exact(1)).await });
    callers.iter().for_each(|caller| caller.abort());
    let started = Instant::now();
    waiting.await.expect("no panic").expect("an answer");
    let after = started.elapsed();
    assert!(after < whole / 8, "the one thread was busy for {after:?} of {whole:?}");
}
