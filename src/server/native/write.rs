//! Writes: one request, or a stream of them.
//!
//! A stream of writes (or of pictures) is a pump: requests are started in the order read, several at a time, and
//! acknowledged in that order. Nothing is spawned, so a caller who hangs up drops the pump: what
//! was queued whole is applied whole, what was not is not applied at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{FuturesOrdered, Stream, StreamExt};
use prost::Message;
use tonic::Status;

use crate::collection::WriteOutcome;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::schema::{CollectionSchema, RawWrite};
use crate::server::proto::voisin_v1::{DeleteReply, DeleteRequest, WriteAck, WriteRequest};
use crate::server::{convert, limits};

/// Most requests of one stream in progress at a time.
const IN_FLIGHT_MAX: usize = 8;

/// Writes one request and says what became of it.
pub(super) async fn write(
    database: Arc<Database>,
    rows_max: u32,
    request: WriteRequest,
) -> WriteAck {
    let request_id = request.request_id;
    match apply(&database, rows_max, request).await {
        Ok(outcome) => convert::acknowledge(request_id, outcome),
        Err(error) => {
            tracing::debug!(call = "WriteStream", request_id, detail = %error, "refused");
            convert::refuse(request_id, &error)
        }
    }
}

/// Deletes the rows of a filter.
pub(super) async fn delete(database: Arc<Database>, request: DeleteRequest) -> Result<DeleteReply> {
    let collection = database.collection(&request.collection)?;
    let raw = convert::filter(request.filter, request.filter_params).map_err(Error::query)?;
    let raw = raw.ok_or_else(|| Error::query("the filter is not set; _key >= 0 is all rows"))?;
    Ok(DeleteReply { rows_deleted: collection.delete_where(&raw).await? })
}

async fn apply(
    database: &Database,
    rows_max: u32,
    mut request: WriteRequest,
) -> Result<WriteOutcome> {
    let collection = database.collection(&request.collection)?;
    limits::check_rows(request.keys.len(), rows_max)?;
    let magic_number = request.magic_number;
    for column in &mut request.vectors {
        let refused = |detail| Error::InvalidWrite { detail };
        super::sent::round_doubles(column, collection.schema(), refused)?;
    }
    let write = convert::columnar_write(request)?;
    check_columns(collection.schema(), &write)?;
    collection.write(write, magic_number).await
}

/// Our contract tells a column that does not exist from a request that makes no sense; the
/// compatible one does not.
fn check_columns(schema: &CollectionSchema, write: &RawWrite) -> Result<()> {
    let mut vectors = write.vector_metas.iter().map(|meta| &meta.column);
    let no_vector = vectors.find(|name| schema.column_position(name).is_none());
    let no_forward = write.forward_names.iter().find(|name| !schema.forward_columns.contains(name));
    match no_vector.or(no_forward) {
        None => Ok(()),
        Some(column) => {
            Err(Error::ColumnNotFound { collection: schema.name.clone(), column: column.clone() })
        }
    }
}

/// The acknowledgements of a stream of requests, in the requests' order. At most [`IN_FLIGHT_MAX`]
/// requests, and no further one once they have `bytes_max` bytes together, are in progress: then
/// nothing is read until the oldest is acknowledged, and HTTP/2 makes the caller wait.
pub(super) fn acknowledgements<R, Q, A, W, F>(
    requests: R,
    write: W,
    bytes_max: usize,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = std::result::Result<A, Status>> + Send
where
    R: Stream<Item = std::result::Result<Q, Status>> + Send + Unpin + 'static,
    Q: Message,
    A: Send + 'static,
    W: FnMut(Q) -> F + Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let pump = Pump {
        requests,
        write,
        stopping: Box::pin(stopping),
        reading: Reading::Open,
        in_flight: FuturesOrdered::new(),
        sizes: Sizes { bytes: 0, bytes_max },
    };
    futures::stream::unfold(pump, |mut pump| async move {
        let next = pump.next().await?;
        Some((next, pump))
    })
}

/// A request in progress: its acknowledgement and its size.
type Work<A> = Pin<Box<dyn Future<Output = (A, usize)> + Send>>;

struct Pump<R, W, S, A> {
    requests: R,
    write: W,
    stopping: Pin<Box<S>>,
    reading: Reading,
    in_flight: FuturesOrdered<Work<A>>,
    sizes: Sizes,
}

/// Whether the stream is still read.
enum Reading {
    Open,
    /// No more; what is left to say once everything is acknowledged.
    Ended(Option<Status>),
}

/// Encoded size of the requests in progress, which is about what they hold of memory.
struct Sizes {
    bytes: usize,
    bytes_max: usize,
}

impl<R, Q, W, F, S, A> Pump<R, W, S, A>
where
    R: Stream<Item = std::result::Result<Q, Status>> + Unpin,
    Q: Message,
    W: FnMut(Q) -> F,
    F: Future<Output = A> + Send + 'static,
    S: Future<Output = ()>,
{
    async fn next(&mut self) -> Option<std::result::Result<A, Status>> {
        loop {
            let may_read = matches!(self.reading, Reading::Open)
                && self.in_flight.len() < IN_FLIGHT_MAX
                && self.sizes.bytes < self.sizes.bytes_max;
            // The order matters: polling what is in flight before reading on starts each request
            // before the next one is even read, so that they are queued in the order sent.
            tokio::select! {
                biased;
                Some((ack, bytes)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.sizes.bytes -= bytes;
                    return Some(Ok(ack));
                }
                () = &mut self.stopping, if may_read => {
                    let status = Status::unavailable(Error::Stopping.to_string());
                    self.reading = Reading::Ended(Some(status));
                }
                read = self.requests.next(), if may_read => match read {
                    Some(Ok(request)) => self.start(request),
                    Some(Err(status)) => self.reading = Reading::Ended(Some(status)),
                    None => self.reading = Reading::Ended(None),
                },
                else => match &mut self.reading {
                    Reading::Ended(status) => return status.take().map(Err),
                    // With nothing in flight an open stream may always be read.
                    Reading::Open => return None,
                },
            }
        }
    }

    fn start(&mut self, request: Q) {
        let bytes = request.encoded_len();
        self.sizes.bytes += bytes;
        let work = (self.write)(request);
        self.in_flight.push_back(Box::pin(async move { (work.await, bytes) }));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::Poll;

    use futures::poll;
    use tokio::sync::{mpsc, oneshot};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    type Item = std::result::Result<WriteRequest, Status>;
    type Pending = Pin<Box<dyn Future<Output = WriteAck> + Send>>;
    type Starts = mpsc::UnboundedReceiver<(u64, oneshot::Sender<()>)>;

    fn request(request_id: u64) -> Item {
        Ok(WriteRequest { request_id, keys: vec![1; 100], ..Default::default() })
    }

    fn ack(request_id: u64) -> WriteAck {
        WriteAck { request_id, ..Default::default() }
    }

    /// A write that tells when it starts and ends when it is told to.
    fn controlled() -> (impl FnMut(WriteRequest) -> Pending + Send + 'static, Starts) {
        let (starts, started) = mpsc::unbounded_channel();
        let write = move |request: WriteRequest| {
            let starts = starts.clone();
            let work = async move {
                let (finish, finished) = oneshot::channel();
                let _ = starts.send((request.request_id, finish));
                let _ = finished.await;
                ack(request.request_id)
            };
            Box::pin(work) as Pending
        };
        (write, started)
    }

    fn channel() -> (mpsc::UnboundedSender<Item>, UnboundedReceiverStream<Item>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, UnboundedReceiverStream::new(receiver))
    }

    #[tokio::test]
    async fn requests_start_and_are_acknowledged_in_order_however_they_finish() {
        let (send, requests) = channel();
        let (write, mut started) = controlled();
        let mut acks = Box::pin(acknowledgements(requests, write, usize::MAX, pending()));
        for id in 0..3 {
            send.send(request(id)).expect("the stream is open");
        }
        drop(send);
        assert!(poll!(acks.next()).is_pending());
        let mut finishes = Vec::new();
        while let Ok((id, finish)) = started.try_recv() {
            assert_eq!(id, finishes.len() as u64);
            finishes.push(finish);
        }
        assert_eq!(finishes.len(), 3);
        for finish in finishes.into_iter().rev() {
            assert!(poll!(acks.next()).is_pending());
            finish.send(()).expect("the write waits");
        }
        for id in 0..3 {
            assert_eq!(acks.next().await.expect("an answer").expect("an ack"), ack(id));
        }
        assert!(acks.next().await.is_none());
    }

    #[tokio::test]
    async fn reading_stops_while_enough_is_in_flight() {
        let check = async |bytes_max: usize, expected: usize| {
            let (send, requests) = channel();
            let (write, mut started) = controlled();
            let mut acks = Box::pin(acknowledgements(requests, write, bytes_max, pending()));
            for id in 0..20 {
                send.send(request(id)).expect("the stream is open");
            }
            assert!(poll!(acks.next()).is_pending());
            assert_eq!(started.len(), expected);
            let (_, finish) = started.try_recv().expect("a write started");
            finish.send(()).expect("the write waits");
            assert_eq!(acks.next().await.expect("an answer").expect("an ack"), ack(0));
            assert!(poll!(acks.next()).is_pending());
            assert_eq!(started.len(), expected);
        };
        check(usize::MAX, IN_FLIGHT_MAX).await;
        // Each request has a little over 100 bytes.
        check(250, 3).await;
        check(1, 1).await;
    }

    #[tokio::test]
    async fn a_broken_stream_acknowledges_what_it_read_and_then_says_why() {
        let items = vec![request(0), request(1), Err(Status::out_of_range("too large"))];
        let requests = futures::stream::iter(items);
        let write = |request: WriteRequest| ready(ack(request.request_id));
        let mut acks = Box::pin(acknowledgements(requests, write, usize::MAX, pending()));
        assert_eq!(acks.next().await.expect("an answer").expect("an ack"), ack(0));
        assert_eq!(acks.next().await.expect("an answer").expect("an ack"), ack(1));
        let status = acks.next().await.expect("an answer").expect_err("the stream broke");
        assert_eq!(status.code(), tonic::Code::OutOfRange);
        assert!(acks.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stopping_server_acknowledges_what_it_read_and_ends_the_stream() {
        let (send, requests) = channel();
        let (write, mut started) = controlled();
        let (stop, stopping) = oneshot::channel::<()>();
        let stopping = async move {
            let _ = stopping.await;
        };
        let mut acks = Box::pin(acknowledgements(requests, write, usize::MAX, stopping));
        send.send(request(0)).expect("the stream is open");
        assert!(poll!(acks.next()).is_pending());
        stop.send(()).expect("the pump waits");
        assert!(poll!(acks.next()).is_pending());
        send.send(request(1)).expect("the stream is open");
        let (_, finish) = started.try_recv().expect("a write started");
        finish.send(()).expect("the write waits");
        assert_eq!(acks.next().await.expect("an answer").expect("an ack"), ack(0));
        let status = acks.next().await.expect("an answer").expect_err("the server stops");
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(matches!(poll!(acks.next()), Poll::Ready(None)));
        assert!(started.try_recv().is_err(), "nothing is read after the stop");
    }
}
