//! The files of the page, which are part of the program.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::has_already;

/// A file of the page.
struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static [u8],
}

/// Names the files of the folder `page` with their types.
macro_rules! files {
    ($($name:literal: $media_type:literal),* $(,)?) => {
        &[$(File {
            name: $name,
            media_type: $media_type,
            text: include_bytes!(concat!("page/", $name)),
        }),*]
    };
}

const INDEX: &str = "index.html";

/// All of them.
const FILES: &[File] = files! {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "theme.js": "text/javascript; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "place.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "overview.js": "text/javascript; charset=utf-8",
    "search.js": "text/javascript; charset=utf-8",
    "browse.js": "text/javascript; charset=utf-8",
    "query.js": "text/javascript; charset=utf-8",
    "schema.js": "text/javascript; charset=utf-8",
    "create.js": "text/javascript; charset=utf-8",
    "row.js": "text/javascript; charset=utf-8",
};

/// The page runs what comes from this server and talks to it alone; `blob:` is a picture that was dropped.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The tag of each file: it changes when the file does.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |file: &File| format!("\"{:x}-{:x}\"", crc32c::crc32c(file.text), file.text.len());
    FILES.iter().map(tag).collect()
});

pub(super) async fn index(headers: HeaderMap) -> Response {
    answer(INDEX, &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(at) = FILES.iter().position(|file| file.name == name) else {
        return (StatusCode::NOT_FOUND, "the page has no such file\n").into_response();
    };
    let (file, tag) = (&FILES[at], &TAGS[at]);
    let mut response = match has_already(headers, tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => file.text.into_response(),
    };
    let with = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, file.media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        with.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        with.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/server/http/console/page");
        let entries = std::fs::read_dir(folder).expect("the folder of the page");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut found: Vec<String> =
            entries.map(|entry| name(entry).into_string().expect("a plain name")).collect();
        let mut known: Vec<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn the_page_makes_no_markup_of_text_and_asks_nobody_else() {
        for file in FILES {
            let text = std::str::from_utf8(file.text).expect("text");
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{} has {word}", file.name);
            }
            // The only address is the name of a vocabulary, which nobody opens.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in ["http://", "https://", "onclick=", "style=\"", "<style"] {
                let is_inline = word.starts_with("http") || file.name == INDEX;
                assert!(!(is_inline && text.contains(word)), "{} has {word}", file.name);
            }
        }
    }
}
