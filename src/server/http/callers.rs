//! Who may call: programs, and this server's own pages. A page of another site can make a browser call a server that
//! only this machine reaches, and send it writes or, by a name of its own that it lets point here (DNS rebinding), read
//! what it answers. The first is told by what browsers say of a request, the second by the name it is sent to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Refused;
use super::body;

/// A header that no page of another site can make a browser send unasked.
const OWN_HEADER: &str = "x-voisin";
/// The name of this machine that nobody else can be.
const LOCALHOST: &str = "localhost";

/// By which names the server is called.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// Any: it serves a network, whose names for it are not known.
    Any,
    /// Addresses, `localhost` and these.
    Known(Arc<[String]>),
}

impl Names {
    /// Those of a server that listens there: `configured` has names with commas between. Where none is configured, only a
    /// server that this machine alone reaches looks at them.
    pub(super) fn new(configured: &str, listens: IpAddr) -> Self {
        let names = configured.split(',').map(|name| name.trim().to_ascii_lowercase());
        let names: Arc<[String]> = names.filter(|name| !name.is_empty()).collect();
        match names.is_empty() && !listens.is_loopback() {
            true => Names::Any,
            false => Names::Known(names),
        }
    }

    fn has(&self, host: &str) -> bool {
        let Names::Known(names) = self else { return true };
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == LOCALHOST || bare.parse::<IpAddr>().is_ok() || names.contains(&name)
    }
}

/// `name:1`, `[::1]:1` and both without port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Passes on what comes from who may call.
pub(super) async fn check(State(names): State<Names>, request: Request, next: Next) -> Response {
    let host = match request.uri().host() {
        Some(host) => Some(host),
        None => text(request.headers(), header::HOST.as_str()),
    };
    let refused = match host {
        Some(host) if !names.has(host) => Some(format!(
            "the server is not known as {:?}; it is called by address, as {LOCALHOST}, or by a name in the setting server.http_hosts",
            without_port(host)
        )),
        _ if is_read(request.method()) || is_own(request.headers()) => None,
        _ => Some(format!(
            "the request comes from a page of another site ({}); programs send the header X-Voisin: 1",
            text(request.headers(), header::ORIGIN.as_str()).unwrap_or("unknown")
        )),
    };
    match refused {
        None => next.run(request).await,
        Some(words) => {
            body::discard(request.into_body()).await;
            Refused::new(StatusCode::FORBIDDEN, tonic::Code::PermissionDenied, words)
                .into_response()
        }
    }
}

/// What changes nothing; a page of another site does not get to see the answer.
fn is_read(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Whether a program or an own page sent this. Browsers say of what pages send where these are from.
fn is_own(headers: &HeaderMap) -> bool {
    let host = text(headers, header::HOST.as_str()).unwrap_or_default();
    match (text(headers, "sec-fetch-site"), text(headers, header::ORIGIN.as_str())) {
        _ if headers.contains_key(OWN_HEADER) => true,
        (Some(site), _) => ["same-origin", "none"].contains(&site),
        (None, Some(origin)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (None, None) => true,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn pages_of_other_sites_are_told_from_programs_and_own_pages() {
        let own = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("127.0.0.1:16001"));
            for (name, value) in headers {
                map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            is_own(&map)
        };
        assert!(own(&[]));
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("origin", "http://127.0.0.1:16001")]));
        assert!(own(&[("sec-fetch-site", "cross-site"), ("x-voisin", "1")]));
        assert!(!own(&[("sec-fetch-site", "cross-site")]));
        assert!(!own(&[("sec-fetch-site", "same-site")]));
        assert!(!own(&[("origin", "http://elsewhere.example")]));
        assert!(!own(&[("origin", "null")]));
    }

    #[test]
    fn a_server_of_this_machine_alone_has_known_names() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let names = Names::new("", loopback);
        for good in [
            "127.0.0.1:16001",
            "127.0.0.1",
            "localhost:1",
            "LOCALHOST.",
            "[::1]:16001",
            "[::1]",
            "10.1.2.3",
        ] {
            assert!(names.has(good), "{good}");
        }
        for bad in [
            "evil.example:16001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[evil]:1",
        ] {
            assert!(!names.has(bad), "{bad}");
        }
        let names = Names::new(" photos.example.org ,Other", loopback);
        assert!(names.has("Photos.Example.org:443") && names.has("other") && !names.has("third"));
        let network = IpAddr::from([0, 0, 0, 0]);
        assert!(Names::new("", network).has("voisin.svc:16001"));
        assert!(!Names::new("voisin.svc", network).has("evil.example"));
    }
}
