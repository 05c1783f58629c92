//! What is written is read as it was, and nothing is left of what was not finished.

use std::sync::Arc;

use arrow_array::types::Int16Type;
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Int16Array, ListArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};

use super::super::{Reader, Wanted, keys, values, vectors};
use super::*;
use crate::schema::{ElementType, Value};
use crate::segment::{KindSet, forward_array};

/// Values of every kind, and some that formats are known to lose.
fn all_kinds() -> Vec<Option<Value>> {
    vec![
        Some(Value::Bytes(bytes::Bytes::from_static(b"\xff\x00"))),
        Some(Value::String("é\"\n\u{2028}".into())),
        Some(Value::Bool(true)),
        Some(Value::Int32(-7)),
        Some(Value::Int64(i64::MIN)),
        Some(Value::UInt32(u32::MAX)),
        Some(Value::UInt64(u64::MAX)),
        Some(Value::UInt64(1)),
        Some(Value::Float(0.1)),
        Some(Value::Float(f32::INFINITY)),
        Some(Value::Double(0.1 + 0.2)),
        Some(Value::Double(3.0)),
        Some(Value::Double(f64::NEG_INFINITY)),
        None,
    ]
}

/// Keys, vectors, values of all kinds in one column, and of one kind in another.
fn batch() -> RecordBatch {
    let mixed = all_kinds();
    let rows = mixed.len();
    let borrowed: Vec<Option<&Value>> = mixed.iter().map(Option::as_ref).collect();
    let mut kinds = KindSet::default();
    mixed.iter().flatten().for_each(|value| kinds.include(value));
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let numbers = (0..rows * 2).map(|n| f32::from_bits(0x3dcc_cccd + n as u32));
    let numbers = Arc::new(Float32Array::from_iter_values(numbers));
    let v: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, numbers, None));
    let bits = FixedSizeBinaryArray::try_from_iter((0..rows).map(|n| [n as u8, 1, 2, 3]));
    let bits: ArrayRef = Arc::new(bits.expect("of one width"));
    let ones: Vec<Option<Value>> = (0..rows).map(|n| Some(Value::Int32(n as i32))).collect();
    let ones: Vec<Option<&Value>> = ones.iter().map(Option::as_ref).collect();
    let mut only = KindSet::default();
    only.include(&Value::Int32(0));
    let nothing = forward_array(KindSet::default(), &vec![None; rows]);
    let mixed = forward_array(kinds, &borrowed);
    let schema = Schema::new(vec![
        Field::new("_key", DataType::UInt64, false),
        Field::new("v", v.data_type().clone(), true),
        Field::new("bits", bits.data_type().clone(), true),
        Field::new("mixed", mixed.data_type().clone(), true),
        Field::new("one", DataType::Int32, true),
        Field::new("nothing", DataType::Null, true),
    ]);
    let keys = Arc::new(UInt64Array::from_iter_values((0..rows as u64).map(|n| u64::MAX - 20 + n)));
    let arrays = vec![keys, v, bits, mixed, forward_array(only, &ones), nothing];
    RecordBatch::try_new(Arc::new(schema), arrays).expect("the columns fit")
}

fn write(path: &Path, batch: &RecordBatch, options: WriteOptions) {
    let format = Format::of_name(path).expect("a format");
    let mut writer = Writer::create(path, format, &batch.schema(), options).expect("begun");
    writer.write(&batch.slice(0, 5)).expect("written");
    assert!(!path.exists(), "it has its name when it is whole");
    writer.write(&batch.slice(5, batch.num_rows() - 5)).expect("written");
    writer.finish().expect("finished");
}

fn read(path: &Path) -> RecordBatch {
    let wanted = Wanted { has_others: true, ..Wanted::default() };
    let mut reader = Reader::open(path, None, &wanted).expect("opened");
    let mut blocks = Vec::new();
    while let Some(block) = reader.read(1_000).expect("read") {
        assert!(block.faults.is_empty(), "{:?}", block.faults);
        blocks.push(block);
    }
    let columns = (0..reader.schema().fields().len()).map(|column| {
        let parts: Vec<&dyn arrow_array::Array> =
            blocks.iter().map(|block| block.columns[column].as_ref()).collect();
        arrow_select::concat::concat(&parts).expect("of one type")
    });
    let columns: Vec<ArrayRef> = columns.collect();
    let names = reader.schema().fields().iter().map(|field| field.name().clone());
    RecordBatch::try_from_iter(names.zip(columns)).expect("the columns fit")
}

#[test]
fn rows_come_back_with_keys_vectors_and_kinds() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = batch();
    let fail = |row: usize, why: String| panic!("row {row}: {why}");
    let expected = values(batch.column(3), fail).expect("values");
    assert_eq!(expected, all_kinds());
    for name in ["a.parquet", "a.arrow", "a.feather", "a.jsonl"] {
        let path = folder.path().join(name);
        write(&path, &batch, WriteOptions::default());
        let found = read(&path);
        assert_eq!(keys(found.column(0), fail), keys(batch.column(0), fail), "{name}");
        let floats = |batch: &RecordBatch| vectors(batch.column(1), ElementType::Fp32, 2, fail);
        let (a, b) = (floats(&found).expect("vectors"), floats(&batch).expect("vectors"));
        assert_eq!(a.bytes, b.bytes, "{name}");
        let bits = |batch: &RecordBatch| vectors(batch.column(2), ElementType::Binary32, 32, fail);
        let (a, b) = (bits(&found).expect("vectors"), bits(&batch).expect("vectors"));
        assert_eq!(a.bytes, b.bytes, "{name}");
        for column in [3, 4, 5] {
            let a = values(found.column(column), fail).expect("values");
            let b = values(batch.column(column), fail).expect("values");
            assert_eq!(a, b, "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "{name}");
        std::fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn rows_with_several_vectors_come_back_with_all_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = batch();
    // 3 vectors, none, 1, and so on.
    let lists = |vectors: ArrayRef| -> ArrayRef {
        let lengths = [3, 0, 1, 2, 0, 0, 8];
        let ends = arrow_buffer::OffsetBuffer::from_lengths(lengths);
        let there: Vec<bool> = lengths.iter().map(|length| *length > 0).collect();
        let item = Arc::new(Field::new("item", vectors.data_type().clone(), false));
        Arc::new(ListArray::new(item, ends, vectors, Some(there.into())))
    };
    let columns = [
        ("_key", batch.column(0).slice(0, 7), false),
        ("v", lists(batch.column(1).clone()), true),
        ("bits", lists(batch.column(2).clone()), true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("the columns fit");
    let fail = |row: usize, why: String| panic!("row {row}: {why}");
    let all = |batch: &RecordBatch| {
        let v = vectors(batch.column(1), ElementType::Fp32, 2, fail).expect("vectors");
        let bits = vectors(batch.column(2), ElementType::Binary32, 32, fail).expect("vectors");
        assert_eq!(v.counts, [3, 0, 1, 2, 0, 0, 8]);
        assert_eq!(v.counts, bits.counts);
        (v.bytes, bits.bytes)
    };
    for name in ["a.parquet", "a.arrow", "a.feather", "a.jsonl"] {
        let path = folder.path().join(name);
        write(&path, &batch, WriteOptions::default());
        assert_eq!(all(&read(&path)), all(&batch), "{name}");
    }
    let schema = batch.project(&[0, 1]).expect("two columns").schema();
    let path = folder.path().join("a.npy");
    let error = Writer::create(&path, Format::Npy, &schema, WriteOptions::default());
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("several vectors for a row"), "{error}");
}

#[test]
fn plain_json_has_nothing_but_what_json_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.jsonl");
    write(&path, &batch(), WriteOptions { is_plain: true });
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(!text.contains('$'), "{text}");
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows[3]["mixed"], -7);
    assert_eq!(rows[8]["mixed"], 0.1);
    assert_eq!(rows[9]["mixed"], serde_json::Value::Null);
    assert_eq!(rows[0]["v"][0], 0.1);
}

#[test]
fn vectors_alone_have_their_keys_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = batch().project(&[0, 1]).expect("two columns");
    for name in ["a.npy", "a.fvecs"] {
        let path = folder.path().join(name);
        write(&path, &batch, WriteOptions::default());
        let wanted = Wanted { keys: Some(keys_path(&path)), ..Wanted::default() };
        let mut reader = Reader::open(&path, None, &wanted).expect("opened");
        assert_eq!(reader.rows(), batch.num_rows() as u64);
        reader.skip(3).expect("skipped");
        let block = reader.read(4).expect("read").expect("rows");
        let fail = |row: usize, why: String| panic!("row {row}: {why}");
        assert_eq!(keys(&block.columns[0], fail), keys(&batch.column(0).slice(3, 4), fail));
        let bytes = |array: &ArrayRef| vectors(array, ElementType::Fp32, 2, fail);
        let slice = batch.column(1).slice(3, 4);
        assert_eq!(
            bytes(&block.columns[1]).expect("vectors").bytes,
            bytes(&slice).expect("vectors").bytes
        );
    }
    let item = Arc::new(Field::new("item", DataType::Int16, false));
    let numbers = Arc::new(Int16Array::from(vec![1, -2, 3, -4]));
    let whole: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, numbers, None));
    let keys = Arc::new(UInt64Array::from(vec![5, 6]));
    let batch = RecordBatch::try_from_iter([("_key", keys as ArrayRef), ("w", whole)]);
    let path = folder.path().join("w.npy");
    let batch = batch.expect("two columns");
    let begin = || Writer::create(&path, Format::Npy, &batch.schema(), WriteOptions::default());
    let mut writer = begin().expect("begun");
    writer.write(&batch).expect("written");
    drop(writer);
    assert!(!path.exists() && !folder.path().join("w.npy.part").exists(), "nothing is left of it");
    let mut writer = begin().expect("begun");
    writer.write(&batch).expect("written");
    writer.finish().expect("finished");
    let array = read(&path);
    let list = arrow_array::cast::as_fixed_size_list_array(array.column(0)).values().clone();
    assert_eq!(
        arrow_array::cast::as_primitive_array::<Int16Type>(&list).values(),
        &[1i16, -2, 3, -4]
    );
}

#[test]
fn what_a_format_has_no_room_for_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |name: &str, columns: &[usize]| {
        let path = folder.path().join(name);
        let batch = batch().project(columns).expect("columns");
        let format = Format::of_name(&path).expect("a format");
        let schema = batch.schema();
        let created = Writer::create(&path, format, &schema, WriteOptions::default());
        let error = created.expect_err("refused").to_string();
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        error
    };
    assert!(refused("a.npy", &[0, 1, 2]).contains("--vectors"));
    assert!(refused("a.fvecs", &[0, 2]).contains("INT4 or of bits"));
    assert!(refused("a.hdf5", &[0, 1]).contains("read and not written"));
}
