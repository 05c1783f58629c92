//! What can be wrong with the settings, in words that let the operator fix it without the manual.

use std::fmt;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// The `VOISIN__SECTION__KEY` environment.
    Environment,
    /// A command line flag, such as `--grpc`.
    Flag(&'static str),
}

/// Why the settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        detail: String,
    },
    /// No setting of that name.
    #[error("unknown setting {setting:?} in {}{}", .origin.place(.setting), .origin.hint(.suggestion))]
    Unknown {
        /// The name as given, `section.key`.
        setting: String,
        /// Where it was set.
        origin: Origin,
        /// The nearest name there is.
        suggestion: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("setting {setting:?} in {} is {value}: {detail}", .origin.place(.setting))]
    Invalid {
        /// The setting.
        setting: String,
        /// Where it was set.
        origin: Origin,
        /// The value as given.
        value: String,
        /// What was expected.
        detail: String,
    },
    /// A value of the right kind that is not allowed, or that contradicts another.
    #[error("setting {setting:?} is {value}; allowed: {allowed}")]
    NotAllowed {
        /// The setting.
        setting: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

impl Origin {
    /// The place to look at, for a setting.
    fn place(&self, setting: &str) -> String {
        match self {
            Origin::File(path) => path.display().to_string(),
            Origin::Environment => format!("environment variable {}", variable(setting)),
            Origin::Flag(flag) => format!("flag {flag}"),
        }
    }

    /// The question that ends a message about an unknown setting.
    fn hint(&self, suggestion: &Option<String>) -> String {
        match (suggestion, self) {
            (None, _) => String::from("; deploy/config.example.toml lists all settings"),
            (Some(name), Origin::Environment) => {
                format!("; did you mean {name:?} ({})?", variable(name))
            }
            (Some(name), _) => format!("; did you mean {name:?}?"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment => f.write_str("the environment"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The environment variable of a setting.
fn variable(setting: &str) -> String {
    format!("VOISIN__{}", setting.replace('.', "__").to_uppercase())
}
