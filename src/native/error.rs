//! What can go wrong at the foreign edge, before anybody knows which file was concerned.

use std::path::Path;

use crate::error::Error;

/// The result of the operations of this module.
pub type NativeResult<T> = Result<T, NativeError>;

/// A failure at the foreign edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NativeError {
    /// Stored bytes that are not a whole, consistent index of the expected kind.
    #[error("the index is damaged at byte {offset}: {detail}")]
    Damaged {
        /// Where in the bytes.
        offset: u64,
        /// What was expected and found.
        detail: String,
    },
    /// Arguments that do not fit together; nothing foreign was called.
    #[error("refused: {detail}")]
    Refused {
        /// What does not fit.
        detail: String,
    },
    /// faiss threw, or memory ran out inside it.
    #[error("{operation} failed in faiss: {detail}")]
    Foreign {
        /// "create", "read", "add", "search", "write", ...
        operation: &'static str,
        /// The exception's words.
        detail: String,
    },
}

impl NativeError {
    /// Names the file whose bytes were read: damage becomes [`Error::Damaged`], everything else is
    /// internal.
    pub fn in_file(self, path: &Path) -> Error {
        match self {
            NativeError::Damaged { offset, detail } => Error::damaged(path, offset, detail),
            other => Error::from(other),
        }
    }

    pub(super) fn refused(detail: impl Into<String>) -> Self {
        NativeError::Refused { detail: detail.into() }
    }
}

impl From<NativeError> for Error {
    fn from(error: NativeError) -> Self {
        Error::internal(error.to_string())
    }
}
