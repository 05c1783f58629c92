//! `voisin index` and `voisin search`: a folder's pictures into a collection of a running server, and the
//! pictures nearest to one.
//!
//! `walk` finds files, `index` compares them with the rows that there are and sends what is new, `sheet`
//! makes a page of what a search found.

mod index;
mod search;
mod sheet;
mod walk;

pub use index::{IndexArgs, IndexReport, index};
pub use search::{SearchArgs, search};

use crate::schema::ValueKind;
use crate::server::client::ForwardInfo;

/// The index column of a new collection.
const EMBEDDING: &str = "embedding";
/// Where a picture is: the folder that was indexed, and the path in it with `/` between.
const ROOT: &str = "image_root";
const PATH: &str = "image_path";
/// What tells whether a file has changed.
const BYTES: &str = "file_bytes";
const MODIFIED: &str = "modified_ms";
/// What the server makes of a picture.
const WIDTH: &str = "width";
const HEIGHT: &str = "height";
const THUMBNAIL: &str = "thumbnail";
/// Longest side of thumbnails in pixels.
const THUMBNAIL_SIDE: u32 = 256;

/// The forward columns of a collection of pictures.
fn forwards() -> Vec<ForwardInfo> {
    let kinds = [
        (PATH, ValueKind::String),
        (ROOT, ValueKind::String),
        (BYTES, ValueKind::Int64),
        (MODIFIED, ValueKind::Int64),
        (WIDTH, ValueKind::Int64),
        (HEIGHT, ValueKind::Int64),
        (THUMBNAIL, ValueKind::Bytes),
    ];
    kinds.map(|(name, kind)| ForwardInfo { name: name.to_owned(), kind: Some(kind) }).into()
}
