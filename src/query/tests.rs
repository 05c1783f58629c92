//! What queries do over segments that are made here: whatever needs no server.

use bytes::Bytes;

use super::execute::{Place, ReplyLimits, SegmentRef, View, execute, is_short};
use super::reply::QueryProfile;
use super::rows::{RowColumns, RowPlace, count_rows, fetch_rows, next_rows};
use crate::cancel::{Cancel, CancelOnDrop};
use crate::compute::Compute;
use crate::config::ComputeConfig;
use crate::error::Error;
use crate::schema::{
    CollectionSchema, DeclaredType, Document, ElementType, KnnRequest, NewCollection, NewColumn,
    RawQueryVectors, SchemaLimits,
};
use crate::segment::{Growing, GrowingView};

fn schema() -> CollectionSchema {
    let column = NewColumn {
        name: "v".into(),
        index_type: 1,
        data_type: DeclaredType::Vector(ElementType::Fp32),
        dimension: 2,
        extra_params: Vec::new(),
    };
    let declared =
        NewCollection { name: "photos".into(), columns: vec![column], ..NewCollection::default() };
    let limits = SchemaLimits { dimension_max: 2, columns_max: 1 };
    CollectionSchema::new(declared, &limits, |_| false).expect("a schema")
}

fn vector(key: u64) -> Bytes {
    [key as f32, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn growing(schema: &CollectionSchema, rows: u64) -> std::sync::Arc<GrowingView> {
    let mut growing = Growing::new(schema, 0, 0);
    for key in 0..rows {
        let forward = Vec::new().into();
        growing.push(key, &Document { vectors: Box::new([Some(vector(key))]), forward }, None);
    }
    growing.publish()
}

#[test]
fn what_nobody_waits_for_is_not_done() {
    let schema = schema();
    let growing = growing(&schema, 10);
    let segments = [SegmentRef::Growing(&growing)];
    let compute = Compute::new(&ComputeConfig::default(), u64::MAX).expect("threads");
    let request = KnnRequest {
        column: "v".into(),
        topk: 3,
        vectors: RawQueryVectors::Packed([vector(1), vector(2)].concat().into()),
        ..KnnRequest::default()
    };
    let plan = schema.check_query(request, 2).expect("a query");
    let outcomes = |cancel: &Cancel| {
        let view = View {
            schema: &schema,
            segments: &segments,
            filter: None,
            hidden: &[],
            sequence: 0,
            cancel,
        };
        assert!(is_short(&view, &plan));
        let limits = ReplyLimits { results_max: 100, bytes_max: 1_000 };
        let find = |place| execute(&compute, place, &view, &plan, limits, QueryProfile::default());
        let place = RowPlace { key: 3, segment: 0, row: 3 };
        [
            find(Place::Socket).map(|reply| reply.expect("short").results[1].len()),
            find(Place::Search).map(|reply| reply.expect("an answer").results[1].len()),
            count_rows(&view, None).map(|rows| rows as usize),
            next_rows(&view, None, None, 7).map(|rows| rows.len()),
            fetch_rows(&view, &RowColumns::default(), &[place], 100).map(|rows| rows.keys.len()),
        ]
    };
    let waiting = CancelOnDrop::default();
    let cancel = waiting.cancel();
    let done: Vec<usize> = outcomes(&cancel).into_iter().flatten().collect();
    assert_eq!(done, [3, 3, 10, 7, 1]);
    drop(waiting);
    assert!(outcomes(&cancel).iter().all(|outcome| matches!(outcome, Err(Error::Cancelled))));
}
