//! The wire edge: listeners, calls and their conversion to and from the domain. Protocol types
//! (tonic, prost, axum) stop in this folder.
//!
//! [`serve`] takes bound listeners and a shutdown future, so that its caller owns port and end.

pub mod client;
mod convert;
mod http;
mod limits;
pub mod load;
mod metrics;
mod native;
mod proxima;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::config::{Config, LimitsConfig};
use crate::database::Database;
use crate::error::{Error, Result};

/// Code generated from the contracts under `proto/`.
pub mod proto {
    /// Package `proxima.be.proto`: the contract of Proxima BE 0.2.
    #[allow(missing_docs, clippy::all)]
    pub mod proxima {
        tonic::include_proto!("proxima.be.proto");
    }

    /// Package `voisin.v1`: our own contract.
    #[allow(missing_docs, clippy::all)]
    pub mod voisin_v1 {
        tonic::include_proto!("voisin.v1");
    }

    /// The descriptors of both packages, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

use metrics::{MeterLayer, Metrics};
use proto::proxima::proxima_service_server::{self, ProximaServiceServer};
use proto::voisin_v1::voisin_server::{self, VoisinServer};

/// Every service whose health is told; "" is the server as a whole.
const HEALTH_NAMES: [&str; 3] =
    ["", proxima_service_server::SERVICE_NAME, voisin_server::SERVICE_NAME];

/// What a stream may send before it must wait for us to read. A message of 64 MiB then needs
/// 16 round trips instead of HTTP/2's default of 1024.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Frames larger than HTTP/2's 16 KiB spare per-frame work on vectors.
const FRAME_BYTES: u32 = 1 << 20;
/// A silent peer is asked whether it is still there, and let go when it does not answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the last answers over HTTP may take once everything else has ended.
const HTTP_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The bound sockets to serve on.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For HTTP.
    pub http: TcpListener,
}

/// Checks that what the settings name is there, before anything is opened.
pub fn check(config: &Config) -> Result<()> {
    http::check_root(&config.console)
}

/// Serves `database` until `shutdown` completes, then finishes the calls in progress for at most
/// `server.stop_timeout_ms`. New connections are refused from then on, streams of writes are
/// acknowledged and ended, and health turns to "not serving". The database stays open: closing it
/// is the caller's, once this returns.
pub async fn serve(
    listeners: Listeners,
    config: &Config,
    database: Arc<Database>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (phase, receiver) = watch::channel(Phase::Serving);
    let phases = Phases(receiver);

    // In a set, so that it ends with this future whatever ends that.
    let limits = &config.limits;
    let metrics = Metrics::new(&http::REST_CALLS, http::operations());
    let services = (
        Arc::new(proxima::Proxima::new(Arc::clone(&database), limits)),
        Arc::new(native::Native::new(Arc::clone(&database), limits, phases.clone())),
    );
    let http = http::Http::new(database, services.clone(), config, phases.clone(), metrics.clone());
    let http_calls = http.calls();
    let mut listening = JoinSet::new();
    listening.spawn(http.serve(listeners.http));

    let mut health = HealthReporter::new();
    for name in HEALTH_NAMES {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let grpc =
        serve_grpc(listeners.grpc, limits, services, health.clone(), phases.stopping(), metrics);
    tokio::pin!(grpc);

    tokio::select! {
        ended = &mut grpc => return ended,
        Some(ended) = listening.join_next() => return Err(http_ended(ended)),
        () = shutdown => {}
    }

    stop_health(&mut health).await;
    phase.send_replace(Phase::Stopping);
    let stop_timeout = Duration::from_millis(config.server.stop_timeout_ms);
    let deadline = Instant::now() + stop_timeout;
    let calls = async { tokio::join!(&mut grpc, http_calls.drained()).0 };
    let drained = tokio::time::timeout_at(deadline, calls).await;
    if drained.is_err() {
        tracing::warn!(
            stop_timeout_ms = config.server.stop_timeout_ms,
            "calls were still in progress when the stop timed out"
        );
    }
    phase.send_replace(Phase::Drained);
    // An answer that was made may still be on its way.
    let deadline = deadline.max(Instant::now() + HTTP_STOP_TIMEOUT);
    if tokio::time::timeout_at(deadline, listening.join_next()).await.is_err() {
        tracing::debug!("an HTTP caller did not finish in time");
    }
    drained.unwrap_or(Ok(()))
}

async fn serve_grpc(
    listener: TcpListener,
    limits: &LimitsConfig,
    (proxima, native): (Arc<proxima::Proxima>, Arc<native::Native>),
    health: HealthReporter,
    stopping: impl Future<Output = ()>,
    metrics: Arc<Metrics>,
) -> Result<()> {
    // Compressed requests are taken; replies go out plain, since clients offer gzip by default and
    // it costs more than it saves on scores and vectors.
    let proxima = ProximaServiceServer::from_arc(proxima)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limits.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let native = VoisinServer::from_arc(native)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(limits.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health),
    );
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let unreadable = |error| Error::internal(format!("descriptors for reflection: {error}"));

    let incoming = TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(KEEPALIVE_INTERVAL));
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(MeterLayer(metrics))
        .layer(limits::MessageLimitLayer { bytes_max: limits.message_bytes_max })
        .add_service(proxima)
        .add_service(native)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(unreadable)?)
        .add_service(reflection().build_v1alpha().map_err(unreadable)?)
        .serve_with_incoming_shutdown(incoming, stopping)
        .await
        .map_err(|error| Error::internal(format!("the gRPC server ended: {error}")))
}

/// Tells all watchers that nothing is served any more, then ends their streams: an open stream
/// would keep its connection, and so the stop, waiting.
async fn stop_health(health: &mut HealthReporter) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, ServingStatus::NotServing).await;
        health.clear_service_status(name).await;
    }
}

/// Creating and dropping go on when the caller hangs up: half a folder is nobody's wish. (Writes
/// see to that themselves.)
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::internal(error.to_string())),
    }
}

/// The HTTP listener ends only when it is told to.
fn http_ended(ended: std::result::Result<(), tokio::task::JoinError>) -> Error {
    let cause =
        ended.err().map_or_else(|| "before it should".to_owned(), |cause| cause.to_string());
    Error::internal(format!("the HTTP server ended: {cause}"))
}

/// How far the life of the server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Takes calls.
    Serving,
    /// Finishes the calls in progress.
    Stopping,
    /// Has none left.
    Drained,
}

/// Sees the phases go by.
#[derive(Debug, Clone)]
struct Phases(watch::Receiver<Phase>);

impl Phases {
    fn is_stopping(&self) -> bool {
        *self.0.borrow() >= Phase::Stopping
    }

    async fn stopping(mut self) {
        self.reached(Phase::Stopping).await;
    }

    async fn drained(mut self) {
        self.reached(Phase::Drained).await;
    }

    /// Waits for a phase; a server that is gone has passed all of them.
    async fn reached(&mut self, phase: Phase) {
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn creating_goes_on_when_the_caller_hangs_up() {
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (resume, may_resume) = tokio::sync::oneshot::channel();
        let (finished, has_finished) = tokio::sync::oneshot::channel();
        let call = tokio::spawn(to_the_end(async move {
            let _ = started.send(());
            let _ = may_resume.await;
            let _ = finished.send(());
            Ok(())
        }));
        has_started.await.expect("the work starts");
        call.abort();
        assert!(call.await.is_err());
        resume.send(()).expect("the work still waits");
        has_finished.await.expect("the work ends by itself");
    }
}
