//! What every setting may be. Checked once, after all sources are merged; from then on the rest of the
//! house takes the numbers as they are.

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The lowest and highest value of every whole number. Lower bounds that look absurdly low are there so
/// that tests can reach a boundary quickly; upper bounds are where something else gives way first.
const RANGES: &[(&str, u64, u64)] = &[
    ("server.stop_timeout_ms", 0, 3_600_000),
    ("storage.log_file_bytes", 4 * KIB, 64 * GIB),
    ("storage.forward_cache_bytes", MIB, TIB),
    // Graph links are 32-bit signed row numbers.
    ("segment.seal_rows_max", 1, i32::MAX as u64),
    ("segment.seal_bytes_max", KIB, TIB),
    // Above every possible segment: never a graph.
    ("segment.graph_rows_min", 0, u32::MAX as u64),
    // Above every possible segment: never.
    ("segment.filter_index_rows_min", 0, u32::MAX as u64),
    ("segment.segments_max", 1, 65_536),
    ("segment.frozen_max", 1, 1_024),
    ("segment.quiet_ms", 0, 86_400_000),
    ("compute.search_threads", 0, 1_024),
    ("compute.live_recall_percent", 0, 100),
    ("compute.build_threads", 0, 1_024),
    ("compute.write_threads", 0, 1_024),
    ("compute.search_queue_max", 1, 1_048_576),
    ("compute.write_queue_max", 1, 1_048_576),
    ("embedding.workers", 0, 1_024),
    ("embedding.threads_per_worker", 0, 1_024),
    ("embedding.decode_threads", 0, 1_024),
    ("embedding.batch_max", 0, 1_024),
    ("embedding.batch_wait_ms", 0, 1_000),
    ("embedding.queue_max", 2, 1_048_576),
    ("fetch.timeout_ms", 1, 600_000),
    // Protobuf itself ends at 2 GiB.
    ("limits.message_bytes_max", 64 * KIB, 2 * GIB - 1),
    ("limits.http_connections_max", 1, 65_536),
    ("limits.collections_max", 1, 1_000_000),
    ("limits.dimension_max", 1, 1_048_576),
    ("limits.columns_max", 1, 65_536),
    ("limits.write_rows_max", 1, 100_000_000),
    ("limits.row_vectors_max", 1, 1_048_576),
    ("limits.query_vectors_max", 1, 1_048_576),
    ("limits.query_results_max", 1, 100_000_000),
    ("limits.reply_bytes_max", 64 * KIB, 2 * GIB - 1),
    ("limits.readers_max", 1, 100_000),
    ("limits.reader_idle_ms", 1_000, 86_400_000),
    ("limits.picture_bytes_max", KIB, 2 * GIB - 1),
    ("limits.picture_pixels_max", 1, 4_000_000_000),
    ("limits.picture_ratio_max", 1, 65_535),
    ("limits.picture_decode_bytes_max", MIB, TIB),
    ("limits.memory_bytes_max", 0, 1024 * TIB),
];

impl Config {
    /// Checks every value against what it may be; the first that is not allowed is named.
    pub fn check(&self) -> Result<(), ConfigError> {
        let values = self.to_values();
        for &(setting, lowest, highest) in RANGES {
            let value =
                values.iter().find(|(name, _)| name == setting).and_then(|(_, v)| v.as_u64());
            if !value.is_some_and(|value| (lowest..=highest).contains(&value)) {
                return Err(ConfigError::NotAllowed {
                    setting,
                    value: value.map_or_else(|| "not a whole number".into(), |v| v.to_string()),
                    allowed: format!("{lowest} to {highest}"),
                });
            }
        }
        let refuse = |setting, value: String, allowed: &str| {
            Err(ConfigError::NotAllowed { setting, value, allowed: allowed.into() })
        };
        let share = self.segment.deleted_share_max;
        if !(share > 0.0 && share <= 1.0) {
            return refuse("segment.deleted_share_max", share.to_string(), "above 0, up to 1");
        }
        if self.storage.data.as_os_str().is_empty() {
            return refuse("storage.data", "empty".into(), "the path of a folder");
        }
        let paths = [
            ("storage.data", &self.storage.data),
            ("embedding.models", &self.embedding.models),
            ("embedding.runtime", &self.embedding.runtime),
            ("console.picture_root", &self.console.picture_root),
        ];
        for (setting, path) in paths {
            // What stands for bytes that were not UTF-8: another one is meant.
            if path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
                return refuse(setting, path.display().to_string(), "a path in UTF-8");
            }
        }
        if let Some(name) = no_host(&self.server.http_hosts, false) {
            return refuse("server.http_hosts", format!("{name:?}"), "hosts with commas between");
        }
        if let Some(name) = no_host(&self.fetch.hosts, true) {
            let allowed = "hosts with commas between, or *.example.org for all below one";
            return refuse("fetch.hosts", format!("{name:?}"), allowed);
        }
        if self.server.http.port() != 0 && self.server.http == self.server.grpc {
            return refuse(
                "server.http",
                self.server.http.to_string(),
                "another address than server.grpc's (or port 0 for any free one)",
            );
        }
        if let Err(cause) = EnvFilter::builder().parse(&self.log.filter) {
            let allowed = format!(
                "a tracing filter such as \"info\" or \"voisin=debug,tonic=warn\" ({cause})"
            );
            return refuse("log.filter", format!("{:?}", self.log.filter), &allowed);
        }
        Ok(())
    }

    /// The settings as one TOML document; loading it gives the same settings.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        let values = self.to_values();
        for (name, value) in &values {
            // Names come from `to_values`, which joins every one of them with a dot.
            let (table, key) = name.split_once('.').unwrap_or(("", name));
            if table != section {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&format!("[{table}]\n"));
                section = table;
            }
            text.push_str(&format!("{key} = {}\n", toml_value(value)));
        }
        text
    }

    /// Every setting as (`section.key`, value), in alphabetical order.
    pub(super) fn to_values(&self) -> Vec<(String, Value)> {
        let mut values = Vec::new();
        if let Ok(Value::Object(sections)) = serde_json::to_value(self) {
            for (section, keys) in sections {
                if let Value::Object(keys) = keys {
                    values.extend(keys.into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
                }
            }
        }
        values
    }
}

/// JSON and TOML agree on numbers and on strings, but for the character DEL.
fn toml_value(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

/// The first of these names that is none of a host, or of all hosts below one where that is allowed.
fn no_host(hosts: &str, with_below: bool) -> Option<&str> {
    let is_host = |name: &str| {
        let above = name.strip_prefix("*.").filter(|above| with_below && !above.is_empty());
        above.unwrap_or(name).chars().all(|c| c.is_alphanumeric() || "-_.:[]".contains(c))
    };
    hosts.split(',').map(str::trim).find(|name| !is_host(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().expect_err("the value is outside its range").to_string()
    }

    #[test]
    fn defaults_are_allowed() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn every_whole_number_has_a_range() {
        for (name, value) in Config::default().to_values() {
            let listed = RANGES.iter().filter(|(setting, ..)| *setting == name).count();
            assert_eq!(listed, usize::from(value.is_u64()), "{name} is {value}");
        }
        assert!(RANGES.iter().all(|(_, lowest, highest)| lowest <= highest));
    }

    #[test]
    fn a_refusal_names_setting_value_and_range() {
        assert_eq!(
            refused(|c| c.segment.frozen_max = 0),
            r#"setting "segment.frozen_max" is 0; allowed: 1 to 1024"#
        );
        assert_eq!(
            refused(|c| c.limits.message_bytes_max = 2 << 30),
            r#"setting "limits.message_bytes_max" is 2147483648; allowed: 65536 to 2147483647"#
        );
        assert_eq!(
            refused(|c| c.segment.deleted_share_max = 0.0),
            r#"setting "segment.deleted_share_max" is 0; allowed: above 0, up to 1"#
        );
        assert!(refused(|c| c.segment.deleted_share_max = f64::NAN).contains("NaN"));
        assert!(refused(|c| c.compute.search_queue_max = 0).contains("compute.search_queue_max"));
        assert!(refused(|c| c.compute.search_threads = 1_025).contains("0 to 1024"));
    }

    #[test]
    fn both_listeners_cannot_share_a_port() {
        let message = refused(|c| c.server.http = c.server.grpc);
        assert!(message.starts_with(r#"setting "server.http" is 127.0.0.1:16000"#), "{message}");
        let mut any = Config::default();
        any.server.grpc.set_port(0);
        any.server.http.set_port(0);
        assert_eq!(any.check(), Ok(()));
    }

    #[test]
    fn hosts_are_names() {
        let good = |hosts: &str| {
            let mut config = Config::default();
            config.fetch.hosts = hosts.into();
            config.check() == Ok(())
        };
        assert!(
            good("")
                && good("a.example, *.b.example ,8.8.8.8,[2606:4700::1111],b\u{fc}cher.example")
        );
        for bad in ["*", "*.", "*example.org", "a.*.org", "https://a.example", "a@b", "a b"] {
            assert!(!good(bad), "{bad}");
        }
        assert!(refused(|c| c.server.http_hosts = "*.a".into()).contains("server.http_hosts"));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        assert!(refused(|c| c.log.filter = "voisin=loud".into()).contains("log.filter"));
    }
}
