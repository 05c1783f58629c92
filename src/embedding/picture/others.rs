//! PNG, GIF, BMP and WebP.

use std::borrow::Cow;
use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::samples::{self, Channels};
use super::{Format, Picture, PictureError, PictureLimits};
use super::{orientation, png_chunks, vp8l, webp_header};

/// Bytes of a pixel that a WebP decoder holds beside the result: the planes of the lossy one, or the canvas and the
/// frame of an animated one.
const WEBP_PIXEL_BYTES: u64 = 8;

/// Bytes that a PNG decoder may take for what is not pixels: the chunks of few bytes that are left to it, and a row of
/// pixels of up to eight bytes, which it counts too.
const PNG_CHUNKS_BYTES: u64 = 64 << 10;
const PNG_PIXEL_BYTES: u64 = 8;

/// Decodes a picture of these formats, the first frame of several.
pub(super) fn decode(
    format: Format,
    bytes: &[u8],
    limits: &PictureLimits,
) -> Result<Picture, PictureError> {
    let failed = |error| refusal(format, error);
    let mut own_exif = None;
    let mut streams = Vec::new();
    let mut given = Cow::Borrowed(bytes);
    let mut header_bytes_max = limits.decode_bytes_max;
    let kind = match format {
        Format::WebP => {
            let header = webp_header::read(bytes)?;
            limits.check_shape(header.width, header.height)?;
            own_exif = header.exif;
            streams = header.streams;
            ImageFormat::WebP
        }
        Format::Gif => ImageFormat::Gif,
        Format::Bmp => ImageFormat::Bmp,
        _ => {
            let width = check_png_shape(bytes, limits)?;
            let stripped = png_chunks::strip(bytes)?;
            own_exif = stripped.exif;
            given = stripped.bytes;
            // It cannot be told later that less is free.
            header_bytes_max = PNG_CHUNKS_BYTES + PNG_PIXEL_BYTES * u64::from(width);
            ImageFormat::Png
        }
    };
    let copied = if let Cow::Owned(bytes) = &given { bytes.len() as u64 } else { 0 };
    let mut reader = ImageReader::with_format(Cursor::new(given), kind);
    reader.limits(decoder_limits(header_bytes_max));
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
    // GIF and BMP have none.
    let orientation = orientation::of_exif(own_exif);
    let pixels = u64::from(width) * u64::from(height);
    let stored = decoder.total_bytes();
    let beside = if format == Format::WebP { WEBP_PIXEL_BYTES * pixels } else { copied };
    let made = if channels == Channels::Rgb { 0 } else { 3 * pixels };
    let later = made.max(orientation::memory(orientation, pixels));
    let mut rest = limits.check_memory(stored.saturating_add(beside.max(later)))?;
    if !streams.is_empty() {
        // Read only now that there is room for the pixels: that takes a small part of it.
        let mut declared = 0;
        for stream in streams {
            let memory = vp8l::memory(stream);
            declared += memory.map_err(|flaw| PictureError::damaged(format, flaw))?;
        }
        rest = limits.check_memory(stored.saturating_add((beside + declared).max(later)))?;
    }

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

/// Checks the sides in a PNG's first chunk, where they always are, before its decoder sees any; the width.
fn check_png_shape(bytes: &[u8], limits: &PictureLimits) -> Result<u32, PictureError> {
    let side = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    match (side(16), side(20)) {
        (Some(width), Some(height)) if width > 0 && height > 0 => {
            limits.check_shape(width, height)?;
            Ok(width)
        }
        // Its decoder says what is wrong.
        _ => Ok(0),
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
