//! Batches on their way to a server: several at a time, acknowledged in order. A busy server is asked
//! again after a while, a broken connection is made anew, for as long as patience lasts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::{Result, TransferError};
use crate::server::client::{Client, ClientError, RowFailure, Writable, WriteStream};

/// Most batches under way; the server works on 8 of a stream, and the others are on the wire.
const IN_FLIGHT_MAX: usize = 12;
/// The first and the longest wait before something is tried again.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(3);

/// A batch and the rows that it is of.
#[derive(Debug, Clone)]
pub(super) struct Batch<W> {
    /// Numbers of the rows through all files.
    pub rows: Vec<u64>,
    /// All rows below were dealt with once this batch and those before it are.
    pub end: u64,
    pub write: W,
}

/// A batch on its way.
struct Numbered<W> {
    number: u64,
    /// True when it was sent before and may have been written.
    is_resent: bool,
    batch: Batch<W>,
}

/// A batch that was written, but for the rows that failed.
#[derive(Debug)]
pub(super) struct Written<W> {
    pub batch: Batch<W>,
    /// True when it may have been written twice: keys that exist may be its own.
    pub is_resent: bool,
    pub failures: Vec<RowFailure>,
}

/// The way to the server.
pub(super) struct Sender<W> {
    address: String,
    patience: Duration,
    /// Whether a later batch must be written after an earlier one also where it was written before it.
    keeps_order: bool,
    /// A connection that is being made. It is kept while others are waited for: begun anew each time, one
    /// that takes long would never be there.
    connecting: Option<BoxFuture<'static, std::result::Result<WriteStream<W>, ClientError>>>,
    stream: Option<WriteStream<W>>,
    in_flight: VecDeque<Numbered<W>>,
    /// Batches to send before any other.
    waiting: VecDeque<Numbered<W>>,
    /// Batches that the server was too busy for, and those behind them that must be written again.
    refused: VecDeque<Numbered<W>>,
    /// What was written while others were refused, to be told in order.
    done: BTreeMap<u64, Written<W>>,
    /// Batches pushed, and batches told.
    pushed: u64,
    told: u64,
    trouble: Option<Trouble>,
}

/// Since when nothing was written, and when to try again.
struct Trouble {
    since: Instant,
    next: Instant,
    waits: ExponentialBackoff,
}

impl Trouble {
    fn new() -> Trouble {
        let waits = ExponentialBuilder::default()
            .with_min_delay(WAIT_MIN)
            .with_max_delay(WAIT_MAX)
            .without_max_times()
            .with_jitter();
        Trouble { since: Instant::now(), next: Instant::now(), waits: waits.build() }
    }
}

impl<W: Writable> Sender<W> {
    /// `keeps_order` for writes that replace rows.
    pub fn new(address: &str, patience: Duration, keeps_order: bool) -> Self {
        Sender {
            address: address.to_owned(),
            patience,
            keeps_order,
            connecting: None,
            stream: None,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            refused: VecDeque::new(),
            done: BTreeMap::new(),
            pushed: 0,
            told: 0,
            trouble: None,
        }
    }

    /// True when another batch may be pushed.
    pub fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.refused.is_empty() && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// True when nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.told == self.pushed
    }

    /// Takes a batch to be sent behind all others.
    pub fn push(&mut self, batch: Batch<W>) {
        self.waiting.push_back(Numbered { number: self.pushed, is_resent: false, batch });
        self.pushed += 1;
    }

    /// The next batch that was written, in order; waits for ever while there is none under way. May be
    /// dropped at any point and called again.
    pub async fn next(&mut self) -> Result<Written<W>> {
        loop {
            if let Some(written) = self.done.remove(&self.told) {
                self.told += 1;
                return Ok(written);
            }
            if self.in_flight.is_empty() {
                // Everything behind what was refused has been answered: now all of it goes again.
                while let Some(batch) = self.refused.pop_back() {
                    self.waiting.push_front(batch);
                }
            }
            if self.refused.is_empty()
                && self.in_flight.len() < IN_FLIGHT_MAX
                && !self.waiting.is_empty()
            {
                self.send().await?;
            } else if !self.in_flight.is_empty() {
                self.receive().await?;
            } else {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends the first batch that waits.
    async fn send(&mut self) -> Result<()> {
        if let Some(trouble) = &self.trouble {
            sleep_until(trouble.next).await;
        }
        if self.stream.is_none() {
            let address = &self.address;
            let connecting =
                self.connecting.get_or_insert_with(|| Box::pin(connect(address.clone())));
            let connected = connecting.await;
            self.connecting = None;
            match connected {
                Ok(stream) => self.stream = Some(stream),
                Err(cause) if cause.is_passing() => return self.wait(cause.to_string()),
                Err(cause) => return Err(cause.into()),
            }
        }
        if let Some(stream) = &self.stream {
            // A batch that was taken must be sent without a pause in which this may be dropped.
            stream.ready().await;
            if let Some(batch) = self.waiting.pop_front() {
                stream.send(&batch.batch.write);
                self.in_flight.push_back(batch);
            }
        }
        Ok(())
    }

    /// Reads what became of the oldest batch.
    async fn receive(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let answer = match stream.next().await {
            Ok(answer) => answer,
            Err(cause) => {
                self.stream = None;
                if !cause.is_passing() {
                    return Err(cause.into());
                }
                // None of these was answered: each was written whole or not at all.
                while let Some(mut batch) = self.in_flight.pop_back() {
                    batch.is_resent = true;
                    self.waiting.push_front(batch);
                }
                return self.wait(cause.to_string());
            }
        };
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        match answer.refusal {
            Some(refusal) if refusal.is_passing => {
                self.refused.push_back(batch);
                self.wait(refusal.why)
            }
            Some(refusal) => Err(TransferError::failed(refusal.why)),
            None if self.keeps_order && !self.refused.is_empty() => {
                // It overtook one that was refused, which must not have the last word.
                self.refused.push_back(batch);
                Ok(())
            }
            None => {
                if self.refused.is_empty() {
                    self.trouble = None;
                }
                let Numbered { number, is_resent, batch } = batch;
                let failures = answer.failures;
                self.done.insert(number, Written { batch, is_resent, failures });
                Ok(())
            }
        }
    }

    /// Notes that something failed and may succeed later. Fails when patience is at its end.
    fn wait(&mut self, why: String) -> Result<()> {
        let trouble = self.trouble.get_or_insert_with(Trouble::new);
        if trouble.since.elapsed() >= self.patience {
            return Err(TransferError::failed(format!(
                "nothing could be written for {} s (--patience): {why}",
                self.patience.as_secs()
            )));
        }
        // What was refused together counts once.
        if Instant::now() >= trouble.next {
            trouble.next = Instant::now() + trouble.waits.next().unwrap_or(WAIT_MAX);
        }
        Ok(())
    }
}

async fn connect<W: Writable>(address: String) -> std::result::Result<WriteStream<W>, ClientError> {
    let mut client = Client::connect(&address).await?;
    W::open(&mut client, IN_FLIGHT_MAX).await
}
