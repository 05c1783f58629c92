//! Queries and their answers.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::proto::proxima;
use super::{element, generic_value, pairs};
use crate::error::{Error, Result};
use crate::query::{Hit, QueryProfile};
use crate::schema::{
    Aggregation, ForwardChoice, KnnRequest, QueryOptions, RawFilter, RawQueryVectors, SearchParams,
};

use proxima::query_request::knn_query_param::FeaturesValue;
use proxima::query_request::{QueryParam, QueryType};
use proxima::query_response::Result as WireResult;

/// A KNN request; one without parameters asks for the column "", which no collection has.
pub(in crate::server) fn knn_request(wire: proxima::QueryRequest) -> Result<KnnRequest> {
    if wire.query_type != QueryType::QtKnn as i32 {
        return Err(Error::query(format!(
            "query_type {} is unknown; use QT_KNN (0)",
            wire.query_type
        )));
    }
    let knn = match wire.query_param {
        Some(QueryParam::KnnParam(knn)) => knn,
        None => proxima::query_request::KnnQueryParam::default(),
    };
    let params = pairs(knn.extra_params);
    Ok(KnnRequest {
        column: knn.column_name,
        topk: knn.topk,
        vectors: match knn.features_value {
            None => RawQueryVectors::Missing,
            Some(FeaturesValue::Features(bytes)) => RawQueryVectors::Bytes(bytes),
            Some(FeaturesValue::Matrix(text)) => RawQueryVectors::Matrix(text),
        },
        batch_count: knn.batch_count,
        dimension: knn.dimension,
        element: match knn.data_type {
            0 => None,
            number => Some(element(number)),
        },
        // 0, the default, and what is below it mean none; NaN is not 0.
        radius: (knn.radius > 0.0 || knn.radius.is_nan()).then_some(knn.radius),
        is_linear: knn.is_linear,
        params: Some(SearchParams::from_text(&params)),
        aggregation: Aggregation::from_text(&params),
        forwards: ForwardChoice::All,
        filter: RawFilter::from_text(&params).transpose(),
        options: Some(QueryOptions::from_text(&params)),
    })
}

/// One list per query vector, or one for all.
pub(in crate::server) fn results(
    results: Vec<Vec<Hit>>,
    forward_columns: &[String],
) -> Vec<WireResult> {
    let list = |hits: Vec<Hit>| WireResult {
        documents: hits.into_iter().map(|hit| document(hit, forward_columns)).collect(),
    };
    results.into_iter().map(list).collect()
}

/// One row, with all forward columns; an unset one has its key and a value of no kind.
pub(in crate::server) fn document(hit: Hit, forward_columns: &[String]) -> proxima::Document {
    let forward = forward_columns.iter().zip(hit.forward.iter()).map(|(name, value)| {
        proxima::GenericKeyValue { key: name.clone(), value: Some(generic_value(value.clone())) }
    });
    proxima::Document {
        primary_key: hit.key,
        score: hit.score,
        forward_column_values: forward.collect(),
    }
}

/// Where the time of a query call went, as far as it came.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Timeline {
    /// When the call arrived.
    pub(in crate::server) started: Instant,
    /// Finding the collection and converting the request.
    pub(in crate::server) before: Duration,
    /// Within the collection.
    pub(in crate::server) profile: QueryProfile,
    /// Converting the answer; `None` when there is none.
    pub(in crate::server) after: Option<Duration>,
}

impl Timeline {
    /// A call that arrives now.
    pub(in crate::server) fn start() -> Self {
        Timeline {
            started: Instant::now(),
            before: Duration::ZERO,
            profile: QueryProfile::default(),
            after: None,
        }
    }

    /// Microseconds since the call arrived.
    pub(in crate::server) fn latency_us(&self) -> u64 {
        micros(self.started.elapsed())
    }
}

/// The JSON text of `debug_info`; all times are microseconds.
pub(in crate::server) fn debug_info(timeline: &Timeline, query_id: u64, latency_us: u64) -> String {
    let QueryProfile { validate, queue, execute, merge_and_sort } = timeline.profile;
    let mut info = json!({
        "latency": latency_us,
        "query_id": query_id,
        "before_process_query": { "latency": micros(timeline.before) },
        "query": {
            "latency": micros(validate + queue + execute + merge_and_sort),
            "validate": micros(validate),
            "prepare": micros(queue),
            "evaluate": {
                "latency": micros(execute + merge_and_sort),
                "execute": micros(execute),
                "merge_and_sort": micros(merge_and_sort),
            },
        },
    });
    if let Some(after) = timeline.after {
        info["after_process_query"] = json!({ "latency": micros(after) });
    }
    info.to_string()
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value as Json;

    use super::*;
    use crate::schema::{ElementType, FilterParam, Value};

    fn query(knn: proxima::query_request::KnnQueryParam) -> proxima::QueryRequest {
        proxima::QueryRequest {
            collection_name: "photos".into(),
            query_param: Some(QueryParam::KnnParam(knn)),
            ..Default::default()
        }
    }

    #[test]
    fn every_field_of_a_query_arrives() {
        let features = Bytes::from_static(&[0; 8]);
        let request = knn_request(query(proxima::query_request::KnnQueryParam {
            column_name: "image".into(),
            topk: 5,
            features_value: Some(FeaturesValue::Features(features.clone())),
            batch_count: 1,
            dimension: 2,
            data_type: 23,
            radius: 0.5,
            is_linear: true,
            extra_params: [("nprobe", "5"), ("filter", "a < {b}"), ("filter_params", "{\"b\": 1}")]
                .map(|(key, value)| proxima::KeyValuePair { key: key.into(), value: value.into() })
                .into(),
        }))
        .expect("a KNN query");
        assert_eq!((request.column.as_str(), request.topk), ("image", 5));
        assert!(matches!(request.vectors, RawQueryVectors::Bytes(bytes) if bytes == features));
        assert_eq!((request.batch_count, request.dimension), (1, 2));
        assert_eq!(request.element, Some(Ok(ElementType::Fp32)));
        assert_eq!((request.radius, request.is_linear), (Some(0.5), true));
        let params = SearchParams { nprobe: Some(5), ..SearchParams::default() };
        assert_eq!((request.params, request.forwards), (Some(Ok(params)), ForwardChoice::All));
        let filter = RawFilter {
            text: "a < {b}".into(),
            params: vec![("b".into(), FilterParam::One(Value::Int64(1)))],
        };
        assert_eq!(request.filter, Some(Ok(filter)));
    }

    #[test]
    fn what_a_query_leaves_out_is_left_to_the_column() {
        let request = knn_request(query(proxima::query_request::KnnQueryParam {
            features_value: Some(FeaturesValue::Matrix("[1]".into())),
            ..Default::default()
        }))
        .expect("a KNN query");
        assert!(matches!(request.vectors, RawQueryVectors::Matrix(text) if text == "[1]"));
        assert_eq!((request.element, request.dimension, request.radius), (None, 0, None));
        assert_eq!(request.filter, None);
        let bare = knn_request(proxima::QueryRequest::default()).expect("a KNN query");
        assert_eq!(bare.column, "");
        assert!(matches!(bare.vectors, RawQueryVectors::Missing));
    }

    #[test]
    fn other_query_types_are_refused() {
        let wire = proxima::QueryRequest { query_type: 1, ..Default::default() };
        assert!(matches!(knn_request(wire), Err(Error::InvalidQuery { .. })));
    }

    #[test]
    fn a_document_has_all_forward_columns_in_order() {
        let hit = Hit { key: 7, score: 1.5, forward: vec![None, Some(Value::Bool(true))].into() };
        let lists = results(vec![vec![hit], vec![]], &["a".to_owned(), "b".to_owned()]);
        assert_eq!(lists.len(), 2);
        assert!(lists[1].documents.is_empty());
        let document = &lists[0].documents[0];
        assert_eq!((document.primary_key, document.score), (7, 1.5));
        let [unset, set] = &document.forward_column_values[..] else {
            panic!("two forward columns")
        };
        assert_eq!(unset.key, "a");
        assert_eq!(unset.value, Some(proxima::GenericValue { value_oneof: None }));
        assert_eq!(
            (set.key.as_str(), set.value.clone()),
            ("b", Some(generic_value(Some(Value::Bool(true)))))
        );
    }

    #[test]
    fn debug_info_has_the_shape_that_clients_parse() {
        let us = Duration::from_micros;
        let mut timeline = Timeline {
            before: us(1),
            profile: QueryProfile {
                validate: us(2),
                queue: us(3),
                execute: us(4),
                merge_and_sort: us(5),
            },
            after: Some(us(6)),
            ..Timeline::start()
        };
        let expected = json!({
            "latency": 30,
            "query_id": 9,
            "before_process_query": { "latency": 1 },
            "query": {
                "latency": 14,
                "validate": 2,
                "prepare": 3,
                "evaluate": { "latency": 9, "execute": 4, "merge_and_sort": 5 },
            },
            "after_process_query": { "latency": 6 },
        });
        let parse = |timeline: &Timeline| -> Json {
            serde_json::from_str(&debug_info(timeline, 9, 30)).expect("JSON text")
        };
        assert_eq!(parse(&timeline), expected);
        timeline.after = None;
        assert!(parse(&timeline).get("after_process_query").is_none());
    }
}
