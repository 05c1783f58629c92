//! `voisin import` and `voisin export`: rows from files into a collection of a running server, and back.
//! `pictures` has `voisin index` and `voisin search`.
//!
//! `flags` are those of an import, `columns` says what the columns of a file are taken for, `intake` turns
//! blocks of a file into batches of rows, in the thread of `producer`; `sender` writes them and tries again,
//! `checkpoint` remembers how far an import is, `progress` tells it.

mod checkpoint;
mod columns;
mod export;
mod flags;
mod import;
mod intake;
mod pictures;
mod producer;
mod progress;
mod sender;

pub use export::{ExportArgs, ExportReport, export};
pub use flags::{ImportArgs, Mode};
pub use import::{ImportReport, import};
pub use pictures::{IndexArgs, IndexReport, SearchArgs, index, search};

use std::fmt::Display;

use crate::files::FileError;
use crate::server::client::ClientError;

/// The column of keys in files that are exported.
const KEY: &str = "_key";
/// A field's place in a collection, in the metadata of files that are exported.
const ROLE: &str = "voisin.role";
/// A field's name in the collection, where it is not that in the file.
const NAME: &str = "voisin.name";
/// What the collection is declared to hold, in the metadata of the whole file.
const DECLARATION: &str = "voisin.declaration";

/// Why rows were not all transferred.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct TransferError {
    words: String,
    kind: ErrorKind,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It cannot be done as asked, and nothing was done.
    NotAsAsked,
    /// It failed on the way.
    Failed,
    /// A signal of this name stopped it.
    Stopped(&'static str),
}

/// Its result type.
pub type Result<T> = std::result::Result<T, TransferError>;

impl TransferError {
    fn failed(words: impl Display) -> Self {
        TransferError { words: words.to_string(), kind: ErrorKind::Failed }
    }

    fn not_as_asked(words: impl Display) -> Self {
        TransferError { words: words.to_string(), kind: ErrorKind::NotAsAsked }
    }

    fn stopped(signal: &'static str) -> Self {
        TransferError { words: format!("stopped by {signal}"), kind: ErrorKind::Stopped(signal) }
    }

    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with more words behind it.
    fn and(mut self, more: impl Display) -> Self {
        self.words = format!("{}\n{more}", self.words);
        self
    }
}

impl From<FileError> for TransferError {
    fn from(cause: FileError) -> Self {
        TransferError::failed(cause)
    }
}

impl From<ClientError> for TransferError {
    fn from(cause: ClientError) -> Self {
        TransferError::failed(cause)
    }
}

/// A number with commas, as people read them.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Names in quotes, with commas between them.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_in_threes() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
