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
mod registry;
mod runtime;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::compute::threads;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::schema::VectorColumn;

use fetch::Fetcher;
pub use folder::{BUILT_IN, add, check_name};
use lanes::Lanes;
pub use lanes::Purpose;
pub use model::ModelInfo;
use model::{Job, Model, Plan};
pub use picture::{HEAD_BYTES, media_type};
use picture::{Picture, PictureLimits};
pub use registry::{Checked, Listed, Models};
pub use runtime::Provider;

/// The shorter side that a picture keeps for its thumbnail when it is decoded smaller, in percent of the longer side
/// that was asked for.
const THUMBNAIL_PERCENT: u32 = 70;
/// Bytes of a tensor that one permit stands for.
const PERMIT_BYTES: usize = 1 << 20;

/// Work for the threads that decode.
type Task = Box<dyn FnOnce() + Send>;

/// The models, and the threads that decode for them.
pub struct Embedding {
    models: Arc<Models>,
    limits: PictureLimits,
    /// Most bytes that the vectors and thumbnails of a request may have: as if its caller had made and sent them.
    /// Also those of the pictures that are fetched for it.
    made_bytes_max: usize,
    decode_threads: usize,
    decoders: OnceLock<std::result::Result<(), String>>,
    decoding: Arc<Lanes<Task>>,
    fetcher: Fetcher,
    /// Places of searches, and as many of what is done in bulk: neither waits for the other.
    half: u32,
    search_places: Arc<Semaphore>,
    bulk_places: Arc<Semaphore>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    embedded: AtomicU64,
    refused: AtomicU64,
}

/// The pictures of a request.
#[derive(Debug)]
pub enum Pictures {
    /// Sent with it.
    Files(Vec<Bytes>),
    /// To be fetched from their addresses, where that is allowed.
    Addresses(Vec<String>),
}

/// What is to be made of pictures.
#[derive(Debug)]
pub struct EmbedRequest<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The column that the vectors are for, whose dimension they must have.
    pub column: Option<&'a VectorColumn>,
    /// The pictures.
    pub pictures: Pictures,
    /// What is done in bulk waits for places; a search that finds none is refused.
    pub purpose: Purpose,
    /// Makes small copies, too, with at most so many pixels a side.
    pub thumbnails: Option<u32>,
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
    /// Elements of its vectors.
    pub dimension: usize,
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
    /// Takes the models and the settings. Nothing is started before it is needed.
    pub fn new(models: Arc<Models>, config: &Config) -> Self {
        let (settings, limits) = (&config.embedding, &config.limits);
        let half = settings.queue_max.max(2) / 2;
        Embedding {
            models,
            limits: PictureLimits {
                bytes_max: limits.picture_bytes_max,
                pixels_max: limits.picture_pixels_max,
                ratio_max: limits.picture_ratio_max,
                decode_bytes_max: limits.picture_decode_bytes_max,
            },
            made_bytes_max: limits.message_bytes_max,
            decode_threads: threads(settings.decode_threads),
            decoders: OnceLock::new(),
            decoding: Arc::default(),
            fetcher: Fetcher::new(&config.fetch, limits.picture_bytes_max),
            half,
            search_places: Arc::new(Semaphore::new(half as usize)),
            bulk_places: Arc::new(Semaphore::new(half as usize)),
            counts: Counts::default(),
        }
    }

    /// The models.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// Starts the threads that decode.
    fn start_decoders(&self) -> Result<()> {
        let started = self.decoders.get_or_init(|| {
            for number in 0..self.decode_threads {
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

    /// What there is to tell.
    pub fn report(&self) -> EmbeddingReport {
        let mut report = EmbeddingReport {
            provider: self.models.provider(),
            embedded: self.counts.embedded.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            waiting: (self.decoding.len() as u64, 0),
            batches: (0, 0),
        };
        for model in self.models.all_running() {
            report.waiting.1 += model.queue.len() as u64;
            report.batches.0 += model.work.batches.load(Ordering::Relaxed);
            report.batches.1 += model.work.busy_us.load(Ordering::Relaxed);
        }
        report
    }

    /// Makes vectors of pictures. Refuses what would take too much before a picture is looked at. Dropping the
    /// future ends the work.
    pub async fn embed(&self, request: EmbedRequest<'_>) -> Result<Batch> {
        let started = Instant::now();
        let EmbedRequest { model, column, pictures, purpose, thumbnails } = request;
        let (name, model) = (model, self.models.running(model).await?);
        if let Some(column) = column {
            check_dimension(name, &model.plan.info, column)?;
        }
        let dimension = model.plan.info.dimension as usize;
        let made_bytes = pictures.len().saturating_mul(dimension * size_of::<f32>());
        self.check_made(made_bytes)?;
        let cost = self.cost(&model);
        if purpose == Purpose::Search {
            self.check_search(pictures.len(), cost)?;
        }
        self.start_decoders()?;
        let pictures = match pictures {
            Pictures::Files(files) => files.into_iter().map(Ok).collect(),
            Pictures::Addresses(urls) => self.fetcher.fetch(urls, self.made_bytes_max).await?,
        };
        let mut permits = match purpose {
            Purpose::Search => Some(self.places_of_search(pictures.len(), cost)?),
            Purpose::Bulk => None,
        };
        let way = Arc::new(Way { model, purpose, thumbnails, made_bytes: made_bytes.into() });
        let mut waiting = Vec::with_capacity(pictures.len());
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
                None => self.bulk_places.clone().acquire_many_owned(cost).await.ok(),
            };
            self.check_made(way.made_bytes.load(Ordering::Relaxed))?;
            let permit = permit.ok_or(Error::Stopping)?;
            waiting.push(Ok(self.send(&way, picture, permit)?));
        }
        let pictures = Vec::with_capacity(waiting.len());
        let mut batch =
            Batch { dimension, pictures, decode: Duration::ZERO, embed: Duration::ZERO };
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
        self.check_made(way.made_bytes.load(Ordering::Relaxed))?;
        batch.decode = decoded - started;
        batch.embed = decoded.elapsed();
        Ok(batch)
    }

    fn check_made(&self, bytes: usize) -> Result<()> {
        if bytes > self.made_bytes_max {
            return Err(Error::LimitExceeded {
                what: "number of bytes of the vectors and thumbnails of a request",
                value: bytes as u64,
                limit: self.made_bytes_max as u64,
                setting: "limits.message_bytes_max",
            });
        }
        Ok(())
    }

    /// Places that one picture takes: a large tensor takes several.
    fn cost(&self, model: &Model) -> u32 {
        let bytes = model.plan.preprocess.tensor_len() * size_of::<f32>();
        let most = self.half;
        u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(most).clamp(1, most)
    }

    /// Refuses a search that could never find its places.
    fn check_search(&self, pictures: usize, cost: u32) -> Result<()> {
        let most = self.half / cost;
        if pictures > most as usize {
            return Err(Error::LimitExceeded {
                what: "number of pictures of a search",
                value: pictures as u64,
                limit: u64::from(most),
                setting: "embedding.queue_max",
            });
        }
        Ok(())
    }

    /// The places of a search, all at once, or its refusal.
    fn places_of_search(&self, pictures: usize, cost: u32) -> Result<OwnedSemaphorePermit> {
        let wanted = u32::try_from(pictures).unwrap_or(u32::MAX).saturating_mul(cost);
        let permits = self.search_places.clone().try_acquire_many_owned(wanted);
        permits.map_err(|_| Error::Busy {
            what: "the half for searches of the queue of pictures",
            limit: u64::from(self.half),
            setting: "embedding.queue_max",
        })
    }

    /// Sends a picture to be decoded and then to its model.
    fn send(
        &self,
        way: &Arc<Way>,
        picture: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Waiting> {
        let (decoded, when_decoded) = oneshot::channel();
        let (vector, when_embedded) = oneshot::channel();
        let (way, limits, purpose) = (way.clone(), self.limits, way.purpose);
        let coming = way.model.queue.announce(purpose);
        let task = move || {
            // Nobody waits any more.
            if decoded.is_closed() {
                return;
            }
            match read(&way.model.plan, &picture, &limits, way.thumbnails) {
                Ok((read, tensor)) => {
                    drop(picture);
                    let bytes = read.thumbnail.as_ref().map_or(0, Vec::len);
                    way.made_bytes.fetch_add(bytes, Ordering::Relaxed);
                    let _ = decoded.send(Ok(read));
                    // A closed queue drops the job, and with it the sender.
                    let job = Job { tensor, reply: vector, _permit: permit };
                    let _ = way.model.queue.push(purpose, job);
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

impl Pictures {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Pictures::Files(files) => files.len(),
            Pictures::Addresses(urls) => urls.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The way that all pictures of a request go.
#[derive(Debug)]
struct Way {
    model: Arc<Model>,
    purpose: Purpose,
    thumbnails: Option<u32>,
    /// Bytes of the vectors, and of the thumbnails up to now.
    made_bytes: AtomicUsize,
}

/// Refuses vectors of a model that was another when the column was created.
fn check_dimension(name: &str, info: &ModelInfo, column: &VectorColumn) -> Result<()> {
    let (made, wanted) = (info.dimension, column.dimension);
    if made == wanted {
        return Ok(());
    }
    let detail = format!(
        "its vectors have {made} elements, but those of index column {:?}, which was created with a model of this name, have {wanted}; put that model back, or write into a new collection",
        column.name
    );
    Err(Error::ModelUnusable { model: name.to_owned(), detail })
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
