//! Layers the sources of settings and turns each value into its setting's type. Crate `config` reads the
//! sources; the typing is ours, because that crate would round 1.5 to 2 and take `true` for 1.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Map, Source, ValueKind};
use serde_json::Value;

use super::{Config, ConfigError, Origin};

/// A value given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, such as `--grpc`.
    pub flag: &'static str,
    /// The setting it sets, `section.key`.
    pub setting: &'static str,
    /// The value as typed.
    pub value: String,
}

/// Where settings come from, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `VOISIN__` and empty ones are ignored.
    pub environment: Map<String, String>,
    /// Command line flags.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file, this process's environment, and flags. An empty path counts as none, as every other empty
    /// variable does.
    pub fn of(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let environment = std::env::vars_os().filter_map(|(key, value)| {
            let key = key.into_string().ok()?;
            Some((key, value.to_string_lossy().into_owned()))
        });
        let file = file.filter(|path| !path.as_os_str().is_empty());
        Sources { file, environment: environment.collect(), flags }
    }
}

/// One value of one source.
struct Leaf {
    setting: String,
    value: ValueKind,
    origin: Origin,
}

/// Reads and merges all sources over the defaults and checks the result.
pub fn load(sources: Sources) -> Result<Config, ConfigError> {
    let mut leaves = Vec::new();
    if let Some(path) = &sources.file {
        leaves.extend(file_leaves(path)?);
    }
    leaves.extend(environment_leaves(sources.environment));
    leaves.extend(sources.flags.into_iter().map(|flag| Leaf {
        setting: flag.setting.into(),
        value: ValueKind::String(flag.value),
        origin: Origin::Flag(flag.flag),
    }));

    let known = Config::default().to_values();
    let mut config = Config::default();
    for leaf in leaves {
        config = apply(config, leaf, &known)?;
    }
    config.check()?;
    Ok(config)
}

fn file_leaves(path: &Path) -> Result<Vec<Leaf>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: path.into(), cause: cause.to_string() })?;
    let tables = File::from_str(&text, FileFormat::Toml).collect().map_err(|cause| {
        ConfigError::Syntax { path: path.into(), detail: cause.to_string().trim().to_owned() }
    })?;
    Ok(flatten(tables, &Origin::File(path.into())))
}

fn environment_leaves(variables: Map<String, String>) -> Vec<Leaf> {
    let source = Environment::with_prefix("VOISIN")
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .source(Some(variables));
    // Collecting strings that are already in memory has no failure of its own.
    flatten(source.collect().unwrap_or_default(), &Origin::Environment)
}

/// Turns nested tables into dotted names, in the order of names so that the first error is always the same.
fn flatten(tables: Map<String, config::Value>, origin: &Origin) -> Vec<Leaf> {
    fn descend(prefix: &str, value: ValueKind, origin: &Origin, leaves: &mut Vec<Leaf>) {
        match value {
            ValueKind::Table(table) if !table.is_empty() => {
                for (key, value) in table {
                    descend(&format!("{prefix}.{key}"), value.kind, origin, leaves);
                }
            }
            value => leaves.push(Leaf { setting: prefix.into(), value, origin: origin.clone() }),
        }
    }
    let mut leaves = Vec::new();
    for (key, value) in tables {
        descend(&key, value.kind, origin, &mut leaves);
    }
    leaves.sort_by(|a, b| a.setting.cmp(&b.setting));
    leaves
}

/// Sets one value.
fn apply(config: Config, leaf: Leaf, known: &[(String, Value)]) -> Result<Config, ConfigError> {
    let Leaf { setting, value, origin } = leaf;
    let sections: BTreeSet<&str> =
        known.iter().filter_map(|(name, _)| name.split('.').next()).collect();
    if sections.contains(setting.as_str()) {
        return match value {
            ValueKind::Table(_) => Ok(config),
            value => Err(ConfigError::Invalid {
                detail: format!("it is a section, set [{setting}] and its keys"),
                value: shown(&value),
                setting,
                origin,
            }),
        };
    }
    let Some((_, default)) = known.iter().find(|(name, _)| *name == setting) else {
        let suggestion = nearest(&setting, known);
        return Err(ConfigError::Unknown { setting, origin, suggestion });
    };
    let value_shown = shown(&value);
    let set = || -> Result<Config, String> {
        let typed = typed(&setting, default, value)?;
        let mut tree = serde_json::to_value(&config).map_err(|e| e.to_string())?;
        let pointer = format!("/{}", setting.replace('.', "/"));
        if let Some(place) = tree.pointer_mut(&pointer) {
            *place = typed;
        }
        // The struct itself decides: unknown words of an enum, numbers wider than the field.
        serde_json::from_value(tree).map_err(|e| e.to_string())
    };
    set().map_err(|detail| ConfigError::Invalid {
        setting: setting.clone(),
        origin,
        value: value_shown,
        detail,
    })
}

/// The value in the setting's own type, which is that of its default.
fn typed(setting: &str, default: &Value, value: ValueKind) -> Result<Value, String> {
    match default {
        Value::Number(number) if number.is_u64() => {
            let is_size = setting.contains("_bytes");
            let expected = if is_size {
                "expected a number of bytes, or text such as \"64 MiB\""
            } else {
                "expected a whole number"
            };
            let number = match value {
                ValueKind::I64(number) => u64::try_from(number).ok(),
                ValueKind::U64(number) => Some(number),
                ValueKind::String(text) if is_size => size(&text),
                ValueKind::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            number.map(Value::from).ok_or_else(|| expected.into())
        }
        Value::Number(_) => {
            let number = match value {
                ValueKind::Float(number) => Some(number),
                ValueKind::I64(number) => Some(number as f64),
                ValueKind::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            number
                .and_then(serde_json::Number::from_f64)
                .map(Value::Number)
                .ok_or_else(|| "expected a number".into())
        }
        Value::String(default) => {
            let ValueKind::String(text) = value else {
                return Err("expected text in quotes".into());
            };
            if default.parse::<SocketAddr>().is_ok() {
                return address(&text).map(|address| Value::String(address.to_string()));
            }
            Ok(Value::String(text))
        }
        Value::Bool(_) => {
            let truth = match value {
                ValueKind::Boolean(truth) => Some(truth),
                ValueKind::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            truth.map(Value::Bool).ok_or_else(|| "expected true or false".into())
        }
        _ => Err("this setting has no type that a file can give".into()),
    }
}

/// A number of bytes, with or without a binary unit.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An address; a host name is resolved once, to IPv4 where it has one.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let resolved: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|cause| format!("expected HOST:PORT such as 127.0.0.1:16000 ({cause})"))?
        .collect();
    let first = resolved.iter().find(|a| a.is_ipv4()).or_else(|| resolved.first());
    first.copied().ok_or_else(|| "the host name has no address".into())
}

/// The setting most likely meant: the same key in another section, else the closest spelling.
fn nearest(setting: &str, known: &[(String, Value)]) -> Option<String> {
    let key = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let wanted = key(setting);
    let same_key = known.iter().find(|(name, _)| key(name) == wanted);
    if let Some((name, _)) = same_key {
        return Some(name.clone());
    }
    let likeness = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(setting, name);
        whole.max(strsim::normalized_damerau_levenshtein(&wanted, &key(name)))
    };
    let (best, score) = known
        .iter()
        .map(|(name, _)| (name, likeness(name)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    (score >= 0.5).then(|| best.clone())
}

/// A value as a message shows it, cut where it would fill the screen.
fn shown(value: &ValueKind) -> String {
    let text = match value {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a table".into(),
        ValueKind::Array(_) => "a list".into(),
        value => value.to_string(),
    };
    if text.chars().count() <= 100 {
        text
    } else {
        text.chars().take(100).chain("...".chars()).collect()
    }
}

#[cfg(test)]
mod tests;
