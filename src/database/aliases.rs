//! Other names of collections, which callers use where they would name one: what stands behind such a
//! name is swapped at once, also of several together.
//!
//! `ALIASES` in the data folder is a [checked line](crate::storage::checked_line) of JSON: `format`
//! and `aliases`, from name to collection. It is written whole under another name first.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Database;
use crate::error::{Error, Result};
use crate::schema::check_name;
use crate::storage::{Directory, checked_line, replace_file, with_checksum};

const FILE: &str = "ALIASES";
const FORMAT: u32 = 1;

/// From alias to collection.
pub type Aliases = BTreeMap<String, String>;

/// A change of one alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasChange {
    /// The alias.
    pub alias: String,
    /// The collection it stands for from now on; `None` removes it.
    pub collection: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    aliases: Aliases,
}

/// The aliases of a data folder; none where there is no file.
pub(super) fn read(disk: &dyn Directory, data: &Path) -> Result<Aliases> {
    let path = data.join(FILE);
    if !disk.exists(&path) {
        return Ok(Aliases::new());
    }
    let bytes = disk.read(&path)?;
    let damaged = |detail: String| Error::damaged(&path, 0, detail);
    let line = checked_line(&bytes).map_err(damaged)?;
    let content: Content = serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
    match content.format == FORMAT {
        true => Ok(content.aliases),
        false => {
            Err(damaged(format!("format {} is not {FORMAT}, the one known here", content.format)))
        }
    }
}

fn write(disk: &dyn Directory, data: &Path, aliases: &Aliases) -> Result<()> {
    let content = Content { format: FORMAT, aliases: aliases.clone() };
    let json = serde_json::to_string(&content)
        .map_err(|e| Error::internal(format!("the aliases cannot be written as JSON: {e}")))?;
    replace_file(disk, &data.join(FILE), with_checksum(&json).as_bytes())
}

impl Database {
    /// Every alias with its collection.
    pub fn aliases(&self) -> Aliases {
        self.catalog.read().aliases.clone()
    }

    /// Changes aliases: all of these at once, or, where one is refused, none. Durable when this returns.
    pub async fn change_aliases(
        self: &std::sync::Arc<Self>,
        changes: Vec<AliasChange>,
    ) -> Result<Aliases> {
        let database = self.clone();
        super::blocking(move || database.change_aliases_now(changes)).await
    }

    fn change_aliases_now(&self, changes: Vec<AliasChange>) -> Result<Aliases> {
        // No collection of one of these names comes or goes meanwhile.
        let _claim = self.changing.claim(changes.iter().map(|change| change.alias.clone()));
        let _naming = self.naming.lock();
        self.check_open()?;
        let mut aliases = self.aliases();
        for AliasChange { alias, collection } in changes {
            match collection {
                None => {
                    aliases.remove(&alias).ok_or(Error::AliasNotFound { alias })?;
                }
                Some(collection) => {
                    check_name("alias", &alias)?;
                    let catalog = self.catalog.read();
                    if catalog.open.contains_key(&alias) || catalog.unserved.contains_key(&alias) {
                        return Err(Error::DuplicateCollection { name: alias });
                    }
                    if !catalog.open.contains_key(&collection) {
                        return Err(Error::CollectionNotFound { name: collection });
                    }
                    aliases.insert(alias, collection);
                }
            }
        }
        let (count, limit) = (aliases.len() as u64, u64::from(self.config.limits.collections_max));
        if count > limit {
            return Err(Error::LimitExceeded {
                what: "number of aliases",
                value: count,
                limit,
                setting: "limits.collections_max",
            });
        }
        self.store_aliases(aliases.clone())?;
        Ok(aliases)
    }

    /// Forgets the aliases of a collection that is gone.
    pub(super) fn drop_aliases_of(&self, collection: &str) -> Result<()> {
        let _naming = self.naming.lock();
        let mut aliases = self.aliases();
        aliases.retain(|_, target| target != collection);
        match aliases.len() == self.aliases().len() {
            true => Ok(()),
            false => self.store_aliases(aliases),
        }
    }

    fn store_aliases(&self, aliases: Aliases) -> Result<()> {
        write(&*self.disk, &self.data, &aliases)?;
        self.catalog.write().aliases = aliases;
        Ok(())
    }
}
