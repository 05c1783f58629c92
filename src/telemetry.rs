//! Where log lines go and how they look: standard error, for people or as one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging for the whole process; a second call changes nothing.
pub fn init(log: &LogConfig) {
    // The filter was checked with the rest of the settings; `new` skips what it cannot read.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.filter))
        .with_writer(std::io::stderr);
    // Fails only when logging is on already, as in tests.
    let _ = match log.format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}

/// Reports why the process ends. Not subject to the filter in text form: the last word is always said.
pub fn report_fatal(format: LogFormat, message: &str) {
    match format {
        LogFormat::Text => eprintln!("voisin: {message}"),
        LogFormat::Json => tracing::error!(cause = message, "fatal"),
    }
}
