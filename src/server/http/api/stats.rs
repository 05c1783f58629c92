//! What a collection holds and what it takes.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tonic::Request;
use utoipa::ToSchema;

use super::{Answer, Call, Line, Outcome, message};
use crate::server::http::Http;
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// How long a wait is where nothing is said.
const TIMEOUT_MS: u64 = 30_000;

/// A collection's statistics at one moment.
#[derive(Serialize, ToSchema)]
pub(super) struct Stats {
    /// Rows that queries see.
    rows: u64,
    /// Segments that hold them.
    segments: u32,
    /// Bytes of the segments' files.
    file_bytes: u64,
    indexing: Indexing,
    memory: CollectionMemory,
    server_memory: ServerMemory,
    /// Why rows are scanned that an index would hold, but for what is yet to be done: indexes that are left
    /// out of service, columns whose indexes cannot be built, and fewer rows than training takes.
    unindexed: Vec<String>,
    /// What indexes are measured to find, of each column that has one.
    recall: Vec<ColumnRecall>,
    bytes_written: BytesWritten,
}

/// Bytes that were written since the collection was opened.
#[derive(Serialize, ToSchema)]
struct BytesWritten {
    /// What callers wrote: keys, vectors and forward values.
    by_callers: u64,
    /// What was written for it: log, segments, marks of deleted rows, manifests, forward values.
    in_all: u64,
    /// How many times as much that is; 0 where callers wrote nothing.
    ratio: f64,
}

/// What a column's indexes find of the 10 nearest, as queries search them by default.
#[derive(Serialize, ToSchema)]
struct ColumnRecall {
    column: String,
    /// What was measured with its rows when they were built, of the segment where it is least; `null` where
    /// some was not measured. Segments without index are scanned, and find all.
    #[schema(minimum = 0, maximum = 1)]
    expected: Option<f32>,
    /// What was found of queries that were really asked, which were compared with exact answers in the
    /// background; `null` before there are enough of them.
    #[schema(minimum = 0, maximum = 1)]
    live: Option<f32>,
    /// Half of the interval around `live` that holds the true mean with a probability of 95%.
    live_deviation: f32,
    /// How many queries that is of.
    live_queries: u32,
    /// What is found of queries with filters that were really asked, as they are searched by now, of the segment
    /// and the share of rows let through where it is least; `null` before there are enough of them. Those for
    /// which each row let through is looked at find all, and are not counted.
    #[schema(minimum = 0, maximum = 1)]
    filtered: Option<f32>,
    /// How many queries with filters were measured, in the segment where these were most.
    filtered_queries: u32,
}

impl From<wire::ColumnRecall> for ColumnRecall {
    fn from(recall: wire::ColumnRecall) -> Self {
        ColumnRecall {
            column: recall.column,
            expected: recall.expected,
            live: recall.live,
            live_deviation: recall.live_deviation,
            live_queries: recall.live_queries,
            filtered: recall.filtered,
            filtered_queries: recall.filtered_queries,
        }
    }
}

/// How far the indexing of a collection is.
#[derive(Serialize, ToSchema)]
struct Indexing {
    /// Live rows that no index holds, of collections that have indexes: queries scan them.
    rows_waiting: u64,
    /// Rows that are being linked into a graph now.
    rows_linking: u64,
    /// How many of these are linked.
    rows_linked: u64,
    /// Seconds until these are linked, going by those that are; 0 where nothing can be said.
    seconds_left: f64,
    /// No sealing, merging or training is due or under way: what waits now stays as it is, being too few
    /// rows to gain by an index.
    settled: bool,
}

impl From<Option<wire::Indexing>> for Indexing {
    fn from(indexing: Option<wire::Indexing>) -> Self {
        let indexing = indexing.unwrap_or_default();
        Indexing {
            rows_waiting: indexing.rows_waiting,
            rows_linking: indexing.rows_linking,
            rows_linked: indexing.rows_linked,
            seconds_left: indexing.seconds_left,
            settled: indexing.settled,
        }
    }
}

/// How long to wait.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    /// At most so many milliseconds, up to 3,600,000; 30,000 where nothing is said. At 0 the answer comes
    /// at once.
    #[schema(maximum = 3_600_000)]
    timeout_ms: Option<u64>,
}

/// How far the indexing is when the wait is over.
#[derive(Serialize, ToSchema)]
pub(super) struct Waited {
    indexing: Indexing,
}

/// Memory of a collection in bytes; mapped files are not counted.
#[derive(Serialize, ToSchema)]
struct CollectionMemory {
    /// Rows that are not sealed yet.
    growing: u64,
    /// Codes of sealed vectors.
    codes: u64,
    /// Links of graphs.
    graphs: u64,
    /// Where each key's row is.
    keys: u64,
    /// Delete marks of sealed rows.
    deletes: u64,
    /// Graphs that are being made, with the codes that they are made by.
    builds: u64,
    /// Sealed rows in the order of forward columns that filters ask for.
    filters: u64,
    /// All of it.
    total: u64,
}

/// Memory of the server in bytes; 0 where the system does not tell.
#[derive(Serialize, ToSchema)]
struct ServerMemory {
    /// What no file backs.
    anonymous: u64,
    /// What is in memory, parts of mapped files included.
    resident: u64,
    /// What `anonymous` may become.
    limit: u64,
    /// The forward store of all collections: its cache and its records.
    forward_store: u64,
    /// What the allocator holds beyond what is in use, more than at the start.
    allocator: u64,
    /// What the process took before it opened a collection.
    base: u64,
    /// Trainings that could not be ended and whose collections have been dropped or altered.
    left_behind: u64,
}

impl From<wire::StatsReply> for Stats {
    fn from(reply: wire::StatsReply) -> Self {
        let memory = reply.memory.unwrap_or_default();
        let server = reply.server_memory.unwrap_or_default();
        let written = reply.bytes_written.unwrap_or_default();
        Stats {
            unindexed: reply.unindexed,
            recall: reply.recall.into_iter().map(ColumnRecall::from).collect(),
            rows: reply.rows,
            segments: reply.segments,
            file_bytes: reply.file_bytes,
            indexing: reply.indexing.into(),
            memory: CollectionMemory {
                growing: memory.growing,
                codes: memory.codes,
                graphs: memory.graphs,
                keys: memory.keys,
                deletes: memory.deletes,
                builds: memory.builds,
                filters: memory.filters,
                total: memory.total,
            },
            server_memory: ServerMemory {
                anonymous: server.anonymous,
                resident: server.resident,
                limit: server.limit,
                forward_store: server.forward_store,
                allocator: server.allocator,
                base: server.base,
                left_behind: server.left_behind,
            },
            bytes_written: BytesWritten {
                by_callers: written.by_callers,
                in_all: written.in_all,
                ratio: written.ratio,
            },
        }
    }
}

/// Tells a collection's statistics
#[utoipa::path(
    get, path = "/api/v1/collections/{name}/stats", operation_id = "collectionStats", tag = "collections",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    responses((status = 200, description = "The statistics.", body = Stats))
)]
pub(super) async fn stats(State(http): State<Http>, line: Line) -> Outcome<Answer<Stats>> {
    line.takes(&[])?;
    let request = wire::StatsRequest { collection: line.name().to_owned() };
    let reply = message(http.native.stats(Request::new(request)).await)?;
    Ok(Answer::short(reply.into()))
}

/// Waits until a collection is indexed
///
/// Until no sealing, merging or training is due or under way, or until the time has passed. What would
/// otherwise begin some seconds after the last write begins at once.
#[utoipa::path(
    post, path = "/api/v1/collections/{name}/wait-indexed", operation_id = "waitIndexed", tag = "collections",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    request_body = Waiting,
    responses((status = 200, description = "How far the indexing is.", body = Waited))
)]
pub(super) async fn wait_indexed(State(http): State<Http>, call: Call) -> Outcome<Answer<Waited>> {
    call.line.takes(&[])?;
    let waiting: Waiting = call.read_or_default()?;
    let request = wire::WaitIndexedRequest {
        collection: call.line.name().to_owned(),
        timeout_ms: waiting.timeout_ms.unwrap_or(TIMEOUT_MS),
    };
    let reply = message(http.native.wait_indexed(Request::new(request)).await)?;
    Ok(Answer::short(Waited { indexing: reply.indexing.into() }))
}
