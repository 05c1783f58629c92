//! Bodies of several parts (RFC 7578): a JSON object and pictures.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;

use super::{Line, Outcome, Refused, read_object};
use crate::server::http::{Http, body};

/// The part with the JSON object, that of a picture, and that of where one is.
const REQUEST: &str = "request";
const IMAGE: &str = "image";
const URL: &str = "url";
/// A header that no page of another site can make a browser send unasked.
const OWN_HEADER: &str = "x-voisin";

/// The line and the parts of a request with pictures.
pub(super) struct Form {
    pub(super) line: Line,
    /// The JSON object, where it was sent.
    request: Option<Bytes>,
    /// The pictures in order.
    pub(super) images: Vec<Bytes>,
    /// Where pictures are, in order.
    pub(super) urls: Vec<String>,
    /// Bytes of the whole body.
    pub(super) bytes: usize,
}

impl FromRequest<Http> for Form {
    type Rejection = Refused;

    async fn from_request(request: Request, http: &Http) -> Outcome<Self> {
        let (mut parts, text) = request.into_parts();
        let checked = match Line::from_request_parts(&mut parts, http).await {
            Ok(line) => check_head(&parts.headers).map(|boundary| (line, boundary)),
            Err(refused) => Err(refused),
        };
        let (line, boundary) = match checked {
            Ok(checked) => checked,
            Err(refused) => {
                body::discard(text).await;
                return Err(refused);
            }
        };
        let bytes_max = http.limits.message_bytes_max;
        let body = Bytes::from(body::read(text, bytes_max, http.database.memory()).await?);
        let bytes = body.len();
        let Parts { request, images, urls } = parts_of(body, boundary).await?;
        Ok(Form { line, request, images, urls, bytes })
    }
}

impl Form {
    /// The JSON object as what it must be; an empty one where none was sent.
    pub(super) fn read<'de, T: serde::Deserialize<'de>>(&'de self) -> Outcome<T> {
        let text = self.request.as_deref().unwrap_or(b"{}");
        read_object(text)
            .map_err(|words| Refused::invalid(format!("part {REQUEST:?} cannot be read: {words}")))
    }
}

#[derive(Debug, Default)]
struct Parts {
    request: Option<Bytes>,
    images: Vec<Bytes>,
    urls: Vec<String>,
}

async fn parts_of(body: Bytes, boundary: String) -> Outcome<Parts> {
    let broken =
        |error: multer::Error| Refused::invalid(format!("the body has no sound parts: {error}"));
    let whole = futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(body)));
    let mut sent = multer::Multipart::new(whole, boundary);
    let mut parts = Parts::default();
    while let Some(part) = sent.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        let bytes = part.bytes().await.map_err(broken)?;
        match &name[..] {
            IMAGE => parts.images.push(bytes),
            URL => match String::from_utf8(bytes.into()) {
                Ok(url) => parts.urls.push(url),
                Err(_) => {
                    return Err(Refused::invalid(format!("part {URL:?} is not text in UTF-8")));
                }
            },
            REQUEST if parts.request.is_none() => parts.request = Some(bytes),
            REQUEST => {
                return Err(Refused::invalid(format!("part {REQUEST:?} is there twice")));
            }
            other => {
                return Err(Refused::invalid(format!(
                    "unknown part {other:?}; known: {REQUEST} (JSON, once), {IMAGE} (a picture's file, once or more) and {URL} (where one is)"
                )));
            }
        }
    }
    Ok(parts)
}

/// The boundary between the parts. Refuses what a page of another site can make a browser send: forms like
/// these are sent without asking first.
fn check_head(headers: &HeaderMap) -> Outcome<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let given = text(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let boundary = multer::parse_boundary(given).map_err(|_| {
        Refused::of_type(format!("content-type is {given:?}; it must be multipart/form-data"))
    })?;
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let origin = text(header::ORIGIN.as_str());
    let is_own = match (text("sec-fetch-site"), origin) {
        _ if headers.contains_key(OWN_HEADER) => true,
        (Some(site), _) => ["same-origin", "none"].contains(&site),
        (None, Some(origin)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (None, None) => true,
    };
    match is_own {
        true => Ok(boundary),
        false => Err(Refused::new(
            axum::http::StatusCode::FORBIDDEN,
            tonic::Code::PermissionDenied,
            format!(
                "the request comes from a page of another site ({}); programs send the header X-Voisin: 1",
                origin.unwrap_or("unknown")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn check(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        map.insert("content-type", HeaderValue::from_static("multipart/form-data; boundary=x"));
        map.insert("host", HeaderValue::from_static("127.0.0.1:16001"));
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check_head(&map).is_ok()
    }

    #[test]
    fn pages_of_other_sites_cannot_send_forms() {
        assert!(check(&[]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(check(&[("origin", "http://127.0.0.1:16001")]));
        assert!(check(&[("sec-fetch-site", "cross-site"), ("x-voisin", "1")]));
        assert!(!check(&[("sec-fetch-site", "cross-site")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(!check(&[("origin", "http://elsewhere.example")]));
        assert!(!check(&[("origin", "null")]));
        assert!(!check(&[("content-type", "application/json")]));
    }

    #[tokio::test]
    async fn parts_are_an_object_and_pictures() {
        let body = |text: &str| Bytes::from(text.replace('\n', "\r\n"));
        let part = |name: &str, text: &str| {
            format!("--x\nContent-Disposition: form-data; name=\"{name}\"\n\n{text}\n")
        };
        let read = async |parts: &[String]| {
            parts_of(body(&format!("{}--x--\n", parts.concat())), "x".to_owned()).await
        };
        let sent =
            [part("image", "a"), part("request", "{}"), part("image", "b"), part("url", "c")];
        let parts = read(&sent).await.expect("sound parts");
        assert_eq!(parts.request.as_deref(), Some(&b"{}"[..]));
        assert_eq!(
            (parts.images, parts.urls),
            (vec!["a".into(), "b".into()], vec!["c".to_owned()])
        );
        assert!(read(&[part("request", "{}"), part("request", "{}")]).await.is_err());
        assert!(read(&[part("file", "a")]).await.is_err());
        assert!(parts_of(body("nothing"), "x".to_owned()).await.is_err());
    }
}
