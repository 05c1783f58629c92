//! Each layer wins over the former; what cannot be meant is refused by name.

use std::io::Write;

use super::*;
use crate::config::{Durability, LogFormat};

/// Loads from the three sources; the file is written first when there is text for it.
fn load_from(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    let mut on_disk = tempfile::Builder::new().suffix(".toml").tempfile().expect("temp file");
    on_disk.write_all(file.as_bytes()).expect("write temp file");
    let path = on_disk.path().to_owned();
    let sources = Sources {
        file: Some(path.clone()),
        environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        flags: flags
            .iter()
            .map(|&(flag, setting, value)| Flag { flag, setting, value: value.into() })
            .collect(),
    };
    let short = |e: ConfigError| e.to_string().replace(&path.display().to_string(), "voisin.toml");
    load(sources).map_err(short)
}

fn refusal(file: &str, environment: &[(&str, &str)]) -> String {
    load_from(file, environment, &[]).expect_err("the settings are wrong")
}

#[test]
fn without_sources_the_defaults_stand() {
    assert_eq!(load(Sources::default()), Ok(Config::default()));
}

#[test]
fn each_layer_wins_over_the_former() {
    let file = "[server]\ngrpc = \"127.0.0.1:1\"\n[segment]\nfrozen_max = 2\nseal_rows_max = 5\n";
    let environment =
        [("VOISIN__SERVER__GRPC", "127.0.0.1:2"), ("VOISIN__SEGMENT__FROZEN_MAX", "3")];
    let flags = [("--grpc", "server.grpc", "127.0.0.1:3")];

    let config = load_from(file, &[], &[]).expect("file");
    assert_eq!((config.server.grpc.port(), config.segment.frozen_max), (1, 2));
    let config = load_from(file, &environment, &[]).expect("environment");
    assert_eq!((config.server.grpc.port(), config.segment.frozen_max), (2, 3));
    let config = load_from(file, &environment, &flags).expect("flags");
    assert_eq!((config.server.grpc.port(), config.segment.frozen_max), (3, 3));
    assert_eq!(config.segment.seal_rows_max, 5);
    assert_eq!(config.server.http, Config::default().server.http);
}

#[test]
fn the_environment_is_typed_by_the_setting() {
    let config = load_from(
        "",
        &[
            ("VOISIN__SERVER__GRPC", "[::1]:7"),
            ("VOISIN__STORAGE__DATA", "42"),
            ("VOISIN__STORAGE__DURABILITY", "process"),
            ("VOISIN__STORAGE__LOG_FILE_BYTES", "16 MiB"),
            ("VOISIN__LIMITS__MESSAGE_BYTES_MAX", "1048576"),
            ("VOISIN__SEGMENT__DELETED_SHARE_MAX", "1"),
            ("VOISIN__LOG__FORMAT", "json"),
            ("VOISIN__LOG__FILTER", ""),
            ("VOISIN_BIN", "not a setting"),
        ],
        &[],
    )
    .expect("all values are good");
    assert_eq!(config.server.grpc.to_string(), "[::1]:7");
    assert_eq!(config.storage.data, PathBuf::from("42"));
    assert_eq!(config.storage.durability, Durability::Process);
    assert_eq!(config.storage.log_file_bytes, 16 << 20);
    assert_eq!(config.limits.message_bytes_max, 1 << 20);
    assert_eq!(config.segment.deleted_share_max, 1.0);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.filter, "info", "an empty variable counts as unset");
}

#[test]
fn a_host_name_is_resolved() {
    let config = load_from("", &[], &[("--grpc", "server.grpc", "localhost:5")]).expect("resolves");
    assert!(config.server.grpc.ip().is_loopback());
}

#[test]
fn unknown_settings_are_refused_with_a_suggestion() {
    assert_eq!(
        refusal("[server]\ngrcp = \"127.0.0.1:1\"", &[]),
        r#"unknown setting "server.grcp" in voisin.toml; did you mean "server.grpc"?"#
    );
    assert_eq!(
        refusal("", &[("VOISIN__SERVER__GRCP", "127.0.0.1:1")]),
        r#"unknown setting "server.grcp" in environment variable VOISIN__SERVER__GRCP; did you mean "server.grpc" (VOISIN__SERVER__GRPC)?"#
    );
    let suggests = |file: &str, name: &str| {
        let message = refusal(file, &[]);
        assert!(message.contains(&format!("did you mean {name:?}?")), "{message}");
    };
    suggests("[sever]\ngrpc = \"127.0.0.1:1\"", "server.grpc");
    suggests("[storage]\nfrozen_max = 3", "segment.frozen_max");
    suggests("[storage]\nlog_file_size = 3", "storage.log_file_bytes");
    suggests("[server.grpc]\nport = 3", "server.grpc");
    let message = refusal("[zzzz]\nqqqqqqqq = 3", &[]);
    assert!(message.contains("config.example.toml"), "{message}");
    assert!(refusal("[sever]", &[]).contains("unknown setting \"sever\""));
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_its_place() {
    assert_eq!(
        refusal("[segment]\nseal_rows_max = 1.5", &[]),
        r#"setting "segment.seal_rows_max" in voisin.toml is 1.5: expected a whole number"#
    );
    assert_eq!(
        refusal("", &[("VOISIN__SEGMENT__SEAL_ROWS_MAX", "many")]),
        r#"setting "segment.seal_rows_max" in environment variable VOISIN__SEGMENT__SEAL_ROWS_MAX is "many": expected a whole number"#
    );
    for (file, words) in [
        ("[segment]\nseal_rows_max = true", "expected a whole number"),
        ("[segment]\nseal_rows_max = -1", "expected a whole number"),
        ("[segment]\nfrozen_max = 5000000000", "expected u32"),
        ("[segment]\ndeleted_share_max = \"nan\"", "expected a number"),
        ("[storage]\nlog_file_bytes = \"16 MB\"", "64 MiB"),
        ("[storage]\nlog_file_bytes = \"99999999999 GiB\"", "64 MiB"),
        ("[storage]\ndurability = \"disk\"", "`process` or `power`"),
        ("[storage]\ndata = 3", "expected text"),
        ("[log]\nfilter = [\"info\"]", "expected text"),
        ("[server]\ngrpc = \"16000\"", "HOST:PORT"),
        ("server = 3", "it is a section"),
    ] {
        let message = refusal(file, &[]);
        assert!(message.contains(words), "{file}: {message}");
        assert!(message.contains("voisin.toml"), "{file}: {message}");
    }
}

#[test]
fn ranges_are_checked_after_merging() {
    assert_eq!(
        refusal("[segment]\nfrozen_max = 0", &[]),
        r#"setting "segment.frozen_max" is 0; allowed: 1 to 1024"#
    );
    // A stronger source may repair a weaker one.
    let repaired = [("VOISIN__SEGMENT__FROZEN_MAX", "1")];
    assert!(load_from("[segment]\nfrozen_max = 0", &repaired, &[]).is_ok());
}

#[test]
fn a_file_that_is_absent_or_broken_is_named() {
    let absent = Sources { file: Some("/nowhere/voisin.toml".into()), ..Sources::default() };
    let message = load(absent).expect_err("absent").to_string();
    assert!(message.contains("/nowhere/voisin.toml"), "{message}");
    assert!(refusal("[server\n", &[]).starts_with("voisin.toml is not valid TOML"));
}

#[test]
fn printed_settings_load_again_as_the_same() {
    let mut config = Config::default();
    config.storage.data = PathBuf::from("a \"quoted\"\n\u{7f}\\folder");
    config.segment.deleted_share_max = 0.35;
    assert_eq!(load_from(&config.to_toml(), &[], &[]), Ok(config));
}

/// The shipped example is the reference of all settings: every one is there, with its default.
#[test]
fn the_shipped_example_lists_every_setting_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config.example.toml");
    let sources = Sources { file: Some(path.clone()), ..Sources::default() };
    assert_eq!(load(sources), Ok(Config::default()));
    let set: Vec<String> =
        file_leaves(&path).expect("the example parses").into_iter().map(|l| l.setting).collect();
    for (name, _) in Config::default().to_values() {
        assert!(set.contains(&name), "deploy/config.example.toml does not set {name}");
    }
}
