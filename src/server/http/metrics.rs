//! `/metrics` in the text format of Prometheus: what was counted, and how things stand when asked.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Http;
use crate::collection::SegmentState;
use crate::database::Database;
use crate::embedding::Provider;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(http): State<Http>) -> Response {
    // Looking at many collections takes its time, and some of it waits for locks.
    let text = tokio::task::spawn_blocking(move || {
        let now = now(&http.database)?;
        http.metrics.text(&now)
    });
    let failed = |words: String| {
        tracing::error!(words, "metrics cannot be told");
        (StatusCode::INTERNAL_SERVER_ERROR, words).into_response()
    };
    match text.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(error.to_string()),
        Err(error) => failed(error.to_string()),
    }
}

/// How things stand. Made anew each time: what is gone is not told.
struct Now {
    registry: Registry,
}

impl Now {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Gauge> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(Gauge(gauge))
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Counter> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(Counter(counter))
    }
}

struct Gauge(IntGaugeVec);

impl Gauge {
    fn set(&self, labels: &[&str], value: u64) {
        self.0.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

struct Counter(IntCounterVec);

impl Counter {
    fn set(&self, labels: &[&str], value: u64) {
        self.0.with_label_values(labels).inc_by(value);
    }
}

fn now(database: &Database) -> prometheus::Result<Registry> {
    let now = Now { registry: Registry::new() };
    build(&now)?;
    server(&now, database)?;
    embedding(&now, database)?;
    collections(&now, database)?;
    Ok(now.registry)
}

fn build(now: &Now) -> prometheus::Result<()> {
    let info = now.gauge("voisin_build_info", "1, with the version.", &["version"])?;
    info.set(&[env!("CARGO_PKG_VERSION")], 1);
    Ok(())
}

fn server(now: &Now, database: &Database) -> prometheus::Result<()> {
    let memory = now.gauge(
        "voisin_memory_bytes",
        "Memory of the process, and of its parts that belong to no collection.",
        &["part"],
    )?;
    let server = database.server_memory();
    memory.set(&["anonymous"], server.anonymous);
    memory.set(&["resident"], server.resident);
    memory.set(&["forward_store"], server.forward_store);
    memory.set(&["allocator"], server.allocator);
    memory.set(&["base"], server.base);
    memory.set(&["left_behind"], server.left_behind);
    let limit = now.gauge("voisin_memory_limit_bytes", "What anonymous memory may become.", &[])?;
    limit.set(&[], server.limit);

    let queues = database.queues();
    let searches =
        now.gauge("voisin_searches", "Queries that wait or run on the search threads.", &[])?;
    searches.set(&[], queues.searches);
    let refusals = now.counter(
        "voisin_refusals_total",
        "Requests refused because a queue was full, or memory.",
        &["by"],
    )?;
    refusals.set(&["search_queue"], queues.searches_refused);
    refusals.set(&["write_queue"], queues.writes_refused);
    refusals.set(&["memory"], database.memory().refused());

    let collections = now.gauge("voisin_collections", "Collections.", &["state"])?;
    collections.set(&["served"], database.collections().len() as u64);
    collections.set(&["unserved"], database.unserved().len() as u64);
    Ok(())
}

fn embedding(now: &Now, database: &Database) -> prometheus::Result<()> {
    let report = database.embedding().report();
    let info = now.gauge(
        "voisin_embedding_info",
        "1, with what runs models in ONNX Runtime's words; none where nothing does.",
        &["provider"],
    )?;
    info.set(&[report.provider.map_or("none", Provider::name)], 1);
    let pictures = now.counter(
        "voisin_pictures_total",
        "Pictures that vectors were made of, and those that could not be read or embedded.",
        &["outcome"],
    )?;
    pictures.set(&["embedded"], report.embedded);
    pictures.set(&["refused"], report.refused);
    let waiting = now.gauge(
        "voisin_pictures_waiting",
        "Pictures that wait to be decoded, and decoded ones that wait for their model.",
        &["for"],
    )?;
    waiting.set(&["decoding"], report.waiting.0);
    waiting.set(&["model"], report.waiting.1);
    let batches = now.counter("voisin_model_batches_total", "Batches that models ran.", &[])?;
    batches.set(&[], report.batches.0);
    let busy = now.counter(
        "voisin_model_busy_microseconds_total",
        "Time that models ran, added up over their threads.",
        &[],
    )?;
    busy.set(&[], report.batches.1);
    Ok(())
}

fn collections(now: &Now, database: &Database) -> prometheus::Result<()> {
    let rows = now.gauge("voisin_collection_rows", "Rows that queries see.", &["collection"])?;
    let segments =
        now.gauge("voisin_collection_segments", "Segments.", &["collection", "state"])?;
    let files = now.gauge(
        "voisin_collection_file_bytes",
        "Bytes of sealed segments on disk, and of growing ones in memory.",
        &["collection"],
    )?;
    let indexing = now.gauge(
        "voisin_collection_indexing_rows",
        "Rows that no index holds yet (waiting), and of these, those in the build under way (linking) and already in it (linked).",
        &["collection", "state"],
    )?;
    let settled = now.gauge(
        "voisin_collection_settled",
        "1 where no sealing, merging or training is due or under way.",
        &["collection"],
    )?;
    let seconds_left = GaugeVec::new(
        Opts::new(
            "voisin_collection_indexing_seconds_left",
            "Seconds until the build under way is done, where that can be told.",
        ),
        &["collection"],
    )?;
    now.registry.register(Box::new(seconds_left.clone()))?;
    let recall = GaugeVec::new(
        Opts::new(
            "voisin_recall",
            "What queries find of the 10 nearest by default: of a sample when an index was built, and of queries that were asked, without filters (live) and with them (filtered).",
        ),
        &["collection", "column", "of"],
    )?;
    now.registry.register(Box::new(recall.clone()))?;
    let memory = now.gauge(
        "voisin_collection_memory_bytes",
        "Memory of a collection by what it is for; mapped files are not counted.",
        &["collection", "part"],
    )?;
    let written = now.counter(
        "voisin_collection_written_bytes_total",
        "Bytes that callers wrote (by_callers), and all that were written for them (in_all), since the collection was opened.",
        &["collection", "what"],
    )?;
    for collection in database.collections() {
        let name = collection.schema().name.as_str();
        let report = collection.written();
        written.set(&[name, "by_callers"], report.asked);
        written.set(&[name, "in_all"], report.written);
        let stats = collection.stats();
        rows.set(&[name], stats.segments.iter().map(|segment| segment.live_rows).sum());
        files.set(&[name], stats.segments.iter().map(|segment| segment.file_bytes).sum());
        for (label, state) in [
            ("growing", SegmentState::Growing),
            ("sealing", SegmentState::Sealing),
            ("compacting", SegmentState::Compacting),
            ("sealed", SegmentState::Sealed),
        ] {
            let count = stats.segments.iter().filter(|segment| segment.state == state).count();
            segments.set(&[name, label], count as u64);
        }
        let report = collection.indexing();
        indexing.set(&[name, "waiting"], report.rows_waiting);
        indexing.set(&[name, "linking"], report.rows_linking);
        indexing.set(&[name, "linked"], report.rows_linked);
        settled.set(&[name], u64::from(report.is_settled));
        if let Some(seconds) = report.seconds_left {
            seconds_left.with_label_values(&[name]).set(seconds);
        }
        for report in collection.recall() {
            let shares =
                [("sample", report.expected), ("live", report.live), ("filtered", report.filtered)];
            for (of, share) in shares {
                if let Some(share) = share {
                    recall.with_label_values(&[name, &report.column, of]).set(share.into());
                }
            }
        }
        let report = collection.memory();
        for (part, bytes) in [
            ("growing", report.growing),
            ("codes", report.codes),
            ("graphs", report.graphs),
            ("keys", report.keys),
            ("deletes", report.deletes),
            ("builds", report.builds),
            ("filters", report.filters),
        ] {
            memory.set(&[name, part], bytes);
        }
    }
    Ok(())
}
