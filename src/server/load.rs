//! Load for measurements: a caller that asks one query after the other over a connection of its own,
//! with as little work of its own as a gRPC client can have. A request goes out in one piece and both
//! ends of the exchange run on one task.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::Either;
use h2::client::SendRequest;
use http::{Method, Request};
use prost::Message;
use tokio::net::TcpStream;

use super::client::{ClientError, PreparedQuery, keys_of};
use super::proto::proxima;

/// Bytes before a gRPC message: not compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Window of the connection and of each answer; no answer of a measurement is larger.
const WINDOW_BYTES: u32 = 16 << 20;

fn failed(cause: impl std::fmt::Display) -> ClientError {
    ClientError::new(format!("the connection failed: {cause}"))
}

/// Queries as they go over the wire.
#[derive(Debug, Clone)]
pub struct WireQueries {
    address: String,
    requests: Vec<Bytes>,
}

impl WireQueries {
    /// Prepares queries for the server at `HOST:PORT`.
    pub fn new(address: &str, queries: &[PreparedQuery]) -> Self {
        let framed = |query: &PreparedQuery| {
            let message = query.encoded();
            let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
            bytes.put_u8(0);
            bytes.put_u32(message.len() as u32);
            bytes.put_slice(&message);
            bytes.freeze()
        };
        WireQueries { address: address.to_owned(), requests: queries.iter().map(framed).collect() }
    }

    /// Asks one after the other, over and over from the `first`-th, for so long, and gives the latency
    /// of each in microseconds. Fails on the first answer that is none.
    pub async fn ask(&self, first: usize, duration: Duration) -> Result<Vec<f64>, ClientError> {
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(stream)
            .await
            .map_err(failed)?;
        let asking = std::pin::pin!(self.ask_on(sender, first, duration));
        match futures::future::select(asking, connection).await {
            Either::Left((latencies, _)) => latencies,
            Either::Right((end, _)) => {
                Err(end.map_or_else(failed, |()| failed("the server closed it")))
            }
        }
    }

    async fn ask_on(
        &self,
        mut sender: SendRequest<Bytes>,
        first: usize,
        duration: Duration,
    ) -> Result<Vec<f64>, ClientError> {
        let uri = format!("http://{}/proxima.be.proto.ProximaService/query", self.address);
        let mut latencies = Vec::new();
        let started = Instant::now();
        let mut next = first;
        while started.elapsed() < duration && !self.requests.is_empty() {
            let sent = Instant::now();
            let request = Request::builder()
                .method(Method::POST)
                .uri(&uri)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .map_err(failed)?;
            sender = sender.ready().await.map_err(failed)?;
            let (answer, mut body) = sender.send_request(request, false).map_err(failed)?;
            body.send_data(self.requests[next % self.requests.len()].clone(), true)
                .map_err(failed)?;
            let (head, mut answer) = answer.await.map_err(failed)?.into_parts();
            let mut message = BytesMut::new();
            while let Some(piece) = answer.data().await {
                let piece = piece.map_err(failed)?;
                answer.flow_control().release_capacity(piece.len()).map_err(failed)?;
                message.extend_from_slice(&piece);
            }
            let trailers = answer.trailers().await.map_err(failed)?;
            // A call that fails at once has its status in the head.
            let status = trailers.as_ref().unwrap_or(&head.headers).get("grpc-status");
            if status.is_none_or(|status| status != "0") || message.len() < PREFIX_BYTES {
                return Err(failed(format!("a query was answered with status {status:?}")));
            }
            let reply = proxima::QueryResponse::decode(&message[PREFIX_BYTES..]).map_err(failed)?;
            keys_of(reply)?;
            latencies.push(sent.elapsed().as_secs_f64() * 1e6);
            next += 1;
        }
        Ok(latencies)
    }
}
