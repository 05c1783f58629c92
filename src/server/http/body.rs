//! Request bodies: read whole, within the limit on messages and within the memory there is.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::memory::MemoryLimit;

/// How long a body may stop coming.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the rest of a body that is refused is listened to: a caller who is still sending would not
/// hear the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a body for which the memory is asked at a time.
const STEP_BYTES: usize = 1 << 20;

/// Reads a body of at most `bytes_max` bytes.
pub(super) async fn read(body: Body, bytes_max: usize, memory: &MemoryLimit) -> Result<Vec<u8>> {
    let refuse = |bytes: u64| Error::LimitExceeded {
        what: "number of bytes of the request's body",
        value: bytes,
        limit: bytes_max as u64,
        setting: "limits.message_bytes_max",
    };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        discard(body).await;
        return Err(refuse(announced));
    }
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut admitted = STEP_BYTES;
    loop {
        let next = tokio::time::timeout(STALL_TIMEOUT, pieces.next()).await;
        let piece = match next {
            Ok(None) => return Ok(bytes),
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => return Err(broken(format!("was not sent whole: {error}"))),
            Err(_) => return Err(broken(format!("stopped coming for {STALL_TIMEOUT:?}"))),
        };
        let length = bytes.len() + piece.len();
        if length > bytes_max {
            drop(bytes);
            discard(Body::from_stream(pieces)).await;
            return Err(refuse(length as u64));
        }
        while length > admitted {
            memory.admit("the request's body", STEP_BYTES as u64)?;
            admitted += STEP_BYTES;
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Reads on without keeping anything, for a while.
pub(super) async fn discard(body: Body) {
    let mut pieces = body.into_data_stream();
    let rest = async { while let Some(Ok(_)) = pieces.next().await {} };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

fn broken(detail: String) -> Error {
    Error::InvalidArgument { detail: format!("the request's body {detail}") }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_body_is_read_to_its_limit_and_not_beyond() {
        let memory = MemoryLimit::new(0);
        let pieces = |count: usize| {
            let pieces = std::iter::repeat_n(Ok::<_, Infallible>(vec![7; 100]), count);
            Body::from_stream(futures::stream::iter(pieces))
        };
        let whole = read(pieces(10), 1_000, &memory).await.expect("as many as allowed");
        assert_eq!(whole, [7; 1_000]);
        let refused = read(pieces(11), 1_000, &memory).await.expect_err("one piece too many");
        assert_eq!(
            refused.to_string(),
            "number of bytes of the request's body is 1100, above the limit of 1000 (setting limits.message_bytes_max)"
        );
        let announced = read(Body::from(vec![0; 5_000]), 1_000, &memory).await.expect_err("long");
        assert!(announced.to_string().contains("is 5000"), "{announced}");
    }

    #[tokio::test]
    async fn a_body_that_memory_has_no_room_for_is_refused() {
        let memory = MemoryLimit::new(1);
        let small = read(Body::from(vec![0; 1_000]), 4 << 20, &memory).await;
        assert_eq!(small.expect("deletes must get through").len(), 1_000);
        let refused = read(Body::from(vec![0; 2 << 20]), 4 << 20, &memory).await;
        let words = refused.expect_err("there is none").to_string();
        assert!(words.contains("limits.memory_bytes_max"), "{words}");
    }
}
