//! Collections and their other names.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::State;
use axum::http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use tonic::Request;
use utoipa::ToSchema;

use super::object::{all_named, each_once, maybe_named};
use super::{Answer, Call, Line, Outcome, message};
use crate::server::http::Http;
use crate::server::proto::voisin_v1::voisin_server::Voisin;
use crate::server::proto::voisin_v1::{self as wire};

/// The element type of a vector.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Element {
    Fp32,
    Fp16,
    Int8,
    Int4,
    Int16,
    Binary32,
    Binary64,
}

/// How vectors are compared. Smaller scores are nearer for all of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub(super) enum Metric {
    /// Sum of squared differences; of bits, how many differ.
    SquaredEuclidean,
    /// Its square root.
    Euclidean,
    /// Minus the inner product; not for bits.
    InnerProduct,
    /// 1 - cos; not for bits.
    Cosine,
    /// Sum of absolute differences; not for bits.
    Manhattan,
    /// How many bits differ; for bits only.
    Hamming,
}

/// The type of a forward column's values.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ValueType {
    Bytes,
    String,
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float,
    Double,
}

/// Both ways between a name here and one of the contract.
macro_rules! names {
    ($own:ident, $wire:ident: $($name:ident = $wire_name:ident),* $(,)?) => {
        impl $own {
            /// The contract's number.
            pub(super) fn number(self) -> i32 {
                match self {
                    $($own::$name => wire::$wire::$wire_name.into(),)*
                }
            }

            pub(super) fn from_number(number: i32) -> Option<Self> {
                match wire::$wire::try_from(number) {
                    $(Ok(wire::$wire::$wire_name) => Some($own::$name),)*
                    // Nothing, or what vectors that are sent may be of, and no column is.
                    Ok(_) | Err(_) => None,
                }
            }
        }
    };
}

names!(Element, ElementType: Fp32 = Fp32, Fp16 = Fp16, Int8 = Int8, Int4 = Int4, Int16 = Int16,
    Binary32 = Binary32, Binary64 = Binary64);
names!(Metric, Metric: SquaredEuclidean = SquaredEuclidean, Euclidean = Euclidean,
    InnerProduct = InnerProduct, Cosine = Cosine, Manhattan = Manhattan, Hamming = Hamming);
names!(ValueType, ValueType: Bytes = Bytes, String = String, Bool = Bool, Int32 = Int32,
    Int64 = Int64, Uint32 = Uint32, Uint64 = Uint64, Float = Float, Double = Double);

/// An index column.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VectorColumn {
    /// The name.
    #[schema(example = "feature")]
    name: String,
    /// The element type; may be left out where the column names a model.
    #[serde(default)]
    element: Option<Element>,
    /// Elements of a vector (bits for the BINARY types); may be left out where the column names a model.
    #[serde(default)]
    #[schema(minimum = 1, example = 2)]
    dimension: u32,
    /// How vectors are compared; left out: SquaredEuclidean, or as the model's vectors are.
    #[serde(default)]
    metric: Option<Metric>,
    /// The index and how it is built and searched, such as `index_type` and `ef_search`, and `model`, which
    /// makes vectors of pictures; all values are text.
    #[serde(default, deserialize_with = "each_once")]
    params: BTreeMap<String, String>,
}

impl VectorColumn {
    fn wire(self) -> wire::VectorColumnInfo {
        wire::VectorColumnInfo {
            name: self.name,
            element: self.element.map_or(0, Element::number),
            dimension: self.dimension,
            metric: self.metric.map_or(0, Metric::number),
            params: self.params.into_iter().collect(),
        }
    }

    fn of(info: wire::VectorColumnInfo) -> Option<Self> {
        Some(VectorColumn {
            name: info.name,
            element: Some(Element::from_number(info.element)?),
            dimension: info.dimension,
            metric: Metric::from_number(info.metric),
            params: info.params.into_iter().collect(),
        })
    }
}

/// A forward column.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ForwardColumn {
    /// The name.
    #[schema(example = "path")]
    name: String,
    /// The type of its values; left out or `null`: each row may have its own.
    #[serde(default, rename = "type")]
    value_type: Option<ValueType>,
}

impl ForwardColumn {
    fn wire(self) -> wire::ForwardColumnInfo {
        let value_type = self.value_type.map_or(0, ValueType::number);
        wire::ForwardColumnInfo { name: self.name, r#type: value_type }
    }

    fn of(info: wire::ForwardColumnInfo) -> Self {
        ForwardColumn { name: info.name, value_type: ValueType::from_number(info.r#type) }
    }
}

/// When rows expire: they are not found any more from then on, and are deleted soon after.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ttl {
    /// A forward column with whole numbers, which are milliseconds since 1970; empty or left out for the
    /// time of each row's last write. Rows without a number there do not expire.
    #[serde(default)]
    column: String,
    /// Milliseconds after that time.
    #[schema(minimum = 1, example = 86_400_000)]
    milliseconds: u64,
}

impl Ttl {
    fn wire(self) -> wire::Ttl {
        wire::Ttl { column: self.column, milliseconds: self.milliseconds }
    }
}

/// A collection to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "vectors": [{ "name": "feature", "element": "FP32", "dimension": 2, "metric": "Cosine" }],
    "forwards": [{ "name": "path", "type": "string" }],
}))]
pub(super) struct NewCollection {
    /// The index columns, at least one.
    #[serde(deserialize_with = "all_named")]
    vectors: Vec<VectorColumn>,
    /// The forward columns.
    #[serde(default, deserialize_with = "all_named")]
    forwards: Vec<ForwardColumn>,
    /// Rows after which a segment is sealed; 0 lets the server decide.
    #[serde(default)]
    segment_rows_max: u64,
    /// When rows expire; left out: never.
    #[serde(default, deserialize_with = "maybe_named")]
    ttl: Option<Ttl>,
    /// Gives each row a version: a number that every write of it raises, in the forward column
    /// `_version`. Writes may name the version that they change.
    #[serde(default)]
    versions: bool,
}

/// A collection as it is declared.
#[derive(Serialize, ToSchema)]
pub(super) struct Collection {
    /// The name.
    name: String,
    /// 32 hexadecimal digits, new for every creation.
    uuid: String,
    /// The index columns in order.
    vectors: Vec<VectorColumn>,
    /// The forward columns in order, with those that the server fills.
    forwards: Vec<ForwardColumn>,
    /// Rows after which a segment is sealed; 0 where the server decides.
    segment_rows_max: u64,
    /// When rows expire.
    ttl: Option<Ttl>,
    /// Rows have versions.
    versions: bool,
    /// It follows a repository of Proxima BE.
    follows_repository: bool,
    /// Other names for it.
    aliases: Vec<String>,
}

impl From<wire::CollectionInfo> for Collection {
    fn from(info: wire::CollectionInfo) -> Self {
        Collection {
            name: info.name,
            uuid: info.uuid,
            vectors: info.vectors.into_iter().filter_map(VectorColumn::of).collect(),
            forwards: info.forwards.into_iter().map(ForwardColumn::of).collect(),
            segment_rows_max: info.segment_rows_max,
            ttl: info.ttl.map(|ttl| Ttl { column: ttl.column, milliseconds: ttl.milliseconds }),
            versions: info.versions,
            follows_repository: info.follows_repository,
            aliases: info.aliases,
        }
    }
}

/// All collections.
#[derive(Serialize, ToSchema)]
pub(super) struct Collections {
    /// By name.
    collections: Vec<Collection>,
    /// Those that could not be opened.
    unserved: Vec<Unserved>,
}

/// A collection that could not be opened.
#[derive(Serialize, ToSchema)]
struct Unserved {
    /// Its name, or its folder where that could not be read.
    name: String,
    /// Why.
    reason: String,
}

/// Changes of a collection, made all together or not at all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "add_forwards": [{ "name": "size", "type": "int64" }] }))]
pub(super) struct CollectionChange {
    /// Forward columns to add; the rows that there are have no values in them.
    #[serde(default, deserialize_with = "all_named")]
    add_forwards: Vec<ForwardColumn>,
    /// For index columns by name: `ef_search`, `nprobe`, `recall_target` or `refine_k`, which hold for
    /// queries that say nothing. Empty text takes a parameter back.
    #[serde(default, deserialize_with = "each_once")]
    params: BTreeMap<String, BTreeMap<String, String>>,
    /// When rows expire from now on; `false`: not any more.
    #[serde(default)]
    ttl: Option<TtlChange>,
}

/// When rows expire, or that they do not.
#[derive(ToSchema)]
#[serde(untagged)]
enum TtlChange {
    /// `false`.
    Never(bool),
    After(Ttl),
}

impl<'de> Deserialize<'de> for TtlChange {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = TtlChange;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("false or an object such as {\"milliseconds\": 60000}")
            }

            fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<TtlChange, E> {
                match truth {
                    false => Ok(TtlChange::Never(false)),
                    true => Err(E::invalid_value(Unexpected::Bool(true), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<TtlChange, A::Error> {
                Ttl::deserialize(MapAccessDeserializer::new(object)).map(TtlChange::After)
            }
        }
        json.deserialize_any(Form)
    }
}

/// What aliases are to stand for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "changes": [{ "alias": "newest", "collection": "photos" }] }))]
pub(super) struct AliasChanges {
    /// Made in this order and seen all together or not at all.
    #[serde(deserialize_with = "all_named")]
    changes: Vec<AliasChange>,
}

/// What an alias is to stand for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AliasChange {
    /// The alias. It must not be a collection's name.
    alias: String,
    /// The collection; `null` removes the alias.
    #[schema(min_length = 1)]
    collection: Option<String>,
}

/// All aliases.
#[derive(Serialize, ToSchema)]
pub(super) struct Aliases {
    /// From alias to collection.
    aliases: BTreeMap<String, String>,
}

/// Lists collections
///
/// All collections, by name, and those that could not be opened.
#[utoipa::path(
    get, path = "/api/v1/collections", operation_id = "listCollections", tag = "collections",
    responses((status = 200, description = "All collections.", body = Collections))
)]
pub(super) async fn list(State(http): State<Http>, line: Line) -> Outcome<Answer<Collections>> {
    line.takes(&[])?;
    let request = Request::new(wire::ListCollectionsRequest {});
    let reply = message(http.native.list_collections(request).await)?;
    let unserved = reply.unserved.into_iter();
    Ok(Answer::short(Collections {
        collections: reply.collections.into_iter().map(Collection::from).collect(),
        unserved: unserved.map(|one| Unserved { name: one.name, reason: one.reason }).collect(),
    }))
}

/// Creates a collection
///
/// It serves at once, or nothing of it is left.
#[utoipa::path(
    put, path = "/api/v1/collections/{name}", operation_id = "createCollection", tag = "collections",
    params(("name" = String, Path, description = "1 to 255 bytes, no path separators or control characters.")),
    request_body = NewCollection,
    responses((status = 201, description = "The collection as it is declared.", body = Collection))
)]
pub(super) async fn create(State(http): State<Http>, call: Call) -> Outcome<Answer<Collection>> {
    call.line.takes(&[])?;
    let new: NewCollection = call.read()?;
    let request = wire::CreateCollectionRequest {
        name: call.line.name().to_owned(),
        vectors: new.vectors.into_iter().map(VectorColumn::wire).collect(),
        forwards: new.forwards.into_iter().map(ForwardColumn::wire).collect(),
        segment_rows_max: new.segment_rows_max,
        ttl: new.ttl.map(Ttl::wire),
        versions: new.versions,
    };
    let info = message(http.native.create_collection(Request::new(request)).await)?;
    Ok(Answer { status: StatusCode::CREATED, ..Answer::short(info.into()) })
}

/// Describes a collection
#[utoipa::path(
    get, path = "/api/v1/collections/{name}", operation_id = "describeCollection", tag = "collections",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    responses((status = 200, description = "The collection as it is declared.", body = Collection))
)]
pub(super) async fn describe(State(http): State<Http>, line: Line) -> Outcome<Answer<Collection>> {
    line.takes(&[])?;
    let request = wire::DescribeCollectionRequest { name: line.name().to_owned() };
    let info = message(http.native.describe_collection(Request::new(request)).await)?;
    Ok(Answer::short(info.into()))
}

/// Alters a collection
///
/// The collection is opened anew for that: meanwhile queries are answered as before, and writes are
/// refused with 503. Open scrolls are closed.
#[utoipa::path(
    patch, path = "/api/v1/collections/{name}", operation_id = "alterCollection", tag = "collections",
    params(("name" = String, Path, description = "The collection, or an alias.")),
    request_body = CollectionChange,
    responses((status = 200, description = "The collection as it is declared now.", body = Collection))
)]
pub(super) async fn alter(State(http): State<Http>, call: Call) -> Outcome<Answer<Collection>> {
    use wire::alter_collection_request::Expiry;
    call.line.takes(&[])?;
    let change: CollectionChange = call.read()?;
    let params = change
        .params
        .into_iter()
        .map(|(column, params)| wire::ParamChange { column, params: params.into_iter().collect() });
    let expiry = match change.ttl {
        None => None,
        Some(TtlChange::After(ttl)) => Some(Expiry::Ttl(ttl.wire())),
        Some(TtlChange::Never(keeps)) => Some(Expiry::NoTtl(!keeps)),
    };
    let request = wire::AlterCollectionRequest {
        name: call.line.name().to_owned(),
        add_forwards: change.add_forwards.into_iter().map(ForwardColumn::wire).collect(),
        params: params.collect(),
        expiry,
    };
    let info = message(http.native.alter_collection(Request::new(request)).await)?;
    Ok(Answer::short(info.into()))
}

/// Drops a collection
///
/// Removes it with all its data and aliases. An alias is not taken here.
#[utoipa::path(
    delete, path = "/api/v1/collections/{name}", operation_id = "dropCollection", tag = "collections",
    params(("name" = String, Path, description = "The collection; not an alias.")),
    responses((status = 204, description = "The collection is gone."))
)]
pub(super) async fn remove(State(http): State<Http>, line: Line) -> Outcome<StatusCode> {
    line.takes(&[])?;
    let request = wire::DropCollectionRequest { name: line.name().to_owned() };
    message(http.native.drop_collection(Request::new(request)).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists aliases
#[utoipa::path(
    get, path = "/api/v1/aliases", operation_id = "listAliases", tag = "collections",
    responses((status = 200, description = "All aliases.", body = Aliases))
)]
pub(super) async fn aliases(State(http): State<Http>, line: Line) -> Outcome<Answer<Aliases>> {
    line.takes(&[])?;
    change(&http, Vec::new()).await
}

/// Changes aliases
///
/// Sets and removes other names of collections, all together: a reader sees all changes or none.
#[utoipa::path(
    post, path = "/api/v1/aliases", operation_id = "changeAliases", tag = "collections",
    request_body = AliasChanges,
    responses((status = 200, description = "All aliases as they are now.", body = Aliases))
)]
pub(super) async fn change_aliases(
    State(http): State<Http>,
    call: Call,
) -> Outcome<Answer<Aliases>> {
    call.line.takes(&[])?;
    let AliasChanges { changes } = call.read()?;
    let changes = changes.into_iter().map(|change| match change.collection.as_deref() {
        Some("") => Err(super::Refused::invalid("collection is empty; null removes the alias")),
        collection => Ok(wire::AliasChange {
            collection: collection.unwrap_or_default().to_owned(),
            alias: change.alias,
        }),
    });
    change(&http, changes.collect::<Outcome<_>>()?).await
}

async fn change(http: &Http, changes: Vec<wire::AliasChange>) -> Outcome<Answer<Aliases>> {
    let request = Request::new(wire::ChangeAliasesRequest { changes });
    let reply = message(http.native.change_aliases(request).await)?;
    Ok(Answer::short(Aliases { aliases: reply.aliases.into_iter().collect() }))
}
