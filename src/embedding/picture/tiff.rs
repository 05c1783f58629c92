//! TIFF: the first page, as grey, RGB, CMYK or a palette, of up to 16 bits a sample.

use std::borrow::Cow;
use std::io::{self, Cursor};

use image::metadata::Orientation;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::{PhotometricInterpretation, Tag};
use tiff::{ColorType, TiffError};

use super::samples::{self, Channels};
use super::{Format, Picture, PictureError, PictureLimits, orientation};

/// The value of `ExtraSamples` for colours multiplied by their opacity.
const MULTIPLIED: u16 = 1;

/// How many times as many pixels tiles may hold as a picture may have: they reach beyond its edges.
const TILED_PIXELS: u64 = 2;

type Pages<'a> = Decoder<Cursor<Cow<'a, [u8]>>>;

/// Decodes the first page.
pub(super) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Picture, PictureError> {
    let mut pages = open(Cow::Borrowed(bytes))?;
    let (width, height) = pages.dimensions().map_err(refusal)?;
    limits.check_shape(width, height)?;
    let palette = read_palette(&mut pages)?;
    if palette.is_some() {
        // The decoder knows no palettes; it takes indices for shades of grey as they are.
        pages = open(Cow::Owned(told_to_be_grey(bytes)?))?;
    }
    let (channels, bits) = kind(&mut pages)?;
    if palette.is_some() && (channels != Channels::Grey || bits > 8) {
        let what = format!("a palette for samples of {bits} bits");
        return Err(PictureError::not_taken(Format::Tiff, what));
    }
    let orientation = pages
        .find_tag_unsigned::<u8>(Tag::Orientation)
        .map_err(refusal)?
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms);

    let pixels = u64::from(width) * u64::from(height);
    check_tiles(&pages, (width, height), limits)?;
    let row = (u64::from(width) * channels.count() as u64 * u64::from(bits)).div_ceil(8);
    let stored = row * u64::from(height);
    let made = if channels == Channels::Rgb && bits == 8 { 0 } else { 3 * pixels };
    // Samples of less than 8 bits are unpacked, and planes interleaved, in between.
    let between = pixels * channels.count() as u64;
    let copy = if palette.is_some() { bytes.len() as u64 } else { 0 };
    let later = between + made.max(orientation::memory(orientation, pixels));
    let rest = limits.check_memory(stored + copy + later)?;

    let mut buffers = Limits::default();
    // An address space holds what was just checked.
    buffers.decoding_buffer_size = stored as usize;
    buffers.intermediate_buffer_size = usize::try_from(later + rest).unwrap_or(usize::MAX);
    let mut pages = pages.with_limits(buffers);
    let samples = read_samples(&mut pages, channels, bits, (width, height))?;
    let rgb = match palette {
        Some(palette) => {
            let colour = |&index: &u8| palette.get(usize::from(index)).copied().unwrap_or([0; 3]);
            samples.iter().flat_map(colour).collect()
        }
        None => samples::rgb(Cow::Owned(scaled_up(samples, bits)), channels),
    };
    orientation::upright(Format::Tiff, (width, height), rgb, orientation)
}

fn open(bytes: Cow<'_, [u8]>) -> Result<Pages<'_>, PictureError> {
    Decoder::new(Cursor::new(bytes)).map_err(refusal)
}

/// What a pixel is made of, and how many bits a sample has: 1, 2, 4, 8 or 16.
fn kind(pages: &mut Pages<'_>) -> Result<(Channels, u8), PictureError> {
    let extra = pages.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(refusal)?;
    let is_multiplied = extra.is_some_and(|extra| extra.first() == Some(&MULTIPLIED));
    let colour = pages.colortype().map_err(refusal)?;
    match colour {
        ColorType::Gray(bits @ (1 | 2 | 4 | 8 | 16)) => Ok((Channels::Grey, bits)),
        ColorType::GrayA(bits @ (8 | 16))
        | ColorType::Multiband { bit_depth: bits @ (8 | 16), num_samples: 2 } => {
            Ok((Channels::GreyAlpha, bits))
        }
        ColorType::RGB(bits @ (8 | 16)) => Ok((Channels::Rgb, bits)),
        ColorType::RGBA(bits @ (8 | 16)) if is_multiplied => Ok((Channels::RgbaMultiplied, bits)),
        ColorType::RGBA(bits @ (8 | 16)) => Ok((Channels::Rgba, bits)),
        ColorType::CMYK(bits @ (8 | 16)) => Ok((Channels::Cmyk, bits)),
        other => Err(PictureError::not_taken(Format::Tiff, format!("samples of {other:?}"))),
    }
}

/// The colours of a palette, where there is one.
fn read_palette(pages: &mut Pages<'_>) -> Result<Option<Vec<[u8; 3]>>, PictureError> {
    let kind = pages.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(refusal)?;
    if kind != Some(PhotometricInterpretation::RGBPalette.to_u16()) {
        return Ok(None);
    }
    let values = pages.get_tag_u16_vec(Tag::ColorMap).map_err(refusal)?;
    let count = values.len() / 3;
    let shade = |at: usize| (values[at] >> 8) as u8;
    Ok(Some((0..count).map(|at| [at, count + at, 2 * count + at].map(shade)).collect()))
}

/// A copy of the file whose first page claims to be grey.
fn told_to_be_grey(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let mut copy = bytes.to_vec();
    let is_little = bytes.starts_with(b"II");
    let short = |at: usize| {
        let two = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
    };
    let long = |at: usize| {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if is_little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    let mut told = || {
        let directory = long(4)? as usize;
        let count = usize::from(short(directory)?);
        let photometric = Tag::PhotometricInterpretation.to_u16();
        let entry = (0..count)
            .map(|entry| directory + 2 + 12 * entry)
            .find(|&entry| short(entry) == Some(photometric))?;
        let grey = PhotometricInterpretation::BlackIsZero.to_u16();
        let value = if is_little { grey.to_le_bytes() } else { grey.to_be_bytes() };
        copy.get_mut(entry + 8..entry + 10)?.copy_from_slice(&value);
        Some(())
    };
    told().ok_or_else(|| PictureError::damaged(Format::Tiff, "its directory is not whole"))?;
    Ok(copy)
}

/// Tiles claim a size of their own, and all of them are unpacked.
fn check_tiles(
    pages: &Pages<'_>,
    (width, height): (u32, u32),
    limits: &PictureLimits,
) -> Result<(), PictureError> {
    if pages.get_chunk_type() != ChunkType::Tile {
        return Ok(());
    }
    let (wide, high) = pages.chunk_dimensions();
    let span = |side: u32, tile: u32| u64::from(side.div_ceil(tile.max(1))) * u64::from(tile);
    let pixels = span(width, wide).saturating_mul(span(height, high));
    if pixels > limits.pixels_max.saturating_mul(TILED_PIXELS) {
        let what = format!("tiles of {wide} x {high} for {width} x {height} pixels");
        return Err(PictureError::not_taken(Format::Tiff, what));
    }
    Ok(())
}

/// Samples of the page, 8 bits each and pixel by pixel. Those of fewer bits keep their value, of 16 their upper half.
fn read_samples(
    pages: &mut Pages<'_>,
    channels: Channels,
    bits: u8,
    (width, height): (u32, u32),
) -> Result<Vec<u8>, PictureError> {
    let mut result = DecodingResult::U8(Vec::new());
    let layout = pages.read_image_to_buffer(&mut result).map_err(refusal)?;
    let samples: Vec<u8> = match result {
        DecodingResult::U8(samples) if bits < 8 => unpacked(&samples, bits, width),
        DecodingResult::U8(samples) => samples,
        DecodingResult::U16(samples) => samples.iter().map(|sample| (sample >> 8) as u8).collect(),
        _ => {
            let what = "samples that are no unsigned numbers of up to 16 bits";
            return Err(PictureError::not_taken(Format::Tiff, what));
        }
    };
    let count = channels.count();
    let plane = width as usize * height as usize;
    if samples.len() != count * plane {
        return Err(PictureError::damaged(
            Format::Tiff,
            "it has fewer samples than its header says",
        ));
    }
    if layout.planes <= 1 {
        return Ok(samples);
    }
    Ok((0..plane)
        .flat_map(|at| (0..count).map(move |c| c * plane + at))
        .map(|at| samples[at])
        .collect())
}

/// Samples of 1, 2 or 4 bits, one in each byte; rows begin with a byte.
fn unpacked(packed: &[u8], bits: u8, width: u32) -> Vec<u8> {
    let (width, each) = (width as usize, usize::from(8 / bits));
    let rows = packed.chunks_exact(width.div_ceil(each));
    rows.flat_map(|row| {
        (0..width).map(move |x| {
            let shift = 8 - usize::from(bits) * (x % each + 1);
            row[x / each] >> shift & ((1 << bits) - 1)
        })
    })
    .collect()
}

/// Shades of fewer than 8 bits, spread over all of 0 to 255.
fn scaled_up(mut samples: Vec<u8>, bits: u8) -> Vec<u8> {
    if bits < 8 {
        let step = 255 / ((1 << bits) - 1);
        samples.iter_mut().for_each(|sample| *sample *= step);
    }
    samples
}

fn refusal(error: TiffError) -> PictureError {
    match error {
        TiffError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            PictureError::CutShort { format: Format::Tiff }
        }
        TiffError::UnsupportedError(what) => PictureError::not_taken(Format::Tiff, what),
        other => PictureError::damaged(Format::Tiff, other),
    }
}
