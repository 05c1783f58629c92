//! A short run of the measurement `examples/write_throughput.rs` against the real program: it ends well
//! and every figure is there.

#[allow(dead_code)]
#[path = "../examples/write_throughput.rs"]
mod write_throughput;

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use write_throughput::{Args, measure};

async fn run(arguments: &[&str]) -> Result<Value, String> {
    let args = [&["write_throughput"], arguments].concat();
    let args = Args::try_parse_from(args).map_err(|error| error.to_string())?;
    let report = measure(&args).await.map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(report).expect("the report is JSON"))
}

#[tokio::test]
async fn rows_per_second_are_measured_beside_the_disk_for_both_durabilities() {
    let folder = TempDir::new().expect("temp dir");
    let data = folder.path().to_str().expect("the path is UTF-8");
    for durability in ["process", "power"] {
        let report = run(&[
            "--bin",
            env!("CARGO_BIN_EXE_voisin"),
            "--data",
            data,
            "--rows",
            "2000",
            "--dim",
            "16",
            "--batch",
            "150",
            "--syncs",
            "5",
            "--durability",
            durability,
        ])
        .await
        .expect("the run ends well");
        assert_eq!(report["durability"], durability);
        assert_eq!(report["disk"]["append_bytes"], 150 * 16 * 4);
        for figure in
            ["seconds", "rows_per_s", "acks_per_s", "mb_per_s", "ack_p50_ms", "ack_p99_ms"]
        {
            assert!(
                report[figure].as_f64().is_some_and(|number| number > 0.0),
                "{figure}: {report}"
            );
        }
        for figure in ["fsyncs_per_s", "mb_per_s", "fsync_p50_ms", "fsync_p99_ms"] {
            let number = report["disk"][figure].as_f64();
            assert!(number.is_some_and(|number| number > 0.0), "{figure}: {report}");
        }
        // 2,000 rows in batches of 150 are 14 acknowledgements.
        let ratio = report["acks_per_s"].as_f64().zip(report["rows_per_s"].as_f64());
        let (acks, rows) = ratio.expect("numbers");
        assert!((acks / rows - 14.0 / 2_000.0).abs() < 1e-9, "{report}");
    }
    // The servers' folders went with them.
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_run_that_cannot_start_says_why() {
    let no_server = run(&["--addr", "127.0.0.1:1"]).await.expect_err("nobody is there");
    assert!(no_server.contains("127.0.0.1:1"), "{no_server}");
    let no_program = run(&["--bin", "/absent/voisin"]).await.expect_err("no such program");
    assert!(no_program.contains("/absent/voisin"), "{no_program}");
    let neither = run(&[]).await.expect_err("nothing to measure");
    assert!(neither.contains("--addr") && neither.contains("--bin"), "{neither}");
}
