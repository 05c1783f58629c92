//! `voisin import`, `export`, `index` and `search`: runs them, and says what came of it.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use tokio::sync::oneshot;

use super::signals::Signals;
use crate::transfer::{
    self, ErrorKind, ExportArgs, ImportArgs, IndexArgs, SearchArgs, TransferError,
};

pub(super) fn import(args: &ImportArgs) -> ExitCode {
    run(async |interrupt| transfer::import(args, interrupt).await.map(|report| report.text()))
}

pub(super) fn export(args: &ExportArgs) -> ExitCode {
    run(async |interrupt| transfer::export(args, interrupt).await.map(|report| report.text()))
}

pub(super) fn index(args: &IndexArgs) -> ExitCode {
    run(async |interrupt| transfer::index(args, interrupt).await.map(|report| report.text()))
}

pub(super) fn search(args: &SearchArgs) -> ExitCode {
    run(async |interrupt| transfer::search(args, interrupt).await)
}

/// What ends with the name of a signal.
type Interrupt = Pin<Box<dyn Future<Output = &'static str>>>;

/// The name of the first signal. A second one ends the process at once, which loses nothing, whether or not
/// anybody has looked for the first.
fn interrupt(mut signals: Signals) -> Interrupt {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let _ = tell.send(signals.next().await);
        signals.exit_at_next().await;
    });
    Box::pin(async move {
        match told.await {
            Ok(signal) => signal,
            Err(_) => std::future::pending().await,
        }
    })
}

/// Runs a transfer, which hears of signals, and tells its end.
fn run<T>(transfer: T) -> ExitCode
where
    T: AsyncFnOnce(Interrupt) -> Result<String, TransferError>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("voisin: cannot start the network threads: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match Signals::install() {
            Ok(signals) => Some(transfer(interrupt(signals)).await),
            Err(cause) => {
                eprintln!("voisin: cannot listen for signals: {cause}");
                None
            }
        }
    });
    // A thread that reads is not waited for.
    runtime.shutdown_background();
    match ended {
        Some(Ok(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            eprintln!("voisin: {error}");
            match error.kind() {
                ErrorKind::NotAsAsked => ExitCode::from(2),
                ErrorKind::Failed => ExitCode::FAILURE,
                ErrorKind::Stopped("SIGINT") => ExitCode::from(130),
                ErrorKind::Stopped(_) => ExitCode::from(143),
            }
        }
        None => ExitCode::FAILURE,
    }
}
