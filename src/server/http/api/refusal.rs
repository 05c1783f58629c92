//! Why a call is not answered: an HTTP status, a code and words. Codes are those of `voisin.v1`.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::server::metrics::{Failed, code_name};
use crate::server::proto::voisin_v1;
use crate::server::status::voisin_status;

/// Where messages are cut.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// A refusal.
#[derive(Debug)]
pub(in crate::server::http) struct Refused {
    status: StatusCode,
    code: tonic::Code,
    message: String,
}

/// Why a call was not answered.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    error: Cause,
}

/// The cause, for programs and for people.
#[derive(Serialize, ToSchema)]
struct Cause {
    /// What kind it is: a code of `voisin.v1`, without `CODE_`; `UNIMPLEMENTED` for a path or method that
    /// does not exist.
    #[schema(example = "INVALID_ARGUMENT")]
    code: String,
    /// What was wrong, with the value, the limit and the setting where there are such.
    #[schema(example = "invalid query: topk is 0; it must be at least 1")]
    message: String,
}

impl Refused {
    pub(in crate::server::http) fn new(
        status: StatusCode,
        code: tonic::Code,
        message: impl Into<String>,
    ) -> Self {
        let mut message = message.into();
        // What the caller sent is quoted, and may be as long as a body.
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
            message.push_str("...");
        }
        Refused { status, code, message }
    }

    /// A request that makes no sense.
    pub(in crate::server::http) fn invalid(message: impl Into<String>) -> Self {
        Refused::new(StatusCode::BAD_REQUEST, tonic::Code::InvalidArgument, message)
    }

    /// A body of a type that is not taken.
    pub(super) fn of_type(message: impl Into<String>) -> Self {
        Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, tonic::Code::InvalidArgument, message)
    }

    /// As the last line of an answer whose head has been sent.
    pub(super) fn line(self) -> Bytes {
        let problem = Problem::from(self);
        let mut text = serde_json::to_vec(&problem).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, words: &mut fmt::Formatter<'_>) -> fmt::Result {
        words.write_str(&self.message)
    }
}

impl From<Refused> for Problem {
    fn from(Refused { code, message, .. }: Refused) -> Self {
        Problem { error: Cause { code: code_name(code), message } }
    }
}

/// There is no row of that key.
pub(in crate::server::http) fn no_row(key: u64) -> Refused {
    let words = format!("there is no row of key {key}");
    Refused::new(StatusCode::NOT_FOUND, tonic::Code::NotFound, words)
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::from(voisin_status(&error))
    }
}

impl From<tonic::Status> for Refused {
    fn from(status: tonic::Status) -> Self {
        Refused::new(http_status(status.code()), status.code(), status.message())
    }
}

impl From<voisin_v1::Status> for Refused {
    fn from(status: voisin_v1::Status) -> Self {
        let code = tonic::Code::from(status.code);
        Refused::new(http_status(code), code, status.message)
    }
}

/// The HTTP status of a code.
fn http_status(code: tonic::Code) -> StatusCode {
    use tonic::Code;
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        // The request is right, but not for things as they are.
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::OutOfRange => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Internal | Code::DataLoss | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused { status, code, .. } = self;
        tracing::debug!(%status, detail = %self, "refused over HTTP");
        let mut response = (status, axum::Json(Problem::from(self))).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Failed::Status(code));
        response
    }
}
