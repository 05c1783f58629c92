//! Queries over gRPC beside stock faiss in process: same rows, same queries, same run.
//!
//! Starts a server of its own, loads clustered rows through `WriteStream`, waits until they are
//! indexed, chooses for both sides the smallest `ef_search` that reaches the recall asked for, and
//! then measures in turns: faiss on one thread, then the server with each number of clients. Prints
//! one JSON line; progress goes to standard error.
//!
//! ```text
//! cargo run --release --example query_load -- --server target/release/voisin
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::transport::Channel;
use voisin::native::{Graph, GraphParams};
use voisin::schema::{ElementType, Metric};
use voisin::server::proto::proxima::proxima_service_client::ProximaServiceClient;
use voisin::server::proto::proxima::query_request::knn_query_param::FeaturesValue;
use voisin::server::proto::proxima::query_request::{KnnQueryParam, QueryParam};
use voisin::server::proto::proxima::{self, CollectionName, KeyValuePair, QueryRequest};
use voisin::server::proto::voisin_v1::{self, voisin_client::VoisinClient};
use voisin::simd::Query;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const NAME: &str = "query_load";
const TOPK: usize = 10;
const LADDER: [usize; 12] = [10, 16, 24, 32, 40, 48, 64, 80, 96, 128, 200, 400];

/// Queries over gRPC beside stock faiss in process.
#[derive(Debug, Parser)]
pub struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/voisin")]
    server: PathBuf,
    /// Rows.
    #[arg(long, default_value_t = 100_000)]
    rows: usize,
    /// Dimension.
    #[arg(long, default_value_t = 128)]
    dimension: usize,
    /// Numbers of clients, each with a connection of its own.
    #[arg(long, value_delimiter = ',', default_value = "1,4,8")]
    clients: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Turns.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Recall at 10 that both sides must reach.
    #[arg(long, default_value_t = 0.95)]
    recall: f64,
    /// Seed of the rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Rows in clusters whose sizes follow a power law, around centres of low intrinsic dimension.
fn clustered(count: usize, dimension: usize, seed: u64, part: u64) -> Vec<f32> {
    let mut shape = StdRng::seed_from_u64(seed);
    let clusters = 200;
    let inner = 24.min(dimension);
    let normal = |rng: &mut StdRng| (0..6).map(|_| rng.random_range(-0.7f32..0.7)).sum::<f32>();
    let basis: Vec<f32> = (0..inner * dimension).map(|_| normal(&mut shape)).collect();
    let centres: Vec<f32> = (0..clusters * inner).map(|_| normal(&mut shape)).collect();
    let mut rng = StdRng::seed_from_u64(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut rows = Vec::with_capacity(count * dimension);
    for _ in 0..count {
        let cluster = (clusters as f64 * rng.random::<f64>().powi(2)) as usize;
        let place: Vec<f32> =
            (0..inner).map(|i| centres[cluster * inner + i] + 0.6 * normal(&mut rng)).collect();
        for column in 0..dimension {
            let mixed: f32 = (0..inner).map(|i| place[i] * basis[i * dimension + column]).sum();
            rows.push(mixed + 0.15 * normal(&mut rng));
        }
    }
    rows
}

fn bytes_of(rows: &[f32]) -> Vec<u8> {
    rows.iter().flat_map(|x| x.to_le_bytes()).collect()
}

struct Server {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start(binary: &PathBuf) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut child = Command::new(binary)
            .args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--log-format", "json", "--durability", "process", "--data"])
            .arg(data.path())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("the server has no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        for line in &mut lines {
            let line: serde_json::Value = serde_json::from_str(&line?)?;
            if line["fields"]["message"] == "ready" {
                let address = line["fields"]["grpc"].as_str().ok_or("no address")?.to_owned();
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Server { child, address: format!("http://{address}"), _data: data });
            }
        }
        Err("the server ended before it was ready".into())
    }

    /// Processor seconds used so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').ok_or("unreadable stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(vector: &[f32], dimension: usize, ef_search: usize) -> QueryRequest {
    let knn = KnnQueryParam {
        column_name: "v".into(),
        topk: TOPK as u32,
        batch_count: 1,
        dimension: dimension as u32,
        data_type: proxima::DataType::DtVectorFp32 as i32,
        features_value: Some(FeaturesValue::Features(Bytes::from(bytes_of(vector)))),
        extra_params: vec![KeyValuePair { key: "ef_search".into(), value: ef_search.to_string() }],
        ..KnnQueryParam::default()
    };
    QueryRequest {
        collection_name: NAME.into(),
        query_param: Some(QueryParam::KnnParam(knn)),
        ..QueryRequest::default()
    }
}

async fn load(address: &str, rows: &[f32], dimension: usize) -> Result<f64> {
    let mut admin = ProximaServiceClient::connect(address.to_owned()).await?;
    let config = proxima::CollectionConfig {
        collection_name: NAME.into(),
        index_column_params: vec![proxima::collection_config::IndexColumnParam {
            column_name: "v".into(),
            index_type: 1,
            data_type: proxima::DataType::DtVectorFp32 as i32,
            dimension: dimension as u32,
            ..Default::default()
        }],
        ..Default::default()
    };
    let status = admin.create_collection(config).await?.into_inner();
    if status.code != 0 {
        return Err(status.reason.into());
    }
    let started = Instant::now();
    let requests: Vec<voisin_v1::WriteRequest> = rows
        .chunks(1_000 * dimension)
        .enumerate()
        .map(|(batch, chunk)| {
            let count = chunk.len() / dimension;
            voisin_v1::WriteRequest {
                request_id: batch as u64,
                collection: NAME.into(),
                keys: (0..count as u64).map(|i| batch as u64 * 1_000 + i).collect(),
                operation: voisin_v1::Operation::Insert as i32,
                vectors: vec![voisin_v1::VectorColumn {
                    name: "v".into(),
                    element: voisin_v1::ElementType::Fp32 as i32,
                    dimension: dimension as u32,
                    vectors: bytes_of(chunk).into(),
                }],
                ..Default::default()
            }
        })
        .collect();
    let mut client =
        VoisinClient::connect(address.to_owned()).await?.max_encoding_message_size(64 << 20);
    let mut acks = client.write_stream(tokio_stream::iter(requests)).await?.into_inner();
    while let Some(ack) = acks.message().await? {
        if !ack.failures.is_empty() {
            return Err(format!("rows failed: {:?}", ack.failures[0]).into());
        }
    }
    eprintln!("loaded in {:.1} s", started.elapsed().as_secs_f64());
    // Indexed when nothing is under way over several looks.
    let mut quiet = 0;
    let mut timer = tokio::time::interval(Duration::from_millis(500));
    while quiet < 8 {
        timer.tick().await;
        let name = CollectionName { collection_name: NAME.into() };
        let stats = admin.stats_collection(name).await?.into_inner();
        let segments = stats.collection_stats.map(|s| s.segment_stats).unwrap_or_default();
        let is_busy = segments.iter().any(|s| s.state == 2 || s.state == 3);
        quiet = if is_busy { 0 } else { quiet + 1 };
        if started.elapsed() > Duration::from_secs(900) {
            return Err("indexing did not end in 15 minutes".into());
        }
        if quiet == 8 {
            let sizes: Vec<u64> = segments.iter().map(|s| s.doc_count).collect();
            eprintln!("indexed in {:.1} s: segments {sizes:?}", started.elapsed().as_secs_f64());
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

fn truth(rows: &[u8], queries: &[f32], dimension: usize) -> Result<Vec<Vec<u64>>> {
    let count = rows.len() / (dimension * 4);
    let mut scores = vec![0.0; count];
    queries
        .chunks(dimension)
        .map(|vector| {
            let query = Query::new(
                ElementType::Fp32,
                Metric::SquaredEuclidean,
                dimension as u32,
                &bytes_of(vector),
            );
            if !query.ok_or("no query")?.distances(rows, &mut scores) {
                return Err("rows do not fit".into());
            }
            let mut order: Vec<u64> = (0..count as u64).collect();
            order.select_nth_unstable_by(TOPK, |a, b| {
                scores[*a as usize].total_cmp(&scores[*b as usize])
            });
            order.truncate(TOPK);
            Ok(order)
        })
        .collect()
}

fn recall(found: &[Vec<u64>], truth: &[Vec<u64>]) -> f64 {
    let hits: usize = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| found.iter().filter(|key| truth.contains(key)).count())
        .sum();
    hits as f64 / (truth.len() * TOPK) as f64
}

async fn ask(
    client: &mut ProximaServiceClient<Channel>,
    request: QueryRequest,
) -> Result<Vec<u64>> {
    let reply = client.query(request).await?.into_inner();
    let status = reply.status.unwrap_or_default();
    if status.code != 0 {
        return Err(status.reason.into());
    }
    let first = reply.results.first().map(|r| r.documents.iter().map(|d| d.primary_key).collect());
    Ok(first.unwrap_or_default())
}

/// Queries per second, and the latencies in seconds, ascending.
async fn drive(
    address: &str,
    requests: &[QueryRequest],
    clients: usize,
    seconds: f64,
) -> Result<(f64, Vec<f64>)> {
    let mut tasks = Vec::new();
    for id in 0..clients {
        let mut client = ProximaServiceClient::connect(address.to_owned()).await?;
        let requests = requests.to_vec();
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            let started = Instant::now();
            let mut next = id * 131;
            while started.elapsed().as_secs_f64() < seconds {
                let sent = Instant::now();
                ask(&mut client, requests[next % requests.len()].clone()).await?;
                latencies.push(sent.elapsed().as_secs_f64());
                next += 1;
            }
            Result::Ok(latencies)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_by(f64::total_cmp);
    Ok((all.len() as f64 / seconds, all))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures, and reports as JSON.
pub async fn measure(args: &Args) -> Result<serde_json::Value> {
    let dimension = args.dimension;
    let rows = clustered(args.rows, dimension, args.seed, 1);
    let queries = clustered(1_000, dimension, args.seed, 2);
    let row_bytes = bytes_of(&rows);
    let truth = truth(&row_bytes, &queries, dimension)?;

    let server = Server::start(&args.server)?;
    let indexed_seconds = load(&server.address, &rows, dimension).await?;

    eprintln!("building the faiss graph");
    let started = Instant::now();
    let mut graph = Graph::new(&GraphParams {
        element: ElementType::Fp32,
        metric: Metric::SquaredEuclidean,
        dimension: dimension as u32,
        max_neighbor_count: 16,
        ef_construction: 200,
    })?;
    graph.add(&row_bytes, args.rows, 2)?;
    let faiss_build_seconds = started.elapsed().as_secs_f64();

    let stored: Vec<Vec<u8>> = queries.chunks(dimension).map(bytes_of).collect();
    let faiss_at = |ef: usize| -> Result<Vec<Vec<u64>>> {
        let mut out = Vec::new();
        stored
            .iter()
            .map(|query| {
                graph.search(query, TOPK, ef, &mut out)?;
                Ok(out.iter().map(|(_, id)| u64::from(*id)).collect())
            })
            .collect()
    };
    let (mut faiss_ef, mut faiss_recall) = (0, 0.0);
    for ef in LADDER {
        (faiss_ef, faiss_recall) = (ef, recall(&faiss_at(ef)?, &truth));
        if faiss_recall >= args.recall {
            break;
        }
    }
    let mut client = ProximaServiceClient::connect(server.address.clone()).await?;
    let (mut server_ef, mut server_recall) = (0, 0.0);
    for ef in LADDER {
        let mut found = Vec::new();
        for vector in queries.chunks(dimension) {
            found.push(ask(&mut client, request(vector, dimension, ef)).await?);
        }
        (server_ef, server_recall) = (ef, recall(&found, &truth));
        if server_recall >= args.recall {
            break;
        }
    }
    eprintln!(
        "faiss ef {faiss_ef} recall {faiss_recall:.4}, server ef {server_ef} recall {server_recall:.4}"
    );

    let requests: Vec<QueryRequest> =
        queries.chunks(dimension).map(|v| request(v, dimension, server_ef)).collect();
    let mut faiss_qps = Vec::new();
    let mut served: Vec<Vec<[f64; 4]>> = vec![Vec::new(); args.clients.len()];
    for turn in 0..args.turns {
        let started = Instant::now();
        let mut asked = 0;
        while started.elapsed().as_secs_f64() < args.seconds {
            faiss_at(faiss_ef)?;
            asked += stored.len();
        }
        faiss_qps.push(asked as f64 / started.elapsed().as_secs_f64());
        for (position, clients) in args.clients.iter().enumerate() {
            let cpu = server.cpu_seconds()?;
            let (qps, latencies) =
                drive(&server.address, &requests, *clients, args.seconds).await?;
            let cpu = server.cpu_seconds()? - cpu;
            let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1e6;
            eprintln!("turn {turn}, {clients} clients: {qps:.0} QPS, p50 {:.0} us", at(0.5));
            served[position].push([qps, at(0.5), at(0.99), latencies.len() as f64 / cpu]);
        }
    }
    let faiss = median(faiss_qps);
    let column = |position: usize, what: usize| {
        median(served[position].iter().map(|measured| measured[what]).collect())
    };
    let served: Vec<serde_json::Value> = args
        .clients
        .iter()
        .enumerate()
        .map(|(position, clients)| {
            serde_json::json!({
                "clients": clients,
                "qps": column(position, 0).round(),
                "p50_us": column(position, 1).round(),
                "p99_us": column(position, 2).round(),
                "qps_per_server_core": column(position, 3).round(),
                "qps_to_faiss_thread": column(position, 0) / faiss,
                "qps_per_server_core_to_faiss_thread": column(position, 3) / faiss,
            })
        })
        .collect();
    Ok(serde_json::json!({
        "rows": args.rows,
        "dimension": dimension,
        "indexed_seconds": indexed_seconds,
        "faiss": {
            "ef_search": faiss_ef,
            "recall": faiss_recall,
            "qps_one_thread": faiss.round(),
            "build_seconds_two_threads": faiss_build_seconds,
        },
        "server": { "ef_search": server_ef, "recall": server_recall, "by_clients": served },
    }))
}

#[tokio::main]
async fn main() -> Result<()> {
    println!("{}", measure(&Args::parse()).await?);
    Ok(())
}
