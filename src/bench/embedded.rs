//! The engine without the wire: the same measurement in this process, on one thread.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::report::Point;
use super::{
    BATCH_ROWS, BenchArgs, BenchError, INDEX_TIMEOUT, Job, LOOK, Report, Result, bar, bytes_of,
    filtered, median,
};
use crate::collection::Collection;
use crate::config::{Config, Durability};
use crate::database::Database;
use crate::error::Error;
use crate::schema::{
    DeclaredType, ElementType, KnnRequest, NewCollection, NewColumn, Operation, RawQueryVectors,
    RawRow, RawVector, RawVectorMeta, RawWrite, SearchParams,
};

impl From<Error> for BenchError {
    fn from(cause: Error) -> Self {
        BenchError(cause.to_string())
    }
}

/// Loads the vectors into a database of this process and queries them on this thread.
pub(super) async fn run(args: &BenchArgs, job: &Job, report: &mut Report) -> Result<()> {
    let temporary =
        tempfile::tempdir().map_err(|e| BenchError(format!("no temporary folder: {e}")))?;
    let mut config = Config::default();
    config.storage.data = args.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    config.storage.durability =
        if args.durability == "power" { Durability::Power } else { Durability::Process };
    let database = Database::open(&config)?;
    if !args.attach {
        database.create_collection(declared(job)).await?;
    }
    let collection = database.collection(&job.collection.name)?;
    if !args.attach {
        load(&collection, job, report).await?;
    }
    if !args.load_only {
        settle(&collection).await?;
        measure(args, &collection, job, report).await?;
    }
    database.close();
    Ok(())
}

async fn measure(
    args: &BenchArgs,
    collection: &Arc<Collection>,
    job: &Job,
    report: &mut Report,
) -> Result<()> {
    let queries: Vec<Bytes> =
        job.vectors.queries.chunks(job.vectors.dimension).map(bytes_of).collect();
    let mut ladder = Vec::new();
    for ef_search in &args.ef {
        let recall = recall(collection, job, &queries, *ef_search).await?;
        let reaches = recall >= args.recall;
        if !args.brief || reaches || Some(ef_search) == args.ef.last() {
            ladder.push((*ef_search, recall, Vec::new()));
        }
        if args.brief && reaches {
            break;
        }
    }
    for _ in 0..args.turns {
        for (ef_search, _, latencies) in &mut ladder {
            let started = Instant::now();
            let mut own = Vec::new();
            for query in queries.iter().cycle() {
                let asked = Instant::now();
                collection.query(request(query, job, *ef_search)).await?;
                own.push(asked.elapsed().as_secs_f64() * 1e6);
                if started.elapsed().as_secs_f64() > args.seconds {
                    break;
                }
            }
            let qps = own.len() as f64 / started.elapsed().as_secs_f64();
            own.sort_by(f64::total_cmp);
            latencies.push([qps, own[own.len() / 2], own[own.len() * 99 / 100]]);
        }
    }
    for (ef_search, recall, turns) in ladder {
        let of = |what: usize| median(turns.iter().map(|turn| turn[what]).collect());
        report.points.push(Point {
            clients: 1,
            ef_search,
            recall,
            qps: of(0),
            p50_us: of(1),
            p99_us: of(2),
        });
    }
    report.sum_up(args.recall);
    report.filtered = filtered::run(args, collection, job).await?;
    Ok(())
}

fn declared(job: &Job) -> NewCollection {
    let mut params = vec![("metric_type".to_owned(), job.collection.metric.name().to_owned())];
    params.extend(job.collection.params.iter().cloned());
    NewCollection {
        name: job.collection.name.clone(),
        columns: vec![NewColumn {
            name: COLUMN.into(),
            index_type: 1,
            data_type: DeclaredType::Vector(ElementType::Fp32),
            dimension: job.collection.dimension,
            extra_params: params,
        }],
        ..NewCollection::default()
    }
}

/// Rows that may go on growing when nothing is written.
const REST_ROWS: u64 = 512;
const COLUMN: &str = "v";

pub(super) fn request(query: &Bytes, job: &Job, ef_search: u32) -> KnnRequest {
    KnnRequest {
        column: COLUMN.into(),
        topk: job.k as u32,
        vectors: RawQueryVectors::Bytes(query.clone()),
        batch_count: 1,
        params: Some(SearchParams::from_text(&job.effort(ef_search))),
        ..KnnRequest::default()
    }
}

async fn load(collection: &Arc<Collection>, job: &Job, report: &mut Report) -> Result<()> {
    let dimension = job.vectors.dimension;
    let progress = bar("loading", job.vectors.len());
    let started = Instant::now();
    for (batch, rows) in job.vectors.rows.chunks(BATCH_ROWS * dimension).enumerate() {
        let rows: Vec<RawRow> = rows
            .chunks(dimension)
            .enumerate()
            .map(|(at, vector)| RawRow {
                key: (batch * BATCH_ROWS + at) as u64,
                operation: Operation::Insert,
                forward: Vec::new(),
                vectors: vec![RawVector::Bytes(bytes_of(vector))],
                lsn: None,
                condition: None,
            })
            .collect();
        progress.inc(rows.len() as u64);
        let meta = RawVectorMeta {
            column: COLUMN.into(),
            element: Ok(ElementType::Fp32),
            dimension: dimension as u32,
        };
        let write = RawWrite { forward_names: Vec::new(), vector_metas: vec![meta], rows };
        if let Some(failure) = collection.write(write, None).await?.failures.first() {
            return Err(BenchError(format!("a row failed: {failure:?}")));
        }
    }
    report.searchable_seconds = Some(started.elapsed().as_secs_f64());
    progress.finish_and_clear();
    // What grows is sealed once nothing was written for a while.
    loop {
        settle(collection).await?;
        let segments = collection.stats().segments;
        let growing = segments.last().map_or(0, |growing| growing.live_rows);
        if growing < REST_ROWS || started.elapsed() > INDEX_TIMEOUT {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    report.indexed_seconds = Some(started.elapsed().as_secs_f64());
    report.segments = collection.stats().segments.iter().map(|s| s.live_rows).collect();
    Ok(())
}

async fn settle(collection: &Arc<Collection>) -> Result<()> {
    let waiting = collection.clone();
    let settled = tokio::task::spawn_blocking(move || waiting.settle()).await;
    settled.map_err(|cause| BenchError(format!("indexing failed: {cause}")))
}

async fn recall(
    collection: &Arc<Collection>,
    job: &Job,
    queries: &[Bytes],
    ef_search: u32,
) -> Result<f64> {
    let of = job.k.min(job.vectors.len());
    let mut hits = 0;
    for (query, truth) in queries.iter().zip(&job.truth) {
        let reply = collection.query(request(query, job, ef_search)).await?;
        let found: HashSet<u64> = reply.results.iter().flatten().map(|hit| hit.key).collect();
        hits += found.iter().filter(|key| truth.contains(key)).count().min(of);
    }
    Ok(hits as f64 / (of * queries.len()).max(1) as f64)
}
