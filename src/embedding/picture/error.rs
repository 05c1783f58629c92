//! Why a picture is refused.

use super::format::Format;

/// The formats that are taken, in words.
const TAKEN: &str = "JPEG, PNG, WebP, GIF, BMP or TIFF";

/// Why a picture is refused, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PictureError {
    /// No bytes at all.
    #[error("the picture has no bytes, where {TAKEN} is wanted")]
    Empty,
    /// The first bytes, in hexadecimal, are those of no known format.
    #[error("the bytes are no picture: they begin with {0}, not as {TAKEN}")]
    Unknown(String),
    /// A format that is known, but not taken.
    #[error("the picture is {0}, where {TAKEN} is wanted")]
    OtherFormat(String),
    #[error("the picture has {bytes} bytes, more than limits.picture_bytes_max = {max}")]
    TooManyBytes { bytes: usize, max: usize },
    #[error(
        "the picture is {width} x {height}, {pixels} pixels, more than limits.picture_pixels_max = {max}",
        pixels = u64::from(*width) * u64::from(*height)
    )]
    TooManyPixels { width: u32, height: u32, max: u64 },
    #[error(
        "the picture is {width} x {height}: one side is more than limits.picture_ratio_max = {max} times \
         the other"
    )]
    TooNarrow { width: u32, height: u32, max: u32 },
    #[error(
        "decoding the picture takes {bytes} bytes of memory, more than limits.picture_decode_bytes_max = {max}"
    )]
    TooMuchMemory { bytes: u64, max: u64 },
    #[error(
        "the picture is {scans} scans of {width} x {height}, where {max} are taken of this size"
    )]
    TooManyScans { scans: u32, width: u32, height: u32, max: u32 },
    /// A kind within a format.
    #[error("the {format} picture has {what}, which is not taken")]
    NotTaken { format: Format, what: String },
    #[error("the {format} picture ends before its pixels do: it was cut short")]
    CutShort { format: Format },
    #[error("the {format} picture is damaged: {reason}")]
    Damaged { format: Format, reason: String },
    #[error("the thumbnail cannot be made: {0}")]
    Thumbnail(String),
}

impl PictureError {
    pub(super) fn damaged(format: Format, reason: impl ToString) -> PictureError {
        PictureError::Damaged { format, reason: reason.to_string() }
    }

    pub(super) fn not_taken(format: Format, what: impl ToString) -> PictureError {
        PictureError::NotTaken { format, what: what.to_string() }
    }
}
