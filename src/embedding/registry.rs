//! Models by name: which there are, what runs them, and those that run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::folder::{self, BUILT_IN, Folder, check_name};
use super::model::{Model, ModelInfo, Plan, Workers};
use super::runtime::{Provider, Runtime, Session};
use crate::compute::threads;
use crate::config::{Config, Device, EmbeddingConfig};
use crate::error::{Error, Result};
use crate::schema::{DeclaredType, ElementType, NewColumn};

/// The parameter that names a column's metric.
const METRIC: &str = "metric_type";
/// Pictures that run together on a processor, where more only makes others wait, and on a GPU.
const BATCH_CPU: usize = 4;
const BATCH_GPU: usize = 64;

/// How often, and how long, a model is run to time it.
const CHECK_RUNS: u32 = 20;
const CHECK_TIME: Duration = Duration::from_secs(5);

/// The models of a folder, and the one that comes with the program.
#[derive(Debug)]
pub struct Models {
    settings: EmbeddingConfig,
    folder: PathBuf,
    provider: OnceLock<std::result::Result<(Runtime, Provider), String>>,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
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

impl Models {
    /// Takes the settings. Nothing is loaded or started before it is needed.
    pub fn new(config: &Config) -> Self {
        let settings = config.embedding.clone();
        Models {
            folder: match settings.models.as_os_str().is_empty() {
                true => config.storage.data.join("models"),
                false => settings.models.clone(),
            },
            provider: OnceLock::new(),
            slots: Mutex::default(),
            settings,
        }
    }

    /// Loads ONNX Runtime, for a server that is to say at its start what runs models. Fails where
    /// `embedding.device` is `cuda` and no GPU can be used; without the library the server goes on, and calls
    /// that need it say why they fail.
    pub fn prepare(&self) -> Result<()> {
        match (self.provider(), self.settings.device) {
            (Ok(provider), _) => {
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

    /// What runs models, or why nothing does.
    pub fn provider(&self) -> std::result::Result<Provider, String> {
        self.loaded().map(|(_, provider)| *provider)
    }

    fn loaded(&self) -> std::result::Result<&(Runtime, Provider), String> {
        let found = self.provider.get_or_init(|| {
            let runtime = Runtime::load(&self.settings.runtime)?;
            let found = usable_provider(&runtime, self.settings.device)?;
            Ok((runtime, found))
        });
        found.as_ref().map_err(String::clone)
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
        let opened = self.read(name).and_then(|folder| self.open(&folder));
        let (plan, _) = opened.map_err(unusable)?;
        Ok(known.insert(plan.info).clone())
    }

    /// A model that runs; one that does not yet is started, which takes seconds.
    pub(super) async fn running(self: &Arc<Self>, name: &str) -> Result<Arc<Model>> {
        let slot = self.slots.lock().get(name).cloned();
        if let Some(model) = slot.and_then(|slot| slot.running.try_lock()?.clone()) {
            return Ok(model);
        }
        let (models, name) = (self.clone(), name.to_owned());
        let starting = tokio::task::spawn_blocking(move || models.start(&name));
        starting.await.map_err(|error| Error::internal(format!("starting a model: {error}")))?
    }

    /// Those that run now.
    pub(super) fn all_running(&self) -> Vec<Arc<Model>> {
        let slots: Vec<Arc<Slot>> = self.slots.lock().values().cloned().collect();
        slots.iter().filter_map(|slot| slot.running.try_lock()?.clone()).collect()
    }

    fn start(&self, name: &str) -> Result<Arc<Model>> {
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
        let folder = folder.map_or_else(|| Ok(Folder::built_in()), Folder::read)?;
        let (plan, mut session) = self.open(&folder)?;
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
        let folder = self.read(name)?;
        let (plan, session) = self.open(&folder)?;
        let (runtime, provider) = self.loaded()?;
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

    fn read(&self, name: &str) -> std::result::Result<Folder, String> {
        match name {
            BUILT_IN => Ok(Folder::built_in()),
            name => Folder::read(&self.folder.join(name)),
        }
    }

    fn open(&self, folder: &Folder) -> std::result::Result<(Plan, Session), String> {
        let (runtime, provider) = self.loaded()?;
        let threads = threads(self.settings.threads_per_worker);
        let mut session = runtime.open(&folder.graph, *provider, threads)?;
        let plan = Plan::examine(folder, *provider, &mut session)?;
        Ok((plan, session))
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
