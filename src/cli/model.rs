//! `voisin model`: lists, checks and adds folders of models. No server is needed, and none is told: it looks
//! for a model where it is asked for one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::config::{self, Flag, Sources};
use crate::embedding::{self, BUILT_IN, Checked, Listed, ModelInfo, Models};

/// Arguments of `voisin model`.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
    /// Configuration file (TOML), as for `voisin serve`.
    #[arg(long, value_name = "FILE", env = "VOISIN_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Data folder, as for `voisin serve`; models are in its folder `models`.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// All models with their dimension and what runs them.
    List,
    /// Open a model, run it, and say what it takes and gives and how long a picture takes.
    Check {
        /// The name of a model, or a folder with model.onnx and preprocessor_config.json.
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Check a folder and copy it to the models of the server.
    Add {
        /// A folder with model.onnx, preprocessor_config.json and, perhaps, voisin.toml.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The model's name [default: that of the folder].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// 0 when done, 1 when a model cannot be used, 2 when the command could not be run as asked.
pub(super) fn run(args: &ModelArgs) -> ExitCode {
    let data = args.data.clone();
    let flags = data.map(|value| Flag { flag: "--data", setting: "storage.data", value });
    let config = match config::load(Sources::of(args.config.clone(), flags.into_iter().collect())) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("voisin: {error}");
            return ExitCode::from(2);
        }
    };
    let models = Models::new(&config);
    let outcome = match &args.command {
        ModelCommand::List => list(&models, args.json),
        ModelCommand::Check { model } => check(&models, model, args.json),
        ModelCommand::Add { folder, name } => add(&models, folder, name.as_deref(), args.json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("voisin: {words}");
            ExitCode::FAILURE
        }
    }
}

fn list(models: &Models, as_json: bool) -> Result<(), String> {
    let listed = models.list();
    if as_json {
        let known: Vec<Value> = listed.iter().map(listed_json).collect();
        println!("{}", json!({ "folder": models.folder(), "models": known }));
        return Ok(());
    }
    for Listed { name, info } in listed {
        match info {
            Ok(info) => println!(
                "{name}: {} elements, {}, pictures of {} x {}, {}",
                info.dimension,
                info.metric.name(),
                info.picture.1,
                info.picture.0,
                info.provider.name()
            ),
            Err(problem) => println!("{name}: {problem}"),
        }
    }
    println!("others are added to {} by: voisin model add DIR", models.folder().display());
    Ok(())
}

fn listed_json(listed: &Listed) -> Value {
    match &listed.info {
        Ok(info) => with_name(&listed.name, info_json(info)),
        Err(problem) => json!({ "name": listed.name, "problem": problem }),
    }
}

fn info_json(info: &ModelInfo) -> Value {
    json!({
        "dimension": info.dimension,
        "metric": info.metric.name(),
        "provider": info.provider.name(),
        "width": info.picture.1,
        "height": info.picture.0,
        "input": info.input,
        "output": info.output,
    })
}

fn with_name(name: &str, mut value: Value) -> Value {
    value["name"] = json!(name);
    value
}

fn check(models: &Models, model: &str, as_json: bool) -> Result<(), String> {
    let path = Path::new(model);
    let named = models.folder().join(model);
    let folder = match model {
        BUILT_IN => None,
        _ if embedding::check_name(model).is_ok() && named.is_dir() => Some(named),
        _ if path.is_dir() => Some(path.to_path_buf()),
        _ => {
            let folder = models.folder().display();
            return Err(format!("{model:?} is neither a model of {folder} nor a folder"));
        }
    };
    let checked = models.check(folder.as_deref()).map_err(|words| format!("{model}: {words}"))?;
    tell(model, &checked, as_json);
    Ok(())
}

fn tell(model: &str, checked: &Checked, as_json: bool) {
    let milliseconds = checked.picture.as_secs_f64() * 1e3;
    let info = &checked.info;
    if as_json {
        let mut value = with_name(model, info_json(info));
        value["milliseconds_per_image"] = json!(milliseconds);
        println!("{value}");
        return;
    }
    println!("{model}: ok");
    println!("  input      {}", info.input);
    println!("  output     {}", info.output);
    println!("  pictures   {} x {} pixels", info.picture.1, info.picture.0);
    println!("  dimension  {}", info.dimension);
    println!("  metric     {}", info.metric.name());
    println!("  provider   {}", info.provider.name());
    println!("  one image  {milliseconds:.2} ms in the model");
}

fn add(models: &Models, folder: &Path, name: Option<&str>, as_json: bool) -> Result<(), String> {
    let whole = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    let own = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.unwrap_or(own);
    embedding::check_name(name)
        .map_err(|words| format!("{name:?}: {words}; choose one with --name"))?;
    let checked =
        models.check(Some(&whole)).map_err(|words| format!("{}: {words}", folder.display()))?;
    let to = embedding::add(models.folder(), &whole, name)?;
    tell(name, &checked, as_json);
    if !as_json {
        println!("added as {}; index columns name it by the parameter model={name}", to.display());
    }
    Ok(())
}
