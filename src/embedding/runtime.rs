//! ONNX Runtime: its shared library, found when the program runs, and sessions of models. The only place
//! with `ort`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use half::f16;
use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl Provider {
    /// Its name in ONNX Runtime's words.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Cpu => "CPUExecutionProvider",
            Provider::Cuda => "CUDAExecutionProvider",
        }
    }
}

/// Where a model's graph is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A file; its weights may lie in others beside it.
    File(PathBuf),
    /// Within the program.
    Bytes(&'static [u8]),
}

/// The loaded library. There is one in a process.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    environment: Environment,
}

/// The names that the library has, in the order tried.
const LIBRARIES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

impl Runtime {
    /// Loads the library at this path, or with an empty one from beside the program or from where the system
    /// looks. It stays loaded, so that a second call with another path gets what the first one got.
    pub(super) fn load(path: &Path) -> Result<Runtime, String> {
        static LOADED: OnceLock<Result<Runtime, String>> = OnceLock::new();
        LOADED.get_or_init(|| Runtime::load_now(path)).clone()
    }

    fn load_now(path: &Path) -> Result<Runtime, String> {
        let candidates: Vec<PathBuf> = match path.as_os_str().is_empty() {
            false => vec![path.to_path_buf()],
            true => LIBRARIES.iter().map(PathBuf::from).collect(),
        };
        let mut problem = String::new();
        for candidate in candidates {
            match ort::init_from(&candidate) {
                Ok(builder) => {
                    let built = builder
                        .with_name("voisin")
                        .with_telemetry(false)
                        .with_logger(Arc::new(log))
                        .build()
                        .map_err(|error| format!("ONNX Runtime cannot be started: {error}"))?;
                    built.set_log_level(LogLevel::Warning);
                    return Ok(Runtime { environment: built });
                }
                Err(error) if problem.is_empty() => problem = error.to_string(),
                Err(_) => {}
            }
        }
        Err(format!(
            "ONNX Runtime's shared library cannot be loaded ({problem}); `make run` fetches it, or set embedding.runtime to its path (libonnxruntime.so of the PyPI package onnxruntime), and start again"
        ))
    }

    /// Opens a session. Nothing else runs it where the provider cannot be had: that is an error.
    pub(super) fn open(
        &self,
        source: &Source,
        provider: Provider,
        threads: usize,
    ) -> Result<Session, String> {
        let opened = self.builder(provider, threads).and_then(|mut builder| match source {
            Source::File(path) => builder.commit_from_file(path),
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
        });
        let session = opened.map_err(|error| match provider {
            Provider::Cpu => error.to_string(),
            Provider::Cuda => format!("{} cannot be used: {error}", provider.name()),
        })?;
        let inputs = session.inputs().iter().map(Port::of).collect();
        let outputs = session.outputs().iter().map(Port::of).collect();
        Ok(Session { session, inputs, outputs })
    }

    fn builder(&self, provider: Provider, threads: usize) -> ort::Result<SessionBuilder> {
        let providers: Vec<ExecutionProviderDispatch> = match provider {
            Provider::Cpu => vec![],
            Provider::Cuda => vec![ep::CUDA::default().build().error_on_failure()],
        };
        // Spinning threads would take from those that decode and search.
        Ok(OrtSession::builder(&self.environment)?
            .with_execution_providers(providers)?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?)
    }
}

/// What ONNX Runtime has to say goes where our own words go.
fn log(level: LogLevel, category: &str, _: &str, place: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::debug!(category, place, "{message}"),
        LogLevel::Warning => tracing::debug!(category, place, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::warn!(category, place, "{message}"),
    }
}

/// The numbers of a tensor, as far as we take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Float32,
    Float16,
}

/// An input or output of a graph.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    /// `None` where it is no tensor of floats.
    pub(super) element: Option<Element>,
    /// Its dimensions; -1 where any is taken.
    pub(super) shape: Vec<i64>,
    /// What it is, for people.
    pub(super) words: String,
}

impl Port {
    fn of(outlet: &Outlet) -> Port {
        let (element, shape, words) = match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => {
                let element = match ty {
                    TensorElementType::Float32 => Some(Element::Float32),
                    TensorElementType::Float16 => Some(Element::Float16),
                    _ => None,
                };
                let sides: Vec<String> = shape
                    .iter()
                    .map(|side| if *side < 0 { "?".to_owned() } else { side.to_string() })
                    .collect();
                (element, shape.to_vec(), format!("{ty} [{}]", sides.join(", ")))
            }
            other => (None, Vec::new(), other.to_string()),
        };
        Port { name: outlet.name().to_owned(), element, shape, words }
    }
}

/// A model that can be run, by one thread at a time.
#[derive(Debug)]
pub(super) struct Session {
    session: OrtSession,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

impl Session {
    /// Runs the graph on one tensor and gives one of its outputs: its dimensions and its numbers.
    pub(super) fn run(
        &mut self,
        (input, element): (&str, Element),
        shape: [usize; 4],
        values: &[f32],
        output: &str,
    ) -> Result<(Vec<usize>, Vec<f32>), String> {
        let words = |error: ort::Error| error.to_string();
        let outputs = match element {
            Element::Float32 => {
                let tensor = TensorRef::from_array_view((shape, values)).map_err(words)?;
                self.session.run(ort::inputs![input => tensor])
            }
            Element::Float16 => {
                let halves: Vec<f16> = values.iter().copied().map(f16::from_f32).collect();
                let tensor = TensorRef::from_array_view((shape, &halves[..])).map_err(words)?;
                self.session.run(ort::inputs![input => tensor])
            }
        };
        let outputs = outputs.map_err(words)?;
        let found = outputs.get(output).ok_or_else(|| format!("it gave no output {output:?}"))?;
        let (shape, values) = match found.try_extract_tensor::<f32>() {
            Ok((shape, values)) => (shape, values.to_vec()),
            Err(_) => {
                let (shape, values) = found.try_extract_tensor::<f16>().map_err(words)?;
                (shape, values.iter().map(|value| value.to_f32()).collect())
            }
        };
        let shape = shape.iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
        Ok((shape, values))
    }
}
