//! `voisin serve`: from settings to a server that is ready, and back to a clean end.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tracing::{info, warn};

use super::ServeArgs;
use super::signals::Signals;
use crate::config::{self, Config, Durability};
use crate::database::Database;
use crate::embedding::Models;
use crate::simd::SimdLevel;
use crate::{native, server, telemetry};

/// Loads the settings and serves until a signal comes.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let config = match config::load(args.sources()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("voisin: {error}");
            return ExitCode::from(2);
        }
    };
    if args.check_config {
        print!("# configuration ok\n{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    telemetry::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let message = format!("cannot start the network threads: {cause}");
            telemetry::report_fatal(config.log.format, &message);
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(serve(&config));
    // Whatever still runs here was never acknowledged, or was an opening that a signal cut short.
    runtime.shutdown_background();
    let code = match result {
        Ok(()) => 0,
        Err(message) => {
            telemetry::report_fatal(config.log.format, &message);
            1
        }
    };
    // A training that was left behind keeps nobody waiting.
    native::end_process(code)
}

async fn serve(config: &Config) -> Result<(), String> {
    let mut signals =
        Signals::install().map_err(|cause| format!("cannot listen for signals: {cause}"))?;
    server::check(config).map_err(|error| error.to_string())?;
    let (grpc, grpc_address) = bind(config.server.grpc, "gRPC", "--grpc").await?;
    let (http, http_address) = bind(config.server.http, "HTTP", "--http").await?;

    let native = native::build_info().map_err(|cause| format!("faiss is unusable: {cause}"))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        simd = SimdLevel::detect().name(),
        faiss = native.faiss_version,
        faiss_simd = native.simd(),
        blas = native.blas,
        "starting"
    );

    let started = Instant::now();
    let opening = tokio::task::spawn_blocking({
        let config = config.clone();
        move || {
            // First, so that what ONNX Runtime takes is not counted as that of collections.
            let models = Arc::new(Models::new(&config));
            models.prepare()?;
            Database::open_with(&config, models)
        }
    });
    let database = tokio::select! {
        opened = opening => opened
            .map_err(|cause| format!("opening the data folder failed: {cause}"))?
            .map_err(|error| error.to_string())?,
        // Nothing is acknowledged before the server is ready, so there is nothing to finish.
        signal = signals.next() => {
            info!(signal, "stopped while opening the data folder");
            return Ok(());
        }
    };
    for (collection, cause) in database.unserved() {
        warn!(collection, cause, "collection is not served");
    }

    let data =
        std::path::absolute(&config.storage.data).unwrap_or_else(|_| config.storage.data.clone());
    info!(
        grpc = %grpc_address,
        http = %http_address,
        data = %data.display(),
        collections = database.collections().len(),
        durability = durability_name(config.storage.durability),
        recovery_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    let shutdown = async move {
        let signal = signals.next().await;
        info!(signal, "stopping");
        tokio::spawn(signals.exit_at_next());
    };
    let listeners = server::Listeners { grpc, http };
    let served = server::serve(listeners, config, database.clone(), shutdown)
        .await
        .map_err(|error| format!("the server failed: {error}"));
    // Also after a failure: acknowledged writes are in the log, closing makes the next start short.
    let closed = tokio::task::spawn_blocking(move || database.close())
        .await
        .map_err(|cause| format!("closing the data folder failed: {cause}"));
    served?;
    closed?;
    info!("stopped");
    Ok(())
}

/// Binds a listener and gives the address with its real port.
async fn bind(
    address: SocketAddr,
    protocol: &'static str,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), String> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen.await.map_err(|cause: io::Error| {
        let (what, remedy) = match cause.kind() {
            io::ErrorKind::AddrInUse => (
                format!("port {} is in use by another program", address.port()),
                format!("stop that program (ss -ltnp shows it) or choose another address with {flag} HOST:PORT"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("port {} is not permitted to this user", address.port()),
                format!("choose a port above 1023 with {flag} HOST:PORT"),
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("{} is not an address of this machine", address.ip()),
                format!("choose one that is, or 0.0.0.0 for all, with {flag} HOST:PORT"),
            ),
            _ => (cause.to_string(), format!("choose another address with {flag} HOST:PORT")),
        };
        format!("cannot listen on {address} for {protocol}: {what}; {remedy}")
    })
}

fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Process => "process",
        Durability::Power => "power",
    }
}
