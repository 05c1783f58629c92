//! Work that can be ended, over the real port of the real program: what is built or trained for a minute or
//! more keeps neither its own collection from being dropped or altered, nor others, nor a stop.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::Code;

use support::PATIENCE;
use support::photos::Served;
use voisin::server::proto::voisin_v1::{
    AliasChange, AlterCollectionRequest, ChangeAliasesRequest, CreateCollectionRequest,
    DropCollectionRequest, ElementType, ForwardColumnInfo, Indexing, ListCollectionsRequest,
    Metric, Operation, StatsReply, StatsRequest, VectorColumn, VectorColumnInfo,
    WaitIndexedRequest, WriteRequest,
};

/// What takes a minute or more if nothing ends it, here done within this.
const SOON: Duration = Duration::from_secs(20);
/// Enough for training codes of 8 bits.
const ROWS: u64 = 10_000;

struct Calls(Served);

impl Calls {
    async fn start(settings: &[(&str, &str)]) -> Calls {
        Calls(Served::start(settings).await)
    }

    async fn create(
        &self,
        name: &str,
        dimension: u32,
        params: &[(&str, &str)],
    ) -> Result<(), Code> {
        let param = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let column = VectorColumnInfo {
            name: "v".into(),
            element: ElementType::Int8.into(),
            dimension,
            metric: Metric::SquaredEuclidean.into(),
            params: params.iter().map(param).collect::<HashMap<_, _>>(),
        };
        let request = CreateCollectionRequest {
            name: name.into(),
            vectors: vec![column],
            ..Default::default()
        };
        let made = self.0.voisin().create_collection(request).await;
        made.map(drop).map_err(|status| status.code())
    }

    async fn upsert(&self, name: &str, dimension: u32, keys: std::ops::Range<u64>) {
        let mut random = StdRng::seed_from_u64(keys.start);
        let mut numbers = vec![0; (keys.end - keys.start) as usize * dimension as usize];
        random.fill(&mut numbers[..]);
        let request = WriteRequest {
            collection: name.into(),
            keys: keys.collect(),
            operation: Operation::Upsert.into(),
            vectors: vec![VectorColumn {
                name: "v".into(),
                element: ElementType::Int8.into(),
                dimension,
                vectors: numbers.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.0.write(request).await;
    }

    async fn drop_one(&self, name: &str) -> Result<(), Code> {
        let request = DropCollectionRequest { name: name.into() };
        let dropped = self.0.voisin().drop_collection(request).await;
        dropped.map(drop).map_err(|status| status.code())
    }

    async fn add_column(&self, name: &str, column: &str) -> Result<(), Code> {
        let request = AlterCollectionRequest {
            name: name.into(),
            add_forwards: vec![ForwardColumnInfo { name: column.into(), ..Default::default() }],
            ..Default::default()
        };
        let altered = self.0.voisin().alter_collection(request).await;
        altered.map(drop).map_err(|status| status.code())
    }

    async fn alias(&self, alias: &str, collection: &str) -> Result<(), Code> {
        let change = AliasChange { alias: alias.into(), collection: collection.into() };
        let request = ChangeAliasesRequest { changes: vec![change] };
        let changed = self.0.voisin().change_aliases(request).await;
        changed.map(drop).map_err(|status| status.code())
    }

    async fn stats(&self, name: &str) -> StatsReply {
        let request = StatsRequest { collection: name.into() };
        self.0.voisin().stats(request).await.expect("an answer").into_inner()
    }

    async fn indexing(&self, name: &str) -> Indexing {
        self.stats(name).await.indexing.expect("indexing")
    }

    async fn wait_indexed(&self, name: &str, timeout: Duration) -> Result<Indexing, Code> {
        let timeout_ms = u64::try_from(timeout.as_millis()).expect("some time");
        let request = WaitIndexedRequest { collection: name.into(), timeout_ms };
        let reply = self.0.voisin().wait_indexed(request).await;
        reply.map(|reply| reply.into_inner().indexing.expect("indexing")).map_err(|s| s.code())
    }

    /// Waits until a build of a collection's rows is under way.
    async fn building(&self, name: &str) {
        let began = Instant::now();
        while self.indexing(name).await.rows_linking == 0 {
            assert!(began.elapsed() < PATIENCE, "nothing is built");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A collection whose index takes long to be trained, by something that faiss can be asked to end.
    async fn training(&self, name: &str) {
        let params = [("index_type", "IVF_PQ"), ("m", "512"), ("nlist", "16")];
        self.create(name, 512, &params).await.expect("it is created");
        self.upsert(name, 512, 0..ROWS).await;
        self.building(name).await;
    }

    /// The same by something that it cannot.
    async fn deaf_training(&self, name: &str) {
        let params = [("index_factory", "LSQ16x8")];
        self.create(name, 256, &params).await.expect("it is created");
        self.upsert(name, 256, 0..ROWS).await;
        self.building(name).await;
    }
}

/// That something is done soon.
async fn soon<T>(what: &str, call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let answer = tokio::time::timeout(2 * PATIENCE, call).await;
    assert!(began.elapsed() < SOON, "{what} takes {:?}", began.elapsed());
    answer.expect("it ends")
}

#[tokio::test]
async fn a_training_ends_when_its_collection_is_dropped_or_altered_and_keeps_no_other_waiting() {
    let calls = Calls::start(&[]).await;
    calls.training("first").await;
    calls.training("second").await;
    let both = [calls.indexing("first").await, calls.indexing("second").await];
    assert!(both.iter().all(|one| one.rows_linking > 0 && !one.settled), "side by side: {both:?}");

    let others = async {
        calls.create("other", 4, &[]).await.expect("it is created");
        calls.alias("another name", "other").await.expect("it is changed");
        calls.add_column("other", "tag").await.expect("it is altered");
        calls.drop_one("other").await.expect("it is dropped");
    };
    soon("changing others", others).await;
    let (dropped, altered, others) = soon("ending both", async {
        let others = async {
            calls.create("other", 4, &[]).await?;
            calls.drop_one("other").await
        };
        tokio::join!(calls.drop_one("first"), calls.add_column("second", "tag"), others)
    })
    .await;
    assert_eq!((dropped, altered, others), (Ok(()), Ok(()), Ok(())));
    // It begins anew, with the same rows.
    calls.building("second").await;
    assert_eq!(calls.stats("second").await.rows, ROWS);
    soon("dropping it", calls.drop_one("second")).await.expect("it is dropped");
}

#[tokio::test]
async fn a_training_that_nothing_ends_is_left_behind_and_keeps_neither_drop_nor_stop_waiting() {
    let mut calls = Calls::start(&[]).await;
    calls.create("other", 4, &[]).await.expect("it is created");
    calls.deaf_training("deaf").await;
    soon("dropping it", calls.drop_one("deaf")).await.expect("it is dropped");
    // Its name is free, and what is built now is built beside it.
    calls.deaf_training("deaf").await;
    calls.0.server.signal("TERM");
    let began = Instant::now();
    let status = calls.0.server.wait();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < SOON, "the stop takes {:?}", began.elapsed());
    let files = walk(calls.0.folder.path());
    assert!(!files.iter().any(|file| file.ends_with(".faiss")), "{files:?}");
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[tokio::test]
async fn a_graph_under_way_ends_when_its_collection_is_altered_and_the_server_stops() {
    let mut calls = Calls::start(&[]).await;
    let params = [("ef_construction", "4000"), ("max_neighbor_count", "64")];
    calls.create("graph", 256, &params).await.expect("it is created");
    for first in (0..4).map(|part| part * ROWS) {
        calls.upsert("graph", 256, first..first + ROWS).await;
    }
    calls.building("graph").await;
    soon("altering it", calls.add_column("graph", "tag")).await.expect("it is altered");
    calls.building("graph").await;
    calls.0.server.signal("TERM");
    let began = Instant::now();
    assert!(calls.0.server.wait().success());
    assert!(began.elapsed() < SOON, "the stop takes {:?}", began.elapsed());
    // Nothing of it was lost or is in the way.
    let calls = Calls(calls.0.restart().await);
    assert_eq!(calls.stats("graph").await.rows, 4 * ROWS);
    calls.building("graph").await;
}

#[tokio::test]
async fn what_waits_is_told_from_what_stays_and_can_be_waited_for() {
    let settings = [("VOISIN__SEGMENT__GRAPH_ROWS_MIN", "2000")];
    let calls = Calls::start(&settings).await;
    calls.create("few", 8, &[]).await.expect("it is created");
    let nothing = calls.wait_indexed("few", PATIENCE).await.expect("an answer");
    assert!(nothing.settled && nothing.rows_waiting == 0, "{nothing:?}");

    // Overwritten rows are none that wait; they are too few for a graph in all, and stay so.
    for _ in 0..4 {
        calls.upsert("few", 8, 0..400).await;
    }
    let waited = calls.wait_indexed("few", PATIENCE).await.expect("an answer");
    assert!(waited.settled && waited.rows_waiting == 400, "{waited:?}");

    // Enough for one are indexed when the call returns, whatever they would have waited for.
    calls.upsert("few", 8, 400..3_000).await;
    let before = calls.indexing("few").await;
    assert!(!before.settled, "{before:?}");
    assert!(!calls.wait_indexed("few", Duration::ZERO).await.expect("an answer").settled);
    let waited = calls.wait_indexed("few", PATIENCE).await.expect("an answer");
    assert!(waited.settled && waited.rows_waiting == 0, "{waited:?}");
    // So are a few more, which would otherwise stay as they are.
    calls.upsert("few", 8, 3_000..3_100).await;
    let stay = calls.indexing("few").await;
    assert!(stay.settled && stay.rows_waiting == 100, "{stay:?}");
    let waited = calls.wait_indexed("few", PATIENCE).await.expect("an answer");
    assert!(waited.settled && waited.rows_waiting == 0, "{waited:?}");

    assert_eq!(calls.wait_indexed("nobody's", PATIENCE).await, Err(Code::NotFound));
    assert_eq!(calls.wait_indexed("few", Duration::from_secs(3_601)).await, Err(Code::OutOfRange));
}

#[tokio::test]
async fn who_waits_is_told_when_the_collection_goes_or_the_server_stops() {
    let mut calls = Calls::start(&[]).await;
    calls.training("first").await;
    let waits = calls.wait_indexed("first", 10 * PATIENCE);
    let drops = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        calls.drop_one("first").await
    };
    let (waited, dropped) = soon("a drop", async { tokio::join!(waits, drops) }).await;
    assert_eq!((waited, dropped), (Err(Code::NotFound), Ok(())));

    calls.training("second").await;
    let mut client = calls.0.voisin();
    let timeout_ms = 600_000;
    let request = WaitIndexedRequest { collection: "second".into(), timeout_ms };
    let waits = tokio::spawn(async move { client.wait_indexed(request).await });
    calls.0.server.signal("TERM");
    let began = Instant::now();
    assert!(calls.0.server.wait().success());
    assert!(began.elapsed() < SOON, "the stop takes {:?}", began.elapsed());
    assert!(waits.await.expect("it ends").is_err());
}

#[tokio::test]
async fn one_of_many_creations_of_a_name_succeeds_and_no_more_than_the_limit() {
    let settings = [("VOISIN__LIMITS__COLLECTIONS_MAX", "5")];
    let calls = Calls::start(&settings).await;
    let made = join_all((0..8).map(|_| calls.create("one", 4, &[]))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    let refused = made.iter().filter(|made| **made == Err(Code::AlreadyExists)).count();
    assert_eq!(refused, 7, "{made:?}");

    let names: Vec<String> = (0..12).map(|place| format!("many {place}")).collect();
    let made = join_all(names.iter().map(|name| calls.create(name, 4, &[]))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 4, "{made:?}");
    for (name, _) in names.iter().zip(&made).filter(|(_, made)| made.is_ok()) {
        calls.drop_one(name).await.expect("it is dropped");
    }

    // A name is a collection's or an alias, whoever comes first; never both.
    for place in 0..8 {
        let name = format!("either {place}");
        let (made, aliased) = tokio::join!(calls.create(&name, 4, &[]), calls.alias(&name, "one"));
        assert_ne!(made.is_ok(), aliased.is_ok(), "{made:?} {aliased:?}");
        match made {
            Ok(()) => calls.drop_one(&name).await.expect("it is dropped"),
            Err(_) => calls.alias(&name, "").await.expect("it is removed"),
        }
    }

    // Whatever order it comes to, nothing is half there.
    for _ in 0..8 {
        let (_, altered, dropped, made) = tokio::join!(
            calls.create("changing", 4, &[]),
            calls.add_column("changing", "tag"),
            calls.drop_one("changing"),
            calls.create("changing", 4, &[]),
        );
        assert!(matches!(altered, Ok(()) | Err(Code::NotFound)), "{altered:?}");
        assert!(matches!(dropped, Ok(()) | Err(Code::NotFound)), "{dropped:?}");
        assert!(matches!(made, Ok(()) | Err(Code::AlreadyExists)), "{made:?}");
        let list = calls.0.voisin().list_collections(ListCollectionsRequest {}).await;
        let list = list.expect("a list").into_inner();
        assert!(list.unserved.is_empty(), "{list:?}");
        if list.collections.iter().any(|collection| collection.name == "changing") {
            calls.drop_one("changing").await.expect("it is dropped");
        }
    }
}
