//! A contact sheet: one HTML file with the pictures in it, that needs no server and no network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::embedding::media_type;

/// A picture on the sheet.
pub(super) struct Shown<'a> {
    /// What stands first below it.
    pub words: String,
    /// Where it is.
    pub path: &'a str,
    /// Its bytes, where there are some.
    pub picture: Option<&'a [u8]>,
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem }
h1 { font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0 }
img, .none { width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; border-radius: 6px }
.none { display: grid; place-items: center; opacity: .6 }
figcaption { overflow-wrap: anywhere }
figure.own img { outline: 3px solid #d97706 }
b { font-variant-numeric: tabular-nums }
";

/// The page: the picture searched by, then those found.
pub(super) fn sheet(title: &str, own: &Shown<'_>, found: &[Shown<'_>]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style>\n<h1>{0}</h1>\n<main>\n",
        escape(title)
    );
    page += &figure(own, " class=\"own\"");
    for shown in found {
        page += &figure(shown, "");
    }
    page + "</main></html>\n"
}

fn figure(shown: &Shown<'_>, class: &str) -> String {
    let path = escape(shown.path);
    let picture = match shown.picture.and_then(|bytes| Some((media_type(bytes)?, bytes))) {
        Some((media, bytes)) => {
            format!("<img alt=\"{path}\" src=\"data:{media};base64,{}\">", STANDARD.encode(bytes))
        }
        None => "<div class=\"none\">no picture kept</div>".to_owned(),
    };
    let words = escape(&shown.words);
    format!("<figure{class}>{picture}<figcaption><b>{words}</b> {path}</figcaption></figure>\n")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_holds_its_pictures_and_no_path_can_break_it() {
        let own =
            Shown { words: "searched by".into(), path: "<q>.jpg", picture: Some(b"\xff\xd8\xff") };
        let found = Shown { words: "0.1".into(), path: "a\"b.png", picture: Some(b"text") };
        let page = sheet("a & b", &own, &[found]);
        assert!(page.contains("<title>a &amp; b</title>"), "{page}");
        assert!(
            page.contains("alt=\"&lt;q&gt;.jpg\" src=\"data:image/jpeg;base64,/9j/\""),
            "{page}"
        );
        assert!(page.contains("no picture kept") && page.contains("a&quot;b.png"), "{page}");
        assert!(!page.contains("http"), "it needs no network");
    }
}
