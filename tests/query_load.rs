//! A short run of the measurement `examples/query_load.rs` against the real program: both sides reach
//! the recall asked for and every figure is there.

#[allow(dead_code)]
#[path = "../examples/query_load.rs"]
mod query_load;

use clap::Parser;
use query_load::{Args, measure};

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_measured_beside_faiss_at_the_same_recall() {
    let arguments = ["query_load", "--server", env!("CARGO_BIN_EXE_voisin"), "--rows", "3000"];
    let short = ["--dimension", "16", "--clients", "1,2", "--seconds", "0.3", "--turns", "1"];
    let args = Args::try_parse_from(arguments.iter().chain(&short)).expect("known flags");
    let report = measure(&args).await.expect("the run ends well");
    for side in ["faiss", "server"] {
        assert!(report[side]["recall"].as_f64().is_some_and(|r| r >= 0.95), "{report}");
    }
    let by_clients = report["server"]["by_clients"].as_array().expect("a list");
    assert_eq!(by_clients.len(), 2);
    for row in by_clients {
        for figure in ["qps", "p50_us", "p99_us", "qps_per_server_core_to_faiss_thread"] {
            assert!(row[figure].as_f64().is_some_and(|number| number > 0.0), "{figure}: {row}");
        }
    }
}
