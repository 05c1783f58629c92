//! Rows with several vectors over the real port, by our own contract: written and read with their counts,
//! found, and ranked by several query vectors, with their votes.

mod support;

use futures::stream;
use tonic::Code;

use support::photos::Served;
use voisin::server::proto::voisin_v1::{
    Aggregation, Code as WriteCode, CreateCollectionRequest, ElementType, ForwardColumnInfo,
    GetRequest, Hits, Metric, Operation, QueryRequest, SearchParams, VectorColumn,
    VectorColumnInfo, VectorNames, WriteAck, WriteRequest, aggregation::Kind,
};

const NAME: &str = "pictures";

/// A column of two dimensions whose rows may have up to four vectors.
fn declaration() -> CreateCollectionRequest {
    let params = [("multi", "true"), ("multi_max", "4")];
    CreateCollectionRequest {
        name: NAME.into(),
        vectors: vec![VectorColumnInfo {
            name: "sift".into(),
            element: ElementType::Fp32.into(),
            dimension: 2,
            metric: Metric::SquaredEuclidean.into(),
            params: params.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }],
        forwards: Vec::<ForwardColumnInfo>::new(),
        ..Default::default()
    }
}

fn vectors(numbers: &[f32], counts: &[u32]) -> VectorColumn {
    VectorColumn {
        name: "sift".into(),
        element: ElementType::Fp32.into(),
        dimension: 2,
        vectors: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        counts: counts.to_vec(),
    }
}

async fn acknowledged(served: &Served, request: WriteRequest) -> WriteAck {
    let stream = served.voisin().write_stream(stream::iter([request])).await;
    let ack = stream.expect("the stream opens").into_inner().message().await;
    ack.expect("the stream goes on").expect("an acknowledgement")
}

fn insert(keys: &[u64], vectors: VectorColumn) -> WriteRequest {
    WriteRequest {
        collection: NAME.into(),
        keys: keys.to_vec(),
        operation: Operation::Insert.into(),
        vectors: vec![vectors],
        ..Default::default()
    }
}

/// A query by these vectors, with the aggregation of a kind, its `k_per_vector` and its `min_votes`.
fn query(numbers: &[f32], aggregation: Option<(Kind, u32, u32)>) -> QueryRequest {
    QueryRequest {
        collection: NAME.into(),
        vectors: Some(vectors(numbers, &[])),
        topk: 10,
        aggregation: aggregation.map(|(kind, k_per_vector, min_votes)| Aggregation {
            kind: kind.into(),
            k_per_vector,
            min_votes,
        }),
        ..Default::default()
    }
}

async fn ask(served: &Served, request: QueryRequest) -> Vec<Hits> {
    served.voisin().query(request).await.expect("an answer").into_inner().results
}

async fn refused(served: &Served, request: QueryRequest) -> (Code, String) {
    let status = served.voisin().query(request).await.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

/// Three pictures: on a line, in a corner, and one with a single vector; and one without.
async fn pictures() -> Served {
    let served = Served::start(&[]).await;
    let created = served.voisin().create_collection(declaration()).await;
    let info = created.expect("it is created").into_inner();
    assert_eq!(info.vectors[0].params["multi"], "true");
    let numbers = [0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 9.0, 9.0, 9.0, 8.0, 5.0, 5.0];
    let ack = acknowledged(&served, insert(&[1, 2, 3, 4], vectors(&numbers, &[3, 2, 1, 0]))).await;
    assert_eq!((ack.rows_applied, ack.status), (4, None));
    served
}

#[tokio::test]
async fn rows_are_read_and_found_with_all_their_vectors() {
    let served = pictures().await;
    let get = GetRequest {
        collection: NAME.into(),
        keys: vec![1, 2, 3, 4],
        vectors: Some(VectorNames { names: vec!["*".into()] }),
        ..Default::default()
    };
    let rows = served.voisin().get(get.clone()).await.expect("an answer").into_inner();
    assert_eq!(rows.keys, [1, 2, 3, 4]);
    assert_eq!(rows.vectors[0].counts, [3, 2, 1, 0]);
    // What is read can be written.
    let again = WriteRequest {
        operation: Operation::Update.into(),
        ..insert(&rows.keys, rows.vectors[0].clone())
    };
    assert_eq!(acknowledged(&served, again).await.rows_applied, 4);
    let same = served.voisin().get(get).await.expect("an answer").into_inner();
    assert_eq!(same.vectors, rows.vectors);

    let lists = ask(&served, query(&[1.0, 0.0, 9.0, 9.0], None)).await;
    let found = |hits: &Hits| (hits.keys.clone(), hits.scores.clone());
    assert_eq!(found(&lists[0]), (vec![1, 3, 2], vec![0.0, 41.0, 128.0]));
    assert_eq!(found(&lists[1]), (vec![2, 3, 1], vec![0.0, 32.0, 130.0]));
    assert!(lists.iter().all(|hits| hits.votes.is_empty() && hits.confidence.is_empty()));

    let delete =
        WriteRequest { operation: Operation::Delete.into(), ..insert(&[1], vectors(&[], &[])) };
    assert_eq!(
        acknowledged(&served, WriteRequest { vectors: vec![], ..delete }).await.rows_applied,
        1
    );
    let lists = ask(&served, query(&[1.0, 0.0], None)).await;
    assert_eq!(lists[0].keys, [3, 2], "all its vectors are gone");
}

#[tokio::test]
async fn votes_come_with_their_confidence_and_other_ranks_with_their_scores() {
    let served = pictures().await;
    // Near the first two pictures, the second and the third.
    let asked = [0.1, 0.0, 1.9, 0.0, 9.0, 8.9, 5.0, 5.1];
    let votes = ask(&served, query(&asked, Some((Kind::Votes, 1, 0)))).await;
    let [votes] = &votes[..] else { panic!("one list") };
    assert_eq!((&votes.keys[..], &votes.votes[..]), (&[1, 3, 2][..], &[2, 1, 1][..]));
    assert_eq!(votes.scores, [-2.0, -1.0, -1.0]);
    assert_eq!(votes.confidence, [50.0, 25.0, 25.0]);
    let two = ask(&served, query(&asked, Some((Kind::Votes, 1, 2)))).await;
    assert_eq!((&two[0].keys[..], &two[0].votes[..]), (&[1][..], &[2][..]));
    let all = ask(&served, query(&asked, Some((Kind::Votes, 6, 0)))).await;
    assert_eq!(all[0].votes, [4, 4, 4]);
    let near = QueryRequest { radius: Some(0.005), ..query(&asked, Some((Kind::Votes, 6, 0))) };
    assert!(ask(&served, near).await[0].keys.is_empty(), "none is so near");

    let sums = ask(&served, query(&[1.0, 0.0, 9.0, 9.0], Some((Kind::MaxSim, 0, 0)))).await;
    assert_eq!(
        (&sums[0].keys[..], &sums[0].scores[..]),
        (&[3, 2, 1][..], &[73.0, 128.0, 130.0][..])
    );
    let similar = QueryRequest {
        metric: Metric::InnerProduct.into(),
        ..query(&[1.0, 0.0, 0.0, 1.0], Some((Kind::MaxSim, 0, 0)))
    };
    let similar = ask(&served, similar).await;
    assert_eq!(
        (&similar[0].keys[..], &similar[0].scores[..]),
        (&[2, 3, 1][..], &[-18.0, -10.0, -2.0][..])
    );
    let least = ask(&served, query(&[1.0, 0.0, 9.0, 9.0], Some((Kind::MinDistance, 0, 0)))).await;
    assert_eq!((&least[0].keys[..], &least[0].scores[..]), (&[1, 2, 3][..], &[0.0, 0.0, 32.0][..]));
    assert!(least[0].votes.is_empty());
    let none = ask(&served, query(&[], Some((Kind::Votes, 0, 0)))).await;
    assert_eq!(none, [Hits::default()]);
    let exact = SearchParams { exact: true, ..Default::default() };
    let exact = QueryRequest { params: Some(exact), ..query(&asked, Some((Kind::Votes, 1, 0))) };
    assert_eq!(ask(&served, exact).await[0], *votes);
}

#[tokio::test]
async fn counts_and_aggregations_that_do_not_fit_are_refused() {
    let served = pictures().await;
    let five = [1.0; 10];
    for (numbers, counts, words) in [
        (&five[..], &[5][..], "5 vectors, the column's multi_max is 4"),
        (&five[..], &[2, 3], "2 counts for 1 keys"),
        (&five[..], &[4], "40 bytes; 4 vectors counted need 8 bytes each"),
        (&five[..], &[u32::MAX], "4294967295 vectors counted"),
        (&five[..], &[], "40 bytes; 1 keys need 8 bytes each"),
        (&[1.0, f32::NAN], &[1], "NaN"),
    ] {
        let status = acknowledged(&served, insert(&[9], vectors(numbers, counts))).await.status;
        let status = status.expect("it is refused");
        assert_eq!(status.code(), WriteCode::InvalidArgument, "{}", status.message);
        assert!(status.message.contains(words), "{}", status.message);
    }
    for (aggregation, words) in [
        ((Kind::Unspecified, 0, 0), "the kind of the aggregation is not set"),
        ((Kind::MaxSim, 0, 1), "min_votes goes with votes only"),
        ((Kind::MinDistance, 1, 0), "k_per_vector goes with votes and max_sim only"),
    ] {
        let (code, message) = refused(&served, query(&[1.0, 1.0], Some(aggregation))).await;
        assert_eq!(code, Code::InvalidArgument, "{message}");
        assert!(message.contains(words), "{message}");
    }
    let mut unknown = query(&[1.0, 1.0], Some((Kind::Votes, 1, 1)));
    unknown.aggregation.as_mut().expect("there is one").kind = 77;
    assert!(refused(&served, unknown).await.1.contains("aggregation 77 is unknown"));
}
