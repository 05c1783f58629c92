//! `voisin index`: what of a folder is new, changed or gone, and the run that makes the collection follow it.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::walk::{Found, Walk};
use super::{
    BYTES, EMBEDDING, HEIGHT, MODIFIED, PATH, ROOT, THUMBNAIL, THUMBNAIL_SIDE, WIDTH, forwards,
};
use crate::schema::Value;
use crate::server::client::{
    Client, Described, ForwardBatch, PictureBatch, PictureTarget, PreparedPictures, RowChoice,
};
use crate::transfer::progress::Progress;
use crate::transfer::sender::{Batch, Sender, Written};
use crate::transfer::{Result, TransferError, grouped};

/// Pictures, and bytes of them, that are sent together.
const BATCH_PICTURES: usize = 32;
const BATCH_BYTES: u64 = 4 << 20;
/// Batches that are read ahead.
const AHEAD: usize = 2;
/// Rows that are deleted together.
const DELETE_KEYS: usize = 10_000;
/// Pictures that could not be indexed and are shown one by one.
const SHOWN: usize = 100;
/// How long what is under way may take after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);
/// The name space of keys: those of one folder's paths are the same at every run.
const KEYS: Uuid = Uuid::from_u128(0x6f5c_1c1e_59a4_4d0e_9a52_7e1b_32a8_0a71);

/// Arguments of `voisin index`.
#[derive(Debug, Clone, Args)]
pub struct IndexArgs {
    /// The folder; all pictures below it are indexed.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The collection; created if it is not there.
    #[arg(long, value_name = "NAME")]
    pub collection: String,
    /// The server's gRPC address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:16000")]
    pub server: String,
    /// The model of a new collection [default: holistic].
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Only files that a glob matches, such as '*.jpg' or 'holidays/**' [default: by their endings].
    #[arg(long = "glob", value_name = "GLOB")]
    pub globs: Vec<String>,
    /// No files that a glob matches.
    #[arg(long = "exclude", value_name = "GLOB")]
    pub excluded: Vec<String>,
    /// The longest side of the small copies that are kept, in pixels, 16 to 1024; 0 keeps none.
    #[arg(long, value_name = "PIXELS", default_value_t = THUMBNAIL_SIDE, value_parser = parse_side)]
    pub thumbnails: u32,
    /// Follow symbolic links.
    #[arg(long)]
    pub follow: bool,
    /// Delete the rows of pictures of this folder whose files are gone.
    #[arg(long)]
    pub sync: bool,
    /// What the folder is called in the rows: another name keeps apart what is at the same path on several
    /// machines or media, the same name lets a folder move [default: its path].
    #[arg(long, value_name = "NAME")]
    pub root_name: Option<String>,
    /// Index all pictures anew, also those that have not changed.
    #[arg(long)]
    pub all: bool,
    /// How long a server that is busy or away is asked again.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

fn parse_side(text: &str) -> std::result::Result<u32, String> {
    let side = text.parse().ok().filter(|side| *side == 0 || (16..=1024).contains(side));
    side.ok_or_else(|| "0 or 16 to 1024".to_owned())
}

/// What indexing did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexReport {
    /// The collection.
    pub collection: String,
    /// Pictures that were embedded and written.
    pub written: u64,
    /// Pictures that had not changed.
    pub unchanged: u64,
    /// Rows of pictures that were gone.
    pub removed: u64,
    /// Pictures that could not be indexed: path and reason.
    pub failures: Vec<(String, String)>,
    /// Seconds of writing.
    pub seconds: f64,
}

impl IndexReport {
    /// What is told at the end.
    pub fn text(&self) -> String {
        let rate = self.written as f64 / self.seconds.max(1e-3);
        let mut text = format!(
            "indexed {} pictures into {:?} in {:.1} s ({rate:.0} images/s); {} had not changed",
            grouped(self.written),
            self.collection,
            self.seconds,
            grouped(self.unchanged)
        );
        if self.removed > 0 {
            text += &format!("; {} were gone and are removed", grouped(self.removed));
        }
        if !self.failures.is_empty() {
            text += &format!("; {} could not be indexed:", grouped(self.failures.len() as u64));
            for (path, reason) in self.failures.iter().take(SHOWN) {
                text += &format!("\n  {path}: {reason}");
            }
            if self.failures.len() > SHOWN {
                text += &format!("\n  and {} more", self.failures.len() - SHOWN);
            }
        }
        text
    }
}

/// Indexes, until it is done or `interrupt` gives a signal's name.
pub async fn index(
    args: &IndexArgs,
    interrupt: impl Future<Output = &'static str>,
) -> Result<IndexReport> {
    let of_folder = |cause: &dyn std::fmt::Display| {
        TransferError::not_as_asked(format!("{}: {cause}", args.folder.display()))
    };
    let root = args.folder.canonicalize().map_err(|cause| of_folder(&cause))?;
    if !root.is_dir() {
        return Err(of_folder(&"it is not a folder; voisin index takes one"));
    }
    std::fs::read_dir(&root).map_err(|cause| TransferError::failed(of_folder(&cause)))?;
    let name = match (&args.root_name, root.to_str()) {
        (Some(name), _) => name.clone(),
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            return Err(of_folder(&"its path is not text in UTF-8; give a --root-name"));
        }
    };
    let walk =
        Walk::new(&args.globs, &args.excluded, args.follow).map_err(TransferError::not_as_asked)?;
    let mut interrupt = std::pin::pin!(interrupt);
    let looking = async {
        let mut client = Client::connect(&args.server).await?;
        collection(args, &mut client).await?;
        eprintln!("looking for pictures in {}", root.display());
        let below = root.clone();
        let walk = tokio::task::spawn_blocking(move || walk.run(&below));
        let walked = walk.await.map_err(TransferError::failed)?;
        let stored = stored(&mut client, &args.collection, &name).await?;
        Ok::<_, TransferError>((client, walked, stored))
    };
    let (mut client, walked, mut stored) = tokio::select! {
        looked = looking => looked?,
        signal = &mut interrupt => return Err(TransferError::stopped(signal)),
    };
    let found_any = !walked.found.is_empty();
    let mut report = IndexReport {
        collection: args.collection.clone(),
        failures: walked.problems,
        ..IndexReport::default()
    };
    let mut wanted = Vec::new();
    for found in walked.found {
        // What stays in `stored` may be gone.
        let known = stored.remove(&found.path);
        let is_same = known.is_some_and(|known| {
            known.bytes == Some(found.bytes as i64) && known.modified_ms == Some(found.modified_ms)
        });
        match is_same && !args.all {
            true => report.unchanged += 1,
            false => wanted.push(found),
        }
    }
    let mut run = Run {
        sender: Sender::new(&args.server, Duration::from_secs(args.patience), true),
        progress: Progress::new("indexed", "images", wanted.len() as u64, 0),
        root: name,
        thumbnails: (args.thumbnails > 0).then_some(args.thumbnails),
        report,
        dealt_with: 0,
    };
    let ended = run.follow(&args.collection, wanted, interrupt.as_mut()).await;
    run.progress.finish();
    run.report.seconds = run.progress.seconds();
    if let Err(error) = ended {
        return Err(error.and(run.report.text()).and("run it again to go on"));
    }
    let mut report = run.report;
    // After what is new, so that nothing is missing that was renamed.
    let gone = match args.sync {
        true => gone(&root, stored),
        false => Vec::new(),
    };
    if !gone.is_empty() && !found_any {
        return Err(TransferError::failed(format!(
            "{}: no picture was found, but the collection has {} of it; nothing is deleted, since a folder that is not mounted looks the same",
            root.display(),
            grouped(gone.len() as u64)
        )));
    }
    for part in gone.chunks(DELETE_KEYS) {
        report.removed += tokio::select! {
            removed = client.delete_keys(&args.collection, part.to_vec()) => removed?,
            signal = &mut interrupt => {
                return Err(TransferError::stopped(signal).and(report.text()));
            }
        };
    }
    match report.written + report.unchanged == 0 && !report.failures.is_empty() {
        true => Err(TransferError::failed(report.text())),
        false => Ok(report),
    }
}

/// The keys of rows whose files are gone. One that was not found for another reason, such as a glob or a folder
/// that may not be read, is not gone.
fn gone(root: &Path, stored: HashMap<String, Stored>) -> Vec<u64> {
    let is_gone = |path: &str| match std::fs::symlink_metadata(root.join(path)) {
        Ok(_) => false,
        Err(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
    };
    let gone = stored.into_iter().filter(|(path, _)| is_gone(path));
    gone.map(|(_, known)| known.key).collect()
}

/// Makes sure of a collection that takes pictures.
async fn collection(args: &IndexArgs, client: &mut Client) -> Result<()> {
    let name = &args.collection;
    let Some(Described { declaration, .. }) = client.describe(name).await? else {
        let model = args.model.as_deref().unwrap_or(crate::embedding::BUILT_IN);
        client.create_for_pictures(name, (EMBEDDING, model), forwards()).await?;
        eprintln!("created collection {name:?} with model {model:?}");
        return Ok(());
    };
    let models: Vec<&String> =
        declaration.vectors.iter().filter_map(|column| column.params.get("model")).collect();
    let refused = |words: String| Err(TransferError::not_as_asked(words));
    match (&models[..], &args.model) {
        ([], _) => {
            return refused(format!(
                "collection {name:?} has no index column that names a model; choose another --collection"
            ));
        }
        ([one], Some(asked)) if *one != asked => {
            return refused(format!(
                "collection {name:?} has model {one:?}, not {asked:?}; choose another --collection"
            ));
        }
        _ => {}
    }
    for wanted in forwards() {
        if !declaration.forwards.iter().any(|column| column.name == wanted.name) {
            return refused(format!(
                "collection {name:?} has no forward column {:?}, which voisin index fills; choose another --collection",
                wanted.name
            ));
        }
    }
    Ok(())
}

/// What a row tells of the file that it was made of.
struct Stored {
    key: u64,
    bytes: Option<i64>,
    modified_ms: Option<i64>,
}

/// The rows of this folder, by path.
async fn stored(
    client: &mut Client,
    collection: &str,
    root: &str,
) -> Result<HashMap<String, Stored>> {
    let choice = RowChoice {
        collection: collection.to_owned(),
        forwards: Some([ROOT, PATH, BYTES, MODIFIED].map(str::to_owned).into()),
        ..RowChoice::default()
    };
    let mut rows = client.read(&choice).await?;
    let mut stored = HashMap::new();
    while let Some(batch) = rows.next().await? {
        let [roots, paths, sizes, times] = &batch.forwards[..] else {
            return Err(TransferError::failed(
                "the server answers with other columns than asked for",
            ));
        };
        for (row, key) in batch.keys.iter().enumerate() {
            let number = |column: &ForwardBatch| match column.values.get(row) {
                Some(Some(Value::Int64(number))) => Some(*number),
                _ => None,
            };
            let (Some(Some(Value::String(own))), Some(Some(Value::String(path)))) =
                (roots.values.get(row), paths.values.get(row))
            else {
                continue;
            };
            if own == root {
                let known = Stored { key: *key, bytes: number(sizes), modified_ms: number(times) };
                stored.insert(path.clone(), known);
            }
        }
    }
    Ok(stored)
}

/// The key of a picture: the same at every run.
fn key(root: &str, path: &str) -> u64 {
    let name = format!("{root}\0{path}");
    let (key, _) = Uuid::new_v5(&KEYS, name.as_bytes()).as_u64_pair();
    // The one number that is no key.
    key.min(u64::MAX - 1)
}

/// A batch of pictures, or one that could not be read.
enum Read {
    Batch(Vec<(Found, Bytes)>),
    Unreadable(Found, String),
}

struct Run {
    sender: Sender<PreparedPictures>,
    progress: Progress,
    root: String,
    thumbnails: Option<u32>,
    report: IndexReport,
    dealt_with: u64,
}

impl Run {
    async fn follow(
        &mut self,
        collection: &str,
        wanted: Vec<Found>,
        mut interrupt: Pin<&mut impl Future<Output = &'static str>>,
    ) -> Result<()> {
        let target = PictureTarget {
            collection: collection.to_owned(),
            thumbnails: self.thumbnails.map(|side| (THUMBNAIL.to_owned(), side)),
            sides: Some((WIDTH.to_owned(), HEIGHT.to_owned())),
        };
        let (give, mut read) = mpsc::channel(AHEAD);
        let reading = std::thread::Builder::new().name("read-pictures".to_owned());
        reading.spawn(move || read_all(wanted, &give)).map_err(TransferError::failed)?;
        // Pictures of the batches under way, by the number of their first.
        let mut under_way: HashMap<u64, Vec<String>> = HashMap::new();
        let mut tick = tokio::time::interval(TICK);
        let mut is_read = false;
        let mut stopped: Option<(&'static str, tokio::time::Instant)> = None;
        let mut sent = 0;
        while !(is_read || stopped.is_some()) || !self.sender.is_idle() {
            let until = stopped.map(|(_, until)| until);
            tokio::select! {
                more = read.recv(), if !is_read && stopped.is_none() && self.sender.has_room() => match more {
                    None => is_read = true,
                    Some(Read::Unreadable(found, reason)) => {
                        self.report.failures.push((found.path, reason));
                        self.dealt_with += 1;
                    }
                    Some(Read::Batch(pictures)) => {
                        let paths = pictures.iter().map(|(found, _)| found.path.clone()).collect();
                        under_way.insert(sent, paths);
                        let rows = vec![sent];
                        sent += pictures.len() as u64;
                        let write = PreparedPictures::new(&target, self.batch(pictures));
                        self.sender.push(Batch { rows, end: sent, write });
                    }
                },
                written = self.sender.next(), if !self.sender.is_idle() => {
                    let Written { batch, failures, .. } = written?;
                    let paths = under_way.remove(&batch.rows[0]).unwrap_or_default();
                    self.report.written += (paths.len() - failures.len()) as u64;
                    self.dealt_with += paths.len() as u64;
                    for failure in failures {
                        let path = paths.get(failure.row).cloned().unwrap_or_default();
                        self.report.failures.push((path, failure.why));
                    }
                }
                signal = &mut interrupt, if stopped.is_none() => {
                    stopped = Some((signal, tokio::time::Instant::now() + STOP_TIMEOUT));
                }
                () = tokio::time::sleep_until(until.unwrap_or_else(tokio::time::Instant::now)), if until.is_some() => break,
                _ = tick.tick() => {}
            }
            self.progress.set(self.dealt_with);
        }
        match stopped {
            None => Ok(()),
            Some((signal, _)) => Err(TransferError::stopped(signal)),
        }
    }

    fn batch(&self, pictures: Vec<(Found, Bytes)>) -> PictureBatch {
        let column = |name: &str, value: &dyn Fn(&Found) -> Value| ForwardBatch {
            name: name.to_owned(),
            values: pictures.iter().map(|(found, _)| Some(value(found))).collect(),
        };
        let forwards = vec![
            column(PATH, &|found| Value::String(found.path.clone())),
            column(ROOT, &|_| Value::String(self.root.clone())),
            column(BYTES, &|found| Value::Int64(found.bytes as i64)),
            column(MODIFIED, &|found| Value::Int64(found.modified_ms)),
        ];
        PictureBatch {
            keys: pictures.iter().map(|(found, _)| key(&self.root, &found.path)).collect(),
            forwards,
            images: pictures.into_iter().map(|(_, bytes)| bytes).collect(),
        }
    }
}

/// Reads files in order and gives them in batches, until nobody takes them.
fn read_all(wanted: Vec<Found>, give: &mpsc::Sender<Read>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for found in wanted {
        if bytes + found.bytes > BATCH_BYTES || batch.len() >= BATCH_PICTURES {
            let full = std::mem::take(&mut batch);
            bytes = 0;
            if !full.is_empty() && give.blocking_send(Read::Batch(full)).is_err() {
                return;
            }
        }
        match read(&found.file) {
            Ok(content) => {
                bytes += content.len() as u64;
                batch.push((found, content));
            }
            Err(reason) => {
                if give.blocking_send(Read::Unreadable(found, reason)).is_err() {
                    return;
                }
            }
        }
    }
    if !batch.is_empty() {
        let _ = give.blocking_send(Read::Batch(batch));
    }
}

/// Most bytes of a picture that are sent; servers take fewer by default.
const FILE_BYTES_MAX: u64 = 60 << 20;

pub(super) fn read(file: &Path) -> std::result::Result<Bytes, String> {
    let data = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !data.is_file() {
        return Err("it is not a file".to_owned());
    }
    if data.len() > FILE_BYTES_MAX {
        return Err(format!("it has {} bytes, above the limit of {FILE_BYTES_MAX}", data.len()));
    }
    std::fs::read(file).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_folder_and_path_alone() {
        assert_eq!(key("/a", "b.jpg"), key("/a", "b.jpg"));
        let keys =
            [key("/a", "b.jpg"), key("/a", "c.jpg"), key("/b", "b.jpg"), key("/a/b", ".jpg")];
        let mut distinct = keys.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.len());
        assert!(keys.iter().all(|key| *key < u64::MAX));
    }

    #[test]
    fn the_report_tells_what_was_done_and_what_could_not_be() {
        let mut report = IndexReport {
            collection: "photos".to_owned(),
            written: 1_200,
            unchanged: 3,
            seconds: 4.0,
            ..IndexReport::default()
        };
        let line =
            "indexed 1,200 pictures into \"photos\" in 4.0 s (300 images/s); 3 had not changed";
        assert_eq!(report.text(), line);
        report.removed = 2;
        report.failures = vec![("a.jpg".to_owned(), "broken".to_owned()); SHOWN + 1];
        let text = report.text();
        assert!(
            text.contains(
                "; 2 were gone and are removed; 101 could not be indexed:\n  a.jpg: broken"
            )
        );
        assert!(text.ends_with("\n  and 1 more"), "{text}");
    }
}
