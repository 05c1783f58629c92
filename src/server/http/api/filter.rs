//! Filters as JSON: the text, and what stands for its names.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::object::each_once;
use super::values::{Value, any_of};
use crate::server::proto::voisin_v1::{self as wire};

/// Most values of one filter parameter.
const PARAM_VALUES_MAX: usize = 1_000_000;

/// Rows by what they hold.
#[derive(Default, serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "filter": "path like 'a%'" }))]
pub(super) struct Selection {
    /// An expression over forward columns, such as `size > 100 and kind in {kinds}` (docs/filters.md).
    /// Left out: all rows.
    #[serde(default)]
    pub(super) filter: String,
    /// What stands for each `{name}` of the filter, none more and none less.
    #[serde(default, deserialize_with = "each_once")]
    pub(super) filter_params: BTreeMap<String, Param>,
}

/// What stands for a `{name}` of a filter: one value, or values for `in`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Param {
    One(Value),
    List(Vec<Value>),
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Vec<Value>;

            fn expecting(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
                words.write_str("values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<Value>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = array.next_element()? {
                    if values.len() == PARAM_VALUES_MAX {
                        return Err(A::Error::custom(format_args!(
                            "a list of a filter has more than {PARAM_VALUES_MAX} values (not adjustable)"
                        )));
                    }
                    values.push(value);
                }
                Ok(values)
            }
        }
        let raw: &RawValue = Deserialize::deserialize(json)?;
        let mut text = serde_json::Deserializer::from_str(raw.get());
        match raw.get().starts_with('[') {
            true => text.deserialize_seq(Values).map(Param::List).map_err(D::Error::custom),
            false => Value::deserialize(&mut text).map(Param::One).map_err(D::Error::custom),
        }
    }
}

impl PartialSchema for Param {
    fn schema() -> RefOr<Schema> {
        let list = ArrayBuilder::new().items(Ref::from_schema_name("Value")).build();
        any_of(AnyOfBuilder::new().item(Ref::from_schema_name("Value")).item(list))
    }
}

impl ToSchema for Param {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("Value".to_owned(), Value::schema()));
        Value::schemas(schemas);
    }
}

impl Param {
    /// As the contract has it.
    pub(super) fn wire(self) -> wire::FilterValue {
        use wire::filter_value::Kind;
        let value = |value: Value| wire::Value { kind: value.0 };
        wire::FilterValue {
            kind: Some(match self {
                Param::One(one) => Kind::Value(value(one)),
                Param::List(list) => {
                    Kind::List(wire::FilterValues { values: list.into_iter().map(value).collect() })
                }
            }),
        }
    }
}

/// Parameters of a filter as the contract has them.
pub(super) fn filter_params<C: FromIterator<(String, wire::FilterValue)>>(
    params: BTreeMap<String, Param>,
) -> C {
    params.into_iter().map(|(name, param)| (name, param.wire())).collect()
}
