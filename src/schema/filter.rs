//! A filter as a caller sends it: the text of an expression, and the values of its parameters apart.

use super::types::Value;

/// A filter before any check. `docs/filters.md` has the language.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawFilter {
    /// The expression.
    pub text: String,
    /// What stands for each `{name}` in it.
    pub params: Vec<(String, FilterParam)>,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterParam {
    /// One value.
    One(Value),
    /// Values for the right side of `in`.
    List(Vec<Value>),
}

/// The query parameters that hold a filter sent as text.
const FILTER: &str = "filter";
const PARAMS: &str = "filter_params";

impl RawFilter {
    /// Reads a filter from query parameters sent as text; `None` where there is none. The parameters of
    /// the filter are a JSON object of truth values, numbers, text, and lists of these.
    pub fn from_text(pairs: &[(String, String)]) -> Result<Option<Self>, String> {
        let text = |key| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        let filter = text(FILTER).filter(|filter| !filter.is_empty());
        let params = text(PARAMS).map(|text| params_from_json(text)).transpose()?;
        RawFilter::from_parts(filter.cloned().unwrap_or_default(), params.unwrap_or_default())
    }

    /// A filter of its parts; `None` where there is none.
    pub fn from_parts(
        text: String,
        params: Vec<(String, FilterParam)>,
    ) -> Result<Option<Self>, String> {
        match (text.is_empty(), params.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err("filter_params are set, but filter is not".into()),
            (false, _) => Ok(Some(RawFilter { text, params })),
        }
    }
}

fn params_from_json(text: &str) -> Result<Vec<(String, FilterParam)>, String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| format!("filter_params is not a JSON object: {error}"))?;
    object.into_iter().map(|(name, json)| param(&name, json).map(|param| (name, param))).collect()
}

fn param(name: &str, json: serde_json::Value) -> Result<FilterParam, String> {
    let refuse = |what| {
        format!(
            "filter_params: {name:?} holds {what}; it may be true or false, a number, text, or a list of these"
        )
    };
    match json {
        serde_json::Value::Array(items) => {
            let values = items.into_iter().map(scalar).collect::<Result<_, _>>();
            values.map(FilterParam::List).map_err(refuse)
        }
        one => scalar(one).map(FilterParam::One).map_err(refuse),
    }
}

fn scalar(json: serde_json::Value) -> Result<Value, &'static str> {
    Ok(match json {
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int64(number),
            (_, Some(number)) => Value::UInt64(number),
            _ => Value::Double(number.as_f64().ok_or("a number out of range")?),
        },
        serde_json::Value::Null => return Err("null"),
        serde_json::Value::Array(_) => return Err("a list in a list"),
        serde_json::Value::Object(_) => return Err("an object"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<RawFilter>, String> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        RawFilter::from_text(&pairs)
    }

    #[test]
    fn text_becomes_a_filter_with_typed_parameters() {
        assert_eq!(read(&[("ef_search", "1")]), Ok(None));
        assert_eq!(read(&[("filter", ""), ("filter_params", "{}")]), Ok(None));
        let json = r#"{"a": -5, "b": 18446744073709551615, "c": 0.5, "d": "x", "e": [true, 1]}"#;
        let filter = read(&[("filter", "a < {a}"), ("filter_params", json)]);
        let filter = filter.expect("it can be read").expect("it is there");
        let list = FilterParam::List(vec![Value::Bool(true), Value::Int64(1)]);
        let one = FilterParam::One;
        let expected = [
            ("a", one(Value::Int64(-5))),
            ("b", one(Value::UInt64(u64::MAX))),
            ("c", one(Value::Double(0.5))),
            ("d", one(Value::String("x".into()))),
            ("e", list),
        ];
        assert_eq!(filter.text, "a < {a}");
        assert_eq!(filter.params, expected.map(|(name, param)| (name.to_owned(), param)));
    }

    #[test]
    fn what_is_no_object_of_values_is_refused_by_name() {
        for (json, words) in [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            (r#"{"a": null}"#, "\"a\" holds null"),
            (r#"{"a": {"b": 1}}"#, "\"a\" holds an object"),
            (r#"{"a": [[1]]}"#, "\"a\" holds a list in a list"),
        ] {
            let refusal = read(&[("filter", "a < {a}"), ("filter_params", json)]);
            let refusal = refusal.expect_err("it is refused");
            assert!(refusal.contains("filter_params") && refusal.contains(words), "{refusal}");
        }
        let refusal = read(&[("filter_params", r#"{"a": 1}"#)]).expect_err("no filter");
        assert!(refusal.contains("filter is not"), "{refusal}");
    }
}
