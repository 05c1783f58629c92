//! Which format bytes are, by the first of them. Names and types that a sender gives are not asked.

use std::fmt;

use image::ImageFormat;

use super::PictureError;

/// Bytes that are shown of what is no picture.
const SHOWN_BYTES: usize = 8;

/// The formats that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    pub(super) fn of(bytes: &[u8]) -> Result<Format, PictureError> {
        if bytes.is_empty() {
            return Err(PictureError::Empty);
        }
        match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
            Ok(ImageFormat::Png) => Ok(Format::Png),
            Ok(ImageFormat::WebP) => Ok(Format::WebP),
            Ok(ImageFormat::Gif) => Ok(Format::Gif),
            Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
            Ok(ImageFormat::Tiff) => Ok(Format::Tiff),
            Ok(other) => Err(PictureError::OtherFormat(format!("{other:?}"))),
            Err(_) => {
                let first = &bytes[..bytes.len().min(SHOWN_BYTES)];
                let shown: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
                Err(PictureError::Unknown(shown.join(" ")))
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
        })
    }
}
