//! The one domain error, grouped by who can act on it: the caller, a retry, the operator, or us.
//!
//! Variants carry facts (name, value, limit, setting, path, offset), never finished sentences for one wire.
//! `server::status` holds the only table from here to wire codes, with no wildcard arm.

use std::path::PathBuf;

/// The result of every fallible domain operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong below the server edge.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    // ----- The caller can act: collections -----
    /// A collection was named "".
    #[error("the collection name is empty")]
    EmptyCollectionName,
    /// An index column was named "".
    #[error("index column {position} has an empty name")]
    EmptyColumnName {
        /// Position in the request, from 0.
        position: usize,
    },
    /// A collection was declared without index columns.
    #[error("a collection needs at least one index column")]
    EmptyColumns,
    /// A collection, column or forward name that cannot be kept safely.
    #[error("{what} name {name:?} is refused: {reason}")]
    InvalidName {
        /// "collection", "index column" or "forward column".
        what: &'static str,
        /// The name as given, shortened for display.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A collection of that name exists already.
    #[error("collection {name:?} exists already")]
    DuplicateCollection {
        /// The name.
        name: String,
    },
    /// No collection of that name.
    #[error("collection {name:?} does not exist")]
    CollectionNotFound {
        /// The name.
        name: String,
    },
    /// No column of that name in the collection.
    #[error("column {column:?} does not exist in collection {collection:?}")]
    ColumnNotFound {
        /// The collection.
        collection: String,
        /// The column as asked for.
        column: String,
    },
    /// No alias of that name.
    #[error("alias {alias:?} does not exist")]
    AliasNotFound {
        /// The alias.
        alias: String,
    },
    /// The data type of a new column is undefined or unknown.
    #[error("index column {column:?} has data type {data_type}, which is not a known type")]
    InvalidDataType {
        /// The column.
        column: String,
        /// The wire number.
        data_type: i32,
    },
    /// The index type of a new column is undefined or unknown.
    #[error("index column {column:?} has index type {index_type}; use 1 (IT_PROXIMA_GRAPH_INDEX)")]
    UndefinedIndexType {
        /// The column.
        column: String,
        /// The wire number.
        index_type: i32,
    },
    /// A new column that can hold no vector, or whose parameters contradict each other.
    #[error("index column {column:?} cannot be created: {detail}")]
    InvalidColumn {
        /// The column.
        column: String,
        /// What was wrong, the value and what is allowed.
        detail: String,
    },
    /// `metric_type` is none of the known names.
    #[error(
        "index column {column:?} has metric_type {metric:?}; known: SquaredEuclidean, Euclidean, InnerProduct, Cosine, Manhattan, Hamming"
    )]
    UnknownMetric {
        /// The column.
        column: String,
        /// The name as given.
        metric: String,
    },
    /// A repository configuration that cannot be used.
    #[error("the repository configuration is refused: {0}")]
    InvalidRepository(RepositoryFault),

    // ----- The caller can act: models and pictures -----
    /// No model of that name.
    #[error("model {model:?} does not exist; there are: {known}")]
    ModelNotFound {
        /// The name.
        model: String,
        /// The models that there are.
        known: String,
    },
    /// A model that cannot be used, or nothing that could run it.
    #[error("model {model:?} cannot be used: {detail}")]
    ModelUnusable {
        /// The name.
        model: String,
        /// Why.
        detail: String,
    },
    /// A picture that cannot be read.
    #[error("picture {image} cannot be read: {detail}")]
    UnreadableImage {
        /// Position of the picture in the request, from 0.
        image: usize,
        /// Why.
        detail: String,
    },

    // ----- The caller can act: writes -----
    /// A write request whose shape does not fit the schema.
    #[error("invalid write request: {detail}")]
    InvalidWrite {
        /// What was wrong.
        detail: String,
    },
    /// A row of a repository collection without an LSN.
    #[error("row {row} has no lsn_context, which a repository collection needs")]
    EmptyLsnContext {
        /// Position of the row in the request, from 0.
        row: usize,
    },
    /// An index value that is neither bytes nor text.
    #[error("row {row}: the value for index column {column:?} is neither bytes nor a string")]
    MismatchedIndexColumn {
        /// Position of the row.
        row: usize,
        /// The column.
        column: String,
    },
    /// The declared element type is not the column's.
    #[error("index column {column:?} holds {expected}, the request says {got}")]
    MismatchedDataType {
        /// The column.
        column: String,
        /// The column's type.
        expected: String,
        /// The request's type.
        got: String,
    },
    /// A vector whose length does not fit the column.
    #[error("row {row}: the vector for index column {column:?} does not fit: {detail}")]
    MismatchedDimension {
        /// Position of the row.
        row: usize,
        /// The column.
        column: String,
        /// Expected and found length.
        detail: String,
    },
    /// A vector with NaN or an infinity.
    #[error(
        "row {row}: the vector for index column {column:?} holds {value} at element {element}; only finite numbers can be searched"
    )]
    NotFinite {
        /// Position of the row.
        row: usize,
        /// The column.
        column: String,
        /// Position in the vector.
        element: usize,
        /// The value.
        value: f32,
    },
    /// The magic number of a repository write is not this server process's.
    #[error(
        "the request's magic number {got} is not this server's {expected}; describe the collection again"
    )]
    MagicNumberMismatch {
        /// The request's number.
        got: u64,
        /// The server's number.
        expected: u64,
    },

    // ----- The caller can act: queries and all calls -----
    /// A row to query by that does not exist.
    #[error("key {key} does not exist in collection {collection:?}")]
    RowNotFound {
        /// The collection.
        collection: String,
        /// The key.
        key: u64,
    },
    /// A query that cannot be answered as asked.
    #[error("invalid query: {detail}")]
    InvalidQuery {
        /// What was wrong.
        detail: String,
    },
    /// A filter that is no expression over the collection's columns.
    #[error("invalid filter: {detail}{}", at_place(*position, excerpt))]
    InvalidFilter {
        /// What was wrong, and what was expected.
        detail: String,
        /// Which character of the text it is about, from 1; `None` where it is about no place in it.
        position: Option<usize>,
        /// What is around that character, with a mark below it.
        excerpt: String,
    },
    /// An argument that is refused for another reason.
    #[error("invalid argument: {detail}")]
    InvalidArgument {
        /// What was wrong.
        detail: String,
    },
    /// A number from the caller is beyond a configured limit.
    #[error("{what} is {value}, above the limit of {limit} (setting {setting})")]
    LimitExceeded {
        /// What was counted.
        what: &'static str,
        /// The caller's number.
        value: u64,
        /// The limit in force.
        limit: u64,
        /// The configuration key.
        setting: &'static str,
    },

    /// A scroll that expired, or that another run of the server began.
    #[error(
        "the scroll of this cursor is closed: nobody read by it for long (setting limits.reader_idle_ms), or the server was restarted; begin it anew"
    )]
    ScrollGone,

    /// Nobody waits for the answer any more, so that nobody sees this either.
    #[error("the caller's deadline has passed, or the caller hung up")]
    Cancelled,

    // ----- A retry can help -----
    /// What a caller asks for would take more memory than the process may have.
    #[error(
        "{what} would take {bytes} bytes beyond the {used} in use, more than the limit of {limit} (setting {setting}); delete rows, drop collections or raise the limit"
    )]
    OutOfMemory {
        /// What would grow.
        what: &'static str,
        /// By how much, roughly.
        bytes: u64,
        /// Memory in use.
        used: u64,
        /// The limit.
        limit: u64,
        /// The configuration key.
        setting: &'static str,
    },
    /// A bounded queue is full.
    #[error("busy: {what} is full at {limit} (setting {setting}); try again")]
    Busy {
        /// The queue.
        what: &'static str,
        /// Its bound.
        limit: u64,
        /// The configuration key.
        setting: &'static str,
    },
    /// The collection takes no writes while it is altered.
    #[error("collection {collection:?} is being altered; try again")]
    Altering {
        /// The collection.
        collection: String,
    },
    /// The server is shutting down.
    #[error("the server is stopping")]
    Stopping,

    // ----- The operator can act -----
    /// The operating system refused a file operation.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io {
        /// "open", "write", "sync", "rename", ...
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A file holds something it must not.
    #[error("{} is damaged at byte {offset}: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What was expected and found.
        detail: String,
    },
    /// An earlier write or sync of this collection's log failed; it is read-only until a restart.
    #[error("collection {collection:?} takes no writes since its log failed: {cause}")]
    Poisoned {
        /// The collection.
        collection: String,
        /// The first failure.
        cause: String,
    },
    /// A collection that recovery could not open.
    #[error("collection {collection:?} is not served: {cause}")]
    Unserved {
        /// The collection, or its folder when the name could not be read.
        collection: String,
        /// Why.
        cause: String,
    },
    /// Another process holds the data folder.
    #[error("{} is in use by another voisin process (its lock file is held); stop that one or choose another --data", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },

    // ----- Us -----
    /// A broken assumption of our own, reported instead of a panic.
    #[error("internal error: {detail}")]
    Internal {
        /// What did not hold.
        detail: String,
    },
}

fn at_place(position: Option<usize>, excerpt: &str) -> String {
    position.map_or_else(String::new, |position| format!(" at character {position}\n{excerpt}"))
}

/// What was wrong with a repository configuration, in the order it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryFault {
    /// `repository_type` is unknown.
    #[error("repository_type is not RT_DATABASE (0)")]
    UnknownType,
    /// `repository_name` is empty.
    #[error("repository_name is empty")]
    EmptyName,
    /// `connection_uri` has no scheme.
    #[error("connection_uri has no scheme such as mysql://")]
    InvalidUri,
    /// `user` is empty.
    #[error("user is empty")]
    EmptyUser,
    /// `password` is empty.
    #[error("password is empty")]
    EmptyPassword,
    /// `table_name` is empty.
    #[error("table_name is empty")]
    EmptyTable,
}

/// Why one row of an accepted request was not applied; the other rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// INSERT of a key that exists; the old row is kept.
    #[error("the key exists already")]
    DuplicateKey,
    /// UPDATE or DELETE of a key that does not exist.
    #[error("the key does not exist")]
    KeyNotFound,
    /// Repository UPDATE whose LSN is not above the stored row's.
    #[error("the stored row has the same or a newer lsn")]
    StaleLsn,
    /// The stored row has another version than the one named.
    #[error("the stored row has version {found}")]
    OtherVersion {
        /// Its version; 0 for a row written before the collection had versions.
        found: u64,
    },
    /// The stored row is not one of those meant.
    #[error("the stored row does not meet the condition")]
    ConditionFailed,
}

impl Error {
    /// Wraps an operating-system error with the operation and the path it concerned.
    pub fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        cause: &dyn std::fmt::Display,
    ) -> Self {
        Error::Io { operation, path: path.into(), cause: cause.to_string() }
    }

    /// Reports damage in a file, with where and what.
    pub fn damaged(path: impl Into<PathBuf>, offset: u64, detail: impl Into<String>) -> Self {
        Error::Damaged { path: path.into(), offset, detail: detail.into() }
    }

    /// A query refused for the stated reason.
    pub fn query(detail: impl Into<String>) -> Self {
        Error::InvalidQuery { detail: detail.into() }
    }

    /// A broken assumption of our own.
    pub fn internal(detail: impl Into<String>) -> Self {
        Error::Internal { detail: detail.into() }
    }
}
