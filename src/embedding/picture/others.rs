//! PNG, GIF, BMP and WebP.

use std::borrow::Cow;
use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::samples::{self, Channels};
use super::{Format, Picture, PictureError, PictureLimits, orientation, webp_header};

/// Bytes of a pixel that a WebP decoder holds beside the result: the planes of the lossy one, or the canvas and the
/// frame of an animated one.
const WEBP_PIXEL_BYTES: u64 = 8;

/// Decodes a picture of these formats, the first frame of several.
pub(super) fn decode(
    format: Format,
    bytes: &[u8],
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let failed = |error| refusal(format, error);
    let mut own_exif = None;
    let kind = match format {
        Format::WebP => {
            let header = webp_header::read(bytes)?;
            limits.check_shape(header.width, header.height)?;
            own_exif = header.exif;
            ImageFormat::WebP
        }
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        _ => {
            check_png_shape(bytes, limits)?;
            ImageFormat::Png
        }
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    reader.limits(decoder_limits(limits.decode_bytes_max));
    let mut decoder = reader.into_decoder().map_err(failed)?;

    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PictureError::damaged(format, format!("it is {width} x {height}")));
    }
    limits.check_shape(width, height)?;
    let (channels, is_wide) = match decoder.color_type() {
        ColorType::L8 => (Channels::Grey, false),
        ColorType::La8 => (Channels::GreyAlpha, false),
        ColorType::Rgb8 => (Channels::Rgb, false),
        ColorType::Rgba8 => (Channels::Rgba, false),
        ColorType::L16 => (Channels::Grey, true),
        ColorType::La16 => (Channels::GreyAlpha, true),
        ColorType::Rgb16 => (Channels::Rgb, true),
        ColorType::Rgba16 => (Channels::Rgba, true),
        other => return Err(PictureError::not_taken(format, format!("samples of {other:?}"))),
    };
    let orientation = match own_exif {
        Some(exif) => orientation::of_exif(Some(exif)),
        None if format == Format::WebP => orientation::of_exif(None),
        None => orientation::of_exif(decoder.exif_metadata().map_err(failed)?.as_deref()),
    };
    let pixels = u64::from(width) * u64::from(height);
    let stored = decoder.total_bytes();
    let beside = if format == Format::WebP { WEBP_PIXEL_BYTES * pixels } else { 0 };
    let made = if channels == Channels::Rgb { 0 } else { 3 * pixels };
    let later = made.max(orientation::memory(orientation, pixels));
    let rest = limits.check_memory(stored.saturating_add(beside.max(later)))?;

    // Sees to what it takes beside the result, as the buffer for a small frame of a GIF.
    decoder.set_limits(decoder_limits(rest)).map_err(failed)?;
    // It fits: the memory checked is at least this, and an address space holds it.
    let mut buffer = vec![0; stored as usize];
    decoder.read_image(&mut buffer).map_err(failed)?;
    let buffer = if is_wide { samples::upper_halves(buffer) } else { buffer };
    let rgb = samples::rgb(Cow::Owned(buffer), channels);
    orientation::upright(format, (width, height), rgb, orientation)
}

fn decoder_limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

/// Checks the sides in a PNG's first chunk, where they always are, before its decoder unpacks others.
fn check_png_shape(bytes: &[u8], limits: &PictureLimits) -> Result<(), PictureError> {
    let side = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    match (side(16), side(20)) {
        (Some(width), Some(height)) if width > 0 && height > 0 => limits.check_shape(width, height),
        // Its decoder says what is wrong.
        _ => Ok(()),
    }
}

fn refusal(format: Format, error: ImageError) -> PictureError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::CutShort { format }
        }
        ImageError::Unsupported(what) => PictureError::not_taken(format, what),
        other => PictureError::damaged(format, other),
    }
}
