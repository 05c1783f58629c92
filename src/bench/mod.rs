//! `voisin bench`: what a server does with vectors of known difficulty, measured from outside over
//! gRPC. Recall is counted against exact search; recall and speed are always told together.
//!
//! `data` makes vectors, `files` reads them, `server` starts the program under test, `embedded` measures
//! the engine without the wire, `report` writes what was seen. benches/peers.py runs other engines on the
//! same vectors in turn with this.

mod data;
mod embedded;
mod files;
mod filtered;
mod report;
mod server;
mod writing;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

pub use data::{Kind, Vectors};
pub use filtered::FilteredPoint;
pub use report::{Point, Report};
pub use writing::WritingPoint;

use crate::schema::{ElementType, Metric};
use crate::server::client::{Client, ClientError, FloatCollection, PreparedQuery};
use crate::server::load::WireQueries;
use crate::simd::Query;
use files::{Cut, Given};
use server::Server;

/// Rows of one write request.
const BATCH_ROWS: usize = 1_000;
/// Rows scored at once when the truth is computed.
const TRUTH_ROWS: usize = 4_096;
/// A collection counts as indexed when no segment was at work for this long.
const QUIET: Duration = Duration::from_secs(4);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Queries between those that two clients begin with.
const APART: usize = 131;
/// Queries when no number is given.
const QUERIES: usize = 1_000;
/// Queries whose neighbours in a file are held against computed ones.
const CHECKED: usize = 20;
/// The share of them that must be the same: rounding may swap two rows.
const SAME: f64 = 0.9;
/// Latest end of indexing.
const INDEX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BenchError(String);

/// Its result type.
pub type Result<T> = std::result::Result<T, BenchError>;

impl From<ClientError> for BenchError {
    fn from(cause: ClientError) -> Self {
        BenchError(cause.to_string())
    }
}

/// Arguments of `voisin bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What the vectors are like.
    #[arg(long, value_enum, default_value = "clustered")]
    pub kind: Kind,
    /// Rows; by default 100,000, or 9,292 copies. Of --data the first so many, by default all.
    #[arg(long)]
    pub rows: Option<usize>,
    /// Dimension of made-up vectors; by default 128, 512 for features, 2048 for copies.
    #[arg(long)]
    pub dimension: Option<usize>,
    /// Queries; by default 1,000. Of --data the first so many, by default all.
    #[arg(long)]
    pub queries: Option<usize>,
    /// Where the vectors come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Read vectors instead of making them up: base and query (.fvecs or .npy) of a folder, or train and
    /// test of an .hdf5 or .h5 file in the layout of ann-benchmarks, with its neighbors if all rows are
    /// read and --metric is left out.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Write the vectors into this folder too, as base.fvecs and query.fvecs.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Make the vectors, write them where --keep says, and end.
    #[arg(long, requires = "keep")]
    pub make_only: bool,
    /// The metric; by default the one that a file names, or that fits the kind of vectors.
    #[arg(long, value_parser = parse_metric)]
    pub metric: Option<Metric>,
    /// A running server; by default this program is started on a folder of its own.
    #[arg(long, value_name = "HOST:PORT", group = "lasting")]
    pub server: Option<String>,
    /// What the own server's acknowledgements survive.
    #[arg(long, default_value = "process", value_parser = ["process", "power"])]
    pub durability: String,
    /// The collection; dropped at the end unless --attach or --folder.
    #[arg(long, default_value = "voisin_bench")]
    pub collection: String,
    /// The data folder of --in-process, which stays; by default a temporary one.
    #[arg(long, value_name = "DIR", group = "lasting", requires = "in_process")]
    pub folder: Option<PathBuf>,
    /// Query a collection that an earlier run left on --server or in --folder, and leave it there.
    #[arg(long, requires = "lasting")]
    pub attach: bool,
    /// Measure the engine alone, in this process, on one thread.
    #[arg(long, conflicts_with_all = ["server", "clients"])]
    pub in_process: bool,
    /// Measure queries while so many rows a second are inserted, too.
    #[arg(long, value_name = "ROWS", conflicts_with_all = ["server", "in_process"])]
    pub while_writing: Option<u32>,
    /// Load the collection and leave it there, without measuring queries.
    #[arg(long, requires = "lasting", conflicts_with = "attach")]
    pub load_only: bool,
    /// Parameters of the column, such as index_type=FLAT.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub params: Vec<(String, String)>,
    /// Values of ef_search to try; 0 leaves it to the server to reach the recall wanted.
    #[arg(long, value_delimiter = ',', default_value = "0,10,16,24,32,48,64,96,128,200,400")]
    pub ef: Vec<u32>,
    /// Percentages of the rows that filters let through, to be measured with the first value of --ef.
    #[arg(long, value_delimiter = ',')]
    pub filter: Vec<f64>,
    /// Numbers of clients, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    pub clients: Vec<usize>,
    /// Nearest rows asked for.
    #[arg(short, long, default_value_t = 10)]
    pub k: u32,
    /// The recall at which the figures are summed up.
    #[arg(long, default_value_t = 0.95)]
    pub recall: f64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Turns; figures are medians.
    #[arg(long, default_value_t = 3)]
    pub turns: usize,
    /// Measure at the wanted recall only, not at every value of ef_search.
    #[arg(long)]
    pub brief: bool,
    /// Where bench.json and bench.html go.
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    pub out: PathBuf,
}

fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("it must look like KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn parse_metric(text: &str) -> std::result::Result<Metric, String> {
    let fits = |metric: &Metric| *metric != Metric::Hamming && metric.name() == text;
    Metric::ALL.into_iter().map(|(_, metric)| metric).find(fits).ok_or_else(|| {
        "one of SquaredEuclidean, Euclidean, InnerProduct, Cosine, Manhattan".to_owned()
    })
}

/// Vectors with what is asked of them.
struct Job {
    collection: FloatCollection,
    vectors: Vectors,
    /// The nearest keys of each query; those at the same distance as the k-th count too.
    truth: Vec<HashSet<u64>>,
    /// True when a file had it, false when it was computed.
    is_truth_of_file: bool,
    k: usize,
    /// The recall wanted.
    recall: f64,
}

/// Measures, writes the report and returns it.
pub async fn run(args: &BenchArgs) -> Result<Report> {
    let job = prepare(args)?;
    let mut report = Report::new(args, &job);
    if args.make_only {
        return Ok(report);
    }
    if args.in_process {
        embedded::run(args, &job, &mut report).await?;
        report.write(&args.out)?;
        return Ok(report);
    }
    let own = match &args.server {
        Some(_) => None,
        None => Some(Server::start(&args.durability)?),
    };
    let address = match (&args.server, &own) {
        (Some(address), _) => address.clone(),
        (None, Some(server)) => server.address.clone(),
        (None, None) => return Err(BenchError("no server".into())),
    };
    let mut client = Client::connect(&address).await?;
    if !args.attach {
        load(&mut client, &job, &mut report).await?;
    }
    if !args.load_only {
        measure(args, &address, &mut client, &job, &mut report).await?;
        report.filtered = filtered::run_over_wire(args, &address, &mut client, &job).await?;
    }
    if let Some(mut server) = own {
        report.memory = server.memory();
        report.disk_bytes = server.disk_bytes();
        if let (Some(rate), Some(best)) = (args.while_writing, report.best) {
            report.while_writing = Some(writing::run(args, &address, &job, best, rate).await?);
        }
        let started = Instant::now();
        server.kill_and_restart()?;
        let mut client = Client::connect(&server.address).await?;
        let query = job.query(0, report.best.map_or(args.ef[0], |best| best.ef_search));
        client.query(&query).await?;
        report.restart_seconds = Some(started.elapsed().as_secs_f64());
    } else if !args.attach && !args.load_only {
        client.drop_collection(&args.collection).await?;
    }
    report.write(&args.out)?;
    Ok(report)
}

fn prepare(args: &BenchArgs) -> Result<Job> {
    if args.ef.is_empty() || args.clients.is_empty() || args.turns == 0 || args.k == 0 {
        return Err(BenchError("--ef, --clients, --turns and -k need at least one".into()));
    }
    let dimension = args.dimension.unwrap_or(args.kind.dimension());
    let rows = args.rows.unwrap_or(args.kind.rows());
    let queries = args.queries.unwrap_or(QUERIES);
    if dimension == 0 || rows == 0 || queries == 0 {
        return Err(BenchError("--rows, --queries and --dimension are 1 and up".into()));
    }
    let (mut given, named) = match &args.data {
        Some(path) => {
            let given = files::read(path, Cut { rows: args.rows, queries: args.queries })?;
            let named = if args.metric.is_none() { given.metric(path)? } else { None };
            (given, named)
        }
        None => (Given::made(Vectors::made(args.kind, rows, queries, dimension, args.seed)), None),
    };
    let metric = args.metric.or(named).unwrap_or(args.kind.metric());
    let neighbours = given.neighbours.take().filter(|_| args.metric.is_none());
    let vectors = given.vectors;
    if let Some(folder) = &args.keep {
        files::write(&vectors, folder)?;
    }
    let collection = FloatCollection {
        name: args.collection.clone(),
        dimension: vectors.dimension as u32,
        metric,
        params: args.params.clone(),
    };
    let k = args.k as usize;
    let of_file = neighbours.and_then(|neighbours| neighbours.nearest(k.min(vectors.len())));
    let is_truth_of_file = of_file.is_some();
    let truth = match (args.load_only || args.make_only, of_file) {
        (true, _) => Vec::new(),
        (false, None) => truth(&vectors, &vectors.queries, metric, k)?,
        (false, Some(of_file)) => {
            let path = args.data.as_deref().unwrap_or(Path::new(""));
            check_truth(path, &vectors, metric, k, &of_file)?;
            of_file
        }
    };
    Ok(Job { collection, vectors, truth, is_truth_of_file, k, recall: args.recall })
}

/// Computes the neighbours of some queries, to see that a file means the same rows and the same metric.
fn check_truth(
    path: &Path,
    vectors: &Vectors,
    metric: Metric,
    k: usize,
    of_file: &[HashSet<u64>],
) -> Result<()> {
    let checked = CHECKED.min(of_file.len());
    let places: Vec<usize> = (0..checked).map(|i| i * of_file.len() / checked).collect();
    let all: Vec<&[f32]> = vectors.queries.chunks(vectors.dimension).collect();
    let queries: Vec<f32> = places.iter().flat_map(|place| all[*place]).copied().collect();
    let (of, mut same) = (k.min(vectors.len()), 0);
    for (computed, place) in truth(vectors, &queries, metric, k)?.iter().zip(&places) {
        same += of_file[*place].intersection(computed).count().min(of);
    }
    let wanted = of * checked;
    if (same as f64) < SAME * wanted as f64 {
        return Err(BenchError(format!(
            "{}: of {wanted} of its neighbors only {same} are nearest by {}; with --metric they are \
             computed instead",
            path.display(),
            metric.name()
        )));
    }
    Ok(())
}

fn bytes_of(vectors: &[f32]) -> Bytes {
    vectors.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn bar(what: &str, count: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:18} {wide_bar} {pos}/{len} {per_sec} {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count as u64).with_message(what.to_owned()).with_style(style)
}

/// The nearest rows of each query by exact scores.
fn truth(
    vectors: &Vectors,
    queries: &[f32],
    metric: Metric,
    k: usize,
) -> Result<Vec<HashSet<u64>>> {
    let (dimension, count) = (vectors.dimension, vectors.len());
    let bar = bar("exact neighbours", queries.len() / dimension);
    let queries: Option<Vec<Query>> = queries
        .chunks(dimension)
        .map(|q| Query::new(ElementType::Fp32, metric, dimension as u32, &bytes_of(q)))
        .collect();
    let queries = queries.ok_or_else(|| BenchError("the metric takes no floats".into()))?;
    // Block by block, so that rows stay in the cache while all queries look at them.
    let mut best: Vec<Vec<(f32, u64)>> = vec![Vec::new(); queries.len()];
    for (block, rows) in vectors.rows.chunks(TRUTH_ROWS * dimension).enumerate() {
        let rows = bytes_of(rows);
        best.par_iter_mut().zip(&queries).for_each(|(best, query)| {
            let mut scores = vec![0.0; rows.len() / (dimension * 4)];
            if query.distances(&rows, &mut scores) {
                let first = (block * TRUTH_ROWS) as u64;
                best.extend(scores.iter().enumerate().map(|(i, s)| (*s, first + i as u64)));
                let wanted = k.min(count);
                if best.len() > wanted {
                    let by_score = |a: &(f32, u64), b: &(f32, u64)| a.0.total_cmp(&b.0);
                    let (_, (edge, _), _) = best.select_nth_unstable_by(wanted - 1, by_score);
                    let edge = *edge;
                    best.retain(|(score, _)| *score <= edge);
                }
            }
        });
        bar.set_position((((block + 1) * TRUTH_ROWS).min(count) * queries.len() / count) as u64);
    }
    bar.finish_and_clear();
    Ok(best.into_iter().map(|near| near.into_iter().map(|(_, key)| key).collect()).collect())
}

async fn load(client: &mut Client, job: &Job, report: &mut Report) -> Result<()> {
    client.create(&job.collection).await?;
    let (dimension, count) = (job.vectors.dimension, job.vectors.len());
    // Made before the clock runs: this measures the server.
    let batches: Vec<(Vec<u64>, Bytes)> = job
        .vectors
        .rows
        .chunks(BATCH_ROWS * dimension)
        .enumerate()
        .map(|(batch, rows)| {
            let first = (batch * BATCH_ROWS) as u64;
            ((first..first + (rows.len() / dimension) as u64).collect(), bytes_of(rows))
        })
        .collect();
    let progress = bar("loading", count);
    let started = Instant::now();
    let inserting = client.insert(&job.collection, batches.into_iter(), |rows| progress.inc(rows));
    inserting.await?;
    // An acknowledged row is found by the next query.
    report.searchable_seconds = Some(started.elapsed().as_secs_f64());
    progress.finish_and_clear();
    let waiting = ProgressBar::new_spinner();
    let mut busy_until = started.elapsed();
    loop {
        let segments = client.segments(&job.collection.name).await?;
        let now = started.elapsed();
        if segments.iter().any(|segment| segment.is_busy) {
            busy_until = now;
        }
        if now > busy_until + QUIET {
            report.segments = segments.iter().map(|segment| segment.rows).collect();
            report.indexed_seconds = Some(busy_until.as_secs_f64());
            waiting.finish_and_clear();
            return Ok(());
        }
        if now > INDEX_TIMEOUT {
            return Err(BenchError("indexing took more than an hour".into()));
        }
        let progress = client.progress(&job.collection.name).await?;
        waiting.set_message(format!("indexing, {:.0} s: {progress}", now.as_secs_f64()));
        waiting.tick();
        tokio::time::sleep(LOOK).await;
    }
}

impl Job {
    /// The query parameters for so many candidates, or for the recall wanted.
    fn effort(&self, ef_search: u32) -> Vec<(String, String)> {
        vec![match ef_search {
            0 => ("recall_target".to_owned(), self.recall.to_string()),
            count => ("ef_search".to_owned(), count.to_string()),
        }]
    }

    fn query(&self, number: usize, ef_search: u32) -> PreparedQuery {
        let count = self.vectors.queries.len() / self.vectors.dimension;
        let start = number % count * self.vectors.dimension;
        let vector = bytes_of(&self.vectors.queries[start..start + self.vectors.dimension]);
        PreparedQuery::new(&self.collection, vector, self.k as u32, &self.effort(ef_search))
    }

    fn queries(&self, ef_search: u32) -> Vec<PreparedQuery> {
        let count = self.vectors.queries.len() / self.vectors.dimension;
        (0..count).map(|number| self.query(number, ef_search)).collect()
    }
}

async fn recall(client: &mut Client, job: &Job, queries: &[PreparedQuery]) -> Result<f64> {
    let (mut hits, mut wanted) = (0, 0);
    for (query, truth) in queries.iter().zip(&job.truth) {
        let found = client.query(query).await?;
        let of = job.k.min(job.vectors.len());
        hits += found.iter().filter(|key| truth.contains(key)).count().min(of);
        wanted += of;
    }
    Ok(hits as f64 / wanted.max(1) as f64)
}

async fn measure(
    args: &BenchArgs,
    address: &str,
    client: &mut Client,
    job: &Job,
    report: &mut Report,
) -> Result<()> {
    let mut ladder = Vec::new();
    for ef_search in &args.ef {
        let queries = job.queries(*ef_search);
        let recall = recall(client, job, &queries).await?;
        let reaches = recall >= args.recall;
        if !args.brief || reaches || Some(ef_search) == args.ef.last() {
            ladder.push((*ef_search, recall, queries));
        }
        if args.brief && reaches {
            break;
        }
    }
    let bar = bar("queries", ladder.len() * args.clients.len() * args.turns);
    let mut measured = vec![Vec::new(); ladder.len() * args.clients.len()];
    for _ in 0..args.turns {
        let mut place = measured.iter_mut();
        for (_, _, queries) in &ladder {
            for clients in &args.clients {
                let figures = drive(address, queries, *clients, args.seconds).await?;
                place.next().into_iter().for_each(|turns| turns.push(figures));
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let mut measured = measured.into_iter();
    for (ef_search, recall, _) in &ladder {
        for clients in &args.clients {
            let turns: Vec<Figures> = measured.next().unwrap_or_default();
            let of = |what: fn(&Figures) -> f64| median(turns.iter().map(what).collect());
            report.points.push(Point {
                clients: *clients,
                ef_search: *ef_search,
                recall: *recall,
                qps: of(|f| f.qps),
                p50_us: of(|f| f.p50_us),
                p99_us: of(|f| f.p99_us),
            });
        }
    }
    report.sum_up(args.recall);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What one run of clients showed.
#[derive(Debug, Clone, Copy)]
struct Figures {
    qps: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Clients that ask one query after the other for some seconds.
async fn drive(
    address: &str,
    queries: &[PreparedQuery],
    clients: usize,
    seconds: f64,
) -> Result<Figures> {
    let mut tasks = tokio::task::JoinSet::new();
    let queries = Arc::new(WireQueries::new(address, queries));
    for id in 0..clients {
        let queries = queries.clone();
        tasks.spawn(async move {
            queries
                .ask(id * APART, Duration::from_secs_f64(seconds))
                .await
                .map_err(BenchError::from)
        });
    }
    let mut all = Vec::new();
    while let Some(task) = tasks.join_next().await {
        all.extend(task.map_err(|cause| BenchError(format!("a client failed: {cause}")))??);
    }
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Ok(Figures { qps: all.len() as f64 / seconds, p50_us: at(0.5), p99_us: at(0.99) })
}
