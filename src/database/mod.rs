//! The catalog: which collections there are, in one data folder that belongs to one process.
//!
//! ```text
//! <data>/LOCK            held while a process uses the folder
//!        VERSION         "voisin data folder 1"
//!        ALIASES         other names of collections
//!        collections/<uuid>/          one folder per collection (names never become paths)
//!        collections/<uuid>.tmp       a creation that did not finish
//!        collections/<uuid>.dropped   a removal that did not finish
//!        forward.sled/   the forward store, rebuilt when lost
//! ```

mod aliases;
mod changing;
mod memory;
mod verify;
mod waiting;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, RwLock};
use rayon::prelude::*;

use crate::collection::{Collection, collection_folder};
use crate::compute::{Compute, QueueReport};
use crate::config::Config;
use crate::embedding::{Embedding, Models};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::memory::MemoryLimit;
use crate::schema::{Alteration, CollectionSchema, NewCollection, SchemaLimits};
use crate::segment::{ForwardStore, check_indexes};
use crate::storage::{Directory, Disk, FolderLock, RealDisk, replace_file};

pub use aliases::{AliasChange, Aliases};
use changing::Changing;
use memory::Base;
pub use memory::ServerMemory;
pub use verify::{CollectionReport, VerifyReport, verify};

const VERSION_LINE: &str = "voisin data folder 1\n";
/// Time between two looks at what has lain still.
const TICK: Duration = Duration::from_secs(1);

/// An open data folder.
pub struct Database {
    disk: Disk,
    data: PathBuf,
    config: Arc<Config>,
    compute: Arc<Compute>,
    embedding: Embedding,
    forward: ForwardStore,
    /// Held for moments only: nothing is read, written or waited for under it.
    catalog: RwLock<Catalog>,
    /// Names of collections that are being created, altered or dropped.
    changing: Changing,
    /// Held while the aliases are read, written and shown.
    naming: Mutex<()>,
    magic_number: u64,
    is_closed: AtomicBool,
    ticker: Arc<Ticker>,
    /// Memory that the process took before there were collections.
    base: Base,
    _lock: Option<FolderLock>,
}

#[derive(Default)]
struct Catalog {
    open: BTreeMap<String, Arc<Collection>>,
    /// Collections that are being created.
    creating: u64,
    /// Collections that could not be opened: name (or folder where not even that could be read), why.
    unserved: BTreeMap<String, String>,
    aliases: Aliases,
}

#[derive(Default)]
struct Ticker {
    is_stopped: Mutex<bool>,
    wake: Condvar,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("data", &self.data).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the data folder of the configuration, and makes it when it is not there.
    pub fn open(config: &Config) -> Result<Arc<Self>> {
        Self::open_with(config, Arc::new(Models::new(config)))
    }

    /// Opens it with models that may be loaded already.
    pub fn open_with(config: &Config, models: Arc<Models>) -> Result<Arc<Self>> {
        let data = &config.storage.data;
        RealDisk.create_dir(data)?;
        let lock = FolderLock::take(data)?;
        Self::opened(Arc::new(RealDisk), config, Some(lock), models)
    }

    /// The bound on memory.
    pub fn memory(&self) -> &MemoryLimit {
        self.compute.memory()
    }

    /// The models.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    /// What the bounded queues hold and refused.
    pub fn queues(&self) -> QueueReport {
        self.compute.queues()
    }

    /// What the process holds in memory beside its collections.
    pub fn server_memory(&self) -> ServerMemory {
        ServerMemory::now(self.base, self.memory().limit())
    }

    /// Opens a data folder on any disk; whoever calls answers for its being the only one.
    pub fn open_on(disk: Disk, config: &Config, lock: Option<FolderLock>) -> Result<Arc<Self>> {
        Self::opened(disk, config, lock, Arc::new(Models::new(config)))
    }

    fn opened(
        disk: Disk,
        config: &Config,
        lock: Option<FolderLock>,
        models: Arc<Models>,
    ) -> Result<Arc<Self>> {
        let data = config.storage.data.clone();
        disk.create_dir(&data.join("collections"))?;
        check_version(&*disk, &data)?;
        disk.sync_dir(&data)?;
        let forward_path = data.join("forward.sled");
        let forward = ForwardStore::open(
            disk.forward_store_root(&forward_path),
            config.storage.forward_cache_bytes,
        )?;
        let compute = Arc::new(Compute::new(&config.compute, config.limits.memory_bytes_max)?);
        let database = Arc::new(Database {
            base: Base::now(),
            embedding: Embedding::new(models, config),
            compute,
            config: Arc::new(config.clone()),
            magic_number: new_magic_number(),
            catalog: RwLock::default(),
            changing: Changing::default(),
            naming: Mutex::new(()),
            is_closed: AtomicBool::new(false),
            ticker: Arc::default(),
            _lock: lock,
            disk,
            data,
            forward,
        });
        database.catalog.write().aliases = aliases::read(&*database.disk, &database.data)?;
        database.open_collections()?;
        database.start_ticker()?;
        Ok(database)
    }

    fn open_collections(&self) -> Result<()> {
        let root = self.data.join("collections");
        let names = self.disk.list(&root)?;
        let (whole, unfinished): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| uuid::Uuid::try_parse(name).is_ok());
        for name in unfinished {
            if name.ends_with(".tmp") || name.ends_with(".dropped") {
                self.disk.remove_dir(&root.join(name))?;
            }
        }
        let open_one = |uuid: &String| {
            let folder = root.join(uuid);
            let collection = self.open_collection(&folder).and_then(|collection| {
                match collection.schema().uuid == *uuid {
                    true => Ok(collection),
                    false => Err(Error::damaged(&folder, 0, "the manifest has another uuid")),
                }
            });
            (uuid.clone(), collection)
        };
        let opened: Vec<(String, Result<Arc<Collection>>)> =
            self.compute.spread(|| whole.par_iter().map(open_one).collect());
        let mut catalog = self.catalog.write();
        for (uuid, collection) in opened {
            let refused = match collection {
                Ok(collection) => {
                    let name = collection.schema().name.clone();
                    match catalog.open.contains_key(&name) {
                        false => {
                            catalog.open.insert(name, collection);
                            continue;
                        }
                        true => {
                            collection.close();
                            Error::damaged(root.join(&uuid), 0, format!("a second {name:?}"))
                        }
                    }
                }
                Err(error) => error,
            };
            let folder = root.join(&uuid);
            let name = Manifest::read(&*self.disk, &folder).map(|manifest| manifest.schema.name);
            let name = name.unwrap_or_else(|_| folder.display().to_string());
            tracing::error!(collection = name, error = %refused, "collection not served");
            catalog.unserved.insert(name, refused.to_string());
        }
        let known =
            |uuid: &str| whole.iter().any(|name| name == uuid || name.replace('-', "") == uuid);
        self.forward.retain_trees(known);
        Ok(())
    }

    fn open_collection(&self, folder: &Path) -> Result<Arc<Collection>> {
        Collection::open(
            &self.disk,
            folder,
            &self.forward,
            &self.config,
            &self.compute,
            self.magic_number,
        )
    }

    fn start_ticker(self: &Arc<Self>) -> Result<()> {
        let database = Arc::downgrade(self);
        let ticker = self.ticker.clone();
        let run = move || {
            loop {
                let mut is_stopped = ticker.is_stopped.lock();
                if !*is_stopped {
                    ticker.wake.wait_for(&mut is_stopped, TICK);
                }
                if *is_stopped {
                    return;
                }
                drop(is_stopped);
                let Some(database) = database.upgrade() else { return };
                database.collections().iter().for_each(Collection::tick);
            }
        };
        std::thread::Builder::new()
            .name("ticker".into())
            .spawn(run)
            .map(drop)
            .map_err(|e| Error::internal(format!("the ticker thread cannot be started: {e}")))
    }

    /// Creates a collection; it serves at once, or nothing of it is left.
    pub async fn create_collection(
        self: &Arc<Self>,
        new: NewCollection,
    ) -> Result<Arc<Collection>> {
        let database = self.clone();
        blocking(move || database.create_now(new)).await
    }

    fn create_now(&self, mut new: NewCollection) -> Result<Arc<Collection>> {
        // Before the lock: opening a model takes seconds.
        new.columns.iter_mut().try_for_each(|column| self.embedding.models().complete(column))?;
        let _claim = self.changing.claim([new.name.clone()]);
        self.check_open()?;
        let schema = CollectionSchema::new(new, &self.schema_limits(), |name| self.has(name))?;
        check_indexes(&schema)?;
        self.take_place()?;
        let name = schema.name.clone();
        let made = self.make_collection(schema);
        let mut catalog = self.catalog.write();
        catalog.creating -= 1;
        let made = made?;
        catalog.open.insert(name, made.clone());
        Ok(made)
    }

    /// Counts a collection that is being created among those there are, or refuses it.
    fn take_place(&self) -> Result<()> {
        let mut catalog = self.catalog.write();
        let count = catalog.open.len() as u64 + catalog.creating;
        if count >= u64::from(self.config.limits.collections_max) {
            return Err(Error::LimitExceeded {
                what: "number of collections",
                value: count + 1,
                limit: u64::from(self.config.limits.collections_max),
                setting: "limits.collections_max",
            });
        }
        catalog.creating += 1;
        Ok(())
    }

    fn make_collection(&self, schema: CollectionSchema) -> Result<Arc<Collection>> {
        let folder = collection_folder(&self.data, &schema.uuid);
        let name = schema.name.clone();
        Collection::create(&self.disk, &folder, schema)?;
        let collection = self.open_collection(&folder).inspect_err(|_| {
            if let Err(error) = self.disk.remove_dir(&folder) {
                tracing::warn!(%error, "what a failed creation left is not removed");
            }
        })?;
        tracing::info!(collection = name, "collection created");
        Ok(collection)
    }

    fn schema_limits(&self) -> SchemaLimits {
        SchemaLimits {
            dimension_max: self.config.limits.dimension_max,
            columns_max: self.config.limits.columns_max,
        }
    }

    /// Changes what a collection is declared to hold. It is opened anew for that: meanwhile queries are
    /// answered as before and writes are refused with [`Error::Altering`]; open scrolls are closed.
    pub async fn alter_collection(
        self: &Arc<Self>,
        name: &str,
        change: Alteration,
    ) -> Result<Arc<Collection>> {
        let database = self.clone();
        let name = name.to_owned();
        blocking(move || database.alter_now(&name, change)).await
    }

    fn alter_now(&self, name: &str, change: Alteration) -> Result<Arc<Collection>> {
        let name = self.collection(name)?.schema().name.clone();
        let _claim = self.changing.claim([name.clone()]);
        // Whoever had the name before may have dropped or altered it.
        let old = self.collection_named(&name)?;
        let schema = old.schema().altered(change, &self.schema_limits())?;
        check_indexes(&schema)?;
        if schema == *old.schema() {
            return Ok(old);
        }
        old.redeclare(schema)?;
        let opened = self.open_collection(old.folder());
        let mut catalog = self.catalog.write();
        match &opened {
            Ok(altered) => {
                tracing::info!(collection = name, "collection altered");
                catalog.open.insert(name, altered.clone());
            }
            Err(error) => {
                tracing::error!(collection = name, %error, "altered collection not served");
                catalog.open.remove(&name);
                catalog.unserved.insert(name, error.to_string());
            }
        }
        opened
    }

    /// Removes a collection and all its data, and its aliases.
    pub async fn drop_collection(self: &Arc<Self>, name: &str) -> Result<()> {
        let database = self.clone();
        let name = name.to_owned();
        blocking(move || database.drop_now(&name)).await
    }

    fn drop_now(&self, name: &str) -> Result<()> {
        let _claim = self.changing.claim([name.to_owned()]);
        let collection = self.collection(name)?;
        if collection.schema().name != name {
            let detail = format!(
                "{name:?} is an alias of collection {:?}; name the collection to drop it",
                collection.schema().name
            );
            return Err(Error::InvalidArgument { detail });
        }
        let folder = collection.folder().to_path_buf();
        let dropped = folder.with_extension("dropped");
        collection.retire();
        self.disk.rename(&folder, &dropped).inspect_err(|_| collection.reinstate())?;
        if let Some(parent) = folder.parent() {
            self.disk.sync_dir(parent)?;
        }
        self.catalog.write().open.remove(name);
        if let Err(error) = self.drop_aliases_of(name) {
            tracing::warn!(%error, "aliases of a dropped collection not removed");
        }
        self.forward.drop_tree(&collection.schema().uuid);
        let forward = self.forward.clone();
        self.compute.spawn_seal(move || forward.renew_if_due());
        if let Err(error) = self.disk.remove_dir(&dropped) {
            tracing::warn!(%error, "dropped collection not removed; the next start removes it");
        }
        tracing::info!(collection = name, "collection dropped");
        Ok(())
    }

    /// An open collection, by its name or an alias.
    pub fn collection(&self, name: &str) -> Result<Arc<Collection>> {
        self.check_open()?;
        let catalog = self.catalog.read();
        let name = catalog.aliases.get(name).map_or(name, String::as_str);
        if let Some(collection) = catalog.open.get(name) {
            return Ok(collection.clone());
        }
        Err(match catalog.unserved.get(name) {
            Some(cause) => Error::Unserved { collection: name.to_owned(), cause: cause.clone() },
            None => Error::CollectionNotFound { name: name.to_owned() },
        })
    }

    /// An open collection, by its name alone.
    fn collection_named(&self, name: &str) -> Result<Arc<Collection>> {
        self.check_open()?;
        let found = self.catalog.read().open.get(name).cloned();
        found.ok_or_else(|| Error::CollectionNotFound { name: name.to_owned() })
    }

    /// True when a collection or an alias has that name; the collection need not be served.
    pub fn has(&self, name: &str) -> bool {
        let catalog = self.catalog.read();
        catalog.open.contains_key(name)
            || catalog.unserved.contains_key(name)
            || catalog.aliases.contains_key(name)
    }

    /// All open collections, by name.
    pub fn collections(&self) -> Vec<Arc<Collection>> {
        self.catalog.read().open.values().cloned().collect()
    }

    /// Collections that could not be opened, by name or folder, each with why.
    pub fn unserved(&self) -> Vec<(String, String)> {
        let catalog = self.catalog.read();
        catalog.unserved.iter().map(|(name, cause)| (name.clone(), cause.clone())).collect()
    }

    /// The number that writes to repository collections carry; new for every process.
    pub fn magic_number(&self) -> u64 {
        self.magic_number
    }

    fn check_open(&self) -> Result<()> {
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(Error::Stopping),
            false => Ok(()),
        }
    }

    /// Ends background work and makes everything durable. Everything asked afterwards is answered
    /// with [`Error::Stopping`].
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        *self.ticker.is_stopped.lock() = true;
        self.ticker.wake.notify_all();
        // All at once: each then has its work ended by the time that it is waited for.
        self.collections().iter().for_each(|collection| collection.stop());
        self.changing.wait_until_none();
        let collections = self.collections();
        collections.iter().for_each(|collection| collection.stop());
        collections.iter().for_each(|collection| collection.close());
        self.forward.flush();
    }
}

/// Runs file work off the threads that serve sockets. It runs to its end even if the caller goes.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|e| Err(Error::internal(format!("a task ended early: {e}"))))
}

fn check_version(disk: &dyn Directory, data: &Path) -> Result<()> {
    let path = data.join("VERSION");
    if !disk.exists(&path) {
        return replace_file(disk, &path, VERSION_LINE.as_bytes());
    }
    let found = disk.read(&path)?;
    if &found[..] == VERSION_LINE.as_bytes() {
        return Ok(());
    }
    let detail = format!("{:?} is not {VERSION_LINE:?}", String::from_utf8_lossy(&found));
    Err(Error::damaged(path, 0, detail))
}

/// Microseconds since the epoch at the start of the process: never 0, and never that of an earlier
/// process on a clock that goes forward.
fn new_magic_number() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::from_micros(1));
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1)
}
