//! The JSON forms that are taken and given.

use std::collections::BTreeMap;

use prost::Message as _;

use super::super::super::proto::{self, proxima};
use super::*;
use proxima::generic_value::ValueOneof;
use proxima::query_request::QueryParam;
use proxima::query_request::knn_query_param::FeaturesValue;

/// The fields that a message has here.
pub(super) trait Listed {
    const FIELDS: &[&str];
}

fn value(text: &str) -> Result<proxima::GenericValue, String> {
    read(text.as_bytes())
}

fn shown(message: &impl Message) -> String {
    String::from_utf8(write(message).expect("it can be written")).expect("JSON is UTF-8")
}

#[test]
fn messages_have_the_fields_of_the_contract() {
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET);
    let mut contract: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut pending: Vec<prost_types::DescriptorProto> = set
        .expect("the descriptors are whole")
        .file
        .into_iter()
        .filter(|file| file.package() == "proxima.be.proto")
        .flat_map(|file| file.message_type)
        .collect();
    while let Some(message) = pending.pop() {
        let mut fields: Vec<String> = message.field.iter().map(|f| f.name().to_owned()).collect();
        fields.sort();
        contract.insert(message.name().to_owned(), fields);
        pending.extend(message.nested_type);
    }
    fn check<M: Listed>(contract: &BTreeMap<String, Vec<String>>) {
        let name = std::any::type_name::<M>().rsplit("::").next().expect("a name");
        let mut fields: Vec<String> = M::FIELDS.iter().map(|name| (*name).to_owned()).collect();
        fields.sort();
        assert_eq!(Some(&fields), contract.get(name), "{name}");
    }
    check::<proxima::Status>(&contract);
    check::<proxima::KeyValuePair>(&contract);
    check::<proxima::LsnContext>(&contract);
    check::<proxima::GenericValue>(&contract);
    check::<proxima::GenericValueList>(&contract);
    check::<proxima::GenericKeyValue>(&contract);
    check::<proxima::CollectionConfig>(&contract);
    check::<proxima::collection_config::IndexColumnParam>(&contract);
    check::<proxima::collection_config::RepositoryConfig>(&contract);
    check::<proxima::collection_config::repository_config::Database>(&contract);
    check::<proxima::CollectionInfo>(&contract);
    check::<proxima::DescribeCollectionResponse>(&contract);
    check::<proxima::ListCollectionsResponse>(&contract);
    check::<proxima::StatsCollectionResponse>(&contract);
    check::<proxima::CollectionStats>(&contract);
    check::<proxima::collection_stats::SegmentStats>(&contract);
    check::<proxima::WriteRequest>(&contract);
    check::<proxima::write_request::RowMeta>(&contract);
    check::<proxima::write_request::IndexColumnMeta>(&contract);
    check::<proxima::write_request::Row>(&contract);
    check::<proxima::QueryRequest>(&contract);
    check::<proxima::query_request::KnnQueryParam>(&contract);
    check::<proxima::QueryResponse>(&contract);
    check::<proxima::query_response::Result>(&contract);
    check::<proxima::Document>(&contract);
    check::<proxima::GetDocumentResponse>(&contract);
    check::<proxima::GetVersionResponse>(&contract);
}

#[test]
fn names_are_taken_in_both_spellings() {
    assert!(is_named("collection_name", "collection_name"));
    assert!(is_named("collectionName", "collection_name"));
    assert!(is_named("int32Value", "int32_value"));
    for other in ["collectionname", "CollectionName", "collection", "collectionNames", ""] {
        assert!(!is_named(other, "collection_name"), "{other}");
    }
    let text = r#"{"collection_name":"a","queryType":"QT_KNN","debug_mode":true,"x":[{"y":[1,null]}],
        "knnParam":{"columnName":"v","topk":3,"features":"AAECAw==","batch_count":1,"dimension":2,"dataType":23,
        "radius":0.5,"is_linear":true,"extraParams":[{"key":"k","value":"v"}]}}"#;
    let query: proxima::QueryRequest = read(text.as_bytes()).expect("a query");
    assert_eq!((query.collection_name.as_str(), query.debug_mode), ("a", true));
    let Some(QueryParam::KnnParam(knn)) = query.query_param else { panic!("a KNN query") };
    assert_eq!((knn.column_name.as_str(), knn.topk, knn.data_type), ("v", 3, 23));
    assert_eq!(knn.features_value, Some(FeaturesValue::Features(vec![0, 1, 2, 3].into())));
    assert_eq!((knn.radius, knn.is_linear), (0.5, true));
    assert_eq!(knn.extra_params, [proxima::KeyValuePair { key: "k".into(), value: "v".into() }]);
}

#[test]
fn values_are_taken_in_their_forms_only() {
    use ValueOneof::*;
    let u64_max = u64::MAX;
    for (text, expected) in [
        (r#"{"bytesValue":"+/8="}"#.to_owned(), BytesValue(vec![0xfb, 0xff].into())),
        (r#"{"string_value":"\u00e9"}"#.into(), StringValue("\u{e9}".into())),
        (r#"{"bool_value":false}"#.into(), BoolValue(false)),
        (r#"{"int32_value":-2147483648}"#.into(), Int32Value(i32::MIN)),
        (r#"{"int64_value":-9223372036854775808}"#.into(), Int64Value(i64::MIN)),
        (r#"{"int64_value":"-5"}"#.into(), Int64Value(-5)),
        (r#"{"uint32_value":4294967295}"#.into(), Uint32Value(u32::MAX)),
        (format!(r#"{{"uint64_value":{u64_max}}}"#), Uint64Value(u64_max)),
        (format!(r#"{{"uint64_value":"{u64_max}"}}"#), Uint64Value(u64_max)),
        (r#"{"float_value":0.1}"#.into(), FloatValue(0.1)),
        (r#"{"float_value":3}"#.into(), FloatValue(3.0)),
        (r#"{"float_value":"-Infinity"}"#.into(), FloatValue(f32::NEG_INFINITY)),
        (r#"{"double_value":1e300}"#.into(), DoubleValue(1e300)),
        (r#"{"double_value":"Infinity"}"#.into(), DoubleValue(f64::INFINITY)),
    ] {
        assert_eq!(value(&text).expect(&text).value_oneof, Some(expected), "{text}");
    }
    let nan = value(r#"{"double_value":"NaN"}"#).expect("not a number").value_oneof;
    assert!(matches!(nan, Some(DoubleValue(number)) if number.is_nan()));
    for text in [
        r#"{"bytes_value":"AAE"}"#,
        r#"{"bytes_value":"-_8="}"#,
        r#"{"bytes_value":[1]}"#,
        r#"{"string_value":1}"#,
        r#"{"bool_value":1}"#,
        r#"{"bool_value":"true"}"#,
        r#"{"int32_value":"1"}"#,
        r#"{"int32_value":1.0}"#,
        r#"{"int32_value":2147483648}"#,
        r#"{"uint32_value":"1"}"#,
        r#"{"uint32_value":3.0}"#,
        r#"{"uint32_value":-1}"#,
        r#"{"uint32_value":4294967296}"#,
        r#"{"int64_value":1.0}"#,
        r#"{"int64_value":"+1"}"#,
        r#"{"int64_value":" 1"}"#,
        r#"{"uint64_value":-1}"#,
        r#"{"uint64_value":18446744073709551616}"#,
        r#"{"uint64_value":"1.5"}"#,
        r#"{"float_value":"1.5"}"#,
        r#"{"float_value":"inf"}"#,
        r#"{"float_value":1e39}"#,
        r#"{"float_value":true}"#,
        r#"{"double_value":"nan"}"#,
        r#"{"double_value":1e999}"#,
        r#"{"int32_value":1,"bool_value":true}"#,
        r#"[]"#,
        r#""text""#,
        r#"null"#,
        r#"{"#,
        r#"{} {}"#,
        r#"{"x":}"#,
        "",
    ] {
        assert!(value(text).is_err(), "{text}");
    }
}

#[test]
fn null_is_unset() {
    assert_eq!(value(r#"{"int32_value":null}"#).expect("unset").value_oneof, None);
    let value = value(r#"{"int32_value":null,"bool_value":true,"string_value":null}"#);
    assert_eq!(value.expect("one is set").value_oneof, Some(ValueOneof::BoolValue(true)));
    let text = r#"{"collection_name":null,"row_meta":null,"rows":null,"magic_number":null}"#;
    let write: proxima::WriteRequest = read(text.as_bytes()).expect("all unset");
    assert_eq!(write, proxima::WriteRequest::default());
    let row: proxima::write_request::Row =
        read(br#"{"operation_type":null,"lsn_context":null}"#).expect("all unset");
    assert_eq!(row, proxima::write_request::Row::default());
    assert!(read::<proxima::WriteRequest>(br#"{"rows":[null]}"#).is_err(), "no row at all");
}

#[test]
fn enums_have_names_and_numbers_and_no_others() {
    let row = |text: &str| {
        let text = format!(r#"{{"operation_type":{text}}}"#);
        read::<proxima::write_request::Row>(text.as_bytes()).map(|row| row.operation_type)
    };
    assert_eq!(row(r#""OP_DELETE""#), Ok(2));
    assert_eq!(row("1"), Ok(1));
    for unknown in ["3", "-1", r#""op_delete""#, r#""2""#, "1.0", "true", "[]"] {
        assert!(row(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn everything_is_shown_but_messages_that_are_not_set() {
    assert_eq!(shown(&proxima::Status::default()), r#"{"code":0,"reason":""}"#);
    let describe = proxima::DescribeCollectionResponse::default();
    assert_eq!(shown(&describe), "{}");
    assert_eq!(
        shown(&proxima::QueryResponse::default()),
        r#"{"debug_info":"","latency_us":"0","results":[]}"#
    );
    let pair = |value| proxima::GenericKeyValue { key: "k".into(), value };
    assert_eq!(shown(&pair(None)), r#"{"key":"k"}"#);
    assert_eq!(shown(&pair(Some(proxima::GenericValue::default()))), r#"{"key":"k","value":{}}"#);
    let info = proxima::CollectionInfo { status: 1, magic_number: 1 << 60, ..Default::default() };
    assert_eq!(
        shown(&info),
        r#"{"status":"CS_SERVING","uuid":"","magic_number":"1152921504606846976"}"#
    );
    let document = proxima::Document { primary_key: u64::MAX, score: 0.1, ..Default::default() };
    assert_eq!(
        shown(&document),
        r#"{"primary_key":"18446744073709551615","score":0.1,"forward_column_values":[]}"#
    );
}

#[test]
fn every_kind_of_value_comes_back_as_it_was_shown() {
    use ValueOneof::*;
    for (kind, text) in [
        (BytesValue(vec![0, 255].into()), r#"{"bytes_value":"AP8="}"#),
        (StringValue("\"\u{e9}\n".into()), "{\"string_value\":\"\\\"\u{e9}\\n\"}"),
        (BoolValue(false), r#"{"bool_value":false}"#),
        (Int32Value(-1), r#"{"int32_value":-1}"#),
        (Int64Value(-1), r#"{"int64_value":"-1"}"#),
        (Uint32Value(0), r#"{"uint32_value":0}"#),
        (Uint64Value(0), r#"{"uint64_value":"0"}"#),
        (FloatValue(1e-7), r#"{"float_value":1e-7}"#),
        (FloatValue(f32::MAX), r#"{"float_value":3.4028234663852886e+38}"#),
        (FloatValue(f32::INFINITY), r#"{"float_value":"Infinity"}"#),
        (DoubleValue(0.1), r#"{"double_value":0.1}"#),
        (DoubleValue(f64::NEG_INFINITY), r#"{"double_value":"-Infinity"}"#),
    ] {
        let message = proxima::GenericValue { value_oneof: Some(kind) };
        assert_eq!(shown(&message), text);
        assert_eq!(value(text), Ok(message));
    }
    let nan = proxima::GenericValue { value_oneof: Some(FloatValue(f32::NAN)) };
    assert_eq!(shown(&nan), r#"{"float_value":"NaN"}"#);
}

#[test]
fn depth_and_empty_entries_are_bounded() {
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let _ = read::<proxima::WriteRequest>(deep.as_bytes());
    let rows = format!(r#"{{"rows":[{{}}{}]}}"#, ",{}".repeat(1_000_000));
    let refused = read::<proxima::WriteRequest>(rows.as_bytes()).expect_err("nothing but braces");
    assert!(refused.contains("too many entries"), "{refused}");
    let row = r#"{"primary_key":1,"operation_type":2}"#;
    let rows = format!(r#"{{"rows":[{row}{}]}}"#, format!(",{row}").repeat(99_999));
    let write = read::<proxima::WriteRequest>(rows.as_bytes()).expect("real rows");
    assert_eq!(write.rows.len(), 100_000);
}
