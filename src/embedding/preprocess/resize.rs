//! Resizing as Pillow does it: along rows first and down columns then, rounded to 8 bits in between, with filters
//! that widen as a picture shrinks. Only the part that is wanted is made, so that a crop of a long picture
//! costs no more than its own size.

use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{PreprocessError, exact};
use crate::embedding::picture::Picture;

/// How pixels are resampled: Pillow's filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    /// By the number that Pillow gives it.
    pub(super) fn from_pillow(number: u64) -> Option<Filter> {
        use Filter::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
        [Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// The same as a convolution, and how many pixels it reaches to each side; none for the nearest pixel.
    fn convolution(self) -> Option<(FilterType, f64)> {
        Some(match self {
            Filter::Nearest => return None,
            Filter::Lanczos => (FilterType::Lanczos3, 3.0),
            Filter::Bilinear => (FilterType::Bilinear, 1.0),
            // Both with a = -0.5.
            Filter::Bicubic => (FilterType::CatmullRom, 2.0),
            Filter::Box => (FilterType::Box, 0.5),
            Filter::Hamming => (FilterType::Hamming, 1.0),
        })
    }
}

/// How closely the pixels are Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accuracy {
    /// The same.
    Exact,
    /// At most two steps of 255 apart, by weights of 15 bits, and several times as fast.
    Step,
}

/// A part of the resized picture; at least one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// The pixels of a part of the picture resized to a width and height.
pub(super) fn window<'a>(
    picture: &'a Picture,
    (width, height): (u32, u32),
    window: Window,
    (filter, accuracy): (Filter, Accuracy),
) -> Result<Cow<'a, [u8]>, PreprocessError> {
    let across = Axis { side: picture.width(), resized: width, at: window.x, length: window.width };
    let down =
        Axis { side: picture.height(), resized: height, at: window.y, length: window.height };
    match filter.convolution() {
        _ if across.is_whole() && down.is_whole() => Ok(Cow::Borrowed(picture.rgb())),
        None => Ok(Cow::Owned(nearest(picture, across, down))),
        // What Pillow resizes in the other order is many steps away in this one.
        Some(_) if accuracy == Accuracy::Exact || exact::is_down_first(across, down) => {
            Ok(Cow::Owned(exact::resized(picture, across, down, filter)))
        }
        Some((filter, reach)) => convolved(picture, across, down, filter, reach)
            .map(Cow::Owned)
            .map_err(PreprocessError::Resize),
    }
}

/// One direction: a side, what it becomes, and the part of that which is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub side: u32,
    pub resized: u32,
    pub at: u32,
    pub length: u32,
}

impl Axis {
    /// Pixels of the picture for each of the resized one.
    pub(super) fn scale(self) -> f64 {
        f64::from(self.side) / f64::from(self.resized)
    }

    fn is_whole(self) -> bool {
        self.side == self.resized && self.length == self.side
    }

    /// Beginning and length of the wanted part in the picture.
    fn part(self) -> (f64, f64) {
        let from = f64::from(self.at) * self.scale();
        let to = f64::from(self.at + self.length) * self.scale();
        // Rounding must not lead beyond the picture.
        (from, to.min(f64::from(self.side)) - from)
    }

    /// The pixels, from and to, that the wanted part is made of; some more do no harm.
    fn sources(self, reach: f64) -> (u32, u32) {
        if self.side == self.resized {
            return (self.at, self.at + self.length);
        }
        let (from, length) = self.part();
        let reach = reach * self.scale().max(1.0) + 1.0;
        let last = (from + length + reach).ceil().min(f64::from(self.side));
        ((from - reach).floor().max(0.0) as u32, last as u32)
    }
}

fn convolved(
    picture: &Picture,
    across: Axis,
    down: Axis,
    filter: FilterType,
    reach: f64,
) -> Result<Vec<u8>, String> {
    let mut resizer = Resizer::new();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let stored = ImageRef::new(picture.width(), picture.height(), picture.rgb(), PixelType::U8x3)
        .map_err(|e| e.to_string())?;
    let (first, last) = down.sources(reach);
    let (left, width) = across.part();
    let rows = f64::from(last - first);
    let mut narrow = Image::new(across.length, last - first, PixelType::U8x3);
    resizer
        .resize(&stored, &mut narrow, &options.crop(left, f64::from(first), width, rows))
        .map_err(|e| e.to_string())?;
    if down.side == down.resized {
        return Ok(narrow.into_vec());
    }
    let (top, height) = down.part();
    let top = top - f64::from(first);
    let height = height.min(rows - top);
    let mut result = Image::new(across.length, down.length, PixelType::U8x3);
    resizer
        .resize(&narrow, &mut result, &options.crop(0.0, top, f64::from(across.length), height))
        .map_err(|e| e.to_string())?;
    Ok(result.into_vec())
}

fn nearest(picture: &Picture, across: Axis, down: Axis) -> Vec<u8> {
    let (columns, rows) = (nearest_sources(across), nearest_sources(down));
    let (pixels, _) = picture.rgb().as_chunks::<3>();
    let lines = pixels.chunks_exact(picture.width() as usize).collect::<Vec<_>>();
    let mut out = Vec::with_capacity(3 * columns.len() * rows.len());
    for y in rows {
        out.extend(columns.iter().flat_map(|&x| lines[y][x]));
    }
    out
}

/// The pixel that each wanted one is. Added up step by step as Pillow does, since what is halfway
/// between two falls to the one or the other by how it is rounded.
fn nearest_sources(axis: Axis) -> Vec<usize> {
    let step = axis.scale();
    let mut position = step * 0.5;
    let mut sources = Vec::with_capacity(axis.length as usize);
    for at in 0..axis.at + axis.length {
        if at >= axis.at {
            sources.push((position as usize).min(axis.side as usize - 1));
        }
        position += step;
    }
    sources
}
