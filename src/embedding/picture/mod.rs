//! Pictures of strangers: bytes in, checked RGB pixels out, or a refusal that says why.
//!
//! Nothing that a file says of itself is believed before it is checked: its size, its shape and the
//! memory that decoding takes are held against the limits while only its header has been read. The one place with
//! the crates that decode pictures.

mod error;
mod format;
mod jpeg;
mod jpeg_header;
mod limits;
mod media;
mod orientation;
mod others;
mod png_chunks;
mod samples;
#[cfg(test)]
pub(in crate::embedding) mod tests;
mod thumbnail;
mod tiff;
mod vp8l;
mod webp_header;

use std::panic::catch_unwind;

pub(crate) use error::PictureError;
use format::Format;
pub(crate) use limits::PictureLimits;
pub use media::{HEAD_BYTES, media_type};

/// A decoded picture: RGB of 8 bits, upright, on white where it was transparent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    /// Width and height that it would have had in full.
    full_size: (u32, u32),
}

impl Picture {
    /// Pixels of a row; at least 1.
    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    /// Rows; at least 1.
    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    /// Width and height that it would have, had it not been decoded smaller.
    pub(crate) fn full_size(&self) -> (u32, u32) {
        self.full_size
    }

    /// Red, green and blue of each pixel, row after row: `3 * width * height` bytes.
    pub(crate) fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// Decodes a picture: JPEG, PNG, WebP, GIF (its first frame), BMP or TIFF (its first page), told by its
/// first bytes. Its pixels are Pillow's, transposed as its EXIF orientation says.
///
/// `at_least`, as width and height, allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides of
/// the upright picture stay at least that long, which takes a fraction of the time. With `None` it is decoded in full.
///
/// Fails when the bytes are no picture, a damaged or unfinished one, one of a kind that is not taken, or beyond a
/// limit.
pub(crate) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
    at_least: Option<(u32, u32)>,
) -> Result<Picture, PictureError> {
    limits.check_bytes(bytes.len())?;
    let format = Format::of(bytes)?;
    // Decoders are the work of others and their input that of strangers: one that panics must cost the picture
    // and not the thread that serves everybody. What it was at is dropped with it.
    catch_unwind(|| match format {
        Format::Jpeg => jpeg::decode(bytes, limits, at_least),
        Format::Tiff => tiff::decode(bytes, limits),
        other => others::decode(other, bytes, limits),
    })
    .unwrap_or_else(|_| Err(PictureError::damaged(format, "its decoder could not go on")))
}
