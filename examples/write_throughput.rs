//! Rows per second of `voisin.v1.WriteStream`, beside what the disk can do: how often it can append a
//! batch and sync it. One JSON line on standard output, progress on standard error.
//!
//!     cargo build --release --bin voisin
//!     cargo run --release --example write_throughput -- --bin target/release/voisin --data .
//!     cargo run --release --example write_throughput -- --addr 127.0.0.1:16000 --data voisin-data
//!
//! All vectors are made before the clock starts (`rows * dim * 4` bytes of memory). The clock runs from
//! the first request handed to the connection to the last acknowledgement read.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{ArgGroup, Parser, ValueEnum};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use voisin::server::proto::proxima::collection_config::IndexColumnParam;
use voisin::server::proto::proxima::proxima_service_client::ProximaServiceClient;
use voisin::server::proto::proxima::{
    CollectionConfig, CollectionName, DataType, IndexType, Status,
};
use voisin::server::proto::voisin_v1::voisin_client::VoisinClient;
use voisin::server::proto::voisin_v1::{ElementType, Operation, VectorColumn, WriteRequest};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const COLUMN: &str = "v";

/// Measures how many rows per second one stream of writes gets acknowledged.
#[derive(Debug, Parser)]
#[command(name = "write_throughput", group(ArgGroup::new("server").required(true)))]
pub struct Args {
    /// The gRPC address of a server that runs.
    #[arg(long, value_name = "HOST:PORT", group = "server")]
    addr: Option<SocketAddr>,
    /// The voisin program; a server is started on free ports and a new folder, and stopped at the end.
    #[arg(long, value_name = "PATH", group = "server")]
    bin: Option<PathBuf>,
    /// Where the disk is measured. With --bin also where the new folder is made [default: the system's
    /// folder for temporary files, which may not be a disk]; with --addr the server's data folder, and
    /// without it the disk is not measured.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Rows to write.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Elements (FP32) of a vector.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    dim: u32,
    /// Rows of a request.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Requests sent before the oldest is acknowledged; the server works on at most 8.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    in_flight: u32,
    /// What the server started with --bin promises.
    #[arg(long, value_enum, default_value_t = Durability::Power)]
    durability: Durability,
    /// Appends to sync for the disk's own rate.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    syncs: u32,
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Durability {
    /// The end of the process.
    Process,
    /// The loss of power.
    Power,
}

/// The line that is printed. Rates are per second, times in milliseconds, MB are 10^6 bytes of vectors.
#[derive(Debug, Serialize)]
pub struct Report {
    rows: u64,
    dim: u32,
    batch: u64,
    in_flight: u32,
    /// `None` for a server that we did not start.
    durability: Option<Durability>,
    seconds: f64,
    rows_per_s: f64,
    acks_per_s: f64,
    mb_per_s: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    /// `None` when the server's folder is not known.
    disk: Option<Disk>,
}

/// What the disk does with an append of one batch's vectors and an `fdatasync`, one after the other.
#[derive(Debug, Serialize)]
pub struct Disk {
    folder: PathBuf,
    append_bytes: u64,
    fsyncs_per_s: f64,
    mb_per_s: f64,
    fsync_p50_ms: f64,
    fsync_p99_ms: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await.and_then(|report| Ok(serde_json::to_string(&report)?)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("write_throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One run.
pub async fn measure(args: &Args) -> Outcome<Report> {
    let _folder;
    let _server;
    let (address, disk_folder) = match &args.bin {
        Some(program) => {
            let parent = args.data.clone().unwrap_or_else(std::env::temp_dir);
            let folder = TempDir::with_prefix_in("write-throughput-", parent)?;
            let data = folder.path().join("data");
            let (server, address) = Server::start(program, &data, args.durability)?;
            _folder = folder;
            _server = server;
            (address, Some(data))
        }
        None => {
            let address = args.addr.ok_or("either --addr or --bin is needed")?;
            (address.to_string(), args.data.clone())
        }
    };
    let disk = match disk_folder {
        Some(folder) => Some(measure_disk(&folder, args)?),
        None => None,
    };

    let channel = Channel::from_shared(format!("http://{address}"))?
        .connect()
        .await
        .map_err(|cause| format!("no server at {address}: {cause}"))?;
    eprintln!("making {} vectors of {} elements", args.rows, args.dim);
    let requests = requests(args, &format!("write_throughput_{}", std::process::id()));
    let mut proxima = ProximaServiceClient::new(channel.clone());
    let collection = requests[0].collection.clone();
    check(proxima.create_collection(declaration(&collection, args.dim)).await?.into_inner())?;
    let written = write(channel, requests, args).await;
    let name = CollectionName { collection_name: collection };
    let dropped = proxima.drop_collection(name).await;
    let Written { elapsed, mut latencies } = written?;
    check(dropped?.into_inner())?;

    let seconds = elapsed.as_secs_f64();
    let megabytes = args.rows as f64 * f64::from(args.dim) * 4.0 / 1e6;
    Ok(Report {
        rows: args.rows,
        dim: args.dim,
        batch: args.batch,
        in_flight: args.in_flight,
        durability: args.bin.as_ref().map(|_| args.durability),
        seconds,
        rows_per_s: args.rows as f64 / seconds,
        acks_per_s: latencies.len() as f64 / seconds,
        mb_per_s: megabytes / seconds,
        ack_p50_ms: percentile_ms(&mut latencies, 0.50),
        ack_p99_ms: percentile_ms(&mut latencies, 0.99),
        disk,
    })
}

// ----- the writes -----

fn declaration(name: &str, dimension: u32) -> CollectionConfig {
    CollectionConfig {
        collection_name: name.to_owned(),
        index_column_params: vec![IndexColumnParam {
            column_name: COLUMN.to_owned(),
            index_type: IndexType::ItProximaGraphIndex.into(),
            data_type: DataType::DtVectorFp32.into(),
            dimension,
            extra_params: vec![],
        }],
        ..Default::default()
    }
}

/// All requests, complete: nothing but sending is left to the measured time.
fn requests(args: &Args, collection: &str) -> Vec<WriteRequest> {
    let mut random = StdRng::seed_from_u64(1);
    let starts = (0..args.rows).step_by(usize::try_from(args.batch).unwrap_or(usize::MAX));
    let request = |(number, start): (u64, u64)| {
        let keys: Vec<u64> = (start..args.rows.min(start.saturating_add(args.batch))).collect();
        let elements = keys.len() * args.dim as usize;
        let bytes: Bytes =
            (0..elements).flat_map(|_| random.random::<f32>().to_le_bytes()).collect();
        WriteRequest {
            request_id: number,
            collection: collection.to_owned(),
            keys,
            operation: Operation::Insert.into(),
            vectors: vec![VectorColumn {
                name: COLUMN.to_owned(),
                element: ElementType::Fp32.into(),
                dimension: args.dim,
                vectors: bytes,
                ..Default::default()
            }],
            ..Default::default()
        }
    };
    (0..).zip(starts).map(request).collect()
}

struct Written {
    elapsed: Duration,
    /// From handing a request to the connection to reading its acknowledgement.
    latencies: Vec<Duration>,
}

async fn write(channel: Channel, requests: Vec<WriteRequest>, args: &Args) -> Outcome<Written> {
    let count = requests.len();
    let (sender, sent) = mpsc::channel(1);
    let mut client = VoisinClient::new(channel)
        .max_encoding_message_size(usize::MAX)
        .max_decoding_message_size(usize::MAX);
    let mut acks = client.write_stream(ReceiverStream::new(sent)).await?.into_inner();

    let began = Instant::now();
    let places = Arc::new(Semaphore::new(args.in_flight as usize));
    let sent_at = Arc::new(Mutex::new(VecDeque::new()));
    let sending = tokio::spawn({
        let (places, sent_at) = (Arc::clone(&places), Arc::clone(&sent_at));
        async move {
            for request in requests {
                let Ok(place) = places.acquire().await else { return };
                place.forget();
                sent_at.lock().push_back(Instant::now());
                // A stream that is gone says why where its acknowledgements are read.
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        }
    });

    let mut latencies = Vec::with_capacity(count);
    let mut rows = 0;
    let mut told = began;
    while let Some(ack) = acks.message().await? {
        let sent = sent_at.lock().pop_front().ok_or("an acknowledgement of nothing")?;
        latencies.push(sent.elapsed());
        places.add_permits(1);
        if let Some(status) = ack.status {
            return Err(format!("request {} is refused: {}", ack.request_id, status.message).into());
        }
        if let Some(failure) = ack.failures.first() {
            return Err(format!("key {} is not written: {}", failure.key, failure.message).into());
        }
        rows += ack.rows_applied;
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            eprintln!("{rows} of {} rows", args.rows);
        }
    }
    let elapsed = began.elapsed();
    sending.await?;
    if (rows, latencies.len()) != (args.rows, count) {
        return Err(
            format!("{rows} rows and {} requests were acknowledged", latencies.len()).into()
        );
    }
    Ok(Written { elapsed, latencies })
}

fn check(status: Status) -> Outcome<()> {
    if status.code == 0 {
        Ok(())
    } else {
        Err(format!("{}: {}", status.code, status.reason).into())
    }
}

/// The smallest latency that this share of all does not exceed.
fn percentile_ms(latencies: &mut [Duration], share: f64) -> f64 {
    latencies.sort_unstable();
    let rank = (latencies.len() as f64 * share).ceil() as usize;
    latencies[rank.clamp(1, latencies.len()) - 1].as_secs_f64() * 1e3
}

// ----- the disk -----

/// Appends a batch of vectors and syncs it, again and again, as a log does that never waits for more.
fn measure_disk(folder: &Path, args: &Args) -> Outcome<Disk> {
    let append_bytes = args.batch.min(args.rows) * u64::from(args.dim) * 4;
    eprintln!("measuring {} syncs of {append_bytes} bytes in {}", args.syncs, folder.display());
    let mut bytes = vec![0; usize::try_from(append_bytes)?];
    StdRng::seed_from_u64(2).fill(&mut bytes[..]);
    // A folder of our own within the server's: on the same disk, and not among its files.
    let own = TempDir::with_prefix_in(".fsync-", folder)?;
    let mut file = File::create(own.path().join("appended"))?;
    let mut latencies = Vec::with_capacity(args.syncs as usize);
    let began = Instant::now();
    for _ in 0..args.syncs {
        file.write_all(&bytes)?;
        let synced = Instant::now();
        file.sync_data()?;
        latencies.push(synced.elapsed());
    }
    let fsyncs_per_s = f64::from(args.syncs) / began.elapsed().as_secs_f64();
    Ok(Disk {
        folder: std::path::absolute(folder)?,
        append_bytes,
        fsyncs_per_s,
        mb_per_s: fsyncs_per_s * append_bytes as f64 / 1e6,
        fsync_p50_ms: percentile_ms(&mut latencies, 0.50),
        fsync_p99_ms: percentile_ms(&mut latencies, 0.99),
    })
}

// ----- the server -----

/// A server of our own, ended with the run.
struct Server(Child);

impl Server {
    /// Starts it and returns once it says that it is ready, with the address it names.
    fn start(program: &Path, data: &Path, durability: Durability) -> Outcome<(Server, String)> {
        let durability = durability.to_possible_value().ok_or("no such durability")?;
        let mut server = Command::new(program)
            .args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--log-format", "json", "--durability", durability.get_name(), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(Server)
            .map_err(|cause| format!("cannot start {}: {cause}", program.display()))?;
        let stderr = server.0.stderr.take().ok_or("the server has no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut last = String::new();
        while let Some(line) = lines.next() {
            last = line?;
            let line: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            if line["fields"]["message"] == "ready" {
                let address = line["fields"]["grpc"].as_str().ok_or("ready, but where?")?;
                // Read on: a full pipe would stop the server.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((server, address.to_owned()));
            }
        }
        Err(format!("the server ended before it was ready; its last words: {last}").into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its folder goes with it, so there is nothing to finish.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
