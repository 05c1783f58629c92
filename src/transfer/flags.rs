//! The flags of `voisin import`, and what they say: of columns, of the index of a new collection, and which
//! of them make an import another one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::columns::{ColumnFlags, IndexFlags, Named, parse_named};
use crate::files::{Format, Wanted};
use crate::schema::{ElementType, Metric};

/// What is done with rows whose key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// They are bad rows.
    Insert,
    /// They replace the rows that are there.
    Upsert,
}

/// Arguments of `voisin import`.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Files of rows: Arrow IPC (.arrow, .feather), Parquet, JSON lines (.jsonl), .npy, .npz, .fvecs,
    /// .bvecs, .ivecs or HDF5.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The collection; created for the columns of the first file if it is not there.
    #[arg(long, value_name = "NAME")]
    pub collection: String,
    /// The server's gRPC address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:16000")]
    pub server: String,
    /// The format, where the file's name does not tell.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// The column of whole numbers with the keys [default: `_key`, `key` or `id`, else row numbers].
    #[arg(long, value_name = "COLUMN", conflicts_with = "first_key")]
    pub key: Option<String>,
    /// A .npy with a key for each row, one for each FILE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "first_key"])]
    pub keys: Vec<PathBuf>,
    /// Keys are the numbers of rows, from this one on.
    #[arg(long, value_name = "N")]
    pub first_key: Option<u64>,
    /// A column of vectors, and its name in the collection [default: the only column of lists].
    #[arg(long = "vector", value_name = "COLUMN[=NAME]", value_parser = parse_named)]
    pub vectors: Vec<Named>,
    /// The forward columns, with their names in the collection; '' for none [default: all others].
    #[arg(long, value_name = "COLUMN[=NAME],...", value_delimiter = ',', value_parser = parse_column)]
    pub columns: Option<Vec<Named>>,
    /// What is done with rows whose key exists.
    #[arg(long, value_enum, default_value = "insert")]
    pub mode: Mode,
    /// Pass over rows that cannot be taken instead of stopping at the first one.
    #[arg(long)]
    pub skip_bad: bool,
    /// Write the rows that were passed over into this file, as JSON lines.
    #[arg(long, value_name = "FILE", requires = "skip_bad")]
    pub bad_rows: Option<PathBuf>,
    /// Where the state of the import is kept [default: beside the first file].
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Fail where there is no such collection.
    #[arg(long, conflicts_with_all = ["element", "metric", "index_type", "params", "typed"])]
    pub no_create: bool,
    /// The element type of the vectors of a new collection [default: what the file has, FP32 for
    /// doubles and wide numbers].
    #[arg(long, value_name = "TYPE", value_parser = parse_element)]
    pub element: Option<ElementType>,
    /// The metric of a new collection [default: SquaredEuclidean].
    #[arg(long, value_name = "METRIC", value_parser = parse_metric)]
    pub metric: Option<Metric>,
    /// The index of a new collection, such as HNSW or FLAT [default: the server's].
    #[arg(long, value_name = "TYPE")]
    pub index_type: Option<String>,
    /// Further parameters of the vector columns of a new collection, such as ef_construction=200.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub params: Vec<(String, String)>,
    /// Declare the forward columns of a new collection with the types of the file.
    #[arg(long)]
    pub typed: bool,
    /// Rows of a request [default: as many as make a MiB].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch_rows: Option<u32>,
    /// How long a server that is busy or away is asked again.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

fn parse_column(text: &str) -> std::result::Result<Named, String> {
    // An empty list is a list of one empty text here.
    if text.is_empty() {
        return Ok(Named { column: String::new(), name: String::new() });
    }
    parse_named(text)
}

fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("it must look like KEY=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn parse_metric(text: &str) -> std::result::Result<Metric, String> {
    let names: Vec<&str> = Metric::ALL.iter().map(|(name, _)| *name).collect();
    Metric::from_name(text).ok_or_else(|| format!("one of {}", names.join(", ")))
}

fn parse_element(text: &str) -> std::result::Result<ElementType, String> {
    use ElementType::{Binary32, Binary64, Fp16, Fp32, Int4, Int8, Int16};
    let all = [Fp32, Fp16, Int8, Int4, Int16, Binary32, Binary64];
    let names: Vec<&str> = all.iter().map(|element| element.name()).collect();
    let found = all.into_iter().find(|element| element.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("one of {}", names.join(", ")))
}

impl ImportArgs {
    /// What is said of columns.
    pub(super) fn column_flags(&self) -> ColumnFlags {
        let forwards = self
            .columns
            .clone()
            .map(|columns| columns.into_iter().filter(|named| !named.column.is_empty()).collect());
        ColumnFlags {
            key: self.key.clone(),
            first_key: self.first_key,
            vectors: self.vectors.clone(),
            forwards,
        }
    }

    /// What is said of a new collection.
    pub(super) fn index_flags(&self) -> IndexFlags {
        let mut params: Vec<(String, String)> = Vec::new();
        let index_type = self.index_type.clone().map(|value| ("index_type".to_owned(), value));
        params.extend(index_type);
        params.extend(self.params.iter().cloned());
        IndexFlags { element: self.element, metric: self.metric, params, is_typed: self.typed }
    }

    /// What is wanted of the file of that place.
    pub(super) fn wanted(&self, file: usize) -> Wanted {
        let flags = self.column_flags();
        let forwards = flags.forwards.iter().flatten();
        let named = flags.vectors.iter().chain(forwards).map(|named| named.column.clone());
        Wanted {
            names: flags.key.iter().cloned().chain(named).collect(),
            has_others: flags.forwards.is_none(),
            keys: self.keys.get(file).cloned(),
        }
    }

    /// The flags that an import must keep to be the same one.
    pub(super) fn options(&self) -> String {
        let named = |all: &[Named]| {
            let texts = all.iter().map(|named| format!("{}={}", named.column, named.name));
            texts.collect::<Vec<_>>().join(",")
        };
        let mut options = vec![format!("mode={:?}", self.mode).to_lowercase()];
        options.extend(self.format.map(|format| format!("format={format:?}").to_lowercase()));
        options.extend(self.key.as_ref().map(|key| format!("key={key}")));
        options.extend(self.first_key.map(|first| format!("first-key={first}")));
        if !self.vectors.is_empty() {
            options.push(format!("vector={}", named(&self.vectors)));
        }
        options.extend(self.columns.as_ref().map(|all| format!("columns={}", named(all))));
        options.join(" ")
    }

    /// Where the state of the import is kept.
    pub(super) fn state_path(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let mut path = self.files[0].clone().into_os_string();
            path.push(".voisin-import");
            path.into()
        })
    }
}
