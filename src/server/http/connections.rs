//! Connections: how many, how long they may take to say what they want, and their orderly end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long the head of a request may take to arrive, from the connection's beginning or the answer to
/// the request before it: also how long a connection may lie idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest head, method to last header.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a caller is given to take the refusal of a connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after the system refused a connection, such as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The places that connections take.
pub(super) struct Places {
    free: Arc<Semaphore>,
    max: u32,
    taken: IntGauge,
}

impl Places {
    /// As many as `max`; `taken` tells how many of them are.
    pub(super) fn new(max: u32, taken: IntGauge) -> Self {
        Places { free: Arc::new(Semaphore::new(max as usize)), max, taken }
    }

    fn take(&self) -> Option<Place> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        self.taken.inc();
        Some(Place { _permit: permit, taken: self.taken.clone() })
    }
}

struct Place {
    _permit: OwnedSemaphorePermit,
    taken: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

/// Serves until `end` completes; then lets every connection finish the answer under way.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    places: Places,
    end: impl Future<Output = ()>,
) {
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true);
    tokio::pin!(end);
    loop {
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            () = &mut end => break,
        };
        let Some(place) = places.take() else {
            tokio::spawn(refuse(stream, places.max));
            continue;
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are written at once; waiting for more of them would only delay them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says why there is no place for this connection.
async fn refuse(mut stream: TcpStream, connections_max: u32) {
    let words = format!(
        "all {connections_max} HTTP connections (setting limits.http_connections_max) are taken; try again\n"
    );
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{words}",
        words.len()
    );
    let say = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // A caller who does not listen has no use for the words.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, say).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// The clock stands still but for timers that everybody waits for.
    #[tokio::test(start_paused = true)]
    async fn a_caller_who_does_not_say_what_it_wants_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let routes = Router::new().fallback(|| async { "ok" });
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let taken = IntGauge::new("taken", "places").expect("a name");
        let places = Places::new(10, taken.clone());
        let server = tokio::spawn(serve(listener, routes, places, async {
            let _ = ended.await;
        }));
        let whole = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for text in ["", &whole[..whole.len() - 1], whole] {
            let mut caller = TcpStream::connect(address).await.expect("the server listens");
            caller.write_all(text.as_bytes()).await.expect("the connection is open");
            let mut answer = String::new();
            let closed = caller.read_to_string(&mut answer);
            let closed = tokio::time::timeout(2 * HEAD_TIMEOUT, closed).await;
            closed.expect("it is closed").expect("it is closed in order");
            assert_eq!(answer.ends_with("ok"), text == whole, "{answer}");
        }
        end.send(()).expect("the server runs");
        server.await.expect("it ends");
        assert_eq!(taken.get(), 0);
    }
}
