//! Queries while rows are inserted, beside queries while nothing is written.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::report::Point;
use super::{BenchArgs, BenchError, Figures, Job, Result, bar, bytes_of, drive, median};
use crate::server::client::Client;

/// Writes of a second.
const BATCHES: u32 = 20;
/// Keys of inserted rows begin here.
const FIRST_KEY: u64 = 1 << 40;

/// The same queries in turn.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WritingPoint {
    /// Rows inserted in a second.
    pub rows_per_second: u32,
    /// While nothing is written.
    pub idle: Point,
    /// While rows are inserted.
    pub writing: Point,
}

/// Measures at the parameter of `best`, turn by turn, with the most clients.
pub(super) async fn run(
    args: &BenchArgs,
    address: &str,
    job: &Job,
    best: Point,
    rows_per_second: u32,
) -> Result<WritingPoint> {
    let queries = job.queries(best.ef_search);
    let clients = args.clients.iter().copied().max().unwrap_or(1);
    let (mut idle, mut writing) = (Vec::new(), Vec::new());
    let mut next = 0;
    let progress = bar("while writing", args.turns);
    for _ in 0..args.turns {
        idle.push(drive(address, &queries, clients, args.seconds).await?);
        let writer = insert(address, job, rows_per_second, args.seconds, next);
        let (figures, written) =
            tokio::join!(drive(address, &queries, clients, args.seconds), writer);
        writing.push(figures?);
        next += written?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let point = |turns: &[Figures]| Point {
        clients,
        qps: median(turns.iter().map(|turn| turn.qps).collect()),
        p50_us: median(turns.iter().map(|turn| turn.p50_us).collect()),
        p99_us: median(turns.iter().map(|turn| turn.p99_us).collect()),
        ..best
    };
    Ok(WritingPoint { rows_per_second, idle: point(&idle), writing: point(&writing) })
}

/// Inserts rows at an even rate for so long, and returns how many.
async fn insert(
    address: &str,
    job: &Job,
    rows_per_second: u32,
    seconds: f64,
    first: u64,
) -> Result<u64> {
    let mut client = Client::connect(address).await?;
    let (dimension, count) = (job.vectors.dimension, job.vectors.len());
    let batch = (rows_per_second / BATCHES).max(1) as usize;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / BATCHES);
    let started = Instant::now();
    let mut written = 0;
    while started.elapsed().as_secs_f64() < seconds {
        pace.tick().await;
        let start = (first + written) as usize * 7_919 % count;
        let taken = batch.min(count - start);
        let rows = bytes_of(&job.vectors.rows[start * dimension..(start + taken) * dimension]);
        let key = FIRST_KEY + first + written;
        let keys: Vec<u64> = (key..key + taken as u64).collect();
        client.insert(&job.collection, std::iter::once((keys, rows)), |_| ()).await?;
        written += taken as u64;
    }
    if (written as f64) < 0.9 * seconds * f64::from(rows_per_second) {
        let rate = written as f64 / seconds;
        return Err(BenchError(format!("only {rate:.0} rows a second could be inserted")));
    }
    Ok(written)
}
