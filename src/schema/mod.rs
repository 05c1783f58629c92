//! Collection schemas, and the checks that turn what a caller sent into rows and queries that can
//! always be applied. Nothing here knows of protobuf, files or threads.

mod aggregation;
mod check;
mod collection;
mod datum;
mod effort;
pub mod encoding;
mod evolution;
mod examples;
mod factory;
mod filter;
mod floats;
mod index_kind;
mod multi;
mod options;
mod query;
mod score;
mod search;
mod types;
mod vector_text;

pub use aggregation::{Aggregation, AggregationKind};
pub use check::{RawRow, RawVector, RawVectorMeta, RawWrite};
pub use collection::{
    CollectionSchema, DeclaredType, NewCollection, NewColumn, NewRepository, Repository,
    SchemaLimits, VectorColumn, check_name,
};
pub use datum::{Datum, Number};
pub use effort::{
    Effort, Likeness, RECALL_TARGET, REFINE_K, Reach, RecallCurve, RecallPoint, Trial, promise,
};
pub use evolution::{Alteration, NewForwardColumn, NewTtl, Ttl, VERSION_COLUMN, WRITE_TIME_COLUMN};
pub use examples::{ExampleSums, Examples, encode_numbers};
pub use filter::{FilterParam, RawFilter};
pub use floats::decode_floats;
pub use index_kind::{EffortParam, IndexKind, ListRows, Recipe};
pub use multi::MultiVectors;
pub use options::{Group, GroupBy, PlanOptions, QueryOptions};
pub use query::{ForwardChoice, KnnPlan, KnnRequest, QueryVector, RawQueryVectors};
pub use score::ScoreShape;
pub use search::SearchParams;
pub use types::{
    Change, Condition, Document, ElementType, ForwardRow, LsnContext, Metric, Operation, Row,
    RowTest, Value, ValueKind,
};
pub use vector_text::pack_text;
