//! Pictures by their address: off unless `fetch.hosts` names hosts, and then with nothing left to chance. A
//! server that fetches what it is told to is a way into the network that it stands in: only hosts of the list are
//! asked, only at public addresses (checked after the name was resolved, and of the very addresses connected to), no
//! redirect is followed, no proxy used, and size and time are bounded. The one place with reqwest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::config::FetchConfig;
use crate::error::{Error, Result};

/// Fetches of a request that go on at a time.
const AT_A_TIME: usize = 8;
/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// A picture's bytes, or why they could not be had.
pub(super) type Fetched = std::result::Result<Bytes, String>;

/// What fetches pictures.
#[derive(Debug)]
pub(super) struct Fetcher {
    hosts: Vec<HostRule>,
    timeout: Duration,
    bytes_max: usize,
    addresses: Addresses,
    client: OnceLock<std::result::Result<Client, String>>,
}

/// A host that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostRule {
    /// In small letters; for `*.example.org` what follows the star.
    name: String,
    with_subdomains: bool,
}

/// Which addresses may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Public,
    /// For tests, whose servers are on this machine.
    #[cfg(test)]
    Any,
}

impl Fetcher {
    pub(super) fn new(config: &FetchConfig, bytes_max: usize) -> Self {
        let hosts = config.hosts.split(',').map(|host| host.trim().to_ascii_lowercase());
        let rule = |host: String| match host.strip_prefix("*") {
            // From the dot on, as `Config::check` has seen to.
            Some(rest) => HostRule { name: rest.to_owned(), with_subdomains: true },
            None => HostRule { name: host, with_subdomains: false },
        };
        Fetcher {
            hosts: hosts.filter(|host| !host.is_empty()).map(rule).collect(),
            timeout: Duration::from_millis(config.timeout_ms),
            bytes_max,
            addresses: Addresses::Public,
            client: OnceLock::new(),
        }
    }

    /// Fetches pictures, together at most so many bytes; each that cannot be had has its reason. Fails where
    /// fetching is off.
    pub(super) async fn fetch(&self, urls: Vec<String>, total_max: usize) -> Result<Vec<Fetched>> {
        if self.hosts.is_empty() {
            return Err(Error::InvalidArgument {
                detail: "pictures are not fetched by this server; send their bytes, or name the hosts that may be asked in fetch.hosts".to_owned(),
            });
        }
        let (mut left, count) = (total_max, urls.len());
        let mut fetched = Vec::with_capacity(count);
        let mut fetching = futures::stream::iter(urls)
            .map(|url| async move {
                let outcome = tokio::time::timeout(self.timeout, self.fetch_one(&url)).await;
                outcome.unwrap_or_else(|_| {
                    Err(format!(
                        "it was not there within {:?} (setting fetch.timeout_ms)",
                        self.timeout
                    ))
                })
            })
            .buffered(AT_A_TIME);
        while let Some(one) = fetching.next().await {
            match one {
                Ok(bytes) if bytes.len() > left => {
                    // Nobody is asked for what could not be kept.
                    let words = format!(
                        "the pictures of the request have more than {total_max} bytes together (setting limits.message_bytes_max)"
                    );
                    fetched.resize(count, Err(words));
                    break;
                }
                Ok(bytes) => {
                    left -= bytes.len();
                    fetched.push(Ok(bytes));
                }
                Err(words) => fetched.push(Err(words)),
            }
        }
        Ok(fetched)
    }

    async fn fetch_one(&self, url: &str) -> Fetched {
        let url = self.check(url)?;
        let client = self.client.get_or_init(|| client(self.addresses)).as_ref()?;
        let answer = client.get(url).send().await.map_err(|error| told(&error))?;
        if !answer.status().is_success() {
            let hint =
                if answer.status().is_redirection() { "; redirects are not followed" } else { "" };
            return Err(format!("its server answers {}{hint}", answer.status()));
        }
        let max = self.bytes_max;
        let too_large =
            || format!("it has more than {max} bytes (setting limits.picture_bytes_max)");
        if answer.content_length().is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        let mut pieces = answer.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| told(&error))?;
            if bytes.len() + piece.len() > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Refuses addresses before anybody is asked anything.
    fn check(&self, url: &str) -> std::result::Result<Url, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!(
                "its address has {} bytes, above the limit of {URL_BYTES_MAX}",
                url.len()
            ));
        }
        let url = Url::parse(url).map_err(|error| format!("{url:?} is no address: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(format!("{url} is not taken; an address begins with https: or http:"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an address with a user or password is not taken".to_owned());
        }
        if url.port().is_some() && self.addresses == Addresses::Public {
            return Err(format!(
                "{url} names a port; only the usual ones of http and https are asked"
            ));
        }
        let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let is_listed = self.hosts.iter().any(|rule| match rule.with_subdomains {
            false => host == rule.name,
            true => host.len() > rule.name.len() && host.ends_with(&rule.name),
        });
        if !is_listed {
            return Err(format!(
                "host {host:?} is not among those that may be asked (setting fetch.hosts)"
            ));
        }
        // A number is connected to without being resolved.
        let number = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(address) = number {
            self.addresses.check(&host, address)?;
        }
        Ok(url)
    }
}

impl Addresses {
    fn check(self, host: &str, address: IpAddr) -> std::result::Result<(), String> {
        match self {
            Addresses::Public if !is_public(address) => {
                Err(format!("host {host:?} is at {address}, which is no public address"))
            }
            _ => Ok(()),
        }
    }
}

fn client(addresses: Addresses) -> std::result::Result<Client, String> {
    // Fails where the process has one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("voisin/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Resolver(addresses)))
        .build()
        .map_err(|error| format!("nothing can be fetched: {}", told(&error)))
}

/// An error with its causes: the first words alone say little.
fn told(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Resolves names to addresses that may be connected to, and to no others.
struct Resolver(Addresses);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0;
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            // One that is not public tells of a name that is not to be trusted.
            for address in &found {
                addresses.check(host, address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet: not of this machine, its network or its provider, no
/// multicast, no range that is reserved or for examples, and nothing that leads to such (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // What carries an address of the older kind leads to that one, or to a tunnel.
    let is_global = first & 0xe000 == 0x2000;
    let is_special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        || first == 0x2002
        || first & 0xfff0 == 0x3ff0;
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn fetcher(hosts: &str, bytes_max: usize, timeout_ms: u64) -> Fetcher {
        Fetcher::new(&FetchConfig { hosts: hosts.to_owned(), timeout_ms }, bytes_max)
    }

    #[test]
    fn only_public_addresses_are_public() {
        let public =
            ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"];
        let not = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "3fff::1",
        ];
        for text in public {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
        for text in not {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn addresses_are_refused_before_anybody_is_asked() {
        let fetcher =
            fetcher("images.example.org, *.CDN.example.net, 127.0.0.1, [::1], 8.8.8.8", 1, 1);
        for good in [
            "https://images.example.org/a.jpg",
            "http://IMAGES.example.org./a",
            "https://a.b.cdn.example.net/x",
            "https://8.8.8.8/x",
        ] {
            assert!(fetcher.check(good).is_ok(), "{good}");
        }
        let bad = [
            ("https://example.org/a", "fetch.hosts"),
            ("https://evil-images.example.org/a", "fetch.hosts"),
            ("https://images.example.org.evil.com/a", "fetch.hosts"),
            ("https://cdn.example.net/a", "fetch.hosts"),
            ("https://evilcdn.example.net/a", "fetch.hosts"),
            ("file:///etc/passwd", "https:"),
            ("ftp://images.example.org/a", "https:"),
            ("https://me:secret@images.example.org/a", "user"),
            ("https://images.example.org:8443/a", "port"),
            ("http://127.0.0.1/a", "public"),
            ("http://0x7f.1/a", "public"),
            ("http://2130706433/a", "public"),
            ("http://[::1]/a", "public"),
            ("nothing", "no address"),
        ];
        for (url, word) in bad {
            let words = fetcher.check(url).expect_err(url);
            assert!(words.contains(word), "{url}: {words}");
        }
        assert!(
            fetcher.check(&format!("https://images.example.org/{}", "a".repeat(3_000))).is_err()
        );
    }

    #[tokio::test]
    async fn nothing_is_fetched_unless_hosts_are_named() {
        let error = fetcher(" , ", 1, 1).fetch(vec!["https://a.example".to_owned()], 1).await;
        assert!(error.expect_err("off").to_string().contains("fetch.hosts"));
    }

    #[tokio::test]
    async fn names_of_this_machine_are_refused_after_they_are_resolved() {
        let fetcher = fetcher("localhost", 1_000, 10_000);
        let fetched =
            fetcher.fetch(vec!["http://localhost/a.jpg".to_owned()], 1_000).await.expect("on");
        let words = fetched[0].as_ref().expect_err("it is this machine");
        assert!(words.contains("no public address"), "{words}");
    }

    /// A server that gives every caller the same answer.
    async fn serve(answer: &'static [u8], then_wait: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer).await;
                if then_wait {
                    std::future::pending::<()>().await;
                }
            }
        });
        format!("http://localhost:{}/a.jpg", address.port())
    }

    #[tokio::test]
    async fn sizes_times_and_redirects_are_bounded() {
        let local = |bytes_max, timeout_ms| Fetcher {
            addresses: Addresses::Any,
            ..fetcher("localhost", bytes_max, timeout_ms)
        };
        let good = serve(
            b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\npicture",
            false,
        )
        .await;
        let fetched =
            local(7, 60_000).fetch(vec![good.clone(), good.clone()], 100).await.expect("on");
        assert_eq!(fetched, [Ok(Bytes::from("picture")), Ok(Bytes::from("picture"))]);
        let refused = async |fetcher: Fetcher, url: &str, total, word: &str| {
            let fetched = fetcher.fetch(vec![url.to_owned()], total).await.expect("on");
            let words = fetched[0].as_ref().expect_err(word);
            assert!(words.contains(word), "{words}");
        };
        refused(local(6, 60_000), &good, 100, "limits.picture_bytes_max").await;
        refused(local(7, 60_000), &good, 6, "limits.message_bytes_max").await;
        let some = local(7, 60_000).fetch(vec![good.clone(); 5], 15).await.expect("on");
        assert_eq!(
            some.iter().map(|one| one.is_ok()).collect::<Vec<_>>(),
            [true, true, false, false, false]
        );
        let endless = serve(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npicture", false).await;
        refused(local(6, 60_000), &endless, 100, "limits.picture_bytes_max").await;
        let moved = serve(
            b"HTTP/1.1 302 Found\r\nlocation: http://localhost/\r\ncontent-length: 0\r\n\r\n",
            false,
        );
        refused(local(7, 60_000), &moved.await, 100, "redirects are not followed").await;
        let missing = serve(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false).await;
        refused(local(7, 60_000), &missing, 100, "404").await;
        let silent = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\npic", true).await;
        refused(local(7, 50), &silent, 100, "fetch.timeout_ms").await;
    }
}
