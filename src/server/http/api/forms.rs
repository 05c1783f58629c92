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
/// Most pictures of a form.
const PICTURES_MAX: usize = 65_536;
/// Parts after which other callers have their turn.
const PARTS_AT_A_TIME: usize = 256;

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
        // Parts are read from a copy.
        http.database.memory().admit("the request's parts", bytes as u64)?;
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
    let mut read = 0;
    while let Some(part) = sent.next_field().await.map_err(broken)? {
        read += 1;
        if read % PARTS_AT_A_TIME == 0 {
            tokio::task::yield_now().await;
        }
        if parts.images.len() + parts.urls.len() >= PICTURES_MAX {
            return Err(Refused::invalid(format!(
                "the form has more than {PICTURES_MAX} pictures; send several forms"
            )));
        }
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

/// The boundary between the parts.
fn check_head(headers: &HeaderMap) -> Outcome<String> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default();
    multer::parse_boundary(given).map_err(|_| {
        Refused::of_type(format!("content-type is {given:?}; it must be multipart/form-data"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
