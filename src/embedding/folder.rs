//! Folders of models, as exports of Hugging Face have them: `model.onnx`, `preprocessor_config.json` and
//! our own, optional `voisin.toml`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::runtime::Source;
use crate::schema::Metric;

/// The model that comes with the program.
pub const BUILT_IN: &str = "holistic";

/// Longest name of a model in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Largest text file of a model's folder.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Where exports keep the graph, in the order looked for.
const GRAPHS: [&str; 2] = ["model.onnx", "onnx/model.onnx"];
const PREPROCESSOR: &str = "preprocessor_config.json";
const CARD: &str = "voisin.toml";

/// What a model's folder holds, before the graph is looked at.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) graph: Source,
    /// The text of `preprocessor_config.json`.
    pub(super) preprocessor: Vec<u8>,
    pub(super) card: Card,
}

/// `voisin.toml`: what the graph does not say. All of it may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Card {
    /// The output to take: left out, `image_embeds`, `embedding`, `pooler_output`, `last_hidden_state` or the
    /// first one, whichever there is.
    pub(super) output: Option<String>,
    /// How the parts of an output become one vector.
    pub(super) pooling: Option<Pooling>,
    /// Gives vectors the length 1. Left out: true.
    #[serde(alias = "normalize")]
    pub(super) normalise: Option<bool>,
    /// How vectors are compared. Left out: Cosine of vectors of length 1, or else SquaredEuclidean.
    pub(super) metric: Option<String>,
    /// Which pixels the model gets.
    pub(super) decode: Decode,
}

/// How the parts of an output become one vector: the tokens of [n, tokens, d], or the places of
/// [n, d, height, width].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pooling {
    /// The first token.
    Cls,
    /// The mean of all tokens or places.
    Mean,
}

/// Which pixels the model gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Decode {
    /// Those that training had: Pillow's.
    #[default]
    Exact,
    /// JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size where that is still twice what the model takes,
    /// and resizing may round: a few times faster for photographs, and a few units of 255 off at edges.
    Scaled,
    /// The same down to 5/4 of what the model takes, for models that see shapes and no details.
    Coarse,
}

impl Decode {
    /// What JPEGs may be decoded down to, in percent of what the model takes.
    pub(super) fn percent(self) -> Option<u32> {
        match self {
            Decode::Exact => None,
            Decode::Scaled => Some(200),
            Decode::Coarse => Some(125),
        }
    }
}

impl Folder {
    /// The model that comes with the program.
    pub(super) fn built_in() -> Folder {
        Folder {
            graph: Source::Bytes(include_bytes!("../../models/holistic/model.onnx")),
            preprocessor: include_bytes!("../../models/holistic/preprocessor_config.json").to_vec(),
            card: Card { decode: Decode::Coarse, ..Card::default() },
        }
    }

    /// Reads a folder; words name the file that is wrong.
    pub(super) fn read(folder: &Path) -> Result<Folder, String> {
        let graph = GRAPHS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let graph = graph.ok_or_else(|| {
            format!("{} has no model.onnx (nor onnx/model.onnx)", folder.display())
        })?;
        let preprocessor = read_text(&folder.join(PREPROCESSOR))?.ok_or_else(|| {
            format!(
                "{} has no {PREPROCESSOR}, which tells size, mean and spread of the pictures it takes",
                folder.display()
            )
        })?;
        let path = folder.join(CARD);
        let card = match read_text(&path)? {
            None => Card::default(),
            Some(text) => {
                read_card(&text).map_err(|words| format!("{}: {words}", path.display()))?
            }
        };
        Ok(Folder { graph: Source::File(graph), preprocessor, card })
    }

    /// The metric that the card names.
    pub(super) fn metric(&self) -> Result<Metric, String> {
        match &self.card.metric {
            Some(name) => Metric::from_name(name)
                .ok_or_else(|| format!("{CARD}: metric {name:?} is unknown; known: SquaredEuclidean, Euclidean, InnerProduct, Cosine, Manhattan")),
            None if self.normalise() => Ok(Metric::Cosine),
            None => Ok(Metric::SquaredEuclidean),
        }
    }

    /// Whether vectors get the length 1.
    pub(super) fn normalise(&self) -> bool {
        self.card.normalise.unwrap_or(true)
    }
}

fn read_card(text: &[u8]) -> Result<Card, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())?;
    let source = config::File::from_str(text, config::FileFormat::Toml);
    let read = config::Config::builder().add_source(source).build();
    read.and_then(config::Config::try_deserialize).map_err(|error| error.to_string())
}

/// A file's bytes; `None` where there is none.
fn read_text(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let words = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(words(error)),
        Ok(data) if data.len() > TEXT_BYTES_MAX => {
            let (path, bytes) = (path.display(), data.len());
            return Err(format!("{path} has {bytes} bytes, above the limit of {TEXT_BYTES_MAX}"));
        }
        // Reading a pipe or a device might never end.
        Ok(data) if !data.is_file() => return Err(format!("{} is not a file", path.display())),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(words)?;
    file.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(words)?;
    Ok(Some(text))
}

/// Refuses names that are no plain names of folders.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.chars().all(is_plain);
    match is_good {
        true => Ok(()),
        false => Err(format!(
            "the name of a model has 1 to {NAME_BYTES_MAX} letters, digits and -_. and does not begin with a dot"
        )),
    }
}

/// The names of the folders that may be models, in order.
pub(super) fn names(models: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(models).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (check_name(&name).is_ok() && entry.path().is_dir()).then_some(name)
    });
    let mut names: Vec<String> = named.filter(|name| name != BUILT_IN).collect();
    names.sort();
    names
}

/// Copies a model's folder to where models are; gives the copy's path. It appears there whole or not at all.
pub fn add(models: &Path, from: &Path, name: &str) -> Result<PathBuf, String> {
    check_name(name)?;
    if name == BUILT_IN {
        return Err(format!("{BUILT_IN} is the name of the model that comes with the program"));
    }
    let to = models.join(name);
    if to.exists() {
        return Err(format!("{} exists already; choose another --name or remove it", to.display()));
    }
    let words = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(models).map_err(|error| words(models, error))?;
    let made = tempfile::Builder::new()
        .prefix(".adding-")
        .tempdir_in(models)
        .map_err(|error| words(models, error))?;
    for entry in walkdir::WalkDir::new(from).follow_links(true).max_depth(4) {
        let entry = entry.map_err(|error| error.to_string())?;
        let Ok(below) = entry.path().strip_prefix(from) else { continue };
        let target = made.path().join(below);
        let copied = match entry.file_type() {
            kind if kind.is_dir() => std::fs::create_dir_all(&target),
            kind if kind.is_file() => std::fs::copy(entry.path(), &target).map(|_| ()),
            _ => continue,
        };
        copied.map_err(|error| words(entry.path(), error))?;
    }
    std::fs::rename(made.path(), &to).map_err(|error| words(&to, error))?;
    // What it held has another name now.
    let _ = made.keep();
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_folders() {
        for good in ["a", "clip-vit-b_32", "v1.5", &"x".repeat(64)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "..", ".hidden", "a/b", "a\\b", "a b", "\u{e9}", "a\0", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cards_may_say_nothing_and_must_say_nothing_unknown() {
        assert_eq!(read_card(b""), Ok(Card::default()));
        let text = b"output = \"x\"\npooling = \"mean\"\nnormalize = false\nmetric = \"Cosine\"\ndecode = \"scaled\"";
        let card = Card {
            output: Some("x".into()),
            pooling: Some(Pooling::Mean),
            normalise: Some(false),
            metric: Some("Cosine".into()),
            decode: Decode::Scaled,
        };
        assert_eq!(read_card(text), Ok(card));
        for bad in [&b"outputs = \"x\""[..], b"pooling = \"max\"", b"\xff", b"= 3"] {
            assert!(read_card(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_are_added_whole_and_once() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, models) = (root.path().join("from"), root.path().join("models"));
        std::fs::create_dir_all(from.join("onnx")).expect("a folder");
        std::fs::write(from.join("onnx/model.onnx"), b"graph").expect("a file");
        let words = Folder::read(&from).expect_err("half of it");
        assert!(words.contains(PREPROCESSOR), "{words}");
        std::fs::write(from.join(PREPROCESSOR), b"{}").expect("a file");
        let to = add(&models, &from, "mine").expect("it is good");
        let Source::File(graph) = Folder::read(&to).expect("it is whole").graph else {
            panic!("it is a file");
        };
        assert_eq!(std::fs::read(graph).expect("a file"), b"graph");
        assert_eq!(names(&models), ["mine"]);
        let words = add(&models, &from, "mine").expect_err("it is there");
        assert!(words.contains("exists already"), "{words}");
        assert!(add(&models, &from, BUILT_IN).is_err());
        assert!(Folder::read(&models).expect_err("empty").contains("model.onnx"));
    }
}
