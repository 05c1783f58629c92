//! A short run of `voisin bench` against the real program: every figure is there, and recall is real.

use std::path::Path;
use std::process::{Command, Output};

use hdf5_pure::{AttrValue, FileBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn bench(out: &Path, args: &[&str]) -> (String, serde_json::Value) {
    bench_rows("3000", out, args)
}

fn bench_rows(rows: &str, out: &Path, args: &[&str]) -> (String, serde_json::Value) {
    let made = ["--rows", rows, "--dimension", "40", "--queries", "50"];
    bench_with(out, &[&made, args].concat())
}

fn start(out: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_voisin"))
        .args(["bench", "--seconds", "0.2", "--turns", "1", "--out"])
        .arg(out)
        .args(args)
        .output()
        .expect("the program starts")
}

fn bench_with(out: &Path, args: &[&str]) -> (String, serde_json::Value) {
    let done = start(out, args);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{error}");
    let json = std::fs::read(out.join("bench.json")).expect("a report");
    let page = std::fs::read_to_string(out.join("bench.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("queries per second"));
    let text = String::from_utf8(done.stdout).expect("text");
    (text, serde_json::from_slice(&json).expect("JSON"))
}

fn number(report: &serde_json::Value, figure: &str) -> f64 {
    report[figure].as_f64().unwrap_or_else(|| panic!("{figure} is no number: {report}"))
}

#[test]
fn a_server_of_its_own_is_loaded_measured_and_restarted() {
    let out = tempfile::tempdir().expect("a folder");
    let params = ["--param", "index_type=HNSW", "--ef", "10,100", "--clients", "1,2"];
    let (text, report) = bench(out.path(), &params);
    for figure in ["searchable_seconds", "indexed_seconds", "restart_seconds", "disk_bytes"] {
        assert!(number(&report, figure) > 0.0, "{figure}: {report}");
    }
    assert!(number(&report["memory"], "anonymous") > 0.0);
    let points = report["points"].as_array().expect("points");
    assert_eq!(points.len(), 4);
    for point in points {
        let (qps, p50, p99) =
            (number(point, "qps"), number(point, "p50_us"), number(point, "p99_us"));
        assert!(qps > 0.0 && p50 > 0.0 && p50 <= p99, "{point}");
    }
    assert!(number(&points[2], "recall") >= 0.98, "{report}");
    assert!(number(&report["best"], "recall") >= 0.95, "{report}");
    assert!(text.contains("recall@10") && text.contains("bench.html"), "{text}");
}

#[test]
fn the_engine_is_measured_without_the_wire_on_vectors_of_every_kind() {
    for kind in ["clustered", "features", "copies"] {
        let out = tempfile::tempdir().expect("a folder");
        let params = ["--kind", kind, "--in-process", "--ef", "100", "--param", "index_type=HNSW"];
        let (_, report) = bench(out.path(), &params);
        assert!(number(&report["points"][0], "recall") >= 0.95, "{kind}: {report}");
    }
}

#[test]
fn an_exact_index_finds_everything() {
    let out = tempfile::tempdir().expect("a folder");
    let (_, report) = bench(out.path(), &["--param", "index_type=FLAT", "--ef", "10", "--brief"]);
    assert_eq!(number(&report["best"], "recall"), 1.0);
}

#[test]
fn what_one_run_loads_into_a_folder_the_next_one_measures() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().join("data");
    let place = ["--in-process", "--folder", folder.to_str().expect("text"), "--ef", "100"];
    let column = ["--param", "index_type=HNSW"];
    let made = ["--rows", "3000", "--dimension", "40", "--queries", "50"];
    let load = [&made[..], &place, &column, &["--load-only"]].concat();
    let done = start(out.path(), &load);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for _ in 0..2 {
        let (_, report) = bench(out.path(), &[&place[..], &["--attach"]].concat());
        assert!(report["indexed_seconds"].is_null(), "{report}");
        assert!(number(&report["best"], "recall") >= 0.95, "{report}");
    }
    let again = start(out.path(), &load);
    let error = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{error}");
    assert!(error.contains("voisin_bench"), "{error}");
    let nowhere = start(out.path(), &["--in-process", "--attach"]);
    assert_eq!(nowhere.status.code(), Some(2), "there is nothing to attach to");
}

/// k means k, and recall holds, whatever share of the rows may be found and wherever they are.
#[test]
fn filters_keep_k_and_recall_at_every_share() {
    let out = tempfile::tempdir().expect("a folder");
    let shares = "0.01,0.1,1,10,50,99";
    let params = ["--in-process", "--ef", "0", "--param", "index_type=HNSW", "--filter", shares];
    let (_, report) = bench_rows("40000", out.path(), &params);
    let points = report["filtered"].as_array().expect("points");
    assert_eq!(points.len(), 12);
    for point in points {
        // A hundredth of a percent of 40,000 rows is 4, and about as many by a hash of the key.
        let by_hash = (0..40_000u64).filter(|key| key * 2_654_435_761 % 1_000_000 < 100).count();
        let few = if point["is_far"] == true { 4.0 } else { by_hash as f64 };
        let all = if number(point, "percent") < 0.02 { few } else { 10.0 };
        assert_eq!(number(point, "fewest"), all, "{point}");
        assert!(number(point, "recall") >= 0.95, "{point}");
    }
}

const DIMENSION: usize = 8;

fn vectors(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count * DIMENSION).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Keys of the `count` rows nearest to each query by cosine, computed here.
fn nearest_by_cosine(rows: &[f32], queries: &[f32], count: usize) -> Vec<i32> {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let of_query = |query: &[f32]| {
        let cosine = |row: &[f32]| dot(row, query) / dot(row, row).sqrt();
        let mut scored: Vec<(f32, i32)> =
            rows.chunks(DIMENSION).zip(0..).map(|(row, key)| (cosine(row), key)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(count).map(|(_, key)| key).collect::<Vec<i32>>()
    };
    queries.chunks(DIMENSION).flat_map(of_query).collect()
}

/// A file in the layout of ann-benchmarks, by cosine.
fn ann_benchmarks(path: &Path, keys: impl FnOnce(&[f32], &[f32]) -> Vec<i32>) {
    let (rows, queries) = (vectors(700, 1), vectors(30, 2));
    let mut file = FileBuilder::new();
    file.set_attr("distance", AttrValue::VarLenString("angular".into()));
    file.create_dataset("train").with_f32_data(&rows).with_shape(&[700, 8]);
    file.create_dataset("test").with_f32_data(&queries).with_shape(&[30, 8]);
    file.create_dataset("neighbors").with_i32_data(&keys(&rows, &queries)).with_shape(&[30, 20]);
    file.write(path).expect("written");
}

const EXACT: [&str; 5] = ["--in-process", "--param", "index_type=FLAT", "--ef", "10"];

#[test]
fn a_file_of_ann_benchmarks_brings_its_metric_and_neighbours() {
    let out = tempfile::tempdir().expect("a folder");
    let path = out.path().join("set.hdf5");
    let data = ["--data", path.to_str().expect("text")];
    ann_benchmarks(&path, |rows, queries| nearest_by_cosine(rows, queries, 20));
    let (text, report) = bench_with(out.path(), &[&EXACT[..], &data].concat());
    assert_eq!((number(&report, "rows"), number(&report, "dimension")), (700.0, 8.0));
    assert_eq!(report["metric"], "Cosine");
    assert_eq!(report["truth"], "of the file");
    assert!(text.contains("10 nearest, of the file"), "{text}");
    assert!(number(&report["best"], "recall") >= 0.999, "{report}");

    // Rows left out, another metric, or more neighbours than there are: they are computed.
    for other in [&["--rows", "600"][..], &["--metric", "SquaredEuclidean"], &["-k", "21"]] {
        let (_, report) = bench_with(out.path(), &[&EXACT[..], &data, other].concat());
        assert_eq!(report["truth"], "computed", "{other:?}");
        assert_eq!(number(&report["best"], "recall"), 1.0, "{other:?}: {report}");
    }
}

#[test]
fn neighbours_of_other_rows_or_another_metric_are_noticed() {
    let out = tempfile::tempdir().expect("a folder");
    let path = out.path().join("set.h5");
    ann_benchmarks(&path, |_, _| (0..30 * 20).collect());
    let data = ["--data", path.to_str().expect("text")];
    let done = start(out.path(), &[&EXACT[..], &data].concat());
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{error}");
    assert!(error.contains("set.h5: of 200 of its neighbors only"), "{error}");
    assert!(error.contains("are nearest by Cosine"), "{error}");
}

#[test]
fn a_folder_of_npy_is_measured_and_kept_as_fvecs() {
    let out = tempfile::tempdir().expect("a folder");
    for (name, count, seed) in [("base", 700, 1), ("query", 30, 2)] {
        let header = format!(
            "{{'descr': '<f8', 'fortran_order': False, 'shape': ({count}, {DIMENSION}), }}\n"
        );
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(vectors(count, seed).iter().flat_map(|x| f64::from(*x).to_le_bytes()));
        std::fs::write(out.path().join(format!("{name}.npy")), bytes).expect("written");
    }
    let folder = out.path().to_str().expect("text");
    let kept = out.path().join("kept");
    let arguments = ["--data", folder, "--queries", "20", "--keep", kept.to_str().expect("text")];
    let (_, report) = bench_with(out.path(), &[&EXACT[..], &arguments].concat());
    assert_eq!(number(&report, "rows"), 700.0);
    assert_eq!(number(&report["best"], "recall"), 1.0);
    let bytes = |name: &str| std::fs::metadata(kept.join(name)).expect("kept").len();
    assert_eq!((bytes("base.fvecs"), bytes("query.fvecs")), (700 * 36, 20 * 36));
}

#[test]
fn data_that_cannot_be_read_ends_with_the_name_of_the_file() {
    let out = tempfile::tempdir().expect("a folder");
    let path = out.path().join("set.h5");
    std::fs::write(&path, "not HDF5").expect("written");
    for data in [path.as_path(), out.path(), Path::new("/nonexistent.hdf5")] {
        let data = data.to_str().expect("text");
        let done = start(out.path(), &["--data", data]);
        let error = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{error}");
        assert!(error.starts_with(&format!("voisin: {data}")), "{error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

/// Files as the libraries that people use write them. Left out where `make venv` has not been run.
#[test]
fn files_that_h5py_and_numpy_write_are_read() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let script = "
import sys, h5py, numpy as np
random = np.random.default_rng(1)
rows, queries = random.standard_normal((700, 8)), random.standard_normal((30, 8))
near = np.argsort(((queries[:, None] - rows[None]) ** 2).sum(2), axis=1)[:, :20]
def save(name, kind, **how):
    with h5py.File(sys.argv[1] + name, 'w') as file:
        file.attrs['distance'] = 'euclidean'
        file['train'], file['test'] = rows.astype(kind), queries.astype(kind)
        file.create_dataset('neighbors', data=near.astype('<i4'), **how)
        file.create_dataset('distances', data=((queries[:, None] - rows[near]) ** 2).sum(2) ** 0.5, **how)
save('/plain.hdf5', '<f4')
save('/deflated.hdf5', '>f8', compression='gzip', shuffle=True, chunks=(7, 5))
save('/half.h5', '<f2', maxshape=(None, 20))
np.save(sys.argv[1] + '/base.npy', rows.astype('<f4'))
np.save(sys.argv[1] + '/query.npy', queries.astype('<f2'))
";
    let out = tempfile::tempdir().expect("a folder");
    let made = Command::new(&python).args(["-c", script]).arg(out.path()).output();
    let Ok(made) = made else {
        eprintln!("left out: {} cannot be started", python.display());
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (name, truth) in [
        ("plain.hdf5", "of the file"),
        ("deflated.hdf5", "of the file"),
        ("half.h5", "of the file"),
        ("", "computed"),
    ] {
        let path = out.path().join(name);
        let data = ["--data", path.to_str().expect("text")];
        let (_, report) = bench_with(out.path(), &[&EXACT[..], &data].concat());
        assert_eq!((number(&report, "rows"), number(&report, "dimension")), (700.0, 8.0), "{name}");
        assert_eq!(report["truth"], truth, "{name}");
        assert_eq!(report["metric"], "SquaredEuclidean", "{name}");
        // Halves of numbers are other numbers, with almost the same neighbours.
        assert!(number(&report["best"], "recall") >= 0.98, "{name}: {report}");
    }
}
