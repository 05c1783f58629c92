//! The command line: what can be typed, and which exit code says what.
//!
//! 0 means done, 1 that the command failed (or `verify` found faults), 2 that it could not be run as asked.

mod bench;
mod health;
mod model;
mod serve;
mod signals;
mod transfer;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::config::{Flag, Sources};
use crate::transfer::{ExportArgs, ImportArgs, IndexArgs, SearchArgs};

/// A gRPC vector database: vectors in, nearest neighbours out, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "voisin", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a data folder.
    Serve(ServeArgs),
    /// Check every checksum and invariant of a data folder that no server has open.
    Verify(VerifyArgs),
    /// Ask a running server whether it is ready.
    Health(HealthArgs),
    /// Write rows of files into a collection of a running server.
    Import(Box<ImportArgs>),
    /// Write rows of a collection of a running server into a file.
    Export(Box<ExportArgs>),
    /// Index the pictures of a folder in a collection of a running server.
    Index(IndexArgs),
    /// Find the pictures of a collection that are nearest to one.
    Search(SearchArgs),
    /// List, check and add models that make vectors of pictures.
    Model(model::ModelArgs),
    /// Measure speed, recall, memory and start-up with vectors of known difficulty.
    Bench(BenchArgs),
}

/// Arguments of `voisin serve`. Flags win over the environment, which wins over the file.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file (TOML); deploy/config.example.toml lists all settings.
    #[arg(long, value_name = "FILE", env = "VOISIN_CONFIG")]
    config: Option<PathBuf>,
    /// Data folder; made when absent [default: voisin-data].
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where gRPC is served; port 0 takes any free port [default: 127.0.0.1:16000].
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Option<String>,
    /// Where HTTP is served; port 0 takes any free port [default: 127.0.0.1:16001].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// What an acknowledged write survives: kill -9 or also the loss of power [default: power].
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(["process", "power"]))]
    durability: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(["text", "json"]))]
    log_format: Option<String>,
    /// Which log lines are written, such as `info` or `voisin=debug,tonic=warn` [default: info].
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Print the settings in force and exit; 2 when they are refused.
    #[arg(long)]
    check_config: bool,
}

/// Arguments of `voisin verify`.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The data folder.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Arguments of `voisin health`.
#[derive(Debug, Args)]
struct HealthArgs {
    /// The server's HTTP address.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "VOISIN__SERVER__HTTP",
        default_value = "127.0.0.1:16001"
    )]
    http: String,
}

impl ServeArgs {
    /// The sources of settings: the file, this process's environment and the flags.
    fn sources(&self) -> Sources {
        let flags = [
            ("--data", "storage.data", &self.data),
            ("--grpc", "server.grpc", &self.grpc),
            ("--http", "server.http", &self.http),
            ("--durability", "storage.durability", &self.durability),
            ("--log-format", "log.format", &self.log_format),
            ("--log-filter", "log.filter", &self.log_filter),
        ];
        let flags = flags.into_iter().filter_map(|(flag, setting, value)| {
            Some(Flag { flag, setting, value: value.clone()? })
        });
        Sources::of(self.config.clone(), flags.collect())
    }
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Index(args) => transfer::index(&args),
        Command::Search(args) => transfer::search(&args),
        Command::Model(args) => model::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_serve_sets_its_setting() {
        let line = "voisin serve --config a.toml --data d --grpc 127.0.0.1:1 --http 127.0.0.1:2 \
                    --durability process --log-format json --log-filter debug";
        let Ok(Cli { command: Command::Serve(args) }) = parse(line) else {
            panic!("the line is good");
        };
        let mut sources = args.sources();
        assert_eq!(sources.file.take(), Some(PathBuf::from("a.toml")));
        sources.environment.clear();
        let config = crate::config::load(sources).expect("the flags are good");
        assert_eq!(config.storage.data, PathBuf::from("d"));
        assert_eq!((config.server.grpc.port(), config.server.http.port()), (1, 2));
        assert_eq!(config.storage.durability, crate::config::Durability::Process);
        assert_eq!(config.log.format, crate::config::LogFormat::Json);
        assert_eq!(config.log.filter, "debug");
    }

    #[test]
    fn a_flag_that_does_not_exist_brings_a_suggestion() {
        let message = parse("voisin serve --durabilty power").expect_err("misspelt");
        assert!(message.contains("--durability"), "{message}");
    }

    #[test]
    fn words_outside_a_closed_set_are_refused() {
        let message = parse("voisin serve --durability disk").expect_err("not a mode");
        assert!(message.contains("process, power"), "{message}");
        assert!(parse("voisin verify").is_err(), "verify needs a folder");
    }
}
