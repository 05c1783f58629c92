//! What of a PNG its decoder is given: the chunks that pixels are made of. It would unpack a colour profile, and keep
//! texts, as long as its one limit allows, which must leave room for the pixels.
//! <https://www.w3.org/TR/png-3/#5DataRep>

use std::borrow::Cow;

use flate2::Crc;

use super::{Format, PictureError};

const SIGNATURE_BYTES: usize = 8;
/// Bytes of a chunk beside its body: its length, name and checksum.
const CHUNK_BYTES: usize = 4 + 4 + 4;

/// A PNG without what is not pixels.
pub(super) struct Stripped<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// EXIF data, where it has some.
    pub exif: Option<&'a [u8]>,
}

/// Takes out the chunks of any length that come before the pixels; nothing behind them is read. Fails when the pixels
/// are missing.
pub(super) fn strip(bytes: &[u8]) -> Result<Stripped<'_>, PictureError> {
    let mut exif = None;
    // All that stays before the chunk at hand, once a chunk was left out.
    let mut kept: Option<Vec<u8>> = None;
    let mut at = SIGNATURE_BYTES;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (chunk, name, body) =
            chunk(rest).ok_or(PictureError::CutShort { format: Format::Png })?;
        match name {
            b"IDAT" | b"IEND" => break,
            b"eXIf" | b"iCCP" | b"tEXt" | b"zTXt" | b"iTXt" => {
                if name == b"eXIf" && exif.is_none() && is_whole(chunk) {
                    exif = Some(body);
                }
                kept.get_or_insert_with(|| bytes[..at].to_vec());
            }
            _ => {
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(chunk);
                }
            }
        }
        at += chunk.len();
    }
    let bytes = match kept {
        Some(mut kept) => {
            kept.extend_from_slice(&bytes[at..]);
            Cow::Owned(kept)
        }
        None => Cow::Borrowed(bytes),
    };
    Ok(Stripped { bytes, exif })
}

/// The first chunk, its name and its body. Of the pixels' chunk the name is enough: a decoder says what is missing.
fn chunk(bytes: &[u8]) -> Option<(&[u8], &[u8; 4], &[u8])> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let name = bytes.get(4..)?.first_chunk()?;
    if name == b"IDAT" {
        return Some((bytes, name, &[]));
    }
    let chunk = bytes.get(..length.checked_add(CHUNK_BYTES)?)?;
    Some((chunk, name, chunk.get(8..8 + length)?))
}

/// Whether the checksum is right. What is not pixels is not believed without.
fn is_whole(chunk: &[u8]) -> bool {
    let Some((summed, sum)) = chunk.get(4..).and_then(|chunk| chunk.split_last_chunk()) else {
        return false;
    };
    let mut crc = Crc::new();
    crc.update(summed);
    crc.sum() == u32::from_be_bytes(*sum)
}
