//! What the program promises on the command line: messages, exit codes, the ready line, a clean end.

mod support;

use std::net::TcpListener;

use serde_json::Value;
use tempfile::TempDir;

use support::{Server, run, text, voisin};

#[test]
fn version_is_the_crate_version() {
    let output = run(&["--version"]);
    assert_eq!(text(&output.stdout), concat!("voisin ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn check_config_prints_what_is_in_force_and_starts_nothing() {
    let folder = TempDir::new().expect("temp dir");
    let file = folder.path().join("voisin.toml");
    std::fs::write(&file, "[segment]\nfrozen_max = 2\nseal_rows_max = 7\n").expect("write file");
    let data = folder.path().join("data");
    let output = voisin()
        .args(["serve", "--check-config", "--grpc", "127.0.0.1:5", "--config"])
        .arg(&file)
        .arg("--data")
        .arg(&data)
        .env("VOISIN__SEGMENT__FROZEN_MAX", "3")
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.starts_with("# configuration ok\n"), "{printed}");
    for line in ["frozen_max = 3", "seal_rows_max = 7", "grpc = \"127.0.0.1:5\""] {
        assert!(printed.lines().any(|l| l == line), "{line} is not in\n{printed}");
    }
    assert!(!data.exists(), "checking the settings made the data folder");

    // What was printed is itself a configuration file.
    std::fs::write(&file, printed).expect("write file");
    let again = voisin().args(["serve", "--check-config", "--config"]).arg(&file).output();
    assert_eq!(text(&again.expect("the program runs").stdout), printed);
}

#[test]
fn refused_settings_end_with_2_and_a_suggestion() {
    let folder = TempDir::new().expect("temp dir");
    let file = folder.path().join("voisin.toml");
    std::fs::write(&file, "[server]\ngrcp = \"127.0.0.1:1\"\n").expect("write file");
    let file = file.to_str().expect("the path is UTF-8");
    for arguments in
        [&["serve", "--check-config", "--config", file][..], &["serve", "--config", file]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2));
        let expected = format!(
            "voisin: unknown setting \"server.grcp\" in {file}; did you mean \"server.grpc\"?\n"
        );
        assert_eq!(text(&output.stderr), expected);
    }
    let output = voisin()
        .args(["serve", "--check-config"])
        .env("VOISIN__SEGMENT__FROZEN_MAX", "0")
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("allowed: 1 to 1024"), "{}", text(&output.stderr));
}

#[test]
fn an_unknown_flag_brings_a_suggestion() {
    let output = run(&["serve", "--durabilty", "power"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("'--durability'"), "{}", text(&output.stderr));
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = TempDir::new().expect("temp dir");
    for (flag, other) in [("--grpc", "--http"), ("--http", "--grpc")] {
        let output = voisin()
            .args(["serve", flag, &address, other, "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains(&format!("cannot listen on {address}")), "{message}");
        assert!(message.contains("in use"), "{message}");
        assert!(message.contains(&format!("with {flag} HOST:PORT")), "{message}");
    }
}

#[test]
fn the_ready_line_names_the_real_ports_and_the_folder() {
    let folder = TempDir::new().expect("temp dir");
    let server = Server::start(folder.path(), &["--durability", "process"]);
    let starting = server.wait_for("starting");
    for field in ["version", "simd", "faiss", "faiss_simd", "blas"] {
        assert!(
            starting[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {starting}"
        );
    }
    let ready = server.wait_for("ready");
    for protocol in ["grpc", "http"] {
        let address = ready[protocol].as_str().expect("an address");
        let port = address.strip_prefix("127.0.0.1:").expect("the address asked for");
        assert!(port.parse::<u16>().is_ok_and(|port| port != 0), "{address}");
        std::net::TcpStream::connect(address).expect("the port named takes connections");
    }
    assert_eq!(ready["data"].as_str(), folder.path().to_str());
    assert_eq!(ready["collections"], 0);
    assert_eq!(ready["durability"], "process");
    assert!(ready["recovery_ms"].is_u64(), "{ready}");
}

#[test]
fn every_stop_signal_ends_the_server_cleanly() {
    let folder = TempDir::new().expect("temp dir");
    for signal in ["TERM", "INT", "USR1", "USR2"] {
        let mut server = Server::start(folder.path(), &[]);
        server.wait_for("ready");
        server.signal(signal);
        assert_eq!(server.wait_for("stopping")["signal"], format!("SIG{signal}"));
        assert_eq!(server.wait().code(), Some(0), "after SIG{signal}");
        server.wait_for("stopped");
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = TempDir::new().expect("temp dir");
    let first = Server::start(folder.path(), &[]);
    first.wait_for("ready");
    let mut second = Server::start(folder.path(), &[]);
    let cause = second.wait_for("fatal")["cause"].to_string();
    assert_eq!(second.wait().code(), Some(1));
    assert!(cause.contains("in use by another voisin process"), "{cause}");
    assert!(cause.contains("--data"), "{cause}");

    // The check that needs a folder at rest cannot run either, and says so by its own code.
    let output = voisin().arg("verify").arg(folder.path()).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("in use"), "{}", text(&output.stderr));
}

#[test]
fn verify_finds_a_fresh_folder_sound_and_an_absent_one_impossible() {
    let folder = TempDir::new().expect("temp dir");
    let mut server = Server::start(folder.path(), &[]);
    server.wait_for("ready");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let output =
        voisin().args(["verify", "--json"]).arg(folder.path()).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    assert_eq!(report, serde_json::json!({ "collections": [], "faults": [] }));

    let absent = folder.path().join("absent");
    let output = voisin().arg("verify").arg(&absent).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("absent"), "{}", text(&output.stderr));
}

#[test]
fn health_follows_readiness() {
    let folder = TempDir::new().expect("temp dir");
    let server = Server::start(folder.path(), &[]);
    let ready = server.wait_for("ready");
    let http = ready["http"].as_str().expect("an address");
    let output = run(&["health", "--http", http]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(server);
    let output = run(&["health", "--http", http]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("does not answer"), "{}", text(&output.stderr));
}
