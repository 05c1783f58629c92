//! The one table from domain errors to what the wire says of them, with no wildcard arm: a new
//! variant does not compile until it has a code here.
//!
//! Proxima BE's reasons are fixed texts that its clients compare. Where the original has no such
//! refusal, our words follow the text. The full words always travel beside the reply, in the
//! metadata entry [`DETAIL_KEY`].

use tonic::metadata::{Ascii, MetadataValue};

use super::proto::{proxima, voisin_v1};
use crate::error::{Error, RepositoryFault, RowError};

/// Metadata entry of every failing reply: what was wrong, in full, percent-encoded where it is not
/// printable ASCII.
pub(super) const DETAIL_KEY: &str = "voisin-detail";

/// Longest detail, in bytes: gRPC clients refuse replies with more than 8 KiB of metadata.
const DETAIL_BYTES_MAX: usize = 1024;

/// Why a call is not answered, in the words of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The negated code.
    pub(super) code: i32,
    /// The reason in the reply's body.
    pub(super) reason: String,
    /// The full words.
    pub(super) detail: String,
}

/// The text that goes with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Exactly this text.
    Fixed(&'static str),
    /// This text, then our words.
    Detailed(&'static str),
}

use Reason::{Detailed, Fixed};

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::new(proxima_code(&error), error.to_string())
    }
}

impl Refusal {
    /// The status of a write whose rows did not all succeed: the last failing row decides.
    pub(super) fn of_rows(failures: &[(usize, u64, RowError)]) -> Option<Self> {
        let (row, key, error) = failures.last()?;
        let detail = format!(
            "row {row} (key {key}): {error}; rows not applied in this request: {}",
            failures.len()
        );
        Some(Refusal::new(proxima_row_code(*error), detail))
    }

    /// A REST request that is no message: the original's own words, ours beside them.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Refusal::new((1005, Fixed("Invalid Arugment")), detail.into())
    }

    fn new((code, reason): (i32, Reason), detail: String) -> Self {
        let reason = match reason {
            Fixed(text) => text.to_owned(),
            Detailed("") => shorten(&detail).to_owned(),
            Detailed(text) => format!("{text}: {}", shorten(&detail)),
        };
        Refusal { code: -code, reason, detail }
    }

    /// The reply's status message.
    pub(super) fn status(&self) -> proxima::Status {
        proxima::Status { code: self.code, reason: self.reason.clone() }
    }

    /// The value of [`DETAIL_KEY`]. `None` cannot happen: what is encoded is printable ASCII.
    pub(super) fn detail_value(&self) -> Option<MetadataValue<Ascii>> {
        percent_encode(&self.detail).parse().ok()
    }
}

/// The status of a call that succeeded.
pub(super) fn success() -> proxima::Status {
    proxima::Status { code: 0, reason: "Success".to_owned() }
}

/// Proxima BE's code (positive; the wire carries it negated) and reason.
fn proxima_code(error: &Error) -> (i32, Reason) {
    match error {
        Error::EmptyCollectionName => (2000, Fixed("Empty Collection Name")),
        Error::EmptyColumnName { .. } => (2001, Fixed("Empty Column Name")),
        Error::EmptyColumns => (2002, Fixed("Empty Columns")),
        Error::InvalidName { .. } => (1005, Detailed("Invalid Arugment")),
        Error::DuplicateCollection { .. } => (4000, Fixed("Duplicate Collection")),
        Error::CollectionNotFound { .. } => (4002, Fixed("Collection Not Exist")),
        Error::ColumnNotFound { .. } => (4003, Fixed("Column Not Exist")),
        Error::AliasNotFound { .. } => (4002, Fixed("Collection Not Exist")),
        Error::InvalidDataType { .. } => (2015, Fixed("Invalid Data Type")),
        Error::UndefinedIndexType { .. } => (1000, Fixed("")),
        Error::InvalidColumn { .. } => (1004, Fixed("Config Error")),
        Error::UnknownMetric { .. } => (1, Detailed("")),
        Error::ModelNotFound { .. } | Error::ModelUnusable { .. } => {
            (1004, Detailed("Config Error"))
        }
        Error::UnreadableImage { .. } => (2019, Detailed("Invalid Feature")),
        Error::InvalidRepository(fault) => match fault {
            RepositoryFault::UnknownType => (2014, Fixed("Invalid Repository Type")),
            RepositoryFault::EmptyName => (2004, Fixed("Empty Repository Name")),
            RepositoryFault::InvalidUri => (2007, Fixed("Invalid URI")),
            RepositoryFault::EmptyUser => (2005, Fixed("Empty User Name")),
            RepositoryFault::EmptyPassword => (2006, Fixed("Empty Password")),
            RepositoryFault::EmptyTable => (2003, Fixed("Empty Repository Table")),
        },
        Error::InvalidWrite { .. } => (2012, Fixed("Invalid Write Request")),
        Error::EmptyLsnContext { .. } => (4007, Fixed("Empty Lsn Context")),
        Error::MismatchedIndexColumn { .. } => (2022, Fixed("Mismatched Index Column")),
        Error::MismatchedDataType { .. } => (2024, Fixed("Mismatched Data Type")),
        Error::MismatchedDimension { .. } => (2023, Fixed("Mismatched Dimension")),
        Error::NotFinite { .. } => (2019, Detailed("Invalid Feature")),
        Error::MagicNumberMismatch { .. } => (2021, Fixed("Mismatched Magic Number")),
        Error::RowNotFound { .. } => (4004, Fixed("Key Not Exist")),
        Error::InvalidQuery { .. } => (2010, Fixed("Invalid Query")),
        Error::InvalidFilter { .. } => (2010, Detailed("Invalid Query")),
        Error::InvalidArgument { .. } => (1005, Detailed("Invalid Arugment")),
        Error::LimitExceeded { .. } => (1010, Detailed("Exceed Limit")),
        Error::ScrollGone => (1002, Detailed("Status Error")),
        Error::Cancelled => (1002, Detailed("Status Error")),
        Error::OutOfMemory { .. } => (1010, Detailed("Exceed Limit")),
        Error::Busy { .. } => (4008, Detailed("Exceed Rate Limit")),
        Error::Altering { .. } => (4005, Fixed("Collection Is Suspended")),
        Error::Stopping => (1014, Detailed("Visit Stopped Service")),
        Error::Io { .. } => (1009, Detailed("Write Data Error")),
        Error::Damaged { .. } => (1008, Detailed("Read Data Error")),
        Error::Poisoned { .. } => (1009, Detailed("Write Data Error")),
        Error::Unserved { .. } => (5005, Detailed("Collection Is Unreadable")),
        Error::Locked { .. } => (1002, Detailed("Status Error")),
        Error::Internal { .. } => (1001, Detailed("Logic Error")),
    }
}

/// Proxima BE's code and reason for one row.
fn proxima_row_code(error: RowError) -> (i32, Reason) {
    match error {
        RowError::DuplicateKey => (4001, Fixed("Duplicate Key")),
        RowError::KeyNotFound => (4004, Fixed("Key Not Exist")),
        RowError::StaleLsn | RowError::OtherVersion { .. } | RowError::ConditionFailed => {
            (2009, Detailed("Invalid Record"))
        }
    }
}

/// The code of our own contract.
pub(super) fn voisin_code(error: &Error) -> voisin_v1::Code {
    use voisin_v1::Code;
    match error {
        Error::EmptyCollectionName
        | Error::EmptyColumnName { .. }
        | Error::EmptyColumns
        | Error::InvalidName { .. }
        | Error::InvalidDataType { .. }
        | Error::UndefinedIndexType { .. }
        | Error::InvalidColumn { .. }
        | Error::UnknownMetric { .. }
        | Error::InvalidRepository(_)
        | Error::InvalidWrite { .. }
        | Error::EmptyLsnContext { .. }
        | Error::MismatchedIndexColumn { .. }
        | Error::MismatchedDataType { .. }
        | Error::MismatchedDimension { .. }
        | Error::NotFinite { .. }
        | Error::InvalidQuery { .. }
        | Error::InvalidFilter { .. }
        | Error::UnreadableImage { .. }
        | Error::InvalidArgument { .. } => Code::InvalidArgument,
        Error::CollectionNotFound { .. }
        | Error::ColumnNotFound { .. }
        | Error::RowNotFound { .. }
        | Error::AliasNotFound { .. }
        | Error::ModelNotFound { .. } => Code::NotFound,
        Error::DuplicateCollection { .. } => Code::AlreadyExists,
        Error::Cancelled => Code::Cancelled,
        Error::LimitExceeded { .. } => Code::OutOfRange,
        Error::Busy { .. } | Error::OutOfMemory { .. } => Code::ResourceExhausted,
        Error::MagicNumberMismatch { .. }
        | Error::Poisoned { .. }
        | Error::ScrollGone
        | Error::ModelUnusable { .. }
        | Error::Unserved { .. }
        | Error::Locked { .. } => Code::FailedPrecondition,
        Error::Stopping | Error::Altering { .. } => Code::Unavailable,
        Error::Damaged { .. } => Code::DataLoss,
        Error::Io { .. } | Error::Internal { .. } => Code::Internal,
    }
}

/// The status of a call of our own contract that fails as a whole.
pub(super) fn voisin_status(error: &Error) -> tonic::Status {
    let words = error.to_string();
    tonic::Status::new(tonic::Code::from(voisin_code(error) as i32), shorten(&words))
}

/// The row code of our own contract.
pub(super) fn voisin_row_code(error: RowError) -> voisin_v1::RowFailureCode {
    match error {
        RowError::DuplicateKey => voisin_v1::RowFailureCode::DuplicateKey,
        RowError::KeyNotFound => voisin_v1::RowFailureCode::KeyNotFound,
        RowError::StaleLsn => voisin_v1::RowFailureCode::StaleLsn,
        RowError::OtherVersion { .. } => voisin_v1::RowFailureCode::OtherVersion,
        RowError::ConditionFailed => voisin_v1::RowFailureCode::ConditionFailed,
    }
}

/// Cuts text that repeats a caller's own (possibly huge) words.
pub(super) fn shorten(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Printable ASCII stays, all else becomes %XX, so that `urllib.parse.unquote` gives the text back.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len().min(DETAIL_BYTES_MAX));
    for character in text.chars() {
        let before = encoded.len();
        if matches!(character, ' '..='~') && character != '%' {
            encoded.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        if encoded.len() > DETAIL_BYTES_MAX {
            encoded.truncate(before);
            break;
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant with its code on the wire, its exact text, and whether our words follow.
    fn every_error() -> Vec<(Error, i32, Reason, voisin_v1::Code)> {
        use voisin_v1::Code::*;
        let s = || "x".to_owned();
        let repository = Error::InvalidRepository;
        vec![
            (Error::EmptyCollectionName, -2000, Fixed("Empty Collection Name"), InvalidArgument),
            (
                Error::EmptyColumnName { position: 0 },
                -2001,
                Fixed("Empty Column Name"),
                InvalidArgument,
            ),
            (Error::EmptyColumns, -2002, Fixed("Empty Columns"), InvalidArgument),
            (Error::AliasNotFound { alias: s() }, -4002, Fixed("Collection Not Exist"), NotFound),
            (
                Error::Altering { collection: s() },
                -4005,
                Fixed("Collection Is Suspended"),
                Unavailable,
            ),
            (
                Error::ModelNotFound { model: s(), known: s() },
                -1004,
                Detailed("Config Error"),
                NotFound,
            ),
            (
                Error::ModelUnusable { model: s(), detail: s() },
                -1004,
                Detailed("Config Error"),
                FailedPrecondition,
            ),
            (
                Error::UnreadableImage { image: 0, detail: s() },
                -2019,
                Detailed("Invalid Feature"),
                InvalidArgument,
            ),
            (Error::ScrollGone, -1002, Detailed("Status Error"), FailedPrecondition),
            (Error::Cancelled, -1002, Detailed("Status Error"), Cancelled),
            (
                Error::InvalidName { what: "collection", name: s(), reason: "r" },
                -1005,
                Detailed("Invalid Arugment"),
                InvalidArgument,
            ),
            (
                Error::DuplicateCollection { name: s() },
                -4000,
                Fixed("Duplicate Collection"),
                AlreadyExists,
            ),
            (
                Error::CollectionNotFound { name: s() },
                -4002,
                Fixed("Collection Not Exist"),
                NotFound,
            ),
            (
                Error::ColumnNotFound { collection: s(), column: s() },
                -4003,
                Fixed("Column Not Exist"),
                NotFound,
            ),
            (
                Error::InvalidDataType { column: s(), data_type: 0 },
                -2015,
                Fixed("Invalid Data Type"),
                InvalidArgument,
            ),
            (
                Error::UndefinedIndexType { column: s(), index_type: 0 },
                -1000,
                Fixed(""),
                InvalidArgument,
            ),
            (
                Error::InvalidColumn { column: s(), detail: s() },
                -1004,
                Fixed("Config Error"),
                InvalidArgument,
            ),
            (Error::UnknownMetric { column: s(), metric: s() }, -1, Detailed(""), InvalidArgument),
            (
                repository(RepositoryFault::UnknownType),
                -2014,
                Fixed("Invalid Repository Type"),
                InvalidArgument,
            ),
            (
                repository(RepositoryFault::EmptyName),
                -2004,
                Fixed("Empty Repository Name"),
                InvalidArgument,
            ),
            (repository(RepositoryFault::InvalidUri), -2007, Fixed("Invalid URI"), InvalidArgument),
            (
                repository(RepositoryFault::EmptyUser),
                -2005,
                Fixed("Empty User Name"),
                InvalidArgument,
            ),
            (
                repository(RepositoryFault::EmptyPassword),
                -2006,
                Fixed("Empty Password"),
                InvalidArgument,
            ),
            (
                repository(RepositoryFault::EmptyTable),
                -2003,
                Fixed("Empty Repository Table"),
                InvalidArgument,
            ),
            (
                Error::InvalidWrite { detail: s() },
                -2012,
                Fixed("Invalid Write Request"),
                InvalidArgument,
            ),
            (Error::EmptyLsnContext { row: 0 }, -4007, Fixed("Empty Lsn Context"), InvalidArgument),
            (
                Error::MismatchedIndexColumn { row: 0, column: s() },
                -2022,
                Fixed("Mismatched Index Column"),
                InvalidArgument,
            ),
            (
                Error::MismatchedDataType { column: s(), expected: s(), got: s() },
                -2024,
                Fixed("Mismatched Data Type"),
                InvalidArgument,
            ),
            (
                Error::MismatchedDimension { row: 0, column: s(), detail: s() },
                -2023,
                Fixed("Mismatched Dimension"),
                InvalidArgument,
            ),
            (
                Error::NotFinite { row: 0, column: s(), element: 0, value: f32::NAN },
                -2019,
                Detailed("Invalid Feature"),
                InvalidArgument,
            ),
            (
                Error::MagicNumberMismatch { got: 1, expected: 2 },
                -2021,
                Fixed("Mismatched Magic Number"),
                FailedPrecondition,
            ),
            (
                Error::RowNotFound { collection: s(), key: 7 },
                -4004,
                Fixed("Key Not Exist"),
                NotFound,
            ),
            (Error::query("x"), -2010, Fixed("Invalid Query"), InvalidArgument),
            (
                Error::InvalidFilter { detail: s(), position: Some(2), excerpt: s() },
                -2010,
                Detailed("Invalid Query"),
                InvalidArgument,
            ),
            (
                Error::InvalidArgument { detail: s() },
                -1005,
                Detailed("Invalid Arugment"),
                InvalidArgument,
            ),
            (
                Error::LimitExceeded { what: "rows", value: 2, limit: 1, setting: "s" },
                -1010,
                Detailed("Exceed Limit"),
                OutOfRange,
            ),
            (
                Error::OutOfMemory { what: "rows", bytes: 3, used: 2, limit: 1, setting: "s" },
                -1010,
                Detailed("Exceed Limit"),
                ResourceExhausted,
            ),
            (
                Error::Busy { what: "queue", limit: 1, setting: "s" },
                -4008,
                Detailed("Exceed Rate Limit"),
                ResourceExhausted,
            ),
            (Error::Stopping, -1014, Detailed("Visit Stopped Service"), Unavailable),
            (Error::io("open", "/x", &"gone"), -1009, Detailed("Write Data Error"), Internal),
            (Error::damaged("/x", 7, "x"), -1008, Detailed("Read Data Error"), DataLoss),
            (
                Error::Poisoned { collection: s(), cause: s() },
                -1009,
                Detailed("Write Data Error"),
                FailedPrecondition,
            ),
            (
                Error::Unserved { collection: s(), cause: s() },
                -5005,
                Detailed("Collection Is Unreadable"),
                FailedPrecondition,
            ),
            (
                Error::Locked { path: "/x".into() },
                -1002,
                Detailed("Status Error"),
                FailedPrecondition,
            ),
            (Error::internal("x"), -1001, Detailed("Logic Error"), Internal),
        ]
    }

    #[test]
    fn every_error_has_its_code_and_reason() {
        for (error, code, reason, voisin) in every_error() {
            let words = error.to_string();
            let expected = match reason {
                Fixed(text) => text.to_owned(),
                Detailed("") => words.clone(),
                Detailed(text) => format!("{text}: {words}"),
            };
            assert_eq!(voisin_code(&error), voisin, "{words}");
            let refusal = Refusal::from(error);
            assert_eq!(refusal, Refusal { code, reason: expected, detail: words });
        }
    }

    #[test]
    fn the_last_failing_row_decides_the_status() {
        assert_eq!(Refusal::of_rows(&[]), None);
        let check = |error, code, reason: &str| {
            let refusal = Refusal::of_rows(&[(0, 5, RowError::DuplicateKey), (2, 7, error)]);
            let refusal = refusal.expect("two rows failed");
            assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason));
            assert!(refusal.detail.starts_with("row 2 (key 7): "), "{}", refusal.detail);
            assert!(refusal.detail.ends_with(": 2"), "{}", refusal.detail);
        };
        check(RowError::DuplicateKey, -4001, "Duplicate Key");
        check(RowError::KeyNotFound, -4004, "Key Not Exist");
        let stale = Refusal::of_rows(&[(0, 5, RowError::StaleLsn)]).expect("one row failed");
        assert_eq!(stale.code, -2009);
        assert!(stale.reason.starts_with("Invalid Record: "), "{}", stale.reason);
    }

    #[test]
    fn success_reads_as_the_original_says_it() {
        assert_eq!(success(), proxima::Status { code: 0, reason: "Success".into() });
    }

    #[test]
    fn details_are_ascii_and_short_whatever_the_caller_sent() {
        let check = |detail: &str, expected: &str| {
            let refusal = Refusal { code: -1, reason: String::new(), detail: detail.into() };
            let value = refusal.detail_value().expect("printable ASCII is a metadata value");
            assert_eq!(value.to_str().expect("ASCII"), expected);
        };
        check("plain words", "plain words");
        check("50% \u{e9}\n", "50%25 %C3%A9%0A");
        check(&"a".repeat(5000), &"a".repeat(DETAIL_BYTES_MAX));
        check(&"\u{e9}".repeat(5000), &"%C3%A9".repeat(DETAIL_BYTES_MAX / 6));
        let long = Refusal::from(Error::InvalidArgument { detail: "\u{e9}".repeat(5000) });
        assert!(long.reason.len() < 1100);
    }
}
