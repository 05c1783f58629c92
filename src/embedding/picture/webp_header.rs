//! What the chunks of a WebP file say, before a decoder believes any of them: the decoder makes room for as many
//! pixels as the bit stream within claims, which need not be what the file's header says.
//! <https://developers.google.com/speed/webp/docs/riff_container>

use super::vp8l::Stream;
use super::{Format, PictureError};

/// Bytes of a chunk's name and size.
const CHUNK_HEADER: usize = 8;
/// Bytes of a frame's header, before its own chunks.
const FRAME_HEADER: usize = 16;
/// What an extended file says of itself, in the first byte of its header.
const IS_ANIMATED: u8 = 2;
const HAS_ALPHA: u8 = 0x10;

/// What a file says of itself.
pub(super) struct Header<'a> {
    pub width: u32,
    pub height: u32,
    /// EXIF data, where it has some.
    pub exif: Option<&'a [u8]>,
    /// The lossless streams that are decoded, or may be: those of a still picture, or of the first frame.
    pub streams: Vec<Stream<'a>>,
}

/// Reads the chunks. Fails when some are missing, when there is no size, and when a bit stream claims more than the file's header.
pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, PictureError> {
    let damaged = |reason: String| PictureError::damaged(Format::WebP, reason);
    let size = bytes.get(4..8).and_then(|size| size.try_into().ok()).map(u32::from_le_bytes);
    if size.is_none_or(|size| size as usize > bytes.len() - 8) {
        // What is missing may be behind the pixels: how to hold them.
        return Err(PictureError::CutShort { format: Format::WebP });
    }
    // After "RIFF", its size and "WEBP".
    let chunks = Chunks { bytes: bytes.get(12..).unwrap_or_default() };
    let mut canvas = None;
    let mut exif = None;
    for (name, body) in chunks.clone() {
        if name == b"EXIF" && exif.is_none() {
            exif = Some(body);
        }
        let within = if name == b"ANMF" { body.get(FRAME_HEADER..) } else { None };
        let frames = Chunks { bytes: within.unwrap_or_default() };
        for (name, body) in std::iter::once((name, body)).chain(frames) {
            let Some((width, height)) = shape(name, body) else { continue };
            // The first chunk is the file's header, or all there is.
            let (wide, high) = *canvas.get_or_insert((width, height));
            if width > wide || height > high {
                return Err(damaged(format!(
                    "its pixels are {width} x {height}, while its header says {wide} x {high}"
                )));
            }
        }
    }
    match canvas {
        Some((width, height)) if width > 0 && height > 0 => {
            let streams = streams(chunks, (width, height)).map_err(damaged)?;
            Ok(Header { width, height, exif, streams })
        }
        Some((width, height)) => Err(damaged(format!("it is {width} x {height}"))),
        None => Err(damaged("no chunk tells its size".to_owned())),
    }
}

/// The lossless streams of a file of this size.
fn streams(mut chunks: Chunks<'_>, canvas: (u32, u32)) -> Result<Vec<Stream<'_>>, String> {
    let flags = match chunks.next() {
        Some((b"VP8L", bytes)) => return Ok(vec![Stream { bytes, shape: None }]),
        Some((b"VP8X", body)) => body.first().copied().unwrap_or_default(),
        // A lossy one has nothing else.
        _ => return Ok(Vec::new()),
    };
    let first = |name: &[u8]| chunks.clone().find(|chunk| chunk.0 == name).map(|chunk| chunk.1);
    let frame = first(b"ANMF");
    if flags & IS_ANIMATED != 0 {
        let shape = frame.and_then(|frame| shape(b"ANMF", frame)).unwrap_or(canvas);
        let within = frame.and_then(|frame| frame.get(FRAME_HEADER..)).unwrap_or_default();
        // Its alpha comes first, where it has some.
        let stream = match (Chunks { bytes: within }).next() {
            Some((b"VP8L", bytes)) => Some(Stream { bytes, shape: None }),
            Some((b"ALPH", body)) => alpha(body, shape),
            _ => None,
        };
        return Ok(stream.into_iter().collect());
    }
    if frame.is_some() {
        // The decoder would take parts of the frame for those of the picture.
        return Err("it has frames, while its header says that it has none".to_owned());
    }
    let pixels = first(b"VP8L").map(|bytes| Stream { bytes, shape: None });
    let transparency = if flags & HAS_ALPHA != 0 { first(b"ALPH") } else { None };
    Ok(pixels.into_iter().chain(transparency.and_then(|body| alpha(body, canvas))).collect())
}

/// The stream of an alpha plane, where it is a lossless one.
fn alpha(body: &[u8], shape: (u32, u32)) -> Option<Stream<'_>> {
    let (kind, bytes) = body.split_first()?;
    (kind & 3 == 1).then_some(Stream { bytes, shape: Some(shape) })
}

/// The size that a chunk gives, if it is one that does.
fn shape(name: &[u8], body: &[u8]) -> Option<(u32, u32)> {
    let byte = |at: usize| body.get(at).copied().map(u32::from);
    let long_side = |at| Some(1 + (byte(at)? | byte(at + 1)? << 8 | byte(at + 2)? << 16));
    match name {
        b"VP8X" => Some((long_side(4)?, long_side(7)?)),
        b"ANMF" => Some((long_side(6)?, long_side(9)?)),
        b"VP8 " => {
            let side = |at| Some((byte(at)? | byte(at + 1)? << 8) & 0x3fff);
            Some((side(6)?, side(8)?))
        }
        b"VP8L" => {
            let bits = byte(1)? | byte(2)? << 8 | byte(3)? << 16 | byte(4)? << 24;
            Some((1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)))
        }
        _ => None,
    }
}

/// Names and bodies of chunks; one that goes beyond the end is cut there.
#[derive(Clone)]
struct Chunks<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.bytes.split_at_checked(CHUNK_HEADER)?;
        let (name, size) = header.split_at(4);
        let size = u32::from_le_bytes(size.try_into().ok()?) as usize;
        let body = &rest[..size.min(rest.len())];
        self.bytes = rest.get(size + size % 2..).unwrap_or_default();
        Some((name, body))
    }
}
