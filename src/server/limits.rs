//! The limits that are met before a request reaches a method: message size and rows of a write.
//!
//! tonic refuses an oversized message before taking memory for it, but names neither the setting
//! nor the way out; the layer here says it in our words.

use std::task::{Context, Poll};

use futures::TryFutureExt;
use futures::future::MapOk;
use tonic::Status;
use tower::{Layer, Service};

use crate::error::{Error, Result};

/// Rewrites the refusal of oversized messages in replies.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageLimitLayer {
    /// `limits.message_bytes_max`.
    pub(super) bytes_max: usize,
}

impl<S> Layer<S> for MessageLimitLayer {
    type Service = MessageLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MessageLimit { inner, bytes_max: self.bytes_max }
    }
}

/// The service made by [`MessageLimitLayer`].
#[derive(Debug, Clone)]
pub(super) struct MessageLimit<S> {
    inner: S,
    bytes_max: usize,
}

impl<S, Request, Body> Service<Request> for MessageLimit<S>
where
    S: Service<Request, Response = http::Response<Body>>,
    Body: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, Box<dyn FnOnce(S::Response) -> S::Response + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let bytes_max = self.bytes_max;
        self.inner.call(request).map_ok(Box::new(move |response| {
            // tonic leaves the status of a reply that is nothing but a status here.
            let status = response.extensions().get::<Status>();
            match status.and_then(|status| explain_oversized(status, bytes_max)) {
                Some(explained) => explained.into_http(),
                None => response,
            }
        }))
    }
}

/// Our words for tonic's refusal of an oversized message; `None` for every other status.
pub(super) fn explain_oversized(status: &Status, bytes_max: usize) -> Option<Status> {
    let words = status.message();
    let found =
        if let Some((_, rest)) = words.split_once("decoded message length too large: found ") {
            let bytes = rest.split(' ').next().unwrap_or_default();
            format!("the message has {bytes} bytes")
        } else if words.starts_with("Error decompressing: size limit") {
            "the message, once decompressed, is larger than allowed".to_owned()
        } else {
            return None;
        };
    Some(Status::out_of_range(format!(
        "{found}; the limit is {bytes_max} bytes (setting limits.message_bytes_max): send smaller batches or raise the setting"
    )))
}

/// Refuses a write of too many rows before memory is taken for them.
pub(super) fn check_rows(rows: usize, rows_max: u32) -> Result<()> {
    if rows as u64 > u64::from(rows_max) {
        return Err(Error::LimitExceeded {
            what: "number of rows",
            value: rows as u64,
            limit: u64::from(rows_max),
            setting: "limits.write_rows_max",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    async fn through_the_layer(status: Status) -> (tonic::Code, String) {
        let inner = service_fn(move |(): ()| {
            let response: http::Response<String> = status.clone().into_http();
            async move { Ok::<_, Infallible>(response) }
        });
        let response = MessageLimitLayer { bytes_max: 1000 }.layer(inner).oneshot(()).await;
        let response = response.expect("the inner service cannot fail");
        let status = Status::from_header_map(response.headers()).expect("the reply has a status");
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn an_oversized_message_learns_the_limit_and_the_setting() {
        let tonic_says =
            "Error, decoded message length too large: found 1234 bytes, the limit is: 1000 bytes";
        let (code, words) = through_the_layer(Status::out_of_range(tonic_says)).await;
        assert_eq!(code, tonic::Code::OutOfRange);
        assert_eq!(
            words,
            "the message has 1234 bytes; the limit is 1000 bytes (setting limits.message_bytes_max): send smaller batches or raise the setting"
        );
        let tonic_says =
            "Error decompressing: size limit, of 1000 bytes, exceeded while decompressing message";
        let (code, words) = through_the_layer(Status::resource_exhausted(tonic_says)).await;
        assert_eq!(code, tonic::Code::OutOfRange);
        assert!(words.contains("limits.message_bytes_max"), "{words}");
    }

    #[tokio::test]
    async fn other_refusals_pass_unchanged() {
        let (code, words) = through_the_layer(Status::unimplemented("no such call")).await;
        assert_eq!((code, words.as_str()), (tonic::Code::Unimplemented, "no such call"));
    }

    #[test]
    fn a_write_of_too_many_rows_is_refused_with_the_setting() {
        assert!(check_rows(10, 10).is_ok());
        let refused = check_rows(11, 10).expect_err("one row too many");
        assert_eq!(
            refused.to_string(),
            "number of rows is 11, above the limit of 10 (setting limits.write_rows_max)"
        );
    }
}
