//! How many calls there were, how they ended and how long they took, of every service and transport.
//!
//! Observing takes no lock: the meter of a call is found in a table that never changes, and counts with
//! atomic additions. Only an ending that is not success is looked up by its code.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};
use prost::Message;
use tower::{Layer, Service};

use super::proto;

/// Upper ends of the buckets of durations, in seconds.
const BUCKETS: [f64; 18] = [
    25e-6, 50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0,
];
/// The code of a call whose caller hung up.
const CANCELLED: &str = "CANCELLED";
/// The name of calls that do not exist.
const UNKNOWN: &str = "unknown";

/// What belongs to a service: its name here, and the code of success.
struct Api {
    name: &'static str,
    success: &'static str,
}

const PROXIMA: Api = Api { name: "proxima", success: "0" };
const VOISIN: Api = Api { name: "voisin", success: "OK" };

/// How a call failed, where its answer's head does not tell; put into the answer's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failed {
    /// With a code of Proxima BE's contract.
    Code(i32),
    /// With a code of our own.
    Status(tonic::Code),
}

impl fmt::Display for Failed {
    fn fmt(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Code(code) => write!(words, "{code}"),
            Failed::Status(code) => words.write_str(&code_name(*code)),
        }
    }
}

/// The name of a code as other tools write it: `NotFound` is NOT_FOUND.
pub(super) fn code_name(code: tonic::Code) -> String {
    format!("{code:?}").chars().fold(String::new(), |mut name, letter| {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
        name
    })
}

/// What is counted while it happens.
pub(super) struct Metrics {
    registry: Registry,
    /// By the path of the call.
    grpc: HashMap<String, Arc<Meter>>,
    unknown: Arc<Meter>,
    /// By the name of the call.
    rest: HashMap<&'static str, Arc<Meter>>,
    /// By method and path, as routes write it.
    operations: HashMap<(http::Method, String), Arc<Meter>>,
    unknown_operation: Arc<Meter>,
    /// HTTP connections that are open.
    pub(super) http_connections: IntGauge,
}

impl Metrics {
    /// Nothing is counted yet. `rest` are the names of the calls over REST, `operations` those of the JSON
    /// API with their methods and paths.
    pub(super) fn new(
        rest: &[&'static str],
        operations: Vec<(http::Method, String, String)>,
    ) -> Arc<Self> {
        const VALID: &str = "the names and labels here are valid and distinct";
        let registry = Registry::new();
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "voisin_call_duration_seconds",
                "Time from a call's head to its answer, in seconds.",
            )
            .buckets(BUCKETS.to_vec()),
            &["api", "call", "transport"],
        );
        let calls = IntCounterVec::new(
            Opts::new("voisin_calls_total", "Calls by how they ended."),
            &["api", "call", "transport", "code"],
        );
        let http_connections =
            IntGauge::new("voisin_http_connections", "HTTP connections that are open.");
        let (durations, calls) = (durations.expect(VALID), calls.expect(VALID));
        let http_connections = http_connections.expect(VALID);
        registry.register(Box::new(durations.clone())).expect(VALID);
        registry.register(Box::new(calls.clone())).expect(VALID);
        registry.register(Box::new(http_connections.clone())).expect(VALID);

        let meter = |api, call: &str, transport| {
            Arc::new(Meter::new(api, call, transport, &durations, &calls))
        };
        let grpc = methods().into_iter().map(|(path, api, call)| (path, meter(api, &call, "grpc")));
        let rest = rest.iter().map(|call| (*call, meter(&PROXIMA, call, "http")));
        let operations = operations
            .into_iter()
            .map(|(method, path, call)| ((method, path), meter(&VOISIN, &call, "http")));
        Arc::new(Metrics {
            operations: operations.collect(),
            unknown_operation: meter(&VOISIN, UNKNOWN, "http"),
            grpc: grpc.collect(),
            unknown: meter(&VOISIN, UNKNOWN, "grpc"),
            rest: rest.collect(),
            registry,
            http_connections,
        })
    }

    /// A call over REST begins.
    pub(super) fn rest(&self, call: &str) -> Running {
        self.rest.get(call).unwrap_or(&self.unknown).clone().start()
    }

    /// A call of the JSON API begins.
    pub(super) fn operation(&self, method: &http::Method, path: &str) -> Running {
        let known = self.operations.get(&(method.clone(), path.to_owned()));
        known.unwrap_or(&self.unknown_operation).clone().start()
    }

    /// Everything that was counted, and what `more` has, as Prometheus reads it.
    pub(super) fn text(&self, more: &Registry) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        encoder.encode(&self.registry.gather(), &mut text)?;
        encoder.encode(&more.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// Every call of both contracts: its path, its service and its name.
fn methods() -> Vec<(String, &'static Api, String)> {
    let descriptors = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET);
    let files = descriptors.map(|set| set.file).unwrap_or_default();
    let mut methods = Vec::new();
    for file in &files {
        let api = if file.package().starts_with("proxima") { &PROXIMA } else { &VOISIN };
        for service in &file.service {
            let prefix = format!("/{}.{}/", file.package(), service.name());
            let names = service.method.iter().map(|method| method.name());
            methods.extend(names.map(|name| (format!("{prefix}{name}"), api, name.to_owned())));
        }
    }
    methods
}

/// Counts one kind of call.
struct Meter {
    labels: [String; 3],
    duration: Histogram,
    succeeded: IntCounter,
    calls: IntCounterVec,
}

impl Meter {
    fn new(
        api: &Api,
        call: &str,
        transport: &str,
        durations: &HistogramVec,
        calls: &IntCounterVec,
    ) -> Self {
        Meter {
            labels: [api.name.to_owned(), call.to_owned(), transport.to_owned()],
            duration: durations.with_label_values(&[api.name, call, transport]),
            succeeded: calls.with_label_values(&[api.name, call, transport, api.success]),
            calls: calls.clone(),
        }
    }

    fn start(self: Arc<Self>) -> Running {
        Running { meter: self, started: Instant::now(), is_ended: false }
    }

    fn count(&self, code: Option<&str>) {
        match code {
            None => self.succeeded.inc(),
            Some(code) => {
                let [api, call, transport] = self.labels.each_ref().map(String::as_str);
                self.calls.with_label_values(&[api, call, transport, code]).inc();
            }
        }
    }
}

/// A call in progress. One that is dropped before its end was given up by its caller.
pub(super) struct Running {
    meter: Arc<Meter>,
    started: Instant,
    is_ended: bool,
}

impl Running {
    /// The call ends: with success, or with a code.
    pub(super) fn end(mut self, failure: Option<&str>) {
        self.is_ended = true;
        self.meter.count(failure);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.meter.duration.observe(self.started.elapsed().as_secs_f64());
        if !self.is_ended {
            self.meter.count(Some(CANCELLED));
        }
    }
}

/// Counts the calls of the gRPC services.
#[derive(Clone)]
pub(super) struct MeterLayer(pub(super) Arc<Metrics>);

impl<S> Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Metered { inner, metrics: self.0.clone() }
    }
}

/// The service made by [`MeterLayer`].
#[derive(Clone)]
pub(super) struct Metered<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, In, Out> Service<http::Request<In>> for Metered<S>
where
    S: Service<http::Request<In>, Response = http::Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<In>) -> Self::Future {
        let meter = self.metrics.grpc.get(request.uri().path()).unwrap_or(&self.metrics.unknown);
        let running = meter.clone().start();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(answer) = &answer {
                match failure(answer) {
                    None => running.end(None),
                    Some(code) => running.end(Some(&code)),
                }
            }
            answer
        })
    }
}

/// The code of a call that failed. A call that fails as a whole has its status in the head of the
/// answer; a stream that fails on its way counts by its beginning.
fn failure<Out>(answer: &http::Response<Out>) -> Option<String> {
    if let Some(failed) = answer.extensions().get::<Failed>() {
        return Some(failed.to_string());
    }
    let status = answer.headers().get("grpc-status")?.as_bytes();
    let code = tonic::Code::from_bytes(status);
    (code != tonic::Code::Ok).then(|| code_name(code))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    fn count(metrics: &Metrics, [api, call, transport, code]: [&str; 4]) -> u64 {
        let line = format!(
            r#"voisin_calls_total{{api="{api}",call="{call}",code="{code}",transport="{transport}"}} "#
        );
        number(metrics, &line)
    }

    fn number(metrics: &Metrics, line: &str) -> u64 {
        let text = metrics.text(&Registry::new()).expect("it can be told");
        let number = text.lines().find_map(|told| told.strip_prefix(line));
        number.expect(line).parse().expect("a whole number")
    }

    async fn called(metrics: &Arc<Metrics>, path: &str, answer: http::Response<()>) {
        let inner = service_fn(move |_: http::Request<()>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer) }
        });
        let request = http::Request::builder().uri(path).body(()).expect("a request");
        let metered = MeterLayer(metrics.clone()).layer(inner);
        metered.oneshot(request).await.expect("it cannot fail");
    }

    #[tokio::test]
    async fn calls_are_counted_by_how_they_ended() {
        let metrics = Metrics::new(&["query"], Vec::new());
        let query = "/proxima.be.proto.ProximaService/query";
        called(&metrics, query, http::Response::new(())).await;
        let mut failed = http::Response::new(());
        failed.extensions_mut().insert(Failed::Code(-4002));
        called(&metrics, query, failed).await;
        assert_eq!(count(&metrics, ["proxima", "query", "grpc", "0"]), 1);
        assert_eq!(count(&metrics, ["proxima", "query", "grpc", "-4002"]), 1);

        let missing = tonic::Status::not_found("none").into_http::<()>();
        called(&metrics, "/voisin.v1.Voisin/Query", missing).await;
        assert_eq!(count(&metrics, ["voisin", "Query", "grpc", "NOT_FOUND"]), 1);
        called(&metrics, "/no.such/Call", tonic::Status::unimplemented("none").into_http()).await;
        assert_eq!(count(&metrics, ["voisin", "unknown", "grpc", "UNIMPLEMENTED"]), 1);

        metrics.rest("query").end(None);
        drop(metrics.rest("query"));
        assert_eq!(count(&metrics, ["proxima", "query", "http", "0"]), 1);
        assert_eq!(count(&metrics, ["proxima", "query", "http", "CANCELLED"]), 1);
        let timed =
            r#"voisin_call_duration_seconds_count{api="proxima",call="query",transport="http"} "#;
        assert_eq!(number(&metrics, timed), 2);
    }

    #[test]
    fn every_call_of_both_contracts_has_its_meter() {
        let metrics = Metrics::new(&[], Vec::new());
        for path in [
            "/proxima.be.proto.ProximaService/get_document_by_key",
            "/voisin.v1.Voisin/WriteStream",
        ] {
            assert!(metrics.grpc.contains_key(path), "{path}");
        }
    }
}
