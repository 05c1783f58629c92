//! What is written comes back; what is damaged, hostile or wrong is refused in words that say why.

use std::path::Path;

use hdf5_pure::{AttrValue, FileBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::bench::Kind;

fn read_error(path: &Path) -> String {
    let error = read(path, Cut::default()).expect_err("refused").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

/// A `.npy` file of the header and the bytes.
fn npy_of(header: &str, bytes: &[u8]) -> Vec<u8> {
    let length = header.len() as u16;
    [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), header.as_bytes(), bytes].concat()
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
}

/// A folder of which the queries are good, and the rows are these.
fn folder_of_npy(rows: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let query: Vec<u8> = [0.5f32, 1.5].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(folder.path().join("query.npy"), npy_of(&header("<f4", "(1, 2)"), &query))
        .and_then(|()| std::fs::write(folder.path().join("base.npy"), rows))
        .expect("written");
    folder
}

fn npy_error(rows: &[u8]) -> String {
    let folder = folder_of_npy(rows);
    let error = read(folder.path(), Cut::default()).expect_err("refused").to_string();
    assert!(error.contains("base.npy: ") || error.contains("query.npy: "), "{error}");
    error
}

#[test]
fn vectors_come_back_from_fvecs_and_damage_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let vectors = Vectors::made(Kind::Clustered, 50, 5, 16, 1);
    write(&vectors, folder.path()).expect("written");
    assert_eq!(read(folder.path(), Cut::default()).expect("read").vectors, vectors);
    let cut = Cut { rows: Some(7), queries: Some(100) };
    let first = read(folder.path(), cut).expect("read").vectors;
    assert_eq!((first.len(), first.queries.len()), (7, 5 * 16));
    let path = folder.path().join("base.fvecs");
    let bytes = std::fs::read(&path).expect("bytes");
    let error_of = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        read(folder.path(), Cut::default()).expect_err("damaged").to_string()
    };
    assert!(
        error_of(&bytes[..bytes.len() - 1])
            .contains("it is cut short, or its vectors differ in dimension")
    );
    let mut other = bytes.clone();
    other[68..72].copy_from_slice(&17i32.to_le_bytes());
    assert!(error_of(&other).contains("byte 68 has dimension 17, expected 16"));
    other = bytes.clone();
    other[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(error_of(&other).contains("row 0: element 0 is NaN"));
    assert!(error_of(&[0xff; 8]).contains("dimension -1"));
    assert!(error_of(&[]).contains("base.fvecs: no rows"));
}

#[test]
fn a_folder_says_which_file_is_missing_twice_there_or_of_another_dimension() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(read_error(folder.path()).contains("neither base.fvecs nor base.npy is there"));
    write(&Vectors::made(Kind::Clustered, 3, 1, 3, 1), folder.path()).expect("written");
    let rows = npy_of(&header("<f4", "(1, 2)"), &[0; 8]);
    std::fs::write(folder.path().join("base.npy"), &rows).expect("written");
    assert!(read_error(folder.path()).contains("both base.fvecs and base.npy are there"));
    std::fs::remove_file(folder.path().join("base.fvecs")).expect("removed");
    let error = read_error(folder.path());
    assert!(error.contains("query.fvecs: dimension 3, but"), "{error}");
    assert!(error.contains("base.npy has dimension 2"), "{error}");
    let other = folder.path().join("vectors.bin");
    assert!(read_error(&other).contains("No such file"));
    std::fs::write(&other, [0; 8]).expect("written");
    assert!(read_error(&other).contains("an .hdf5 or .h5 file is wanted"));
}

#[test]
fn npy_floats_of_every_width_and_order_are_read() {
    let numbers = [1.0f32, -2.5, 0.0, 1024.0];
    type Encode = fn(f32) -> Vec<u8>;
    let types: [(&str, Encode); 6] = [
        ("<f4", |x| x.to_le_bytes().into()),
        (">f4", |x| x.to_be_bytes().into()),
        ("<f8", |x| f64::from(x).to_le_bytes().into()),
        (">f8", |x| f64::from(x).to_be_bytes().into()),
        ("<f2", |x| half::f16::from_f32(x).to_le_bytes().into()),
        (">f2", |x| half::f16::from_f32(x).to_be_bytes().into()),
    ];
    for (descr, encode) in types {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(encode).collect();
        let folder = folder_of_npy(&npy_of(&header(descr, "(2, 2)"), &bytes));
        assert_eq!(read(folder.path(), Cut::default()).expect("read").vectors.rows, numbers);
        let cut = Cut { rows: Some(1), queries: None };
        assert_eq!(read(folder.path(), cut).expect("read").vectors.rows, numbers[..2], "{descr}");
    }
    // Columns that lie one after the other.
    let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }";
    let columns = [numbers[0], numbers[2], numbers[1], numbers[3]];
    let bytes: Vec<u8> = columns.into_iter().flat_map(f32::to_le_bytes).collect();
    let folder = folder_of_npy(&npy_of(fortran, &bytes));
    assert_eq!(read(folder.path(), Cut::default()).expect("read").vectors.rows, numbers);
    // Keys in another order, other spaces, the second version of the format.
    let header = b"{\"shape\":(1,2),\"fortran_order\":False,\"descr\":\"<f4\"}";
    let bytes = [b"\x93NUMPY\x02\x00".as_slice(), &[header.len() as u8, 0, 0, 0], header, &[0; 8]];
    let folder = folder_of_npy(&bytes.concat());
    assert_eq!(read(folder.path(), Cut::default()).expect("read").vectors.rows, [0.0; 2]);
}

#[test]
fn npy_files_that_are_wrong_are_refused_with_the_reason() {
    let f4 = |shape: &str| npy_of(&header("<f4", shape), &[0; 16]);
    assert!(npy_error(&f4("(4,)")).contains("one number a row, where vectors are wanted"));
    assert!(npy_error(&f4("()")).contains("shape []"));
    assert!(npy_error(&f4("(0, 2)")).contains("no rows"));
    assert!(npy_error(&f4("(2, 0)")).contains("dimension 0, expected 1 to 65536"));
    assert!(npy_error(&f4("(1, 4)")).contains("dimension 2, but"));
    assert!(npy_error(&f4("(3, 2)")).contains("16 bytes of elements, where 24 are wanted"));
    // Neither allocated nor multiplied beyond what a number holds.
    for rows in ["1000000000000", "18446744073709551615"] {
        assert!(npy_error(&f4(&format!("({rows}, 65536)"))).contains("cut short"), "{rows}");
    }
    assert!(npy_error(&f4("(18446744073709551616, 2)")).contains("not a header"));
    assert!(npy_error(&f4("(-1, 2)")).contains("not a header"));
    for (descr, why) in [
        ("<i4", "where floats are wanted"),
        ("|u1", "where floats are wanted"),
        ("|b1", "where vectors of numbers are wanted"),
        ("<c8", "where numbers or text are wanted"),
        ("|O", "pickled Python objects"),
        ("", "where numbers or text are wanted"),
        ("é4", "where numbers or text are wanted"),
    ] {
        let error = npy_error(&npy_of(&header(descr, "(2, 2)"), &[0; 64]));
        assert!(error.contains(why), "{error}");
    }
    let fields = "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (2,), }";
    assert!(npy_error(&npy_of(fields, &[0; 64])).contains("where numbers or text"));
    let large = f64::MAX.to_le_bytes().repeat(4);
    assert!(
        npy_error(&npy_of(&header("<f8", "(2, 2)"), &large))
            .contains("row 0: element 0 is 1.7976931348623157e308")
    );
    assert!(npy_error(b"PK\x03\x04 not numpy").contains("does not begin as .npy files do"));
    assert!(npy_error(b"\x93NUMPY\x09\x00\x00\x00").contains("version 9"));
    let hostile = b"\x93NUMPY\x02\x00\xff\xff\xff\xff";
    assert!(npy_error(hostile).contains("a header of 4294967295 bytes, and 10000 are allowed"));
    let whole = f4("(2, 2)");
    for length in 0..whole.len() {
        npy_error(&whole[..length]);
    }
}

/// Rows, queries and their neighbours in the layout of ann-benchmarks.
fn ann_benchmarks(path: &Path, change: impl FnOnce(&mut FileBuilder, &Vectors)) {
    let vectors = Vectors::made(Kind::Clustered, 40, 6, 8, 1);
    let mut file = FileBuilder::new();
    file.set_attr("distance", AttrValue::VarLenString("angular".into()));
    change(&mut file, &vectors);
    file.write(path).expect("written");
}

fn good(file: &mut FileBuilder, vectors: &Vectors) {
    let keys: Vec<i32> = (0..6 * 10).map(|place| place % 40).collect();
    let distances: Vec<f32> = (0..6 * 10).map(|place| ((place % 10) / 4) as f32).collect();
    file.create_dataset("train").with_f32_data(&vectors.rows).with_shape(&[40, 8]);
    file.create_dataset("test")
        .with_f32_data(&vectors.queries)
        .with_shape(&[6, 8])
        .with_chunks(&[4, 8])
        .with_deflate(6);
    file.create_dataset("neighbors").with_i32_data(&keys).with_shape(&[6, 10]);
    file.create_dataset("distances").with_f32_data(&distances).with_shape(&[6, 10]);
}

#[test]
fn the_layout_of_ann_benchmarks_is_read_with_metric_and_neighbours() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.hdf5");
    ann_benchmarks(&path, good);
    let given = read(&path, Cut::default()).expect("read");
    assert_eq!(given.vectors, Vectors::made(Kind::Clustered, 40, 6, 8, 1));
    assert_eq!(given.metric(&path).expect("known"), Some(Metric::Cosine));
    let neighbours = given.neighbours.expect("neighbours");
    // Distances are 0 four times, 1 four times, 2 twice: those as far as the last one count.
    let nearest = neighbours.nearest(5).expect("ten are there");
    assert_eq!(nearest[1], (10..18).collect::<HashSet<u64>>());
    assert_eq!(neighbours.nearest(4).expect("ten are there")[0], (0..4).collect::<HashSet<u64>>());
    assert!(neighbours.nearest(11).is_none());

    let cut = |rows, queries| read(&path, Cut { rows, queries }).expect("read");
    assert!(cut(Some(39), None).neighbours.is_none(), "some neighbours may be left out");
    let fewer = cut(Some(40), Some(2));
    assert_eq!((fewer.vectors.len(), fewer.vectors.queries.len()), (40, 16));
    assert_eq!(fewer.neighbours.expect("neighbours").nearest(5).map(|all| all.len()), Some(2));
}

#[test]
fn hdf5_files_that_are_wrong_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.h5");
    let error_of = |change: fn(&mut FileBuilder, &Vectors)| {
        ann_benchmarks(&path, change);
        read_error(&path)
    };
    let error = error_of(|file, v| {
        file.create_dataset("train").with_f32_data(&v.rows).with_shape(&[40, 8]);
    });
    assert!(error.contains("no dataset \"test\", but [\"train\"]"), "{error}");
    let error = error_of(|file, v| {
        file.create_dataset("train").with_i32_data(&[1; 16]).with_shape(&[2, 8]);
        file.create_dataset("test").with_f32_data(&v.queries).with_shape(&[6, 8]);
    });
    assert!(error.contains("train has elements of type Int32, where floats are wanted"), "{error}");
    let error = error_of(|file, v| {
        file.create_dataset("train").with_f32_data(&v.rows).with_shape(&[40, 8]);
        file.create_dataset("test").with_f32_data(&v.queries).with_shape(&[8, 6]);
    });
    assert!(error.contains("train has dimension 8, and test has 6"), "{error}");
    let error = error_of(|file, v| {
        file.create_dataset("train").with_f32_data(&v.rows);
        file.create_dataset("test").with_f32_data(&v.queries).with_shape(&[6, 8]);
    });
    assert!(error.contains("train: one number a row"), "{error}");
    let error = error_of(|file, _| {
        file.create_dataset("train").with_f64_data(&[0.0, 1e300]).with_shape(&[1, 2]);
        file.create_dataset("test").with_f32_data(&[0.0; 2]).with_shape(&[1, 2]);
    });
    assert!(error.contains("train: row 0: element 1 is 1e300"), "{error}");
    let error = error_of(|file, _| {
        file.create_dataset("train").with_f32_data(&[0.0; 4]).with_shape(&[2, 2]);
        file.create_dataset("test").with_f32_data(&[0.0; 2]).with_shape(&[1, 2]);
        file.create_dataset("neighbors").with_i32_data(&[1, 2]).with_shape(&[1, 2]);
    });
    assert!(error.contains("neighbors: query 0 names row 2, and there are 2"), "{error}");
    let error = error_of(|file, _| {
        file.create_dataset("train").with_f32_data(&[0.0; 4]).with_shape(&[2, 2]);
        file.create_dataset("test").with_f32_data(&[0.0; 4]).with_shape(&[2, 2]);
        file.create_dataset("neighbors").with_i32_data(&[1, 0]).with_shape(&[1, 2]);
    });
    assert!(error.contains("neighbors: of 1 queries, and there are 2"), "{error}");
    let error = error_of(|file, v| {
        good(file, v);
        file.set_attr("distance", AttrValue::I64(3));
    });
    assert!(error.contains("where text is wanted"), "{error}");
    ann_benchmarks(&path, |file, vectors| {
        good(file, vectors);
        file.set_attr("distance", AttrValue::AsciiString("jaccard".into()));
    });
    let given = read(&path, Cut::default()).expect("read");
    let error = given.metric(&path).expect_err("unknown").to_string();
    assert!(error.contains("its distance is \"jaccard\""), "{error}");
    std::fs::write(&path, "no HDF5 at all").expect("written");
    read_error(&path);
}

/// Every change of a few bytes is refused or read: no panic, and no memory by a made-up number, which
/// would take long.
#[test]
fn a_damaged_hdf5_file_is_refused_or_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("set.h5");
    ann_benchmarks(&path, good);
    let bytes = std::fs::read(&path).expect("bytes");
    let mut rng = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            let width = [1, 1, 2, 4, 8][rng.random_range(0..5)].min(bytes.len() - at);
            let value = match rng.random_range(0..4) {
                0 => u64::MAX,
                1 => 1 << rng.random_range(0..64),
                2 => rng.random_range(0..300),
                _ => rng.random(),
            };
            damaged[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if rng.random_range(0..5) == 0 {
            damaged.truncate(rng.random_range(0..bytes.len()));
        }
        std::fs::write(&path, damaged).expect("written");
        refused += usize::from(read(&path, Cut::default()).is_err());
    }
    assert!((300..2_900).contains(&refused), "{refused} were refused");
}
