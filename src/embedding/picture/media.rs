//! Picture formats that browsers show, told by a file's first bytes and by nothing else: neither its name
//! nor what a row says of it.

/// First bytes that are enough to tell.
pub const HEAD_BYTES: usize = 32;

/// The media type of a picture that begins so; `None` where it is no picture that browsers show.
pub fn media_type(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        // Two letters are not enough: reserved zeros follow the length, and then the size of one of the
        // known headers behind the place of the pixels.
        [
            b'B',
            b'M',
            _,
            _,
            _,
            _,
            0,
            0,
            0,
            0,
            _,
            _,
            _,
            _,
            12 | 40 | 52 | 56 | 64 | 108 | 124,
            0,
            0,
            0,
            ..,
        ] => Some("image/bmp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_by_their_first_bytes_and_nothing_else_is() {
        let mut bmp =
            b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00".to_vec();
        for (head, expected) in [
            (&b"\xff\xd8\xff\xe0\x00\x10JFIF"[..], Some("image/jpeg")),
            (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", Some("image/png")),
            (b"GIF89a\x01\x00", Some("image/gif")),
            (b"RIFF\x1a\x00\x00\x00WEBPVP8L", Some("image/webp")),
            (&bmp, Some("image/bmp")),
            (b"RIFF\x1a\x00\x00\x00WAVEfmt ", None),
            (b"BM, a letter that begins so", None),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", None),
            (b"<!doctype html><script>", None),
            (b"\xff\xd8", None),
            (b"", None),
        ] {
            assert_eq!(media_type(head), expected, "{head:?}");
        }
        bmp[14] = 41;
        assert_eq!(media_type(&bmp), None);
        assert!(bmp.len() <= HEAD_BYTES);
    }
}
