//! Bounded thread pools, one per kind of work, so that a build never starves a search and no call
//! into native code ever runs on a thread that serves sockets.
//!
//! Searches wait for threads that sleep until there is work: those of a runtime that does nothing
//! else. A work-stealing pool spins before it sleeps, which between two short queries costs more than
//! the query; it serves where one query has work for several threads.

mod measuring;
mod merges;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::cancel::{Cancel, CancelOnDrop};
use crate::config::ComputeConfig;
use crate::error::{Error, Result};
use crate::memory::MemoryLimit;

pub use measuring::{MeasuringBudget, MeasuringTime};
use merges::Merges;

/// How long a search thread waits for work before it ends; the next search starts it again.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

/// The pools of a database, and the bound on its memory.
#[derive(Debug)]
pub struct Compute {
    search: Option<Runtime>,
    scan: ThreadPool,
    write: ThreadPool,
    seal: ThreadPool,
    merges: Merges,
    build: Arc<ThreadPool>,
    search_permits: Arc<Semaphore>,
    search_queue_max: u32,
    searches_refused: AtomicU64,
    writes_refused: AtomicU64,
    memory: MemoryLimit,
    measuring: Arc<MeasuringTime>,
}

/// What the bounded queues hold, and what they refused since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueReport {
    /// Searches that wait or run on their threads.
    pub searches: u64,
    /// Searches refused because too many waited.
    pub searches_refused: u64,
    /// Writes refused because too many waited for their collection's writer.
    pub writes_refused: u64,
}

/// A number of threads by its setting: 0 stands for that of the processors.
pub(crate) fn threads(configured: u32) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count as usize,
    }
}

fn pool(name: &'static str, count: usize, on_start: fn(usize)) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(move |i| format!("{name}-{i}"))
        .start_handler(on_start)
        .build()
        .map_err(|e| Error::internal(format!("the {name} pool cannot be started: {e}")))
}

/// Gives this thread a low priority: it works on every core that nothing else wants, and has about a
/// tenth of one that queries want all of. With none of it, what waits to be indexed would be scanned
/// by more and more queries.
fn yield_to_others(_: usize) {
    // On Linux, a process id may be that of a thread, and priorities are those of threads.
    #[cfg(target_os = "linux")]
    {
        const NICENESS: i32 = 10;
        let own = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
            tracing::debug!(%error, "a build thread keeps its priority");
        }
    }
}

impl Compute {
    /// Starts the pools.
    pub fn new(config: &ComputeConfig, memory_bytes_max: u64) -> Result<Self> {
        let search_threads = threads(config.search_threads);
        let search = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(search_threads)
            .thread_name("search")
            .thread_keep_alive(KEEP_ALIVE)
            .build()
            .map_err(|e| Error::internal(format!("the search threads cannot be started: {e}")))?;
        let build_threads = threads(config.build_threads);
        let build = Arc::new(pool("build", build_threads, yield_to_others)?);
        Ok(Compute {
            search: Some(search),
            scan: pool("scan", search_threads, |_| ())?,
            write: pool("write", threads(config.write_threads), |_| ())?,
            seal: pool("seal", 2, |_| ())?,
            merges: Merges::start(build_threads, build.clone())?,
            build,
            search_permits: Arc::new(Semaphore::new(config.search_queue_max.max(1) as usize)),
            search_queue_max: config.search_queue_max,
            searches_refused: AtomicU64::new(0),
            writes_refused: AtomicU64::new(0),
            memory: MemoryLimit::new(memory_bytes_max),
            measuring: Arc::new(MeasuringTime::new(f64::from(config.live_recall_percent) / 100.0)),
        })
    }

    /// The bound on memory.
    pub fn memory(&self) -> &MemoryLimit {
        &self.memory
    }

    /// A collection's part of the time for measuring queries that were asked.
    pub fn measuring_budget(&self) -> MeasuringBudget {
        MeasuringBudget::new(self.measuring.clone())
    }

    /// What the queues hold and refused.
    pub fn queues(&self) -> QueueReport {
        let places = self.search_queue_max.max(1) as usize;
        QueueReport {
            searches: places.saturating_sub(self.search_permits.available_permits()) as u64,
            searches_refused: self.searches_refused.load(Ordering::Relaxed),
            writes_refused: self.writes_refused.load(Ordering::Relaxed),
        }
    }

    /// Counts a write that a collection's full queue refused.
    pub fn count_refused_write(&self) {
        self.writes_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The threads of what is built beside merges.
    pub fn build_pool(&self) -> &ThreadPool {
        &self.build
    }

    /// Runs a search on its pool. Refused when too many wait already. When the caller has gone, which is
    /// when the future is dropped, it is skipped if it has not started, and otherwise told.
    pub async fn search<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.search_permits.clone().try_acquire_owned().map_err(|_| {
            self.searches_refused.fetch_add(1, Ordering::Relaxed);
            Error::Busy {
                what: "the queue of searches",
                limit: u64::from(self.search_queue_max),
                setting: "compute.search_queue_max",
            }
        })?;
        self.run(permit, work).await
    }

    /// [`Compute::search`], for work whose beginning was bounded otherwise: waits for a place instead of
    /// being refused.
    pub async fn search_in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.search_permits.clone().acquire_owned().await;
        self.run(permit.map_err(|_| Error::Stopping)?, work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(search) = &self.search else { return Err(Error::Stopping) };
        let (reply, answer) = oneshot::channel();
        let waiting = CancelOnDrop::default();
        let cancel = waiting.cancel();
        search.spawn_blocking(move || {
            let _permit = permit;
            if !cancel.is_set() {
                // A caller who hangs up now only wastes the answer.
                let _ = reply.send(work(&cancel));
            }
        });
        answer.await.unwrap_or_else(|_| Err(Error::internal("a search ended without an answer")))
    }

    /// Spreads work over several threads and waits for it.
    pub fn spread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.scan.install(work)
    }

    /// Has every thread of the pools do something, when it gets to it.
    pub fn spawn_everywhere(&self, work: fn()) {
        for pool in [&self.scan, &self.write, &self.seal, &*self.build] {
            pool.spawn_broadcast(move |_| work());
        }
    }

    /// Queues work of a collection's writer.
    pub fn spawn_write(&self, work: impl FnOnce() + Send + 'static) {
        self.write.spawn_fifo(work);
    }

    /// Queues the sealing of a segment.
    pub fn spawn_seal(&self, work: impl FnOnce() + Send + 'static) {
        self.seal.spawn_fifo(work);
    }

    /// Queues a merge. It is given the threads to build with, and whether it has a place that is kept
    /// for short ones.
    pub fn spawn_merge(
        &self,
        is_short: bool,
        work: impl FnOnce(&ThreadPool, bool) + Send + 'static,
    ) {
        self.merges.queue(is_short, Box::new(work));
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // The last user may be a task of another runtime, where waiting is not allowed.
        if let Some(search) = self.search.take() {
            search.shutdown_background();
        }
    }
}
