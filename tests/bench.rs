//! A short run of `voisin bench` against the real program: every figure is there, and recall is real.

use std::path::Path;
use std::process::Command;

fn bench(out: &Path, args: &[&str]) -> (String, serde_json::Value) {
    bench_rows("3000", out, args)
}

fn bench_rows(rows: &str, out: &Path, args: &[&str]) -> (String, serde_json::Value) {
    let done = Command::new(env!("CARGO_BIN_EXE_voisin"))
        .args(["bench", "--rows", rows, "--dimension", "40", "--queries", "50"])
        .args(["--seconds", "0.2", "--turns", "1", "--out"])
        .arg(out)
        .args(args)
        .output()
        .expect("the program starts");
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
        // A hundredth of a percent of 40,000 rows is 4.
        let all = if number(point, "percent") < 0.02 { 4.0 } else { 10.0 };
        assert_eq!(number(point, "fewest"), all, "{point}");
        assert!(number(point, "recall") >= 0.95, "{point}");
    }
}
