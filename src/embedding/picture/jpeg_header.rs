//! What the markers of a JPEG say: its frame, its scans, how the camera was held, and whether it is whole.
//! Read here and not asked of the decoder, which finds out most of it only while it decodes.
//! <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>

use memchr::memchr;

use super::orientation::EXIF_MARK;
use super::{Format, PictureError};

/// Markers, each after a byte of 255.
mod marker {
    pub(super) const TEM: u8 = 0x01;
    pub(super) const SOF0: u8 = 0xc0;
    pub(super) const SOF2: u8 = 0xc2;
    pub(super) const SOF3: u8 = 0xc3;
    pub(super) const DHT: u8 = 0xc4;
    pub(super) const SOF7: u8 = 0xc7;
    pub(super) const JPG: u8 = 0xc8;
    pub(super) const SOF10: u8 = 0xca;
    pub(super) const SOF11: u8 = 0xcb;
    pub(super) const DAC: u8 = 0xcc;
    pub(super) const SOF15: u8 = 0xcf;
    pub(super) const RST0: u8 = 0xd0;
    pub(super) const RST7: u8 = 0xd7;
    pub(super) const SOI: u8 = 0xd8;
    pub(super) const EOI: u8 = 0xd9;
    pub(super) const SOS: u8 = 0xda;
    pub(super) const APP1: u8 = 0xe1;
}

/// Bytes of a block of coefficients.
const BLOCK_BYTES: u64 = 64 * 2;

/// How the pixels are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub width: u32,
    pub height: u32,
    /// Bits of a sample.
    pub precision: u8,
    /// How often each component is sampled, across and down: 1 to 4 of them, each 1..=4.
    pub sampling: Vec<(u32, u32)>,
    pub is_progressive: bool,
    pub is_lossless: bool,
}

/// What a JPEG says of itself.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub frame: Frame,
    /// Passes over the pixels; at least 1.
    pub scans: u32,
    /// Components in the first of them.
    scan_components: usize,
    /// EXIF data, where it has some.
    pub exif: Option<&'a [u8]>,
}

impl Header<'_> {
    /// Bytes that all coefficients take, which must be held when a pass does not bring all of a block.
    pub(super) fn coefficient_bytes(&self) -> u64 {
        let Frame { width, height, ref sampling, is_progressive, .. } = self.frame;
        if !is_progressive && self.scan_components >= sampling.len() {
            return 0;
        }
        let across = sampling.iter().map(|s| s.0).max().unwrap_or(1);
        let down = sampling.iter().map(|s| s.1).max().unwrap_or(1);
        let groups = u64::from(width.div_ceil(8 * across)) * u64::from(height.div_ceil(8 * down));
        sampling.iter().map(|&(h, v)| groups * u64::from(h * v) * BLOCK_BYTES).sum()
    }
}

/// Reads the markers up to the end. Fails when there is no frame, no scan or no end.
pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, PictureError> {
    let damaged = |reason: &str| PictureError::damaged(Format::Jpeg, reason);
    let cut_short = || PictureError::CutShort { format: Format::Jpeg };
    let (mut frame, mut exif, mut scans, mut scan_components) = (None, None, 0u32, 0);
    let mut at = 0;
    loop {
        at = next_marker(bytes, at).ok_or_else(cut_short)?;
        let code = bytes[at - 1];
        if code == marker::EOI {
            break;
        }
        if matches!(code, marker::SOI | marker::TEM | marker::RST0..=marker::RST7) {
            continue;
        }
        let length = bytes.get(at..at + 2).ok_or_else(cut_short)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(damaged("a marker has no length"));
        }
        let body = bytes.get(at + 2..at + length).ok_or_else(cut_short)?;
        at += length;
        match code {
            marker::DHT | marker::JPG | marker::DAC => {}
            marker::SOF0..=marker::SOF15 => {
                if frame.is_some() {
                    return Err(damaged("it has two frames"));
                }
                frame = Some(read_frame(code, body)?);
            }
            marker::APP1 if exif.is_none() && body.starts_with(EXIF_MARK) => exif = Some(body),
            marker::SOS => {
                if frame.is_none() {
                    return Err(damaged("a scan comes before the frame"));
                }
                if scans == 0 {
                    scan_components = body.first().copied().map_or(0, usize::from);
                }
                scans += 1;
            }
            _ => {}
        }
    }
    let frame = frame.filter(|_| scans > 0).ok_or_else(|| damaged("it has no pixels"))?;
    Ok(Header { frame, scans, scan_components, exif })
}

/// The position after the next marker from a position on. What is no marker is passed over, be it pixels or
/// nothing, as libjpeg does.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr(0xff, bytes.get(at..)?)? + 1;
        match *bytes.get(at)? {
            // A byte of 255 among pixels.
            0 => at += 1,
            // One that fills up: the marker is after the last.
            0xff => {}
            _ => return Some(at + 1),
        }
    }
}

fn read_frame(code: u8, body: &[u8]) -> Result<Frame, PictureError> {
    let damaged = |reason: String| PictureError::damaged(Format::Jpeg, reason);
    let &[precision, h1, h0, w1, w0, count, ref components @ ..] = body else {
        return Err(damaged("its frame has no size".to_owned()));
    };
    let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
    if width == 0 || height == 0 {
        return Err(damaged(format!("it is {width} x {height}")));
    }
    let (components, _) = components.as_chunks::<3>();
    if !matches!(count, 1 | 3 | 4) || components.len() != usize::from(count) {
        return Err(damaged(format!("it has {count} components, where 1, 3 or 4 are wanted")));
    }
    let sampling: Vec<(u32, u32)> = components
        .iter()
        .map(|&[_, factors, _]| (u32::from(factors >> 4), u32::from(factors & 15)))
        .collect();
    if sampling.iter().any(|&(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
        return Err(damaged(
            "a component is sampled less than once or more than 4 times".to_owned(),
        ));
    }
    Ok(Frame {
        width: u32::from(width),
        height: u32::from(height),
        precision,
        sampling,
        is_progressive: matches!(code, marker::SOF2 | marker::SOF10),
        is_lossless: matches!(code, marker::SOF3 | marker::SOF7 | marker::SOF11 | marker::SOF15),
    })
}
