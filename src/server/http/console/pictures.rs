//! The pictures of rows: the thumbnail that a row holds, or the file that it names below the picture root.

use std::io::Read;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;

use super::has_already;
use super::root::{NotShown, PictureFile, PictureRoot};
use crate::config::ConsoleConfig;
use crate::embedding::media_type;
use crate::error::Error;
use crate::query::ColumnChoice;
use crate::schema::{ForwardChoice, Value};
use crate::server::http::Http;
use crate::server::http::api::{Line, Outcome, Refused, line_key, no_row};

/// The forward column that holds a small picture.
const THUMBNAIL: &str = "thumbnail";
/// The forward column that names a file.
const IMAGE_PATH: &str = "image_path";
/// Bytes of a file that are read and sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What the page is served with.
#[derive(Debug, Clone)]
pub(in crate::server::http) struct Console {
    enabled: bool,
    root: Option<PictureRoot>,
}

impl Console {
    pub(in crate::server::http) fn new(config: &ConsoleConfig) -> Self {
        Console { enabled: config.enabled, root: PictureRoot::new(config) }
    }

    pub(in crate::server::http) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }
}

/// What a row says of its picture.
#[derive(Default)]
struct Named {
    thumbnail: Option<Bytes>,
    image_path: Option<String>,
}

/// The picture of a row: small, or with `size=full` the file where there is one.
pub(super) async fn picture(
    State(http): State<Http>,
    line: Line,
    headers: HeaderMap,
) -> Outcome<Response> {
    line.takes(&["size"])?;
    let full = match line.query("size") {
        None | Some("thumbnail") => false,
        Some("full") => true,
        Some(other) => {
            let words = format!("size is {other:?}; it must be thumbnail or full");
            return Err(Refused::invalid(words));
        }
    };
    let (collection, key) = (line.param("collection"), line_key(&line)?);
    let named = named(&http, collection, key).await?;
    if named.thumbnail.is_none() && named.image_path.is_none() {
        // Rows without a picture are as good as others.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if full
        && http.console.has_root()
        && let Some(path) = named.image_path
    {
        let file = of_file(&http, path, &headers).await;
        return match (file, named.thumbnail) {
            // Better the small one than none.
            (Err(_), Some(thumbnail)) => of_thumbnail(thumbnail, &headers),
            (file, _) => file,
        };
    }
    match named.thumbnail {
        Some(thumbnail) => of_thumbnail(thumbnail, &headers),
        None => of_file(&http, named.image_path.unwrap_or_default(), &headers).await,
    }
}

/// Reads what the row says, where its collection has columns for it.
async fn named(http: &Http, collection: &str, key: u64) -> Outcome<Named> {
    let collection = http.database.collection(collection)?;
    let known = &collection.schema().forward_columns;
    let wanted = [THUMBNAIL, IMAGE_PATH].into_iter().filter(|name| known.iter().any(|k| k == name));
    let wanted: Vec<String> = wanted.map(str::to_owned).collect();
    let choice = ColumnChoice { forwards: ForwardChoice::Named(wanted.clone()), vectors: vec![] };
    let (rows, _) = collection.rows(vec![key], &choice).await?;
    let values = rows.forwards.first().ok_or_else(|| no_row(key))?;
    let mut named = Named::default();
    for (name, value) in wanted.iter().zip(values.iter()) {
        match (name.as_str(), value) {
            (THUMBNAIL, Some(Value::Bytes(bytes))) if !bytes.is_empty() => {
                named.thumbnail = Some(bytes.clone());
            }
            (IMAGE_PATH, Some(Value::String(path))) => named.image_path = Some(path.clone()),
            _ => {}
        }
    }
    Ok(named)
}

fn of_thumbnail(bytes: Bytes, headers: &HeaderMap) -> Outcome<Response> {
    let media_type = media_type(&bytes).ok_or_else(|| {
        let words = "the row's `thumbnail` is no picture: its first bytes are not those of JPEG, PNG, WebP, GIF or BMP";
        Refused::new(StatusCode::NOT_FOUND, tonic::Code::NotFound, words)
    })?;
    let tag = format!("\"{:x}-{:x}\"", crc32c::crc32c(&bytes), bytes.len());
    match has_already(headers, &tag) {
        true => Ok(shown(StatusCode::NOT_MODIFIED, media_type, &tag, Body::empty())),
        false => Ok(shown(StatusCode::OK, media_type, &tag, Body::from(bytes))),
    }
}

async fn of_file(http: &Http, path: String, headers: &HeaderMap) -> Outcome<Response> {
    let root = http.console.root.clone().ok_or_else(|| {
        let words = "the row has no `thumbnail`, and no picture root is configured (setting console.picture_root)";
        Refused::new(StatusCode::NOT_FOUND, tonic::Code::NotFound, words)
    })?;
    let wanted = path.clone();
    let opened = tokio::task::spawn_blocking(move || root.open(&wanted)).await;
    let opened = opened.map_err(|error| Error::internal(error.to_string()))?;
    let file = opened.map_err(|why| not_shown(&path, &why))?;
    if has_already(headers, &file.tag) {
        return Ok(shown(StatusCode::NOT_MODIFIED, file.media_type, &file.tag, Body::empty()));
    }
    let (media_type, tag, bytes) = (file.media_type, file.tag.clone(), file.bytes);
    let mut response = shown(StatusCode::OK, media_type, &tag, pieces(file));
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    Ok(response)
}

fn not_shown(path: &str, why: &NotShown) -> Refused {
    let (status, code) = match why {
        NotShown::Outside => (StatusCode::FORBIDDEN, tonic::Code::PermissionDenied),
        NotShown::Absent | NotShown::NoFile | NotShown::NoPicture => {
            (StatusCode::NOT_FOUND, tonic::Code::NotFound)
        }
        NotShown::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, tonic::Code::OutOfRange),
        NotShown::Unreadable(_) => (StatusCode::INTERNAL_SERVER_ERROR, tonic::Code::Internal),
    };
    Refused::new(status, code, format!("picture {path:?} is not shown: {why}"))
}

/// A file as it is sent: never more than a piece of it is in memory.
fn pieces(file: PictureFile) -> Body {
    let rest = file.bytes.saturating_sub(file.head.len() as u64);
    let state = (Some(Bytes::from(file.head)), file.rest.take(rest));
    Body::from_stream(stream::try_unfold(state, |(head, mut rest)| async move {
        if let Some(head) = head {
            return Ok(Some((head, (None, rest))));
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let read = rest.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
            read.map(|_| (piece, rest))
        });
        let (piece, rest) = read.await.map_err(std::io::Error::other)??;
        let piece = (!piece.is_empty()).then(|| Bytes::from(piece));
        Ok::<_, std::io::Error>(piece.map(|piece| (piece, (None, rest))))
    }))
}

/// A picture is nothing but a picture, whatever it holds, and is for pages of this server alone.
fn shown(status: StatusCode, media_type: &'static str, tag: &str, body: Body) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}
