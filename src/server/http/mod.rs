//! The HTTP listener: which path leads where. Health lies in `health`, the REST API of Proxima BE in
//! `rest`, the web page in `console`, connections and their bounds in `connections`.

mod api;
mod body;
mod callers;
mod connections;
mod console;
mod health;
mod metrics;
mod proxima_json;
mod rest;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Phases;
use super::metrics::Metrics;
use super::native::Native;
use super::proxima::Proxima;
use crate::config::{Config, LimitsConfig};
use crate::database::Database;

pub(super) use api::operations;
use callers::Names;
use console::Console;
pub(super) use console::check_root;
pub(super) use rest::REST_CALLS;

/// Calls over HTTP that may be in progress at a time: more than there can be connections.
const CALLS_MAX: u32 = 1 << 20;

/// Text from which on reading and writing JSON is not left to a thread that serves sockets.
const LONG_BYTES: usize = 256 << 10;

/// What the routes answer from.
#[derive(Clone)]
pub(super) struct Http {
    database: Arc<Database>,
    proxima: Arc<Proxima>,
    native: Arc<Native>,
    limits: LimitsConfig,
    /// Names that the server is called by, with commas between.
    hosts: Arc<str>,
    console: Console,
    phases: Phases,
    metrics: Arc<Metrics>,
    calls: Calls,
}

impl Http {
    pub(super) fn new(
        database: Arc<Database>,
        (proxima, native): (Arc<Proxima>, Arc<Native>),
        config: &Config,
        phases: Phases,
        metrics: Arc<Metrics>,
    ) -> Self {
        let limits = config.limits.clone();
        let console = Console::new(&config.console);
        let (hosts, calls) = (config.server.http_hosts.as_str().into(), Calls::new());
        Http { database, proxima, native, limits, hosts, console, phases, metrics, calls }
    }

    /// The calls in progress, to wait for.
    pub(super) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Counts a call in, until what is returned is dropped. `None` when the server is stopping.
    fn begin(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.calls.0.clone().try_acquire_owned().ok();
        permit.filter(|_| !self.phases.is_stopping())
    }

    /// Serves until the calls of both listeners are done, so that a stopping server still says that it
    /// is not ready. Then answers under way are finished.
    pub(super) async fn serve(self, listener: TcpListener) {
        let drained = self.phases.clone().drained();
        let places = connections::Places::new(
            self.limits.http_connections_max,
            self.metrics.http_connections.clone(),
        );
        // A listener without an address serves nobody.
        let names = listener.local_addr().map(|listens| Names::new(&self.hosts, listens.ip()));
        let names = names.unwrap_or(Names::Known(Arc::default()));
        let routes = Router::new()
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(metrics::metrics))
            .merge(console::routes(self.console.is_enabled()))
            .merge(api::routes(self.clone()))
            .fallback(rest::answer)
            .with_state(self)
            .layer(from_fn_with_state(names, callers::check));
        connections::serve(listener, routes, places, drained).await;
    }
}

/// Does work on text of that length: a long one would keep the sockets of others waiting.
fn if_long<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    match bytes >= LONG_BYTES {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

/// Calls in progress, but for health and the like.
#[derive(Clone)]
pub(super) struct Calls(Arc<Semaphore>);

impl Calls {
    fn new() -> Self {
        Calls(Arc::new(Semaphore::new(CALLS_MAX as usize)))
    }

    /// Waits until none is in progress; none begins any more from now on.
    pub(super) async fn drained(self) {
        if let Ok(all) = self.0.acquire_many(CALLS_MAX).await {
            all.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_in_progress_are_waited_for_and_none_begins_meanwhile() {
        let calls = Calls::new();
        let first = calls.0.clone().try_acquire_owned().expect("there is room");
        let mut drained = Box::pin(calls.clone().drained());
        assert!(futures::poll!(&mut drained).is_pending());
        assert!(calls.0.clone().try_acquire_owned().is_err(), "a call began while draining");
        drop(first);
        drained.await;
        assert!(calls.0.clone().try_acquire_owned().is_err(), "a call began after draining");
    }
}
