//! What the columns of a file are taken for: the key, vectors, forward columns, under which names; and the
//! collection that is declared for them where there is none.

use std::collections::BTreeMap;

use arrow_schema::{DataType, Field, Schema};

use super::{DECLARATION, KEY, NAME, ROLE, listed};
use crate::files::{self, Form};
use crate::schema::{ElementType, Metric, VERSION_COLUMN, WRITE_TIME_COLUMN};
use crate::server::client::{Declaration, ForwardInfo, VectorInfo};

/// Columns that are taken for keys where none is named, if they hold whole numbers.
const KEYS: [&str; 3] = [KEY, "key", "id"];

/// The parameter of columns whose rows may have several vectors.
const MULTI: &str = "multi";

/// A column of a file and its name in the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// In the file.
    pub column: String,
    /// In the collection.
    pub name: String,
}

/// Reads `COLUMN` or `COLUMN=NAME`.
pub(super) fn parse_named(text: &str) -> std::result::Result<Named, String> {
    let (column, name) = text.split_once('=').unwrap_or((text, text));
    if name.is_empty() || column.is_empty() && !text.is_empty() {
        return Err("it must look like COLUMN or COLUMN=NAME".into());
    }
    Ok(Named { column: column.to_owned(), name: name.to_owned() })
}

/// What flags say of columns.
#[derive(Debug, Clone, Default)]
pub(super) struct ColumnFlags {
    pub key: Option<String>,
    pub first_key: Option<u64>,
    /// Empty where nothing was said.
    pub vectors: Vec<Named>,
    /// The forward columns.
    pub forwards: Option<Vec<Named>>,
}

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A column of the file, by its place in the schema.
    Column(usize),
    /// The number of the row through all files, and this.
    Rows(u64),
}

/// A column by its place in the file's schema, with its name in the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub at: usize,
    pub name: String,
}

/// What the columns of a file are taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub key: Key,
    pub vectors: Vec<Taken>,
    pub forwards: Vec<Taken>,
}

type Words<T> = std::result::Result<T, String>;

fn role<'a>(field: &'a Field, role: &str) -> Option<&'a str> {
    let is_it = field.metadata().get(ROLE).is_some_and(|of_field| of_field == role);
    is_it.then(|| name_of(field))
}

fn name_of(field: &Field) -> &str {
    field.metadata().get(NAME).unwrap_or(field.name())
}

fn find(schema: &Schema, name: &str) -> Words<usize> {
    let place = schema.fields().iter().position(|field| field.name() == name);
    place.ok_or_else(|| {
        let there = schema.fields().iter().map(|field| field.name().as_str());
        format!("no column {name:?}; it has {}", listed(there))
    })
}

/// What a file says that the collection it came from was declared to hold.
pub(super) fn embedded(schema: &Schema) -> Words<Option<Declaration>> {
    let Some(text) = schema.metadata().get(DECLARATION) else { return Ok(None) };
    let declaration = serde_json::from_str(text);
    declaration.map(Some).map_err(|cause| format!("its metadata {DECLARATION}: {cause}"))
}

/// True for what `voisin export` wrote. JSON lines have no place for a declaration: the name of their keys
/// tells.
pub(super) fn is_export(schema: &Schema) -> bool {
    schema.metadata().contains_key(DECLARATION) || schema.field_with_name(KEY).is_ok()
}

impl Columns {
    /// `known` is the collection that is there, or that the file says it came from.
    pub fn choose(
        schema: &Schema,
        flags: &ColumnFlags,
        known: Option<&Declaration>,
    ) -> Words<Columns> {
        let key = choose_key(schema, flags)?;
        let vectors = choose_vectors(schema, flags, known)?;
        let is_free =
            |at: &usize| key != Key::Column(*at) && vectors.iter().all(|vector| vector.at != *at);
        let forwards = match &flags.forwards {
            Some(named) => named
                .iter()
                .map(|named| {
                    Ok(Taken { at: find(schema, &named.column)?, name: named.name.clone() })
                })
                .collect::<Words<Vec<Taken>>>()?,
            None => (0..schema.fields().len())
                .filter(is_free)
                .map(|at| Taken { at, name: name_of(schema.field(at)).to_owned() })
                .filter(|taken| !is_filled_by_server(&taken.name, known))
                .collect(),
        };
        for taken in &forwards {
            let field = schema.field(taken.at);
            let why = match files::unreadable(field) {
                Some(why) => Err(why.to_owned()),
                None => files::check_values(field.data_type()),
            };
            why.map_err(|why| {
                format!(
                    "column {:?} is {why}; --columns says which columns to take, --vector which \
                     are vectors",
                    field.name()
                )
            })?;
        }
        let columns = Columns { key, vectors, forwards };
        columns.check_names()?;
        Ok(columns)
    }

    fn check_names(&self) -> Words<()> {
        for taken in [&self.vectors, &self.forwards] {
            for (at, column) in taken.iter().enumerate() {
                if taken[..at].iter().any(|other| other.name == column.name) {
                    return Err(format!("two columns would be called {:?}", column.name));
                }
            }
        }
        Ok(())
    }

    /// The places in the schema that are read: the key's first, then vectors and forward columns.
    pub fn places(&self) -> Vec<usize> {
        let key = match self.key {
            Key::Column(at) => Some(at),
            Key::Rows(_) => None,
        };
        let others = self.vectors.iter().chain(&self.forwards).map(|taken| taken.at);
        key.into_iter().chain(others).collect()
    }

    /// In words for people.
    pub fn describe(&self, schema: &Schema) -> String {
        let key = match self.key {
            Key::Column(at) => format!("keys from {:?}", schema.field(at).name()),
            Key::Rows(first) => format!("keys are row numbers from {first}"),
        };
        let of = |taken: &Vec<Taken>| {
            let texts = taken.iter().map(|taken| {
                let column = schema.field(taken.at).name();
                match *column == taken.name {
                    true => format!("{column:?}"),
                    false => format!("{column:?} as {:?}", taken.name),
                }
            });
            let texts: Vec<String> = texts.collect();
            if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
        };
        format!("{key}; vectors: {}; forward columns: {}", of(&self.vectors), of(&self.forwards))
    }
}

/// True for forward columns that the server fills itself, as it will for rows that are imported.
fn is_filled_by_server(name: &str, known: Option<&Declaration>) -> bool {
    known.is_some_and(|known| {
        let by_write = known
            .ttl
            .as_ref()
            .is_some_and(|ttl| ttl.column.is_empty() || ttl.column == WRITE_TIME_COLUMN);
        known.versions && name == VERSION_COLUMN || by_write && name == WRITE_TIME_COLUMN
    })
}

fn choose_key(schema: &Schema, flags: &ColumnFlags) -> Words<Key> {
    let is_integer = |at: &usize| files::is_integer(schema.field(*at).data_type());
    if let Some(name) = &flags.key {
        let at = find(schema, name)?;
        if !is_integer(&at) {
            let data_type = schema.field(at).data_type();
            return Err(format!(
                "column {name:?} is of type {data_type}, and keys are whole numbers; without --key \
                 they are the numbers of rows"
            ));
        }
        return Ok(Key::Column(at));
    }
    if let Some(first) = flags.first_key {
        return Ok(Key::Rows(first));
    }
    let fields = schema.fields();
    let by_role = fields.iter().position(|field| role(field, "key").is_some());
    let by_name = || KEYS.iter().find_map(|key| fields.iter().position(|f| f.name() == key));
    let found = by_role.filter(is_integer).or_else(|| by_name().filter(is_integer));
    Ok(found.map_or(Key::Rows(0), Key::Column))
}

fn choose_vectors(
    schema: &Schema,
    flags: &ColumnFlags,
    known: Option<&Declaration>,
) -> Words<Vec<Taken>> {
    let form = |at: usize| files::form(schema.field(at).data_type());
    if !flags.vectors.is_empty() {
        return flags
            .vectors
            .iter()
            .map(|named| {
                let at = find(schema, &named.column)?;
                let field = schema.field(at);
                if let Some(why) = files::unreadable(field) {
                    return Err(format!("column {:?} is {why}", named.column));
                }
                if form(at).is_none() {
                    return Err(format!(
                        "column {:?} is of type {}, and vectors are lists of numbers, or bytes",
                        named.column,
                        field.data_type()
                    ));
                }
                Ok(Taken { at, name: named.name.clone() })
            })
            .collect();
    }
    let places = 0..schema.fields().len();
    let is_list = |at: &usize| matches!(form(*at), Some(Form::Numbers(..)));
    let by_role: Vec<Taken> = places
        .clone()
        .filter_map(|at| {
            let name = role(schema.field(at), "vector").filter(|_| form(at).is_some())?;
            Some(Taken { at, name: name.to_owned() })
        })
        .collect();
    let names = known.map(|known| known.vectors.iter().map(|column| column.name.as_str()));
    let names: Vec<&str> = names.into_iter().flatten().collect();
    let is_known = |taken: &Taken| names.is_empty() || names.contains(&taken.name.as_str());
    if !by_role.is_empty() && by_role.iter().all(is_known) {
        return Ok(by_role);
    }
    let named = |at: usize| Taken { at, name: name_of(schema.field(at)).to_owned() };
    let by_name: Vec<Taken> = places
        .clone()
        // A column of JSON lines that no row has a vector in is of no type.
        .filter(|at| form(*at).is_some() || *schema.field(*at).data_type() == DataType::Null)
        .map(named)
        .filter(|taken| names.contains(&taken.name.as_str()))
        .collect();
    if !by_name.is_empty() {
        return Ok(by_name);
    }
    let lists: Vec<usize> = places.filter(is_list).collect();
    match (&lists[..], &names[..]) {
        ([at], []) => Ok(vec![named(*at)]),
        // One can only be the other, whatever they are called.
        ([at], [name]) => Ok(vec![Taken { at: *at, name: (*name).to_owned() }]),
        ([], _) => {
            let there = schema.fields().iter().map(|field| field.name().as_str());
            Err(format!(
                "no column of lists of numbers, which vectors are; it has {}",
                listed(there)
            ))
        }
        (lists, names) => {
            let lists = listed(lists.iter().map(|at| schema.field(*at).name().as_str()));
            let wanted = match names.is_empty() {
                true => String::new(),
                false => {
                    format!("; the collection has {}", listed(names.iter().copied()))
                }
            };
            Err(format!("{lists} could be vectors{wanted}; --vector COLUMN=NAME says which are"))
        }
    }
}

/// What flags say of the vector columns of a new collection.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexFlags {
    pub element: Option<ElementType>,
    pub metric: Option<Metric>,
    /// With `index_type`.
    pub params: Vec<(String, String)>,
    /// Whether forward columns are declared with the types of the file.
    pub is_typed: bool,
}

/// A collection for the columns of a file. `dimension` tells that of lists whose type does not.
pub(super) fn declare(
    name: &str,
    schema: &Schema,
    columns: &Columns,
    flags: &IndexFlags,
    embedded: Option<Declaration>,
    mut dimension: impl FnMut(&Taken) -> Words<u32>,
) -> Words<Declaration> {
    let was = embedded.unwrap_or_else(|| Declaration {
        name: String::new(),
        vectors: Vec::new(),
        forwards: Vec::new(),
        segment_rows_max: 0,
        ttl: None,
        versions: false,
    });
    let mut vectors: Vec<VectorInfo> = Vec::new();
    for taken in &columns.vectors {
        let known = was.vectors.iter().find(|column| column.name == taken.name);
        let mut column = match known {
            Some(known) => known.clone(),
            None => {
                let (element, dimension) = shape(schema, taken, flags, &mut dimension)?;
                let metric = Metric::SquaredEuclidean;
                let name = taken.name.clone();
                let is_multi = files::several(schema.field(taken.at).data_type()).is_some();
                let multi = is_multi.then(|| (MULTI.to_owned(), "true".to_owned()));
                let params = BTreeMap::from_iter(multi);
                VectorInfo { name, element, dimension, metric, params }
            }
        };
        column.element = flags.element.unwrap_or(column.element);
        column.metric = flags.metric.unwrap_or(column.metric);
        column.params.extend(flags.params.iter().cloned());
        vectors.push(column);
    }
    // The order of the collection that the file came from, for those that it had.
    let place = |name: &str| was.vectors.iter().position(|column| column.name == name);
    vectors.sort_by_key(|column| place(&column.name).unwrap_or(usize::MAX));
    let mut forwards: Vec<ForwardInfo> = columns
        .forwards
        .iter()
        .map(|taken| ForwardInfo {
            name: taken.name.clone(),
            kind: match was.forwards.iter().find(|column| column.name == taken.name) {
                Some(known) => known.kind,
                None if flags.is_typed => files::value_kind(schema.field(taken.at).data_type()),
                None => None,
            },
        })
        .collect();
    let place = |name: &str| was.forwards.iter().position(|column| column.name == name);
    forwards.sort_by_key(|column| place(&column.name).unwrap_or(usize::MAX));
    let ttl = was.ttl.filter(|ttl| {
        ttl.column.is_empty() || forwards.iter().any(|column| column.name == ttl.column)
    });
    Ok(Declaration { name: name.to_owned(), vectors, forwards, ttl, ..was })
}

fn shape(
    schema: &Schema,
    taken: &Taken,
    flags: &IndexFlags,
    mut dimension: impl FnMut(&Taken) -> Words<u32>,
) -> Words<(ElementType, u32)> {
    let column = schema.field(taken.at).name();
    let bits = |element: ElementType| match element {
        ElementType::Binary32 => 32,
        ElementType::Binary64 => 64,
        _ => 1,
    };
    match (files::form(schema.field(taken.at).data_type()), flags.element) {
        (Some(Form::Numbers(size, natural)), element) => {
            let element = element.unwrap_or(natural);
            let count = size.map_or_else(|| dimension(taken), Ok)?;
            let dimension = count.checked_mul(bits(element));
            let dimension = dimension.ok_or_else(|| format!("column {column:?} is too wide"))?;
            Ok((element, dimension))
        }
        (Some(Form::Bytes(size)), Some(element)) => {
            let bytes = size.map_or_else(|| dimension(taken), Ok)?;
            let of_byte = match element {
                ElementType::Int4 => 2,
                ElementType::Binary32 | ElementType::Binary64 => 8,
                other => {
                    return Err(format!(
                        "column {column:?} holds bytes, and vectors of {} are lists of numbers",
                        other.name()
                    ));
                }
            };
            let dimension = bytes.checked_mul(of_byte);
            let dimension = dimension.ok_or_else(|| format!("column {column:?} is too wide"))?;
            Ok((element, dimension))
        }
        (Some(Form::Bytes(_)), None) => Err(format!(
            "column {column:?} holds bytes; --element says of which type the vectors are: INT4, \
             BINARY32 or BINARY64"
        )),
        (None, _) => Err(format!("column {column:?} holds no vectors")),
    }
}

/// What of a file does not fit into a collection that is there, each in words.
pub(super) fn differences(
    schema: &Schema,
    columns: &Columns,
    flags: &IndexFlags,
    there: &Declaration,
) -> Vec<String> {
    let mut found = Vec::new();
    for taken in &columns.vectors {
        let column = schema.field(taken.at);
        let Some(known) = there.vectors.iter().find(|known| known.name == taken.name) else {
            let names = listed(there.vectors.iter().map(|known| known.name.as_str()));
            found.push(format!(
                "it has no vector column {:?}, but {names}; --vector {}=NAME says which one {:?} is",
                taken.name,
                column.name(),
                column.name()
            ));
            continue;
        };
        found.extend(vector_differences(column, known, flags));
    }
    let missing: Vec<&str> = columns
        .forwards
        .iter()
        .map(|taken| taken.name.as_str())
        .filter(|name| there.forwards.iter().all(|known| known.name != *name))
        .collect();
    if !missing.is_empty() {
        let names = there.forwards.iter().map(|known| known.name.as_str());
        found.push(format!(
            "it has no forward column {}, but {}; --columns chooses columns, and renames them as \
             in old=new",
            listed(missing),
            listed(names)
        ));
    }
    found
}

/// True for columns whose rows may have several vectors.
pub(super) fn is_multi(column: &VectorInfo) -> bool {
    column.params.get(MULTI).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn vector_differences(column: &Field, known: &VectorInfo, flags: &IndexFlags) -> Vec<String> {
    let mut found = Vec::new();
    let of = |words: String| format!("vector column {:?} {words}", known.name);
    let packed = known.element.is_binary() || known.element == ElementType::Int4;
    let words = match known.element {
        ElementType::Binary32 => known.dimension / 32,
        ElementType::Binary64 => known.dimension / 64,
        _ => known.dimension,
    };
    if files::several(column.data_type()).is_some() && !is_multi(known) {
        let words = "has one vector for each row, and the file lists of vectors";
        found.push(of(words.to_owned()));
    }
    match files::form(column.data_type()) {
        Some(Form::Numbers(Some(size), _)) if size != words => {
            found.push(of(format!("has dimension {}, and the file {size}", known.dimension)));
        }
        Some(Form::Bytes(_)) if !packed => {
            found.push(of(format!("has elements of {}, and the file bytes", known.element.name())));
        }
        Some(Form::Bytes(Some(size)))
            if known.element.vector_bytes(known.dimension) != Some(size as usize) =>
        {
            let bytes = known.element.vector_bytes(known.dimension).unwrap_or(0);
            found.push(of(format!("has vectors of {bytes} bytes, and the file of {size}")));
        }
        _ => {}
    }
    if let Some(element) = flags.element.filter(|element| *element != known.element) {
        found.push(of(format!("is of {}, not {}", known.element.name(), element.name())));
    }
    if let Some(metric) = flags.metric.filter(|metric| *metric != known.metric) {
        found.push(of(format!("has metric {}, not {}", known.metric.name(), metric.name())));
    }
    for (name, value) in &flags.params {
        match known.params.get(name) {
            Some(there) if there == value => {}
            Some(there) => found.push(of(format!("has {name}={there}, not {value}"))),
            None => found.push(of(format!("has no {name}, and {value} is asked for"))),
        }
    }
    found
}
