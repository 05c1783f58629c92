//! The settings: one struct with a default for everything.
//!
//! [`load`](fn@load) layers the sources (defaults < file < `VOISIN__SECTION__KEY` environment < flags),
//! refuses unknown keys and then has the whole checked once by [`Config::check`]. What a setting may be
//! lies in `check`, where a value comes from in `load`.

mod check;
mod error;
mod load;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Origin};
pub use load::{Flag, Sources, load};

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens.
    pub server: ServerConfig,
    /// Where and how data is kept.
    pub storage: StorageConfig,
    /// When segments are sealed, indexed and merged.
    pub segment: SegmentConfig,
    /// Threads and queues.
    pub compute: ComputeConfig,
    /// Models that make vectors of pictures.
    pub embedding: EmbeddingConfig,
    /// Fetching pictures by their address.
    pub fetch: FetchConfig,
    /// Bounds on what a caller may ask for.
    pub limits: LimitsConfig,
    /// The web page on the HTTP port.
    pub console: ConsoleConfig,
    /// Logs.
    pub log: LogConfig,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// gRPC address; port 0 takes any free port and logs it.
    pub grpc: SocketAddr,
    /// HTTP address (the APIs, the web page, health, metrics); port 0 takes any free port and logs it.
    pub http: SocketAddr,
    /// Names of hosts, with commas between, that HTTP requests may be sent to besides addresses and `localhost`. Empty:
    /// none where `http` is a loopback address, else any.
    pub http_hosts: String,
    /// How long a stop waits for calls in progress, in milliseconds.
    pub stop_timeout_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            grpc: SocketAddr::from(([127, 0, 0, 1], 16000)),
            http: SocketAddr::from(([127, 0, 0, 1], 16001)),
            http_hosts: String::new(),
            stop_timeout_ms: 10_000,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The end of the process, also by kill -9; not the loss of power.
    Process,
    /// The loss of power: the log is synced before a write is acknowledged.
    Power,
}

/// Where and how data is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// The data folder.
    pub data: PathBuf,
    /// What an acknowledged write survives: `process` or `power`.
    pub durability: Durability,
    /// Size at which a log file is closed and the next one opened.
    pub log_file_bytes: u64,
    /// Cache of the forward store (sled).
    pub forward_cache_bytes: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            data: PathBuf::from("voisin-data"),
            durability: Durability::Power,
            log_file_bytes: 64 << 20,
            forward_cache_bytes: 128 << 20,
        }
    }
}

/// When segments are sealed, indexed and merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentConfig {
    /// A growing segment is sealed at this many rows, unless the collection says fewer, or at this many
    /// vectors of a column whose rows have several.
    pub seal_rows_max: u64,
    /// A growing segment is sealed at this many bytes of vectors and forward values.
    pub seal_bytes_max: u64,
    /// Sealed rows without a graph (vectors, where rows have several) are scanned exactly until this many
    /// wait; then they get one.
    pub graph_rows_min: u64,
    /// Sealed segments of at least this many rows keep their rows in the order of those forward columns
    /// that filters ask for.
    pub filter_index_rows_min: u32,
    /// A segment is rewritten without its deleted rows when they are more than this share of it (0 to 1),
    /// and more than half while rows are being written.
    pub deleted_share_max: f64,
    /// Sealed segments a collection may hold before small ones are merged whatever they cost.
    pub segments_max: u32,
    /// Growing segments waiting to be sealed before writes wait for them.
    pub frozen_max: u32,
    /// Milliseconds without a write after which what was deleted, replaced or expired leaves the files.
    pub quiet_ms: u64,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        SegmentConfig {
            seal_rows_max: 32_768,
            seal_bytes_max: 256 << 20,
            graph_rows_min: 10_000,
            filter_index_rows_min: 16_384,
            deleted_share_max: 0.2,
            segments_max: 256,
            frozen_max: 8,
            quiet_ms: 30_000,
        }
    }
}

/// Threads and queues. A thread count of 0 means one per core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeConfig {
    /// Threads that answer queries.
    pub search_threads: u32,
    /// Threads that build an index, of each that is built at a time.
    pub build_threads: u32,
    /// Threads that write and sync logs; each serves many collections.
    pub write_threads: u32,
    /// Queries that may wait for a search thread.
    pub search_queue_max: u32,
    /// Write requests that may wait for their collection's writer.
    pub write_queue_max: u32,
    /// The share of a core, in percent, that comparing queries which were asked with exact answers may
    /// take; 0 switches that off, and none are kept.
    pub live_recall_percent: u32,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        ComputeConfig {
            search_threads: 0,
            build_threads: 0,
            write_threads: 4,
            search_queue_max: 4_096,
            write_queue_max: 1_024,
            live_recall_percent: 1,
        }
    }
}

/// What runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, or the server does not start.
    Cuda,
    /// A GPU where one can be used, or else the processor.
    Auto,
}

/// Models that make vectors of pictures. A thread count of 0 means one per core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// The folder of the models' folders; empty for `models` in the data folder.
    pub models: PathBuf,
    /// ONNX Runtime's shared library; empty to look beside the program and where the system looks.
    pub runtime: PathBuf,
    /// What runs models: `cpu`, `cuda` or `auto`.
    pub device: Device,
    /// Sessions of each model, each with a thread of its own.
    pub workers: u32,
    /// Threads that each session uses.
    pub threads_per_worker: u32,
    /// Threads that decode and resize pictures.
    pub decode_threads: u32,
    /// Most pictures that a model takes at a time; 0 for 4 on a processor and 64 on a GPU.
    pub batch_max: u32,
    /// How long a model waits for pictures that are being decoded to fill its batch, in milliseconds.
    pub batch_wait_ms: u64,
    /// Pictures that may be on their way to a model: half for searches, half for everything else.
    pub queue_max: u32,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        EmbeddingConfig {
            models: PathBuf::new(),
            runtime: PathBuf::new(),
            device: Device::Auto,
            workers: 0,
            threads_per_worker: 1,
            decode_threads: 0,
            batch_max: 0,
            batch_wait_ms: 2,
            queue_max: 256,
        }
    }
}

/// Fetching pictures by their address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Hosts that may be asked, with commas between them; `*.example.org` stands for all below
    /// example.org. Empty: nothing is fetched.
    pub hosts: String,
    /// How long fetching a picture may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for FetchConfig {
    fn default() -> Self {
        FetchConfig { hosts: String::new(), timeout_ms: 10_000 }
    }
}

/// Bounds on what a caller may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Largest gRPC message, or body of an HTTP request, taken.
    pub message_bytes_max: usize,
    /// Most HTTP connections at a time.
    pub http_connections_max: u32,
    /// Most collections.
    pub collections_max: u32,
    /// Highest dimension of a vector column.
    pub dimension_max: u32,
    /// Most index columns, and most forward columns, of a collection.
    pub columns_max: u32,
    /// Most rows of one write request.
    pub write_rows_max: u32,
    /// Most vectors of a row, in a column that takes several.
    pub row_vectors_max: u32,
    /// Most query vectors of one query.
    pub query_vectors_max: u32,
    /// Most neighbours one query may return over all its query vectors.
    pub query_results_max: u32,
    /// Most bytes one query's reply may take, forward values and their names included.
    pub reply_bytes_max: u64,
    /// Most streams of rows and scrolls that are open in a collection.
    pub readers_max: u32,
    /// How long a scroll stays open that nobody reads by.
    pub reader_idle_ms: u64,
    /// Largest file of a picture.
    pub picture_bytes_max: usize,
    /// Most pixels of a picture.
    pub picture_pixels_max: u64,
    /// Most times a picture's longer side may be its shorter one.
    pub picture_ratio_max: u32,
    /// Most memory that decoding a picture may take.
    pub picture_decode_bytes_max: u64,
    /// Memory beyond which nothing grows; 0 for 80% of what the machine has.
    pub memory_bytes_max: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            message_bytes_max: 64 << 20,
            http_connections_max: 1_024,
            collections_max: 4_096,
            dimension_max: 65_536,
            columns_max: 1_024,
            write_rows_max: 1_000_000,
            row_vectors_max: 4_096,
            query_vectors_max: 16_384,
            query_results_max: 1_000_000,
            reply_bytes_max: 256 << 20,
            readers_max: 64,
            reader_idle_ms: 300_000,
            picture_bytes_max: 32 << 20,
            picture_pixels_max: 100_000_000,
            picture_ratio_max: 200,
            picture_decode_bytes_max: 512 << 20,
            memory_bytes_max: 0,
        }
    }
}

/// The web page on the HTTP port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Serves the page, and the pictures that it shows.
    pub enabled: bool,
    /// The folder below which the files that rows name in `image_path` are shown as pictures; empty: none.
    pub picture_root: PathBuf,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        ConsoleConfig { enabled: true, picture_root: PathBuf::new() }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` or `json`; always on standard error.
    pub format: LogFormat,
    /// A tracing filter such as `info` or `voisin=debug,tonic=warn`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, filter: "info".into() }
    }
}
