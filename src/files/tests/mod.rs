//! What is written by the tools that people have comes back; what is wrong is refused in words that say why.

mod damage;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow_array::types::{Float32Type, Int32Type, Int64Type};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    DurationSecondArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeListArray, LargeStringArray,
    ListArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use half::f16;
use hdf5_pure::FileBuilder;

use super::*;
use crate::schema::{ElementType, Value};

/// Rows of [`table`].
const ROWS: usize = 300;
const DIMENSION: usize = 4;

/// Keys, vectors, and values of some types, some unset.
fn table() -> RecordBatch {
    let rows = || 0..ROWS as i64;
    let numbers = Float32Array::from_iter_values((0..ROWS * DIMENSION).map(|n| n as f32 * 0.25));
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let vectors = FixedSizeListArray::new(item, DIMENSION as i32, Arc::new(numbers), None);
    let words = rows().map(|n| (n % 3 > 0).then(|| format!("word {n}")));
    let groups: DictionaryArray<Int32Type> =
        rows().map(|n| ["red", "green", "blue"][n as usize % 3]).collect();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", vectors.data_type().clone(), true),
        Field::new("word", DataType::Utf8, true),
        Field::new("group", groups.data_type().clone(), true),
        Field::new("share", DataType::Float64, true),
        Field::new("flag", DataType::Boolean, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from_iter_values(rows().map(|n| n * 2))),
            Arc::new(vectors),
            Arc::new(words.collect::<StringArray>()),
            Arc::new(groups),
            Arc::new(
                rows().map(|n| (n % 5 > 0).then_some(n as f64 / 7.0)).collect::<Float64Array>(),
            ),
            Arc::new(rows().map(|n| Some(n % 2 == 0)).collect::<BooleanArray>()),
        ],
    )
    .expect("the columns fit")
}

fn ipc_options(compression: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::default().try_with_compression(compression).expect("a known one")
}

fn write_ipc(path: &Path, batch: &RecordBatch, compression: Option<CompressionType>) {
    let file = File::create(path).expect("created");
    let options = ipc_options(compression);
    let mut writer =
        FileWriter::try_new_with_options(file, &batch.schema(), options).expect("begun");
    for start in (0..batch.num_rows()).step_by(128) {
        let rows = 128.min(batch.num_rows() - start);
        writer.write(&batch.slice(start, rows)).expect("written");
    }
    writer.finish().expect("finished");
}

fn write_stream(path: &Path, batch: &RecordBatch) {
    let file = File::create(path).expect("created");
    let mut writer = StreamWriter::try_new(file, &batch.schema()).expect("begun");
    writer.write(&batch.slice(0, 1)).expect("written");
    writer.write(&batch.slice(1, batch.num_rows() - 1)).expect("written");
    writer.finish().expect("finished");
}

fn write_parquet(path: &Path, batch: &RecordBatch, compression: Compression) {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(90))
        .build();
    let file = File::create(path).expect("created");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("begun");
    writer.write(batch).expect("written");
    writer.close().expect("finished");
}

fn write_json(path: &Path, batch: &RecordBatch) {
    let mut file = File::create(path).expect("created");
    let columns = all_values(batch);
    let vectors = all_vectors(batch.column(1), ElementType::Fp32);
    for row in 0..batch.num_rows() {
        let mut object = serde_json::Map::new();
        for (name, values) in &columns {
            let value = match &values[row] {
                None => continue,
                Some(Value::Int64(n)) => serde_json::json!(n),
                Some(Value::Double(x)) => serde_json::json!(x),
                Some(Value::Bool(truth)) => serde_json::json!(truth),
                Some(Value::String(text)) => serde_json::json!(text),
                other => panic!("{other:?}"),
            };
            object.insert(name.clone(), value);
        }
        object.insert("v".into(), serde_json::json!(vectors[row]));
        writeln!(file, "{}", serde_json::Value::Object(object)).expect("written");
    }
}

/// An array as `numpy.save` writes it.
fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), bytes].concat()
}

fn write_npz(path: &Path, deflate: bool, arrays: &[(&str, Vec<u8>)]) {
    let method = match deflate {
        true => zip::CompressionMethod::Deflated,
        false => zip::CompressionMethod::Stored,
    };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut writer = zip::ZipWriter::new(File::create(path).expect("created"));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), options).expect("begun");
        writer.write_all(bytes).expect("written");
    }
    writer.finish().expect("finished");
}

fn npz_arrays() -> Vec<(&'static str, Vec<u8>)> {
    let batch = table();
    let keys: Vec<u8> = (0..ROWS as i64).flat_map(|n| (n * 2).to_le_bytes()).collect();
    let vectors: Vec<u8> = all_vectors(batch.column(1), ElementType::Fp32)
        .concat()
        .iter()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    let words: Vec<u8> = (0..ROWS)
        .flat_map(|n| {
            let word: Vec<char> = format!("wört {n}").chars().collect();
            (0..9).flat_map(move |at| (word.get(at).copied().unwrap_or('\0') as u32).to_le_bytes())
        })
        .collect();
    vec![
        ("id", npy("<i8", "(300,)", &keys)),
        ("v", npy(">f4", "(300, 4)", &vectors)),
        ("word", npy("<U9", "(300,)", &words)),
        ("other", npy("<f8", "(2,)", &[0; 16])),
    ]
}

fn write_hdf5(path: &Path, chunked: bool) {
    let batch = table();
    let vectors = all_vectors(batch.column(1), ElementType::Fp32).concat();
    let mut file = FileBuilder::new();
    let train = file.create_dataset("train").with_f32_data(&vectors).with_shape(&[300, 4]);
    if chunked {
        train.with_chunks(&[64, 4]).with_deflate(6);
    }
    let keys: Vec<i64> = (0..ROWS as i64).map(|n| n * 2).collect();
    file.create_dataset("id").with_i64_data(&keys).with_shape(&[300]);
    file.create_dataset("test").with_f32_data(&vectors[..40]).with_shape(&[10, 4]);
    file.write(path).expect("written");
}

/// All forward columns, dictionaries decoded, without the vectors.
fn all_values(batch: &RecordBatch) -> Vec<(String, Vec<Option<Value>>)> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns.filter(|(field, _)| form(field.data_type()).is_none());
    columns
        .map(|(field, array)| {
            let values = values(array, |row, why| panic!("row {row}: {why}"));
            (field.name().clone(), values.expect("a type of values"))
        })
        .collect()
}

fn all_vectors(array: &ArrayRef, element: ElementType) -> Vec<Vec<f32>> {
    let fail = |row, why| panic!("row {row}: {why}");
    let found = vectors(array, element, DIMENSION as u32, fail).expect("vectors");
    assert!(found.counts.iter().all(|count| *count == 1));
    let numbers: Vec<f32> =
        found.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    numbers.chunks(DIMENSION).map(<[f32]>::to_vec).collect()
}

fn open(path: &Path) -> std::result::Result<Reader, FileError> {
    Reader::open(path, None, &Wanted { names: Vec::new(), has_others: true, ..Wanted::default() })
}

/// Reads the columns of these names block by block, from a row on, with the rows that have faults.
fn read_from(
    path: &Path,
    names: &[&str],
    first: u64,
    rows_max: usize,
) -> std::result::Result<(Vec<Block>, SchemaRef), FileError> {
    let mut reader = open(path)?;
    let schema = reader.schema().clone();
    let place = |name: &&str| {
        let place = schema.fields().iter().position(|field| field.name() == name);
        place.unwrap_or_else(|| panic!("no {name} in {schema:?}"))
    };
    reader.select(&names.iter().map(place).collect::<Vec<_>>())?;
    reader.skip(first)?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.read(rows_max)? {
        assert!(block.rows <= rows_max && block.columns.len() == names.len());
        assert!(block.columns.iter().all(|array| array.len() == block.rows));
        blocks.push(block);
    }
    assert_eq!(reader.at(), reader.rows());
    Ok((blocks, schema))
}

/// Reads a file in several ways and compares keys, vectors and words with those of [`table`].
fn check_table(path: &Path, vector: &str, word: Option<&str>) {
    let batch = table();
    let expected_vectors = all_vectors(batch.column(1), ElementType::Fp32);
    for (first, rows_max) in [(0, 1_000), (0, 7), (1, 100), (130, 64), (299, 9)] {
        let names: Vec<&str> = word.into_iter().chain([vector, "id"]).collect();
        let (blocks, _) = read_from(path, &names, first, rows_max).expect("read");
        let mut row = first as usize;
        for block in blocks {
            assert!(block.faults.is_empty(), "{:?}", block.faults);
            let columns = &block.columns[usize::from(word.is_some())..];
            let keys = keys(&columns[1], |row, why| panic!("row {row}: {why}"));
            let vectors = all_vectors(&columns[0], ElementType::Fp32);
            for (key, vector) in keys.into_iter().zip(vectors) {
                assert_eq!((key, &vector), (row as u64 * 2, &expected_vectors[row]));
                row += 1;
            }
            if word.is_some() {
                let words = values(&block.columns[0], |_, why| panic!("{why}")).expect("values");
                assert_eq!(words.len(), block.rows);
            }
        }
        assert_eq!(row, ROWS);
    }
}

#[test]
fn every_format_gives_the_same_rows_from_any_row_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let batch = table();
    for (name, compression) in [
        ("plain.arrow", None),
        ("lz4.feather", Some(CompressionType::LZ4_FRAME)),
        ("zstd.ipc", Some(CompressionType::ZSTD)),
    ] {
        write_ipc(&at(name), &batch, compression);
        check_table(&at(name), "v", Some("word"));
    }
    write_stream(&at("a.arrows"), &batch);
    check_table(&at("a.arrows"), "v", Some("word"));
    for (name, compression) in [
        ("none.parquet", Compression::UNCOMPRESSED),
        ("snappy.parquet", Compression::SNAPPY),
        ("gzip.parquet", Compression::GZIP(Default::default())),
        ("zstd.parquet", Compression::ZSTD(ZstdLevel::default())),
        ("lz4.parquet", Compression::LZ4_RAW),
    ] {
        write_parquet(&at(name), &batch, compression);
        check_table(&at(name), "v", Some("group"));
    }
    write_json(&at("a.jsonl"), &batch);
    check_table(&at("a.jsonl"), "v", Some("word"));
    for deflate in [false, true] {
        write_npz(&at("a.npz"), deflate, &npz_arrays()[..3]);
        check_table(&at("a.npz"), "v", Some("word"));
        write_hdf5(&at("a.h5"), deflate);
        check_table(&at("a.h5"), "train", None);
    }
}

#[test]
fn values_come_back_with_their_kinds_whatever_the_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let batch = table();
    let expected = all_values(&batch);
    let names: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let at = |name: &str| folder.path().join(name);
    write_ipc(&at("a.arrow"), &batch, None);
    write_parquet(&at("a.parquet"), &batch, Compression::SNAPPY);
    write_json(&at("a.jsonl"), &batch);
    for name in ["a.arrow", "a.parquet", "a.jsonl"] {
        let (blocks, _) = read_from(&at(name), &names, 0, 70).expect("read");
        for (column, (column_name, expected)) in expected.iter().enumerate() {
            let read: Vec<Option<Value>> = blocks
                .iter()
                .flat_map(|block| values(&block.columns[column], |_, why| panic!("{why}")))
                .flatten()
                .collect();
            assert_eq!(&read, expected, "{name}: {column_name}");
        }
    }
}

#[test]
fn every_type_of_arrow_becomes_the_kind_that_holds_it() {
    let check = |array: ArrayRef, expected: Value| {
        let data_type = array.data_type().clone();
        assert_eq!(check_values(&data_type), Ok(()), "{data_type}");
        assert_eq!(value_kind(&data_type), Some(expected.kind()), "{data_type}");
        let found = values(&array, |_, why| panic!("{why}")).expect("values");
        assert_eq!(found, [Some(expected), None], "{data_type}");
    };
    check(Arc::new(Int8Array::from(vec![Some(-1), None])), Value::Int32(-1));
    check(Arc::new(Int16Array::from(vec![Some(-2), None])), Value::Int32(-2));
    check(Arc::new(Int32Array::from(vec![Some(-3), None])), Value::Int32(-3));
    check(Arc::new(Int64Array::from(vec![Some(-4), None])), Value::Int64(-4));
    check(Arc::new(UInt8Array::from(vec![Some(1), None])), Value::UInt32(1));
    check(Arc::new(UInt16Array::from(vec![Some(2), None])), Value::UInt32(2));
    check(Arc::new(UInt32Array::from(vec![Some(3), None])), Value::UInt32(3));
    check(Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])), Value::UInt64(u64::MAX));
    check(Arc::new(Float16Array::from(vec![Some(f16::ONE), None])), Value::Float(1.0));
    check(Arc::new(Float32Array::from(vec![Some(0.1), None])), Value::Float(0.1));
    check(Arc::new(Float64Array::from(vec![Some(0.1), None])), Value::Double(0.1));
    check(Arc::new(BooleanArray::from(vec![Some(true), None])), Value::Bool(true));
    check(Arc::new(StringArray::from(vec![Some("é"), None])), Value::String("é".into()));
    check(Arc::new(LargeStringArray::from(vec![Some("é"), None])), Value::String("é".into()));
    check(Arc::new(StringViewArray::from(vec![Some("é"), None])), Value::String("é".into()));
    let bytes = Value::Bytes(bytes::Bytes::from_static(b"\xff\x00"));
    check(Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None])), bytes.clone());
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [Some(b"\xff\x00"), None].into_iter(),
        2,
    );
    check(Arc::new(fixed.expect("of one width")), bytes);
    check(Arc::new(TimestampSecondArray::from(vec![Some(5), None])), Value::Int64(5_000));
    check(Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None])), Value::Int64(5));
    check(Arc::new(TimestampNanosecondArray::from(vec![Some(5_000), None])), Value::Int64(5));
    check(Arc::new(DurationSecondArray::from(vec![Some(-1), None])), Value::Int64(-1_000));
    check(Arc::new(Date32Array::from(vec![Some(2), None])), Value::Int64(172_800_000));
    let dictionary: DictionaryArray<Int32Type> = [Some("a"), None].into_iter().collect();
    check(Arc::new(dictionary), Value::String("a".into()));
}

#[test]
fn a_struct_of_kinds_is_one_value_and_other_nested_types_are_refused() {
    let fields = Fields::from(vec![
        Field::new("int32", DataType::Int32, true),
        Field::new("string", DataType::LargeUtf8, true),
    ]);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None, None])),
        Arc::new(LargeStringArray::from(vec![None, Some("x"), None])),
    ];
    let mixed: ArrayRef = Arc::new(StructArray::new(fields, arrays, None));
    let found = values(&mixed, |_, why| panic!("{why}")).expect("values");
    assert_eq!(found, [Some(Value::Int32(1)), Some(Value::String("x".into())), None]);
    let nothing: ArrayRef = Arc::new(NullArray::new(2));
    assert_eq!(values(&nothing, |_, _| ()).expect("values"), [None, None]);

    let list: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]));
    assert!(check_values(list.data_type()).expect_err("nested").contains("not nested"));
    assert!(values(&list, |_, _| ()).expect_err("nested").contains("not nested"));
    let decimal: ArrayRef = Arc::new(Decimal128Array::from(vec![1]));
    assert!(values(&decimal, |_, _| ()).expect_err("no kind").contains("cast it to a double"));
    let mut faults = Vec::new();
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1, 1_000]));
    let found = values(&times, |row, why| faults.push((row, why))).expect("values");
    assert_eq!(found, [None, Some(Value::Int64(1))]);
    assert_eq!(faults, [(0, "1 is not exact in microseconds".to_owned())]);
}

#[test]
fn keys_are_whole_numbers_that_are_set() {
    let check = |array: ArrayRef, expected: &[&str]| {
        let mut faults = Vec::new();
        keys(&array, |row, why| faults.push(format!("{row}: {why}")));
        assert_eq!(faults, expected);
    };
    let most = u64::MAX - 1;
    check(Arc::new(UInt64Array::from(vec![0, most])), &[]);
    check(
        Arc::new(Int64Array::from(vec![Some(1), Some(-1), None])),
        &["1: -1, and keys are 0 to 18446744073709551614", "2: no whole number, which keys are"],
    );
    check(
        Arc::new(UInt64Array::from(vec![u64::MAX])),
        &["0: 18446744073709551615, and keys are 0 to 18446744073709551614"],
    );
    check(Arc::new(LargeStringArray::from(vec!["7"])), &["0: no whole number, which keys are"]);
}

/// The bytes and faults of lists of doubles.
fn encoded(rows: &[&[f64]], element: ElementType, dimension: u32) -> (Vec<u8>, Vec<String>) {
    let rows = rows.iter().map(|row| Some(row.iter().map(|x| Some(*x))));
    let array: ArrayRef =
        Arc::new(LargeListArray::from_iter_primitive::<arrow_array::types::Float64Type, _, _>(
            rows,
        ));
    let mut faults = Vec::new();
    let found =
        vectors(&array, element, dimension, |row, why| faults.push(format!("{row}: {why}")));
    (found.expect("lists").bytes, faults)
}

#[test]
fn vectors_take_the_form_of_their_column_or_say_which_element_cannot() {
    let good = |element, numbers: &[f64], dimension, expected: &[u8]| {
        let (bytes, faults) = encoded(&[numbers], element, dimension);
        assert_eq!((&bytes[..], faults.len()), (expected, 0), "{element:?}: {faults:?}");
    };
    good(ElementType::Fp32, &[0.1], 1, &0.1f32.to_le_bytes());
    good(ElementType::Fp16, &[0.1], 1, &f16::from_f64(0.1).to_le_bytes());
    good(ElementType::Int8, &[-128.0, 127.0], 2, &[0x80, 0x7f]);
    good(ElementType::Int16, &[-2.0], 1, &[0xfe, 0xff]);
    good(ElementType::Int4, &[-8.0, 7.0], 2, &[0x78]);
    good(ElementType::Binary32, &[4_294_967_295.0, 1.0], 64, &[255, 255, 255, 255, 1, 0, 0, 0]);
    good(ElementType::Binary64, &[1.0], 64, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let bad = |element, numbers: &[f64], words: &str| {
        let (bytes, faults) = encoded(&[&[0.0, 0.0], numbers], element, 2);
        let each = element.vector_bytes(2).expect("a dimension");
        assert_eq!(bytes, vec![0; 2 * each], "faulty vectors take their place");
        assert!(faults.len() == 1 && faults[0].starts_with("1: "), "{faults:?}");
        assert!(faults[0].contains(words), "{faults:?} has no {words}");
    };
    bad(ElementType::Fp32, &[0.0, f64::NAN], "element 1 is NaN, not a finite number of FP32");
    bad(ElementType::Fp32, &[1e39, 0.0], "element 0 is 1e39, not a finite");
    bad(ElementType::Fp16, &[1e6, 0.0], "element 0 is 1000000.0, not a finite number of FP16");
    bad(ElementType::Int8, &[0.5, 0.0], "element 0 is 0.5, and INT8 holds whole numbers");
    bad(ElementType::Int8, &[0.0, 128.0], "element 1 is 128, which INT8 does not hold");
    bad(ElementType::Int4, &[0.0, 8.0], "element 1 is 8, which INT4 does not hold");
    bad(ElementType::Fp32, &[1.0], "a vector of 1 numbers, and 2 are wanted");
    bad(ElementType::Fp32, &[1.0, 2.0, 3.0], "a vector of 3 numbers, and 2 are wanted");

    let wide: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some([Some(16_777_216)]),
        Some([Some(16_777_217)]),
        None,
        Some([None]),
    ]));
    let mut faults = Vec::new();
    let found = vectors(&wide, ElementType::Fp32, 1, |row, why| faults.push((row, why)));
    let found = found.expect("lists");
    assert_eq!((found.bytes.len(), found.counts), (12, vec![1, 1, 0, 1]));
    let words = [
        (1, "element 0 is 16777217, which FP32 does not hold exactly".to_owned()),
        (3, "element 0 is null".to_owned()),
    ];
    assert_eq!(faults, words);

    let packed = FixedSizeBinaryArray::try_from_iter([[0x21u8], [0xf8]].into_iter());
    let packed: ArrayRef = Arc::new(packed.expect("of one width"));
    let found = vectors(&packed, ElementType::Int4, 2, |_, why| panic!("{why}"));
    assert_eq!(found.expect("bytes").bytes, [0x21, 0xf8]);
    let mut words = String::new();
    vectors(&packed, ElementType::Binary32, 32, |_, why| words = why).expect("bytes");
    assert_eq!(words, "a vector of 1 bytes, and 4 are wanted");
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["no"]));
    assert!(vectors(&texts, ElementType::Fp32, 1, |_, _| ()).is_err());
}

#[test]
fn sliced_lists_are_read_where_they_are() {
    let batch = table();
    let all = all_vectors(batch.column(1), ElementType::Fp32);
    let slice = batch.column(1).slice(17, 5);
    assert_eq!(all_vectors(&slice, ElementType::Fp32), all[17..22]);
    let lists = |from: i64| (from..from + 10).map(|n| Some(vec![Some(n as f32); DIMENSION]));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists(0)));
    let slice = list.slice(4, 3);
    assert_eq!(all_vectors(&slice, ElementType::Fp32), [[4.0; 4], [5.0; 4], [6.0; 4]]);
    assert_eq!(first_length(&slice), Some(DIMENSION));
}

#[test]
fn lists_of_vectors_are_those_of_rows_with_several() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.jsonl");
    let lines = ["[1, 2]", "[[3, 4], [5, 6]]", "null", "[]", "[[7, 8, 9]]", "[[7, 8], [9, 1e300]]"];
    let lines: String = lines.iter().map(|v| format!("{{\"v\": {v}}}\n")).collect();
    std::fs::write(&path, lines).expect("written");
    let mut reader = open(&path).expect("opened");
    assert_eq!(
        form(reader.schema().field(0).data_type()),
        Some(Form::Numbers(None, ElementType::Fp32))
    );
    assert!(several(reader.schema().field(0).data_type()).is_some());
    let block = reader.read(10).expect("read").expect("rows");
    assert_eq!(first_length(&block.columns[0]), Some(2));
    for first in [0, 1] {
        let slice = block.columns[0].slice(first, 6 - first);
        let mut faults = Vec::new();
        let found = vectors(&slice, ElementType::Int8, 2, |row, why| faults.push((row, why)));
        let found = found.expect("vectors");
        assert_eq!(found.counts, [1, 2, 0, 0, 1, 1][first..]);
        let bytes = [1, 2, 3, 4, 5, 6, 0, 0, 0, 0];
        assert_eq!(found.bytes, bytes[2 * first..], "zeros where rows are faulty");
        assert_eq!(faults[0].0, 4 - first);
        assert_eq!(faults[0].1, "vector 0: a vector of 3 numbers, and 2 are wanted");
        assert!(faults[1].1.starts_with("vector 1: element 1 is "), "{}", faults[1].1);
    }
}

fn json_error(text: &str) -> (Vec<String>, Option<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, text).expect("written");
    let mut reader = match open(&path) {
        Ok(reader) => reader,
        Err(cause) => return (Vec::new(), Some(cause.fault.to_string())),
    };
    let mut faults = Vec::new();
    while let Some(block) = reader.read(1_000).expect("read") {
        faults.extend(block.faults.iter().map(|(row, fault)| format!("{row}: {fault}")));
    }
    (faults, None)
}

#[test]
fn lines_of_json_that_are_wrong_are_named_by_line_and_column() {
    let rows = "{\"id\": 1, \"v\": [1, 2]}\n\n{\"id\": 2, \"v\": [1, 2]}\n";
    let check = |line: &str, words: &str| {
        let (faults, error) = json_error(&format!("{rows}{line}\n{rows}"));
        assert_eq!(error, None, "{line}");
        assert_eq!(faults.len(), 1, "{line}: {faults:?}");
        assert!(faults[0].starts_with("2: ") && faults[0].contains("line 4: "), "{faults:?}");
        assert!(faults[0].contains(words), "{faults:?} has no {words:?}");
    };
    check("{\"id\": 3", "no JSON object at character");
    check("[1, 2]", "no JSON object");
    check("{\"id\": 1} {\"id\": 2}", "trailing characters");
    check("{\"id\": {\"a\": {\"b\": 1}}}", "column \"id\": line 4: an object");
    check(
        "{\"v\": [1, \"2\"]}",
        "column \"v\": line 4: an array with elements that are no numbers",
    );
    check("{\"v\": [[1], 2]}", "elements that are no numbers");
    check("{\"v\": [[[1]]]}", "elements that are no numbers");
    check("{\"v\": [{\"$bytes\": \"AA==\"}]}", "of another form than rows before");
    check("{\"v\": 7}", "a value, where other rows have arrays");
    check("{\"id\": [7]}", "an array, where rows before have values");
    check("{\"id\": 1, \"id\": 2}", "is there twice");
    check("{\"id\": {\"$int32\": 3000000000}}", "3000000000 is no int32");
    check("{\"id\": {\"$bytes\": \"?\"}}", "is no bytes");
    check("{\"id\": {\"$int32\": 1, \"x\": 2}}", "an object");
    check("{\"id\": 1e999}", "number out of range");
    check("{\"id\": \"\\ud800\"}", "no JSON object");
    // Nothing here is as deep as a reader's stack.
    check(&format!("{{\"id\": {}", "[".repeat(200_000)), "no JSON object");
    check(&format!("{{\"id\": {}", "{\"a\":".repeat(200_000)), "no JSON object");
    let (_, error) = json_error("[\n{\"id\": 1}\n]\n");
    assert!(error.expect("one array").contains("jq -c '.[]'"));
    let (_, error) = json_error("no JSON at all\n");
    assert!(error.expect("no JSON").contains("row 0: line 1: no JSON object"));
    let late = "{\"a\": 1}\n".repeat(10_001) + "{\"b\": 1}\n";
    let (faults, _) = json_error(&late);
    assert!(faults[0].contains("column \"b\": line 10002: a column that"), "{faults:?}");
}

#[test]
fn json_tells_kinds_that_it_has_no_words_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.jsonl");
    let cells = [
        ("7", Value::Int64(7)),
        ("18446744073709551615", Value::UInt64(u64::MAX)),
        ("0.1", Value::Double(0.1)),
        ("1.0", Value::Double(1.0)),
        ("\"x\"", Value::String("x".into())),
        ("false", Value::Bool(false)),
        ("{\"$int32\": -7}", Value::Int32(-7)),
        ("{\"$uint32\": 7}", Value::UInt32(7)),
        ("{\"$uint64\": 7}", Value::UInt64(7)),
        ("{\"$float\": 0.1}", Value::Float(0.1)),
        ("{\"$float\": \"-Infinity\"}", Value::Float(f32::NEG_INFINITY)),
        ("{\"$bytes\": \"/wA=\"}", Value::Bytes(bytes::Bytes::from_static(b"\xff\x00"))),
    ];
    let lines = cells.iter().map(|(text, _)| format!("{{\"a\": {text}}}\n"));
    std::fs::write(&path, format!("\u{feff}{}", lines.collect::<String>())).expect("written");
    let (blocks, _) = read_from(&path, &["a"], 0, 1_000).expect("read");
    let found = values(&blocks[0].columns[0], |_, why| panic!("{why}")).expect("values");
    let expected: Vec<Option<Value>> = cells.into_iter().map(|(_, value)| Some(value)).collect();
    assert_eq!(found, expected);
}

#[test]
fn columns_of_other_lengths_are_left_out_where_one_is_meant_and_refused_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.npz");
    write_npz(&path, false, &npz_arrays());
    let error = open(&path).expect_err("of several lengths").to_string();
    assert!(error.contains("\"id\" has 300 rows, and \"other\" has 2"), "{error}");
    let wanted = Wanted { names: vec!["v".into()], has_others: true, ..Wanted::default() };
    let reader = Reader::open(&path, None, &wanted).expect("one is meant");
    let names: Vec<&String> = reader.schema().fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["id", "v", "word"]);
    // The layout of ann-benchmarks says itself which rows it has.
    let path = folder.path().join("a.h5");
    write_hdf5(&path, false);
    assert_eq!(open(&path).expect("train is meant").rows(), 300);
    let wanted = Wanted { names: vec!["test".into()], has_others: true, ..Wanted::default() };
    assert_eq!(Reader::open(&path, None, &wanted).expect("test is meant").rows(), 10);
}

#[test]
fn files_are_known_by_their_names_or_else_by_their_first_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    write_ipc(&at("a"), &table(), None);
    assert_eq!(open(&at("a")).expect("Arrow").rows(), ROWS as u64);
    write_parquet(&at("b"), &table(), Compression::SNAPPY);
    assert_eq!(open(&at("b")).expect("Parquet").rows(), ROWS as u64);
    std::fs::write(at("c"), "hello").expect("written");
    assert!(open(&at("c")).expect_err("unknown").to_string().contains("--format"));
    assert!(open(folder.path()).expect_err("a folder").to_string().contains("it is a folder"));
    let missing = open(&at("none.npy")).expect_err("not there").to_string();
    assert!(missing.contains("none.npy: No such file"), "{missing}");
    // Of the wrong format each says so.
    for name in ["x.arrow", "x.parquet", "x.jsonl", "x.npy", "x.npz", "x.fvecs", "x.hdf5"] {
        std::fs::write(at(name), [7; 1_000]).expect("written");
        open(&at(name)).expect_err(name);
        std::fs::write(at(name), "").expect("written");
        assert!(open(&at(name)).is_err(), "{name} is empty");
    }
}
