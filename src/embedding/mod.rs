//! Vectors of pictures: bytes of a picture -> pixels -> the tensor a model takes -> ONNX Runtime -> a vector.
//!
//! Pictures are decoded and resized by threads of their own, and run in batches by the threads of their
//! model. How many are on their way is bounded by permits, so that streams wait and searches are refused.

mod fetch;
mod folder;
mod lanes;
mod model;
pub(crate) mod picture;
pub(crate) mod preprocess;
mod runtime;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::{Config, Device, EmbeddingConfig};
use crate::error::{Error, Result};
use crate::schema::{DeclaredType, ElementType, NewColumn};

pub use fetch::Fetched;
use fetch::Fetcher;
use folder::Folder;
pub use folder::{BUILT_IN, add, check_name};
use lanes::Lanes;
pub use lanes::Purpose;
pub use model::ModelInfo;
use model::{Job, Model, Plan, Workers};
pub use picture::{HEAD_BYTES, media_type};
use picture::{Picture, PictureLimits};
pub use runtime::Provider;
use runtime::Runtime;

/// The parameter that names a column's metric.
const METRIC: &str = "metric_type";
/// The shorter side that a picture keeps for its thumbnail when it is decoded smaller, in percent of the longer side
/// that was asked for.
const THUMBNAIL_PERCENT: u32 = 70;
/// Bytes of a tensor that one permit stands for.
const PERMIT_BYTES: usize = 1 << 20;
/// Pictures that run together on a processor, where more only makes others wait, and on a GPU.
const BATCH_CPU: usize = 4;
const BATCH_GPU: usize = 64;

/// How often, and how long, a model is run to time it.
const CHECK_RUNS: u32 = 20;
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Work for the threads that decode.
type Task = Box<dyn FnOnce() + Send>;

/// All models, and the threads that decode for them.
pub struct Embedding {
    settings: EmbeddingConfig,
    folder: PathBuf,
    limits: PictureLimits,
    provider: OnceLock<std::result::Result<(Runtime, Provider), String>>,
    decoders: OnceLock<std::result::Result<(), String>>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    decoding: Arc<Lanes<Task>>,
    fetcher: Fetcher,
    /// Most bytes of the pictures that are fetched for a request.
    fetch_bytes_max: usize,
    /// Permits of everything, and of what is done in bulk.
    places: Arc<Semaphore>,
    bulk_places: Arc<Semaphore>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    embedded: AtomicU64,
    refused: AtomicU64,
}

/// A model by name. What is known stays known; sessions are opened when they are first used.
#[derive(Debug, Default)]
struct Slot {
    known: Mutex<Option<ModelInfo>>,
    running: Mutex<Option<Arc<Model>>>,
}

/// A model that there is, and why it cannot be used where that is so.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What is known of it, or what is wrong.
    pub info: std::result::Result<ModelInfo, String>,
}

/// A model that was opened and timed.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What is known of it.
    pub info: ModelInfo,
    /// How long one picture takes in the model by itself, at the best.
    pub picture: Duration,
}

/// What was made of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The vector.
    pub vector: Vec<f32>,
    /// Width and height of the picture in pixels, as it is shown.
    pub size: (u32, u32),
    /// A small copy as a JPEG file, where one was asked for.
    pub thumbnail: Option<Vec<u8>>,
}

/// What was made of the pictures of one request.
#[derive(Debug)]
pub struct Batch {
    /// By picture, in order; words where it could not be read.
    pub pictures: Vec<std::result::Result<Embedded, String>>,
    /// Until the last picture was read, waiting for a place included.
    pub decode: Duration,
    /// From then on, in the model.
    pub embed: Duration,
}

/// What the server tells of embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingReport {
    /// What runs models, or why nothing does.
    pub provider: std::result::Result<Provider, String>,
    /// Pictures embedded since the start.
    pub embedded: u64,
    /// Pictures that could not be read or embedded since the start.
    pub refused: u64,
    /// Pictures that wait to be decoded, and tensors that wait for their model.
    pub waiting: (u64, u64),
    /// Batches that models ran since the start, and microseconds that these took.
    pub batches: (u64, u64),
}

impl Embedding {
    /// Takes the settings. Nothing is loaded or started before it is needed.
    pub fn new(config: &Config) -> Arc<Self> {
        let settings = config.embedding.clone();
        let limits = &config.limits;
        let places = settings.queue_max.max(2) as usize;
        Arc::new(Embedding {
            folder: match settings.models.as_os_str().is_empty() {
                true => config.storage.data.join("models"),
                false => settings.models.clone(),
            },
            limits: PictureLimits {
                bytes_max: limits.picture_bytes_max,
                pixels_max: limits.picture_pixels_max,
                ratio_max: limits.picture_ratio_max,
                decode_bytes_max: limits.picture_decode_bytes_max,
            },
            provider: OnceLock::new(),
            decoders: OnceLock::new(),
            slots: Mutex::default(),
            decoding: Arc::default(),
            fetcher: Fetcher::new(&config.fetch, limits.picture_bytes_max),
            fetch_bytes_max: limits.message_bytes_max,
            places: Arc::new(Semaphore::new(places)),
            // Half is kept for searches, so that streams do not have them refused.
            bulk_places: Arc::new(Semaphore::new(places / 2)),
            counts: Counts::default(),
            settings,
        })
    }

    /// Loads ONNX Runtime, for a server that is to say at its start what runs models. Fails where
    /// `embedding.device` is `cuda` and no GPU can be used; without the library the server goes on, and calls
    /// that need it say why they fail.
    pub fn prepare(&self) -> Result<()> {
        match (self.provider(), self.settings.device) {
            (Ok((_, provider)), _) => {
                tracing::info!(provider = provider.name(), "models can be run");
            }
            (Err(detail), Device::Cuda) => {
                let detail = format!("embedding.device is \"cuda\", but {detail}");
                return Err(Error::InvalidArgument { detail });
            }
            (Err(reason), _) => tracing::warn!(reason, "no vectors of pictures can be made"),
        }
        Ok(())
    }

    fn provider(&self) -> std::result::Result<&(Runtime, Provider), String> {
        let found = self.provider.get_or_init(|| {
            let runtime = Runtime::load(&self.settings.runtime)?;
            let found = usable_provider(&runtime, self.settings.device)?;
            Ok((runtime, found))
        });
        found.as_ref().map_err(String::clone)
    }

    /// Starts the threads that decode.
    fn start_decoders(&self) -> Result<()> {
        let started = self.decoders.get_or_init(|| {
            for number in 0..threads(self.settings.decode_threads) {
                let queue = self.decoding.clone();
                let run = move || {
                    while let Some(task) = queue.next() {
                        // Who waits is told by what the task drops; others need the thread.
                        if catch_unwind(AssertUnwindSafe(task)).is_err() {
                            tracing::error!("a thread that decodes pictures panicked and goes on");
                        }
                    }
                };
                let thread = std::thread::Builder::new().name(format!("decode-{number}"));
                thread.spawn(run).map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        started.clone().map_err(|error| Error::internal(format!("no thread to decode: {error}")))
    }

    /// Completes the declaration of an index column that names a model: dimension and metric follow where they
    /// are not set. Columns without one stay as they are.
    pub fn complete(&self, column: &mut NewColumn) -> Result<()> {
        let Some(model) = column.model() else { return Ok(()) };
        let info = self.info(model)?;
        let refused = |detail| Err(Error::InvalidColumn { column: column.name.clone(), detail });
        match column.data_type {
            DeclaredType::Undefined
            | DeclaredType::Vector(ElementType::Fp32 | ElementType::Fp16) => {}
            _ => {
                return refused(format!("model {model:?} makes vectors of FP32; use FP32 or FP16"));
            }
        }
        if column.dimension != 0 && column.dimension != info.dimension {
            let (given, made) = (column.dimension, info.dimension);
            return refused(format!(
                "dimension is {given}, but the vectors of model {model:?} have {made} elements"
            ));
        }
        if column.data_type == DeclaredType::Undefined {
            column.data_type = DeclaredType::Vector(ElementType::Fp32);
        }
        column.dimension = info.dimension;
        if column.extra_params.iter().all(|(name, _)| name != METRIC) {
            column.extra_params.push((METRIC.to_owned(), info.metric.name().to_owned()));
        }
        Ok(())
    }

    /// The folder of the models' folders.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What there is to tell.
    pub fn report(&self) -> EmbeddingReport {
        let mut report = EmbeddingReport {
            provider: self.provider().map(|(_, found)| *found),
            embedded: self.counts.embedded.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            waiting: (self.decoding.len() as u64, 0),
            batches: (0, 0),
        };
        let slots: Vec<Arc<Slot>> = self.slots.lock().values().cloned().collect();
        for model in slots.iter().filter_map(|slot| slot.running.try_lock()?.clone()) {
            report.waiting.1 += model.queue.len() as u64;
            report.batches.0 += model.work.batches.load(Ordering::Relaxed);
            report.batches.1 += model.work.busy_us.load(Ordering::Relaxed);
        }
        report
    }

    /// All models, the one that comes with the program first. Those not known yet are opened: seconds each.
    pub fn list(&self) -> Vec<Listed> {
        let names = std::iter::once(BUILT_IN.to_owned()).chain(folder::names(&self.folder));
        names
            .map(|name| Listed { info: self.info(&name).map_err(|e| e.to_string()), name })
            .collect()
    }

    /// What is known of a model; one that is not known yet is opened, which takes seconds.
    pub fn info(&self, name: &str) -> Result<ModelInfo> {
        let slot = self.slot(name)?;
        let mut known = slot.known.lock();
        if let Some(info) = &*known {
            return Ok(info.clone());
        }
        let unusable = |detail| Error::ModelUnusable { model: name.to_owned(), detail };
        let (_, plan, _) = self.examine(name).map_err(unusable)?;
        Ok(known.insert(plan.info).clone())
    }

    /// A model that runs; one that does not yet is started, which takes seconds.
    fn model(&self, name: &str) -> Result<Arc<Model>> {
        let slot = self.slot(name)?;
        let mut running = slot.running.lock();
        if let Some(model) = &*running {
            return Ok(model.clone());
        }
        let started = self.start_model(name);
        let model =
            started.map_err(|detail| Error::ModelUnusable { model: name.to_owned(), detail })?;
        let info = &model.plan.info;
        tracing::info!(
            model = name,
            dimension = info.dimension,
            provider = info.provider.name(),
            "model started"
        );
        *slot.known.lock() = Some(info.clone());
        Ok(running.insert(Arc::new(model)).clone())
    }

    /// Opens a model that need not be among those of the folder, and times it.
    pub fn check(&self, folder: Option<&Path>) -> std::result::Result<Checked, String> {
        let (runtime, provider) = self.provider()?;
        let folder = folder.map_or_else(|| Ok(Folder::built_in()), Folder::read)?;
        let threads = threads(self.settings.threads_per_worker);
        let mut session = runtime.open(&folder.graph, *provider, threads)?;
        let plan = Plan::examine(&folder, *provider, &mut session)?;
        let grey = vec![0.5; plan.preprocess.tensor_len()];
        let mut fastest = Duration::MAX;
        let until = Instant::now() + CHECK_TIME;
        for _ in 0..CHECK_RUNS {
            let started = Instant::now();
            plan.run(&mut session, &[&grey])?;
            fastest = fastest.min(started.elapsed());
            if Instant::now() > until {
                break;
            }
        }
        Ok(Checked { info: plan.info, picture: fastest })
    }

    fn start_model(&self, name: &str) -> std::result::Result<Model, String> {
        let (folder, plan, session) = self.examine(name)?;
        let (runtime, provider) = self.provider()?;
        let workers = Workers {
            count: match (self.settings.workers, provider) {
                (0, Provider::Cuda) => 1,
                (count, _) => threads(count),
            },
            threads: threads(self.settings.threads_per_worker),
            batch_max: match (self.settings.batch_max, provider) {
                (0, Provider::Cpu) => BATCH_CPU,
                (0, Provider::Cuda) => BATCH_GPU,
                (most, _) => most as usize,
            },
            patience: Duration::from_millis(self.settings.batch_wait_ms),
        };
        Model::start(name, &folder, runtime, plan, session, workers)
    }

    fn examine(&self, name: &str) -> std::result::Result<(Folder, Plan, runtime::Session), String> {
        let (runtime, provider) = self.provider()?;
        let folder = match name {
            BUILT_IN => Folder::built_in(),
            name => Folder::read(&self.folder.join(name))?,
        };
        let threads = threads(self.settings.threads_per_worker);
        let mut session = runtime.open(&folder.graph, *provider, threads)?;
        let plan = Plan::examine(&folder, *provider, &mut session)?;
        Ok((folder, plan, session))
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>> {
        let exists =
            name == BUILT_IN || (check_name(name).is_ok() && self.folder.join(name).is_dir());
        if !exists {
            let mut known = vec![BUILT_IN.to_owned()];
            known.extend(folder::names(&self.folder));
            return Err(Error::ModelNotFound { model: name.to_owned(), known: known.join(", ") });
        }
        Ok(self.slots.lock().entry(name.to_owned()).or_default().clone())
    }

    /// Fetches pictures by their addresses, where that is allowed.
    pub async fn fetch(&self, urls: Vec<String>) -> Result<Vec<Fetched>> {
        self.fetcher.fetch(urls, self.fetch_bytes_max).await
    }

    /// Makes vectors of pictures, and small copies with at most so many pixels a side. What is done in bulk
    /// waits for places; a search that finds none is refused. Dropping the future ends the work.
    pub async fn embed(
        self: &Arc<Self>,
        model: &str,
        pictures: Vec<Fetched>,
        purpose: Purpose,
        thumbnails: Option<u32>,
    ) -> Result<Batch> {
        let started = Instant::now();
        self.start_decoders()?;
        let model = {
            let (embedding, name) = (self.clone(), model.to_owned());
            let opening = tokio::task::spawn_blocking(move || embedding.model(&name));
            opening
                .await
                .map_err(|error| Error::internal(format!("opening a model: {error}")))??
        };
        let mut waiting = Vec::with_capacity(pictures.len());
        let cost = self.cost(&model);
        let mut permits = self.all_at_once(purpose, cost, pictures.len())?;
        for picture in pictures {
            let picture = match picture {
                Ok(picture) => picture,
                Err(words) => {
                    waiting.push(Err(words));
                    continue;
                }
            };
            let permit = match &mut permits {
                Some(permits) => permits.split(cost as usize),
                None => self.place(purpose, cost).await,
            };
            let permit = permit.ok_or(Error::Stopping)?;
            waiting.push(Ok(self.send(&model, picture, purpose, thumbnails, permit)?));
        }
        let mut batch =
            Batch { pictures: Vec::new(), decode: Duration::ZERO, embed: Duration::ZERO };
        let mut decoded = started;
        for answer in waiting {
            let made = match answer {
                Ok(answer) => answer.made(&mut decoded).await,
                Err(words) => Err(words),
            };
            let counter = if made.is_ok() { &self.counts.embedded } else { &self.counts.refused };
            counter.fetch_add(1, Ordering::Relaxed);
            batch.pictures.push(made);
        }
        batch.decode = decoded - started;
        batch.embed = decoded.elapsed();
        Ok(batch)
    }

    /// Places that one picture takes: a large tensor takes several.
    fn cost(&self, model: &Model) -> u32 {
        let bytes = model.plan.preprocess.tensor_len() * size_of::<f32>();
        let most = (self.settings.queue_max / 2).max(1);
        u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(most).clamp(1, most)
    }

    /// The places of a search, or its refusal; what is done in bulk takes one after the other.
    fn all_at_once(
        &self,
        purpose: Purpose,
        cost: u32,
        count: usize,
    ) -> Result<Option<OwnedSemaphorePermit>> {
        if purpose == Purpose::Bulk {
            return Ok(None);
        }
        let wanted = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(cost);
        if wanted > self.settings.queue_max {
            return Err(Error::LimitExceeded {
                what: "number of pictures of a search",
                value: count as u64,
                limit: u64::from(self.settings.queue_max / cost),
                setting: "embedding.queue_max",
            });
        }
        let permits = self.places.clone().try_acquire_many_owned(wanted);
        permits.map(Some).map_err(|_| Error::Busy {
            what: "the queue of pictures",
            limit: u64::from(self.settings.queue_max),
            setting: "embedding.queue_max",
        })
    }

    async fn place(&self, purpose: Purpose, cost: u32) -> Option<OwnedSemaphorePermit> {
        let places = match purpose {
            Purpose::Search => &self.places,
            Purpose::Bulk => &self.bulk_places,
        };
        places.clone().acquire_many_owned(cost).await.ok()
    }

    /// Sends a picture to be decoded and then to its model.
    fn send(
        &self,
        model: &Arc<Model>,
        picture: Bytes,
        purpose: Purpose,
        thumbnails: Option<u32>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Waiting> {
        let (decoded, when_decoded) = oneshot::channel();
        let (vector, when_embedded) = oneshot::channel();
        let (model, limits) = (model.clone(), self.limits);
        let coming = model.queue.announce();
        let task = move || {
            // Nobody waits any more.
            if decoded.is_closed() {
                return;
            }
            match read(&model.plan, &picture, &limits, thumbnails) {
                Ok((read, tensor)) => {
                    drop(picture);
                    let _ = decoded.send(Ok(read));
                    // A closed queue drops the job, and with it the sender.
                    let job = Job { tensor, reply: vector, _permit: permit };
                    let _ = model.queue.push(purpose, job);
                }
                Err(words) => {
                    let _ = decoded.send(Err(words));
                }
            }
            drop(coming);
        };
        self.decoding.push(purpose, Box::new(task)).map_err(|_| Error::Stopping)?;
        Ok(Waiting { decoded: when_decoded, vector: when_embedded })
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.decoding.close();
    }
}

const ENDED: &str = "the model ended before it made a vector of this picture";

/// A picture on its way.
struct Waiting {
    decoded: oneshot::Receiver<std::result::Result<Read, String>>,
    vector: oneshot::Receiver<std::result::Result<Vec<f32>, String>>,
}

impl Waiting {
    /// What was made of it; `decoded` becomes the time at which it was read, where that is later.
    async fn made(self, decoded: &mut Instant) -> std::result::Result<Embedded, String> {
        let ended = || ENDED.to_owned();
        let read = self.decoded.await.map_err(|_| ended())??;
        *decoded = read.at.max(*decoded);
        let vector = self.vector.await.map_err(|_| ended())??;
        Ok(Embedded { vector, size: read.size, thumbnail: read.thumbnail })
    }
}

/// What reading a picture left beside its tensor.
struct Read {
    size: (u32, u32),
    thumbnail: Option<Vec<u8>>,
    at: Instant,
}

fn read(
    plan: &Plan,
    bytes: &[u8],
    limits: &PictureLimits,
    thumbnails: Option<u32>,
) -> std::result::Result<(Read, Vec<f32>), String> {
    // A small copy is made of what was decoded, too, and may be somewhat smaller than asked for.
    let side = thumbnails.map_or(0, |side| side * THUMBNAIL_PERCENT / 100);
    let at_least = plan.at_least.map(|(width, height)| (width.max(side), height.max(side)));
    let words = |error: picture::PictureError| error.to_string();
    let picture: Picture = picture::decode(bytes, limits, at_least).map_err(words)?;
    let mut tensor = vec![0.0; plan.preprocess.tensor_len()];
    plan.preprocess.tensor(&picture, &mut tensor).map_err(|error| error.to_string())?;
    let thumbnail = thumbnails.map(|side| picture.thumbnail(side)).transpose().map_err(words)?;
    let read = Read { size: picture.full_size(), thumbnail, at: Instant::now() };
    Ok((read, tensor))
}

/// What can run models: it is tried on the model that comes with the program.
fn usable_provider(runtime: &Runtime, device: Device) -> std::result::Result<Provider, String> {
    let works = |provider: Provider| {
        let folder = Folder::built_in();
        let mut session = runtime.open(&folder.graph, provider, 1)?;
        Plan::examine(&folder, provider, &mut session).map(|_| provider)
    };
    match device {
        Device::Cpu => works(Provider::Cpu),
        Device::Cuda => works(Provider::Cuda),
        Device::Auto => works(Provider::Cuda).or_else(|reason| {
            tracing::debug!(reason, "the processor runs models");
            works(Provider::Cpu)
        }),
    }
}

fn threads(configured: u32) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count as usize,
    }
}
