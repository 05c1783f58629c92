//! A model: what its graph takes and gives, checked by running it once, and the threads that run it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::folder::{Decode, Folder, Pooling};
use super::lanes::Lanes;
use super::preprocess::{Accuracy, InputForm, Layout, Preprocess};
use super::runtime::{Element, Port, Provider, Runtime, Session};
use crate::schema::Metric;

/// Outputs that exports name the embedding by, best first.
const OUTPUTS: [&str; 4] = ["image_embeds", "embedding", "pooler_output", "last_hidden_state"];
/// Highest dimension of a model's vectors.
const DIMENSION_MAX: usize = 65_536;
/// Most pictures at a time of a graph that takes one number of them only, and most bytes of their tensor.
const BATCH_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 1 << 30;
/// Length below which a vector has no direction.
const LENGTH_MIN: f32 = 1e-12;

/// What is known of a model that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Elements of its vectors.
    pub dimension: u32,
    /// How they are compared.
    pub metric: Metric,
    /// What ran it.
    pub provider: Provider,
    /// Height and width of the pictures it takes, in pixels.
    pub picture: (u32, u32),
    /// What its input is, for people.
    pub input: String,
    /// What its output is, for people.
    pub output: String,
}

/// A graph with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) info: ModelInfo,
    pub(super) preprocess: Preprocess,
    /// What JPEGs may be decoded down to.
    pub(super) at_least: Option<(u32, u32)>,
    input: (String, Element),
    output: String,
    pooling: Option<Pooling>,
    normalise: bool,
    layout: Layout,
    /// Pictures that the graph takes at a time, where it takes no other number.
    batch: Option<usize>,
}

impl Plan {
    /// Looks at a graph and runs it once, on a black picture.
    pub(super) fn examine(
        folder: &Folder,
        provider: Provider,
        session: &mut Session,
    ) -> Result<Plan, String> {
        let input = only_picture(&session.inputs)?;
        let (form, batch) = input_form(input)?;
        let element = input.element.unwrap_or(Element::Float32);
        let output = chosen_output(&session.outputs, folder.card.output.as_deref())?;
        let layout = form.layout;
        let accuracy = match folder.card.decode {
            Decode::Exact => Accuracy::Exact,
            Decode::Scaled | Decode::Coarse => Accuracy::Step,
        };
        let preprocess = Preprocess::from_json(&folder.preprocessor, form, accuracy)
            .map_err(|error| error.to_string())?;
        let (height, width) = preprocess.shape();
        let taken = batch.unwrap_or(1);
        let bytes = taken.saturating_mul(preprocess.tensor_len() * size_of::<f32>());
        if taken > BATCH_MAX || bytes > BATCH_BYTES_MAX {
            return Err(format!(
                "its input takes {taken} pictures at a time, {bytes} bytes; at most {BATCH_MAX} and {BATCH_BYTES_MAX} are taken: export it with a batch of any size"
            ));
        }
        let mut plan = Plan {
            info: ModelInfo {
                dimension: 0,
                metric: folder.metric()?,
                provider,
                picture: (height, width),
                input: format!("{} {}", input.name, input.words),
                output: format!("{} {}", output.name, output.words),
            },
            at_least: folder.card.decode.percent().map(|percent| preprocess.at_least(percent)),
            preprocess,
            input: (input.name.clone(), element),
            output: output.name.clone(),
            pooling: folder.card.pooling,
            normalise: folder.normalise(),
            layout,
            batch,
        };
        let black = vec![0.0; plan.preprocess.tensor_len()];
        let vectors = plan.run(session, &[&black])?;
        let dimension = vectors.first().map_or(0, Vec::len);
        if dimension == 0 || dimension > DIMENSION_MAX {
            return Err(format!(
                "its vectors have {dimension} elements; they must have 1 to {DIMENSION_MAX}"
            ));
        }
        plan.info.dimension = dimension as u32;
        Ok(plan)
    }

    /// Runs the graph on tensors of [`Preprocess::tensor_len`] numbers; a vector for each.
    pub(super) fn run(
        &self,
        session: &mut Session,
        tensors: &[&[f32]],
    ) -> Result<Vec<Vec<f32>>, String> {
        let mut vectors = Vec::with_capacity(tensors.len());
        for part in tensors.chunks(self.batch.unwrap_or(tensors.len()).max(1)) {
            // Where the graph takes one number of pictures only, black ones fill up.
            let count = self.batch.unwrap_or(part.len());
            let mut values = Vec::with_capacity(count * self.preprocess.tensor_len());
            part.iter().for_each(|tensor| values.extend_from_slice(tensor));
            values.resize(count * self.preprocess.tensor_len(), 0.0);
            let (height, width) = self.preprocess.shape();
            let (height, width) = (height as usize, width as usize);
            let shape = match self.layout {
                Layout::Nchw => [count, 3, height, width],
                Layout::Nhwc => [count, height, width, 3],
            };
            let (name, element) = &self.input;
            let (shape, values) = session.run((name, *element), shape, &values, &self.output)?;
            let pooled = self.pooled(&shape, &values, count)?;
            vectors.extend(pooled.into_iter().take(part.len()));
        }
        Ok(vectors)
    }

    /// A vector for each of `count` pictures.
    fn pooled(
        &self,
        shape: &[usize],
        values: &[f32],
        count: usize,
    ) -> Result<Vec<Vec<f32>>, String> {
        let (first, rest) = shape.split_first().unwrap_or((&0, &[]));
        if *first != count || values.len() != shape.iter().product::<usize>() || values.is_empty() {
            return Err(format!(
                "output {} has the shape {shape:?} for {count} pictures; the first number must be that of the pictures",
                self.output
            ));
        }
        let pool: fn(&[f32], &[usize]) -> Vec<f32> = match (rest, self.pooling) {
            ([_], None) => |values, _| values.to_vec(),
            ([_, _], None | Some(Pooling::Cls)) => |values, rest| values[..rest[1]].to_vec(),
            ([_, _], Some(Pooling::Mean)) => |values, rest| mean_of_rows(values, rest[1]),
            ([_, _, _], None | Some(Pooling::Mean)) => {
                |values, rest| mean_of_places(values, rest[0])
            }
            _ => {
                return Err(format!(
                    "output {} has the shape {shape:?}, which pooling {:?} (voisin.toml) does not make a vector of",
                    self.output, self.pooling
                ));
            }
        };
        let vectors = values.chunks_exact(values.len() / count).map(|one| {
            let mut vector = pool(one, rest);
            if let Some(bad) = vector.iter().find(|value| !value.is_finite()) {
                return Err(format!("the model gave {bad} for this picture"));
            }
            if self.normalise {
                normalise(&mut vector);
            }
            Ok(vector)
        });
        vectors.collect()
    }
}

fn mean_of_rows(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.chunks_exact(width.max(1));
    let count = rows.len().max(1) as f32;
    let mut sums = vec![0.0; width];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| sum / count).collect()
}

fn mean_of_places(values: &[f32], channels: usize) -> Vec<f32> {
    let places = (values.len() / channels.max(1)).max(1);
    values.chunks_exact(places).map(|one| one.iter().sum::<f32>() / places as f32).collect()
}

/// Gives a vector the length 1, where it has one.
fn normalise(vector: &mut [f32]) {
    let length =
        vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
    if length as f32 > LENGTH_MIN {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

fn listed(ports: &[Port]) -> String {
    let words: Vec<String> =
        ports.iter().map(|port| format!("{} {}", port.name, port.words)).collect();
    words.join("; ")
}

fn only_picture(inputs: &[Port]) -> Result<&Port, String> {
    match inputs {
        [input] if input.element.is_some() && input.shape.len() == 4 => Ok(input),
        _ => Err(format!(
            "its inputs are {}; it must take pictures alone: one tensor of floats [n, 3, height, width] or [n, height, width, 3]",
            listed(inputs)
        )),
    }
}

/// Layout and sides of the pictures, and how many at a time where that is fixed.
fn input_form(input: &Port) -> Result<(InputForm, Option<usize>), String> {
    let side = |place: usize| u32::try_from(input.shape[place]).ok().filter(|side| *side > 0);
    let form = match (input.shape[1], input.shape[3]) {
        // Only names tell what a graph of unknown sides takes; nearly all take channels first.
        (3, _) | (-1, -1) => InputForm { layout: Layout::Nchw, height: side(2), width: side(3) },
        (_, 3) => InputForm { layout: Layout::Nhwc, height: side(1), width: side(2) },
        _ => {
            return Err(format!(
                "its input {} {} has no dimension of 3 colours",
                input.name, input.words
            ));
        }
    };
    Ok((form, usize::try_from(input.shape[0]).ok().filter(|count| *count > 0)))
}

fn chosen_output<'a>(outputs: &'a [Port], wanted: Option<&str>) -> Result<&'a Port, String> {
    let named = |name: &str| outputs.iter().find(|port| port.name == name);
    let found = match wanted {
        Some(name) => named(name),
        None => OUTPUTS.iter().find_map(|name| named(name)).or(outputs.first()),
    };
    let refused = |what: String| format!("{what}; its outputs are {}", listed(outputs));
    match found {
        Some(port) if port.element.is_some() => Ok(port),
        Some(port) => Err(refused(format!("output {} is no tensor of floats", port.name))),
        None => Err(refused(format!("it has no output {:?} (voisin.toml)", wanted.unwrap_or("")))),
    }
}

/// A tensor on its way through a model.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) tensor: Vec<f32>,
    pub(super) reply: oneshot::Sender<Result<Vec<f32>, String>>,
    /// Its place among those on their way.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What a model did since the start.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) pictures: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) busy_us: AtomicU64,
}

/// A model with the threads that run it; they end with it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) plan: Arc<Plan>,
    pub(super) queue: Arc<Lanes<Job>>,
    pub(super) work: Arc<Work>,
}

/// How many threads, and how they gather pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workers {
    pub(super) count: usize,
    pub(super) threads: usize,
    pub(super) batch_max: usize,
    pub(super) patience: Duration,
}

impl Model {
    /// Starts the threads. The first takes this session; each of the others opens its own, and the model goes
    /// on with fewer where one cannot.
    pub(super) fn start(
        name: &str,
        folder: &Folder,
        runtime: &Runtime,
        plan: Plan,
        session: Session,
        workers: Workers,
    ) -> Result<Model, String> {
        let model = Model { plan: Arc::new(plan), queue: Arc::default(), work: Arc::default() };
        let mut session = Some(session);
        for number in 0..workers.count.max(1) {
            let (runtime, folder, session) = (runtime.clone(), folder.clone(), session.take());
            let (plan, queue) = (model.plan.clone(), model.queue.clone());
            let work = model.work.clone();
            let name = name.to_owned();
            let run = move || {
                let open = || runtime.open(&folder.graph, plan.info.provider, workers.threads);
                match session.map_or_else(open, Ok) {
                    Ok(mut session) => serve(&plan, &mut session, &queue, &work, workers),
                    Err(error) => {
                        tracing::warn!(
                            model = name,
                            error,
                            "a session of the model cannot be opened"
                        );
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("embed-{number}"));
            thread.spawn(run).map_err(|error| format!("no thread for the model: {error}"))?;
        }
        Ok(model)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Runs a graph; a panic costs these pictures and not the thread that all others wait for.
fn run_guarded(
    plan: &Plan,
    session: &mut Session,
    tensors: &[&[f32]],
) -> Result<Vec<Vec<f32>>, String> {
    catch_unwind(AssertUnwindSafe(|| plan.run(session, tensors)))
        .unwrap_or_else(|_| Err("the model could not go on with this picture".to_owned()))
}

/// Runs batches until the queue is closed.
fn serve(plan: &Plan, session: &mut Session, queue: &Lanes<Job>, work: &Work, workers: Workers) {
    loop {
        let mut batch = queue.next_batch(workers.batch_max, workers.patience);
        if batch.is_empty() {
            return;
        }
        // Who hung up needs none.
        batch.retain(|job| !job.reply.is_closed());
        if batch.is_empty() {
            continue;
        }
        let started = Instant::now();
        let tensors: Vec<&[f32]> = batch.iter().map(|job| &job.tensor[..]).collect();
        let outcome = run_guarded(plan, session, &tensors);
        work.pictures.fetch_add(batch.len() as u64, Ordering::Relaxed);
        work.batches.fetch_add(1, Ordering::Relaxed);
        let busy = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        work.busy_us.fetch_add(busy, Ordering::Relaxed);
        match outcome {
            Ok(vectors) => {
                for (job, vector) in batch.into_iter().zip(vectors) {
                    let _ = job.reply.send(Ok(vector));
                }
            }
            // One picture may be the cause: each by itself then.
            Err(_) if batch.len() > 1 => {
                for job in batch {
                    let one = run_guarded(plan, session, &[&job.tensor]);
                    let _ = job.reply.send(one.map(|mut vectors| vectors.swap_remove(0)));
                }
            }
            Err(words) => {
                for job in batch {
                    let _ = job.reply.send(Err(words.clone()));
                }
            }
        }
    }
}
