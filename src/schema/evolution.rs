//! What of a collection may change after its creation, and the forward columns that the server fills.

use serde::{Deserialize, Serialize};

use super::collection::{CollectionSchema, SchemaLimits, shorten};
use super::index_kind::Params;
use super::types::ValueKind;
use crate::error::{Error, Result};

/// The forward column that has each row's version: the sequence number of the write that made it. A
/// later version is a higher number, and none comes twice in a collection.
pub const VERSION_COLUMN: &str = "_version";
/// The forward column that has the time of each row's last write, in milliseconds since 1970.
pub const WRITE_TIME_COLUMN: &str = "_written_at";

/// The column parameters that may be changed: how a query is searched that says nothing itself.
const CHANGEABLE_PARAMS: [&str; 4] = ["ef_search", "nprobe", "recall_target", "refine_k"];

/// When rows expire: a while after the time in one of their forward columns. Rows without a whole number
/// there do not expire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// The forward column, with milliseconds since 1970.
    pub column: String,
    /// Milliseconds after that time.
    pub milliseconds: u64,
}

/// When rows are to expire, as a caller says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTtl {
    /// The forward column; "" for the time of each row's last write.
    pub column: String,
    /// Milliseconds after that time, at least 1.
    pub milliseconds: u64,
}

/// A forward column as a caller declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewForwardColumn {
    /// The name.
    pub name: String,
    /// The kind of its values; `None` leaves it to each row.
    pub kind: Option<ValueKind>,
}

impl From<String> for NewForwardColumn {
    fn from(name: String) -> Self {
        NewForwardColumn { name, kind: None }
    }
}

impl From<&str> for NewForwardColumn {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

/// A change of a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alteration {
    /// Forward columns to add; rows that there are have no values in them.
    pub add_forwards: Vec<NewForwardColumn>,
    /// When rows expire from now on; `Some(None)` for never.
    pub ttl: Option<Option<NewTtl>>,
    /// Parameters of index columns to set: column, name, value.
    pub params: Vec<(String, String, String)>,
}

impl CollectionSchema {
    /// Position of the forward column of that name.
    pub fn forward_position(&self, name: &str) -> Option<usize> {
        self.forward_columns.iter().position(|known| known == name)
    }

    /// Where rows have their version, in collections with versions.
    pub fn version_position(&self) -> Option<usize> {
        self.versions.then(|| self.forward_position(VERSION_COLUMN)).flatten()
    }

    /// Where rows have the time of their last write, in collections that keep it.
    pub fn write_time_position(&self) -> Option<usize> {
        self.write_times.then(|| self.forward_position(WRITE_TIME_COLUMN)).flatten()
    }

    /// True for a forward column that no caller may write.
    pub fn is_filled_by_server(&self, name: &str) -> bool {
        (self.versions && name == VERSION_COLUMN) || (self.write_times && name == WRITE_TIME_COLUMN)
    }

    /// The schema after a change, which it has to pass the same checks for as a new one.
    pub fn altered(&self, change: Alteration, limits: &SchemaLimits) -> Result<CollectionSchema> {
        let mut schema = self.clone();
        for column in change.add_forwards {
            schema.add_forward(column);
        }
        match change.ttl {
            None => {}
            Some(None) => schema.ttl = None,
            Some(Some(ttl)) => schema.set_ttl(ttl)?,
        }
        for (column, name, value) in change.params {
            schema.set_param(&column, name, value)?;
        }
        schema.check_names(limits)?;
        Ok(schema)
    }

    fn add_forward(&mut self, column: NewForwardColumn) {
        if let Some(kind) = column.kind {
            self.forward_kinds.insert(column.name.clone(), kind);
        }
        self.forward_columns.push(column.name);
    }

    /// Gives each row a version.
    pub(super) fn add_versions(&mut self) {
        self.versions = true;
        self.add_forward(filled(VERSION_COLUMN, ValueKind::UInt64));
    }

    /// Lets rows expire. Keeps the times of writes from now on where these decide.
    pub(super) fn set_ttl(&mut self, ttl: NewTtl) -> Result<()> {
        let invalid = |detail: String| Err(Error::InvalidArgument { detail });
        if ttl.milliseconds == 0 || i64::try_from(ttl.milliseconds).is_err() {
            let most = i64::MAX;
            return invalid(format!(
                "rows cannot expire after {} milliseconds; 1 to {most} are taken",
                ttl.milliseconds
            ));
        }
        let column = match ttl.column.as_str() {
            "" => {
                if !self.write_times {
                    self.write_times = true;
                    self.add_forward(filled(WRITE_TIME_COLUMN, ValueKind::Int64));
                }
                WRITE_TIME_COLUMN.to_owned()
            }
            name if self.forward_position(name).is_none() => {
                return Err(Error::ColumnNotFound {
                    collection: self.name.clone(),
                    column: shorten(name),
                });
            }
            name => match self.forward_kinds.get(name) {
                Some(kind) if !kind.is_integer() => {
                    return invalid(format!(
                        "rows cannot expire by forward column {name:?}: it is {}, and times are whole numbers",
                        kind.name()
                    ));
                }
                _ => name.to_owned(),
            },
        };
        self.ttl = Some(Ttl { column, milliseconds: ttl.milliseconds });
        Ok(())
    }

    fn set_param(&mut self, column: &str, name: String, value: String) -> Result<()> {
        let position = self.column_position(column).ok_or_else(|| Error::ColumnNotFound {
            collection: self.name.clone(),
            column: shorten(column),
        })?;
        let column = &mut self.columns[position];
        let invalid = |detail| Error::InvalidColumn { column: column.name.clone(), detail };
        if !CHANGEABLE_PARAMS.contains(&name.as_str()) {
            let known = CHANGEABLE_PARAMS.join(", ");
            let name = shorten(&name);
            return Err(invalid(format!("parameter {name:?} cannot be changed; {known} can")));
        }
        let mut params = column.extra_params.clone();
        params.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            params.push((name, value));
        }
        let (element, metric) = (column.element, column.metric);
        let index = Params(&params).index_kind(element, metric, column.dimension);
        column.index = index.map_err(invalid)?;
        column.extra_params = params;
        Ok(())
    }
}

impl ValueKind {
    /// True for the four kinds of integers.
    pub fn is_integer(self) -> bool {
        matches!(self, ValueKind::Int32 | ValueKind::Int64 | ValueKind::UInt32 | ValueKind::UInt64)
    }
}

fn filled(name: &str, kind: ValueKind) -> NewForwardColumn {
    NewForwardColumn { name: name.to_owned(), kind: Some(kind) }
}
