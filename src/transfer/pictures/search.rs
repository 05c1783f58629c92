//! `voisin search`: the pictures nearest to one, as a table, as JSON, or as a page to look at.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::sheet::{Shown, sheet};
use super::{PATH, ROOT, THUMBNAIL, index};
use crate::schema::Value;
use crate::server::client::{Client, PictureHits, PictureQuery};
use crate::transfer::{Result, TransferError};

/// Arguments of `voisin search`.
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// The picture to search by.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// The collection.
    #[arg(long, value_name = "NAME")]
    pub collection: String,
    /// How many pictures are wanted.
    #[arg(short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub k: u32,
    /// The server's gRPC address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:16000")]
    pub server: String,
    /// Candidates kept while the graph is walked, 1 to 65536 [default: the collection's].
    #[arg(long, value_name = "N")]
    pub ef: Option<u32>,
    /// Which rows may be found, such as 'width > 1000' (docs/filters.md).
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    pub filter: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a contact sheet and open it in a browser.
    #[arg(long)]
    pub open_html: bool,
    /// Where the contact sheet is written; it is not opened then, unless --open-html is given too
    /// [default: a new file in the folder for temporary files].
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// A picture that was found.
struct Hit {
    key: u64,
    score: f32,
    /// Where it is: the folder that was indexed and the path in it, as far as the row has them.
    path: String,
    thumbnail: Option<Vec<u8>>,
}

/// Searches, until there is an answer or `interrupt` gives a signal's name; gives what is to be printed.
pub async fn search(
    args: &SearchArgs,
    interrupt: impl Future<Output = &'static str>,
) -> Result<String> {
    tokio::select! {
        found = answer(args) => found,
        signal = interrupt => Err(TransferError::stopped(signal)),
    }
}

async fn answer(args: &SearchArgs) -> Result<String> {
    let shown = args.image.display();
    let image = index::read(&args.image)
        .map_err(|reason| TransferError::not_as_asked(format!("{shown}: {reason}")))?;
    let mut client = Client::connect(&args.server).await?;
    let Some(described) = client.describe(&args.collection).await? else {
        let words = format!("collection {:?} does not exist", args.collection);
        return Err(TransferError::not_as_asked(words));
    };
    let wants_page = args.open_html || args.html.is_some();
    let columns = described.declaration.forwards.iter().map(|column| column.name.as_str());
    let mut forwards: Vec<String> = columns
        .filter(|name| [ROOT, PATH].contains(name) || (wants_page && *name == THUMBNAIL))
        .map(str::to_owned)
        .collect();
    forwards.sort();
    let query = PictureQuery {
        collection: args.collection.clone(),
        image: image.clone(),
        topk: args.k,
        ef_search: args.ef,
        filter: args.filter.clone(),
        forwards: forwards.clone(),
    };
    let found = client.search_by_image(query).await;
    let found = found.map_err(|cause| TransferError::failed(format!("{shown}: {cause}")))?;
    let micros = found.micros;
    let hits = hits(found, &forwards);
    let mut text = match args.json {
        true => to_json(args, &hits, micros),
        false => table(&hits, micros),
    };
    if wants_page {
        let page = page(args, &image, &hits)?;
        if args.open_html {
            open(&page);
        }
        if !args.json {
            text += &format!("\ncontact sheet: {}", page.display());
        }
    }
    Ok(text)
}

fn hits(found: PictureHits, forwards: &[String]) -> Vec<Hit> {
    let value = |name: &str, row: usize| {
        let place = forwards.iter().position(|column| column == name)?;
        found.forwards.get(place)?.get(row)?.clone()
    };
    let text = |name: &str, row: usize| match value(name, row) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let rows = found.keys.iter().zip(&found.scores).enumerate();
    let hits = rows.map(|(row, (key, score))| Hit {
        key: *key,
        score: *score,
        path: match (text(ROOT, row), text(PATH, row)) {
            (Some(root), Some(path)) => Path::new(&root).join(path).display().to_string(),
            (None, Some(path)) => path,
            _ => format!("key {key}"),
        },
        thumbnail: match value(THUMBNAIL, row) {
            Some(Value::Bytes(bytes)) => Some(bytes.to_vec()),
            _ => None,
        },
    });
    hits.collect()
}

fn table(hits: &[Hit], [decode, embed, search]: [u64; 3]) -> String {
    let mut text = String::from("  score  picture");
    for hit in hits {
        text += &format!("\n{:>7.4}  {}", hit.score, hit.path);
    }
    if hits.is_empty() {
        text += "\n(none)";
    }
    let milliseconds = |micros: u64| micros as f64 / 1e3;
    text + &format!(
        "\n{:.1} ms: {:.1} decoding, {:.1} in the model, {:.1} searching",
        milliseconds(decode + embed + search),
        milliseconds(decode),
        milliseconds(embed),
        milliseconds(search)
    )
}

fn to_json(args: &SearchArgs, hits: &[Hit], [decode, embed, search]: [u64; 3]) -> String {
    let hits: Vec<_> = hits
        .iter()
        // A key is too large for the numbers of many readers of JSON.
        .map(|hit| json!({ "key": hit.key.to_string(), "score": hit.score, "path": hit.path }))
        .collect();
    let answer = json!({
        "image": args.image.display().to_string(),
        "collection": args.collection,
        "hits": hits,
        "decode_us": decode,
        "embed_us": embed,
        "search_us": search,
    });
    answer.to_string()
}

fn page(args: &SearchArgs, image: &[u8], hits: &[Hit]) -> Result<PathBuf> {
    let shown: Vec<Shown<'_>> = hits
        .iter()
        .map(|hit| Shown {
            words: format!("{:.4}", hit.score),
            path: &hit.path,
            picture: hit.thumbnail.as_deref(),
        })
        .collect();
    let title = format!("{} in {}", args.image.display(), args.collection);
    let path = args.image.display().to_string();
    let own = Shown { words: "searched by".to_owned(), path: &path, picture: Some(image) };
    let text = sheet(&title, &own, &shown);
    let words = |path: &Path, cause: &dyn std::fmt::Display| {
        TransferError::failed(format!("the contact sheet {}: {cause}", path.display()))
    };
    if let Some(path) = &args.html {
        std::fs::write(path, text).map_err(|cause| words(path, &cause))?;
        return Ok(path.clone());
    }
    let folder = std::env::temp_dir();
    let file = tempfile::Builder::new().prefix("voisin-search-").suffix(".html").tempfile();
    let file = file.map_err(|cause| words(&folder, &cause))?;
    let (_, path) = file.keep().map_err(|cause| words(&folder, &cause))?;
    std::fs::write(&path, text).map_err(|cause| words(&path, &cause))?;
    Ok(path)
}

/// Opens a page where there is something that opens pages.
fn open(page: &Path) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = || Stdio::null();
    let started =
        Command::new(opener).arg(page).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    if started.is_err() {
        eprintln!("no browser could be opened ({opener} is missing): open the file yourself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_scores_paths_and_times() {
        let found = PictureHits {
            keys: vec![7, 9],
            scores: vec![0.0, 0.25],
            forwards: vec![
                vec![Some(Value::String("a.jpg".into())), None],
                vec![Some(Value::String("/photos".into())), None],
            ],
            micros: [1_000, 2_000, 500],
        };
        let hits = hits(found, &[PATH.to_owned(), ROOT.to_owned()]);
        let text = table(&hits, [1_000, 2_000, 500]);
        assert_eq!(
            text,
            "  score  picture\n 0.0000  /photos/a.jpg\n 0.2500  key 9\n3.5 ms: 1.0 decoding, 2.0 in the model, 0.5 searching"
        );
        assert!(table(&[], [0, 0, 0]).contains("(none)"));
    }
}
