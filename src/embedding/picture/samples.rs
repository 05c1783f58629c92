//! Samples of any kind to RGB of 8 bits, in the arithmetic of Pillow.

use std::borrow::Cow;

/// What the samples of one pixel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channels {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
    /// Colours that were multiplied by their opacity already.
    RgbaMultiplied,
    /// As ink: 255 is full.
    Cmyk,
}

impl Channels {
    /// Samples of a pixel.
    pub(super) fn count(self) -> usize {
        match self {
            Channels::Grey => 1,
            Channels::GreyAlpha => 2,
            Channels::Rgb => 3,
            Channels::Rgba | Channels::RgbaMultiplied | Channels::Cmyk => 4,
        }
    }
}

/// Keeps the upper halves of samples of 16 bits in the machine's byte order.
pub(super) fn upper_halves(mut samples: Vec<u8>) -> Vec<u8> {
    let count = samples.len() / 2;
    for at in 0..count {
        samples[at] = (u16::from_ne_bytes([samples[2 * at], samples[2 * at + 1]]) >> 8) as u8;
    }
    samples.truncate(count);
    samples
}

/// RGB of samples of 8 bits, on white where they are transparent.
pub(super) fn rgb(samples: Cow<'_, [u8]>, channels: Channels) -> Vec<u8> {
    match channels {
        Channels::Rgb => samples.into_owned(),
        Channels::Grey => pixels(&samples, |&[grey]| [grey; 3]),
        Channels::GreyAlpha => pixels(&samples, |&[grey, alpha]| [on_white(grey, alpha); 3]),
        Channels::Rgba => pixels(&samples, |&[r, g, b, alpha]| {
            [on_white(r, alpha), on_white(g, alpha), on_white(b, alpha)]
        }),
        Channels::RgbaMultiplied => pixels(&samples, |&[r, g, b, alpha]| {
            [r, g, b].map(|colour| colour.saturating_add(255 - alpha))
        }),
        Channels::Cmyk => pixels(&samples, |&[c, m, y, k]| {
            let light = 255 - k;
            [c, m, y].map(|ink| light - product(ink, light))
        }),
    }
}

fn pixels<const N: usize>(samples: &[u8], rgb: impl Fn(&[u8; N]) -> [u8; 3]) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<N>();
    let mut out = Vec::with_capacity(3 * pixels.len());
    out.extend(pixels.iter().flat_map(rgb));
    out
}

/// `a * b / 255`, rounded.
fn product(a: u8, b: u8) -> u8 {
    quotient(u32::from(a) * u32::from(b))
}

fn on_white(colour: u8, alpha: u8) -> u8 {
    quotient(255 * u32::from(255 - alpha) + u32::from(colour) * u32::from(alpha))
}

/// `value / 255`, rounded, for values up to 255 * 255.
fn quotient(value: u32) -> u8 {
    let value = value + 128;
    (((value >> 8) + value) >> 8) as u8
}
