//! JPEG, by libjpeg-turbo with the exact transform and smooth upsampling: the pixels are those of Pillow.

use std::borrow::Cow;

use turbojpeg::{Decompressor, PixelFormat, ScalingFactor};

use super::jpeg_header::{self, Header};
use super::samples::{self, Channels};
use super::{Format, Picture, PictureError, PictureLimits, orientation};

/// Passes over a picture that are taken of any; encoders make 10 to 20.
const SCANS_MAX: u32 = 100;
/// Passes that are taken of a picture of the most pixels. Each may be a few bytes and costs as much as all of
/// them: without a bound, a small file keeps a thread busy for hours.
const LARGE_SCANS_MAX: u32 = 24;

/// What libjpeg's words begin with when data was damaged, but made pixels of.
const SHOWN_ANYHOW: &str = "Corrupt JPEG data";

/// Decodes a JPEG, smaller than it is stored where `at_least` allows that.
pub(super) fn decode(
    bytes: &[u8],
    limits: &PictureLimits,
    at_least: Option<(u32, u32)>,
) -> Result<Picture, PictureError> {
    let header = jpeg_header::read(bytes)?;
    let frame = &header.frame;
    limits.check_shape(frame.width, frame.height)?;
    check_scans(&header, limits)?;
    if frame.precision != 8 {
        let what = format!("{} bits a sample", frame.precision);
        return Err(PictureError::not_taken(Format::Jpeg, what));
    }
    let orientation = orientation::of_exif(header.exif);
    let at_least = at_least.map(|(width, height)| {
        if orientation::turns(orientation) { (height, width) } else { (width, height) }
    });
    let scale = scale(&header, at_least);
    let is_cmyk = frame.sampling.len() == 4;
    let format = if is_cmyk { PixelFormat::CMYK } else { PixelFormat::RGB };
    let (width, height) = (scale.scale(frame.width as usize), scale.scale(frame.height as usize));
    let pixels = width as u64 * height as u64;
    let made = if is_cmyk { 3 * pixels } else { 0 };
    let later = made.max(orientation::memory(orientation, pixels));
    let stored = pixels * format.size() as u64;
    limits.check_memory(stored + later.max(header.coefficient_bytes()))?;

    let mut buffer = vec![0; stored as usize];
    decompress(
        bytes,
        scale,
        turbojpeg::Image {
            pixels: &mut buffer[..],
            width,
            pitch: width * format.size(),
            height,
            format,
        },
    )?;
    let rgb = if is_cmyk {
        // Adobe stores how much light there is and not how much ink, and everybody does as Adobe does.
        buffer.iter_mut().for_each(|sample| *sample = 255 - *sample);
        samples::rgb(Cow::Owned(buffer), Channels::Cmyk)
    } else {
        buffer
    };
    // Sides of a frame have 16 bits.
    let sides = (width as u32, height as u32);
    let mut picture = orientation::upright(Format::Jpeg, sides, rgb, orientation)?;
    picture.full_size = match orientation::turns(orientation) {
        false => (frame.width, frame.height),
        true => (frame.height, frame.width),
    };
    Ok(picture)
}

/// Decodes into pixels of the frame's size, scaled.
fn decompress(
    bytes: &[u8],
    scale: ScalingFactor,
    pixels: turbojpeg::Image<&mut [u8]>,
) -> Result<(), PictureError> {
    let decompress = || {
        let mut decompressor = Decompressor::new()?;
        decompressor.set_scan_limit(SCANS_MAX)?;
        decompressor.set_scaling_factor(scale)?;
        decompressor.decompress(bytes, pixels)
    };
    match decompress() {
        // The header has told that the picture is whole, so this is a flaw within it. Cameras make such
        // files, and every viewer shows them.
        Err(turbojpeg::Error::TurboJpegError(words)) if words.starts_with(SHOWN_ANYHOW) => Ok(()),
        Err(turbojpeg::Error::TurboJpegError(words)) => {
            Err(PictureError::damaged(Format::Jpeg, words))
        }
        Err(other) => Err(PictureError::damaged(Format::Jpeg, other)),
        Ok(()) => Ok(()),
    }
}

fn check_scans(header: &Header<'_>, limits: &PictureLimits) -> Result<(), PictureError> {
    let (width, height) = (header.frame.width, header.frame.height);
    let pixels = u64::from(width) * u64::from(height);
    let affordable = u64::from(LARGE_SCANS_MAX).saturating_mul(limits.pixels_max) / pixels;
    let max = u32::try_from(affordable).unwrap_or(u32::MAX).min(SCANS_MAX);
    let scans = header.scans;
    if scans > max { Err(PictureError::TooManyScans { scans, width, height, max }) } else { Ok(()) }
}

/// The smallest scale that leaves both sides at least so long.
fn scale(header: &Header<'_>, at_least: Option<(u32, u32)>) -> ScalingFactor {
    let frame = &header.frame;
    let Some((width, height)) = at_least.filter(|_| !frame.is_lossless) else {
        return ScalingFactor::ONE;
    };
    [ScalingFactor::ONE_EIGHTH, ScalingFactor::ONE_QUARTER, ScalingFactor::ONE_HALF]
        .into_iter()
        .find(|scale| {
            scale.scale(frame.width as usize) >= width as usize
                && scale.scale(frame.height as usize) >= height as usize
        })
        .unwrap_or(ScalingFactor::ONE)
}
