//! Queries of our own contract and their answers, column by column.

use std::collections::HashMap;
use std::time::Duration;

use super::super::proto::voisin_v1 as wire;
use super::columnar::{known_element, value, wire_value};
use super::rows::vector_columns;
use crate::error::{Error, Result};
use crate::query::{Hit, KnnReply, Votes};
use crate::schema::{
    Aggregation, AggregationKind, Examples, FilterParam, ForwardChoice, GroupBy, KnnRequest,
    Metric, QueryOptions, RawFilter, RawQueryVectors, ScoreShape, SearchParams, VectorColumn,
};
use crate::segment::RecallSource;

/// A query; its column is "" where the caller named none. What a caller may have forgotten is refused
/// here rather than taken for something.
pub(in crate::server) fn native_query(request: wire::QueryRequest) -> Result<KnnRequest> {
    let has_examples = !request.positives.is_empty() || !request.negatives.is_empty();
    let vectors = match request.vectors {
        Some(vectors) => vectors,
        None if has_examples => wire::VectorColumn::default(),
        None => return Err(Error::query("the query vectors are not set")),
    };
    let is_named_only = has_examples && vectors.vectors.is_empty();
    if vectors.dimension == 0 && !is_named_only {
        return Err(Error::query("the dimension of the query vectors is not set"));
    }
    let params = request.params.unwrap_or_default();
    Ok(KnnRequest {
        column: vectors.name,
        topk: request.topk,
        vectors: match is_named_only {
            true => RawQueryVectors::Missing,
            false => RawQueryVectors::Packed(vectors.vectors),
        },
        batch_count: 0,
        dimension: vectors.dimension,
        element: Some(known_element(vectors.element)),
        radius: request.radius,
        is_linear: false,
        params: Some(metric(request.metric).map(|metric| SearchParams {
            metric,
            exact: params.exact,
            ef_search: params.ef_search,
            nprobe: params.nprobe,
            recall_target: params.recall_target,
            refine_k: params.refine_k,
        })),
        aggregation: request.aggregation.map(aggregation),
        forwards: match request.forwards {
            None => ForwardChoice::All,
            Some(forwards) => ForwardChoice::Named(forwards.names),
        },
        filter: filter(request.filter, request.filter_params).transpose(),
        options: Some(score_shape(request.score).map(|score| QueryOptions {
            all_within: request.topk == 0,
            radius_min: request.radius_min,
            examples: Examples { positives: request.positives, negatives: request.negatives },
            vectors: request.return_vectors.unwrap_or_default().names,
            group: request.group.map(|group| GroupBy { column: group.column, size: group.size }),
            score,
        })),
    })
}

fn score_shape(number: i32) -> std::result::Result<ScoreShape, String> {
    match wire::ScoreShape::try_from(number) {
        Ok(wire::ScoreShape::Distance) => Ok(ScoreShape::Distance),
        Ok(wire::ScoreShape::Elasticsearch) => Ok(ScoreShape::Elasticsearch),
        Ok(wire::ScoreShape::Milvus) => Ok(ScoreShape::Milvus),
        Err(_) => Err(format!("score {number} is unknown")),
    }
}

fn aggregation(asked: wire::Aggregation) -> std::result::Result<Aggregation, String> {
    use wire::aggregation::Kind;
    let kind = match Kind::try_from(asked.kind) {
        Ok(Kind::Votes) => AggregationKind::Votes,
        Ok(Kind::MaxSim) => AggregationKind::MaxSim,
        Ok(Kind::MinDistance) => AggregationKind::MinDistance,
        Ok(Kind::Unspecified) => return Err("the kind of the aggregation is not set".to_owned()),
        Err(_) => return Err(format!("aggregation {} is unknown", asked.kind)),
    };
    let set = |number: u32| Some(number).filter(|number| *number > 0);
    let (k_per_vector, min_votes) = (set(asked.k_per_vector), set(asked.min_votes));
    Ok(Aggregation { kind, k_per_vector, min_votes })
}

/// A filter of its parts; `None` where there is none.
pub(in crate::server) fn filter(
    text: String,
    params: HashMap<String, wire::FilterValue>,
) -> std::result::Result<Option<RawFilter>, String> {
    let params = params.into_iter().map(|(name, param)| match filter_param(param) {
        Some(param) => Ok((name, param)),
        None => Err(format!("filter_params: {name:?} holds a value that is not set")),
    });
    RawFilter::from_parts(text, params.collect::<std::result::Result<_, String>>()?)
}

fn filter_param(param: wire::FilterValue) -> Option<FilterParam> {
    match param.kind? {
        wire::filter_value::Kind::Value(one) => value(one).map(FilterParam::One),
        wire::filter_value::Kind::List(list) => {
            list.values.into_iter().map(value).collect::<Option<_>>().map(FilterParam::List)
        }
    }
}

/// A metric by its number; `None` leaves it to the column, `Err` holds the words for none.
pub(in crate::server) fn metric(number: i32) -> std::result::Result<Option<Metric>, String> {
    match wire::Metric::try_from(number) {
        Ok(wire::Metric::Unspecified) => Ok(None),
        Ok(wire::Metric::SquaredEuclidean) => Ok(Some(Metric::SquaredEuclidean)),
        Ok(wire::Metric::Euclidean) => Ok(Some(Metric::Euclidean)),
        Ok(wire::Metric::InnerProduct) => Ok(Some(Metric::InnerProduct)),
        Ok(wire::Metric::Cosine) => Ok(Some(Metric::Cosine)),
        Ok(wire::Metric::Manhattan) => Ok(Some(Metric::Manhattan)),
        Ok(wire::Metric::Hamming) => Ok(Some(Metric::Hamming)),
        Err(_) => Err(format!("metric {number} is unknown")),
    }
}

/// A metric as the wire has it.
pub(in crate::server) fn wire_metric(metric: Metric) -> wire::Metric {
    match metric {
        Metric::SquaredEuclidean => wire::Metric::SquaredEuclidean,
        Metric::Euclidean => wire::Metric::Euclidean,
        Metric::InnerProduct => wire::Metric::InnerProduct,
        Metric::Cosine => wire::Metric::Cosine,
        Metric::Manhattan => wire::Metric::Manhattan,
        Metric::Hamming => wire::Metric::Hamming,
    }
}

/// The answer of a collection with these index columns, with the names of the forward columns that every
/// hit has values of.
pub(in crate::server) fn query_reply(
    reply: KnnReply,
    forward_names: &[String],
    columns: &[VectorColumn],
    elapsed: impl FnOnce() -> Duration,
) -> wire::QueryReply {
    // Votes are of the one list that there is then; what was not asked for has no entries.
    let votes = std::iter::once(&reply.votes[..]).chain(std::iter::repeat(&[][..]));
    let (mut vectors, mut group_rows) = (reply.vectors.into_iter(), reply.group_rows.into_iter());
    let results = reply.results.iter().zip(votes).map(|(found, votes)| wire::Hits {
        vectors: vector_columns(vectors.next().unwrap_or_default(), columns),
        group_rows: group_rows.next().unwrap_or_default(),
        ..hits(found, votes, forward_names)
    });
    wire::QueryReply {
        results: results.collect(),
        exact: reply.exact,
        expected_recall: reply.expected_recall,
        recall_source: recall_source(reply.recall_source).into(),
        effort: reply.effort,
        rows: reply.rows,
        queue_us: super::query::micros(reply.profile.queue),
        elapsed_us: super::query::micros(elapsed()),
    }
}

fn recall_source(source: RecallSource) -> wire::RecallSource {
    match source {
        RecallSource::Exact => wire::RecallSource::Exact,
        RecallSource::Live => wire::RecallSource::Live,
        RecallSource::Sample => wire::RecallSource::Sample,
        RecallSource::Unmeasured => wire::RecallSource::Unmeasured,
    }
}

fn hits(hits: &[Hit], votes: &[Votes], forward_names: &[String]) -> wire::Hits {
    let column = |(position, name): (usize, &String)| {
        let value = |hit: &Hit| wire_value(hit.forward.get(position).cloned().flatten());
        wire::ForwardColumn { name: name.clone(), values: hits.iter().map(value).collect() }
    };
    wire::Hits {
        keys: hits.iter().map(|hit| hit.key).collect(),
        scores: hits.iter().map(|hit| hit.score).collect(),
        forwards: forward_names.iter().enumerate().map(column).collect(),
        votes: votes.iter().map(|votes| votes.count).collect(),
        confidence: votes.iter().map(|votes| votes.confidence).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::query::QueryProfile;
    use crate::schema::{ElementType, Value};

    fn request() -> wire::QueryRequest {
        wire::QueryRequest {
            collection: "photos".into(),
            vectors: Some(wire::VectorColumn {
                name: "image".into(),
                element: wire::ElementType::Fp32.into(),
                dimension: 2,
                vectors: Bytes::from_static(&[0; 16]),
                ..Default::default()
            }),
            topk: 5,
            ..Default::default()
        }
    }

    #[test]
    fn every_field_of_a_query_arrives() {
        let query = native_query(wire::QueryRequest {
            radius: Some(-0.5),
            metric: wire::Metric::Manhattan.into(),
            params: Some(wire::SearchParams {
                ef_search: Some(1),
                nprobe: Some(2),
                refine_k: Some(3.0),
                exact: true,
                recall_target: Some(0.5),
            }),
            forwards: Some(wire::ForwardNames { names: vec!["a".into()] }),
            positives: vec![7, 8],
            negatives: vec![9],
            group: Some(wire::Group { column: "b".into(), size: 2 }),
            score: wire::ScoreShape::Milvus.into(),
            return_vectors: Some(wire::VectorNames { names: vec!["*".into()] }),
            radius_min: Some(-1.5),
            aggregation: Some(wire::Aggregation {
                kind: wire::aggregation::Kind::Votes.into(),
                k_per_vector: 7,
                min_votes: 0,
            }),
            ..request()
        })
        .expect("nothing is forgotten");
        assert_eq!((query.column.as_str(), query.topk, query.dimension), ("image", 5, 2));
        assert!(matches!(query.vectors, RawQueryVectors::Packed(bytes) if bytes.len() == 16));
        assert_eq!(query.element, Some(Ok(ElementType::Fp32)));
        assert_eq!((query.radius, query.is_linear), (Some(-0.5), false));
        let params = SearchParams {
            metric: Some(Metric::Manhattan),
            exact: true,
            ef_search: Some(1),
            nprobe: Some(2),
            recall_target: Some(0.5),
            refine_k: Some(3.0),
        };
        assert_eq!(query.params, Some(Ok(params)));
        assert_eq!(query.forwards, ForwardChoice::Named(vec!["a".into()]));
        let options = QueryOptions {
            all_within: false,
            radius_min: Some(-1.5),
            examples: Examples { positives: vec![7, 8], negatives: vec![9] },
            vectors: vec!["*".into()],
            group: Some(GroupBy { column: "b".into(), size: 2 }),
            score: ScoreShape::Milvus,
        };
        assert_eq!(query.options, Some(Ok(options)));
        let kind = AggregationKind::Votes;
        let votes = Aggregation { kind, k_per_vector: Some(7), min_votes: None };
        assert_eq!(query.aggregation, Some(Ok(votes)));
    }

    #[test]
    fn what_a_query_leaves_out_is_left_to_the_column() {
        let query = native_query(request()).expect("nothing is forgotten");
        assert_eq!(query.params, Some(Ok(SearchParams::default())));
        assert_eq!((query.radius, query.forwards), (None, ForwardChoice::All));
        assert_eq!(query.options, Some(Ok(QueryOptions::default())));
        assert_eq!(query.aggregation, None);
    }

    #[test]
    fn a_filter_comes_with_values_and_lists() {
        use wire::filter_value::Kind;
        let value = |number| wire::Value { kind: Some(wire::value::Kind::Int64Value(number)) };
        let read = |text: &str, kind| {
            let params = HashMap::from([("p".to_owned(), wire::FilterValue { kind })]);
            let request =
                wire::QueryRequest { filter: text.into(), filter_params: params, ..request() };
            native_query(request).expect("nothing is forgotten").filter
        };
        let filter = |param| RawFilter { text: "a".into(), params: vec![("p".into(), param)] };
        let one = FilterParam::One(Value::Int64(1));
        assert_eq!(read("a", Some(Kind::Value(value(1)))), Some(Ok(filter(one))));
        let list = wire::FilterValues { values: vec![value(1), value(2)] };
        let both = FilterParam::List(vec![Value::Int64(1), Value::Int64(2)]);
        assert_eq!(read("a", Some(Kind::List(list))), Some(Ok(filter(both))));
        let unset = wire::Value { kind: None };
        let list = wire::FilterValues { values: vec![value(1), unset.clone()] };
        for kind in [None, Some(Kind::Value(unset)), Some(Kind::List(list))] {
            let refusal = read("a", kind).expect("there is one").expect_err("it is not set");
            assert!(refusal.contains("\"p\" holds a value that is not set"), "{refusal}");
        }
        let refusal = read("", Some(Kind::Value(value(1)))).expect("there is one");
        assert!(refusal.expect_err("no filter").contains("filter is not"));
        assert_eq!(native_query(request()).expect("nothing is forgotten").filter, None);
    }

    #[test]
    fn query_vectors_may_be_left_out_where_there_are_examples_alone() {
        let bare = wire::QueryRequest { vectors: None, ..request() };
        assert!(native_query(bare.clone()).is_err());
        let by_row = wire::QueryRequest { positives: vec![1], ..bare };
        let query = native_query(by_row.clone()).expect("it has an example");
        assert_eq!(query.column, "");
        assert!(matches!(query.vectors, RawQueryVectors::Missing));
        let name = wire::VectorColumn { name: "image".into(), ..Default::default() };
        let named = wire::QueryRequest { vectors: Some(name.clone()), ..by_row };
        assert_eq!(native_query(named.clone()).expect("it has an example").column, "image");
        let without = wire::QueryRequest { positives: vec![], ..named };
        assert!(native_query(without).is_err());
        let all = native_query(wire::QueryRequest { topk: 0, ..request() }).expect("a query");
        assert!(all.options.expect("options").expect("known").all_within);
    }

    #[test]
    fn what_has_no_meaning_is_carried_on_to_be_refused() {
        let mut odd = request();
        odd.metric = 99;
        odd.score = 99;
        odd.vectors.as_mut().expect("there are vectors").element = 99;
        let query = native_query(odd).expect("the domain refuses it");
        assert_eq!(query.params, Some(Err("metric 99 is unknown".into())));
        assert_eq!(query.element, Some(Err("unknown element type 99".into())));
        assert_eq!(query.options, Some(Err("score 99 is unknown".into())));
    }

    #[test]
    fn an_aggregation_without_a_known_kind_is_refused() {
        for (kind, words) in
            [(0, "the kind of the aggregation is not set"), (9, "aggregation 9 is")]
        {
            let asked = wire::Aggregation { kind, ..Default::default() };
            assert!(aggregation(asked).expect_err("no kind").starts_with(words));
        }
    }

    #[test]
    fn metrics_have_the_names_of_the_contract() {
        for (name, expected) in Metric::ALL {
            let words = name.chars().flat_map(|letter| {
                letter.is_uppercase().then_some('_').into_iter().chain(letter.to_uppercase())
            });
            let wire_name = format!("METRIC{}", words.collect::<String>());
            let number = wire::Metric::from_str_name(&wire_name).expect(&wire_name);
            assert_eq!(metric(number.into()), Ok(Some(expected)));
        }
    }

    #[test]
    fn an_answer_has_one_entry_per_query_vector_with_its_columns() {
        let hit = |key, value| Hit { key, score: key as f32, forward: vec![None, value].into() };
        let reply = KnnReply {
            results: vec![vec![hit(7, Some(Value::Bool(true))), hit(9, None)], vec![]],
            votes: vec![Votes { count: 2, confidence: 50.0 }, Votes { count: 1, confidence: 25.0 }],
            vectors: vec![],
            group_rows: vec![vec![2], vec![]],
            exact: true,
            rows: 2,
            profile: QueryProfile { queue: Duration::from_micros(3), ..Default::default() },
            expected_recall: Some(0.5),
            recall_source: RecallSource::Live,
            effort: 40,
        };
        let names = ["a".to_owned(), "b".to_owned()];
        let reply = query_reply(reply, &names, &[], || Duration::from_micros(8));
        assert_eq!((reply.exact, reply.rows, reply.queue_us, reply.elapsed_us), (true, 2, 3, 8));
        assert_eq!((reply.expected_recall, reply.effort), (Some(0.5), 40));
        assert_eq!(reply.recall_source(), wire::RecallSource::Live);
        let [first, second] = &reply.results[..] else { panic!("two query vectors") };
        assert_eq!((&first.keys[..], &first.scores[..]), (&[7, 9][..], &[7.0, 9.0][..]));
        let unset = || wire::Value { kind: None };
        let set = wire::Value { kind: Some(wire::value::Kind::BoolValue(true)) };
        let column = |name: &str, values| wire::ForwardColumn { name: name.into(), values };
        let expected = [column("a", vec![unset(), unset()]), column("b", vec![set, unset()])];
        assert_eq!(first.forwards, expected);
        assert_eq!((&first.group_rows, first.vectors.len()), (&vec![2], 0));
        assert_eq!(second.forwards, [column("a", vec![]), column("b", vec![])]);
        assert!(second.keys.is_empty() && second.scores.is_empty() && second.votes.is_empty());
        assert_eq!((&first.votes[..], &first.confidence[..]), (&[2, 1][..], &[50.0, 25.0][..]));
    }
}
